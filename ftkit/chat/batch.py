"""`annotate_batch`: the rows that a TRL trainer really feeds to the model.

Ids, labels and padding are read from the trainer's prepared dataset through its own collator.
Only roles and reasons are added, from the row's messages, and only where their rendering gives
exactly the trainer's ids.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

from datasets import Dataset

from ftkit.chat.annotate import annotate
from ftkit.chat.annotated import IGNORE_INDEX, AnnotatedBatch, AnnotatedTokens, Token
from ftkit.chat.checks import special_tokens, trained_stops
from ftkit.chat.labels import Labelled, label_findings
from ftkit.chat.prepare import conversation, tools
from ftkit.chat.spans import decode
from ftkit.errors import ChatError, DataError
from ftkit.findings import Finding

_LABELLED = ("input_ids", "labels")
_COLLATED = (*_LABELLED, "seq_lengths")


def annotate_batch(trainer: Any, rows: int = 4, *, split: str = "train") -> AnnotatedBatch:
    """Return the first `rows` rows of a trainer's dataset as its collator batches them.

    A packed row comes back as one row for each sequence in it that attends only to itself.

    Args:
        trainer: A built TRL trainer whose prepared dataset has ``input_ids``, e.g. `SFTTrainer`.
        rows: How many rows of the dataset to collate together.
        split: ``"train"`` or ``"eval"``.

    Raises:
        DataError: the trainer has no such dataset, or it is not tokenized.
    """
    dataset = _dataset(trainer, split)
    if rows < 1:
        raise DataError(f"rows={rows}: ask for at least one row")
    examples = [dataset[i] for i in range(min(rows, len(dataset)))]
    batch = trainer.data_collator([{k: e[k] for k in _COLLATED if k in e} for e in examples])
    splits = list(_split(batch, sum(len(e["input_ids"]) for e in examples)))
    packed = _packs(trainer.args, split) or len(splits) != len(examples)
    sources = [{}] * len(splits) if packed else examples
    template = getattr(trainer, "chat_template", None)
    tokenizer = trainer.processing_class
    annotated = tuple(
        _row(tokenizer, template, source, ids, labels, real)
        for source, (ids, labels, real) in zip(sources, splits, strict=True)
    )
    findings = _findings(tokenizer, dataset, trainer, packed)
    return AnnotatedBatch(annotated, tuple(findings))


def _dataset(trainer: Any, split: str) -> Dataset:
    """The tokenized dataset of one split, refused where rows cannot be looked up."""
    if split not in ("train", "eval"):
        raise DataError(f"split={split!r} is unknown; use 'train' or 'eval'")
    dataset = getattr(trainer, f"{split}_dataset", None)
    if dataset is not None and not isinstance(dataset, Dataset):
        raise DataError(
            f"the {split} dataset is a {type(dataset).__name__}: annotate_batch looks rows up by "
            "number, so build the trainer with one datasets.Dataset (of a dict, with one entry)"
        )
    if dataset is None or len(dataset) == 0:
        raise DataError(f"the trainer has no {split} rows (all dropped as fully masked, perhaps)")
    if "input_ids" not in dataset.column_names:
        raise DataError(
            f"the {split} dataset has columns {dataset.column_names}, no input_ids: "
            "annotate_batch reads trainers that tokenize beforehand, such as SFTTrainer"
        )
    return dataset


def _packs(args: Any, split: str) -> bool:
    own = getattr(args, "eval_packing", None) if split == "eval" else None
    return bool(getattr(args, "packing", False) if own is None else own)


def _split(batch: Any, length: int) -> Iterator[tuple[list[int], list[int], list[bool]]]:
    """Ids, labels and non-padding of each row; a padding-free batch is cut at position 0.

    There, what lies behind the `length` tokens of the examples is padding, left out.
    """
    ids, labels = batch["input_ids"].tolist(), batch["labels"].tolist()
    if len(ids) == 1 and "position_ids" in batch:
        positions = batch["position_ids"][0].tolist()[:length]
        starts = [i for i, p in enumerate(positions) if p == 0]
        for a, b in pairwise([*starts, length]):
            yield ids[0][a:b], labels[0][a:b], [True] * (b - a)
        return
    for row, row_labels, attended in zip(
        ids, labels, batch["attention_mask"].tolist(), strict=True
    ):
        yield row, row_labels, [bool(a) for a in attended]


def _row(
    tokenizer: Any,
    template: str | None,
    example: dict[str, Any],
    ids: list[int],
    labels: list[int],
    real: list[bool],
) -> AnnotatedTokens:
    kept = [i for i, r in zip(ids, real, strict=True) if r]
    known = _known(tokenizer, template, example, kept) or _unknown(tokenizer, kept)
    text = known.tokens[len(kept) - 1].span[1] if kept else 0
    source = iter(known.tokens)
    tokens: list[Token] = []
    for index, (token_id, label, is_real) in enumerate(zip(ids, labels, real, strict=True)):
        token = next(source) if is_real else _pad(tokenizer, token_id, text)
        tokens.append(replace(token, index=index, label=label, reason=_reason(token, label)))
    row = AnnotatedTokens(known.text[:text], tuple(tokens), mask="trainer", template=known.template)
    return replace(row, findings=tuple(trained_stops(row, tokenizer)))


def _known(
    tokenizer: Any, template: str | None, example: dict[str, Any], ids: list[int]
) -> AnnotatedTokens | None:
    """The row's own conversation, annotated, if its tokens are the trainer's."""
    messages = conversation(example)
    if messages is None:
        return None
    try:
        chat = annotate(tokenizer, messages, chat_template=template, tools=tools(example))
    except ChatError:
        return None
    return chat if chat.input_ids[: len(ids)] == ids else None


def _unknown(tokenizer: Any, ids: list[int]) -> AnnotatedTokens:
    """Bare tokens, for rows whose conversation is not at hand (text, packed blocks)."""
    special = set(tokenizer.all_special_ids)
    text, encoded = decode(tokenizer, ids)
    tokens = [
        Token(i, t, text[slice(*span)], span, None, None, "content", t in special, -100, "", piece)
        for i, (t, span, piece) in enumerate(
            zip(encoded.ids, encoded.spans, encoded.pieces, strict=True)
        )
    ]
    return AnnotatedTokens(text, tuple(tokens), mask="trainer", template="unknown")


def _pad(tokenizer: Any, token_id: int, end: int) -> Token:
    name = tokenizer.decode([token_id])
    return Token(0, token_id, "", (end, end), None, None, "pad", True, IGNORE_INDEX, name)


def _reason(token: Token, label: int) -> str:
    if token.part == "pad":
        return "padding, so that the rows of a batch have one length"
    if label == IGNORE_INDEX:
        return "the trainer masks it" + (f" ({token.part})" if token.role else "")
    return "the trainer trains it" + (f" ({token.part} of the {token.role})" if token.role else "")


def _findings(tokenizer: Any, dataset: Dataset, trainer: Any, packed: bool) -> Iterator[Finding]:
    """What the whole prepared dataset says, not only the rows that are shown."""
    columns = dataset.select_columns([c for c in _LABELLED if c in dataset.column_names])
    rows = [
        Labelled(i, row["input_ids"], row.get("labels", row["input_ids"]))
        for i, row in enumerate(columns)
    ]
    limit = getattr(trainer.args, "max_length", None)
    yield from label_findings(tokenizer, rows, max_length=limit, whole=not packed)
    yield from special_tokens(tokenizer)
    if packed:
        yield Finding(
            "packed-rows",
            "info",
            "the trainer packs several conversations into one row and keeps none of their "
            "messages, so the tokens are shown without roles",
            "to see roles, look at the same rows with packing=False",
        )
