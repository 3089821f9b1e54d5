"""Records drawn as HTML, SVG or matplotlib figures: pure functions, everything escaped."""

from ftkit.views import curves, strip
from ftkit.views._registry import to_html

__all__ = ["curves", "strip", "to_html"]
