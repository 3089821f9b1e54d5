"""Records drawn as HTML, SVG or matplotlib figures: pure functions, everything escaped."""

from ftkit.views import audit, curves, model_card, ppo_stepper, strip, table
from ftkit.views._registry import to_html

__all__ = ["audit", "curves", "model_card", "ppo_stepper", "strip", "table", "to_html"]
