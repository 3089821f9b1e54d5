"""`prepare`: conversations → `input_ids` and `labels` that a TRL trainer takes as they are.

TRL derives labels only from templates that it knows. A dataset that already has `input_ids` and
`labels` passes through its preparation unchanged (but for truncation), so what `annotate` shows
is what the trainer gets.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from datasets import Dataset

from ftkit.chat.annotate import annotate
from ftkit.chat.annotated import IGNORE_INDEX, MaskName
from ftkit.chat.render import Message
from ftkit.errors import ChatError, DataError
from ftkit.findings import Finding


def conversation(row: dict[str, Any]) -> list[Message] | None:
    """Return the messages of a row in one of the conversational formats, else None."""
    if isinstance(row.get("messages"), Sequence) and not isinstance(row["messages"], str):
        return list(row["messages"])
    prompt, completion = row.get("prompt"), row.get("completion")
    if isinstance(prompt, list) and isinstance(completion, list):
        return [*prompt, *completion]
    return None


def prepare(
    tokenizer: Any,
    dataset: Dataset,
    *,
    mask: MaskName = "assistant",
    response_template: str | None = None,
    chat_template: str | None = None,
) -> Dataset:
    """Add `input_ids` and `labels` to a conversational dataset, by `annotate` on every row.

    Nothing is truncated: the trainer truncates, and `truncation` says what that costs.

    Raises:
        DataError: a row is not conversational or cannot be rendered; names the row.
    """

    def tokenize(row: dict[str, Any], index: int) -> dict[str, list[int]]:
        messages = conversation(row)
        if messages is None:
            raise DataError(
                f"row {index} has columns {sorted(row)}, no conversation: give 'messages', or "
                "'prompt' and 'completion' as lists of messages"
            )
        try:
            chat = annotate(
                tokenizer,
                messages,
                mask=mask,
                response_template=response_template,
                chat_template=chat_template,
            )
        except ChatError as error:
            raise DataError(f"row {index}: {error}") from error
        return {"input_ids": chat.input_ids, "labels": chat.labels}

    # datasets cannot hash a tokenizer reliably, and a stale cache would train on old labels.
    return dataset.map(tokenize, with_indices=True, load_from_cache_file=False, desc=f"mask={mask}")


def truncation(dataset: Dataset, max_length: int | None) -> list[Finding]:
    """Say how many rows `max_length` would cut or empty, from prepared `labels`."""
    return list(_truncation(dataset["labels"], max_length))


def _truncation(labels: Sequence[Sequence[int]], max_length: int | None) -> Iterator[Finding]:
    trained = [sum(label != IGNORE_INDEX for label in row) for row in labels]
    bare = [i for i, n in enumerate(trained) if n == 0]
    if bare:
        yield Finding(
            "nothing-trained",
            "error",
            f"{len(bare)} of {len(labels)} rows carry no loss at all; the trainer drops them",
            "check the mask and that each row has an answer",
            _rows(bare),
        )
    if max_length is None:
        return
    left = [sum(label != IGNORE_INDEX for label in row[:max_length]) for row in labels]
    gone = [i for i, n in enumerate(left) if n == 0 and trained[i]]
    cut = [i for i, n in enumerate(left) if 0 < n < trained[i]]
    longest = max(len(row) for row in labels)
    if gone:
        yield Finding(
            "answer-gone",
            "warning",
            f"{len(gone)} of {len(labels)} rows lose their whole answer to max_length="
            f"{max_length} and are dropped by the trainer without a word",
            f"raise max_length (the longest row has {longest} tokens) or shorten the prompts",
            _rows(gone),
        )
    if cut:
        yield Finding(
            "answer-cut",
            "warning",
            f"{len(cut)} of {len(labels)} rows are cut inside the answer by max_length="
            f"{max_length}: they teach answers that do not end",
            f"raise max_length (the longest row has {longest} tokens) or drop these rows",
            _rows(cut),
        )
    if not gone and not cut:
        yield Finding("answers-whole", "ok", f"no answer is cut by max_length={max_length}")


def _rows(indices: list[int]) -> str:
    shown = ", ".join(map(str, indices[:8]))
    return f"rows {shown}" + (f" and {len(indices) - 8} more" if len(indices) > 8 else "")
