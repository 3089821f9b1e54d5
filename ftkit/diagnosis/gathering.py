"""One finding for many rows: the same thing seen a thousand times is told once, with its rows."""

from collections.abc import Iterable
from dataclasses import replace

from ftkit.findings import SEVERITIES, Finding

_SHOWN = 8
_OF_THE_TEMPLATE = {
    *("pad-is-eos", "stop-not-eos", "stop-not-special", "no-stop-token", "no-generation-prompt"),
}
"""What is about tokenizer and template, so that a list of all rows says nothing."""


def gather(found: Iterable[tuple[int, Finding]], total: int) -> list[Finding]:
    """Join findings of single rows by code.

    An error in less than half of the rows becomes a warning: those rows are lost, the run is not.

    Args:
        found: ``(row, finding)``.
        total: Rows that were read.
    """
    groups: dict[str, list[tuple[int, Finding]]] = {}
    for index, finding in found:
        groups.setdefault(finding.code, []).append((index, finding))
    return [_join(group, total) for group in groups.values()]


def _join(group: list[tuple[int, Finding]], total: int) -> Finding:
    worst = max((f for _, f in group), key=lambda f: SEVERITIES.index(f.severity))
    rows = tuple(sorted({index for index, _ in group}))
    if len(rows) == total and (worst.code in _OF_THE_TEMPLATE or worst.severity == "ok"):
        return replace(worst, where="")
    first = next(index for index, f in group if f is worst)
    place = f", {worst.where}" if worst.where else ""
    minor = worst.severity == "error" and 2 * len(rows) < total
    return replace(
        worst,
        severity="warning" if minor else worst.severity,
        message=f"{len(rows):,} of {total:,} rows. In row {first}{place}: {worst.message}",
        where="",
        rows=() if worst.severity == "ok" else rows,
    )


def merged(findings: Iterable[Finding]) -> list[Finding]:
    """Keep of each code the gravest, the first of equals; drop an ``ok`` that a finding refutes."""
    kept: dict[str, Finding] = {}
    for finding in findings:
        known = kept.get(finding.code)
        if known is None or _rank(finding) > _rank(known):
            kept[finding.code] = finding
    refuted = {ok for code in kept for ok in REFUTES.get(code, ())}
    order = sorted(kept.values(), key=lambda f: -_rank(f))
    return [f for f in order if f.code not in refuted]


def places(rows: tuple[int, ...]) -> str:
    """Return rows in words: ``"rows 3, 17, 40 and 12 more"``; empty for none."""
    if not rows:
        return ""
    listed = ", ".join(map(str, rows[:_SHOWN]))
    more = f" and {len(rows) - _SHOWN:,} more" if len(rows) > _SHOWN else ""
    return f"row{'' if len(rows) == 1 else 's'} {listed}{more}"


REFUTES: dict[str, tuple[str, ...]] = {
    "stop-token-untrained": ("stop-token-trained",),
    "no-stop-token": ("stop-token-trained",),
    "prefix-unstable": ("prefix-stable",),
    "answer-cut": ("answers-whole",),
    "answer-gone": ("answers-whole",),
}
"""Findings, and the passed checks that cannot stand beside them."""


def _rank(finding: Finding) -> int:
    return SEVERITIES.index(finding.severity)
