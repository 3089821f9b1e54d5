"""What the maths refuses, and that the message names function, tensor, row and token."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ftkit.algos import (
    approx_kl,
    clip_fraction,
    explained_variance,
    gae,
    masked_mean,
    masked_row_sums,
    masked_var,
    monte_carlo_returns,
    policy_loss,
    td_targets,
    token_entropy,
    token_kl,
    token_logprobs,
    token_rewards,
    value_loss,
    whiten,
)

SHAPE = (2, 3)
TOKEN_FUNCTIONS: dict[str, tuple[Callable[..., object], int]] = {
    "masked_mean": (masked_mean, 1),
    "masked_var": (masked_var, 1),
    "masked_row_sums": (masked_row_sums, 1),
    "whiten": (whiten, 1),
    "token_kl": (token_kl, 2),
    "monte_carlo_returns": (monte_carlo_returns, 1),
    "td_targets": (td_targets, 2),
    "gae": (gae, 2),
    "policy_loss": (policy_loss, 3),
    "value_loss": (value_loss, 3),
    "approx_kl": (approx_kl, 2),
    "explained_variance": (explained_variance, 2),
}
CASES = [(name, i) for name, (_, count) in TOKEN_FUNCTIONS.items() for i in range(count)]
FULL = torch.ones(SHAPE, dtype=torch.bool)


def _call(name: str, mask: Tensor, *, at: int = 0, instead: Tensor | None = None) -> object:
    """Call a function of `TOKEN_FUNCTIONS` on zeros, with its argument `at` replaced."""
    function, count = TOKEN_FUNCTIONS[name]
    arguments = [torch.zeros(SHAPE) for _ in range(count)]
    if instead is not None:
        arguments[at] = instead
    return function(*arguments, mask)


@pytest.mark.parametrize(("name", "argument"), CASES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_real_value_that_is_not_finite_is_named(name: str, argument: int, bad: float) -> None:
    values = torch.zeros(SHAPE)
    values[1, 2] = bad
    with pytest.raises(ValueError, match=rf"is {bad} at row 1, token 2 \(1 of 6"):
        _call(name, FULL, at=argument, instead=values)


@pytest.mark.parametrize(("name", "argument"), CASES)
def test_a_padded_value_may_be_anything(name: str, argument: int) -> None:
    mask = FULL.clone()
    mask[1, 2] = False
    values = torch.zeros(SHAPE)
    values[1, 2] = math.nan
    _call(name, mask, at=argument, instead=values)


@pytest.mark.parametrize(("name", "argument"), CASES)
def test_a_shape_that_would_broadcast_is_refused(name: str, argument: int) -> None:
    with pytest.raises(ValueError, match=r"has shape \(2, 1\) but the mask has \(2, 3\)"):
        _call(name, FULL, at=argument, instead=torch.zeros(2, 1))


@pytest.mark.parametrize("name", TOKEN_FUNCTIONS)
def test_an_all_false_mask_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="selects no value"):
        _call(name, ~FULL)


@pytest.mark.parametrize("name", TOKEN_FUNCTIONS)
def test_an_attention_mask_of_integers_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"must be bool, not torch.int64"):
        _call(name, FULL.long())


@pytest.mark.parametrize("name", ["gae", "td_targets", "policy_loss", "token_kl"])
def test_a_mask_without_a_time_axis_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"must be \(batch, time\)"):
        _call(name, torch.ones(3, dtype=torch.bool))


@pytest.mark.parametrize("number", [-0.1, 1.1, math.nan])
def test_discounts_lie_between_0_and_1(number: float) -> None:
    zeros = torch.zeros(SHAPE)
    with pytest.raises(ValueError, match="gamma is"):
        monte_carlo_returns(zeros, FULL, gamma=number)
    with pytest.raises(ValueError, match="gamma is"):
        td_targets(zeros, zeros, FULL, gamma=number)
    with pytest.raises(ValueError, match="lam is"):
        gae(zeros, zeros, FULL, lam=number)


@pytest.mark.parametrize("number", [0.0, -0.2, math.inf])
def test_clip_ranges_are_positive(number: float) -> None:
    zeros = torch.zeros(SHAPE)
    with pytest.raises(ValueError, match="policy_loss: clip_range is"):
        policy_loss(zeros, zeros, zeros, FULL, clip_range=number)
    with pytest.raises(ValueError, match="value_loss: clip_range is"):
        value_loss(zeros, zeros, zeros, FULL, clip_range=number)


def test_clip_fraction_refuses_another_shape() -> None:
    with pytest.raises(ValueError, match="has shape"):
        clip_fraction(FULL[:, :1], FULL)


def test_scores_are_one_a_row_finite_and_payable() -> None:
    kl = torch.zeros(SHAPE)
    with pytest.raises(ValueError, match=r"scores has shape \(2, 1\); it must be \(batch,\)"):
        token_rewards(torch.zeros(2, 1), kl, FULL, 0.1)
    with pytest.raises(ValueError, match="3 scores for 2 answers"):
        token_rewards(torch.zeros(3), kl, FULL, 0.1)
    with pytest.raises(ValueError, match="scores is nan at row 1 "):
        token_rewards(torch.tensor([0.0, math.nan]), kl, FULL, 0.1)
    with pytest.raises(ValueError, match=r"kl_coef is -0\.1"):
        token_rewards(torch.zeros(2), kl, FULL, -0.1)
    with pytest.raises(ValueError, match="row 1 has no real token"):
        token_rewards(torch.zeros(2), kl, torch.tensor([[True] * 3, [False] * 3]), 0.1)


def test_an_unknown_estimator_is_refused_with_the_known_ones() -> None:
    zeros = torch.zeros(SHAPE)
    with pytest.raises(ValueError, match="'k4'; use 'k1', 'k2' or 'k3'"):
        token_kl(zeros, zeros, FULL, "k4")  # type: ignore[arg-type]


def test_logits_are_checked_by_shape_id_and_result() -> None:
    logits, ids = torch.zeros(2, 3, 5), torch.zeros(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match=r"logits have shape \(2, 2, 5\)"):
        token_entropy(logits[:, :2], FULL)
    with pytest.raises(ValueError, match=r"temperature is 0\.0"):
        token_entropy(logits, FULL, temperature=0.0)
    with pytest.raises(ValueError, match="id 5 at row 0, token 0 is outside the 5 ids"):
        token_logprobs(logits, ids + 5, FULL)
    excluded = logits.clone()
    excluded[1, 0, 0] = -math.inf
    with pytest.raises(ValueError, match="the log-probability is -inf at row 1, token 0"):
        token_logprobs(excluded, ids, FULL)
    excluded[1, 2, 3] = math.nan
    with pytest.raises(ValueError, match="the entropy is nan at row 1, token 2"):
        token_entropy(excluded, FULL)


def test_a_ratio_that_overflows_is_an_error_not_a_clamp() -> None:
    logprobs = torch.zeros(SHAPE)
    old = logprobs.clone()
    old[0, 1] = -100.0
    with pytest.raises(ValueError, match=r"the ratio .* is inf at row 0, token 1"):
        policy_loss(logprobs, old, torch.ones(SHAPE), FULL)
