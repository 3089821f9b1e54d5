"""Records drawn as HTML, SVG or matplotlib figures: pure functions, everything escaped."""

from ftkit.views import strip
from ftkit.views._registry import to_html

__all__ = ["strip", "to_html"]
