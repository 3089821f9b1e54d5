"""The pairwise reward loss: closed forms, TRL's formula, stability and gradients."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from trl import RewardTrainer

from ftkit.algos import pairwise_losses, pairwise_reward_loss

SCORES = st.lists(
    st.tuples(st.floats(-10, 10), st.floats(-10, 10), st.floats(0, 3)), min_size=1, max_size=5
).map(lambda rows: torch.tensor(rows, dtype=torch.float64).unbind(1))


METRICS = ("min_reward", "mean_reward", "max_reward", "accuracy", "margin")


def _trl_loss(chosen: Tensor, rejected: Tensor, margin: Tensor | None, centering: float) -> Tensor:
    """Run `RewardTrainer.compute_loss` itself, with a model that returns these scores."""
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=False),
        args=SimpleNamespace(center_rewards_coefficient=centering),
        accelerator=SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x),
        _metrics={"eval": {name: [] for name in METRICS}},
        _total_train_tokens=0,
    )

    def model(**_: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=torch.cat([chosen, rejected])[:, None])

    inputs = {} if margin is None else {"margin": margin}
    return RewardTrainer.compute_loss(trainer, model, inputs)


@given(SCORES, st.booleans(), st.sampled_from([0.0, 0.01, 1.0]))
def test_loss_equals_that_of_trls_reward_trainer(scores, with_margin, centering) -> None:
    chosen, rejected, margin = scores
    asked = margin if with_margin else None
    torch.testing.assert_close(
        pairwise_reward_loss(chosen, rejected, asked, centering),
        _trl_loss(chosen, rejected, asked, centering),
    )


@given(SCORES)
def test_each_loss_is_the_log_of_one_plus_the_exponential_of_minus_the_gap(scores) -> None:
    chosen, rejected, margin = scores
    gap = chosen - rejected - margin
    torch.testing.assert_close(
        pairwise_losses(chosen, rejected, margin), torch.log1p(torch.exp(-gap))
    )


@given(SCORES)
def test_the_two_orders_of_a_pair_are_the_two_outcomes_of_one_choice(scores) -> None:
    chosen, rejected, _ = scores
    likelihoods = [
        torch.exp(-pairwise_losses(*pair)) for pair in ((chosen, rejected), (rejected, chosen))
    ]
    torch.testing.assert_close(sum(likelihoods), torch.ones_like(chosen))


@given(SCORES, st.floats(-5, 5))
def test_only_the_centering_term_sees_a_common_shift(scores, shift) -> None:
    chosen, rejected, _ = scores
    moved = (chosen + shift, rejected + shift)
    torch.testing.assert_close(
        pairwise_reward_loss(*moved), pairwise_reward_loss(chosen, rejected), atol=1e-9, rtol=1e-9
    )
    centred = pairwise_reward_loss(chosen, -chosen, centering=1.0)
    torch.testing.assert_close(centred, pairwise_reward_loss(chosen, -chosen))


def test_a_tie_costs_log_2_and_a_wrong_order_about_the_gap() -> None:
    zero = torch.zeros(1)
    assert pairwise_losses(zero, zero).item() == pytest.approx(math.log(2))
    assert pairwise_losses(zero, zero + 1000).item() == pytest.approx(1000)
    assert pairwise_losses(zero + 1000, zero).item() == 0.0


def test_gradient_is_minus_the_probability_of_the_other_order() -> None:
    chosen = torch.tensor([-800.0, -1.0, 0.0, 2.0], requires_grad=True)
    pairwise_losses(chosen, torch.zeros(4)).sum().backward()
    torch.testing.assert_close(chosen.grad, -torch.sigmoid(-chosen.detach()))


def test_gradients_match_finite_differences() -> None:
    torch.manual_seed(0)
    chosen, rejected, margin = (
        torch.randn(4, dtype=torch.float64, requires_grad=True) for _ in range(3)
    )
    assert torch.autograd.gradcheck(
        lambda c, r, m: pairwise_reward_loss(c, r, m, centering=0.1), (chosen, rejected, margin)
    )


def test_bad_pairs_are_named() -> None:
    two = torch.zeros(2)
    with pytest.raises(ValueError, match="rejected is nan at row 1 "):
        pairwise_losses(two, torch.tensor([0.0, math.nan]))
    with pytest.raises(ValueError, match=r"chosen has shape \(2, 1\)"):
        pairwise_losses(two[:, None], two[:, None])
    with pytest.raises(ValueError, match=r"rejected has shape \(3,\) but the mask has \(2,\)"):
        pairwise_losses(two, torch.zeros(3))
    with pytest.raises(ValueError, match="margin is inf at row 0 "):
        pairwise_losses(two, two, torch.full((2,), math.inf))
    with pytest.raises(ValueError, match="nothing to compute"):
        pairwise_losses(two[:0], two[:0])
    with pytest.raises(ValueError, match="centering is -1"):
        pairwise_reward_loss(two, two, centering=-1.0)
