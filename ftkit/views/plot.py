"""One small line plot as inline SVG: themed by CSS, with a healthy band and visible gaps.

Colours come from the classes in ``curves.css``, so one picture serves light and dark pages. Left
out: interaction, log scales, and anything that knows what a metric means.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate, groupby
from math import ceil, floor, inf, isfinite, log10

Point = tuple[int, float]

WIDTH, HEIGHT = 300, 140
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 292, 9, 106
_DOTS = 40  # more points than that are a line without dots
SMOOTHED_FROM = 60
"""Points from which a curve is drawn thin, with its running mean on top."""
_KEPT = 240  # points drawn; of more, the lowest and highest of each bucket
_REACH = 0.6  # a band edge is brought into view when it is within so many data spans


@dataclass(frozen=True, slots=True)
class Series:
    """One curve.

    Attributes:
        name: ``"train"``, ``"eval"``, …
        points: ``(step, value)`` in order; values may be NaN or infinite.
        rank: 0 for training (solid line, dots), 1 to 3 for held-out curves (dashed, diamonds).
    """

    name: str
    points: tuple[Point, ...]
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Scale:
    """Data to picture: x in steps of the run, y in the metric's unit."""

    x: tuple[float, float]
    y: tuple[float, float]

    def px(self, step: float) -> float:
        """Return the horizontal position of `step`."""
        return _LEFT + (step - self.x[0]) / (self.x[1] - self.x[0]) * (_RIGHT - _LEFT)

    def py(self, value: float) -> float:
        """Return the vertical position of `value`, kept inside the frame."""
        low, high = self.y
        inside = min(max(value, low), high)
        return _BOTTOM - (inside - low) / (high - low) * (_BOTTOM - _TOP)


def svg(
    series: Sequence[Series],
    *,
    unit: str,
    title: str,
    steps: str = "optimizer step",
    band: tuple[float, float] | None = None,
) -> str:
    """Return the plot as one ``<svg>`` element.

    Args:
        series: The curves; each needs one point at least.
        unit: Label of the y axis.
        title: What a screen reader says; plain text.
        steps: Label of the x axis.
        band: Healthy values ``(low, high)``; infinite ends are open.
    """
    scale = scale_of(series, band)
    shaded = _band(scale, band) if band else ""
    body = shaded + _axes(scale, unit, steps) + "".join(_curve(s, scale) for s in series)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{body}</svg>"
    )


def scale_of(series: Sequence[Series], band: tuple[float, float] | None = None) -> Scale:
    """Return the ranges that show every finite value, and the band's edges when they are near."""
    steps = [step for s in series for step, _ in s.points]
    values = [v for s in series for _, v in s.points if isfinite(v)] or [0.0]
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    for edge in band or ():
        if low - _REACH * span <= edge <= high + _REACH * span:
            low, high = min(low, edge), max(high, edge)
    pad = (high - low) * 0.06 or abs(high) * 0.5 or 0.5
    room = 0.18 * (high - low) if any(not isfinite(v) for s in series for _, v in s.points) else 0.0
    first, last = min(steps), max(steps)
    wide = (first, last) if last > first else (first - 1, last + 1)
    return Scale(wide, (low - pad - room, high + pad))


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return about `count` round numbers within ``[low, high]``."""
    raw = (high - low) / count
    power = 10.0 ** floor(log10(raw))
    step = next(k * power for k in (1, 2, 2.5, 5, 10) if k * power >= raw * 0.999)
    first = ceil(low / step - 1e-9)
    return [i * step for i in range(first, floor(high / step + 1e-9) + 1)]


def levels(values: Iterable[float], y: Callable[[float], float], left: int, right: int) -> str:
    """Return a line across the plot for each of `values`, with its number at the left."""
    return "".join(
        f'<path class="grid" d="M{left} {y(v):.1f}H{right}"/>'
        f'<text x="{left - 7}" y="{y(v) + 4:.1f}" text-anchor="end">{number(v)}</text>'
        for v in values
    )


def axis_names(
    x_name: str, y_name: str, box: tuple[int, int, int, int], below: int, beside: int
) -> str:
    """Return the names of two axes, each in the middle of its own.

    Args:
        x_name: With its unit.
        y_name: With its unit; drawn upright along the axis.
        box: Left, right, top and bottom of the plot, in units of the picture.
        below: Height at which the first stands.
        beside: Where the second stands, from the left.
    """
    x, y = (box[0] + box[1]) // 2, (box[2] + box[3]) // 2
    return (
        f'<text class="name" x="{x}" y="{below}" text-anchor="middle">{escape(x_name)}</text>'
        f'<text class="name" x="{beside}" y="{y}" text-anchor="middle" '
        f'transform="rotate(-90 {beside} {y})">{escape(y_name)}</text>'
    )


def number(value: float) -> str:
    """Return `value` in a few characters: ``0.0123``, ``12,300``, ``4.2M``, ``2e−5``."""
    if not isfinite(value):
        return "NaN" if value != value else "∞" if value > 0 else "−∞"
    size = abs(value)
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if size >= limit:
            return f"{value / limit:.3g}{letter}".replace("-", "−")
    if 0 < size < 1e-3:
        digits, power = f"{value:.1e}".split("e")
        return f"{digits.removesuffix('.0')}e{int(power)}".replace("-", "−")
    return (f"{value:,.0f}" if size >= 1000 else f"{value:.3g}").replace("-", "−")


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """Return the mean over `width` neighbours of each value, fewer at the ends; NaN stays NaN."""
    half, last = width // 2, len(values) - 1
    sums = list(accumulate((v if isfinite(v) else 0.0 for v in values), initial=0.0))
    counts = list(accumulate((isfinite(v) for v in values), initial=0))
    means = []
    for i, value in enumerate(values):
        start, stop = max(0, i - half), min(last, i + half) + 1
        near = counts[stop] - counts[start]
        means.append((sums[stop] - sums[start]) / near if isfinite(value) else value)
    return means


def smoothing(points: int) -> int:
    """Return how many neighbours the running mean of a curve of so many points takes."""
    return max(5, points // 20)


def _tick(value: float) -> str:
    return f"{value / 1000:g}k".replace("-", "−") if 1e4 <= abs(value) < 1e6 else number(value)


# --- parts -----------------------------------------------------------------------------------


def _axes(scale: Scale, unit: str, steps: str) -> str:
    frame = f'<path class="ax" d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}"/>'
    across = "".join(
        f'<path class="ax" d="M{_LEFT - 3} {scale.py(v):.1f}h3"/>'
        f'<text x="{_LEFT - 6}" y="{scale.py(v) + 3.5:.1f}" text-anchor="end">{_tick(v)}</text>'
        for v in ticks(*scale.y)
    )
    whole = [v for v in ticks(*scale.x, 4) if v == int(v)]
    along = "".join(
        f'<text x="{scale.px(v):.1f}" y="{_BOTTOM + 13}" text-anchor="middle">{number(v)}</text>'
        for v in whole
    )
    middle_x, middle_y = (_LEFT + _RIGHT) / 2, (_TOP + _BOTTOM) / 2
    labels = (
        f'<text x="{middle_x:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{escape(steps)}</text>'
        f'<text x="8" y="{middle_y:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 8 {middle_y:.0f})">{escape(unit)}</text>'
    )
    return frame + across + along + labels


def _band(scale: Scale, band: tuple[float, float]) -> str:
    low, high = max(band[0], scale.y[0]), min(band[1], scale.y[1])
    if low >= high:
        return ""
    top, bottom = scale.py(high), scale.py(low)
    edges = "".join(
        f'<path class="edge" d="M{_LEFT} {scale.py(edge):.1f}H{_RIGHT}"/>'
        for edge in band
        if scale.y[0] < edge < scale.y[1]
    )
    label = (
        f'<text class="hl" x="{_RIGHT - 3}" y="{top + 9.5:.1f}" text-anchor="end">healthy</text>'
    )
    return (
        f'<rect class="band" x="{_LEFT}" y="{top:.1f}" width="{_RIGHT - _LEFT}" '
        f'height="{bottom - top:.1f}"/>{edges}{label}'
    )


def _curve(series: Series, scale: Scale) -> str:
    kind = f"s{min(series.rank, 3)}" + (" ev" if series.rank else "")
    smooth = series.rank == 0 and len(series.points) > SMOOTHED_FROM
    line = _line(_thinned(series.points), scale, f"ln {kind}{' raw' if smooth else ''}")
    if smooth:
        width = smoothing(len(series.points))
        means = running_mean([v for _, v in series.points], width)
        steps = [step for step, _ in series.points]
        line += _line(_thinned(tuple(zip(steps, means, strict=True))), scale, f"ln {kind}")
    return line + _marks(series, scale, kind) + _gaps(series, scale)


def _line(points: Sequence[Point], scale: Scale, kind: str) -> str:
    runs = [list(g) for ok, g in groupby(points, lambda p: isfinite(p[1])) if ok]
    path = "".join(
        "M" + "L".join(f"{scale.px(x):.1f} {scale.py(y):.1f}" for x, y in run) for run in runs
    )
    return f'<path class="{kind}" d="{path}"/>' if path else ""


def _marks(series: Series, scale: Scale, kind: str) -> str:
    finite = [(scale.px(x), scale.py(y)) for x, y in series.points if isfinite(y)]
    if series.rank:
        shape = "".join(f"M{x:.1f} {y - 4:.1f}l4 4l-4 4l-4 -4z" for x, y in finite[-_DOTS:])
        return f'<path class="{kind.split()[0]} dm" d="{shape}"/>' if shape else ""
    shown = finite if len(finite) <= _DOTS else finite[-1:]
    return "".join(
        f'<circle class="{kind} pt" cx="{x:.1f}" cy="{y:.1f}" r="2.2"/>' for x, y in shown
    )


def _gaps(series: Series, scale: Scale) -> str:
    gaps = [(scale.px(step), value) for step, value in series.points if not isfinite(value)]
    if not gaps:
        return ""
    lines = "".join(f"M{x:.1f} {_TOP}V{_BOTTOM}" for x, _ in gaps)
    crosses = "".join(f"M{x - 3:.1f} {_BOTTOM - 7}l6 6m0 -6l-6 6" for x, _ in gaps)
    right = gaps[-1][0] < (_LEFT + _RIGHT) / 2
    at, side = (gaps[-1][0] + 6, "start") if right else (gaps[0][0] - 6, "end")
    name = number(gaps[-1][1]) + (f" ×{len(gaps)}" if len(gaps) > 1 else "")
    return (
        f'<path class="nan" d="{lines}"/><path class="nx" d="{crosses}"/>'
        f'<text class="nt" x="{at:.1f}" y="{_BOTTOM - 5}" text-anchor="{side}">{name}</text>'
    )


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    """Keep the lowest and the highest point of each bucket, and every gap."""
    if len(points) <= _KEPT:
        return points
    size = ceil(len(points) / (_KEPT // 2))
    kept: list[Point] = []
    for start in range(0, len(points), size):
        bucket = points[start : start + size]
        low = min(bucket, key=lambda p: p[1] if isfinite(p[1]) else inf)
        high = max(bucket, key=lambda p: p[1] if isfinite(p[1]) else -inf)
        kept += [p for p in bucket if p in (low, high) or not isfinite(p[1])]
    return kept
