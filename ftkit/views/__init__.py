"""Records drawn as HTML, SVG or matplotlib figures: pure functions, everything escaped."""

from ftkit.views import (
    audit,
    curves,
    lines,
    model_card,
    ppo_loss,
    ppo_stepper,
    reward_loss,
    strip,
    table,
)
from ftkit.views._registry import to_html

__all__ = [
    "audit",
    "curves",
    "lines",
    "model_card",
    "ppo_loss",
    "ppo_stepper",
    "reward_loss",
    "strip",
    "table",
    "to_html",
]
