"""Fixtures for tests that drive a real JupyterLab with a real Chromium.

- ``lab`` (a module's own `harness.Lab`): a JupyterLab server on loopback over copies of the
  notebooks. ``lab.add("x.ipynb", cells)`` adds one, ``lab.set_theme("dark")`` counts for pages
  opened afterwards. Its kernels are this interpreter, live (``FTKIT_STATIC=0``), smoke profile.
- ``page``: a fresh Playwright page, 1400 by 900 pixels. The test fails at its end when the page
  raised a JavaScript error; ``page_errors`` is the list, should a test expect one.
- ``open_notebook(name, theme="light", width=1400)`` returns a `harness.NotebookPage` on ``page``:
  ``run_all()``, ``wait_idle()``, ``cell(i)``, ``output(i)``, ``resize(width)`` and
  ``screenshot(name)``, which saves ``artifacts/screenshots/NAME.png``; ``.page`` is the page. The
  kernels end with the test.

Everything under this folder carries the marker ``browser`` (``pytest -m "not browser"`` leaves it
out). Chromium is ``FTKIT_CHROMIUM`` or the first of chromium, chromium-browser and google-chrome on
the path. Without one the tests are skipped, or fail when ``FTKIT_REQUIRE_BROWSER=1``.

Playwright keeps an event loop running in this thread, which other tests cannot have: its fixtures
end with their module.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Lab, NotebookPage, Theme
from playwright.sync_api import Browser, Page, expect, sync_playwright

OpenNotebook = Callable[..., NotebookPage]
_BINARIES = ("chromium", "chromium-browser", "google-chrome")
expect.set_options(timeout=20_000)  # busy machines draw late
_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    binary = os.environ.get("FTKIT_CHROMIUM") or next(
        filter(None, map(shutil.which, _BINARIES)), ""
    )
    if not shutil.which(binary):
        reason = f"no Chromium ({binary or ', '.join(_BINARIES)}); install it or set FTKIT_CHROMIUM"
        if os.environ.get("FTKIT_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=binary, args=list(_FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def lab(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    server = Lab(tmp_path_factory.mktemp("lab"))
    yield server
    server.stop()


@pytest.fixture
def page_errors() -> list[str]:
    return []


@pytest.fixture
def page(browser: Browser, page_errors: list[str]) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    opened = context.new_page()
    opened.on("pageerror", lambda error: page_errors.append(str(error)))
    yield opened
    context.close()
    assert page_errors == []


@pytest.fixture
def open_notebook(page: Page, lab: Lab) -> Iterator[OpenNotebook]:
    def open_it(name: str, theme: Theme = "light", width: int = 1400) -> NotebookPage:
        lab.set_theme(theme)
        page.emulate_media(color_scheme=theme)
        page.set_viewport_size({"width": width, "height": 900})
        return NotebookPage(page, lab, name)

    yield open_it
    lab.end_kernels()
