"""What every ftkit widget shares: a live view in a front end, static HTML everywhere else.

A new explorer is three files: a view (`ftkit.views`) that draws the picture from plain arguments, a
`Viewer` with one synced trait for each control, which redraws into its trait ``_html``, and a
script for the controls beside it. ``_esm = script("my_explorer")`` puts ``explorer.js`` in front of
``my_explorer.js``, which may then call its `element`, `set`, `slider`, `example`, `picture` and
`explorer` (the card; it keeps keys from JupyterLab), must not declare these names again, and ends
with::

    function render({ model, el }) {
      explorer(el, "Title", slider(model, { name: "gap", ... }), picture(model));
    }
    export default { render };

A widget that draws in the browser itself brings a whole script: ``_esm = _HERE / "mine.js"``.
"""

from importlib.resources import files
from typing import Any

import anywidget
import traitlets as t
from ipywidgets import Layout, widget_serialization

from ftkit.showing import is_static


class Viewer(anywidget.AnyWidget):
    """A widget with three forms: live, self-contained HTML (`to_html`), and text (``str``)."""

    # Without a default: a layout is a widget of its own, and would leave state in static mode.
    layout = t.Instance(Layout, allow_none=True).tag(sync=True, **widget_serialization)

    def to_html(self) -> str:
        """Return the present picture as self-contained HTML without script."""
        raise NotImplementedError

    def open(self) -> None:
        """Connect to the browser; not in static mode, so that no widget state is left behind."""
        if not is_static():
            super().open()

    def refresh(self) -> None:
        """Bring what the browser draws from up to date, before the widget is shown."""

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        shown = {"text/html": self.to_html(), "text/plain": str(self)}
        if is_static():
            return shown
        self.open()
        self.refresh()
        data, metadata = super()._repr_mimebundle_(**kwargs)
        return {**data, **shown}, metadata


def script(name: str) -> str:
    """Return the module for `_esm`: what explorers share, then ``<name>.js`` beside this file."""
    folder = files("ftkit.widgets")
    parts = (folder / f"{part}.js" for part in ("explorer", name))
    return "\n".join(part.read_text(encoding="utf-8") for part in parts)
