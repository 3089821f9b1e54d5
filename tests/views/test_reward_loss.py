"""The loss picture shows the loss of `algos`, every pair in its place, and escapes texts."""

import math

import pytest
import torch
from bs4 import BeautifulSoup

from ftkit.algos import pairwise_losses, pairwise_reward_loss
from ftkit.records import ScoredPair
from ftkit.views.reward_loss import LossSetting, pair_loss, pair_slope, reward_loss_html

GAPS = [-800.0, -30.0, -2.0, -0.1, 0.0, 0.7, 3.0, 40.0, 800.0]


def pair(chosen: float, rejected: float, text: str = "Fine.") -> ScoredPair:
    return ScoredPair("How are you?", text, "Bad.", chosen, rejected)


def soup(pairs=(), setting=None) -> BeautifulSoup:
    return BeautifulSoup(reward_loss_html(pairs, setting), "html.parser")


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("margin", [0.0, 1.5])
def test_loss_and_slope_are_those_of_the_algos(gap: float, margin: float) -> None:
    setting = LossSetting(margin=margin)
    score = torch.tensor([gap], dtype=torch.float64, requires_grad=True)
    zero, lead = torch.zeros(1, dtype=torch.float64), torch.full((1,), margin, dtype=torch.float64)
    loss = pairwise_losses(score, zero, lead)
    loss.sum().backward()
    assert pair_loss(gap, gap / 2, setting) == pytest.approx(loss.item(), abs=1e-12)
    assert pair_slope(gap, setting) == pytest.approx(score.grad.item(), abs=1e-12)


def test_centering_is_that_of_the_algos() -> None:
    chosen, rejected = 2.5, 1.0
    expected = pairwise_reward_loss(torch.tensor([chosen]), torch.tensor([rejected]), None, 0.1)
    loss = pair_loss(chosen - rejected, (chosen + rejected) / 2, LossSetting(centering=0.1))
    assert loss == pytest.approx(expected.item(), abs=1e-6)


def test_every_pair_is_marked_by_its_order_with_its_texts() -> None:
    page = soup([pair(1, 0), pair(3, 1), pair(0, 2, "A & <b>")])
    assert len(page.select("svg circle.right")) == 2
    (wrong,) = page.select("svg path.wrongly")
    assert "gap -2.00, loss 2.127" in wrong.title.text
    assert "A & <b>" in wrong.title.text
    assert page.select("b") == [b for b in page.select("b") if "ft-arith" in b.parent["class"]]
    assert "67%" in page.select_one(".ft-stat").text


def test_real_pairs_without_variants_lie_on_the_curve() -> None:
    page = soup([pair(1, 0)], LossSetting(gap=1.0))
    dot, here = page.select_one("circle.right"), page.select_one("circle.here")
    assert (dot["cx"], dot["cy"]) == (here["cx"], here["cy"])
    assert not page.select("path.ghost")


def test_the_arithmetic_is_written_out_with_margin_and_centering() -> None:
    page = soup([], LossSetting(gap=0.8, margin=1.0, centering=0.1, level=1.0))
    text = page.select_one(".ft-arith").text
    assert "−log σ(+0.80 − 1) + 0.1 · (+2.00)² = 0.798 + 0.400 = 1.198 nats" in text
    assert "slope = −0.550" in text
    assert page.select("path.ghost")
    assert "Dashed: the plain loss" in page.text


def test_the_axes_are_named_with_units() -> None:
    names = [t.text for t in soup().select("svg text.name")]
    assert names == ["score gap: chosen − rejected", "loss (nats)"]


def test_the_most_expensive_pairs_come_first() -> None:
    page = soup([pair(2, 0, "cheap"), pair(0, 3, "dear"), pair(0, 1, "middle"), pair(9, 0, "no")])
    cells = [row.find_all("td")[3].text for row in page.select("details tbody tr")]
    assert cells == ["dear", "middle", "cheap"]


def test_scores_that_are_not_finite_are_counted_not_drawn() -> None:
    page = soup([pair(1, 0), pair(math.nan, 0), pair(math.inf, 0)])
    assert len(page.select("circle.right")) == 1
    assert "2pairs without finite scores" in page.select_one(".ft-stat").text
    assert "nan" not in str(page.svg).lower()


def test_without_pairs_there_is_the_bare_curve() -> None:
    page = soup()
    assert page.select("path.curve")
    assert not page.select(".ft-stat, details")
