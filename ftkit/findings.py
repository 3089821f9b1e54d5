"""Findings: what a check saw, how bad it is, and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["ok", "info", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("ok", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Finding:
    """One observation of a check.

    Attributes:
        code: Stable kebab-case name, e.g. ``"pad-is-eos"``; safe to match on.
        severity: ``"ok"`` (checked and fine), ``"info"``, ``"warning"`` or ``"error"``.
        message: What was seen, in one sentence, with the evidence.
        fix: What to do, in one sentence; empty when nothing needs doing.
        where: The place, e.g. ``"message 2"`` or ``"row 14"``; empty for the whole input.
        rows: Indices of the rows concerned, ascending; empty where it is not about single rows.
        evidence: What was read, line by line, for a reader who wants to check; may be empty.
    """

    code: str
    severity: Severity
    message: str
    fix: str = ""
    where: str = ""
    rows: tuple[int, ...] = ()
    evidence: str = ""

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        fix = f" Fix: {self.fix}" if self.fix else ""
        return f"[{self.severity}] {self.code}{place}: {self.message}{fix}"


def worst(findings: Iterable[Finding]) -> Severity:
    """Return the gravest severity among `findings`, ``"ok"`` when there are none."""
    return max((f.severity for f in findings), key=SEVERITIES.index, default="ok")
