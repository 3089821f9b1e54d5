"""A matplotlib `Figure` that shows itself in a notebook.

Jupyter draws plain figures only once pyplot is imported, which brings global state along. Imported
late, with matplotlib itself.
"""

from io import BytesIO

from matplotlib.figure import Figure


class ShownFigure(Figure):
    """Drawn as PNG wherever IPython asks for one."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()
