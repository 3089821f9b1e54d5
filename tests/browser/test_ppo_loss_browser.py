"""The PPO loss explorer in a real JupyterLab: its sliders and examples move the picture."""

import pytest
from nbformat.v4 import new_code_cell
from playwright.sync_api import expect

CODE = "from ftkit.widgets import PPOLossExplorer\nexplorer = PPOLossExplorer()\nexplorer"


@pytest.fixture
def notebook(lab, open_notebook):
    name = lab.add("clip.ipynb", [new_code_cell(CODE), new_code_cell("print('later')")])
    opened = open_notebook(name)
    opened.run_all()
    return opened


def test_keyboard_and_examples_move_the_token(notebook) -> None:
    card = notebook.output(0).locator(".ft-card")
    expect(card.locator("path.cross")).to_have_count(1)
    slider = card.get_by_label("ratio r")
    slider.focus()
    for _ in range(30):
        card.page.keyboard.press("ArrowLeft")
    expect(card.locator(".ft-arith b")).to_have_text("1.10")
    expect(card.locator("path.arrow")).to_have_count(1)
    card.get_by_role("button", name="bad, but rose").click()
    expect(card.locator(".ft-arith b")).to_have_text("−1.70")
    expect(card.get_by_role("button", name="bad, but rose")).to_have_attribute(
        "aria-pressed", "true"
    )
    expect(card.locator("td[aria-current=true] b")).to_have_text("▸ push down")
    notebook.screenshot("ppo_loss_explorer", card)
