"""Generalized advantage estimation of one completion, computed backwards, a token a step.

The arithmetic is written out in plain numbers (Schulman et al. 2015, arXiv 1506.02438, equations
11 to 16); tests and notebook 05 hold it against `ftkit.algos.gae`. Left out: batches, padding and
whitening.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite

from ftkit.views.plot import number, ticks
from ftkit.views.ppo_arithmetic import signed
from ftkit.views.style import card, css, stat

TITLE = "GAE, from the last token back"
_WIDTH, _HEIGHT = 760, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 752, 26, 150
_SAY = (
    "λ decides how far a surprise travels back. At 0 a token hears of the next step alone (TD): "
    "little luck, all of the critic's errors. At 1 it hears of everything that came (Monte Carlo): "
    "none of the critic's errors, all of the luck."
)
_KEY = (
    '<p class="key">Bars: what each later surprise δ adds to the advantage of the token marked ▲, '
    "its weight (γλ)ᵏ below; dashed: the whole δ; hatched: negative. A dot: not reached yet.</p>"
)


@dataclass(frozen=True, slots=True)
class GAESetting:
    """One completion, the two factors, and where the recursion stands.

    Attributes:
        tokens: Of the completion.
        rewards: Of each token, in score units.
        values: The critic's, of the state before each token.
        gamma: γ, discount a token, 0 to 1.
        lam: λ, 0 (TD) to 1 (Monte Carlo).
        at: Token whose advantage is being computed, from 0; those behind it are known.

    Raises:
        ValueError: lists of different length or empty, a number that is not finite or out of
            range; named.
    """

    tokens: Sequence[str]
    rewards: Sequence[float]
    values: Sequence[float]
    gamma: float = 1.0
    lam: float = 0.95
    at: int = 0

    def __post_init__(self) -> None:
        sizes = {name: len(getattr(self, name)) for name in ("tokens", "rewards", "values")}
        if len(set(sizes.values())) > 1 or not len(self.tokens):
            raise ValueError(f"tokens, rewards and values need one entry a token, not {sizes}")
        for name in ("rewards", "values"):
            for token, value in enumerate(getattr(self, name)):
                if not isfinite(value):
                    raise ValueError(f"{name}[{token}] is {value}; it must be finite")
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie in 0 … 1")
        if not 0 <= self.at < len(self.tokens):
            raise ValueError(f"at={self.at}, but tokens are 0 to {len(self.tokens) - 1}")

    @property
    def deltas(self) -> list[float]:
        """δ of each token: r + γ·V(next) − V; nothing is to come behind the last."""
        following = [*self.values[1:], 0.0]
        steps = zip(self.rewards, self.values, following, strict=True)
        return [r + self.gamma * after - before for r, before, after in steps]

    @property
    def advantages(self) -> list[float]:
        """Â of each token: δ + γλ·Â(next)."""
        found: list[float] = []
        for delta in reversed(self.deltas):
            found.insert(0, delta + self.gamma * self.lam * (found[0] if found else 0.0))
        return found

    @property
    def returns(self) -> list[float]:
        """What the value should have been: Â + V."""
        return [a + v for a, v in zip(self.advantages, self.values, strict=True)]

    @property
    def shares(self) -> list[tuple[float, float]]:
        """(weight, part) of the token `at` and each later one: (γλ)ᵏ and (γλ)ᵏ·δ, summing to Â."""
        weights = [(self.gamma * self.lam) ** k for k in range(len(self.tokens) - self.at)]
        return [(w, w * d) for w, d in zip(weights, self.deltas[self.at :], strict=True)]


def gae_html(setting: GAESetting) -> str:
    """Return the picture as self-contained HTML."""
    return css("gae") + card(TITLE, f'<div class="ft-gae">{gae_body(setting)}</div>', say=_SAY)


def gae_body(setting: GAESetting) -> str:
    """Return what stands inside the card: numbers, the strip of tokens, arithmetic, bars."""
    return _stats(setting) + _strip(setting) + _arithmetic(setting) + _svg(setting) + _KEY


def _stats(setting: GAESetting) -> str:
    here = setting.at
    return (
        '<div class="ft-stat">'
        + stat(_plain(setting.lam), "λ")
        + stat(_plain(setting.gamma), "discount γ")
        + stat(signed(setting.advantages[here]), f"advantage of {setting.tokens[here]!r}")
        + stat(signed(setting.returns[here]), "its return target, Â + V")
        + "</div>"
    )


def _strip(setting: GAESetting) -> str:
    """One column a token; what the recursion has not reached is a dot."""
    rows = {
        "reward r": [signed(r) for r in setting.rewards],
        "value V": [signed(v) for v in setting.values],
        "surprise δ": _from(setting.at, setting.deltas),
        "advantage Â": _from(setting.at, setting.advantages),
        "return Â + V": _from(setting.at, setting.returns),
    }
    marked = [' class="here"' if t == setting.at else "" for t in range(len(setting.tokens))]
    head = "".join(
        f'<th scope="col"{mark}>{escape(token)}{" ▲" if mark else ""}</th>'
        for token, mark in zip(setting.tokens, marked, strict=True)
    )
    body = "".join(
        f'<tr><th scope="row">{name}</th>'
        + "".join(f"<td{mark}>{cell}</td>" for cell, mark in zip(cells, marked, strict=True))
        + "</tr>"
        for name, cells in rows.items()
    )
    return (
        f'<div class="ft-scroll"><table class="ft-table"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _from(first: int, values: Sequence[float]) -> list[str]:
    return [signed(value) if t >= first else "·" for t, value in enumerate(values)]


def _arithmetic(setting: GAESetting) -> str:
    t, last = setting.at, setting.at == len(setting.tokens) - 1
    after = (0.0, 0.0) if last else (setting.values[t + 1], setting.advantages[t + 1])
    factor = setting.gamma * setting.lam
    lines = (
        f"δ = r + γ·V(next) − V = {_plain(setting.rewards[t])} + {_plain(setting.gamma)}·"
        f"{_inner(after[0])} − {_inner(setting.values[t])} = <b>{_plain(setting.deltas[t])}</b>",
        f"Â = δ + γλ·Â(next) = {_plain(setting.deltas[t])} + {_plain(factor)}·{_inner(after[1])} "
        f"= <b>{_plain(setting.advantages[t])}</b>",
        "Nothing comes behind the last token: V(next) and Â(next) are 0."
        if last
        else "Â(next) is what the step before this one found for the token on the right, "
        f"{escape(repr(setting.tokens[t + 1]))}.",
    )
    return f'<div class="ft-arith">{"<br>".join(lines)}</div>'


# --- the bars ----------------------------------------------------------------------------------


def _svg(setting: GAESetting) -> str:
    parts = [part for _, part in setting.shares]
    reach = max(1e-9, *(abs(delta) for delta in setting.deltas))
    says = (
        f"Parts of the advantage {signed(setting.advantages[setting.at])} of token {setting.at}: "
        + ", ".join(f"{signed(part)} of token {setting.at + k}" for k, part in enumerate(parts))
    )
    width = (_RIGHT - _LEFT) / len(setting.tokens)
    bars = "".join(
        _bar(setting, t, _LEFT + t * width, width, reach) for t in range(len(setting.tokens))
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(says)}">'
        f"{_axis(reach)}{bars}</svg>"
    )


def _y(value: float, reach: float) -> float:
    middle = (_TOP + _BOTTOM) / 2
    return middle - value / reach * (_BOTTOM - _TOP) / 2


def _axis(reach: float) -> str:
    marks = "".join(
        f'<text x="{_LEFT - 6}" y="{_y(v, reach) + 4:.1f}" text-anchor="end">{number(v)}</text>'
        for v in ticks(-reach, reach, 4)
    )
    zero = _y(0.0, reach)
    return (
        f'<text class="name" x="{_LEFT}" y="14">part of Â (score units)</text>{marks}'
        f'<path class="ax" d="M{_LEFT} {_TOP}V{_BOTTOM}M{_LEFT} {zero:.1f}H{_RIGHT}"/>'
    )


def _bar(setting: GAESetting, t: int, x: float, width: float, reach: float) -> str:
    """The part of token `t`, filled, inside the outline of its whole δ."""
    middle = x + width / 2
    name = f'<text class="name" x="{middle:.1f}" y="{_BOTTOM + 18}" text-anchor="middle">'
    name += f"{escape(_fit(setting.tokens[t], width))}</text>"
    if t < setting.at:
        return name
    weight, part = setting.shares[t - setting.at]
    whole = _box("whole", x, width, setting.deltas[t], reach)
    kind = "minus" if part < 0 else "plus"
    return (
        f"{whole}{_box(kind, x, width, part, reach)}{_hatch(x, width, part, reach)}{name}"
        f'<text x="{middle:.1f}" y="{_BOTTOM + 34}" text-anchor="middle">× {_plain(weight)}</text>'
    )


def _inset(x: float, width: float) -> tuple[float, float]:
    wide = min(0.6 * width, 90.0)
    return x + (width - wide) / 2, wide


def _box(kind: str, x: float, width: float, value: float, reach: float) -> str:
    left, wide = _inset(x, width)
    top, bottom = sorted((_y(0.0, reach), _y(value, reach)))
    return (
        f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" '
        f'height="{bottom - top:.1f}"/>'
    )


def _hatch(x: float, width: float, part: float, reach: float) -> str:
    if part >= 0:
        return ""
    left, wide = _inset(x, width)
    top, bottom = _y(0.0, reach), _y(part, reach)
    rows = [top + 6.0 * k for k in range(1, int((bottom - top) / 6) + 1)]
    path = "".join(f"M{left:.1f} {y:.1f}h{wide:.1f}" for y in rows)
    return f'<path class="hatch" d="{path}"/>' if path else ""


# --- numbers -------------------------------------------------------------------------------------


def _fit(text: str, width: float) -> str:
    """Shorten `text` to about `width` units of the picture."""
    most = max(1, int(width / 7.5))
    return text if len(text) <= most else text[: most - 1] + "…"


def _plain(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".").replace("-", "−") if value else "0"


def _inner(value: float) -> str:
    shown = _plain(value)
    return f"({shown})" if value < 0 else shown
