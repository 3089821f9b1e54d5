"""KL estimators against the exact KL of two categoricals, and the per-token reward by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ragged import fill_padding, pad, ragged, real_rows
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from ftkit.algos import k1, k2, k3, masked_row_sums, token_kl, token_rewards

LOGITS = st.lists(st.floats(-3, 3), min_size=5, max_size=5).map(
    lambda numbers: torch.tensor(numbers, dtype=torch.float64)
)
PADDING = st.tuples(st.integers(0, 2), st.integers(0, 2))


def _expectation(of: Tensor, q: Tensor) -> Tensor:
    """Enumerate E_q: the vocabulary is small enough to be exact."""
    return (q.detach().exp() * of).sum()


@given(LOGITS, LOGITS)
def test_k1_and_k3_are_unbiased_and_k3_and_k2_not_negative(a, b) -> None:
    q, p = a.log_softmax(0), b.log_softmax(0)
    exact = kl_divergence(Categorical(logits=a), Categorical(logits=b))
    torch.testing.assert_close(_expectation(k1(q, p), q), exact, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(_expectation(k3(q, p), q), exact, atol=1e-9, rtol=1e-9)
    assert (k3(q, p) >= -1e-12).all()
    assert (k2(q, p) >= 0).all()


@given(LOGITS, LOGITS)
def test_k2_is_biased_by_third_order_only(a, b) -> None:
    q, p = a.log_softmax(0), (a + 0.01 * b).log_softmax(0)
    exact = _expectation(k1(q, p), q)
    assert abs(_expectation(k2(q, p), q) - exact) <= 0.02 * exact + 1e-12


def test_k3_varies_less_than_k1_for_close_distributions() -> None:
    torch.manual_seed(0)
    a = torch.randn(50, dtype=torch.float64)
    q, p = a.log_softmax(0), (a + 0.1 * torch.randn_like(a)).log_softmax(0)

    def variance(k: Tensor) -> Tensor:
        return _expectation(k.square(), q) - _expectation(k, q).square()

    assert variance(k3(q, p)) < 0.05 * variance(k1(q, p))


def test_as_losses_the_estimators_pull_in_the_directions_that_the_module_says() -> None:
    torch.manual_seed(1)
    a = torch.randn(6, dtype=torch.float64, requires_grad=True)
    b = torch.randn(6, dtype=torch.float64)

    def gradient(of: Tensor) -> Tensor:
        return torch.autograd.grad(of, a)[0]

    mine, other = Categorical(logits=a), Categorical(logits=b)
    q, p = a.log_softmax(0), b.log_softmax(0)
    torch.testing.assert_close(gradient(_expectation(k1(q, p), q)), torch.zeros(6).double())
    q = a.log_softmax(0)
    towards = gradient(kl_divergence(mine, other))
    torch.testing.assert_close(gradient(_expectation(k2(q, p), q)), towards)
    q = a.log_softmax(0)
    reverse = gradient(kl_divergence(other, Categorical(logits=a)))
    torch.testing.assert_close(gradient(_expectation(k3(q, p), q)), reverse)


@pytest.mark.parametrize("estimator", [k1, k2, k3])
def test_estimator_gradients_match_finite_differences(estimator) -> None:
    torch.manual_seed(0)
    q, p = (torch.randn(7, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(estimator, (q, p))


def test_k3_keeps_its_digits_where_the_models_nearly_agree() -> None:
    shift = torch.tensor([1e-3], dtype=torch.float32)
    assert k3(torch.zeros(1), shift).item() == pytest.approx(0.5e-6, rel=1e-2)


@given(ragged(2), st.sampled_from(["k1", "k2", "k3"]), PADDING)
def test_padding_changes_no_token_kl(data, estimator, padding) -> None:
    (q, p), mask = data.tensors, data.mask
    kl = token_kl(q, p, mask, estimator)
    assert (kl[~mask] == 0).all()
    wide = (pad(q, *padding, 2, math.nan), pad(p, *padding, 2, -math.inf))
    assert torch.equal(
        token_kl(*wide, pad(mask, *padding, 2, False), estimator), pad(kl, *padding, 2, 0.0)
    )


@given(ragged(1), st.floats(0, 1))
def test_reward_is_the_kl_penalty_with_the_score_on_the_last_real_token(data, beta) -> None:
    (kl,), mask = data.tensors, data.mask
    scores = torch.arange(1.0, len(mask) + 1)
    rewards = token_rewards(scores, fill_padding(kl, mask, math.nan), mask, beta)
    for got, penalties, score in zip(
        real_rows(rewards, mask), real_rows(kl, mask), scores.tolist(), strict=True
    ):
        assert got[:-1] == pytest.approx([-beta * k for k in penalties[:-1]])
        assert got[-1] == pytest.approx(score - beta * penalties[-1])
    assert (rewards[~mask] == 0).all()


@given(ragged(2), st.floats(0, 1))
def test_with_k1_a_row_of_rewards_sums_to_equation_2_of_ziegler(data, beta) -> None:
    (q, p), mask = data.tensors, data.mask
    scores = torch.linspace(-1, 1, len(mask), dtype=torch.float64)
    rewards = token_rewards(scores, token_kl(q, p, mask), mask, beta)
    log_odds = masked_row_sums(q, mask) - masked_row_sums(p, mask)
    torch.testing.assert_close(rewards.sum(1), scores - beta * log_odds)


@given(ragged(1), PADDING)
def test_padding_columns_change_no_reward(data, padding) -> None:
    (kl,), mask = data.tensors, data.mask
    scores = torch.arange(1.0, len(mask) + 1)
    rewards = token_rewards(scores, kl, mask, 0.1)
    wide = token_rewards(scores, pad(kl, *padding, 0, math.nan), pad(mask, *padding, 0, False), 0.1)
    assert torch.equal(wide, pad(rewards, *padding, 0, 0.0))


def test_rewards_carry_no_gradient() -> None:
    kl = torch.ones(1, 2, requires_grad=True)
    rewards = token_rewards(
        torch.ones(1, requires_grad=True), kl, torch.ones(1, 2, dtype=torch.bool), 0.1
    )
    assert not rewards.requires_grad
