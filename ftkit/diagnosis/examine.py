"""`doctor`: every check that fits what it is given, as one report."""

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ftkit.chat import markers
from ftkit.chat.annotated import MaskName
from ftkit.chat.markers import MarkedTemplate
from ftkit.chat.masks import MASKS
from ftkit.diagnosis.case import REINFORCED, Case
from ftkit.diagnosis.curves import judge
from ftkit.diagnosis.data import examine_chats, examine_texts, examine_tokenizer, examine_tokens
from ftkit.diagnosis.gathering import merged
from ftkit.diagnosis.model import examine_model
from ftkit.diagnosis.ppo import examine_ppo, ppo_case
from ftkit.diagnosis.preferences import examine_pairs, examine_ratings, examine_sides
from ftkit.diagnosis.rows import Rows, take
from ftkit.diagnosis.scripts import examine_script
from ftkit.diagnosis.settings import examine_settings
from ftkit.diagnosis.tensors import examine_counts, examine_tensors
from ftkit.errors import SettingsError
from ftkit.findings import SEVERITIES, Finding
from ftkit.records import RunHistory
from ftkit.records.report import DoctorReport, Lengths

DEFAULT_ROWS = 10_000
TRL_MAX_LENGTH = 1024
"""`trl.SFTConfig`'s default."""


def doctor(
    trainer: Any = None,
    *,
    tokenizer: Any = None,
    dataset: Any = None,
    model: Any = None,
    mask: MaskName = "assistant",
    response_template: str | None = None,
    chat_template: str | None = None,
    max_length: int | None = TRL_MAX_LENGTH,
    text_field: str = "text",
    scripts: Sequence[str | Path] = (),
    rows: int = DEFAULT_ROWS,
    progress: bool = True,
) -> DoctorReport:
    """Look for what fails without a word, and say for each what was seen and what to do.

    ``doctor(trainer)`` reads a trainer's own tensors: the labels of its prepared dataset, the
    first batch of its collator, its model, its arguments, and what it has logged so far. With
    ``dataset=``, the rows that went in, it also counts those that were dropped on the way.
    ``doctor(tokenizer=…, dataset=…)`` reads data that have no trainer yet, and
    ``doctor(tokenizer=…)`` a chat template alone.

    Nothing is trained, and no random number of the run is used up.

    Args:
        trainer: A built TRL or transformers trainer, or a `ftkit.PPOTrainer`.
        tokenizer: Of the model; preference data can be read without one, and most trainers
            bring theirs.
        dataset: A `datasets.Dataset`, a stream of one (its beginning is sampled), or dicts.
        model: To hold tokenizer and data against, without a trainer.
        mask: Which tokens would be trained, see `ftkit.chat.annotate`; without a trainer only.
        response_template: As in `ftkit.chat.annotate`.
        chat_template: Jinja source in place of the tokenizer's own.
        max_length: Where rows would be cut, in tokens; without a trainer only.
        text_field: Column of plain text, ``SFTConfig.dataset_text_field``.
        scripts: Training scripts or notebooks whose calls are held against the installed
            libraries.
        rows: At most so many are read, evenly spread.
        progress: Show a progress bar where it takes longer than a second.

    Raises:
        DataError: no rows, columns that no trainer reads, a dict of splits, an unreadable script.
        SettingsError: nothing to examine, or an unknown mask.
        ChatError: a chat template with a syntax error.
    """
    began = time.monotonic()
    if mask not in MASKS:
        raise SettingsError(f"mask {mask!r} is unknown; use one of {', '.join(MASKS)}")
    if trainer is None and tokenizer is None and dataset is None and not scripts:
        raise SettingsError("nothing to examine: give a trainer, a tokenizer, a dataset or scripts")
    old = [finding for path in scripts for finding in examine_script(Path(path))]
    found: list[Finding] = []
    if trainer is not None:
        case = _trainer_case(trainer, tokenizer, rows, progress)
        found += [*_trainer(case), *examine_counts(case, _size(dataset))]
    else:
        read = Rows([], 0) if dataset is None else take(dataset, rows)
        case = Case(
            subject=_subject(tokenizer, dataset),
            rows=read,
            tokenizer=getattr(tokenizer, "tokenizer", tokenizer),
            model=model,
            chat_template=chat_template,
            mask="completion" if response_template is not None else mask,
            response_template=response_template,
            max_length=max_length,
            text_field=text_field,
            progress=progress,
        )
        found += _data(case)
    return _report(case, [*merged(found), *old], time.monotonic() - began)


def _size(dataset: Any) -> int | None:
    return len(dataset) if hasattr(dataset, "__len__") else None


def _subject(tokenizer: Any, dataset: Any) -> str:
    parts = []
    if tokenizer is not None:
        named = str(getattr(tokenizer, "name_or_path", "")).rstrip("/").rpartition("/")[2]
        named = re.sub(r"-[0-9a-f]{12}$", "", named)  # the embedded model's folder
        parts.append(named or type(tokenizer).__name__)
    if dataset is not None:
        parts.append(getattr(getattr(dataset, "info", None), "dataset_name", None) or "dataset")
    return " and ".join(parts) or "scripts"


def _trainer_case(trainer: Any, tokenizer: Any, rows: int, progress: bool) -> Case:
    if hasattr(trainer, "roles") and hasattr(trainer, "trace"):
        return ppo_case(trainer, rows, progress)
    if not hasattr(trainer, "args") or not hasattr(trainer, "model"):
        raise SettingsError(
            f"a {type(trainer).__name__} is no trainer: give a built TRL or transformers trainer, "
            "or a ftkit.PPOTrainer; data go into dataset=, a tokenizer into tokenizer="
        )
    dataset = getattr(trainer, "train_dataset", None)
    processor = getattr(trainer, "processing_class", None) or tokenizer
    if processor is None:
        raise SettingsError("the trainer has no processing_class: give tokenizer=, too")
    return Case(
        subject=type(trainer).__name__,
        rows=Rows([], 0) if dataset is None else take(dataset, rows),
        tokenizer=getattr(processor, "tokenizer", processor),
        model=trainer.model,
        trainer=trainer,
        chat_template=getattr(trainer, "chat_template", None),
        max_length=getattr(trainer.args, "max_length", None),
        text_field=getattr(trainer.args, "dataset_text_field", "text"),
        progress=progress,
    )


def _trainer(case: Case) -> Iterator[Finding]:
    if case.method == "ppo":
        yield from examine_ppo(case)
        return
    if case.kind == "pairs":
        yield from examine_pairs(case)
    elif case.kind == "rated":
        yield from examine_ratings(case)
    if case.method not in REINFORCED:
        yield from examine_tensors(case)
    yield from examine_model(case)
    yield from examine_settings(case)
    logged = getattr(getattr(case.trainer, "state", None), "log_history", [])
    yield from judge(_history(logged))


def _history(logged: Iterable[dict[str, Any]]) -> RunHistory:
    history = RunHistory()
    for row in logged:
        history.append(row.get("step", 0), {k: v for k, v in row.items() if k != "step"})
    return history


def _data(case: Case) -> Iterator[Finding]:
    if case.kind == "pairs":
        yield from examine_pairs(case)
    elif case.kind == "rated":
        yield from examine_ratings(case)
    if case.tokenizer is None:
        if case.kind not in ("pairs", "rated", "none"):
            raise SettingsError(f"rows of this kind ({case.kind}) need tokenizer=, too")
        return
    yield from examine_tokenizer(case)
    if case.kind == "chats":
        yield from examine_chats(case)
    elif case.kind == "pairs":
        yield from examine_sides(case)
    elif case.kind in ("texts", "completions"):
        yield from examine_texts(case)
    elif case.kind == "tokens":
        yield from examine_tokens(case)
    yield from examine_model(case)


def _report(case: Case, findings: list[Finding], seconds: float) -> DoctorReport:
    findings = sorted(findings, key=lambda f: -SEVERITIES.index(f.severity))
    marked = _marked(case, findings)
    if marked is not None:
        findings = [_with_places(f, marked) for f in findings]
    return DoctorReport(
        case.subject,
        tuple(findings),
        case.rows.note if case.rows.items else "",
        round(seconds, 2),
        Lengths.of(case.lengths, case.max_length),
        marked.template if marked else None,
        marked.places if marked else (),
    )


def _marked(case: Case, findings: list[Finding]) -> MarkedTemplate | None:
    """A template with markers, where their absence was found."""
    missing = any(f.code == "generation-markers" and f.severity != "ok" for f in findings)
    return markers.mark(case.tokenizer, case.chat_template) if missing else None


def _with_places(finding: Finding, marked: MarkedTemplate) -> Finding:
    if finding.code != "generation-markers":
        return finding
    scope = "" if marked.tools else " (without calls of tools)"
    return replace(
        finding,
        fix=f"tokenizer.chat_template = report.template: markers {marked.how}, verified on "
        f"{marked.verified} conversations{scope} to leave the text as it is and to mark exactly "
        "what the model must produce. Or let ftkit derive the mask: "
        "ftkit.stages.sft(…, mask='assistant')",
        evidence="\n".join(marked.places),
    )
