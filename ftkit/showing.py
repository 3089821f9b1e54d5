"""How ftkit's objects show themselves: as a live widget, as static HTML, or as text.

The objects (tokens, findings, histories) live in rooms that must not know how they are drawn.
`Showable` is the seam: it asks `ftkit.views.to_html` at the moment of display.
"""

import importlib
import os
import sys
from typing import Any, Literal

from ftkit.errors import SettingsError

Mode = Literal["auto", "widget", "html"]
_MODES: tuple[Mode, ...] = ("auto", "widget", "html")
_mode: Mode = "auto"

# A Jupyter server names its kernels' sessions; VS Code's processes carry its own variables.
_FRONT_END_VARIABLES = ("JPY_SESSION_NAME", "VSCODE_PID", "VSCODE_CWD")


def display(mode: Mode | None = None) -> Mode:
    """Set (or, without argument, return) how ftkit's views show themselves.

    ``"auto"`` means live widgets where there are signs of a notebook front end (JupyterLab,
    Notebook, VS Code, Colab), and self-contained HTML where no kernel will answer later: under
    nbconvert, nbmake, papermill or any other nbclient, in CI, in plain Python. ``FTKIT_STATIC=1``
    and ``FTKIT_STATIC=0`` decide for HTML or widgets, e.g. for a notebook that a live notebook
    runs (its kernel inherits the signs) or for a front end that is not recognized.

    Raises:
        SettingsError: `mode` is none of ``"auto"``, ``"widget"``, ``"html"``.
    """
    global _mode
    if mode is not None:
        if mode not in _MODES:
            raise SettingsError(f"display mode {mode!r} is unknown; use one of {', '.join(_MODES)}")
        _mode = mode
    return _mode


def in_kernel() -> bool:
    """Whether a Jupyter kernel runs this, and not plain Python or IPython in a terminal."""
    return hasattr(_shell(), "kernel")


def is_static() -> bool:
    """Whether views should come as HTML that needs no kernel."""
    if _mode != "auto":
        return _mode == "html"
    asked = os.environ.get("FTKIT_STATIC", "")
    if asked:
        return asked != "0"
    return bool(os.environ.get("CI")) or not _has_live_front_end()


def _has_live_front_end() -> bool:
    """A kernel with comms is running, and an editor or a Jupyter server has started it."""
    shell = _shell()
    return in_kernel() and (
        any(name in os.environ for name in _FRONT_END_VARIABLES)
        or "__vsc_ipynb_file__" in shell.user_ns
        or "google.colab" in sys.modules
    )


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


class Showable:
    """Mixin for records that Jupyter shows as HTML, with `str(self)` as the text twin."""

    def to_html(self) -> str:
        """Return self-contained, escaped HTML that needs neither script nor kernel."""
        return str(importlib.import_module("ftkit.views").to_html(self))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/html": self.to_html(), "text/plain": str(self)}
