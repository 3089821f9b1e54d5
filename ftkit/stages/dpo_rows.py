"""Preference rows as the tokens that DPO compares: one prompt, two answers.

TRL 1.16 would tokenize them itself, with three differences: what a template writes behind the
stop token counts to the answer, an answer beyond `max_length` is cut and compared by its
beginning, and user messages among the answers are trained.
"""

import warnings
from collections.abc import Collection
from os.path import commonprefix
from typing import Any

from datasets import Dataset
from trl import extract_prompt

from ftkit.chat import annotate
from ftkit.chat.annotated import IGNORE_INDEX
from ftkit.chat.prepare import each_row, tools
from ftkit.data.preferences import require_preferences
from ftkit.errors import ChatError, DataError

_SIDES = ("chosen", "rejected")
_NAMED = 5  # rows that a warning lists

TOKENS = ("prompt_ids", "chosen_ids", "rejected_ids")
"""Columns that TRL's collator reads."""


def tokenized(tokenizer: Any, dataset: Dataset, max_length: int | None = None) -> Dataset:
    """Return `dataset` with the columns of `TOKENS`; see `ftkit.stages.dpo_rows`.

    Raises:
        DataError: see there.
    """
    require_preferences(dataset)
    _require_one_answer(dataset)
    if "prompt" not in dataset.column_names and isinstance(dataset[0]["chosen"], str):
        dataset = each_row(dataset, lambda row, _: extract_prompt(row), "prompts")

    def tokenize(row: dict[str, Any], index: int) -> dict[str, list[int]]:
        return _ids(tokenizer, row, index)

    return _usable(each_row(dataset, tokenize, "pairs"), max_length)


def _require_one_answer(dataset: Dataset) -> None:
    for index, row in enumerate(dataset):
        for side in _SIDES:
            if not row[side]:
                raise DataError(f"row {index}: {side} is empty; give an answer or remove the row")


def _ids(tokenizer: Any, row: dict[str, Any], index: int) -> dict[str, list[int]]:
    if isinstance(row["chosen"], str):
        return _text_ids(tokenizer, row)
    (prompt, chosen), (other, rejected) = (
        _conversation_ids(tokenizer, row, side, index) for side in _SIDES
    )
    if prompt != other:
        raise DataError(
            f"row {index}: what stands before the last answer differs between chosen and rejected; "
            "DPO compares two answers to one prompt, so put shared turns into 'prompt' and give "
            "one assistant's message a side"
        )
    return {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}


def _conversation_ids(
    tokenizer: Any, row: dict[str, Any], side: str, index: int
) -> tuple[list[int], list[int]]:
    """Return the tokens of the prompt, and those of the answer up to its stop token."""
    try:
        messages = [*(row.get("prompt") or []), *row[side]]
        chat = annotate(tokenizer, messages, mask="last_assistant", tools=tools(row))
    except ChatError as error:
        raise DataError(f"row {index}, {side}: {error}") from error
    trained = [i for i, label in enumerate(chat.labels) if label != IGNORE_INDEX]
    if not trained:
        raise DataError(f"row {index}, {side}: there is no assistant's answer to compare")
    ids = list(chat.input_ids)
    return ids[: trained[0]], ids[trained[0] : trained[-1] + 1]


def _text_ids(tokenizer: Any, row: dict[str, Any]) -> dict[str, list[int]]:
    """Return the tokens of plain text; the prompt ends where the three texts' tokens part."""
    stop = tokenizer.eos_token
    texts = [row["prompt"], *(row["prompt"] + row[s].removesuffix(stop) + stop for s in _SIDES)]
    prompt, chosen, rejected = (list(tokenizer(text)["input_ids"]) for text in texts)
    shared = min(len(commonprefix([prompt, whole])) for whole in (chosen, rejected))
    return {
        "prompt_ids": prompt[:shared],
        "chosen_ids": chosen[shared:],
        "rejected_ids": rejected[shared:],
    }


def _usable(rows: Dataset, max_length: int | None) -> Dataset:
    """Return `rows` without pairs that teach nothing or do not fit, and say which these are."""
    sizes = [len(row["prompt_ids"]) + max(len(row[f"{s}_ids"]) for s in _SIDES) for row in rows]
    same = {i for i, row in enumerate(rows) if row["chosen_ids"] == row["rejected_ids"]}
    long = {i for i, size in enumerate(sizes) if max_length is not None and size > max_length}
    if len(same) == len(rows):
        raise DataError("chosen and rejected are the same in every pair: there is nothing to learn")
    if len(long) == len(rows):
        raise DataError(
            f"every pair is longer than max_length={max_length} (prompt and longer answer of the "
            f"shortest have {min(sizes)} tokens); raise it"
        )
    if long:
        _warn(
            f"{len(long)} of {len(rows)} pairs are longer than max_length={max_length} tokens "
            f"({_named(long)}; the longest has {max(sizes)}) and are left out: a cut answer would "
            "be compared by its beginning"
        )
    if same:
        _warn(
            f"{len(same)} of {len(rows)} pairs have the same answer twice ({_named(same)}) and are "
            "left out: their margin would stay 0, whatever is learned"
        )
    kept = [i for i in range(len(rows)) if i not in same | long]
    if not kept:
        raise DataError("no pair is left: all are too long, or have the same answer twice")
    return rows if len(kept) == len(rows) else rows.select(kept)


def _named(rows: Collection[int]) -> str:
    first = ", ".join(str(i) for i in sorted(rows)[:_NAMED])
    return f"row{'s' if len(rows) > 1 else ''} {first}{', …' if len(rows) > _NAMED else ''}"


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=5)
