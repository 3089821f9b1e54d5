"""`prepare`: conversations → `input_ids` and `labels` that a TRL trainer takes as they are.

TRL derives labels only from templates that it knows. A dataset that already has `input_ids` and
`labels` passes through its preparation unchanged (but for truncation), so what `annotate` shows
is what the trainer gets.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from datasets import Dataset, Value
from datasets.fingerprint import get_temporary_cache_files_directory

from ftkit.chat.annotate import annotate
from ftkit.chat.annotated import IGNORE_INDEX, MaskName
from ftkit.chat.render import Message
from ftkit.errors import ChatError, DataError
from ftkit.findings import Finding

_SPEAKERS = {"human": "user", "gpt": "assistant"}


def is_conversational(dataset: Dataset) -> bool:
    """Whether the columns of `dataset` hold messages, whatever single rows hold."""
    lists = {name for name, kind in dataset.features.items() if not isinstance(kind, Value)}
    return bool(lists & {"messages", "conversations"}) or {"prompt", "completion"} <= lists


def conversation(row: dict[str, Any]) -> list[Message] | None:
    """Return the messages of a row in one of the conversational formats, else None.

    The formats: ``messages``; ShareGPT's ``conversations``, also with ``from`` and ``value`` for
    ``role`` and ``content``; ``prompt`` and ``completion`` as lists of messages.
    """
    for name in ("messages", "conversations"):
        if isinstance(row.get(name), Sequence) and not isinstance(row[name], str):
            return list(map(_standard, row[name]))
    prompt, completion = row.get("prompt"), row.get("completion")
    if isinstance(prompt, list) and isinstance(completion, list):
        return [*prompt, *completion]
    return None


def _standard(message: Any) -> Any:
    """A ShareGPT message with the standard keys and roles; any other as it is."""
    if not isinstance(message, dict) or not {"from", "value"} <= message.keys():
        return message
    rest = {k: v for k, v in message.items() if k not in ("from", "value")}
    role = _SPEAKERS.get(message["from"], message["from"])
    return {"role": role, "content": message["value"], **rest}


def tools(row: dict[str, Any]) -> list[Any] | None:
    """Return the tool schemas of a row, from a list or its JSON; None when there are none.

    Raises:
        ChatError: the column ``tools`` holds neither a list nor the JSON of one.
    """
    given = row.get("tools")
    if isinstance(given, str):
        try:
            given = json.loads(given) if given.strip() else None
        except json.JSONDecodeError as error:
            raise ChatError(f"column 'tools' is not valid JSON: {error}") from error
    if not isinstance(given, list | None):
        raise ChatError(f"column 'tools' holds a {type(given).__name__}, not a list of schemas")
    # Llama's templates print tool instructions for an empty list.
    return given or None


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
        DataError: a row is not conversational or cannot be rendered; names the row. Or there are
            ``chat_template_kwargs``, which are not supported.
    """
    if "chat_template_kwargs" in dataset.column_names:
        raise DataError(
            "column 'chat_template_kwargs' is not supported: remove it, and write what it sets "
            "into chat_template="
        )

    def tokenize(row: dict[str, Any], index: int) -> dict[str, list[int]]:
        messages = conversation(row)
        if messages is None:
            raise DataError(
                f"row {index} has no conversation in its columns {sorted(row)}: give 'messages', "
                "or 'prompt' and 'completion' as lists of messages"
            )
        try:
            chat = annotate(
                tokenizer,
                messages,
                mask=mask,
                response_template=response_template,
                chat_template=chat_template,
                tools=tools(row),
            )
        except ChatError as error:
            raise DataError(f"row {index}: {error}") from error
        return {"input_ids": chat.input_ids, "labels": chat.labels}

    return each_row(dataset, tokenize, f"mask={mask}")


def each_row(
    dataset: Dataset, function: Callable[[dict[str, Any], int], dict[str, Any]], desc: str
) -> Dataset:
    """Return `dataset` with the columns that `function` makes of a row and its number.

    Never from a cache: datasets cannot hash a tokenizer reliably, and stale tokens would be trained
    on. So the result gets a name of its own: to find one, datasets would pickle all that `function`
    refers to, with a whole model among it. Where `dataset` lies in files, so does the result, but
    in a temporary folder of datasets (below ``TMPDIR``), which goes when Python ends.

    Args:
        dataset: Rows.
        function: ``(row, number) -> columns``.
        desc: What the progress bar says.
    """
    name = uuid4().hex
    folder = get_temporary_cache_files_directory() if dataset.cache_files else None
    return dataset.map(
        function,
        with_indices=True,
        load_from_cache_file=False,
        cache_file_name=folder and str(Path(folder, f"cache-{name}.arrow")),
        new_fingerprint=name,
        desc=desc,
    )


def truncation(dataset: Dataset, max_length: int | None) -> list[Finding]:
    """Say how many rows `max_length` would cut or empty, from prepared `labels`.

    TRL cuts the end, and then drops rows without any trained token. It drops none where
    `max_length` is None or packing is on: there such rows cost time and teach nothing.
    """
    return list(_truncation(dataset["labels"], max_length))


def _truncation(labels: Sequence[Sequence[int]], max_length: int | None) -> Iterator[Finding]:
    trained = [sum(label != IGNORE_INDEX for label in row) for row in labels]
    bare = [i for i, n in enumerate(trained) if n == 0]
    if bare:
        yield Finding(
            "nothing-trained",
            "error",
            f"{len(bare)} of {len(labels)} rows carry no loss at all and teach nothing"
            + ("" if max_length is None else "; unless it packs, the trainer drops them"),
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
            f"{max_length}; unless it packs, the trainer drops them without a word",
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
