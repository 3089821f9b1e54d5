"""A real JupyterLab and one notebook page in it, as objects that tests can talk to.

`Lab` is the server: its own folders, a free loopback port, a token, kernels in the interpreter that
runs the tests. `NotebookPage` is one open notebook in Chromium. The fixtures are in `conftest.py`.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Literal

import nbformat
from playwright.sync_api import Error, Locator, Page, expect

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "artifacts" / "screenshots"
START_DEADLINE_S = 120
Theme = Literal["light", "dark"]

# Cells off the screen must stay in the page, and nothing may pop up over a screenshot.
_SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none", "scrollPastEnd": False},
    "apputils-extension/notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
}

_STATE = """() => {
  const panel = window.jupyterapp?.shell.currentWidget;
  const kernel = panel?.sessionContext?.session?.kernel;
  if (!panel?.content?.widgets || !kernel) return {kernel: "none", waiting: -1, errors: []};
  const code = panel.content.widgets.filter(
    c => c.model.type === "code" && c.model.sharedModel.getSource().trim());
  return {
    kernel: kernel.status,
    waiting: code.filter(c => c.model.executionCount === null
                              || c.model.executionState === "running").length,
    errors: code.flatMap(c => c.model.outputs.toJSON())
                .filter(o => o.output_type === "error").map(o => `${o.ename}: ${o.evalue}`),
  };
}"""

_CLEAR = "() => window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')"


class Lab:
    """A JupyterLab server of its own; `folder` is what it shows.

    Attributes:
        folder: Holds copies of the course's notebooks; tests may `add` more.
        url: ``http://127.0.0.1:PORT``.
        token: What lets a browser in.
    """

    def __init__(self, home: Path) -> None:
        self.folder = home / "notebooks"
        self.folder.mkdir()
        for path in (ROOT / "notebooks").glob("*.ipynb"):
            shutil.copyfile(path, self.folder / path.name)
        self.token = secrets.token_hex(16)
        self._home = home
        self._settings = home / "settings" / "@jupyterlab"
        for name, values in _SETTINGS.items():
            self._set(name, values)
        self._give_kernel()
        self._start()

    def add(self, name: str, cells: list[nbformat.NotebookNode]) -> str:
        """Write a notebook of `cells` into the folder and return its name."""
        spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": spec})
        nbformat.write(notebook, self.folder / name)
        return name

    def set_theme(self, theme: Theme) -> None:
        """Choose the theme of pages opened from now on."""
        title = f"JupyterLab {theme.capitalize()}"
        self._set("apputils-extension/themes", {"theme": title, "adaptive-theme": False})

    def address(self, name: str) -> str:
        """Return the address of notebook `name`, alone on its page."""
        return f"{self.url}/doc/tree/{name}?token={self.token}&reset"

    def end_kernels(self) -> None:
        """End every kernel: each may hold a model."""
        for kernel in self._ask("GET", "/api/kernels"):
            self._ask("DELETE", f"/api/kernels/{kernel['id']}")

    def stop(self) -> None:
        """End the server, which ends its kernels; by force when it does not listen."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._log.close()

    def _ask(self, method: str, path: str) -> Any:
        request = urllib.request.Request(
            self.url + path, method=method, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.loads(reply.read() or "null")

    def _set(self, name: str, values: dict[str, Any]) -> None:
        path = self._settings / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))

    def _give_kernel(self) -> None:
        folder = self._home / "data" / "kernels" / "python3"
        folder.mkdir(parents=True)
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec = {"argv": argv, "display_name": "Python 3", "language": "python"}
        (folder / "kernel.json").write_text(json.dumps(spec))

    def _environment(self) -> dict[str, str]:
        own = {
            "JUPYTER_PATH": "data",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "IPYTHONDIR": "ipython",
        }
        outer = {name: value for name, value in os.environ.items() if name != "CI"}
        folders = {name: str(self._home / folder) for name, folder in own.items()}
        return {**outer, "FTKIT_PROFILE": "smoke", "FTKIT_STATIC": "0", **folders}

    def _start(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._log = (self._home / "lab.log").open("wb")
        options = {
            "ServerApp.ip": "127.0.0.1",
            "ServerApp.port": port,
            "ServerApp.port_retries": 0,
            "ServerApp.root_dir": self.folder,
            "ServerApp.open_browser": False,
            "ServerApp.allow_root": True,
            "IdentityProvider.token": self.token,
            "LabApp.expose_app_in_browser": True,
            "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *(f"--{k}={v}" for k, v in options.items())],
            cwd=self._home,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self._ask("GET", "/api/status")
                return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
        self.stop()
        log = (self._home / "lab.log").read_text(errors="replace")
        raise RuntimeError(f"JupyterLab did not come up at {self.url}; it says:\n{log[-4000:]}")


class NotebookPage:
    """One notebook open in JupyterLab.

    Attributes:
        page: The Playwright page, for anything that has no method here.
    """

    def __init__(self, page: Page, lab: Lab, name: str) -> None:
        self.page = page
        page.goto(lab.address(name))
        expect(page.locator(".jp-Notebook .jp-Cell").first).to_be_visible(timeout=60_000)
        self._until(lambda state: state["kernel"] == "idle", 60, "a kernel")

    def run_all(self, timeout_s: float = 180) -> None:
        """Run all cells through the menu and wait until the last one is done.

        Raises:
            AssertionError: a cell raised, or time ran out.
        """
        self.page.evaluate(_CLEAR)  # a reopened notebook may hold the counts of an earlier run
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        self.wait_idle(timeout_s)

    def wait_idle(self, timeout_s: float = 180) -> None:
        """Wait until every code cell has run and the kernel is idle.

        Raises:
            AssertionError: a cell raised, or time ran out.
        """
        done = self._until(
            lambda s: s["errors"] or (s["kernel"] == "idle" and s["waiting"] == 0),
            timeout_s,
            "all cells to finish",
        )
        assert not done["errors"], f"a cell raised {done['errors']}"

    def cell(self, index: int) -> Locator:
        """Return cell `index` (from 0, Markdown cells count)."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index)

    def output(self, index: int) -> Locator:
        """Return the output area of cell `index`."""
        return self.cell(index).locator(".jp-Cell-outputArea")

    def resize(self, width: int, height: int = 900) -> None:
        """Make the window `width` by `height` pixels."""
        self.page.set_viewport_size({"width": width, "height": height})

    def screenshot(self, name: str, of: Locator | None = None) -> Path:
        """Save ``artifacts/screenshots/NAME.png`` and return its path.

        Args:
            name: File name without ending.
            of: What to show; by default the whole notebook, as tall as it is.
        """
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        if of is not None:
            self._screenshot_of(of, path)
            return path
        size = self.page.viewport_size
        assert size is not None
        hidden = "e => Math.max(0, e.scrollHeight - e.clientHeight)"
        more = self.page.locator(".jp-WindowedPanel-outer").first.evaluate(hidden)
        self.resize(size["width"], min(size["height"] + more, 12_000))
        self.page.screenshot(path=path)
        self.resize(size["width"], size["height"])
        return path

    def _screenshot_of(self, of: Locator, path: Path) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                of.screenshot(path=path)  # scrolls there, too
                return
            except Error as error:  # a live card was redrawn between finding and drawing it
                if "not attached" not in error.message or time.monotonic() > deadline:
                    raise

    def _until(self, holds: Any, timeout_s: float, what: str) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while not holds(state := self.page.evaluate(_STATE)):
            assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}: {state}"
            self.page.wait_for_timeout(100)
        return dict(state)
