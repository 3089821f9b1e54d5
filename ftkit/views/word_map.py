"""Words on the plane of their two main directions, each with the noise of NEFTune around it.

Classes are those of ``neftune.css``. Left out: any claim about distances; the plane shows a part.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from ftkit.records.noise import NoiseMap
from ftkit.views.plot import axis_names, number, ticks
from ftkit.views.text import visible

_WIDTH, _HEIGHT = 460, 372
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 452, 10, 330
_ROOM = 0.2  # of the words' spread, left free around them
_LETTER, _LINE = 7.6, 14.0  # room of a name

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True, slots=True)
class _Plane:
    """Embedding units to picture, the same on both axes."""

    middle: tuple[float, float]
    unit: float

    @classmethod
    def of(cls, xy: Sequence[tuple[float, float]]) -> "_Plane":
        lows, highs = ([f(p[k] for p in xy) for k in (0, 1)] for f in (min, max))
        spans = [(high - low) * (1 + _ROOM) or 1.0 for low, high in zip(lows, highs, strict=True)]
        unit = min((_RIGHT - _LEFT) / spans[0], (_BOTTOM - _TOP) / spans[1])
        return cls(((lows[0] + highs[0]) / 2, (lows[1] + highs[1]) / 2), unit)

    def at(self, place: tuple[float, float]) -> tuple[float, float]:
        across, up = (place[k] - self.middle[k] for k in (0, 1))
        middle_x, middle_y = (_LEFT + _RIGHT) / 2, (_TOP + _BOTTOM) / 2
        return middle_x + across * self.unit, middle_y - up * self.unit

    def reach(self, axis: int) -> tuple[float, float]:
        half = ((_RIGHT - _LEFT) if axis == 0 else (_BOTTOM - _TOP)) / 2 / self.unit
        return self.middle[axis] - half, self.middle[axis] + half


def shown(word: str) -> str:
    """Return a token's text for a reader, with its leading space visible."""
    return visible("␣" + word[1:] if word.startswith(" ") else word)


def word_map(record: NoiseMap, magnitude: float) -> str:
    """Return the map as one ``<svg>`` element.

    Args:
        record: The words, their places and draws of the noise.
        magnitude: m, the largest size of one component of the noise.
    """
    plane = _Plane.of(record.xy)
    says = (
        f"Map of {len(record.words)} words. The noise of a token is "
        f"{number(record.l2(magnitude))} long; the words' nearest neighbours are "
        f"{number(record.typical_distance)} away."
    )
    wide, high = _RIGHT - _LEFT, _BOTTOM - _TOP
    inside = "".join(_balls(record, magnitude, plane)) + "".join(_names(record, plane))
    return (
        f'<svg class="pic" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(says)}">{_axes(plane)}'
        f'<svg x="{_LEFT}" y="{_TOP}" width="{wide}" height="{high}" '
        f'viewBox="{_LEFT} {_TOP} {wide} {high}">{inside}</svg></svg>'
    )


def _balls(record: NoiseMap, magnitude: float, plane: _Plane) -> Iterator[str]:
    """Each word's noise: its length as a circle, its shadows on the plane as dots."""
    radius = record.l2(magnitude) * plane.unit
    for place, ends in zip(record.xy, record.shadows, strict=True):
        x, y = plane.at(place)
        landed = (plane.at((place[0] + magnitude * a, place[1] + magnitude * b)) for a, b in ends)
        dots = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in landed)
        yield f'<circle class="ball" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>'
        yield f'<path class="draws" d="{dots}"/>' if magnitude else ""


def _names(record: NoiseMap, plane: _Plane) -> Iterator[str]:
    """Points and names, each name where it covers no point and no other name, if there is room."""
    points = [plane.at(place) for place in record.xy]
    taken: list[Box] = [(x - 4, y - 4, x + 4, y + 4) for x, y in points]
    for k, (x, y) in enumerate(points):
        word = record.words[k].strip() or shown(record.words[k])
        spots = list(_spots(x, y, _LETTER * len(word)))
        others = taken[:k] + taken[k + 1 :]
        box = min(spots, key=lambda spot: sum(_overlap(spot, other) for other in others))
        taken.append(box)
        nearest, distance = record.neighbours[k]
        title = f"{shown(record.words[k])}: nearest {shown(nearest)}, {distance:.2f} away"
        yield (
            f'<g><title>{escape(title)}</title><circle class="word" cx="{x:.1f}" cy="{y:.1f}" '
            f'r="3.6"/><text class="word" x="{(box[0] + box[2]) / 2:.1f}" y="{box[3] - 3:.1f}" '
            f'text-anchor="middle">{escape(visible(word))}</text></g>'
        )


def _spots(x: float, y: float, wide: float) -> Iterator[Box]:
    """Places for a name around its point, the preferred one first, all inside the frame."""
    half, gap = wide / 2, 7.0
    corners = (
        (x + gap, y - _LINE / 2),
        (x - gap - wide, y - _LINE / 2),
        (x - half, y + gap - 2),
        (x - half, y - gap - _LINE + 2),
        (x + gap, y + 2),
        (x + gap, y - _LINE - 2),
        (x - gap - wide, y + 2),
        (x - gap - wide, y - _LINE - 2),
    )
    for left, top in corners:
        left = min(max(left, _LEFT + 2.0), _RIGHT - wide - 2)
        top = min(max(top, _TOP + 1.0), _BOTTOM - _LINE - 1)
        yield left, top, left + wide, top + _LINE


def _overlap(one: Box, other: Box) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(wide, 0.0) * max(high, 0.0)


def _axes(plane: _Plane) -> str:
    across = "".join(
        f'<text x="{plane.at((v, 0))[0]:.1f}" y="{_BOTTOM + 16}" text-anchor="middle">'
        f"{number(v)}</text>"
        for v in ticks(*plane.reach(0), 5)
    )
    up = "".join(
        f'<text x="{_LEFT - 6}" y="{plane.at((0, v))[1] + 4:.1f}" text-anchor="end">'
        f"{number(v)}</text>"
        for v in ticks(*plane.reach(1), 4)
    )
    box = (_LEFT, _RIGHT, _TOP, _BOTTOM)
    names = axis_names(
        "main direction 1 (embedding units)", "main direction 2", box, _HEIGHT - 6, 12
    )
    return f'<path class="ax" d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}"/>{across}{up}{names}'
