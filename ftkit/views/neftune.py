"""NEFTune's noise against real embeddings: how large it is, and what it takes to turn a word.

The formulas are those of `ftkit.algos.neftune`; places, distances and the share that changes come
measured, in a `NoiseMap`. Left out: what the noise does to a loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite, log10, sqrt

from ftkit.records.noise import NoiseMap
from ftkit.views._registry import to_html
from ftkit.views.plot import number
from ftkit.views.style import card, css, stat
from ftkit.views.table import rows_html
from ftkit.views.word_map import shown, word_map

TITLE = "NEFTune: how much noise is that?"
WIDTHS = (64, 576, 2048, 8192)
"""Hidden sizes that are compared, the model's own aside."""

_SAY = (
    "α sets the noise of the whole row; the row's length shares it out among the tokens. The noise "
    "has far more directions to go than the one that leads to another word, so it can be long and "
    "still turn nothing."
)
_KEY = (
    '<p class="key">Left: ● words, placed by the two main directions of their embeddings; circle: '
    "how long the noise of a token is; small dots: where draws of it land on this plane. Most of "
    "the noise points out of the plane. Right: share of tokens whose nearest embedding becomes "
    "another token’s, measured over the whole vocabulary.</p>"
)


@dataclass(frozen=True, slots=True)
class NoiseSetting:
    """One row in a batch.

    Attributes:
        alpha: α ≥ 0.
        length: Real tokens of the row, at least 1.
        padding: Tokens that the batch adds to it: padding, or its neighbours when packed.

    Raises:
        ValueError: a number out of range; named.
    """

    alpha: float = 5.0
    length: int = 64
    padding: int = 0

    def __post_init__(self) -> None:
        if not (self.alpha >= 0 and isfinite(self.alpha)):
            raise ValueError(f"alpha is {self.alpha}; it must be finite and not below 0")
        if self.length < 1 or self.padding < 0:
            raise ValueError(
                f"length {self.length} must be at least 1, and padding {self.padding} not below 0"
            )

    @property
    def total(self) -> int:
        """L as the hook sees it."""
        return self.length + self.padding

    def magnitude(self, hidden: int) -> float:
        """Return m = α/√(L·d)."""
        return self.alpha / sqrt(self.total * hidden)

    @property
    def token_l2(self) -> float:
        """α/√(3L): L2 norm of one token's noise."""
        return self.alpha / sqrt(3 * self.total)

    @property
    def row_l2(self) -> float:
        """α/√3: L2 norm of the noise of the row, padding included."""
        return self.alpha / sqrt(3)

    @property
    def real_l2(self) -> float:
        """L2 norm of the noise that falls on the row's own tokens."""
        return self.token_l2 * sqrt(self.length)


@to_html.register
def noise_map_html(record: NoiseMap, setting: NoiseSetting | None = None) -> str:
    """Return the whole picture as self-contained HTML; by default at α = 5, L = 64."""
    body = neftune_body(record, setting or NoiseSetting())
    return css("neftune") + card(TITLE, f'<div class="ft-nf">{body}</div>', say=_SAY)


def neftune_body(record: NoiseMap, setting: NoiseSetting) -> str:
    """Return what stands inside the card: numbers, both pictures, arithmetic, tables."""
    plane = word_map(record, setting.magnitude(record.hidden))
    pictures = f'<div class="two">{plane}{_curve(record, setting)}</div>'
    tables = _words(record, setting) + _lies(record) + _widths(record, setting)
    return _stats(record, setting) + pictures + _KEY + _arithmetic(record, setting) + tables


def _stats(record: NoiseMap, setting: NoiseSetting) -> str:
    moved = record.moved(setting.magnitude(record.hidden))
    share = setting.token_l2 / record.mean_l2
    lost = 1 - setting.real_l2 / setting.row_l2 if setting.alpha else 0.0
    return (
        '<div class="ft-stat">'
        + stat(number(setting.token_l2), f"noise of a token (L2), {share:.0%} of its embedding")
        + stat(number(setting.row_l2), "noise of the row, always α/√3")
        + (stat(f"−{lost:.0%}", "noise for this row, by padding") if setting.padding else "")
        + stat(f"{moved:.0%}", f"of {len(record.critical)} tokens turn into another")
        + "</div>"
    )


# --- the share that turns into another token ---------------------------------------------------

_WIDTH, _HEIGHT = 380, 372
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 362, 44, 330
_DECADES = (-2, 2)  # of the noise of a token, L2
_POINTS = 120
_USUAL = (5, 10, 15)  # the paper's α


def _cx(l2: float) -> float:
    low, high = _DECADES
    at = log10(l2) if l2 > 0 else low
    return _LEFT + (min(max(at, low), high) - low) / (high - low) * (_RIGHT - _LEFT)


def _cy(share: float) -> float:
    return _BOTTOM - share * (_BOTTOM - _TOP)


def _curve(record: NoiseMap, setting: NoiseSetting) -> str:
    moved = record.moved(setting.magnitude(record.hidden))
    says = f"{moved:.0%} of the tokens turn at a noise of {number(setting.token_l2)} a token."
    count = len(record.critical)
    kept = sorted({round(i * (count - 1) / _POINTS) for i in range(_POINTS + 1)})
    known = [k for k in kept if isfinite(record.critical[k])]
    points = [(record.l2(record.critical[k]), (k + 1) / count) for k in known]
    path = "".join(f"L{_cx(l2):.1f} {_cy(share):.1f}" for l2, share in points)
    end = f"H{_RIGHT}" if points else ""
    parts = (
        _curve_axes(),
        _landmark(record.typical_distance, "nearest word", 0),
        _landmark(record.mean_l2, "own length", 1),
        _usual(setting),
        f'<path class="curve" d="M{_LEFT} {_BOTTOM}{_first(points)}{path}{end}"/>',
        _here(setting, moved),
    )
    return (
        f'<svg class="pic" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(says)}">{"".join(parts)}</svg>'
    )


def _first(points: Sequence[tuple[float, float]]) -> str:
    return f"H{_cx(points[0][0]):.1f}" if points else f"H{_RIGHT}"


def _curve_axes() -> str:
    low, high = _DECADES
    along = "".join(
        f'<text x="{_cx(10.0**k):.1f}" y="{_BOTTOM + 16}" text-anchor="middle">{10.0**k:g}</text>'
        f'<path class="grid" d="M{_cx(10.0**k):.1f} {_TOP}V{_BOTTOM}"/>'
        for k in range(low, high + 1)
    )
    up = "".join(
        f'<text x="{_LEFT - 6}" y="{_cy(v) + 4:.1f}" text-anchor="end">{v:.0%}</text>'
        f'<path class="grid" d="M{_LEFT} {_cy(v):.1f}H{_RIGHT}"/>'
        for v in (0, 0.25, 0.5, 0.75, 1)
    )
    return (
        f'{along}{up}<path class="ax" d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}"/>'
        f'<text class="name" x="{_LEFT}" y="14">tokens that turn into another</text>'
        f'<text class="name" x="{(_LEFT + _RIGHT) // 2}" y="{_HEIGHT - 6}" '
        'text-anchor="middle">noise of a token (L2, log scale)</text>'
    )


def _landmark(l2: float, name: str, row: int) -> str:
    """A length to compare with, named above the frame."""
    x = _cx(l2)
    return (
        f'<path class="mark" d="M{x:.1f} {_TOP - 12 + 12 * row}V{_BOTTOM}"/>'
        f'<text class="mark" x="{x + (-5 if row == 0 else 5):.1f}" y="{_TOP - 6}" '
        f'text-anchor="{"end" if row == 0 else "start"}">{escape(name)} {number(l2)}</text>'
    )


def _usual(setting: NoiseSetting) -> str:
    """Where the α of the paper are at this length."""
    places = [_cx(NoiseSetting(a, setting.length, setting.padding).token_l2) for a in _USUAL]
    return (
        f'<rect class="usual" x="{places[0]:.1f}" y="{_TOP}" '
        f'width="{max(places[-1] - places[0], 1):.1f}" height="{_BOTTOM - _TOP}"/>'
        f'<text class="usual" x="{(places[0] + places[-1]) / 2:.1f}" y="{_cy(0.55):.1f}" '
        f'text-anchor="middle">α 5–15</text>'
    )


def _here(setting: NoiseSetting, moved: float) -> str:
    x, y = _cx(setting.token_l2), _cy(moved)
    ghost = ""
    if setting.padding:
        alone = NoiseSetting(setting.alpha, setting.length)
        ghost = (
            f'<path class="ghost" d="M{_cx(alone.token_l2):.1f} {_BOTTOM - 6}l6 6l-6 6l-6 -6z">'
            "<title>without padding</title></path>"
        )
    return (
        f'<path class="drop" d="M{x:.1f} {_BOTTOM}V{_TOP}"/>{ghost}'
        f'<circle class="here" cx="{x:.1f}" cy="{y:.1f}" r="6.5"/>'
    )


# --- words and numbers ------------------------------------------------------------------------


def _arithmetic(record: NoiseMap, setting: NoiseSetting) -> str:
    m, d = setting.magnitude(record.hidden), record.hidden
    total = str(setting.total)
    if setting.padding:
        total = f"({setting.length} + {setting.padding})"
    lines = [
        f"m = α/√(L·d) = {setting.alpha:g}/√({total}·{d}) = <b>{number(m)}</b>: each of the {d} "
        f"numbers of a token moves by up to ±{number(m)}",
        f"a token: m·√(d/3) = α/√(3L) = <b>{number(setting.token_l2)}</b> · the row: α/√3 = "
        f"<b>{number(setting.row_l2)}</b>",
        "along any one line, such as the way to another word: m/√3 = "
        f"<b>±{number(m / sqrt(3))}</b> (1 σ)",
    ]
    if setting.padding:
        kept = number(setting.real_l2)
        lines.append(
            f"of the row’s noise, {kept} falls on its own {setting.length} tokens; alone they "
            f"would get all {number(setting.row_l2)}"
        )
    return f'<div class="ft-arith">{"<br>".join(lines)}</div>'


def _words(record: NoiseMap, setting: NoiseSetting) -> str:
    """Exact distances, since a plane cannot show them, in units of the noise along that line."""
    along = setting.magnitude(record.hidden) / sqrt(3)
    rows = []
    for k, (nearest, distance) in enumerate(record.neighbours):
        far = max(range(len(record.words)), key=lambda j: record.distances[k][j])
        half = f"{distance / 2 / along:.0f} σ" if along else "no noise"
        rows.append((shown(record.words[k]), shown(nearest), f"{distance:.2f}", half,
                     shown(record.words[far]), f"{record.distances[k][far]:.2f}"))  # fmt: skip
    columns = (
        *("word", f"nearest of {record.vocab:,} tokens", "distance", "half way, in noise"),
        *("most unlike on the map", "distance"),
    )
    return (
        f"<details open><summary>Exact distances, in all {record.hidden} dimensions</summary>"
        f"{rows_html(columns, rows)}</details>"
    )


def _lies(record: NoiseMap) -> str:
    pairs = "; ".join(
        f"{shown(a)} and {shown(b)} look {seen:.2f} apart and are {exact:.2f}"
        for a, b, seen, exact in record.closest_looking()
    )
    return (
        f'<p class="key">The map shows {record.kept:.0%} of the words’ spread, so do not trust '
        f"distances on it: {escape(pairs)}.</p>"
    )


def _widths(record: NoiseMap, setting: NoiseSetting) -> str:
    widths = sorted({*WIDTHS, record.hidden})
    rows = [
        (f"{d:,}" + (" (this model)" if d == record.hidden else ""), number(setting.magnitude(d)),
         number(setting.token_l2), number(setting.row_l2))
        for d in widths
    ]  # fmt: skip
    columns = ("d", "m: each number", "noise of a token", "noise of the row")
    return (
        "<details><summary>And if the model were narrower or wider? d cancels</summary>"
        f"{rows_html(columns, rows)}</details>"
    )
