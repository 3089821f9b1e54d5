"""The reward loss explorer in a real JupyterLab: keys move the gap, curve and numbers follow."""

import re
from itertools import pairwise

import pytest
from nbformat.v4 import new_code_cell
from playwright.sync_api import Locator, expect

from ftkit.views.reward_loss import LossSetting, pair_loss, pair_slope

CODE = """\
from ftkit.records import ScoredPair
from ftkit.widgets import RewardLossExplorer
pairs = [ScoredPair("Hi?", "good <b>", "bad", 1.0, 0.0), ScoredPair("Hi?", "a", "b", -1.0, 1.0)]
explorer = RewardLossExplorer(pairs)
explorer"""


@pytest.fixture
def notebook(lab, open_notebook):
    cells = [new_code_cell(CODE), new_code_cell("print('later')")]
    opened = open_notebook(lab.add("reward_loss.ipynb", cells))
    opened.run_all()
    return opened


@pytest.fixture
def card(notebook) -> Locator:
    return notebook.output(0).locator(".ft-card")


def shown(gap: float, **variant: float) -> list[str]:
    """Loss and slope as the arithmetic writes them."""
    setting = LossSetting(gap, **variant)
    numbers = pair_loss(gap, setting.level, setting), pair_slope(gap, setting)
    return [f"{x:.3f}".replace("-", "−") for x in numbers]


def mark(card: Locator) -> tuple[float, float]:
    """Where the mark stands on the curve."""
    here = card.locator("circle.here")
    return float(here.get_attribute("cx")), float(here.get_attribute("cy"))


def on_curve(card: Locator) -> bool:
    """Whether the mark lies within half a unit of the drawn curve, at its own x."""
    x, y = mark(card)
    path = card.locator("path.curve").get_attribute("d")
    points = [tuple(map(float, p.split())) for p in re.findall(r"[\d.]+ [\d.]+", path)]
    (x0, y0), (x1, y1) = next((a, b) for a, b in pairwise(points) if a[0] <= x <= b[0])
    return abs(y0 + (y1 - y0) * (x - x0) / (x1 - x0) - y) < 0.5


def test_keys_move_the_gap_and_mark_and_numbers_follow(notebook, card) -> None:
    arithmetic, gap = card.locator(".ft-arith b"), card.get_by_label("chosen − rejected")
    expect(arithmetic).to_have_text(shown(-1.0))
    start = mark(card)
    gap.focus()
    for _ in range(30):
        card.page.keyboard.press("ArrowRight")
    expect(arithmetic).to_have_text(shown(0.5))
    expect(card.locator("output").first).to_have_text("0.50")
    expect(card.locator("path.curve")).to_have_css("fill", "none")
    assert mark(card)[0] > start[0]
    assert mark(card)[1] > start[1], "less loss is lower on the screen"
    assert on_curve(card)
    card.page.keyboard.press("Home")
    expect(arithmetic).to_have_text(shown(-6.0))
    assert on_curve(card)
    expect(notebook.cell(1)).not_to_have_class(re.compile("jp-mod-active"))
    expect(gap).to_be_focused()


def test_margin_and_centring_change_curve_numbers_and_controls(notebook, card) -> None:
    arithmetic = card.locator(".ft-arith b")
    card.get_by_label("margin").select_option("1")
    expect(arithmetic).to_have_text(shown(-1.0, margin=1.0))
    expect(card.locator("path.ghost")).to_have_count(1)
    level = card.get_by_label("mean score")
    expect(level).to_be_hidden()
    card.get_by_label("centring").select_option("0.1")
    expect(level).to_be_visible()
    level.focus()
    for _ in range(20):
        card.page.keyboard.press("ArrowRight")
    expect(arithmetic).to_have_text(shown(-1.0, margin=1.0, centering=0.1, level=1.0))
    assert on_curve(card)
    expect(card.locator("circle.right title")).to_contain_text("good <b>")
    notebook.screenshot("reward_loss_explorer", card)
