"""The doctor's report in a real JupyterLab: what is wrong stands open, in both themes."""

import pytest
from nbformat.v4 import new_code_cell
from playwright.sync_api import expect

PATIENT = """import ftkit
from ftkit.models import load_tokenizer
tokenizer = load_tokenizer()
tokenizer.pad_token = tokenizer.eos_token
def chat(n, answer):
    asked = {"role": "user", "content": f"Question {n}: what is <b>bold</b>?"}
    return {"messages": [asked, {"role": "assistant", "content": answer}]}
rows = [chat(n, "A tag. " * 3) for n in range(20)] + [chat(20, "Much more. " * 60)]
rows += [{"messages": chat(21, "")["messages"][:1]}]"""
EXAMINE = "ftkit.doctor(tokenizer=tokenizer, dataset=rows, max_length=128)"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_report_names_what_is_wrong_and_fits(lab, open_notebook, theme) -> None:
    cells = [new_code_cell(PATIENT), new_code_cell(EXAMINE)]
    opened = open_notebook(lab.add("doctor.ipynb", cells), theme=theme)
    opened.run_all()
    report = opened.output(1).locator(".ft-card")
    expect(report).to_contain_text("Doctor")
    expect(report.locator(".ft-dx code").get_by_text("nothing-trained")).to_be_visible()
    cut = report.locator(".ft-dx", has_text="answer-cut")
    expect(cut).to_contain_text("20")
    evidence = report.locator(".ft-dx details:not([open]) summary").first
    evidence.click()
    expect(report.locator(".ft-dx details[open]").first).to_be_visible()
    expect(report.locator("b", has_text="bold")).to_have_count(0)
    for width in (1400, 800):
        opened.resize(width)
        sizes = report.evaluate("node => [node.scrollWidth, node.clientWidth]")
        assert sizes[0] <= sizes[1], f"the report is wider than its cell at {width} pixels"
        opened.screenshot(f"doctor_{theme}_{width}", report)
