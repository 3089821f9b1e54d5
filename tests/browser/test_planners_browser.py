"""The planners in a real JupyterLab: their controls move the picture, by mouse and keyboard."""

import pytest
from nbformat.v4 import new_code_cell
from playwright.sync_api import expect

CODE = (
    "from ftkit.widgets import CostPlanner, MemoryPlanner\nMemoryPlanner()",
    "CostPlanner()",
)


@pytest.fixture
def notebook(lab, open_notebook):
    name = lab.add("planners.ipynb", [new_code_cell(cell) for cell in CODE])
    opened = open_notebook(name)
    opened.run_all()
    return opened


def test_memory_planner_answers_what_fits(notebook) -> None:
    card = notebook.output(0).locator(".ft-card")
    expect(card.locator("ul.cards > li")).to_have_count(4)
    expect(card.locator("ul.cards > li.yes")).to_have_count(1)
    expect(card.get_by_label("LoRA rank")).to_be_visible()
    card.get_by_role("button", name="PPO with four copies").click()
    expect(card.locator("p.plan")).to_contain_text("four models")
    expect(card.locator("text.name")).to_have_text(["rollout", "scoring", "loss", "backward"])
    expect(card.get_by_label("LoRA rank")).to_be_hidden()
    notebook.screenshot("memory_planner_ppo", card)
    card.get_by_role("button", name="PPO on one 4-bit base").click()
    expect(card.get_by_label("weights")).to_have_value("nf4")
    expect(card.locator("p.plan")).to_contain_text("one shared base")


def test_memory_planner_by_keyboard_and_with_impossible_choices(notebook) -> None:
    card = notebook.output(0).locator(".ft-card")
    rows = card.get_by_label("rows a pass")
    rows.focus()
    card.page.keyboard.press("ArrowDown")
    expect(card.locator("p.plan")).to_contain_text("7 rows × 512 tokens")
    card.locator("summary").click()
    card.get_by_label("tokens a row").fill("256")
    card.page.keyboard.press("Tab")
    expect(card.locator("p.plan")).to_contain_text("7 rows × 256 tokens")
    expect(card.locator("details[open]")).to_have_count(0)
    card.get_by_label("stage").select_option("grpo")
    expect(card.get_by_role("alert")).to_contain_text("must be below length=256")
    card.get_by_label("of these sampled").fill("128")
    card.page.keyboard.press("Tab")
    expect(card.get_by_role("alert")).to_have_count(0)
    notebook.screenshot("memory_planner", card)


def test_cost_planner_redraws_with_your_numbers(notebook) -> None:
    card = notebook.output(1).locator(".ft-card")
    first = card.locator(".ft-cp text.name").first
    expect(first).to_have_text("price of a label (labels)")
    low, high = (card.get_by_label(f"{end} end of price of a label") for end in ("low", "high"))
    low.fill("1")
    card.page.keyboard.press("Tab")
    high.fill("1.01")
    card.page.keyboard.press("Tab")
    expect(first).not_to_have_text("price of a label (labels)")
    high.fill("0.5")
    card.page.keyboard.press("Tab")
    expect(card.get_by_role("alert")).to_contain_text("price of a label: Range: low=1.0 must not")
    high.fill("2")
    card.page.keyboard.press("Tab")
    expect(card.get_by_role("alert")).to_have_count(0)
    card.get_by_label("accelerator").select_option("T4")
    expect(card.locator("td.unit").first).to_have_text("T4 hours")
    notebook.screenshot("cost_planner", card)


def test_in_the_dark_on_a_narrow_page(lab, open_notebook) -> None:
    name = lab.add("dark.ipynb", [new_code_cell(cell) for cell in CODE])
    opened = open_notebook(name, theme="dark", width=800)
    opened.run_all()
    for index, kind in enumerate(("memory", "cost")):
        card = opened.output(index).locator(".ft-card")
        expect(card.locator("svg").first).to_be_visible()
        opened.screenshot(f"{kind}_planner_dark", card)
