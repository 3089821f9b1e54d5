"""Notebook 02 in a real JupyterLab: run it, edit a message, flip the mask, walk the tokens.

The screenshots are what a reader sees; the README's picture is `inspector-light-1400.png`.
"""

import re
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Locator, expect

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "02_sft.ipynb"
RUN_S = 600
VIEWS = {
    "card": "base = ftkit.load(",
    "templates": "The same answer under six templates",
    "audit": "chat.audit(base.tokenizer)",
    "truncation": "max_length=45",
    "batch": "chat.annotate_batch(trainer, rows=4)",
    "curves": "trainer.train()",
    "answers": "Answers to questions",
}


def index_of(source: str) -> int:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    return next(i for i, cell in enumerate(cells) if source in cell.source)


@pytest.fixture
def ran(open_notebook):
    notebook = open_notebook(NOTEBOOK.name)
    notebook.run_all(timeout_s=RUN_S)
    return notebook


def trained(inspector: Locator) -> str:
    """Text of the trained tokens as the strip shows it."""
    return "".join(inspector.locator(".ft-strip .t.on").all_text_contents())


def test_the_notebook_runs_and_the_inspector_answers(ran) -> None:
    inspector = ran.output(index_of("ChatInspector(")).locator(".ft-ci")
    inspector.scroll_into_view_if_needed()
    count = inspector.locator(".ft-big").first
    mask = inspector.get_by_role("combobox", name=re.compile("^mask"))
    expect(count).to_contain_text("22")
    assert trained(inspector) == (
        "Make sure the vents are clear and clean any dust.<|im_end|>"
        "Blow out the fan with compressed air.<|im_end|>"
    )

    inspector.get_by_label("message 2, text").fill("Clean the vents.")
    expect(count).not_to_contain_text("22")
    expect(inspector.locator(".ft-strip").first).to_contain_text("Clean the vents.")
    assert trained(inspector).startswith("Clean the vents.<|im_end|>")

    mask.select_option("last_assistant")
    expect(inspector.locator(".ft-strip .t.on").first).to_have_text("B")
    assert trained(inspector) == "Blow out the fan with compressed air.<|im_end|>"

    mask.select_option("full")
    total = inspector.locator(".ft-strip .t").count()
    expect(inspector.locator(".ft-strip .t.on")).to_have_count(total)

    mask.select_option("assistant")
    inspector.get_by_label("message 2, text").fill(
        "Make sure the vents are clear and clean any dust."
    )
    expect(count).to_contain_text("22")
    expect(inspector.locator(".ft-big", has_text="loss on trained")).to_be_visible(timeout=20_000)
    walk_by_keyboard(inspector)
    photograph(ran, inspector)


def walk_by_keyboard(inspector: Locator) -> None:
    """Arrow keys move over the tokens, Enter pins one, Escape lets it go."""
    detail = inspector.locator(".ft-detail").first
    here = inspector.locator(".ft-strip .t:focus")
    inspector.locator(".ft-strip .t.on").first.focus()
    expect(here).to_have_text("Make")
    inspector.page.keyboard.press("ArrowRight")
    expect(here).to_have_text(" sure")
    inspector.page.keyboard.press("Enter")
    expect(detail).to_contain_text(re.compile(r"pinned .* sure.*part of the answer.*loss \d"))
    inspector.page.keyboard.press("Escape")
    expect(detail).not_to_contain_text("pinned")


def photograph(notebook, inspector: Locator) -> None:
    for theme in ("light", "dark"):
        set_theme(notebook, theme)
        for width in (1400, 800):
            notebook.resize(width, 2400)  # tall, so that no picture has to scroll
            notebook.screenshot(f"inspector-{theme}-{width}", of=inspector)
            for name, source in VIEWS.items():
                output = notebook.output(index_of(source))
                notebook.screenshot(f"{name}-{theme}-{width}", of=output)
    set_theme(notebook, "light")


def set_theme(notebook, theme: str) -> None:
    notebook.page.evaluate(
        "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})",
        f"JupyterLab {theme.title()}",
    )
    light = "true" if theme == "light" else "false"
    expect(notebook.page.locator("body")).to_have_attribute("data-jp-theme-light", light)
