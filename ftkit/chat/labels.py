"""What the final labels of many rows say: nothing here knows how they were made.

A mask that fails quietly (a type slip, a wrong marker, labels shifted twice) looks right to the
code that made it. So these checks read only ids and labels, as a trainer's dataset or collator
gives them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ftkit.chat.annotated import IGNORE_INDEX
from ftkit.chat.checks import named
from ftkit.findings import Finding

Test = Callable[["Labelled"], bool]


@dataclass(frozen=True, slots=True)
class Labelled:
    """One row as the model gets it, without padding.

    Attributes:
        index: Number of the row in its dataset or batch.
        ids: Token ids.
        labels: One a token, not shifted; -100 carries no loss.
    """

    index: int
    ids: Sequence[int]
    labels: Sequence[int]

    @property
    def trained(self) -> int:
        """How many tokens carry loss."""
        return len(self.labels) - list(self.labels).count(IGNORE_INDEX)


def label_findings(
    tokenizer: Any,
    rows: Sequence[Labelled],
    *,
    max_length: int | None = None,
    whole: bool = True,
) -> list[Finding]:
    """Check final ids and labels.

    Args:
        tokenizer: Names ids, and says which are special.
        rows: At least one.
        max_length: Where the trainer has cut rows, in tokens.
        whole: Whether a row is one text from its beginning to its end; packed rows are not.
    """
    checks = [_share(rows), _nothing(rows), _other_ids(tokenizer, rows)]
    checks += [_stops(tokenizer, rows), _double_bos(tokenizer, rows)]
    if whole:
        checks += list(_endings(tokenizer, rows, max_length))
    return [finding for finding in checks if finding]


def special_ids(tokenizer: Any) -> set[int]:
    """Ids that are no ordinary text: special and added tokens."""
    return set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())


def rows_where(rows: Sequence[Labelled], test: Test) -> tuple[int, ...]:
    """Indices of the rows that `test` holds for."""
    return tuple(row.index for row in rows if test(row))


def _share(rows: Sequence[Labelled]) -> Finding:
    trained, total = sum(r.trained for r in rows), sum(len(r.ids) for r in rows)
    return Finding(
        "share-trained",
        "ok" if trained else "error",
        f"{trained} of {total} tokens of the prepared dataset carry loss "
        f"({trained / max(total, 1):.0%}), in {len(rows)} rows",
    )


def _nothing(rows: Sequence[Labelled]) -> Finding | None:
    bare = rows_where(rows, lambda row: not row.trained)
    if not bare:
        return None
    return Finding(
        "nothing-trained",
        "error" if len(bare) == len(rows) else "warning",
        f"{len(bare)} of {len(rows)} rows carry no loss at all: every label is −100",
        "check the mask (instruction and response strings must occur in the rendered text, "
        "{% generation %} markers in the template) and that each row has an answer",
        rows=bare,
    )


def _other_ids(tokenizer: Any, rows: Sequence[Labelled]) -> Finding | None:
    """Labels that are not the row's own ids: shifted already, or made of something else."""
    odd = [row for row in rows if any(b not in (IGNORE_INDEX, a) for a, b in _pairs(row))]
    if not odd:
        return None
    shifted = all(_fits_shifted(row) for row in odd)
    return Finding(
        "labels-not-ids",
        "error",
        f"{len(odd)} of {len(rows)} rows have labels that differ from their token ids"
        + (": they are the next token's ids, and the model shifts once more" if shifted else ""),
        "give labels of the same positions as the ids, −100 where masked; the model shifts them",
        rows=tuple(row.index for row in odd),
        evidence=_aligned(tokenizer, odd[0]),
    )


def _pairs(row: Labelled) -> Iterator[tuple[int, int]]:
    return zip(row.ids, row.labels, strict=True)


def _fits_shifted(row: Labelled) -> bool:
    following = zip(row.ids[1:], row.labels[:-1], strict=True)
    return all(label in (IGNORE_INDEX, token) for token, label in following)


def _aligned(tokenizer: Any, row: Labelled) -> str:
    at = next(i for i, (a, b) in enumerate(_pairs(row)) if b not in (IGNORE_INDEX, a))
    part = slice(max(0, at - 1), at + 4)
    ids, labels = (named(tokenizer, values[part]) for values in (row.ids, row.labels))
    return f"row {row.index}, from token {part.start}\nids     {ids}\nlabels  {labels}"


def _stops(tokenizer: Any, rows: Sequence[Labelled]) -> Finding | None:
    """Special tokens right behind trained text that themselves carry no loss."""
    special = special_ids(tokenizer)
    hits: dict[int, dict[int, tuple[Labelled, int]]] = {}
    for row in rows:
        for at in _untrained_stops(tokenizer, special, row):
            hits.setdefault(row.ids[at], {}).setdefault(row.index, (row, at))
    if not hits:
        return None
    token, places = max(hits.items(), key=lambda item: len(item[1]))
    return Finding(
        "stop-token-untrained",
        "error",
        f"in {len(places)} of {len(rows)} rows {tokenizer.decode([token])!r} follows trained text "
        "and carries no loss itself: the model may never learn to stop, while the loss curve "
        "looks healthy",
        "let the mask (or the template's {% generation %}) include the end-of-turn token; with "
        "pad = eos, use a collator that masks by position and not by token id",
        rows=tuple(places),
        evidence=_around(tokenizer, *next(iter(places.values()))),
    )


def _untrained_stops(tokenizer: Any, special: set[int], row: Labelled) -> Iterator[int]:
    ids, labels = row.ids, row.labels
    for at in range(1, len(ids)):
        if labels[at] == IGNORE_INDEX != labels[at - 1] and ids[at] in special:
            last = _last_text(tokenizer, ids, labels, at - 1)
            if last is not None and last not in special:
                yield at


def _last_text(tokenizer: Any, ids: Sequence[int], labels: Sequence[int], at: int) -> int | None:
    """The last token that is no blank of the trained stretch that ends at `at`."""
    while at >= 0 and labels[at] != IGNORE_INDEX:
        if tokenizer.decode([ids[at]]).strip():
            return ids[at]
        at -= 1
    return None


def _around(tokenizer: Any, row: Labelled, at: int) -> str:
    lines = [
        f"  {tokenizer.decode([row.ids[i]])!r:<16} label {row.labels[i]}".replace("-100", "−100")
        for i in range(max(0, at - 2), at + 1)
    ]
    return "\n".join([f"row {row.index}", *lines])


def _double_bos(tokenizer: Any, rows: Sequence[Labelled]) -> Finding | None:
    bos = tokenizer.bos_token_id
    if bos is None or bos == tokenizer.eos_token_id:
        return None
    found = rows_where(rows, lambda row: list(row.ids[:2]) == [bos, bos])
    if not found:
        return None
    return Finding(
        "double-bos",
        "warning",
        f"two BOS tokens ({tokenizer.bos_token!r}) at positions 0 and 1 of {len(found)} of "
        f"{len(rows)} rows: the template writes one and the tokenizer adds another",
        "tokenize rendered text with add_special_tokens=False, or give 'messages' in place of text",
        rows=found,
        evidence=f"row {found[0]} begins "
        + named(tokenizer, next(r for r in rows if r.index == found[0]).ids[:6]),
    )


def _endings(tokenizer: Any, rows: Sequence[Labelled], max_length: int | None) -> Iterator[Finding]:
    special = special_ids(tokenizer)
    open_ended = [row for row in rows if not _ends(tokenizer, special, row)]
    full = [r for r in open_ended if max_length is not None and len(r.ids) >= max_length]
    short = [r for r in open_ended if max_length is None or len(r.ids) < max_length]
    if full:
        yield Finding(
            "answer-cut",
            "warning",
            f"{len(full)} of {len(rows)} rows fill max_length={max_length} and end inside the "
            "answer: they teach answers that do not end",
            "raise max_length, or drop these rows",
            rows=tuple(row.index for row in full),
        )
    if short:
        yield Finding(
            "ends-without-stop",
            "warning",
            f"{len(short)} of {len(rows)} rows end in plain text that is trained, without a stop "
            "token: they teach answers that do not end",
            "end each row with the tokenizer's eos (or the template's end-of-turn) token",
            rows=tuple(row.index for row in short),
            evidence=f"row {short[0].index} ends " + named(tokenizer, short[0].ids[-4:]),
        )


def _ends(tokenizer: Any, special: set[int], row: Labelled) -> bool:
    """Whether the row's end is no trained text: blanks aside, a special or a masked token."""
    for token, label in zip(reversed(row.ids), reversed(row.labels), strict=True):
        if label == IGNORE_INDEX or token in special:
            return True
        if tokenizer.decode([token]).strip():
            return False
    return True
