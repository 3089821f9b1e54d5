"""PPO's losses: brute force, the exact policy gradient, where the gradient stops, padding."""

import itertools
import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from ragged import Ragged, fill_padding, pad, ragged
from torch import Tensor

from ftkit.algos import (
    approx_kl,
    clip_fraction,
    explained_variance,
    gae,
    masked_mean,
    policy_loss,
    token_kl,
    value_loss,
)

EPSILON = st.floats(0.05, 0.5)
PADDING = st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))
HERE = torch.ones(1, 6, dtype=torch.bool)


@given(ragged(3, size=1.0), EPSILON)
def test_policy_loss_equals_equation_7_token_by_token(data: Ragged, epsilon: float) -> None:
    (new, old, advantages), mask = data.tensors, data.mask
    terms = []
    for n, o, a in zip(*(x[mask].tolist() for x in (new, old, advantages)), strict=True):
        ratio = math.exp(n - o)
        terms.append(min(ratio * a, min(max(ratio, 1 - epsilon), 1 + epsilon) * a))
    got = policy_loss(new, old, advantages, mask, epsilon)
    assert got.loss.item() == pytest.approx(-sum(terms) / len(terms))
    torch.testing.assert_close(got.ratio, torch.where(mask, torch.exp(new - old), 1.0))


@given(ragged(2))
def test_ratio_1_clips_nothing_and_the_loss_is_minus_the_mean_advantage(data: Ragged) -> None:
    (logprobs, advantages), mask = data.tensors, data.mask
    got = policy_loss(logprobs, logprobs, advantages, mask)
    assert (got.ratio == 1).all()
    assert clip_fraction(got.clipped, mask).item() == 0
    torch.testing.assert_close(got.loss, -masked_mean(advantages, mask))
    assert approx_kl(logprobs, logprobs, mask).item() == 0


@given(ragged(3, size=1.0), EPSILON)
def test_the_clipped_objective_is_a_pessimistic_bound(data: Ragged, epsilon: float) -> None:
    (new, old, advantages), mask = data.tensors, data.mask
    free = -masked_mean(torch.exp(new - old) * advantages, mask)
    assert policy_loss(new, old, advantages, mask, epsilon).loss >= free - 1e-12


@given(ragged(3, size=1.0), EPSILON)
def test_gradient_is_zero_exactly_at_clipped_tokens_and_else_ratio_times_advantage(
    data: Ragged, epsilon: float
) -> None:
    (new, old, advantages), mask = data.tensors, data.mask
    new = new.clone().requires_grad_()
    got = policy_loss(new, old, advantages, mask, epsilon)
    (gradient,) = torch.autograd.grad(got.loss, new)
    left_high = (advantages > 0) & (got.ratio > 1 + epsilon)
    left_low = (advantages < 0) & (got.ratio < 1 - epsilon)
    assert torch.equal(got.clipped, mask & (left_high | left_low))
    expected = -got.ratio * advantages / mask.sum()
    torch.testing.assert_close(gradient, torch.where(mask & ~got.clipped, expected, 0.0))


def test_the_four_corners_of_the_clip() -> None:
    """Ratio too high, too low, inside; good and bad tokens: two of six lose their gradient."""
    old = torch.zeros(1, 6, dtype=torch.float64)
    new = torch.log(torch.tensor([[1.5, 1.5, 0.5, 0.5, 1.1, 1.1]], dtype=torch.float64))
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0, 1.0, -1.0]], dtype=torch.float64)
    got = policy_loss(new.requires_grad_(), old, advantages, HERE, 0.2)
    assert got.clipped.tolist() == [[True, False, False, True, False, False]]
    assert got.loss.item() == pytest.approx(-(1.2 - 1.5 + 0.5 - 0.8 + 1.1 - 1.1) / 6)
    assert clip_fraction(got.clipped, HERE).item() == pytest.approx(2 / 6)
    (gradient,) = torch.autograd.grad(got.loss, new)
    assert (gradient == 0).tolist() == got.clipped.tolist()
    assert torch.autograd.gradcheck(
        lambda logprobs: policy_loss(logprobs, old, advantages, HERE, 0.2).loss, (new,)
    )


def test_at_ratio_1_the_gradient_is_the_exact_policy_gradient() -> None:
    """All 8 answers of 3 coin tokens, each as likely: the mean over tokens is an expectation."""
    torch.manual_seed(0)
    answers = torch.tensor(list(itertools.product((0, 1), repeat=3)))
    score = torch.randn(8, dtype=torch.float64)
    logits = torch.zeros(7, 2, dtype=torch.float64, requires_grad=True)  # a node a prefix
    nodes = torch.stack(
        [torch.zeros(8), 1 + answers[:, 0], 3 + answers[:, :2] @ torch.tensor([2, 1])], 1
    )

    def logprobs() -> Tensor:
        table = logits.log_softmax(-1)[nodes.long()]  # (8, 3, 2)
        return table.gather(2, answers[:, :, None]).squeeze(2)

    expected_score = (logprobs().sum(1).exp() * score).sum()
    (exact,) = torch.autograd.grad(expected_score, logits)
    mask = torch.ones(8, 3, dtype=torch.bool)
    rewards = torch.zeros(8, 3, dtype=torch.float64)
    rewards[:, 2] = score
    baseline = torch.randn(7, dtype=torch.float64)[nodes.long()]  # any function of the state
    advantages = gae(rewards, baseline, mask, lam=1.0).advantages
    loss = policy_loss(logprobs(), logprobs(), advantages, mask).loss
    (estimate,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(3 * estimate, -exact)


@given(ragged(3), EPSILON)
def test_value_loss_equals_its_formula_and_clipping_never_lowers_it(
    data: Ragged, epsilon: float
) -> None:
    (values, old, returns), mask = data.tensors, data.mask
    terms = []
    for v, o, r in zip(*(x[mask].tolist() for x in (values, old, returns)), strict=True):
        near = min(max(v, o - epsilon), o + epsilon)
        terms.append(max((v - r) ** 2, (near - r) ** 2))
    got = value_loss(values, old, returns, mask, epsilon)
    assert got.loss.item() == pytest.approx(0.5 * sum(terms) / len(terms), abs=1e-12)
    plain = value_loss(values, old, returns, mask, clip_range=None)
    torch.testing.assert_close(plain.loss, 0.5 * masked_mean((values - returns).square(), mask))
    assert got.loss >= plain.loss
    assert not plain.clipped.any()


@given(ragged(3), EPSILON)
def test_value_gradient_is_zero_exactly_at_clipped_tokens_and_else_the_error(
    data: Ragged, epsilon: float
) -> None:
    (values, old, returns), mask = data.tensors, data.mask
    moved = (values - old).abs() > epsilon
    near = values.clamp(old - epsilon, old + epsilon)
    gap = (near - returns).square() - (values - returns).square()
    assume((gap[moved].abs() > 1e-9).all())  # at a tie torch.maximum shares the gradient
    values = values.clone().requires_grad_()
    got = value_loss(values, old, returns, mask, epsilon)
    (gradient,) = torch.autograd.grad(got.loss, values)
    expected = (values.detach() - returns) / mask.sum()
    torch.testing.assert_close(gradient, torch.where(mask & ~got.clipped, expected, 0.0))
    assert torch.equal(got.clipped, mask & moved & (gap > 0))


def test_value_loss_gradient_matches_finite_differences() -> None:
    torch.manual_seed(3)
    values = torch.randn(1, 6, dtype=torch.float64, requires_grad=True)
    old, returns = torch.randn(2, 1, 6, dtype=torch.float64)
    got = value_loss(values, old, returns, HERE)
    assert 0 < clip_fraction(got.clipped, HERE) < 1
    assert torch.autograd.gradcheck(lambda v: value_loss(v, old, returns, HERE).loss, (values,))


@given(ragged(3, size=1.0), PADDING)
def test_padding_changes_no_loss_gradient_or_statistic(data: Ragged, padding) -> None:
    mask = data.mask
    wide = [pad(x, *padding, math.nan) for x in data.tensors]
    wide_mask = pad(mask, *padding, False)
    for loss in (policy_loss, value_loss):
        narrow_in = data.tensors[0].clone().requires_grad_()
        wide_in = wide[0].clone().requires_grad_()
        narrow = loss(narrow_in, *data.tensors[1:], mask)
        padded = loss(wide_in, *wide[1:], wide_mask)
        torch.testing.assert_close(padded.loss, narrow.loss)
        assert torch.equal(padded.clipped, pad(narrow.clipped, *padding, False))
        assert clip_fraction(padded.clipped, wide_mask) == clip_fraction(narrow.clipped, mask)
        narrow.loss.backward()
        padded.loss.backward()
        torch.testing.assert_close(wide_in.grad, pad(narrow_in.grad, *padding, 0.0))
    for statistic in (approx_kl, explained_variance):
        torch.testing.assert_close(
            statistic(*wide[:2], wide_mask), statistic(*data.tensors[:2], mask), equal_nan=True
        )


@given(ragged(3, size=1.0))
def test_parts_weighted_by_their_tokens_add_up_to_the_whole(data: Ragged) -> None:
    assume(len(data.mask) > 1)
    for loss in (policy_loss, value_loss):
        whole = loss(*data.tensors, data.mask).loss
        parts = [
            loss(*(x[rows] for x in data.tensors), data.mask[rows]).loss
            * (data.mask[rows].sum() / data.mask.sum())
            for rows in (slice(0, 1), slice(1, None))
        ]
        torch.testing.assert_close(sum(parts), whole)


def test_no_gradient_reaches_what_the_rollout_recorded() -> None:
    tensors = [torch.randn(1, 6, requires_grad=True) for _ in range(3)]
    for loss in (policy_loss, value_loss):
        got = loss(*tensors, HERE)
        assert torch.autograd.grad(got.loss, tensors[1:], allow_unused=True) == (None, None)
    assert not policy_loss(*tensors, HERE).ratio.requires_grad


@given(ragged(2))
def test_approximate_kl_is_over_tokens_of_the_old_policy(data: Ragged) -> None:
    (new, old), mask = data.tensors, data.mask
    for estimator in ("k1", "k2", "k3"):
        expected = masked_mean(token_kl(old, new, mask, estimator), mask)
        assert torch.equal(approx_kl(new, old, mask, estimator), expected)
    trl = 0.5 * masked_mean((new - old).square(), mask)
    torch.testing.assert_close(approx_kl(new, old, mask, "k2"), trl)


@given(ragged(2), st.floats(-5, 5))
def test_explained_variance_is_1_for_perfect_0_for_constant_and_blind_to_an_offset(
    data: Ragged, offset: float
) -> None:
    (returns, noise), mask = data.tensors, data.mask
    assume(returns[mask].std(correction=0) > 0.1)
    returns = fill_padding(returns, mask, math.nan)
    perfect = explained_variance(returns + offset, returns, mask)
    assert perfect.item() == pytest.approx(1.0)
    constant = explained_variance(torch.full_like(returns, offset), returns, mask)
    assert constant.item() == pytest.approx(0.0, abs=1e-9)
    errors = (returns - noise)[mask]
    expected = 1 - errors.var(correction=0) / returns[mask].var(correction=0)
    torch.testing.assert_close(explained_variance(noise, returns, mask), expected)


def test_explained_variance_of_constant_returns_is_not_a_number() -> None:
    values = torch.tensor([[0.1, 0.2, 0.3]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert explained_variance(values, torch.full((1, 3), 0.1), mask).isnan()
