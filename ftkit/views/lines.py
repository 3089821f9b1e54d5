"""Curves over one axis as a card: themed SVG, each curve with a dash, a mark and its name beside.

Left out: log scales, interaction, gaps.
"""

from collections.abc import Sequence
from html import escape

from ftkit.records.lines import Lines
from ftkit.views._registry import to_html
from ftkit.views.plot import axis_names, levels, number, ticks
from ftkit.views.style import card, css

_WIDTH, _HEIGHT = 760, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 590, 14, 272
_ROW = 17  # least distance of two names
_MARKED = 24  # a curve of more points has marks on some only
_SHAPES = (
    "M{x:.1f} {y:.1f}m-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0 -6.8 0",
    "M{x:.1f} {y:.1f}m0 -4.8l4.8 4.8l-4.8 4.8l-4.8 -4.8z",
    "M{x:.1f} {y:.1f}m-3.6 -3.6h7.2v7.2h-7.2z",
    "M{x:.1f} {y:.1f}m0 -4.6l4.6 8.2h-9.2z",
)

Points = Sequence[tuple[float, float]]


@to_html.register
def lines_html(record: Lines) -> str:
    """Return the card of some curves."""
    body = f'<div class="ft-lines">{_svg(record)}</div>'
    return css("lines") + card(record.title, body, say=record.say)


def _svg(record: Lines) -> str:
    every = [point for points in record.curves.values() for point in points]
    x_range, y_range = _reach([x for x, _ in every]), _reach([y for _, y in every], 0.06)
    placed = [_placed(points, x_range, y_range) for points in record.curves.values()]
    curves = "".join(_curve(points, rank) for rank, points in enumerate(placed))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(_spoken(record))}">'
        f"{_axes(record, x_range, y_range)}{curves}{_names(record, placed)}</svg>"
    )


def _spoken(record: Lines) -> str:
    ends = "; ".join(
        f"{name}: from {number(points[0][1])} to {number(points[-1][1])}"
        for name, points in record.curves.items()
    )
    return f"{record.y} against {record.x}. {ends}."


def _reach(values: Sequence[float], pad: float = 0.0) -> tuple[float, float]:
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    return (low - pad * span, high + pad * span) if high > low else (low - span, high + span)


def _placed(points: Points, xs: tuple[float, float], ys: tuple[float, float]) -> Points:
    return [(_x(x, xs), _y(y, ys)) for x, y in points]


def _x(value: float, reach: tuple[float, float]) -> float:
    return _LEFT + (value - reach[0]) / (reach[1] - reach[0]) * (_RIGHT - _LEFT)


def _y(value: float, reach: tuple[float, float]) -> float:
    return _BOTTOM - (value - reach[0]) / (reach[1] - reach[0]) * (_BOTTOM - _TOP)


def _axes(record: Lines, xs: tuple[float, float], ys: tuple[float, float]) -> str:
    across = levels(ticks(*ys, 5), lambda v: _y(v, ys), _LEFT, _RIGHT)
    along = "".join(
        f'<text x="{_x(v, xs):.1f}" y="{_BOTTOM + 17}" text-anchor="middle">{number(v)}</text>'
        for v in ticks(*xs, 6)
    )
    names = axis_names(record.x, record.y, (_LEFT, _RIGHT, _TOP, _BOTTOM), _HEIGHT - 6, 14)
    return f'{across}{along}<path class="ax" d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}"/>{names}'


def _curve(points: Points, rank: int) -> str:
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    kept = points[:: max(1, len(points) // _MARKED + (len(points) > _MARKED))]
    marks = "".join(_SHAPES[rank].format(x=x, y=y) for x, y in kept)
    return f'<path class="ln c{rank}" d="M{path}"/><path class="mk c{rank}" d="{marks}"/>'


def _names(record: Lines, placed: Sequence[Points]) -> str:
    """The curves' names at their right ends, moved apart where they would overlap."""
    order = sorted(range(len(placed)), key=lambda rank: placed[rank][-1][1])
    spots: dict[int, float] = {}
    floor = _TOP + 4.0
    for rank in order:
        spots[rank] = floor = max(placed[rank][-1][1] + 4, floor)
        floor += _ROW
    over = max(0.0, max(spots.values()) - _BOTTOM)
    return "".join(
        f'<path class="mk c{rank}" d="{_SHAPES[rank].format(x=_RIGHT + 14, y=y - over - 4)}"/>'
        f'<text class="c{rank}" x="{_RIGHT + 24}" y="{y - over:.1f}">{escape(name)}</text>'
        for (rank, y), name in zip(sorted(spots.items()), record.curves, strict=True)
    )
