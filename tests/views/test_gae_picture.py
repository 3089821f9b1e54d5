"""The picture of GAE: its arithmetic is `ftkit.algos.gae`'s, and it shows what is known so far."""

import math

import pytest
import torch
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st

from ftkit.algos import gae
from ftkit.views.gae import GAESetting, gae_body, gae_html

TOKENS = ("good", "not", "bad", "<end>")
REWARDS, VALUES = (0.0, -0.1, 0.0, 1.0), (0.5, 0.25, -0.5, 0.75)
numbers = st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10)), min_size=1, max_size=12)


def setting(**changes) -> GAESetting:
    return GAESetting(TOKENS, REWARDS, VALUES, **changes)


@given(numbers, st.floats(0, 1), st.floats(0, 1))
def test_the_arithmetic_is_that_of_the_trainer(pairs, gamma, lam) -> None:
    rewards, values = zip(*pairs, strict=True)
    drawn = GAESetting(["x"] * len(pairs), rewards, values, gamma, lam)
    tensors = [torch.tensor([row], dtype=torch.float64) for row in (rewards, values)]
    trained = gae(*tensors, torch.ones(1, len(pairs), dtype=torch.bool), gamma, lam)
    assert drawn.advantages == pytest.approx(trained.advantages[0].tolist(), abs=1e-9)
    assert drawn.returns == pytest.approx(trained.returns[0].tolist(), abs=1e-9)


@given(numbers, st.floats(0, 1), st.floats(0, 1), st.data())
def test_the_bars_add_up_to_the_advantage(pairs, gamma, lam, data) -> None:
    rewards, values = zip(*pairs, strict=True)
    at = data.draw(st.integers(0, len(pairs) - 1))
    drawn = GAESetting(["x"] * len(pairs), rewards, values, gamma, lam, at)
    parts = sum(part for _, part in drawn.shares)
    assert parts == pytest.approx(drawn.advantages[at], abs=1e-9)


def test_what_the_recursion_has_not_reached_is_a_dot() -> None:
    page = BeautifulSoup(gae_body(setting(at=2, lam=0.5)), "html.parser")
    rows = {tr.th.text: [td.text for td in tr.select("td")] for tr in page.select("tbody tr")}
    assert rows["advantage Â"] == ["·", "·", "+1.375", "+0.250"]
    assert rows["reward r"] == ["+0.000", "−0.100", "+0.000", "+1.000"]
    assert [th.text for th in page.select("thead th.here")] == ["bad ▲"]
    assert "0 + 1·0.75 − (−0.5) = 1.25" in page.select_one(".ft-arith").text
    assert "1.25 + 0.5·0.25 = 1.375" in page.select_one(".ft-arith").text


def test_bars_stand_for_the_known_tokens_and_negative_ones_are_hatched() -> None:
    page = BeautifulSoup(gae_body(setting(at=1)), "html.parser")
    assert len(page.select("rect.whole")) == 3
    negative = [part for _, part in setting(at=1).shares if part < 0]
    assert len(page.select("rect.minus")) == len(negative) == len(page.select("path.hatch"))
    assert page.svg["aria-label"].startswith("Parts of the advantage")


def test_tokens_are_escaped() -> None:
    html = gae_html(GAESetting(["<b>x</b>"], [1.0], [0.0]))
    assert "<b>x</b>" not in html
    assert "&lt;b&gt;x&lt;/b&gt;" in html


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rewards": [1.0]}, "one entry a token"),
        ({"tokens": [], "rewards": [], "values": []}, "one entry a token"),
        ({"values": [0.0, math.nan, 0.0, 0.0]}, r"values\[1\] is nan"),
        ({"lam": 1.5}, "lam=1.5"),
        ({"gamma": -0.1}, "gamma=-0.1"),
        ({"at": 4}, "at=4, but tokens are 0 to 3"),
    ],
)
def test_bad_numbers_are_refused_by_name(change, says) -> None:
    with pytest.raises(ValueError, match=says):
        GAESetting(**({"tokens": TOKENS, "rewards": REWARDS, "values": VALUES} | change))
