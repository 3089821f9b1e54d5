"""The GRPO explorer in a real JupyterLab: its sliders, examples and choices move the picture."""

import pytest
from nbformat.v4 import new_code_cell
from playwright.sync_api import expect

CODE = "from ftkit.widgets import GRPOExplorer\nexplorer = GRPOExplorer()\nexplorer"


@pytest.fixture
def notebook(lab, open_notebook):
    name = lab.add("group.ipynb", [new_code_cell(CODE)])
    opened = open_notebook(name)
    opened.run_all()
    return opened


def test_keyboard_and_examples_move_the_group(notebook) -> None:
    card = notebook.output(0).locator(".ft-card")
    expect(card.locator("rect.up")).to_have_count(2)
    slider = card.get_by_label("reward of answer 2")
    slider.focus()
    for _ in range(10):
        card.page.keyboard.press("ArrowRight")
    expect(card.locator(".ft-arith")).to_contain_text("answer #2: A = (0.50 −")
    card.get_by_role("button", name="all right").click()
    expect(card.locator("text.none")).to_contain_text("no signal")
    expect(card.get_by_role("button", name="all right")).to_have_attribute("aria-pressed", "true")
    card.get_by_role("button", name="one right").click()
    expect(card.locator("rect.up")).to_have_count(1)
    card.get_by_label("loss type").select_option("grpo")
    expect(card.locator("g.on text.kind")).to_have_text("▸ grpo")
    card.get_by_label("tokens of answer 1").focus()
    card.page.keyboard.press("End")
    expect(card.locator(".ft-arith")).to_contain_text("each of its 64 tokens weighs 1/(6·64)")
    card.get_by_label("write out answer").select_option("2")
    expect(card.locator(".ft-arith")).to_contain_text("answer #3")
    notebook.screenshot("grpo_explorer", card)


def test_a_folded_table_stays_as_it_is_while_the_picture_moves(notebook) -> None:
    card = notebook.output(0).locator(".ft-card")
    card.locator("summary").click()
    card.get_by_role("button", name="half right").click()
    expect(card.locator("rect.up")).to_have_count(3)
    expect(card.locator("details[open] tbody tr")).to_have_count(4)


def test_in_the_dark_on_a_narrow_page(lab, open_notebook) -> None:
    name = lab.add("dark.ipynb", [new_code_cell(CODE)])
    opened = open_notebook(name, theme="dark", width=800)
    opened.run_all()
    card = opened.output(0).locator(".ft-card")
    expect(card.locator("rect.up")).to_have_count(2)
    opened.screenshot("grpo_explorer_dark", card)
