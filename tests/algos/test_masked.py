"""Statistics over real tokens: against plain Python on the real values, whatever the padding."""

import math
import statistics

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from ragged import fill_padding, pad, ragged

from ftkit.algos import last_real_index, masked_mean, masked_row_sums, masked_var, whiten

PADDING = st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))


@given(ragged(1))
def test_mean_and_variance_are_those_of_the_real_values_alone(data) -> None:
    (values,) = data.tensors
    real = values[data.mask].tolist()
    poisoned = fill_padding(values, data.mask, math.nan)
    assert masked_mean(poisoned, data.mask).item() == pytest.approx(statistics.fmean(real))
    expected = statistics.pvariance(real)
    assert masked_var(poisoned, data.mask).item() == pytest.approx(expected, abs=1e-12)


@given(ragged(1), PADDING)
def test_padding_changes_no_statistic(data, padding) -> None:
    (values,), mask = data.tensors, data.mask
    wide, wide_mask = pad(values, *padding, math.inf), pad(mask, *padding, False)
    torch.testing.assert_close(masked_mean(wide, wide_mask), masked_mean(values, mask))
    torch.testing.assert_close(masked_var(wide, wide_mask), masked_var(values, mask))
    expected = pad(whiten(values, mask), *padding, 0.0)
    torch.testing.assert_close(whiten(wide, wide_mask), expected)
    rows = masked_row_sums(wide, wide_mask)
    torch.testing.assert_close(rows[: len(mask)], masked_row_sums(values, mask))
    assert (rows[len(mask) :] == 0).all()


@given(ragged(1))
def test_whitened_real_values_have_mean_0_and_biased_variance_1(data) -> None:
    (values,) = data.tensors
    assume(values[data.mask].std(correction=0) > 0.1)
    white = whiten(values, data.mask)
    assert masked_mean(white, data.mask).item() == pytest.approx(0.0, abs=1e-9)
    assert masked_var(white, data.mask).item() == pytest.approx(1.0, rel=2e-6)
    assert (white[~data.mask] == 0).all()


@given(ragged(1))
def test_whitening_without_shift_keeps_the_mean(data) -> None:
    (values,), mask = data.tensors, data.mask
    kept = whiten(values, mask, shift_mean=False)
    torch.testing.assert_close(masked_mean(kept, mask), masked_mean(values, mask))
    assert (kept[~mask] == 0).all()


def test_whitening_constant_values_or_one_token_gives_zeros_not_nan() -> None:
    mask = torch.tensor([[True, True, True, False]])
    assert whiten(torch.full((1, 4), 0.1), mask).abs().max() < 1e-3
    one = torch.tensor([[True, False, False, False]])
    assert (whiten(torch.full((1, 4), 5.0), one) == 0).all()


def test_whitening_over_padding_would_give_other_numbers() -> None:
    """The fault this guards against is visible: zeros at padding shift the mean."""
    values = torch.tensor([[1.0, 3.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, False, False]])
    torch.testing.assert_close(whiten(values, mask)[mask], torch.tensor([-1.0, 1.0]))
    everything = torch.ones_like(mask)
    assert (whiten(values, everything)[mask] - torch.tensor([-1.0, 1.0])).abs().max() > 0.5


def test_gradients_match_finite_differences_and_are_zero_at_padding() -> None:
    torch.manual_seed(0)
    values = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True, False, True], [False, True, True, False]])
    for function in (masked_mean, masked_var, whiten, masked_row_sums):
        assert torch.autograd.gradcheck(lambda v, f=function: f(v, mask), (values,))
    poisoned = fill_padding(values.detach(), mask, math.nan).requires_grad_()
    whiten(poisoned, mask).square().sum().backward()
    assert (poisoned.grad[~mask] == 0).all()


def test_half_precision_is_summed_in_float32() -> None:
    values = torch.ones(1, 4096, dtype=torch.bfloat16)
    total = masked_row_sums(values, torch.ones(1, 4096, dtype=torch.bool))
    assert total.dtype == torch.float32
    assert total.item() == 4096


def test_last_real_index_is_found_on_either_padding_side() -> None:
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0], [1, 1, 1, 1]]).bool()
    assert last_real_index(mask).tolist() == [1, 3, 2, 3]


def test_a_row_without_real_tokens_has_no_last_one_and_is_named() -> None:
    mask = torch.tensor([[True, False], [False, False]])
    with pytest.raises(ValueError, match="row 1 has no real token"):
        last_real_index(mask)
