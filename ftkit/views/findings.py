"""Findings as chips: the symbol and the name at a glance, message and fix one click away."""

from collections.abc import Iterable, Sequence
from html import escape

from ftkit.findings import SEVERITIES, Finding, Severity

SYMBOLS: dict[Severity, str] = {"ok": "✓", "info": "i", "warning": "!", "error": "✗"}
_SHOWN_OK = 3


def chips(findings: Iterable[Finding]) -> str:
    """Return chips, gravest first; passed checks beyond a few share one chip."""
    ordered = sorted(findings, key=lambda f: -SEVERITIES.index(f.severity))
    passed = [f for f in ordered if f.severity == "ok"]
    if len(passed) <= _SHOWN_OK:
        return "".join(map(chip, ordered))
    head = [f for f in ordered if f.severity != "ok"]
    return "".join(map(chip, head)) + _passed(passed)


def chip(finding: Finding, *, opened: bool = False) -> str:
    """Return one chip: ``<details>`` that opens to the full message, its place and its fix."""
    label = finding.code.replace("-", " ")
    return _details(finding.severity, label, _explain(finding), opened=opened)


def _passed(findings: Sequence[Finding]) -> str:
    items = "".join(f"<li>{_explain(f)}</li>" for f in findings)
    return _details("ok", f"{len(findings)} checks passed", f"<ul>{items}</ul>", opened=False)


def _explain(finding: Finding) -> str:
    where = f"<b>{escape(finding.where)}</b>: " if finding.where else ""
    fix = f' <span class="fix">Fix: {escape(finding.fix)}</span>' if finding.fix else ""
    return f"<span>{where}{escape(finding.message)}{fix}</span>"


def _details(severity: Severity, label: str, body: str, *, opened: bool) -> str:
    return (
        f'<details class="ft-chip {severity}"{" open" if opened else ""}><summary>'
        f'<b aria-hidden="true">{SYMBOLS[severity]}</b><span class="ft-vh">{severity}: </span>'
        f'{escape(label)}</summary><div class="ft-why">{body}</div></details>'
    )
