"""Memory of a step as a picture: one bar a moment, its parts, and whether cards hold it.

Left out: anything that computes; the numbers come ready in the record.
"""

from collections.abc import Iterable
from html import escape
from math import ceil

from ftkit.records.costs import CardFit, MemoryEstimate, Moment
from ftkit.views._registry import to_html
from ftkit.views.plot import number, ticks
from ftkit.views.style import card, css, stat

TITLE = "Memory planner"

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _BAR = 760, 78, 744, 22, 40, 26
_LETTER_FITS = 13  # pixels
_PARTS = {
    "weights": ("W", "the models that are trained, or carry adapters"),
    "frozen models": ("F", "what only scores: reference, reward model"),
    "adapters": ("A", "LoRA's two small matrices a layer"),
    "gradients": ("G", "one number a trained weight"),
    "optimizer": ("O", "AdamW: two more a trained weight"),
    "activations": ("X", "what the backward pass will need; grows with rows × length"),
    "logits": ("L", "one number a token and vocabulary entry, in float32, several times over"),
    "KV cache": ("K", "keys and values of all earlier tokens, while sampling"),
    "unpacked or cast": ("U", "a copy of weights in the dtype of the products"),
}
_MOMENTS = {
    "rollout": "completions are sampled",
    "scoring": "passes without gradient",
    "loss": "every activation is there, and the logits",
    "backward": "gradients appear, activations go",
}
_SAY = (
    "The peak is the highest moment, not the sum of everything: activations are largest before "
    "the first gradient exists, gradients when the last activation is gone."
)


@to_html.register
def memory_html(record: MemoryEstimate) -> str:
    """Return the card of an estimate."""
    body = f'<div class="ft-mp">{memory_body(record)}</div>'
    return css("memory_planner") + card(f"Memory: {record.model}", body, say=_SAY)


def memory_body(record: MemoryEstimate) -> str:
    """Return what stands inside the card: numbers, bars, parts of the peak, cards, notes."""
    return (
        _stats(record)
        + f'<p class="plan">{escape(record.plan)}</p>'
        + _svg(record)
        + _cards(record.cards)
        + _table(record)
        + "".join(f'<p class="note">{escape(note)}</p>' for note in record.notes)
    )


def gigabytes(size: float) -> str:
    """Return bytes as GB (1e9), with as many digits as help: ``0.54``, ``36.5``, ``1,234``."""
    value = size / 1e9
    if 0 < value < 0.01:
        return f"{value:.4f}"
    return f"{value:.2f}" if value < 10 else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def _stats(record: MemoryEstimate) -> str:
    largest = max(record.highest.parts.items(), key=lambda item: item[1])
    return (
        '<div class="ft-stat">'
        + stat(f"{gigabytes(record.peak)} GB", f"peak, at the moment '{record.highest.name}'")
        + stat(_count(record.parameters), "parameters")
        + stat(f"{largest[1] / record.peak:.0%}", f"of the peak: {largest[0]}")
        + "</div>"
    )


def _count(parameters: int) -> str:
    if parameters >= 1e9:
        return f"{parameters / 1e9:.3g} billion"
    return f"{parameters / 1e6:.3g} million"


# --- the bars --------------------------------------------------------------------------------


def _svg(record: MemoryEstimate) -> str:
    top = max(record.peak, 1.0) * 1.06
    bottom = _TOP + _ROW * len(record.moments)
    says = "; ".join(f"{m.name}: {gigabytes(m.total)} GB" for m in record.moments)
    bars = "".join(_bar(m, i, top, record.highest is m) for i, m in enumerate(record.moments))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {bottom + 40}" role="img" '
        f'aria-label="{escape(f"Memory by moment. {says}")}">'
        f"{_axis(top, bottom)}{bars}{_limits(record.cards, top, bottom)}</svg>"
    )


def _x(size: float, top: float) -> float:
    return _LEFT + size / top * (_RIGHT - _LEFT)


def _axis(top: float, bottom: int) -> str:
    marks = "".join(
        f'<path class="grid" d="M{_x(v * 1e9, top):.1f} {_TOP}V{bottom}"/>'
        f'<text x="{_x(v * 1e9, top):.1f}" y="{bottom + 15}" text-anchor="middle">{number(v)}'
        "</text>"
        for v in ticks(0, top / 1e9, 8)
    )
    middle = (_LEFT + _RIGHT) // 2
    label = f'<text x="{middle}" y="{bottom + 33}" text-anchor="middle">GB (1e9 bytes)</text>'
    return marks + f'<path class="ax" d="M{_LEFT} {_TOP}V{bottom}"/>' + label


def _bar(moment: Moment, index: int, top: float, peak: bool) -> str:
    y, start = _TOP + _ROW * index + (_ROW - _BAR) // 2, 0.0
    drawn = []
    for part, size in moment.parts.items():
        drawn.append(_segment(part, size, start, y, top))
        start += size
    end = _x(start, top)
    name = f'<text class="name" x="{_LEFT - 8}" y="{y + 17}" text-anchor="end">{moment.name}</text>'
    extent = f'width="{end - _LEFT:.1f}" height="{_BAR + 4}"'
    frame = f'<rect class="peak" x="{_LEFT}" y="{y - 2}" {extent}/>'
    return f"<g>{name}{''.join(drawn)}{frame if peak else ''}</g>"


def _segment(part: str, size: float, start: float, y: int, top: float) -> str:
    left, width = _x(start, top), size / top * (_RIGHT - _LEFT)
    if width < 0.2:
        return ""
    letter = _letter(part)
    text = (
        f'<text class="in" x="{left + width / 2:.1f}" y="{y + 18}" text-anchor="middle">{letter}'
        "</text>"
        if width >= _LETTER_FITS
        else ""
    )
    return (
        f'<rect class="p{letter}" x="{left:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}">'
        f"<title>{escape(part)}: {gigabytes(size)} GB</title></rect>{text}"
    )


def _limits(cards: Iterable[CardFit], top: float, bottom: int) -> str:
    """Dashed lines at the cards' sizes that lie on the axis."""
    return "".join(
        f'<path class="limit" d="M{_x(c.gb * 1e9, top):.1f} {_TOP - 6}V{bottom}"/>'
        f'<text class="limit" x="{_x(c.gb * 1e9, top):.1f}" y="{_TOP - 10}" text-anchor="middle">'
        f"{c.gb:g} GB card</text>"
        for c in _apart([c for c in cards if c.gb * 1e9 <= top], top)
    )


def _apart(cards: list[CardFit], top: float) -> list[CardFit]:
    """Leave out lines whose labels would run into the next one."""
    kept: list[CardFit] = []
    for fits in sorted(cards, key=lambda c: -c.gb):
        if not kept or _x(kept[-1].gb * 1e9, top) - _x(fits.gb * 1e9, top) > 74:
            kept.append(fits)
    return kept


def _letter(part: str) -> str:
    return _PARTS[part][0] if part in _PARTS else "U"


# --- tables ----------------------------------------------------------------------------------


def _table(record: MemoryEstimate) -> str:
    peak = record.highest
    rows = "".join(
        f'<tr><td><i class="p{_letter(part)}">{_letter(part)}</i></td>'
        f'<th scope="row">{escape(part)}</th><td class="num">{gigabytes(size)}</td>'
        f'<td class="num">{size / peak.total:.0%}</td>'
        f"<td>{escape(_PARTS.get(part, ('', ''))[1])}</td></tr>"
        for part, size in sorted(peak.parts.items(), key=lambda item: -item[1])
        if size > 0
    )
    why = _MOMENTS.get(peak.name, "")
    return (
        f"<details open><summary>What the peak is made of ({escape(peak.name)}: {why})</summary>"
        '<div class="ft-scroll"><table class="ft-table"><thead><tr><th></th>'
        '<th scope="col">part</th><th scope="col" class="num">GB</th>'
        '<th scope="col" class="num">share</th><th scope="col">what it is</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def _cards(cards: tuple[CardFit, ...]) -> str:
    if not cards:
        return ""
    return f'<ul class="cards">{"".join(map(_card, cards))}</ul>'


def _card(fit: CardFit) -> str:
    head = f"<b>{fit.gb:g} GB</b>"
    if fit.fits:
        free = fit.gb * 1e9 - fit.peak
        return f'<li class="yes">{head} <span>✓ fits</span><p>{gigabytes(free)} GB left</p></li>'
    if not fit.possible:
        cards = ceil(fit.peak / (fit.gb * 1e9))
        return (
            f'<li class="no">{head} <span>✗ no</span><p>{gigabytes(fit.peak)} GB even with every '
            f"change: needs {cards:,} such cards or more</p></li>"
        )
    steps = "".join(
        f"<li>{escape(change.text)} <small>{escape(change.price)}</small></li>"
        for change in fit.changes
    )
    return (
        f'<li class="so">{head} <span>→ fits after</span><ol>{steps}</ol>'
        f"<p>then {gigabytes(fit.peak)} GB</p></li>"
    )
