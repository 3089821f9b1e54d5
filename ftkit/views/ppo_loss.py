"""PPO's clipped objective of one token as a picture: where the gradient is, and where it is zero.

The formula is that of `ftkit.algos.policy_loss` for one token, before the minus that makes it a
loss. Left out: the mean over a batch, the value loss, the entropy bonus.
"""

from dataclasses import dataclass
from html import escape
from math import isfinite

from ftkit.views.plot import number, ticks
from ftkit.views.style import card, css, stat

TITLE = "PPO's clipped objective"
RATIO_REACH = 2.0
"""Largest ratio on the axis."""

_WIDTH, _HEIGHT = 760, 312
_TOP, _BOTTOM = 34, 262
_PANELS = {1: (44, 368), -1: (428, 752)}  # sign of the advantage → left and right edge
_SAY = (
    "Clipping never pulls a policy back. It stops pushing a token once its probability has moved "
    "far enough in the direction that the advantage asked for; a token that went the wrong way "
    "keeps its full gradient."
)
_KEY = (
    '<p class="key">Upwards: the objective. Solid line: min(r·A, clip(r)·A), what PPO climbs; '
    "dashed: r·A alone; shaded: 1 ± ε; hatched: no gradient; arrow: where it moves the token.</p>"
)
_CASES = {
    (1, -1): "push up",
    (1, 0): "push up",
    (1, 1): "✗ gradient 0",
    (-1, -1): "✗ gradient 0",
    (-1, 0): "push down",
    (-1, 1): "push down",
}
_WHY = {
    (1, -1): "fell, though it was good",
    (1, 0): "not yet far enough",
    (1, 1): "raised far enough",
    (-1, -1): "lowered far enough",
    (-1, 0): "not yet far enough",
    (-1, 1): "rose, though it was bad",
}
_MEANING = {
    (1, -1): "The token was better than expected, but by now it has become less likely: the full "
    "gradient brings it back.",
    (1, 0): "The token was better than expected: the gradient makes it more likely.",
    (1, 1): "The token was better than expected and is already more than ε likelier than it was: "
    "nothing pushes it further.",
    (-1, -1): "The token was worse than expected and is already more than ε less likely than it "
    "was: nothing pushes it further.",
    (-1, 0): "The token was worse than expected: the gradient makes it less likely.",
    (-1, 1): "The token was worse than expected, but by now it has become likelier: the full "
    "gradient brings it back, however far it went.",
}
_NOTHING = "An advantage of 0 asks for nothing: the token was exactly as good as expected."


@dataclass(frozen=True, slots=True)
class ClipSetting:
    """One token, and how far a round may move it.

    Attributes:
        ratio: π/π_old of the token, at least 0; 1 before the first update.
        advantage: How much better than expected the token was, in the unit of the rewards.
        clip_range: ε > 0.

    Raises:
        ValueError: a number that is not finite or out of range; named.
    """

    ratio: float = 1.4
    advantage: float = 1.0
    clip_range: float = 0.2

    def __post_init__(self) -> None:
        for name in ("ratio", "advantage", "clip_range"):
            if not isfinite(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be finite")
        if self.ratio < 0 or self.clip_range <= 0:
            raise ValueError(
                f"ratio {self.ratio} must not be below 0, and clip_range {self.clip_range} must "
                "be above 0"
            )

    @property
    def bounded(self) -> float:
        """The ratio, clipped to [1 − ε, 1 + ε]."""
        return min(max(self.ratio, 1 - self.clip_range), 1 + self.clip_range)

    @property
    def objective(self) -> float:
        """min(r·A, clip(r)·A), in the unit of the advantage."""
        return min(self.ratio * self.advantage, self.bounded * self.advantage)

    @property
    def clipped(self) -> bool:
        """Whether clipping stops the gradient."""
        return self.bounded * self.advantage < self.ratio * self.advantage

    @property
    def slope(self) -> float:
        """The derivative of the objective by the ratio: A, or 0 where clipped."""
        return 0.0 if self.clipped else self.advantage

    @property
    def case(self) -> tuple[int, int]:
        """Sign of the advantage (0 counts as good), and side of the range: −1, 0 inside, 1."""
        sign = -1 if self.advantage < 0 else 1
        return sign, (self.ratio > self.bounded) - (self.ratio < self.bounded)


def ppo_loss_html(setting: ClipSetting | None = None) -> str:
    """Return the picture as self-contained HTML; by default of a token that is clipped."""
    body = ppo_loss_body(setting or ClipSetting())
    return css("ppo_loss") + card(TITLE, f'<div class="ft-pl">{body}</div>', say=_SAY)


def ppo_loss_body(setting: ClipSetting) -> str:
    """Return what stands inside the card: numbers, both curves, arithmetic, the six cases."""
    return _stats(setting) + _svg(setting) + _KEY + _arithmetic(setting) + _table(setting)


def _stats(setting: ClipSetting) -> str:
    pushed = "stopped by clipping" if setting.clipped else "gradient by the ratio"
    return (
        '<div class="ft-stat">'
        + stat(_plain(setting.ratio), "ratio r = π/π_old")
        + stat(_signed(setting.advantage), "advantage A")
        + stat(_plain(setting.clip_range), "clip range ε")
        + stat(_plain(setting.objective), "objective")
        + stat("✗ 0" if setting.clipped else _signed(setting.slope), pushed)
        + "</div>"
    )


# --- the curves ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Panel:
    """One sign of the advantage: ratio and objective to picture."""

    sign: int
    setting: ClipSetting

    @property
    def gain(self) -> float:
        """The advantage drawn here: the reader's, mirrored in the other panel."""
        return self.sign * abs(self.setting.advantage)

    @property
    def active(self) -> bool:
        return self.setting.case[0] == self.sign

    @property
    def reach(self) -> float:
        """The end of the ratio axis."""
        return max(RATIO_REACH, self.setting.ratio * 1.05, 1.2 + self.setting.clip_range)

    def x(self, ratio: float) -> float:
        left, right = _PANELS[self.sign]
        return left + ratio / self.reach * (right - left)

    def y(self, objective: float) -> float:
        top = self.reach * max(1.0, abs(self.gain))
        share = abs(objective) / top * (_BOTTOM - _TOP)
        return _BOTTOM - share if self.sign > 0 else _TOP + share

    def at(self, ratio: float) -> tuple[float, float]:
        moved = ClipSetting(ratio, self.gain, self.setting.clip_range)
        return self.x(ratio), self.y(moved.objective)


def _svg(setting: ClipSetting) -> str:
    says = (
        f"Objective against ratio, for good and for bad tokens. At ratio {number(setting.ratio)} "
        f"and advantage {number(setting.advantage)} the objective is {number(setting.objective)} "
        f"and its slope {number(setting.slope)}."
    )
    panels = "".join(_panel(_Panel(sign, setting)) for sign in _PANELS)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(says)}">'
        f"{panels}</svg>"
    )


def _panel(panel: _Panel) -> str:
    left, _ = _PANELS[panel.sign]
    name = "A > 0: better than expected" if panel.sign > 0 else "A < 0: worse than expected"
    kind = "on" if panel.active else "off"
    parts = (_range(panel), _flat(panel), _axes(panel), _lines(panel))
    mark = _mark(panel) if panel.active else ""
    return (
        f'<g class="{kind}"><text class="head" x="{left}" y="16">{escape(name)}</text>'
        f"{''.join(parts)}{mark}</g>"
    )


def _range(panel: _Panel) -> str:
    """The allowed range, with its edges named."""
    edges = (1 - panel.setting.clip_range, 1 + panel.setting.clip_range)
    low, high = (panel.x(max(edge, 0.0)) for edge in edges)
    names = "".join(
        f'<path class="edge" d="M{panel.x(edge):.1f} {_TOP}V{_BOTTOM}"/>'
        f'<text class="eps" x="{panel.x(edge):.1f}" y="{_BOTTOM + 30}" text-anchor="{anchor}">'
        f"1{mark}ε</text>"
        for edge, mark, anchor in zip(edges, "−+", ("end", "start"), strict=True)
        if edge >= 0
    )
    return (
        f'<rect class="in" x="{low:.1f}" y="{_TOP}" width="{high - low:.1f}" '
        f'height="{_BOTTOM - _TOP}"/>{names}'
    )


def _flat(panel: _Panel) -> str:
    """Where the gradient is zero: hatched and named."""
    left, right = map(float, _PANELS[panel.sign])
    if panel.sign > 0:
        left = panel.x(1 + panel.setting.clip_range)
    else:
        right = panel.x(max(1 - panel.setting.clip_range, 0.0))
    wide, high = right - left, float(_BOTTOM - _TOP)
    hatch = "".join(
        f"M{left + max(0.0, k - high):.1f} {_BOTTOM - min(k, high):.1f}"
        f"L{left + min(k, wide):.1f} {_BOTTOM - max(0.0, k - wide):.1f}"
        for k in (9.0 * i for i in range(1, int((wide + high) / 9) + 1))
    )
    return (
        f'<path class="hatch" d="{hatch}"/><text class="zero" x="{(left + right) / 2:.1f}" '
        f'y="{_BOTTOM - 12}" text-anchor="middle">gradient 0</text>'
    )


def _axes(panel: _Panel) -> str:
    left, right = _PANELS[panel.sign]
    top = panel.reach * max(1.0, abs(panel.gain))
    along = "".join(
        f'<text x="{panel.x(v):.1f}" y="{_BOTTOM + 15}" text-anchor="middle">{number(v)}</text>'
        for v in ticks(0, panel.reach, 4)
    )
    up = "".join(
        f'<text x="{left - 6}" y="{panel.y(v) + 4:.1f}" text-anchor="end">'
        f"{number(panel.sign * v) if v else 0}</text>"
        for v in ticks(0, top, 4)
    )
    base = _BOTTOM if panel.sign > 0 else _TOP
    middle = (left + right) / 2
    return (
        f'<path class="ax" d="M{left} {_TOP}V{_BOTTOM}M{left} {base}H{right}"/>{along}{up}'
        f'<text class="name" x="{middle:.0f}" y="{_HEIGHT - 4}" text-anchor="middle">ratio r</text>'
    )


def _lines(panel: _Panel) -> str:
    corner = 1 + panel.sign * panel.setting.clip_range
    stops = [0.0, max(corner, 0.0), panel.reach]
    kept = "L".join(f"{x:.1f} {y:.1f}" for x, y in map(panel.at, stops))
    free = f"M{panel.x(0):.1f} {panel.y(0):.1f}L{panel.x(panel.reach):.1f} " + (
        f"{panel.y(panel.reach * panel.gain):.1f}"
    )
    return f'<path class="free" d="{free}"/><path class="kept" d="M{kept}"/>'


def _mark(panel: _Panel) -> str:
    """Where the token is, and which way the gradient moves it."""
    setting = panel.setting
    x, y = panel.at(setting.ratio)
    drop = f'<path class="drop" d="M{x:.1f} {_BOTTOM}V{_TOP}"/>'
    if setting.clipped or not setting.advantage:
        cross = f"M{x - 6:.1f} {y - 6:.1f}l12 12m0 -12l-12 12"
        return f'{drop}<circle class="here" cx="{x:.1f}" cy="{y:.1f}" r="7"/>' + (
            f'<path class="cross" d="{cross}"/>'
        )
    way = panel.sign
    tip = x + way * 46
    arrow = f"M{x + way * 9:.1f} {y:.1f}H{tip:.1f}m{-way * 7} -5l{way * 7} 5l{-way * 7} 5"
    return (
        f'{drop}<path class="arrow" d="{arrow}"/>'
        f'<circle class="here" cx="{x:.1f}" cy="{y:.1f}" r="7"/>'
    )


# --- words and numbers -----------------------------------------------------------------------


def _plain(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _inner(value: float) -> str:
    shown = _plain(value)
    return f"({shown})" if value < 0 else shown


def _arithmetic(setting: ClipSetting) -> str:
    r, a, e = setting.ratio, setting.advantage, setting.clip_range
    free, bounded = r * a, setting.bounded * a
    words = _MEANING[setting.case] if a else _NOTHING
    return (
        f'<div class="ft-arith">min(r·A, clip(r, {_plain(1 - e)}, {_plain(1 + e)})·A) = '
        f"min({_plain(r)}·{_inner(a)}, {_plain(setting.bounded)}·{_inner(a)}) = "
        f"min({_plain(free)}, {_plain(bounded)}) = <b>{_plain(setting.objective)}</b>"
        f"<br>{escape(words)}</div>"
    )


def _table(setting: ClipSetting) -> str:
    heads = "".join(
        f'<th scope="col">{escape(name)}</th>'
        for name in ("advantage", "r < 1 − ε", "1 − ε ≤ r ≤ 1 + ε", "r > 1 + ε")
    )
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(_case((sign, side), setting) for side in (-1, 0, 1))
        + "</tr>"
        for name, sign in (("A > 0", 1), ("A < 0", -1))
    )
    return (
        '<div class="ft-scroll"><table class="ft-table ft-cases"><thead><tr>'
        f"{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _case(case: tuple[int, int], setting: ClipSetting) -> str:
    here = case == setting.case and setting.advantage != 0
    kinds = " ".join(k for k, on in (("cut", "✗" in _CASES[case]), ("here", here)) if on)
    mark = "▸ " if here else ""
    current = ' aria-current="true"' if here else ""
    return (
        f'<td class="{kinds}"{current}><b>{mark}{_CASES[case]}</b><small>{_WHY[case]}</small></td>'
    )
