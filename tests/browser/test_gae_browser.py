"""The GAE explorer in a real JupyterLab: λ by keyboard, the recursion by buttons and by itself."""

import pytest
from nbformat.v4 import new_code_cell
from playwright.sync_api import expect

CODE = """from ftkit.widgets import GAEExplorer
explorer = GAEExplorer(["good", "not", "bad", "<end>"], [0, 0, 0, 1], [0.3, 0.8, -0.4, 0.9])
explorer"""


@pytest.fixture
def notebook(lab, open_notebook):
    name = lab.add("gae.ipynb", [new_code_cell(CODE), new_code_cell("print('later')")])
    opened = open_notebook(name)
    opened.run_all()
    return opened


def test_the_recursion_runs_backwards_and_follows_lambda(notebook) -> None:
    card = notebook.output(0).locator(".ft-card")
    here, advantages = card.locator("th.here"), card.locator("tbody tr", has_text="advantage")
    expect(here).to_have_text("<end> ▲")
    card.get_by_role("button", name="earlier token").click()
    expect(here).to_have_text("bad ▲")
    expect(advantages.locator("td")).to_have_text(["·", "·", "+1.395", "+0.100"])
    slider = card.get_by_label("λ")
    slider.focus()
    for _ in range(9):
        card.page.keyboard.press("ArrowLeft")
    expect(slider).to_have_value("0.5")
    expect(advantages.locator("td")).to_have_text(["·", "·", "+1.350", "+0.100"])
    card.get_by_role("button", name="TD").click()
    expect(advantages.locator("td").nth(2)).to_have_text("+1.300")
    card.get_by_role("button", name="play").click()
    expect(here).to_have_text("good ▲", timeout=20_000)
    expect(card.get_by_role("button", name="play")).to_have_attribute("aria-pressed", "false")
    expect(card.get_by_role("button", name="earlier token")).to_be_disabled()
    notebook.screenshot("gae_explorer", card)
    notebook.resize(800)
    notebook.screenshot("gae_explorer_800", card)
