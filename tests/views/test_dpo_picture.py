"""The DPO picture shows the loss and weight of `algos`, every pair in place, and escapes texts."""

import math

import pytest
import torch
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st

from ftkit.algos import dpo_losses, dpo_weights
from ftkit.records import DPOPair
from ftkit.views.dpo import DPOSetting, dpo_html, pair_loss, pair_weight


def pair(chosen: float, rejected: float, text: str = "Fine.") -> DPOPair:
    return DPOPair("How are you?", text, "Bad.", chosen - 40, rejected - 45, -40.0, -45.0, 3, 4)


def soup(pairs=(), setting=None) -> BeautifulSoup:
    return BeautifulSoup(dpo_html(pairs, setting), "html.parser")


def numbers(path: str) -> list[float]:
    return [float(x) for x in path.replace("M", " ").replace("L", " ").split()]


@given(st.floats(-900, 900), st.floats(0.01, 2.0))
def test_loss_and_weight_are_those_of_the_algos(lead: float, beta: float) -> None:
    gain = torch.tensor([lead], dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.float64)
    loss = dpo_losses(gain, zero, zero, zero, beta).item()
    assert pair_loss(lead, beta) == pytest.approx(loss, rel=1e-9, abs=1e-12)
    weight = dpo_weights(gain, zero, zero, zero, beta).item()
    assert pair_weight(lead, beta) == pytest.approx(weight, rel=1e-9, abs=1e-12)


def test_a_mark_stands_where_its_gains_are_and_says_whether_chosen_fell() -> None:
    page = soup([pair(2.0, -3.0), pair(-2.0, -3.0)], DPOSetting(chosen=2.0, rejected=-3.0))
    (plane, curve) = page.select("g.up")
    ring = page.select("circle.here")
    for mark, here in zip((plane, curve), ring, strict=True):
        circle = mark.find("circle")
        assert (circle["cx"], circle["cy"]) == (here["cx"], here["cy"])
    fell = page.select("g.down")
    assert len(fell) == 2
    assert {mark["data-pair"] for mark in fell} == {"2"}
    assert "1 of 2" in page.select_one(".ft-stat").text


def test_along_a_diagonal_the_loss_is_the_same() -> None:
    said = [
        soup(setting=DPOSetting(chosen=c, rejected=r)).select(".ft-arith b")[1].text
        for c, r in ((3.0, -3.0), (-4.0, -10.0), (10.0, 4.0))
    ]
    assert said == [f"{math.log1p(math.exp(-0.6)):.3f}"] * 3


@pytest.mark.parametrize("beta", [0.02, 0.1, 0.5])
def test_each_contour_is_drawn_where_the_loss_has_its_value(beta: float) -> None:
    pairs = [pair(10.0, -10.0), pair(1.0, 0.0)]
    page = soup(pairs, DPOSetting(beta=beta, chosen=10.0, rejected=-10.0))
    one, ten = (
        (float(c["cx"]), float(c["cy"]))
        for c in (page.select("g.up > circle")[1], page.select("g.up > circle")[0])
    )
    nat = (one[1] - ten[1]) / 9  # pixels, both axes
    zero_x, zero_y = one[0], one[1] + nat
    lines = page.select("path.level")
    names = [float(text.text) for text in page.select("text.level")]
    assert names[-1] == 0.693
    assert (beta < 0.05) or len(lines) >= 6
    for line, level in zip(lines, names, strict=False):
        x, y, *_ = numbers(line["d"])
        lead = (zero_y - y) / nat - (x - zero_x) / nat
        assert pair_loss(lead, beta) == pytest.approx(level, rel=0.02)


def test_the_pair_written_out_shows_its_answers_and_implicit_rewards() -> None:
    page = soup([pair(-2.0, -3.0)], DPOSetting(beta=0.5, chosen=-2.0, rejected=-3.0, pair=1))
    cells = [[td.text for td in tr.select("td")] for tr in page.select(".sides tbody tr")]
    assert cells == [
        ["chosen", "Fine.", "3", "−40.00", "−42.00", "−2.00", "−1.00"],
        ["rejected", "Bad.", "4", "−45.00", "−48.00", "−3.00", "−1.50"],
    ]
    assert page.select_one("p.asked").text == "Pair 1: How are you?"
    assert soup([pair(0.0, 0.0)]).select_one("p.asked") is None


def test_pairs_that_push_hardest_come_first() -> None:
    page = soup([pair(5.0, 0.0), pair(-5.0, 0.0), pair(0.0, 0.0)])
    rows = [tr.select("td")[0].text for tr in page.select("details tbody tr")]
    assert rows == ["2", "3", "1"]


def test_texts_are_escaped_and_broken_numbers_left_out() -> None:
    evil = "<script>alert(1)</script>"
    shown = [pair(1.0, 0.0, evil), pair(math.nan, 0.0)]
    html = dpo_html(shown, DPOSetting(pair=1, chosen=1.0, rejected=0.0))
    assert "<script" not in html
    page = BeautifulSoup(html, "html.parser")
    assert {mark["data-pair"] for mark in page.select("[data-pair]")} == {"1"}
    assert "pairs without finite numbers" in page.select_one(".ft-stat").text


def test_the_picture_says_what_it_shows_and_names_both_axes_with_units() -> None:
    page = soup()
    assert "the loss is 0.437 nats" in page.select_one("svg")["aria-label"]
    named = [text.text for text in page.select("text.name")]
    assert [name for name in named if "nats" in name] == named[:3]
    assert page.select(".ft-stat") == []


@pytest.mark.parametrize(
    ("bad", "says"),
    [({"beta": 0.0}, "beta is 0"), ({"beta": math.nan}, "beta is nan"),
     ({"chosen": math.inf}, "chosen is inf")],
)  # fmt: skip
def test_impossible_settings_are_refused(bad, says) -> None:
    with pytest.raises(ValueError, match=says):
        DPOSetting(**bad)
