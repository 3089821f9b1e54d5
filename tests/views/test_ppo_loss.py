"""The clipped objective as drawn: the trainer's loss, and never a mark by colour alone."""

import itertools
from math import inf

import pytest
import torch
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st

from ftkit.algos import policy_loss
from ftkit.views.ppo_loss import ClipSetting, ppo_loss_html

RATIOS = st.floats(0.05, 5.0)
GAINS = st.floats(-3, 3).filter(lambda a: a == 0 or abs(a) > 1e-6)
EPSILONS = st.floats(0.01, 0.9)


def soup(setting: ClipSetting) -> BeautifulSoup:
    return BeautifulSoup(ppo_loss_html(setting), "html.parser")


@given(RATIOS, GAINS, EPSILONS)
def test_objective_and_gradient_are_those_of_the_loss_that_trains(ratio, gain, epsilon) -> None:
    setting = ClipSetting(ratio, gain, epsilon)
    edge = min(abs(ratio - 1 - epsilon), abs(ratio - 1 + epsilon))
    if edge < 1e-9:
        return  # on the corner any slope between 0 and A is right
    logprob = torch.tensor([[ratio]], dtype=torch.float64).log().requires_grad_()
    one = torch.ones_like(logprob)
    found = policy_loss(logprob, 0 * one, gain * one, one.bool(), epsilon)
    (slope,) = torch.autograd.grad(found.loss, logprob)
    assert -found.loss.item() == pytest.approx(setting.objective, abs=1e-9)
    assert found.clipped.item() == setting.clipped
    if gain:
        assert -slope.item() == pytest.approx(ratio * setting.slope, abs=1e-9)


@pytest.mark.parametrize(
    ("ratio", "gain", "cell"),
    [
        (0.5, 1.0, "push up"),
        (1.0, 1.0, "push up"),
        (1.5, 1.0, "✗ gradient 0"),
        (0.5, -1.0, "✗ gradient 0"),
        (1.0, -1.0, "push down"),
        (1.5, -1.0, "push down"),
    ],
)
def test_the_present_case_is_marked_by_sign_and_border(ratio, gain, cell) -> None:
    page = soup(ClipSetting(ratio, gain))
    (here,) = page.select('td[aria-current="true"]')
    assert here.b.text == f"▸ {cell}"
    column = 1 + (ratio > 0.8) + (ratio > 1.2)
    row = page.select(".ft-cases tbody tr")[gain < 0]
    assert row.find_all(["th", "td"])[column] is here


def test_where_the_gradient_is_zero_is_hatched_and_named() -> None:
    page = soup(ClipSetting())
    assert len(page.select("path.hatch")) == 2
    assert [text.text for text in page.select("text.zero")] == ["gradient 0", "gradient 0"]
    assert page.select("path.cross")
    assert not page.select("path.arrow")
    assert "✗ 0" in page.select_one(".ft-stat").text


def test_where_the_gradient_flows_an_arrow_says_which_way() -> None:
    for gain, way in ((1.0, 1), (-1.0, -1)):
        path = soup(ClipSetting(1.0, gain)).select_one("path.arrow")["d"]
        start, rest = path[1:].split(" ")[0], path.split("H")[1].split("m")[0]
        assert (float(rest) - float(start)) * way > 0
        assert not soup(ClipSetting(1.0, gain)).select("path.cross")


def test_the_arithmetic_is_written_out_in_numbers() -> None:
    shown = soup(ClipSetting(1.7, -1.5, 0.3)).select_one(".ft-arith").text
    assert "min(1.70·(−1.50), 1.30·(−1.50)) = min(−2.55, −1.95) = −2.55" in shown
    assert "full gradient brings it back" in shown


def test_an_advantage_of_zero_asks_for_nothing() -> None:
    page = soup(ClipSetting(1.5, 0.0))
    assert "asks for nothing" in page.select_one(".ft-arith").text
    assert not page.select("td.here, path.arrow")


def test_marks_stay_inside_the_picture_for_any_setting() -> None:
    for ratio, gain, epsilon in itertools.product((0.0, 1.0, 9.0), (-5.0, 0.3), (0.05, 2.0)):
        circle = soup(ClipSetting(ratio, gain, epsilon)).select_one("circle.here")
        assert 44 <= float(circle["cx"]) <= 752
        assert 34 <= float(circle["cy"]) <= 262.1


def test_the_page_is_static_and_speaks() -> None:
    page = soup(ClipSetting())
    assert not page.select("script, link, img")
    assert "its slope 0" in page.svg["aria-label"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ((-0.1, 1.0, 0.2), "ratio"),
        ((1.0, inf, 0.2), "advantage is inf"),
        ((1.0, 1.0, 0.0), "above"),
    ],
)
def test_what_is_no_setting_is_refused(values, says) -> None:
    with pytest.raises(ValueError, match=says):
        ClipSetting(*values)
