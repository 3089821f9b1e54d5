"""Ranges against their closed forms, and the bill against hand arithmetic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftkit.errors import SettingsError
from ftkit.stages import costs
from ftkit.stages.costs import Factor, Range, simulate


@given(low=st.floats(0.01, 1e6), factor=st.floats(1.001, 1e3), share=st.floats(0.01, 0.99))
def test_a_lognormal_has_its_ends_at_5_and_95_percent(low, factor, share) -> None:
    spread = Range(low, low * factor)
    assert spread.quantile(0.05) == pytest.approx(low)
    assert spread.quantile(0.95) == pytest.approx(low * factor)
    assert spread.quantile(0.5) == pytest.approx(low * factor**0.5)
    assert spread.quantile(share) <= spread.quantile(min(share + 0.005, 0.995))


@pytest.mark.parametrize(
    "spread",
    [
        Range(2, 30),
        Range(1, 9, "triangular", likely=2),
        Range(0, 1, "triangular"),
        Range(1, 4, "triangular", likely=1),
        Range.exactly(7),
    ],
    ids=str,
)
def test_draws_follow_the_closed_form(spread) -> None:
    drawn = spread.sample(np.random.default_rng(0), 200_000)
    for share in (0.05, 0.3, 0.5, 0.8, 0.95):
        assert np.quantile(drawn, share) == pytest.approx(spread.quantile(share), rel=0.02)
    if spread.kind == "triangular":
        assert drawn.mean() == pytest.approx((spread.low + spread.peak + spread.high) / 3, rel=0.01)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ((5, 2), "above high=2"),
        ((-1, 2), "must not be negative"),
        ((0, 2), "needs low above 0"),
        ((1, float("inf")), "must be finite"),
        ((1, 2, "normal"), "kind='normal' is unknown"),
        ((1, 2, "fixed"), "fixed, but 1 to 2"),
        ((1, 2, "triangular", 3), "lies outside"),
    ],
)
def test_impossible_ranges_are_refused(wrong, says) -> None:
    with pytest.raises(ValueError, match=says):
        Range(*wrong)


def test_fixed_numbers_give_the_product_exactly() -> None:
    gpu = [
        Factor("hours", Range.exactly(100)),
        Factor("utilization", Range.exactly(0.4), divides=True),
        Factor("price", Range.exactly(2)),
    ]
    bill = {"GPU": gpu, "people": [Factor("hours", Range.exactly(50))]}
    found = simulate(bill, samples=100)
    assert (found.low, found.median, found.high, found.base) == pytest.approx((550,) * 4)
    assert found.most_uncertain is None
    assert found.swings == ()


def test_the_total_of_a_product_of_lognormals_has_its_closed_form() -> None:
    # The logarithm of a product of lognormals is normal: spreads add in squares.
    bill = {"labels": [Factor("items", Range(100, 400)), Factor("price", Range(1, 9))]}
    found = simulate(bill, samples=200_000)
    width = (np.log(4) ** 2 + np.log(9) ** 2) ** 0.5 / 2
    middle = (100 * 400) ** 0.5 * 3
    assert found.median == pytest.approx(middle, rel=0.02)
    assert found.low == pytest.approx(middle * np.exp(-width), rel=0.02)
    assert found.high == pytest.approx(middle * np.exp(width), rel=0.02)


def test_the_tornado_names_the_widest_number_and_moves_it_alone() -> None:
    bill = {
        "labels": [Factor("items", Range.exactly(10)), Factor("price", Range(1, 4))],
        "people": [Factor("hours", Range(90, 110, "triangular"))],
    }
    found = simulate(bill)
    first, second = found.swings
    assert (first.factor, second.factor) == ("price", "hours")
    assert first is found.most_uncertain
    assert (first.total_at_low, first.total_at_high) == pytest.approx((110, 140))
    assert second.total_at_high - second.total_at_low == pytest.approx(2 * 6.838, abs=0.01)
    assert sum(found.counts) <= found.samples


def test_a_divisor_makes_the_bill_smaller_as_it_grows() -> None:
    found = simulate({"GPU": [Factor("mfu", Range(0.1, 0.4), divides=True)]})
    assert found.swings[0].total_at_low > found.swings[0].total_at_high


def test_the_same_seed_gives_the_same_bill() -> None:
    bill = costs.example_bill()
    assert simulate(bill, seed=3) == simulate(bill, seed=3)
    assert simulate(bill, seed=3).median != simulate(bill, seed=4).median


def test_examples_are_called_examples() -> None:
    found = simulate(costs.example_bill())
    assert found.notes[0].startswith("examples, not yours: utilization, runs, price of a GPU hour")
    own = costs.gpu_term(costs.Compute(), price=Range(1, 2), mfu=Range(0.2, 0.4), runs=Range(1, 3))
    assert simulate({"GPU": own}).notes == ()


def test_bad_bills_are_refused() -> None:
    with pytest.raises(SettingsError, match="empty: all of it"):
        simulate({})
    with pytest.raises(SettingsError, match=r"empty: \['labels'\]"):
        simulate({"labels": []})
    with pytest.raises(SettingsError, match="100 samples at least"):
        simulate(costs.example_bill(), samples=10)
    with pytest.raises(ValueError, match="must be above 0"):
        Factor("mfu", Range(0, 1, "triangular"), divides=True)
