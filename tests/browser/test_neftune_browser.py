"""The NEFTune explorer in a real JupyterLab: sliders, keyboard and examples move the picture."""

import pytest
from nbformat.v4 import new_code_cell
from playwright.sync_api import expect

CODE = """\
import ftkit
from ftkit import stages, widgets
base = ftkit.load()
explorer = widgets.NEFTuneExplorer(stages.noise_map(base))
explorer"""


@pytest.fixture
def notebook(lab, open_notebook):
    opened = open_notebook(lab.add("noise.ipynb", [new_code_cell(CODE), new_code_cell("print(1)")]))
    opened.run_all(timeout_s=180)
    return opened


def test_keyboard_and_examples_move_the_noise(notebook) -> None:
    card = notebook.output(0).locator(".ft-card")
    expect(card.locator("circle.word")).to_have_count(14)
    expect(card.locator(".ft-arith b").nth(1)).to_have_text("0.361")
    card.get_by_label("α").focus()
    card.page.keyboard.press("ArrowRight")
    card.page.keyboard.press("ArrowRight")
    expect(card.locator(".ft-arith")).to_contain_text("10/√(64·576)")
    notebook.screenshot("neftune_explorer", card)
    card.get_by_role("button", name="packed to 1,024").click()
    expect(card.locator(".ft-stat")).to_contain_text("−82%")
    expect(card.get_by_role("button", name="packed to 1,024")).to_have_attribute(
        "aria-pressed", "true"
    )
    card.locator("summary").last.click()
    card.get_by_role("button", name="half of the words turn").click()
    expect(card.locator("circle.here")).not_to_have_attribute("cy", "330.0")
    expect(card.locator("details").last).to_have_attribute("open", "")
