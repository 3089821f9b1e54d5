"""What a trainer really feeds to its model: the labels of its dataset, and its first batch."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from ftkit.chat.annotate import annotate
from ftkit.chat.annotated import IGNORE_INDEX
from ftkit.chat.checks import named, special_tokens
from ftkit.chat.labels import Labelled, label_findings, special_ids
from ftkit.chat.prepare import conversation, tools
from ftkit.chat.render import Renderer
from ftkit.diagnosis.case import REINFORCED, Case
from ftkit.diagnosis.data import stability
from ftkit.diagnosis.gathering import gather
from ftkit.errors import ChatError
from ftkit.findings import Finding

_ANNOTATED = 200
_OF_THE_TEXT = {
    *("content-not-rendered", "content-outside-turn", "field-not-rendered", "empty-answer"),
    *("text-lost", "prompt-mismatch", "no-generation-prompt", "no-stop-token", "stop-not-special"),
}
"""What `annotate` says about a row whoever made its labels."""


def examine_tensors(case: Case) -> Iterator[Finding]:
    """Labels, collated batch, and what the rows' own conversations add to them."""
    yield from _labels(case)
    batch = list(_batch(case))
    yield from batch
    yield from _special(case, batch)
    if case.packed:
        yield _packed()
    elif case.kind == "chats" and case.labelled:
        yield from _conversations(case)


def _packed() -> Finding:
    return Finding(
        "packed-rows",
        "info",
        "the trainer packs several texts into one row and keeps none of their messages: what "
        "needs roles or whole texts was not checked",
        "for these checks, build the trainer once with packing=False",
    )


def _labels(case: Case) -> list[Finding]:
    if not case.labelled:
        return []
    limit = case.max_length
    for row in case.labelled:
        at_limit = limit is not None and len(row.ids) >= limit and not case.packed
        case.lengths.append((len(row.ids), "cut" if at_limit else "whole"))
    return label_findings(
        case.tokenizer, case.labelled, max_length=limit, whole=not case.packed and _are_texts(case)
    )


def _are_texts(case: Case) -> bool:
    """Whether rows end where their text ends; blocks of one length are cut from a stream."""
    sizes = Counter(len(row.ids) for row in case.labelled)
    return case.kind != "tokens" or len(sizes) > 1 or len(case.labelled) == 1


def _batch(case: Case) -> Iterator[Finding]:
    try:
        batch = case.batch
    except Exception as error:  # whatever a user's collator raises is what there is to tell
        yield Finding(
            "collator-fails",
            "error",
            f"the collator {_name(case)} fails on the first batch: {type(error).__name__}: "
            + (str(error).strip().splitlines() or [""])[0][:200],
            "use the trainer's own collator, or one that takes the columns of its dataset",
        )
        return
    yield from _response_key(case)
    rows = case.batch_rows()
    if rows and case.method != "kto":
        for finding in label_findings(case.tokenizer, rows, whole=False):
            if finding.severity != "ok" and not case.packed:
                yield _of_the_batch(case, finding)
    yield from _score(case, batch)


def _response_key(case: Case) -> Iterator[Finding]:
    """Collators of old tutorials look the ids of a response template up in each row."""
    key = getattr(case.trainer.data_collator, "response_token_ids", None)
    rows = [(i, row["input_ids"]) for i, row in case.rows.items if "input_ids" in row]
    missing = [(i, ids) for i, ids in rows if key and not _holds(ids, list(key))]
    if missing:
        yield Finding(
            "response-template-context",
            "error" if 2 * len(missing) >= len(rows) else "warning",
            f"{len(missing)} of {len(rows)} rows do not hold the token ids that {_name(case)} "
            "looks for: it masks them whole",
            "the response template tokenizes differently in context: take its ids from a row, or "
            "ftkit.stages.sft(…, mask='completion', response_template=…), which searches the text",
            rows=tuple(i for i, _ in missing),
            evidence=f"looks for  {named(case.tokenizer, list(key or ()))}\n"
            f"row {missing[0][0]}      {named(case.tokenizer, missing[0][1][-40:])}",
        )


def _holds(ids: Sequence[int], key: list[int]) -> bool:
    return any(list(ids[k : k + len(key)]) == key for k in range(len(ids) - len(key) + 1))


def _of_the_batch(case: Case, finding: Finding) -> Finding:
    message = f"after the collator {_name(case)}: {finding.message}"
    return replace(finding, message=message, where="first batch", rows=())


def _name(case: Case) -> str:
    collator = case.trainer.data_collator
    kind = collator if hasattr(collator, "__name__") else type(collator)
    return f"{kind.__module__.partition('.')[0]}'s {kind.__name__}"


def _score(case: Case, batch: Any) -> Iterator[Finding]:
    """Sequence classifiers read the score at the last token that is not the pad *id*."""
    pad = getattr(getattr(case.model, "config", None), "pad_token_id", None)
    if case.method != "reward" or pad is None or "attention_mask" not in batch:
        return
    columns = torch.arange(batch["input_ids"].shape[1], device=batch["input_ids"].device)
    read = ((batch["input_ids"] != pad) * columns).argmax(1)
    last = (batch["attention_mask"].bool() * columns).argmax(1)
    wrong = int((read != last).sum())
    if wrong:
        yield Finding(
            "score-before-stop",
            "error",
            f"in {wrong} of {len(read)} rows of the first batch the score is not read at the last "
            f"token: the model looks for the last one that is not {case.tokenizer.decode([pad])!r} "
            f"(model.config.pad_token_id={pad})",
            "give tokenizer and model.config one pad token that ends nothing, e.g. ftkit.load(...) "
            "does",
            "first batch",
        )


def _special(case: Case, batch: list[Finding]) -> Iterator[Finding]:
    """pad = eos only hurts where a collator masks by id; the batch says whether it does."""
    hurt = any(f.code in ("stop-token-untrained", "score-before-stop") for f in batch)
    for finding in special_tokens(case.tokenizer):
        if finding.code == "pad-is-eos" and not hurt and case.method not in ("", "reward"):
            yield replace(
                finding,
                severity="info",
                message=f"pad token = eos token ({case.tokenizer.eos_token!r}): harmless in this "
                "trainer, whose labels keep the stop token; not so with a collator that masks by "
                "token id",
            )
        else:
            yield finding


def _conversations(case: Case) -> Iterator[Finding]:
    step = max(1, len(case.labelled) // _ANNOTATED)
    known = dict(case.rows.items)
    told: list[tuple[int, Finding]] = []
    prompts = seen = 0
    for row in case.labelled[::step]:
        chat = _chat(case, known[row.index], row)
        if chat is None:
            continue
        seen += 1
        told += [(row.index, f) for f in chat.findings if f.code in _OF_THE_TEXT]
        prompts += any(
            token.role == "user" and token.part == "content" and label != IGNORE_INDEX
            for token, label in zip(chat.tokens, row.labels, strict=False)
        )
    yield from gather(told, seen)
    yield from _markers(case)
    yield from stability(case)
    if prompts:
        yield Finding(
            "prompts-trained",
            "info",
            f"{prompts} of {seen} rows also train what the user says: TRL's default for 'messages'",
            "ftkit.stages.sft(…, mask='assistant'), or assistant_only_loss=True with a template "
            "that has markers",
        )


def _chat(case: Case, source: Any, row: Labelled) -> Any:
    """The row's conversation, annotated, where its tokens are the trainer's."""
    messages = conversation(source)
    if messages is None:
        return None
    try:
        chat = annotate(
            case.tokenizer, messages, chat_template=case.chat_template, tools=tools(source)
        )
    except ChatError:
        return None
    return chat if chat.input_ids[: len(row.ids)] == list(row.ids) else None


def _markers(case: Case) -> Iterator[Finding]:
    """Missing markers are no fault of a run whose labels do not come from them."""
    if not Renderer.of(case.tokenizer, case.chat_template).has_generation_markers:
        yield Finding(
            "generation-markers",
            "info",
            "the template has no {% generation %} markers; this run's labels do not come from "
            "them, but assistant_only_loss=True would need them",
        )


def last_trained(case: Case) -> Counter[int]:
    """Which special tokens end the rows, blanks aside, and how often."""
    special = special_ids(case.tokenizer)
    ends: Counter[int] = Counter()
    for row in case.labelled:
        for token, label in zip(reversed(row.ids), reversed(row.labels), strict=True):
            if token in special:
                ends[token] += label != IGNORE_INDEX
            if token in special or (
                label != IGNORE_INDEX and case.tokenizer.decode([token]).strip()
            ):
                break
    return +ends


def examine_counts(case: Case, given: int | None) -> Iterator[Finding]:
    """Rows that went missing between the user's dataset and the trainer's."""
    kept = case.rows.total
    if given is None or case.rows.stream or case.packed or case.method in REINFORCED:
        return
    if kept < given:
        yield Finding(
            "rows-dropped",
            "warning",
            f"{given - kept:,} of {given:,} rows are gone: the trainer drops what max_length="
            f"{case.max_length} leaves without a trained token (or, in pairs, what is longer), and "
            "says so nowhere",
            "raise max_length, or shorten the prompts",
        )
    else:
        yield Finding("rows-kept", "ok", f"all {given:,} rows are in the trainer's dataset")
