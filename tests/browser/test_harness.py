"""The harness itself: a click in JupyterLab reaches the kernel and its answer comes back."""

import sys

import pytest
from harness import Lab
from nbformat.v4 import new_code_cell, new_markdown_cell
from playwright.sync_api import expect

WIDGET = '''
import sys
import anywidget, traitlets

class Counter(anywidget.AnyWidget):
    _esm = """
    export default { render({ model, el }) {
      const button = document.createElement("button");
      button.className = "count";
      const show = () => { button.textContent = model.get("answer"); };
      button.onclick = () => {
        model.set("clicks", model.get("clicks") + 1);
        model.save_changes();
      };
      model.on("change:answer", show);
      show();
      el.appendChild(button);
    }};
    """
    clicks = traitlets.Int(0).tag(sync=True)
    answer = traitlets.Unicode("not clicked").tag(sync=True)

    @traitlets.observe("clicks")
    def _answer(self, change):
        self.answer = f"the kernel counted {change.new}"

Counter()
'''
CELLS = [
    new_markdown_cell("# Harness\n\nA button that travels to the kernel and back."),
    new_code_cell(WIDGET.strip()),
    new_code_cell("import os, ftkit.showing\nprint(sys.executable, ftkit.showing.is_static())"),
]
BACKGROUND = "() => getComputedStyle(document.querySelector('.jp-Notebook')).backgroundColor"


@pytest.fixture(scope="module")
def name(lab: Lab) -> str:
    return lab.add("harness.ipynb", CELLS)


def test_a_click_travels_to_the_kernel_and_back(open_notebook, name: str) -> None:
    notebook = open_notebook(name)
    notebook.run_all()
    button = notebook.output(1).locator("button.count")
    expect(button).to_have_text("not clicked")
    button.click()
    expect(button).to_have_text("the kernel counted 1")
    button.click()
    expect(button).to_have_text("the kernel counted 2")


def test_the_kernel_is_this_interpreter_and_live(open_notebook, name: str) -> None:
    notebook = open_notebook(name)
    notebook.run_all()
    expect(notebook.output(2)).to_contain_text(f"{sys.executable} False")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_screenshots_come_in_both_themes_and_widths(open_notebook, name: str, theme: str) -> None:
    notebook = open_notebook(name, theme=theme)
    notebook.run_all()
    channels = notebook.page.evaluate(BACKGROUND).strip("rgba()").split(",")[:3]
    assert (sum(map(float, channels)) > 380) == (theme == "light")
    for width in (1400, 800):
        notebook.resize(width)
        path = notebook.screenshot(f"harness-{theme}-{width}")
        header = path.read_bytes()[:24]
        assert header.startswith(b"\x89PNG")
        assert int.from_bytes(header[16:20], "big") == width


def test_a_cell_that_raises_fails_the_run(lab: Lab, open_notebook) -> None:
    cells = [new_code_cell("1 / 0"), new_code_cell("print('never')")]
    notebook = open_notebook(lab.add("raises.ipynb", cells))
    with pytest.raises(AssertionError, match="ZeroDivisionError: division by zero"):
        notebook.run_all()
