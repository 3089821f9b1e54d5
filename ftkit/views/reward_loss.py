"""The pairwise reward loss as a picture: the curve, real pairs on it, and one gap written out.

The curve is −log σ(gap − margin) + centering·(sum of the scores)², the formula of
`ftkit.algos.pairwise_reward_loss` for one pair. Left out: the mean over a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import exp, isfinite, log1p

from ftkit.records.scored_pair import ScoredPair
from ftkit.views.plot import axis_names, number, ticks
from ftkit.views.style import card, css, stat
from ftkit.views.table import rows_html

_WIDTH, _HEIGHT = 720, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 706, 14, 286
_SAMPLES = 97
_SHOWN = 300  # dots drawn; more would hide each other
_WORST = 3
_REACH = 4.0  # least range of the gap axis, in score units


@dataclass(frozen=True, slots=True)
class LossSetting:
    """What the reader has chosen.

    Attributes:
        gap: Score of chosen minus score of rejected, where the arithmetic is written out.
        margin: Score units by which chosen should lead.
        centering: Weight of the squared sum of the scores.
        level: Mean of the two scores of the pair that is written out; matters to centering only.
    """

    gap: float = -1.0
    margin: float = 0.0
    centering: float = 0.0
    level: float = 0.0


def pair_loss(gap: float, level: float, setting: LossSetting) -> float:
    """Return the loss of one pair in nats.

    Args:
        gap: Score of chosen minus score of rejected.
        level: Mean of the two scores.
        setting: Margin and centering.
    """
    x = gap - setting.margin
    surprise = max(-x, 0.0) + log1p(exp(-abs(x)))  # −log σ(x), without overflow
    return surprise + setting.centering * (2 * level) ** 2


def pair_slope(gap: float, setting: LossSetting) -> float:
    """Return the derivative of the loss by the gap, −1 to 0, in nats a score unit."""
    x = gap - setting.margin
    return -1 / (1 + exp(x)) if x < 0 else -exp(-x) / (1 + exp(-x))


def reward_loss_html(pairs: Sequence[ScoredPair], setting: LossSetting | None = None) -> str:
    """Return the whole picture as self-contained HTML.

    Args:
        pairs: With their scores; may be empty.
        setting: Where the arithmetic is written out, and the variant.
    """
    body = reward_loss_body(pairs, setting or LossSetting())
    return css("reward_loss") + card(
        "Reward loss: −log σ(chosen − rejected)",
        f'<div class="ft-rl">{body}</div>',
        say="Right order and a wide gap: hardly any loss, hardly any push. Wrong order: the loss "
        "grows about as fast as the gap, and the push on the two scores comes near 1.",
    )


def reward_loss_body(pairs: Sequence[ScoredPair], setting: LossSetting) -> str:
    """Return what stands inside the card: numbers, curve, arithmetic, the most expensive pairs."""
    parts = (_stats(pairs, setting), _svg(pairs, setting), _arithmetic(setting))
    return "".join(parts) + _variant(setting) + _worst(pairs, setting)


def _level(pair: ScoredPair) -> float:
    return (pair.chosen_score + pair.rejected_score) / 2


def _loss_of(pair: ScoredPair, setting: LossSetting) -> float:
    return pair_loss(pair.gap, _level(pair), setting)


def _finite(pairs: Sequence[ScoredPair]) -> list[ScoredPair]:
    return [pair for pair in pairs if isfinite(pair.gap) and isfinite(_level(pair))]


def _stats(pairs: Sequence[ScoredPair], setting: LossSetting) -> str:
    known = _finite(pairs)
    if not known:
        return ""
    mean = sum(_loss_of(pair, setting) for pair in known) / len(known)
    right = sum(pair.gap > 0 for pair in known)
    gone = len(pairs) - len(known)
    return (
        '<div class="ft-stat">'
        + stat(f"{right / len(known):.0%}", f"of {len(known)} pairs in the right order")
        + stat(f"{mean:.3f}", "mean loss, nats (0.693 is guessing)")
        + (stat(str(gone), "pairs without finite scores, not drawn") if gone else "")
        + "</div>"
    )


# --- the curve -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Scale:
    reach: float
    top: float

    def x(self, gap: float) -> float:
        inside = min(max(gap, -self.reach), self.reach)
        return _LEFT + (inside + self.reach) / (2 * self.reach) * (_RIGHT - _LEFT)

    def y(self, loss: float) -> float:
        return _BOTTOM - min(loss, self.top) / self.top * (_BOTTOM - _TOP)


def _scale(pairs: Sequence[ScoredPair], setting: LossSetting) -> _Scale:
    known = _finite(pairs)
    reach = max([_REACH, abs(setting.gap), *(abs(pair.gap) for pair in known)]) * 1.05
    curve = pair_loss(-reach, setting.level, setting)
    return _Scale(reach, max([curve, *(_loss_of(pair, setting) for pair in known)]) * 1.04)


def _svg(pairs: Sequence[ScoredPair], setting: LossSetting) -> str:
    scale = _scale(pairs, setting)
    says = (
        f"Loss against score gap. At gap {number(setting.gap)} the loss is "
        f"{pair_loss(setting.gap, setting.level, setting):.3f} nats."
    )
    parts = (
        _sides(scale),
        _axes(scale),
        _curve(scale, setting),
        *(_dot(pair, scale, setting) for pair in _finite(pairs)[:_SHOWN]),
        _mark(scale, setting),
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(says)}">'
        f"{''.join(parts)}</svg>"
    )


def _sides(scale: _Scale) -> str:
    zero = scale.x(0)
    return (
        f'<rect class="wrong" x="{_LEFT}" y="{_TOP}" width="{zero - _LEFT:.1f}" '
        f'height="{_BOTTOM - _TOP}"/><path class="zero" d="M{zero:.1f} {_TOP}V{_BOTTOM}"/>'
        f'<text class="side bad" x="{zero - 10:.1f}" y="{_TOP + 14}" text-anchor="end">'
        "◆ wrong order: rejected scores higher</text>"
        f'<text class="side good" x="{zero + 10:.1f}" y="{_TOP + 14}">'
        "● right order: chosen scores higher</text>"
    )


def _axes(scale: _Scale) -> str:
    across = "".join(
        f'<text x="{_LEFT - 7}" y="{scale.y(v) + 4:.1f}" text-anchor="end">{number(v)}</text>'
        f'<path class="grid" d="M{_LEFT} {scale.y(v):.1f}H{_RIGHT}"/>'
        for v in ticks(0, scale.top, 5)
    )
    along = "".join(
        f'<text x="{scale.x(v):.1f}" y="{_BOTTOM + 17}" text-anchor="middle">{number(v)}</text>'
        for v in ticks(-scale.reach, scale.reach, 8)
    )
    box = (_LEFT, _RIGHT, _TOP, _BOTTOM)
    names = axis_names("score gap: chosen − rejected", "loss (nats)", box, _HEIGHT - 6, 14)
    return f'{across}{along}<path class="ax" d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}"/>{names}'


def _curve(scale: _Scale, setting: LossSetting) -> str:
    plain = LossSetting(setting.gap)
    gaps = [scale.reach * (2 * i / (_SAMPLES - 1) - 1) for i in range(_SAMPLES)]

    def path(kind: str, level: float, chosen: LossSetting) -> str:
        points = (f"{scale.x(g):.1f} {scale.y(pair_loss(g, level, chosen)):.1f}" for g in gaps)
        return f'<path class="{kind}" d="M{"L".join(points)}"/>'

    changed = setting.margin or setting.centering * setting.level
    ghost = path("ghost", 0.0, plain) if changed else ""
    return ghost + path("curve", setting.level, setting)


def _dot(pair: ScoredPair, scale: _Scale, setting: LossSetting) -> str:
    loss = _loss_of(pair, setting)
    x, y = scale.x(pair.gap), scale.y(loss)
    title = (
        f"<title>{escape(f'gap {pair.gap:+.2f}, loss {loss:.3f}')}\n"
        f"chosen: {escape(pair.chosen)}\nrejected: {escape(pair.rejected)}</title>"
    )
    if pair.gap > 0:
        return f'<circle class="right" cx="{x:.1f}" cy="{y:.1f}" r="4">{title}</circle>'
    return f'<path class="wrongly" d="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z">{title}</path>'


def _mark(scale: _Scale, setting: LossSetting) -> str:
    loss, slope = pair_loss(setting.gap, setting.level, setting), pair_slope(setting.gap, setting)
    run = scale.reach / 5
    ends = [(setting.gap + side * run, loss + side * run * slope) for side in (-1, 1)]
    tangent = "L".join(f"{scale.x(g):.1f} {scale.y(max(v, 0)):.1f}" for g, v in ends)
    x, y = scale.x(setting.gap), scale.y(loss)
    return (
        f'<path class="drop" d="M{x:.1f} {_BOTTOM}V{y:.1f}H{_LEFT}"/>'
        f'<path class="tangent" d="M{tangent}"/><circle class="here" cx="{x:.1f}" cy="{y:.1f}" '
        'r="6.5"/>'
    )


# --- words and numbers -----------------------------------------------------------------------


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _arithmetic(setting: LossSetting) -> str:
    slope, total = pair_slope(setting.gap, setting), 2 * setting.level
    loss = pair_loss(setting.gap, setting.level, setting)
    lead = f" − {setting.margin:g}" if setting.margin else ""
    centre = (
        f" + {setting.centering:g} · ({_signed(total)})² = "
        f"{loss - setting.centering * total**2:.3f} + {setting.centering * total**2:.3f}"
        if setting.centering
        else ""
    )
    push = f"{abs(slope):.0%}"
    return (
        f'<div class="ft-arith">loss = −log σ({_signed(setting.gap)}{lead}){centre} = '
        f"<b>{loss:.3f}</b> nats · slope = <b>{slope:.3f}</b>".replace("-0.", "−0.")
        + f": a step pushes chosen up and rejected down with {push} of the full force"
        "</div>"
    )


def _variant(setting: LossSetting) -> str:
    says = []
    if setting.margin:
        says.append(
            f"The margin moves the curve {setting.margin:g} to the right: a pair in the right "
            "order still costs until chosen leads by it."
        )
    if setting.centering:
        says.append(
            "Centring adds a cost for scores far from 0; a real pair pays for its own sum, so it "
            "leaves the curve, which is drawn for the sum written above."
        )
    if not says:
        return ""
    return f'<p class="variant">{" ".join(says)} Dashed: the plain loss.</p>'


def _worst(pairs: Sequence[ScoredPair], setting: LossSetting) -> str:
    ranked = sorted(_finite(pairs), key=lambda pair: _loss_of(pair, setting), reverse=True)
    if not ranked:
        return ""
    rows = [
        (pair.gap, _loss_of(pair, setting), pair.prompt, pair.chosen, pair.rejected)
        for pair in ranked[:_WORST]
    ]  # fmt: skip
    heading = f"The most expensive pairs, {len(rows)} of {len(ranked)}"
    columns = ("gap", "loss", "prompt", "chosen", "rejected")
    return f"<details open><summary>{heading}</summary>{rows_html(columns, rows)}</details>"
