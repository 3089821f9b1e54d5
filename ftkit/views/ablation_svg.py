"""One row of a forest plot as inline SVG: seeds as dots, the mean, and its interval.

All rows of a column share one scale, so that they can be compared down the table. With two seeds an
interval is a dozen spreads wide; it is cut then, with an arrow, so that the dots stay apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ftkit.records.intervals import Interval
from ftkit.views.plot import number, ticks

WIDTH, HEIGHT = 210, 24
_SIDE = 8
_REACH = 1.2  # an interval is shown up to so many spans of the dots beyond them


@dataclass(frozen=True, slots=True)
class Scale:
    """What the ends of the picture stand for."""

    low: float
    high: float

    def px(self, value: float) -> float:
        """Return the horizontal place of `value`, kept inside the picture."""
        inside = min(max(value, self.low), self.high)
        return _SIDE + (inside - self.low) / (self.high - self.low) * (WIDTH - 2 * _SIDE)


def scale_of(
    values: Sequence[float], intervals: Sequence[Interval | None], *, zero: bool = False
) -> Scale:
    """Return a scale with all `values`, and the intervals as far as they are not much wider.

    Args:
        values: Of the seeds, of all rows; at least one.
        intervals: Of all rows.
        zero: Whether 0 must be in it.
    """
    points = [*values, *([0.0] if zero else [])]
    low, high = min(points), max(points)
    room = _REACH * ((high - low) or abs(high) * 0.1 or 1.0)
    ends = [(i.low, i.high) for i in intervals if i is not None]
    left = max(min([low, *(a for a, _ in ends)]), low - room)
    right = min(max([high, *(b for _, b in ends)]), high + room)
    pad = 0.04 * (right - left) or abs(right) * 0.1 or 1.0
    return Scale(left - pad, right + pad)


def row(
    values: Sequence[float],
    mean: Interval,
    scale: Scale,
    *,
    line: float | None,
    kind: str,
    spoken: str,
) -> str:
    """Return the picture of one setting.

    Args:
        values: One a seed.
        mean: With its interval.
        scale: Of the column.
        line: Where the dashed line stands (the baseline, or 0); None for none.
        kind: ``"base"`` (square), ``"clear"`` (filled) or ``"open"`` (hollow).
        spoken: What a screen reader says; plain text.
    """
    middle = HEIGHT / 2
    rule = f'<path class="zero" d="M{scale.px(line):.1f} 0V{HEIGHT}"/>' if line is not None else ""
    dots = "".join(
        f'<circle class="dot" cx="{scale.px(v):.1f}" cy="{middle + 7}" r="2"/>' for v in values
    )
    x, y = scale.px(mean.mean), middle - 3
    bar = _bar(mean, scale, y) if mean.half is not None else ""
    if kind == "base":
        mark = f'<rect class="mark base" x="{x - 4:.1f}" y="{y - 4}" width="8" height="8"/>'
    else:
        mark = f'<circle class="mark {kind}" cx="{x:.1f}" cy="{y}" r="4.2"/>'
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(spoken)}">'
        f"<title>{escape(spoken)}</title>{rule}{dots}{bar}{mark}</svg>"
    )


def axis(scale: Scale) -> str:
    """Return the numbers above a column."""
    shown = ticks(scale.low, scale.high, 3)
    marks = "".join(
        f'<path class="ax" d="M{scale.px(v):.1f} 13v4"/>'
        f'<text x="{scale.px(v):.1f}" y="10" text-anchor="middle">{number(v)}</text>'
        for v in shown
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} 18" aria-hidden="true">'
        f'<path class="ax" d="M{_SIDE} 17H{WIDTH - _SIDE}"/>{marks}</svg>'
    )


def _bar(mean: Interval, scale: Scale, y: float) -> str:
    left, right = scale.px(mean.low), scale.px(mean.high)
    start = f"M{left + 4:.1f} {y - 4}l-4 4l4 4" if mean.low < scale.low else _cap(left, y)
    end = f"M{right - 4:.1f} {y - 4}l4 4l-4 4" if mean.high > scale.high else _cap(right, y)
    return f'<path class="bar" d="M{left:.1f} {y}H{right:.1f}{start}{end}"/>'


def _cap(x: float, y: float) -> str:
    return f"M{x:.1f} {y - 4}v8"
