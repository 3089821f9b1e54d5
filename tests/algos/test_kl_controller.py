"""The KL coefficient: fixed, or held at a target by Ziegler's controller."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftkit.algos import AdaptiveKL, FixedKL

COEF = st.floats(1e-4, 10)
KL = st.floats(-50, 500)


@given(COEF, KL)
def test_fixed_never_moves(coef, kl) -> None:
    assert FixedKL().next_coef(coef, kl, 64) == coef


@given(COEF, KL, st.floats(0.5, 50), st.integers(1, 512))
def test_adaptive_follows_the_equation_and_stays_positive(coef, kl, target, episodes) -> None:
    controller = AdaptiveKL(target, horizon=1000)
    error = max(-0.2, min(0.2, kl / target - 1))
    got = controller.next_coef(coef, kl, episodes)
    assert got == pytest.approx(coef * (1 + error * episodes / 1000))
    assert got > 0


@pytest.mark.parametrize(("kl", "sign"), [(12.0, 1), (6.3, 1), (6.0, 0), (5.7, -1), (-1.0, -1)])
def test_the_price_rises_above_the_target_and_falls_below(kl, sign) -> None:
    change = AdaptiveKL(target=6.0).next_coef(0.15, kl, 64) - 0.15
    assert math.copysign(1, change) == sign if sign else change == 0


def test_the_values_of_the_paper_give_ten_percent_for_a_batch_of_half_a_horizon() -> None:
    assert AdaptiveKL().next_coef(0.15, 100.0, 5_000) == pytest.approx(0.15 * 1.1)


def test_the_loop_brings_a_policy_that_obeys_its_price_to_the_target() -> None:
    """A policy whose KL is 2/β settles at β = 2/target."""
    controller, coef = AdaptiveKL(target=6.0, horizon=1_000), 0.02
    for _ in range(400):
        coef = controller.next_coef(coef, 2.0 / coef, 100)
    assert 2.0 / coef == pytest.approx(6.0, rel=1e-3)


def test_what_cannot_be_controlled_is_refused() -> None:
    with pytest.raises(ValueError, match="target is 0"):
        AdaptiveKL(target=0.0)
    with pytest.raises(ValueError, match="horizon is -1"):
        AdaptiveKL(horizon=-1)
    with pytest.raises(ValueError, match="measured KL is nan"):
        AdaptiveKL().next_coef(0.1, math.nan, 64)
    with pytest.raises(ValueError, match=r"coef is -0\.1"):
        FixedKL().next_coef(-0.1, 1.0, 64)
    with pytest.raises(ValueError, match="episodes is 0"):
        FixedKL().next_coef(0.1, 1.0, 0)
    with pytest.raises(ValueError, match="lengthen the horizon"):
        AdaptiveKL(horizon=10).next_coef(0.1, 1.0, 50)
