"""`ftkit.ablate` in a real JupyterLab: the live table, the interrupt button, and going on."""

import re

import pytest
from nbformat.v4 import new_code_cell
from playwright.sync_api import expect

FUNCTION = """import random, time
import ftkit
def run(lora_r, neftune_alpha, seed):
    time.sleep(0.5)
    if lora_r == 64 and seed == 1:
        raise MemoryError("rank 64 is <too> much")
    noise = random.Random(f"{lora_r}{neftune_alpha}{seed}").gauss(0, 0.02)
    return {"loss": 2.4 - lora_r / 100 + seed / 10 + noise, "distinct_2": 0.8 + noise}"""
ABLATE = """grid = {"lora_r": [4, 16, 64], "neftune_alpha": [0, 5]}
result = ftkit.ablate(run, grid, storage="ablation", isolate=True, workers=2)"""
PATIENCE_MS = 60_000  # busy machines draw late
_INTERRUPT = "() => window.jupyterapp.commands.execute('notebook:interrupt-kernel')"


@pytest.fixture
def notebook(lab, open_notebook):
    cells = [new_code_cell(FUNCTION), new_code_cell(ABLATE), new_code_cell("result.plot()")]
    return open_notebook(lab.add("ablation.ipynb", cells))


def test_the_table_is_live_stops_and_goes_on(notebook) -> None:
    page = notebook.page
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    live = notebook.output(1).locator(".ft-card")
    expect(live.locator(".ft-abltrials .done").nth(2)).to_be_visible(timeout=120_000)
    running = live.locator(".ft-abltrials .running").first
    expect(running).to_have_text(re.compile(r"▶ seed \d: running"), timeout=PATIENCE_MS)
    expect(live.locator(".ft-run")).to_contain_text("left")
    notebook.screenshot("ablation_live", live)
    page.evaluate(_INTERRUPT)
    stopped = "stopped: call again to go on"
    expect(live.locator(".ft-run")).to_contain_text(stopped, timeout=PATIENCE_MS)
    expect(notebook.output(1)).to_contain_text("AblationInterrupted", timeout=PATIENCE_MS)
    expect(live.locator(".ft-abltrials .running")).to_have_count(0)
    notebook.run_all(timeout_s=300)  # 18 processes, each imports torch
    expect(live.locator(".ft-ablcount")).to_contain_text("16 done")
    expect(live.locator(".ft-ablcount")).to_contain_text("2 failed")
    errors = live.locator(".ft-ablerrors summary")
    expect(errors).to_contain_text("MemoryError: rank 64 is <too> much")
    errors.click()
    expect(live.locator(".ft-ablerrors pre")).to_contain_text("line 6, in run")
    errors.click()
    expect(notebook.output(2).locator("img")).to_be_visible()
    notebook.screenshot("ablation")
    notebook.resize(800)
    notebook.screenshot("ablation_800", live)
