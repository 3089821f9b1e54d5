"""The DPO explorer in a real JupyterLab: keys, examples and clicks move the picture."""

import pytest
from nbformat.v4 import new_code_cell
from playwright.sync_api import Locator, expect

CODE = """from ftkit.records import DPOPair
from ftkit.widgets import DPOExplorer
pairs = [DPOPair("Hi?", f"good {i}", "bad", -41.0 - i, -50.0 - i, -40.0, -45.0) for i in range(4)]
explorer = DPOExplorer(pairs)
explorer"""


@pytest.fixture
def notebook(lab, open_notebook):
    name = lab.add("dpo.ipynb", [new_code_cell(CODE), new_code_cell("print('later')")])
    opened = open_notebook(name)
    opened.run_all()
    return opened


def slider(card: Locator, name: str) -> Locator:
    return card.locator("label", has_text=name).locator("input")


def test_keyboard_examples_and_clicks_move_the_pair(notebook) -> None:
    card = notebook.output(0).locator(".ft-card")
    arithmetic = card.locator(".ft-arith b")
    expect(arithmetic.nth(1)).to_have_text("0.437")
    slider(card, "β").focus()
    for _ in range(10):
        card.page.keyboard.press("ArrowRight")
    expect(arithmetic.nth(1)).to_have_text("0.263")  # β 0.2, lead 6
    card.get_by_role("button", name="both rise").click()
    expect(arithmetic.nth(0)).to_have_text("+6.00")
    expect(arithmetic.nth(1)).to_have_text("0.263")
    expect(card.get_by_role("button", name="both rise")).to_have_attribute("aria-pressed", "true")
    slider(card, "pair").focus()
    card.page.keyboard.press("ArrowUp")
    expect(card.locator("p.asked")).to_have_text("Pair 1: Hi?")
    expect(arithmetic.nth(0)).to_have_text("+4.00")
    card.locator('g[data-pair="3"]').first.click()
    expect(card.locator("p.asked")).to_have_text("Pair 3: Hi?")
    expect(slider(card, "pair")).to_have_value("3")
    notebook.resize(1400, 1300)
    notebook.screenshot("dpo_explorer", card)
    slider(card, "chosen").focus()
    card.page.keyboard.press("ArrowUp")
    expect(card.locator("p.asked")).to_have_count(0)
