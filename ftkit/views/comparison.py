"""A comparison of algorithms as one card: gold for KL, gold for seconds, and the table.

Thin lines are seeds, point by point as they were measured; the large mark is the mean over seeds
at the budget. Left out: failed runs, which the table's sentence names.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite, sqrt

from ftkit.records.comparison import ComparisonResult
from ftkit.records.comparison_run import (
    ALGORITHMS,
    NAMES,
    Algorithm,
    Budget,
    ComparisonPoint,
    Reading,
)
from ftkit.records.comparison_words import in_short, limit_text, start_text
from ftkit.views._registry import to_html
from ftkit.views.plot import axis_names, levels, number, ticks
from ftkit.views.style import card, css, stat
from ftkit.views.table import rows_html

_WIDTH, _HEIGHT = 470, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 372, 38, 288
_LABEL, _LINE = 392, 17  # where the names stand, and the least distance of two
_SHAPES: dict[Algorithm, str] = {
    "ppo": "M{x:.1f} {y:.1f}m-5.5 0a5.5 5.5 0 1 0 11 0a5.5 5.5 0 1 0 -11 0",
    "dpo": "M{x:.1f} {y:.1f}m-5 -5h10v10h-10z",
    "grpo": "M{x:.1f} {y:.1f}m0 -7l6.5 11.5h-13z",
    "rloo": "M{x:.1f} {y:.1f}m0 -7l7 7l-7 7l-7 -7z",
    "best-of-n": "M{x:.1f} {y:.1f}m-5 -5l10 10m0 -10l-10 10",
}


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of a comparison: which budget it reads, and what lies along x.

    Attributes:
        title: What it asks.
        axis: Name of x with its unit.
        budget: At which the large marks stand.
        root: Whether x is drawn by its square root.
        x: Point → its place, in the unit of the axis.
    """

    title: str
    axis: str
    budget: Budget
    root: bool
    x: Callable[[ComparisonPoint], float]

    def along(self, point: ComparisonPoint) -> float:
        """Return the place of a point, through the square root where the panel has one."""
        value = self.x(point)
        return sqrt(max(value, 0.0)) if self.root else value


PANELS = (
    Panel(
        "What a nat of distance buys", "KL from the start (nats an answer, √ scale)", "tokens",
        True, lambda point: point.kl,
    ),
    Panel(
        "What a second buys", "wall time (s)", "seconds",
        False, lambda point: point.seconds,
    ),
)  # fmt: skip


@to_html.register
def comparison_html(record: ComparisonResult) -> str:
    """Return the card of a comparison."""
    shown = record.readings("tokens")
    body = _stats(record) + (_panels(record) if shown else "")
    table = record.table()
    return css("comparison") + card(
        f"Algorithms at an equal budget: {record.reward} of {record.model}",
        f'<div class="ft-compare">{body}{rows_html(table.columns, table.rows)}</div>',
        say=f"Up is better; in the left picture, up and left. {table.say}",
    )


def _stats(record: ComparisonResult) -> str:
    seeds = len({run.seed for run in record.runs})
    return (
        '<div class="ft-stat">'
        + stat(start_text(record), f"gold at the start ± standard error ({record.start})")
        + stat(f"{record.tokens:,}", "sampled tokens a run")
        + stat(f"{record.seconds:g} s", f"wall time a run ({record.device})")
        + stat(f"{seeds}", "seeds" if seeds != 1 else "seed")
        + "</div>"
    )


def _panels(record: ComparisonResult) -> str:
    return f'<div class="ft-comparepair">{"".join(_svg(record, p) for p in PANELS)}</div>'


# --- one panel -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Scale:
    xs: tuple[float, float]
    ys: tuple[float, float]

    def x(self, value: float) -> float:
        share = (value - self.xs[0]) / (self.xs[1] - self.xs[0])
        return _LEFT + min(max(share, 0.0), 1.0) * (_RIGHT - _LEFT)

    def y(self, value: float) -> float:
        return _BOTTOM - (value - self.ys[0]) / (self.ys[1] - self.ys[0]) * (_BOTTOM - _TOP)


def _svg(record: ComparisonResult, panel: Panel) -> str:
    scale = _scale(record, panel)
    lines = "".join(_seeds(record, panel, name, scale) for name in ALGORITHMS)
    readings = record.readings(panel.budget)
    marks = [(r, *_centre(panel, r, scale)) for r in readings]
    drawn = "".join(_point(record, panel, r, x, y) for r, x, y in marks)
    spoken = "; ".join(in_short(r) for r in readings)
    head = (
        f'<text class="head" x="{_LEFT}" y="12">{escape(panel.title)}</text><text x="{_LEFT}" '
        f'y="28">marks: mean over seeds within {limit_text(record, panel.budget)}</text>'
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(panel.title)}, at '
        f'{limit_text(record, panel.budget)}: {escape(spoken)}">{head}{_axes(panel, scale)}'
        f"{_start(record, panel, scale)}{lines}{drawn}{_labels(marks)}</svg>"
    )


def _scale(record: ComparisonResult, panel: Panel) -> _Scale:
    points = [point for run in record.runs for point in run.points if isfinite(point.gold)]
    low, high = min(p.gold for p in points), max(p.gold for p in points)
    pad = 0.08 * ((high - low) or 1.0)
    return _Scale((0.0, 1.04 * (_reach(record, panel, points) or 1.0)), (low - pad, high + pad))


def _reach(record: ComparisonResult, panel: Panel, points: Sequence[ComparisonPoint]) -> float:
    """How far x goes; answers of best-of-n far behind the budget would squeeze all others."""
    if panel.root:
        return max(panel.along(point) for point in points)
    trained = [p for r in record.runs if r.algorithm != "best-of-n" for p in r.points]
    return max([panel.along(p) for p in trained or points] + [record.limit(panel.budget)])


def _axes(panel: Panel, scale: _Scale) -> str:
    across = levels(ticks(*scale.ys, 5), scale.y, _LEFT, _RIGHT)
    along = "".join(
        f'<path class="ax" d="M{scale.x(at):.1f} {_BOTTOM}v4"/>'
        f'<text x="{scale.x(at):.1f}" y="{_BOTTOM + 17}" text-anchor="middle">{number(v)}</text>'
        for at, v in marks_along(panel, scale.xs[1])
    )
    box = (_LEFT, _RIGHT, _TOP, _BOTTOM)
    names = axis_names(panel.axis, "gold reward (mean)", box, _HEIGHT - 14, 13)
    return f'{across}{along}<path class="ax" d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}"/>{names}'


def marks_along(panel: Panel, end: float) -> list[tuple[float, float]]:
    """Return place and number of the ticks along x, whose picture ends at the place `end`."""
    if not panel.root:
        return [(value, value) for value in ticks(0.0, end, 5)]
    kept = [(0.0, 0.0)]
    for value in (0.01, 0.03, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512):
        if kept[-1][0] + 0.09 * end <= sqrt(value) <= end:
            kept.append((sqrt(value), value))
    return kept


def _start(record: ComparisonResult, panel: Panel, scale: _Scale) -> str:
    gold, _ = record.at_start()
    y = scale.y(gold)
    budget = ""
    if not panel.root:
        x = scale.x(record.limit(panel.budget))
        budget = (
            f'<path class="edge" d="M{x:.1f} {_TOP}V{_BOTTOM}"/><text class="where" x="{x - 4:.1f}"'
            f' y="{_BOTTOM - 5}" text-anchor="end">budget</text>'
        )
    return (
        f'<path class="edge" d="M{_LEFT} {y:.1f}H{_RIGHT}"/>{budget}'
        f'<text class="where" x="{_RIGHT - 3}" y="{y + 13:.1f}" text-anchor="end">start</text>'
    )


def _seeds(record: ComparisonResult, panel: Panel, name: Algorithm, scale: _Scale) -> str:
    """Thin lines with dots, one a seed."""
    parts = []
    for run in record.seeds_of(name):
        inside = [p for p in run.points if isfinite(p.gold) and panel.along(p) <= scale.xs[1]]
        places = [(scale.x(panel.along(p)), scale.y(p.gold)) for p in inside]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2"/>' for x, y in places)
        if path:
            parts.append(f'<path class="seed" d="M{path}"/>{dots}')
    return f'<g class="{_css(name)}">{"".join(parts)}</g>'


def _centre(panel: Panel, reading: Reading, scale: _Scale) -> tuple[float, float]:
    places = [panel.along(point) for point in reading.points]
    return scale.x(sum(places) / len(places)), scale.y(reading.mean("gold"))


def _point(record: ComparisonResult, panel: Panel, reading: Reading, x: float, y: float) -> str:
    title = f"{in_short(reading)}, at {limit_text(record, panel.budget)}"
    return (
        f'<g class="{_css(reading.algorithm)}"><title>{escape(title)}</title>'
        f'<path class="mark" d="{_SHAPES[reading.algorithm].format(x=x, y=y)}"/></g>'
    )


def _css(name: Algorithm) -> str:
    return f"a{ALGORITHMS.index(name)}"


def _labels(marks: Sequence[tuple[Reading, float, float]]) -> str:
    """Names in one column beside the picture, each at the height of its mark where it can be."""
    ordered = sorted(marks, key=lambda mark: mark[2])
    heights = spaced([y for _, _, y in ordered], _LINE, (_TOP, _BOTTOM))
    return "".join(
        f'<g class="{_css(reading.algorithm)}">'
        f'<path class="lead" d="M{x + 8:.1f} {y:.1f}L{_LABEL - 14} {height:.1f}h10"/>'
        f'<text class="label" x="{_LABEL}" y="{height + 4:.1f}">{NAMES[reading.algorithm]}</text>'
        "</g>"
        for (reading, x, y), height in zip(ordered, heights, strict=True)
    )


def spaced(wanted: Sequence[float], gap: float, box: tuple[float, float]) -> list[float]:
    """Move sorted heights apart until `gap` lies between any two, inside `box` if there is room."""
    placed: list[float] = []
    for height in wanted:
        placed.append(max([height] + [last + gap for last in placed[-1:]]))
    end = box[1]
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], end)
        end = placed[i] - gap
    return placed
