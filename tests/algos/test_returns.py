"""Returns, TD targets and GAE against double sums in plain Python and a tree that is enumerated."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ragged import fill_padding, pad, ragged, real_rows
from torch import Tensor

from ftkit.algos import gae, monte_carlo_returns, td_targets

FRACTION = st.floats(0, 1)
PADDING = st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))


def _returns(rewards: list[float], gamma: float) -> list[float]:
    span = range(len(rewards))
    return [sum(gamma ** (k - t) * rewards[k] for k in span if k >= t) for t in span]


def _deltas(rewards: list[float], values: list[float], gamma: float) -> list[float]:
    following = [*values[1:], 0.0]
    return [r + gamma * n - v for r, n, v in zip(rewards, following, values, strict=True)]


def _step_average(rewards: list[float], values: list[float], gamma: float, lam: float) -> list:
    """GAE by its definition: k-step advantages weighted by (1 − λ)λ^(k−1), the last by the rest."""
    out = []
    for t in range(len(rewards)):
        steps = len(rewards) - t
        k_step = [
            sum(gamma**i * rewards[t + i] for i in range(k))
            + (gamma**k * values[t + k] if k < steps else 0.0)
            - values[t]
            for k in range(1, steps + 1)
        ]
        weights = [(1 - lam) * lam ** (k - 1) for k in range(1, steps)] + [lam ** (steps - 1)]
        out.append(sum(w * a for w, a in zip(weights, k_step, strict=True)))
    return out


def _assert_rows(got: Tensor, mask: Tensor, expected: list[list[float]]) -> None:
    for row, want in zip(real_rows(got, mask), expected, strict=True):
        assert row == pytest.approx(want, abs=1e-9)
    assert (got[~mask] == 0).all()


@given(ragged(1), FRACTION)
def test_monte_carlo_returns_equal_the_double_sum(data, gamma) -> None:
    (rewards,), mask = data.tensors, data.mask
    expected = [_returns(row, gamma) for row in real_rows(rewards, mask)]
    poisoned = fill_padding(rewards, mask, math.nan)
    _assert_rows(monte_carlo_returns(poisoned, mask, gamma), mask, expected)


@given(ragged(2), FRACTION)
def test_td_targets_are_the_reward_and_the_next_real_value(data, gamma) -> None:
    (rewards, values), mask = data.tensors, data.mask
    expected = [
        [r + gamma * n for r, n in zip(rs, [*vs[1:], 0.0], strict=True)]
        for rs, vs in zip(real_rows(rewards, mask), real_rows(values, mask), strict=True)
    ]
    poisoned = (fill_padding(rewards, mask, math.inf), fill_padding(values, mask, math.nan))
    _assert_rows(td_targets(*poisoned, mask, gamma), mask, expected)


@given(ragged(2), FRACTION, FRACTION)
def test_gae_equals_the_double_sum_and_the_average_of_k_step_estimates(data, gamma, lam) -> None:
    (rewards, values), mask = data.tensors, data.mask
    rows = list(zip(real_rows(rewards, mask), real_rows(values, mask), strict=True))
    poisoned = (fill_padding(rewards, mask, math.nan), fill_padding(values, mask, math.inf))
    got = gae(*poisoned, mask, gamma, lam)
    deltas = [_deltas(r, v, gamma) for r, v in rows]
    _assert_rows(got.deltas, mask, deltas)
    _assert_rows(got.advantages, mask, [_returns(row, gamma * lam) for row in deltas])
    _assert_rows(got.advantages, mask, [_step_average(r, v, gamma, lam) for r, v in rows])


@given(ragged(2), FRACTION)
def test_lambda_1_is_monte_carlo_minus_value_and_lambda_0_the_td_error(data, gamma) -> None:
    (rewards, values), mask = data.tensors, data.mask
    kept = fill_padding(values, mask, 0.0)
    full = gae(rewards, values, mask, gamma, lam=1.0)
    torch.testing.assert_close(full.advantages, monte_carlo_returns(rewards, mask, gamma) - kept)
    torch.testing.assert_close(full.returns, monte_carlo_returns(rewards, mask, gamma))
    one = gae(rewards, values, mask, gamma, lam=0.0)
    torch.testing.assert_close(one.advantages, td_targets(rewards, values, mask, gamma) - kept)
    assert torch.equal(one.advantages, one.deltas)
    torch.testing.assert_close(one.returns, td_targets(rewards, values, mask, gamma))


@given(ragged(2), FRACTION, FRACTION)
def test_advantage_plus_value_is_the_return(data, gamma, lam) -> None:
    (rewards, values), mask = data.tensors, data.mask
    got = gae(rewards, values, mask, gamma, lam)
    assert torch.equal(got.returns, got.advantages + fill_padding(values, mask, 0.0))


@given(ragged(2), FRACTION, FRACTION, PADDING)
def test_padding_on_any_side_changes_nothing(data, gamma, lam, padding) -> None:
    (rewards, values), mask = data.tensors, data.mask
    wide = (pad(rewards, *padding, math.nan), pad(values, *padding, math.nan))
    wide_mask = pad(mask, *padding, False)
    got, expected = gae(*wide, wide_mask, gamma, lam), gae(rewards, values, mask, gamma, lam)
    for padded, plain in zip(got, expected, strict=True):
        assert torch.equal(padded, pad(plain, *padding, 0.0))


def test_targets_carry_no_gradient() -> None:
    rewards, values = (torch.ones(1, 3, requires_grad=True) for _ in range(2))
    mask = torch.ones(1, 3, dtype=torch.bool)
    results = [*gae(rewards, values, mask), monte_carlo_returns(rewards, mask)]
    assert not any(t.requires_grad for t in [*results, td_targets(rewards, values, mask)])


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_with_exact_values_the_mean_of_gae_is_the_exact_advantage_for_every_lambda(lam) -> None:
    """Fair coin tokens, 3 of them: all 8 answers, so that means are exact expectations."""
    torch.manual_seed(0)
    answers = list(itertools.product((0, 1), repeat=3))
    rewards = torch.randn(8, 3, dtype=torch.float64)
    for t in range(2):  # a reward may depend only on the tokens up to its own
        first = {a[: t + 1]: i for i, a in reversed(list(enumerate(answers)))}
        rewards[:, t] = rewards[[first[a[: t + 1]] for a in answers], t]
    mask = torch.ones(8, 3, dtype=torch.bool)
    future = monte_carlo_returns(rewards, mask)

    def mean_over_shared_prefix(x: Tensor, t: int, length: int) -> Tensor:
        groups = [[i for i, b in enumerate(answers) if b[:length] == a[:length]] for a in answers]
        return torch.stack([x[group, t].mean() for group in groups])

    values = torch.stack([mean_over_shared_prefix(future, t, t) for t in range(3)], 1)
    action_values = torch.stack([mean_over_shared_prefix(future, t, t + 1) for t in range(3)], 1)
    estimate = gae(rewards, values, mask, gamma=1.0, lam=lam).advantages
    mean = torch.stack([mean_over_shared_prefix(estimate, t, t + 1) for t in range(3)], 1)
    torch.testing.assert_close(mean, action_values - values)
