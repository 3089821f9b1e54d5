"""The packing explorer in a real JupyterLab: its sliders and bars move the picture."""

import pytest
from nbformat.v4 import new_code_cell
from playwright.sync_api import expect

CODE = """from ftkit.models import load_tokenizer
from ftkit.widgets import PackingExplorer
tokenizer = load_tokenizer()
texts = [f"Sonnet {i}. " + "Shall I compare thee to a summer's day? " * (2 + i % 4)
         for i in range(40)]
documents = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts]
explorer = PackingExplorer(documents, tokenizer=tokenizer, block_size=32)
explorer"""


@pytest.fixture
def notebook(lab, open_notebook):
    cells = [new_code_cell(CODE), new_code_cell("explorer.block_size, explorer.block")]
    opened = open_notebook(lab.add("packing.ipynb", cells))
    opened.run_all()
    return opened


def test_keyboard_and_bars_move_the_blocks(notebook) -> None:
    card = notebook.output(0).locator(".ft-card")
    expect(card.locator("g[data-block]")).to_have_count(10)
    size = card.get_by_role("slider", name="block size")
    expect(size).to_have_attribute("aria-valuetext", "32 tokens")
    size.focus()
    for _ in range(3):
        card.page.keyboard.press("ArrowRight")
    expect(card.locator(".ft-stat")).to_contain_text("blocks of 96 tokens")
    expect(card.locator("output").first).to_have_text("96 tokens")
    card.locator("g[data-block='4'] rect.doc").first.click()
    expect(card.locator("g[data-block='4'] rect.frame.here")).to_have_count(1)
    expect(card.locator("h3")).to_have_text(["Block 4 as the model reads it"])
    expect(card.locator(".piece").first).to_contain_text("summer's day")
    block = card.get_by_role("slider", name="block shown")
    block.focus()
    card.page.keyboard.press("ArrowRight")
    expect(card.locator("h3")).to_have_text(["Block 5 as the model reads it"])
    notebook.screenshot("packing_explorer", card)
    notebook.resize(800, 1200)
    notebook.screenshot("packing_explorer_800", card)
