"""DPO's loss as a picture: a plane of log-ratios, on which the loss sees one direction only.

Up: how much likelier the chosen answer became; to the right: how much likelier the rejected one.
The loss −log σ(β·(chosen − rejected)) is that of `ftkit.algos.dpo_losses` for one pair; it is
equal along every diagonal. Left out: label smoothing, and the mean over a batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import exp, expm1, isfinite, log, log1p

from ftkit.records.dpo_pair import DPOPair
from ftkit.views.plot import axis_names, number, ticks
from ftkit.views.style import card, css, stat
from ftkit.views.table import rows_html

TITLE = "DPO: the loss sees only the difference"

_WIDTH, _HEIGHT = 860, 430
_TOP, _BOTTOM = 30, 384
_PLANE = (62, 416)  # as wide as it is tall
_CURVE = (520, 846)
_SHOWN = 300  # dots drawn; more would hide each other
_LISTED = 5
_REACH = 4.0  # least range of the log-ratios, in nats
_LEAD_REACH = 12.0  # least range of their difference
_SAMPLES = 97
_APART = 26  # pixels between two contours
_LEVELS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 8.0)
_SAY = (
    "Along a diagonal nothing changes for the loss: chosen +3 and rejected −3 cost the same as "
    "chosen −4 and rejected −10. Whether the good answers themselves become likelier is for you "
    "to watch."
)
_KEY = (
    '<p class="key">Lines: equal loss, in nats. <b class="up">●</b> chosen became likelier than '
    'under the reference, <b class="down">◆</b> less likely (hatched half). <b class="at">○</b> '
    "the pair written out below; its arrow is the push of a step, as long as its weight.</p>"
)


@dataclass(frozen=True, slots=True)
class DPOSetting:
    """What the reader has chosen.

    Attributes:
        beta: Reward units a nat, above 0.
        chosen: log π − log π_ref of the chosen answer that is written out, in nats.
        rejected: The same of the rejected answer.
        pair: Number of the real pair that is written out, from 1; 0 for none of them.

    Raises:
        ValueError: a number that is not finite, or `beta` not above 0.
    """

    beta: float = 0.1
    chosen: float = -4.0
    rejected: float = -10.0
    pair: int = 0

    def __post_init__(self) -> None:
        for name in ("beta", "chosen", "rejected"):
            if not isfinite(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be finite")
        if self.beta <= 0:
            raise ValueError(f"beta is {self.beta}; it must be above 0")

    @property
    def lead(self) -> float:
        """Log-ratio of chosen minus that of rejected, in nats."""
        return self.chosen - self.rejected


def pair_loss(lead: float, beta: float) -> float:
    """Return −log σ(β·lead) in nats, without overflow."""
    margin = beta * lead
    return max(-margin, 0.0) + log1p(exp(-abs(margin)))


def pair_weight(lead: float, beta: float) -> float:
    """Return β·σ(−β·lead), the push of a step on either answer."""
    margin = beta * lead
    return beta / (1 + exp(margin)) if margin < 0 else beta * exp(-margin) / (1 + exp(-margin))


def dpo_html(pairs: Sequence[DPOPair] = (), setting: DPOSetting | None = None) -> str:
    """Return the whole picture as self-contained HTML.

    Args:
        pairs: As a trainer computed them, e.g. from `ftkit.stages.dpo_pairs`; may be empty.
        setting: β, and what is written out.
    """
    body = dpo_body(pairs, setting or DPOSetting())
    return css("dpo") + card(TITLE, f'<div class="ft-dpo">{body}</div>', say=_SAY)


def dpo_body(pairs: Sequence[DPOPair], setting: DPOSetting) -> str:
    """Return what stands inside the card: numbers, plane and weights, arithmetic, pairs."""
    parts = (_stats(pairs, setting), _svg(pairs, setting), _KEY, _arithmetic(setting))
    return "".join(parts) + _answers(pairs, setting) + _hardest(pairs, setting)


def known_pairs(pairs: Sequence[DPOPair]) -> list[tuple[int, DPOPair]]:
    """Return the pairs with finite numbers, each with its number, from 1."""
    return [
        (i, pair)
        for i, pair in enumerate(pairs, 1)
        if isfinite(pair.chosen_gain) and isfinite(pair.rejected_gain)
    ]


def reach_of(pairs: Sequence[DPOPair]) -> float:
    """Return the log-ratio, in nats, that the plane shows at least on either side of 0."""
    gains = (abs(g) for _, p in known_pairs(pairs) for g in (p.chosen_gain, p.rejected_gain))
    return max([_REACH, *gains]) * 1.08


def _stats(pairs: Sequence[DPOPair], setting: DPOSetting) -> str:
    known = [pair for _, pair in known_pairs(pairs)]
    if not known:
        return ""
    count, gone = len(known), len(pairs) - len(known)
    fell = sum(pair.chosen_gain < 0 for pair in known)
    right = sum(pair.lead > 0 for pair in known)
    loss = sum(pair_loss(pair.lead, setting.beta) for pair in known) / count
    weight = sum(pair_weight(pair.lead, setting.beta) for pair in known) / count
    return (
        '<div class="ft-stat">'
        + stat(f"{right / count:.0%}", f"of {count} pairs in the right order")
        + stat(f"{loss:.3f}", "mean loss, nats (0.693 at the start)")
        + stat(f"{fell} of {count}", "chosen answers less likely than before")
        + stat(number(weight), f"mean weight (β/2 = {number(setting.beta / 2)} at the start)")
        + (stat(str(gone), "pairs without finite numbers, not drawn") if gone else "")
        + "</div>"
    )


def _svg(pairs: Sequence[DPOPair], setting: DPOSetting) -> str:
    says = (
        f"Left: log-ratio of chosen against log-ratio of rejected, with lines of equal loss. "
        f"Right: gradient weight against their difference. At chosen {number(setting.chosen)} and "
        f"rejected {number(setting.rejected)} the loss is "
        f"{pair_loss(setting.lead, setting.beta):.3f} nats."
    )
    body = _plane(pairs, setting) + _weights(pairs, setting)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(says)}">'
        f"{_HATCH}{body}</svg>"
    )


_HATCH = (
    '<defs><pattern id="ft-dpo-hatch" width="7" height="7" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><path class="hatch" d="M0 0V7"/></pattern></defs>'
)


# --- the plane -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Plane:
    """Log-ratios in nats to picture; both axes have one scale, so that diagonals are at 45°."""

    reach: float

    def x(self, rejected: float) -> float:
        left, right = _PLANE
        return left + (self._inside(rejected) + self.reach) / (2 * self.reach) * (right - left)

    def y(self, chosen: float) -> float:
        return _BOTTOM - (self._inside(chosen) + self.reach) / (2 * self.reach) * (_BOTTOM - _TOP)

    def _inside(self, gain: float) -> float:
        return min(max(gain, -self.reach), self.reach)

    def diagonal(self, lead: float) -> str:
        """The line chosen − rejected = `lead` as a path inside the square."""
        low, high = max(-self.reach, -self.reach - lead), min(self.reach, self.reach - lead)
        ends = ((r, r + lead) for r in (low, high))
        return "M" + "L".join(f"{self.x(r):.1f} {self.y(c):.1f}" for r, c in ends)


def _plane(pairs: Sequence[DPOPair], setting: DPOSetting) -> str:
    furthest = max(abs(setting.chosen), abs(setting.rejected))
    plane = _Plane(max(reach_of(pairs), 1.25 * furthest))  # the arrow, too, has room
    dots = "".join(_dot(plane, i, pair) for i, pair in known_pairs(pairs)[:_SHOWN])
    return (
        _halves(plane) + _plane_axes(plane) + _contours(plane, setting) + _corners() + dots
        + _origin(plane) + _push(plane, setting) + _ring(plane.x(setting.rejected),
                                                          plane.y(setting.chosen))
    )  # fmt: skip


def _halves(plane: _Plane) -> str:
    left, right = _PLANE
    zero = plane.y(0)
    return (
        f'<path class="wrong" d="M{left} {_BOTTOM}L{right} {_TOP}V{_BOTTOM}z"/>'
        f'<rect class="fell" x="{left}" y="{zero:.1f}" width="{right - left}" '
        f'height="{_BOTTOM - zero:.1f}"/>'
    )


def _plane_axes(plane: _Plane) -> str:
    left, right = _PLANE
    marks = ticks(-plane.reach, plane.reach, 8)
    across = "".join(
        f'<text x="{left - 7}" y="{plane.y(v) + 4:.1f}" text-anchor="end">{number(v)}</text>'
        for v in marks
    )
    along = "".join(
        f'<text x="{plane.x(v):.1f}" y="{_BOTTOM + 17}" text-anchor="middle">{number(v)}</text>'
        for v in marks
    )
    frame = f'<path class="ax" d="M{left} {_TOP}V{_BOTTOM}H{right}"/>'
    cross = (
        f'<path class="zero" d="M{plane.x(0):.1f} {_TOP}V{_BOTTOM}M{left} {plane.y(0):.1f}'
        f'H{right}"/>'
    )
    names = _names(
        _PLANE, "rejected: log π − log π_ref (nats)", "chosen: log π − log π_ref (nats)", 14
    )
    return across + along + frame + cross + names


def _names(panel: tuple[int, int], x_name: str, y_name: str, y_at: int) -> str:
    return axis_names(x_name, y_name, (*panel, _TOP, _BOTTOM), _HEIGHT - 8, y_at)


def _contours(plane: _Plane, setting: DPOSetting) -> str:
    lines = "".join(
        f'<path class="level" d="{plane.diagonal(lead)}"/>{_level_name(plane, lead, level)}'
        for level, lead in _levels(plane, setting.beta)
    )
    start = f'<path class="even" d="{plane.diagonal(0.0)}"/>' + _level_name(plane, 0.0, log(2))
    here = f'<path class="same" d="{plane.diagonal(setting.lead)}"/>'
    return lines + start + here


def _levels(plane: _Plane, beta: float) -> Iterator[tuple[float, float]]:
    """Yield round losses with their leads, not nearer to each other than the eye can part."""
    nat = (_PLANE[1] - _PLANE[0]) / (2 * plane.reach)  # pixels
    taken = [0.0]
    for level in _LEVELS:
        lead = -log(expm1(level)) / beta
        inside = abs(lead) < 2 * plane.reach - _APART / nat
        if inside and all(abs(lead - other) * nat >= _APART for other in taken):
            taken.append(lead)
            yield level, lead


def _level_name(plane: _Plane, lead: float, level: float) -> str:
    """The loss at the upper end of its line: above the plane, or to its right."""
    if lead > 0:
        x, y, anchor = plane.x(plane.reach - lead), _TOP - 6.0, "middle"
    else:
        x, y, anchor = _PLANE[1] + 5.0, plane.y(plane.reach + lead) + 4, "start"
    return f'<text class="level" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{level:.3g}</text>'


def _corners() -> str:
    left, right = _PLANE
    corners = (
        (left + 8, _TOP + 16, "start", "good", "as hoped"),
        (right - 8, _TOP + 16, "end", "", "both rise"),
        (left + 8, _BOTTOM - 9, "start", "", "both fall"),
        (right - 8, _BOTTOM - 9, "end", "bad", "the wrong way"),
    )
    return "".join(
        f'<text class="corner {kind}" x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>'
        for x, y, anchor, kind, text in corners
    )


def _origin(plane: _Plane) -> str:
    x, y = plane.x(0), plane.y(0)
    return (
        f'<path class="start" d="M{x - 5:.1f} {y:.1f}h10m-5 -5v10"/>'
        f'<text class="begin" x="{x + 7:.1f}" y="{y + 15:.1f}">start: π = π_ref</text>'
    )


def _dot(plane: _Plane, index: int, pair: DPOPair) -> str:
    return _mark(plane.x(pair.rejected_gain), plane.y(pair.chosen_gain), index, pair)


def _mark(x: float, y: float, index: int, pair: DPOPair) -> str:
    """One pair: ● where chosen became likelier, ◆ where it became less likely."""
    title = (
        f"<title>pair {index}: chosen {number(pair.chosen_gain)}, rejected "
        f"{number(pair.rejected_gain)} nats\nchosen: {escape(pair.chosen)}\n"
        f"rejected: {escape(pair.rejected)}</title>"
    )
    if pair.chosen_gain >= 0:
        shape = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.2"/>'
        return f'<g class="up" data-pair="{index}">{title}{shape}</g>'
    shape = f'<path d="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z"/>'
    return f'<g class="down" data-pair="{index}">{title}{shape}</g>'


def _push(plane: _Plane, setting: DPOSetting) -> str:
    """The step on the two log-probabilities: always up and to the left, only its length differs."""
    length = 12 + 44 * pair_weight(setting.lead, setting.beta) / setting.beta
    x, y = plane.x(setting.rejected) - 6, plane.y(setting.chosen) - 6
    tip_x, tip_y = x - 0.71 * length, y - 0.71 * length
    return f'<path class="push" d="M{x:.1f} {y:.1f}L{tip_x:.1f} {tip_y:.1f}m7 0h-7v7"/>'


def _ring(x: float, y: float) -> str:
    return f'<circle class="here" cx="{x:.1f}" cy="{y:.1f}" r="7.5"/>'


# --- the weights -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Weights:
    """Lead in nats and weight as a share of β to picture."""

    reach: float

    def x(self, lead: float) -> float:
        left, right = _CURVE
        inside = min(max(lead, -self.reach), self.reach)
        return left + (inside + self.reach) / (2 * self.reach) * (right - left)

    def y(self, share: float) -> float:
        return _BOTTOM - share / 1.04 * (_BOTTOM - _TOP)


def _weights(pairs: Sequence[DPOPair], setting: DPOSetting) -> str:
    beta, known = setting.beta, known_pairs(pairs)
    leads = [abs(pair.lead) for _, pair in known]
    scale = _Weights(1.06 * max([_LEAD_REACH, abs(setting.lead), *leads]))

    def at(lead: float) -> tuple[float, float]:
        return scale.x(lead), scale.y(pair_weight(lead, beta) / beta)

    steps = [scale.reach * (2 * i / (_SAMPLES - 1) - 1) for i in range(_SAMPLES)]
    path = "L".join("{:.1f} {:.1f}".format(*at(lead)) for lead in steps)
    dots = "".join(_mark(*at(pair.lead), i, pair) for i, pair in known[:_SHOWN])
    return _weight_axes(scale, beta) + f'<path class="curve" d="M{path}"/>{dots}' + _ring(
        *at(setting.lead)
    )  # fmt: skip


def _weight_axes(scale: _Weights, beta: float) -> str:
    left, right = _CURVE
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    across = "".join(
        f'<path class="grid" d="M{left} {scale.y(s):.1f}H{right}"/>'
        f'<text x="{left - 7}" y="{scale.y(s) + 4:.1f}" text-anchor="end">{number(s * beta)}</text>'
        for s in shares
    )
    along = "".join(
        f'<text x="{scale.x(v):.1f}" y="{_BOTTOM + 17}" text-anchor="middle">{number(v)}</text>'
        for v in ticks(-scale.reach, scale.reach, 8)
    )
    zero = scale.x(0)
    return (
        f'<rect class="wrong" x="{left}" y="{_TOP}" width="{zero - left:.1f}" '
        f'height="{_BOTTOM - _TOP}"/>{across}{along}'
        f'<path class="ax" d="M{left} {_TOP}V{_BOTTOM}H{right}"/>'
        f'<path class="zero" d="M{zero:.1f} {_TOP}V{_BOTTOM}"/>'
        f'<text class="corner bad" x="{zero - 8:.1f}" y="{_BOTTOM - 9}" text-anchor="end">'
        "wrong order</text>"
        f'<text class="corner good" x="{zero + 8:.1f}" y="{_TOP + 16}">right order</text>'
        + _names(_CURVE, "lead: chosen − rejected (nats)", "gradient weight β·σ(−β·lead)",
                 left - 54)
    )  # fmt: skip


# --- words and numbers -----------------------------------------------------------------------


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _plain(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _arithmetic(setting: DPOSetting) -> str:
    beta, lead = setting.beta, setting.lead
    weight = pair_weight(lead, beta)
    return (
        f'<div class="ft-arith">lead = {_signed(setting.chosen)} − ({_signed(setting.rejected)}) = '
        f"<b>{_signed(lead)}</b> nats · margin = β·lead = {beta:g} · {_signed(lead)} = "
        f"{_signed(beta * lead)} · loss = −log σ({_signed(beta * lead)}) = "
        f"<b>{pair_loss(lead, beta):.3f}</b> nats · weight = β·σ({_signed(-beta * lead)}) = "
        f"<b>{number(weight)}</b>, {weight / beta:.0%} of β</div>"
    )


def _answers(pairs: Sequence[DPOPair], setting: DPOSetting) -> str:
    """The two answers of the real pair that is written out."""
    if not 1 <= setting.pair <= len(pairs):
        return ""
    pair, beta = pairs[setting.pair - 1], setting.beta
    sides = (
        ("chosen", pair.chosen, pair.chosen_tokens, pair.ref_chosen_logp, pair.chosen_logp),
        ("rejected", pair.rejected, pair.rejected_tokens, pair.ref_rejected_logp,
         pair.rejected_logp),
    )  # fmt: skip
    rows = [
        (side, text, tokens, _plain(ref), _plain(now), _signed(now - ref),
         _signed(beta * (now - ref)))
        for side, text, tokens, ref, now in sides
    ]  # fmt: skip
    columns = ("", "answer", "tokens", "log π_ref", "log π", "change", "implicit reward")
    return (
        f'<p class="asked">Pair {setting.pair}: {escape(pair.prompt)}</p>'
        f'<div class="sides">{rows_html(columns, rows)}</div>'
    )


def _hardest(pairs: Sequence[DPOPair], setting: DPOSetting) -> str:
    ranked = sorted(known_pairs(pairs), key=lambda numbered: numbered[1].lead)[:_LISTED]
    if not ranked:
        return ""
    rows = [
        (i, _signed(pair.chosen_gain), _signed(pair.rejected_gain),
         round(pair_loss(pair.lead, setting.beta), 3),
         number(pair_weight(pair.lead, setting.beta)), pair.prompt, pair.chosen, pair.rejected)
        for i, pair in ranked
    ]  # fmt: skip
    heading = f"The pairs that push hardest, {len(rows)} of {len(known_pairs(pairs))}"
    columns = ("pair", "chosen", "rejected", "loss", "weight", "prompt", "chosen answer",
               "rejected answer")  # fmt: skip
    return f"<details><summary>{heading}</summary>{rows_html(columns, rows)}</details>"
