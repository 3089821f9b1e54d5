"""Singular values and effective rank against closed forms and NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ftkit.algos.spectrum import effective_rank, rank_for_energy, singular_values

spectra = st.lists(st.floats(0, 1e3), min_size=1, max_size=20).filter(lambda v: max(v) > 1e-3)


def test_singular_values_are_numpys() -> None:
    matrix = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    expected = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    assert singular_values(matrix).tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_a_product_of_rank_two_has_two_singular_values() -> None:
    generator = torch.Generator().manual_seed(1)
    update = torch.randn(30, 2, generator=generator) @ torch.randn(2, 20, generator=generator)
    values = singular_values(update)
    assert values[1] > 1.0
    assert values[2:].max() < 1e-5 * values[0]
    assert effective_rank(values) <= 2.001
    assert rank_for_energy(values, 1 - 1e-9) == 2


def test_k_equal_values_have_effective_rank_k() -> None:
    values = torch.tensor([3.0] * 4 + [0.0] * 6)
    assert effective_rank(values) == pytest.approx(4)
    assert [rank_for_energy(values, share) for share in (0.25, 0.5, 0.51, 1.0)] == [1, 2, 3, 4]


def test_effective_rank_is_the_exponential_of_the_entropy() -> None:
    shares = np.array([0.7, 0.2, 0.1])
    expected = float(np.exp(-(shares * np.log(shares)).sum()))
    assert effective_rank(torch.tensor(shares * 5)) == pytest.approx(expected)


@given(spectra, st.floats(0.1, 100))
def test_both_ranks_lie_between_one_and_all_and_ignore_scale(values, scale) -> None:
    one, other = torch.tensor(values, dtype=torch.float64), torch.tensor(values).double() * scale
    assert 1 - 1e-9 <= effective_rank(one) <= sum(v > 0 for v in values) + 1e-6
    assert effective_rank(other) == pytest.approx(effective_rank(one), rel=1e-4)
    assert 1 <= rank_for_energy(one) <= len(values)


@given(spectra)
def test_the_kept_values_hold_the_share_and_one_less_would_not(values) -> None:
    spectrum = torch.tensor(values, dtype=torch.float64)
    kept = rank_for_energy(spectrum, 0.9)
    energy = np.sort(np.array(values) ** 2)[::-1]
    assert energy[:kept].sum() >= 0.9 * energy.sum() * (1 - 1e-9)
    assert energy[: kept - 1].sum() < 0.9 * energy.sum() * (1 + 1e-9)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: singular_values(torch.ones(3)), r"must be \(out, in\)"),
        (lambda: singular_values(torch.tensor([[float("nan")]])), "update is nan"),
        (lambda: effective_rank(torch.zeros(3)), "all values are 0"),
        (lambda: effective_rank(torch.tensor([1.0, -1.0])), "never negative"),
        (lambda: effective_rank(torch.ones(2, 2)), r"must be \(n,\)"),
        (lambda: rank_for_energy(torch.ones(2), 0.0), "share=0.0"),
    ],
)
def test_what_is_no_spectrum_is_refused(call, says) -> None:
    with pytest.raises(ValueError, match=says):
        call()
