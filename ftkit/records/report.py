"""What the doctor found: findings with evidence, the lengths of the rows, a template with markers.

Saved as JSON; as HTML and text for readers. Left out: the explanations of the codes, which are
`ftkit.diagnosis.explain`'s.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftkit.errors import RecordError
from ftkit.findings import SEVERITIES, Finding, Severity
from ftkit.records import files
from ftkit.showing import Showable

if TYPE_CHECKING:
    import pandas as pd

GUIDE = "ftkit/diagnosis/codes.md"
"""Where every code is explained, under its own name."""
EXIT_WARNINGS, EXIT_ERRORS = 3, 4
_FORMAT, _VERSION = "ftkit.doctor-report", 1
_SHOWN_ROWS = 8


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long the rows are, and where they are cut.

    Attributes:
        limit: Tokens that are kept of a row; None for all.
        width: Tokens a bin covers.
        bins: Rows in each bin, from length 1 on.
        whole: Rows that are kept whole.
        cut: Rows whose end is cut off.
        gone: Rows of which nothing that is trained is left.
        longest: Tokens of the longest row, before cutting where that is known.
    """

    limit: int | None
    width: int
    bins: tuple[int, ...]
    whole: int
    cut: int
    gone: int
    longest: int

    @classmethod
    def of(
        cls, rows: list[tuple[int, str]], limit: int | None, *, bins: int = 40
    ) -> "Lengths | None":
        """Count ``(length, "whole" | "cut" | "gone")`` of each row; None without rows."""
        if not rows:
            return None
        longest = max(length for length, _ in rows)
        width = max(1, -(-longest // bins))
        counts = Counter(max(0, length - 1) // width for length, _ in rows)
        fates = Counter(fate for _, fate in rows)
        return cls(
            limit,
            width,
            tuple(counts[i] for i in range(max(counts) + 1)),
            fates["whole"],
            fates["cut"],
            fates["gone"],
            longest,
        )

    def __str__(self) -> str:
        at = "not cut" if self.limit is None else f"cut at {self.limit:,}"
        return (
            f"lengths: {self.whole:,} rows whole, {self.cut:,} cut, {self.gone:,} gone; longest "
            f"{self.longest:,} tokens, {at}"
        )


@dataclass(frozen=True)
class DoctorReport(Showable):
    """One examination.

    Attributes:
        subject: What was examined.
        findings: Gravest first; passed checks have severity ``"ok"``.
        read: How many rows were read, in words.
        seconds: How long it took.
        lengths: Of the rows; None where there are none.
        template: The chat template with verified ``{% generation %}`` markers, where one was
            missing them.
        template_places: Where these markers stand, in words.
    """

    subject: str
    findings: tuple[Finding, ...]
    read: str = ""
    seconds: float = 0.0
    lengths: Lengths | None = None
    template: str | None = None
    template_places: tuple[str, ...] = field(default=())

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What makes the run useless."""
        return self.of("error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What likely hurts."""
        return self.of("warning")

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """Return the findings of one severity."""
        return tuple(f for f in self.findings if f.severity == severity)

    def exit_code(self, *, strict: bool = False) -> int:
        """Return 4 for errors, 3 for warnings when `strict`, else 0: ``ftkit doctor``'s status.

        1 and 2 are left to a command that could not run or was called wrongly.
        """
        if self.errors:
            return EXIT_ERRORS
        return EXIT_WARNINGS if strict and self.warnings else 0

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a finding."""
        import pandas as pd

        names = ["code", "severity", "message", "fix", "where", "rows", "evidence"]
        return pd.DataFrame(
            [{name: getattr(f, name) for name in names} for f in self.findings], columns=names
        )

    def to_json(self) -> str:
        """Return the whole report; each finding with the place of its explanation."""
        findings = [{**asdict(f), "explained": f"{GUIDE}#{f.code}"} for f in self.findings]
        data = {
            "format": _FORMAT,
            "version": _VERSION,
            **asdict(self),
            "findings": findings,
            "counts": {s: len(self.of(s)) for s in SEVERITIES},
            "exit_code": self.exit_code(),
        }
        return json.dumps(data, indent=1, ensure_ascii=False)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the report as its ending says: ``.json``, ``.html`` or ``.txt``; return the path.

        Raises:
            RecordError: another ending.
        """
        target = Path(path)
        forms = {".json": self.to_json, ".html": self.to_page, ".txt": self.__str__}
        if target.suffix not in forms:
            raise RecordError(f"{target} must end in one of {', '.join(forms)}")
        return files.write(target, forms[target.suffix]())

    def to_page(self) -> str:
        """Return `to_html` as a page of its own, which loads nothing."""
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width">'
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
            "<title>ftkit doctor</title><style>:root{color-scheme:light dark}"
            "body{margin:24px auto;max-width:1100px;padding:0 12px}</style></head>"
            f"<body>{self.to_html()}</body></html>"
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "DoctorReport":
        """Read what `save` wrote as JSON.

        Raises:
            RecordError: the file is damaged, or a newer ftkit wrote it.
        """
        try:
            return cls._of(json.loads(Path(path).read_text(encoding="utf-8")), Path(path))
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, RecordError):
                raise
            raise RecordError(f"{path} is no report of the doctor, or damaged: {error}") from error

    @classmethod
    def _of(cls, data: Mapping[str, Any], path: Path) -> "DoctorReport":
        files.check_format(data, path, (_FORMAT, _VERSION), "a report of the doctor")
        findings = tuple(
            Finding(
                **{k: v for k, v in f.items() if k not in ("explained", "rows")},
                rows=tuple(f["rows"]),
            )
            for f in data["findings"]
        )
        lengths = data["lengths"]
        return cls(
            data["subject"],
            findings,
            data["read"],
            data["seconds"],
            Lengths(**{**lengths, "bins": tuple(lengths["bins"])}) if lengths else None,
            data["template"],
            tuple(data["template_places"]),
        )

    def __str__(self) -> str:
        counts = ", ".join(f"{len(self.of(s))} {s}" for s in reversed(SEVERITIES))
        lines = [f"doctor: {self.subject}", f"{self.read}: {counts}".lstrip(": ")]
        for finding in self.findings:
            if finding.severity != "ok":
                lines += ["", *_text(finding)]
        passed = ", ".join(f.code for f in self.of("ok"))
        lines += ["", f"passed: {passed}"] if passed else []
        lines += [str(self.lengths)] if self.lengths else []
        if self.template:
            lines += ["a template with verified markers is in report.template:"]
            lines += [f"  {place}" for place in self.template_places]
        return "\n".join(lines)


def _text(finding: Finding) -> list[str]:
    lines = [str(finding)]
    if finding.rows:
        more = len(finding.rows) - _SHOWN_ROWS
        listed = ", ".join(map(str, finding.rows[:_SHOWN_ROWS]))
        lines.append(f"    rows: {listed}" + (f" and {more:,} more" if more > 0 else ""))
    return lines + [f"    | {line}" for line in finding.evidence.splitlines()]
