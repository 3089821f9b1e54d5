"""The two drawings of a packed corpus: its blocks, and the bill against the block size."""

from collections.abc import Callable, Sequence
from html import escape
from math import log2

from ftkit.records.packing import Packing, PackingPoint
from ftkit.views.plot import axis_names, number, ticks

_WIDTH, _LEFT, _RIGHT = 720, 58, 706
_TOP, _ROW, _BAR = 8, 23, 18
_ROWS = 10  # blocks drawn
_ROOM = 44  # least width of a segment that its name fits into
_HUES = 4
_Place = Callable[[float, float], tuple[float, float]]
_PLOT_TOP, _PLOT_BOTTOM, _PLOT_HEIGHT = 26, 168, 210


def hue(document: int) -> int:
    """Return which of the colours `document` has; neighbours differ."""
    return document % _HUES


def blocks_svg(packing: Packing, chosen: int) -> str:
    """Return up to ten blocks around block `chosen`, one bar each."""
    first = min(max(0, chosen - 3), max(0, packing.blocks - _ROWS))
    shown = range(first, min(first + _ROWS, packing.blocks))
    bottom = _TOP + _ROW * len(shown)
    says = (
        f"Blocks {shown[0]} to {shown[-1]} of {packing.blocks}, each with the documents inside; "
        f"{packing.crossing_share:.1%} of all predictions see another document."
    )
    bars = "".join(_bar(packing, b, _TOP + _ROW * i, chosen) for i, b in enumerate(shown))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {bottom + 38}" role="img" aria-label="{escape(says)}">'
        f"{_PATTERN}{bars}{_positions(packing.block_size, bottom)}"
        f'<text class="name" x="14" y="{(_TOP + bottom) // 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {(_TOP + bottom) // 2})">block</text></svg>'
    )


_PATTERN = (
    '<defs><pattern id="ft-pk-cross" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><path class="hatch" d="M0 0V6"/></pattern></defs>'
)


def _x(position: float, size: int) -> float:
    return _LEFT + position / size * (_RIGHT - _LEFT)


def _bar(packing: Packing, block: int, top: int, chosen: int) -> str:
    size, here = packing.block_size, block == chosen
    name = f"▸ {block}" if here else str(block)
    parts = [
        f'<text class="no{" here" if here else ""}" x="{_LEFT - 7}" y="{top + 13}" '
        f'text-anchor="end">{name}</text>'
    ]
    for place, (document, start, stop) in enumerate(packing.segments(block)):
        left, right = _x(start, size), _x(stop, size)
        box = f'x="{left:.1f}" y="{top}" width="{right - left:.1f}" height="{_BAR}"'
        title = f"document {document}, positions {start} to {stop - 1}"
        parts.append(f'<rect class="doc d{hue(document)}" {box}><title>{title}</title></rect>')
        if place:
            parts.append(f'<rect class="cross" {box}/>')
            parts.append(f'<path class="border" d="M{left:.1f} {top - 2}v{_BAR + 4}"/>')
        if right - left >= _ROOM:
            parts.append(
                f'<text class="in" x="{left + 6:.1f}" y="{top + 13}">doc {document}</text>'
            )
    frame = f'x="{_LEFT}" y="{top}" width="{_RIGHT - _LEFT}" height="{_BAR}"'
    parts.append(f'<rect class="frame{" here" if here else ""}" {frame}/>')
    return f'<g data-block="{block}">{"".join(parts)}</g>'


def _positions(size: int, bottom: int) -> str:
    along = "".join(
        f'<path class="ax" d="M{_x(v, size):.1f} {bottom}v4"/>'
        f'<text x="{_x(v, size):.1f}" y="{bottom + 16}" text-anchor="middle">{number(v)}</text>'
        for v in ticks(0, size, 8)
        if v == int(v)
    )
    return (
        f'{along}<text class="name" x="{(_LEFT + _RIGHT) // 2}" y="{bottom + 33}" '
        'text-anchor="middle">position in the block (tokens)</text>'
    )


# --- the bill against the block size ---------------------------------------------------------


def sizes_svg(packing: Packing, sweep: Sequence[PackingPoint]) -> str:
    """Return the share of crossing predictions and of dropped tokens against the block size."""
    now = PackingPoint(packing.block_size, packing.crossing_share, packing.dropped / packing.tokens)
    points = sorted({*sweep, now})
    low, high = log2(points[0].block_size), log2(points[-1].block_size)
    top = 1.08 * max(0.05, *(max(p.crossing_share, p.dropped_share) for p in points))

    def at(size: float, share: float) -> tuple[float, float]:
        across = _LEFT + (log2(size) - low) / (high - low) * (_RIGHT - _LEFT)
        return across, _PLOT_BOTTOM - share / top * (_PLOT_BOTTOM - _PLOT_TOP)

    says = (
        f"Against the block size: at {now.block_size} tokens {now.crossing_share:.1%} of the "
        f"predictions see another document and {now.dropped_share:.2%} of the tokens are dropped."
    )
    crossing = [at(p.block_size, p.crossing_share) for p in points]
    dropped = [at(p.block_size, p.dropped_share) for p in points]
    here = at(now.block_size, now.crossing_share)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_PLOT_HEIGHT}" role="img" aria-label="{escape(says)}">'
        + _grid([p.block_size for p in points], top, at)
        + f'<path class="now" d="M{here[0]:.1f} {_PLOT_TOP}V{_PLOT_BOTTOM}"/>'
        + _line("dropped", dropped)
        + "".join(
            f'<path class="gone" d="M{x:.1f} {y - 4:.1f}l4 4l-4 4l-4 -4z"/>' for x, y in dropped
        )
        + _line("share", crossing)
        + "".join(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in crossing)
        + f'<circle class="here" cx="{here[0]:.1f}" cy="{here[1]:.1f}" r="6.5"/>{_KEYS}</svg>'
    )


def _diamond(x: float, y: float) -> str:
    return f'<path class="gone" d="M{x:.1f} {y - 4:.1f}l4 4l-4 4l-4 -4z"/>'


_KEYS = (
    f'<circle class="dot" cx="{_LEFT + 8}" cy="12" r="3"/><text class="name" x="{_LEFT + 17}" '
    f'y="16">see another document</text>{_diamond(_LEFT + 172, 12)}'
    f'<text class="name" x="{_LEFT + 183}" y="16">tokens dropped</text>'
)


def _line(kind: str, points: Sequence[tuple[float, float]]) -> str:
    return f'<path class="{kind}" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in points)}"/>'


def _grid(sizes: Sequence[int], top: float, at: _Place) -> str:
    powers = [s for s in sizes if s & (s - 1) == 0]
    along = "".join(
        f'<path class="ax" d="M{at(s, 0)[0]:.1f} {_PLOT_BOTTOM}v4"/>'
        f'<text x="{at(s, 0)[0]:.1f}" y="{_PLOT_BOTTOM + 16}" text-anchor="middle">{s:,}</text>'
        for s in powers
    )
    across = "".join(
        f'<path class="grid" d="M{_LEFT} {at(sizes[0], v)[1]:.1f}H{_RIGHT}"/>'
        f'<text x="{_LEFT - 7}" y="{at(sizes[0], v)[1] + 4:.1f}" text-anchor="end">{v:.0%}</text>'
        for v in ticks(0, top, 4)
    )
    box = (_LEFT, _RIGHT, _PLOT_TOP, _PLOT_BOTTOM)
    names = axis_names("block size (tokens, doubling)", "share", box, _PLOT_HEIGHT - 6, 12)
    frame = f'<path class="ax" d="M{_LEFT} {_PLOT_TOP}V{_PLOT_BOTTOM}H{_RIGHT}"/>'
    return across + along + frame + names
