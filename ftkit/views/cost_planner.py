"""A bill as a picture: the sampled total, its terms, and the tornado of what is uncertain."""

from html import escape

from ftkit.records.costs import CostEstimate, Swing
from ftkit.views._registry import to_html
from ftkit.views.plot import number, ticks
from ftkit.views.style import card, css, stat

_WIDTH, _LEFT, _RIGHT = 760, 60, 744
_TOP, _BOTTOM = 26, 168
_NAMES, _BARS, _ROW, _SHOWN = 268, 696, 26, 10
_SAY = (
    "Each bar moves one number from its low to its high end while every other stays at its median. "
    "The longest bar is the number worth finding out first; a better guess of a short bar changes "
    "nothing."
)


@to_html.register
def cost_html(record: CostEstimate) -> str:
    """Return the card of a bill."""
    body = f'<div class="ft-cp">{cost_body(record)}</div>'
    return css("cost_planner") + card(record.title, body, say=_SAY)


def cost_body(record: CostEstimate) -> str:
    """Return what stands inside the card: numbers, histogram, terms, tornado, notes."""
    return (
        _stats(record)
        + _histogram(record)
        + _terms(record)
        + _tornado(record)
        + "".join(f'<p class="note">{escape(note)}</p>' for note in record.notes)
    )


def amount(value: float) -> str:
    """Return a sum of money in three digits: ``0.35``, ``120``, ``14.5k``, ``1.2M``."""
    if 1e3 <= abs(value) < 1e6:
        return f"{value / 1e3:.3g}k"
    return number(float(f"{value:.3g}"))


def _stats(record: CostEstimate) -> str:
    widest = record.most_uncertain
    first = (
        stat(widest.factor, f"is the most uncertain number (of {widest.term})")
        if widest
        else stat("nothing", "is uncertain here")
    )
    span = f"{amount(record.low)} to {amount(record.high)} {record.currency}"
    return (
        '<div class="ft-stat">'
        + stat(span, "in 9 of 10 draws")
        + stat(amount(record.median), "median")
        + first
        + "</div>"
    )


# --- the total -------------------------------------------------------------------------------


def _histogram(record: CostEstimate) -> str:
    top, most = record.edges[-1], max(record.counts) or 1
    says = (
        f"Histogram of {record.samples} sampled totals: 5 % below {record.low:,.0f}, median "
        f"{record.median:,.0f}, 5 % above {record.high:,.0f} {record.currency}"
    )

    def x(value: float) -> float:
        return _LEFT + min(value / top, 1.0) * (_RIGHT - _LEFT)

    bars = "".join(
        f'<rect class="{"bin" if record.low <= (a + b) / 2 <= record.high else "tail"}" '
        f'x="{x(a):.1f}" y="{_BOTTOM - n / most * (_BOTTOM - _TOP):.1f}" '
        f'width="{max(x(b) - x(a) - 1, 0.5):.1f}" height="{n / most * (_BOTTOM - _TOP):.1f}"/>'
        for a, b, n in zip(record.edges, record.edges[1:], record.counts, strict=False)
    )
    marks = "".join(
        f'<path class="mark" d="M{x(v):.1f} {_TOP - 4}V{_BOTTOM}"/>'
        f'<text class="mark" x="{x(v):.1f}" y="{_TOP - 9}" text-anchor="middle">{name}</text>'
        for v, name in ((record.low, "5 %"), (record.median, "median"), (record.high, "95 %"))
    )
    along = "".join(
        f'<text x="{x(v):.1f}" y="{_BOTTOM + 16}" text-anchor="middle">{amount(v)}</text>'
        for v in ticks(0, top, 8)
    )
    label = (
        f'<text x="{(_LEFT + _RIGHT) // 2}" y="{_BOTTOM + 34}" text-anchor="middle">total, '
        f"{escape(record.currency)}</text>"
        f'<text x="14" y="{(_TOP + _BOTTOM) // 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {(_TOP + _BOTTOM) // 2})">share of draws</text>'
    )
    axis = (
        f'<path class="ax" d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}"/>'
        f'<text x="{_LEFT - 6}" y="{_TOP + 5}" text-anchor="end">{most / record.samples:.0%}</text>'
        f'<text x="{_LEFT - 6}" y="{_BOTTOM + 4}" text-anchor="end">0</text>'
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_BOTTOM + 40}" role="img" aria-label="{escape(says)}">'
        f"{bars}{marks}{axis}{along}{label}</svg>"
    )


def _terms(record: CostEstimate) -> str:
    whole = sum(term.median for term in record.terms) or 1.0
    rows = "".join(
        f'<tr><th scope="row">{escape(t.name)}</th><td class="num">{amount(t.low)}</td>'
        f'<td class="num"><b>{amount(t.median)}</b></td><td class="num">{amount(t.high)}</td>'
        f'<td><span class="share" style="width:{100 * t.median / whole:.1f}%"></span></td></tr>'
        for t in sorted(record.terms, key=lambda t: -t.median)
    )
    return (
        '<div class="ft-scroll"><table class="ft-table terms"><thead><tr>'
        f'<th scope="col">{escape(record.currency)}</th><th scope="col" class="num">low (5 %)</th>'
        '<th scope="col" class="num">median</th><th scope="col" class="num">high (95 %)</th>'
        '<th scope="col">part of the median bill</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


# --- the tornado -----------------------------------------------------------------------------


def _tornado(record: CostEstimate) -> str:
    swings = [swing for swing in record.swings[:_SHOWN] if swing.size > 0]
    if not swings:
        return ""
    ends = [end for s in swings for end in (s.total_at_low, s.total_at_high)]
    low, high = min([*ends, record.base]), max([*ends, record.base])
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return _NAMES + 44 + (value - low) / span * (_BARS - _NAMES - 44)

    bottom = 30 + _ROW * len(swings)
    rows = "".join(_swing_row(s, i, x(s.total_at_low), x(s.total_at_high))
                   for i, s in enumerate(swings))  # fmt: skip
    marks = "".join(
        f'<path class="grid" d="M{x(v):.1f} 26V{bottom}"/>'
        f'<text x="{x(v):.1f}" y="{bottom + 16}" text-anchor="middle">{amount(v)}</text>'
        for v in ticks(low, high, 5)
    )
    middle = (
        f'<path class="base" d="M{x(record.base):.1f} 22V{bottom}"/>'
        f'<text class="mark" x="{x(record.base):.1f}" y="16" text-anchor="middle">'
        f"all at the median: {amount(record.base)}</text>"
    )
    says = "Tornado, widest first: " + "; ".join(
        f"{s.factor} {number(s.low_value)} to {number(s.high_value)} moves the total from "
        f"{s.total_at_low:,.0f} to {s.total_at_high:,.0f}"
        for s in swings
    )
    label = (
        f'<text x="{(_NAMES + _BARS) // 2}" y="{bottom + 34}" text-anchor="middle">total, '
        f"{escape(record.currency)}</text>"
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {bottom + 40}" role="img" aria-label="{escape(says)}">'
        f"{marks}{rows}{middle}{label}</svg>"
    )


def _swing_row(swing: Swing, index: int, at_low: float, at_high: float) -> str:
    """One bar: its light half is the low end of the number, its solid half the high end."""
    y, left = 30 + _ROW * index, min(at_low, at_high)
    width = max(abs(at_high - at_low), 1.0)
    ends = sorted([(at_low, swing.low_value), (at_high, swing.high_value)])
    name = f"{swing.factor} ({swing.term})"
    texts = "".join(
        f'<text x="{place + shift:.1f}" y="{y + 16}" text-anchor="{anchor}">{number(value)}</text>'
        for (place, value), shift, anchor in zip(ends, (-5, 5), ("end", "start"), strict=True)
    )
    kind = "first" if index == 0 else "bar"
    return (
        f'<text class="name" x="{_NAMES}" y="{y + 16}" text-anchor="end">{escape(name)}</text>'
        f'<rect class="{kind}" x="{left:.1f}" y="{y + 3}" width="{width:.1f}" height="{_ROW - 8}">'
        f"<title>{escape(name)}, {escape(swing.unit)}</title></rect>{texts}"
    )
