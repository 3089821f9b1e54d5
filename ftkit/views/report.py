"""The doctor's report as one card: what is wrong first, each with evidence and fix, then the rest.

Errors stand open, notes and passed checks are chips. Left out: running any check.
"""

from collections.abc import Iterable
from html import escape

from ftkit.diagnosis.codes import CODES, PASSES
from ftkit.findings import Finding, Severity
from ftkit.records.report import DoctorReport, Lengths
from ftkit.views._registry import to_html
from ftkit.views.findings import SYMBOLS, chip, chips
from ftkit.views.plot import ticks
from ftkit.views.style import card, css, stat

_SHOWN_ROWS = 24
_WIDTH, _HEIGHT = 640, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 628, 22, 112
_COUNTED: tuple[tuple[Severity, str], ...] = (
    ("error", "error"),
    ("warning", "warning"),
    ("info", "note"),
)


@to_html.register
def report_card(report: DoctorReport) -> str:
    """Return a self-contained card."""
    took = f"{report.seconds:.1f} s" if report.read else ""
    aside = "".join(f"<span>{escape(text)}</span>" for text in (report.read, took) if text)
    body = (
        f'<div class="ft-stat">{_counts(report)}</div>'
        + "".join(map(_problem, (*report.errors, *report.warnings)))
        + _quiet(report)
        + (_lengths(report.lengths) if report.lengths else "")
        + (_template(report) if report.template else "")
    )
    return css("report") + card(f"Doctor · {report.subject}", body, aside=aside, say=_say(report))


def _counts(report: DoctorReport) -> str:
    return "".join(
        stat(str(n), f"{name}{'' if n == 1 else 's'}")
        for severity, name in _COUNTED
        if (n := len(report.of(severity))) or severity == "error"
    ) + stat(str(len(report.of("ok"))), "checks passed")


def _say(report: DoctorReport) -> str:
    if report.errors:
        return "Mend what is marked ✗ before training: the run would be useless, or end."
    if report.warnings:
        return "Nothing that ends the run. Look at what is marked ! before you spend hours on it."
    return "Nothing found that fails silently."


def _problem(finding: Finding) -> str:
    """One error or warning: name, what was seen, what to do; evidence and reason one click away."""
    entry = CODES.get(finding.code)
    title = entry.title if entry else finding.code.replace("-", " ")
    where = f" <small>{escape(finding.where)}</small>" if finding.where else ""
    fix = f"<p><b>Fix</b> {escape(finding.fix)}</p>" if finding.fix else ""
    return (
        f'<section class="ft-dx {finding.severity}"><h3><b aria-hidden="true">'
        f'{SYMBOLS[finding.severity]}</b><span class="ft-vh">{finding.severity}: </span>'
        f"{escape(title)}{where}<code>{escape(finding.code)}</code></h3>"
        f"<p>{escape(finding.message)}</p>{fix}{_evidence(finding)}{_why(finding.code)}</section>"
    )


def _evidence(finding: Finding) -> str:
    rows = finding.rows
    listed = ", ".join(map(str, rows[:_SHOWN_ROWS]))
    more = f" and {len(rows) - _SHOWN_ROWS:,} more" if len(rows) > _SHOWN_ROWS else ""
    shown = f'<p class="rows">row{"s" if len(rows) > 1 else ""} {listed}{more}</p>' if rows else ""
    if finding.evidence:
        shown += f"<pre>{escape(finding.evidence)}</pre>"
    opened = " open" if finding.severity == "error" and finding.evidence else ""
    return f"<details{opened}><summary>evidence</summary>{shown}</details>" if shown else ""


def _why(code: str) -> str:
    entry = CODES.get(PASSES.get(code, code))
    if entry is None:
        return ""
    links = ", ".join(f'<a href="{escape(url)}">{escape(name)}</a>' for name, url in entry.sources)
    read = f'<p class="read">Read: {links}</p>' if links else ""
    return (
        f"<details><summary>why it matters</summary><p>{_prose(entry.why)}</p>"
        f'<p class="read">Checked: {_prose(entry.what)}</p>{read}</details>'
    )


def _prose(text: str) -> str:
    """Text of the guide, its code marks as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(parts))


def _quiet(report: DoctorReport) -> str:
    """Notes and passed checks, folded."""
    notes = "".join(map(chip, report.of("info")))
    rest = notes + chips(report.of("ok"))
    return f'<div class="ft-stat">{rest}</div>' if rest else ""


# --- lengths -----------------------------------------------------------------------------------


def _lengths(lengths: Lengths) -> str:
    total = lengths.whole + lengths.cut + lengths.gone
    names = (("kept whole", lengths.whole), ("cut", lengths.cut), ("gone", lengths.gone))
    said = ", ".join(f"{n:,} {name}" for name, n in names if n or name == "kept whole")
    return (
        f'<figure class="ft-lengths"><figcaption>Length of {total:,} rows: {said}</figcaption>'
        f"{_histogram(lengths, said)}</figure>"
    )


def _histogram(lengths: Lengths, said: str) -> str:
    limit = lengths.limit or 0
    reach = max(
        len(lengths.bins) * lengths.width, limit * 1.05 if limit < 2 * lengths.longest else 0
    )
    top = max(lengths.bins)
    body = "".join(_bars(lengths, reach, top)) + _axes(reach, top)
    if limit and limit <= reach:
        x = _x(limit, reach)
        side, at = ("end", x - 5) if x > (_LEFT + _RIGHT) / 2 else ("start", x + 5)
        body += (
            f'<path class="cutline" d="M{x:.1f} {_TOP - 8}V{_BOTTOM}"/>'
            f'<text class="cutname" x="{at:.1f}" y="{_TOP - 6}" text-anchor="{side}">'
            f"✂ max_length={limit:,}</text>"
        )
    title = f"Histogram of row lengths in tokens: {said}"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{body}</svg>"
    )


def _bars(lengths: Lengths, reach: float, top: int) -> Iterable[str]:
    for i, count in enumerate(lengths.bins):
        if not count:
            continue
        left, right = _x(i * lengths.width, reach), _x((i + 1) * lengths.width, reach)
        height = max(1.0, count / top * (_BOTTOM - _TOP))
        beyond = lengths.limit is not None and i * lengths.width >= lengths.limit
        first, last = i * lengths.width + 1, (i + 1) * lengths.width
        yield (
            f'<rect class="{"beyond" if beyond else "within"}" x="{left:.1f}" '
            f'y="{_BOTTOM - height:.1f}" width="{max(1.0, right - left - 1):.1f}" '
            f'height="{height:.1f}"><title>{first:,} to {last:,} tokens: {count:,} rows</title>'
            "</rect>"
        )


def _axes(reach: float, top: int) -> str:
    across = "".join(
        f'<text x="{_x(v, reach):.1f}" y="{_BOTTOM + 14}" text-anchor="middle">{v:,.0f}</text>'
        for v in ticks(0, reach, 6)
    )
    up = "".join(
        f'<text x="{_LEFT - 6}" y="{_BOTTOM - v / top * (_BOTTOM - _TOP) + 4:.1f}" '
        f'text-anchor="end">{v:,}</text>'
        for v in {0, top}
    )
    return (
        f'<path class="frame" d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}"/>{across}{up}'
        f'<text x="{(_LEFT + _RIGHT) / 2:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">'
        "length in tokens</text>"
        f'<text x="12" y="{(_TOP + _BOTTOM) / 2:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 12 {(_TOP + _BOTTOM) / 2:.0f})">rows</text>'
    )


def _x(tokens: float, reach: float) -> float:
    return _LEFT + tokens / reach * (_RIGHT - _LEFT)


# --- template ----------------------------------------------------------------------------------


def _template(report: DoctorReport) -> str:
    """The patched template, its markers to be seen at a glance."""
    source = escape(report.template or "")
    for tag in ("{% generation %}", "{% endgeneration %}"):
        source = source.replace(tag, f"<mark>{tag}</mark>")
    places = "".join(f"<li>{escape(place)}</li>" for place in report.template_places)
    return (
        '<details class="ft-patched"><summary>template with verified markers (report.template)'
        f"</summary><ul>{places}</ul><pre>{source}</pre></details>"
    )
