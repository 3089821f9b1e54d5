"""`ftkit doctor`: read files, run the doctor, print or write its report."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.text import Text

from ftkit.errors import DataError, SettingsError
from ftkit.findings import Finding, Severity
from ftkit.records.report import DoctorReport

Format = Literal["text", "json", "html"]
FORMATS: tuple[Format, ...] = ("text", "json", "html")
_STYLES: dict[Severity, str] = {
    "error": "bold red",
    "warning": "yellow",
    "info": "cyan",
    "ok": "green",
}
_MARKS: dict[Severity, str] = {"error": "✗", "warning": "!", "info": "i", "ok": "✓"}
_READERS = {".json": "json", ".parquet": "parquet", ".csv": "csv"}


def explain_text(code: str) -> str:
    """Return what the guide says about `code`, about all of them for ``"all"``.

    Raises:
        SettingsError: an unknown code.
    """
    from ftkit.diagnosis.codes import CODES, explain

    chosen = list(CODES.values()) if code == "all" else [explain(code)]
    return "\n\n\n".join(map(str, chosen))


def read_rows(path: Path) -> Any:
    """Return the rows of a file: ``.jsonl``, ``.json``, ``.parquet`` or ``.csv``.

    Raises:
        DataError: another ending, no such file, or a line that is no JSON object; names the line.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    if path.suffix == ".jsonl":
        return _lines(path)
    if path.suffix not in _READERS:
        raise DataError(f"{path} must end in .jsonl, .json, .parquet or .csv")
    from datasets import load_dataset

    try:
        return load_dataset(_READERS[path.suffix], data_files=str(path), split="train")
    except Exception as error:  # datasets wraps what its many readers raise
        raise DataError(f"{path} cannot be read: {error.__cause__ or error}") from error


def _lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    rows.append(_row(path, number, line))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}") from error
    return rows


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {number}: no valid JSON: {error.msg}") from error
    if not isinstance(row, dict):
        raise DataError(f"{path}, line {number}: a {type(row).__name__}, not an object of columns")
    return row


def read_tokenizer(name: str) -> tuple[Any, Any]:
    """Return a tokenizer as it is shipped, and its model without weights, where there is a config.

    Raises:
        ModelSourceError: it cannot be found or read.
        SettingsError: a folder without a tokenizer.
    """
    folder = Path(name)
    if not folder.is_dir():
        from ftkit.models import load_tokenizer

        return load_tokenizer(name, pad="shipped"), None
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise SettingsError(f"{folder} holds no tokenizer that can be read: {reason}") from error
    return tokenizer, _empty_model(folder) if (folder / "config.json").is_file() else None


def _empty_model(folder: Path) -> Any:
    """The model's shape and its generation config; None where transformers cannot build it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        if (folder / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(folder)
    except (OSError, ValueError, KeyError):
        return None
    return model


def write(report: DoctorReport, form: Format, out: Path | None, console: Console) -> None:
    """Print the report in `form`, or write it to `out` by its ending."""
    if out is not None:
        console.print(f"wrote {report.save(out)}", markup=False, highlight=False, soft_wrap=True)
    elif form == "json":
        print(report.to_json())
    elif form == "html":
        print(report.to_page())
    else:
        _print(report, console)


def _print(report: DoctorReport, console: Console) -> None:
    console.print(Text(f"{report.subject}  {report.read}".rstrip(), style="bold"))
    for finding in report.findings:
        if finding.severity != "ok":
            console.print()
            console.print(_told(finding), soft_wrap=not console.is_terminal)
    passed = [f.code for f in report.of("ok")]
    if passed:
        console.print(Text(f"\n✓ passed: {', '.join(passed)}", style="green"))
    if report.lengths:
        console.print(Text(str(report.lengths), style="dim"))
    bad = [f.code for f in (*report.errors, *report.warnings)]
    counts = f"{_count(report.errors, 'error')}, {_count(report.warnings, 'warning')}"
    console.print(Text(f"\n{counts}" if bad else "\nnothing found that fails silently", "bold"))
    if bad:
        console.print(Text(f"explained by: ftkit doctor --explain {bad[0]}", style="dim"))


def _count(findings: Sequence[Finding], name: str) -> str:
    return f"{len(findings)} {name}{'' if len(findings) == 1 else 's'}"


def _told(finding: Finding) -> Text:
    text = Text(f"{_MARKS[finding.severity]} {finding.code}", style=_STYLES[finding.severity])
    text.append(f"  {finding.where}\n" if finding.where else "\n", style="dim")
    text.append(f"  {finding.message}\n", style="default")
    if finding.fix:
        text.append("  Fix: ", style="bold green")
        text.append(f"{finding.fix}\n", style="default")
    if finding.rows:
        from ftkit.diagnosis.gathering import places

        text.append(f"  {places(finding.rows)}\n", style="dim")
    for line in finding.evidence.splitlines():
        text.append(f"  │ {line}\n", style="dim")
    text.rstrip()
    return text


def diagnose(
    tokenizer: str | None,
    data: Path | None,
    *,
    mask: str,
    response_template: str | None,
    chat_template: Path | None,
    max_length: int,
    scripts: Sequence[Path],
    rows: int,
) -> DoctorReport:
    """Read what the command names, and examine it.

    Raises:
        SettingsError: nothing is named.
    """
    if tokenizer is None and data is None and not scripts:
        raise SettingsError("name a tokenizer, a data file or a script; see ftkit doctor --help")
    alone = Path(tokenizer) if tokenizer is not None and data is None else None
    if alone is not None and alone.is_file():
        tokenizer, data = None, alone
    from ftkit.diagnosis import doctor

    named = [Path(tokenizer)] if tokenizer is not None else []
    named += [*([data] if data else []), *scripts]
    loaded, model = read_tokenizer(tokenizer) if tokenizer is not None else (None, None)
    report = doctor(
        tokenizer=loaded,
        model=model,
        dataset=None if data is None else read_rows(data),
        mask=mask,  # type: ignore[arg-type]
        response_template=response_template,
        chat_template=chat_template.read_text(encoding="utf-8") if chat_template else None,
        max_length=max_length or None,
        scripts=scripts,
        rows=rows,
    )
    return replace(report, subject=" and ".join(path.name for path in named))


def save_template(report: DoctorReport, path: Path) -> None:
    """Write the patched template.

    Raises:
        SettingsError: the report has none.
    """
    if report.template is None:
        raise SettingsError("there is no patched template: none was needed, or no place was found")
    path.write_text(report.template, encoding="utf-8")
