"""Which rows a run sees: tokenized once, drawn by the seed alone, the same for every strategy."""

import hashlib
import json
import random
from collections.abc import Sequence

from datasets import Dataset

from ftkit.chat.prepare import is_conversational
from ftkit.errors import DataError
from ftkit.models import Loaded
from ftkit.stages.forgetting.measure import Row
from ftkit.stages.sft import sft_rows


def tokenized(base: Loaded, dataset: Dataset, name: str, max_length: int) -> list[Row]:
    """Return the rows with labels; those without a trained token within `max_length` are left out.

    Conversations are labelled as `ftkit.stages.sft` labels them: the assistant's tokens. Plain
    ``text`` is counted whole.

    Args:
        base: Its tokenizer is used.
        dataset: Conversations, or a column ``text``.
        name: Of the data, for messages: ``"domain"``, ``"general"``, ``"replay"``.
        max_length: Tokens kept of each row.

    Raises:
        DataError: nothing to train on or to score, or columns that are neither.
    """
    if not isinstance(dataset, Dataset) or not len(dataset):
        kind = "empty" if isinstance(dataset, Dataset) else f"a {type(dataset).__name__}"
        raise DataError(f"the {name} data is {kind}; give a datasets.Dataset with rows")
    if is_conversational(dataset):
        prepared = sft_rows(base, dataset, max_length=max_length)
        pairs = list(zip(prepared["input_ids"], prepared["labels"], strict=True))
    elif "text" in dataset.column_names:
        ids = base.tokenizer(list(dataset["text"]), add_special_tokens=False).input_ids
        pairs = [(row, row) for row in ids]
    else:
        raise DataError(
            f"the {name} data has columns {dataset.column_names}; it needs conversations "
            "('messages') or 'text'"
        )
    rows = [Row(list(a[:max_length]), list(b[:max_length])) for a, b in pairs]
    kept = [row for row in rows if any(label != -100 for label in row.labels[1:])]
    if not kept:
        raise DataError(f"no row of the {name} data has a token to score within {max_length}")
    return kept


def schedule(
    domain: Sequence[Row],
    replayed: Sequence[Row],
    *,
    steps: int,
    batch: int,
    replay: int,
    seed: int,
) -> Dataset:
    """Return the rows of a run in the order in which they are trained.

    Each batch is `batch` rows of the domain and `replay` of the general data behind them. The
    domain's rows depend on the seed alone, so strategies with one seed differ in nothing else.

    Args:
        domain: To draw from: every row once before any comes again.
        replayed: To draw from in the same way; may be empty when `replay` is 0.
        steps: Batches.
        batch: Domain rows a batch.
        replay: General rows a batch.
        seed: Decides the order.
    """
    news = _drawn(domain, steps * batch, f"domain {seed}")
    olds = _drawn(replayed, steps * replay, f"replay {seed}")
    rows = [
        row
        for step in range(steps)
        for row in (
            *news[step * batch : (step + 1) * batch],
            *olds[step * replay : (step + 1) * replay],
        )
    ]
    return Dataset.from_list([row._asdict() for row in rows])


def fingerprint(*parts: Sequence[object]) -> str:
    """Return 16 hex digits that change when any of the rows does."""
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _drawn(rows: Sequence[Row], count: int, seed: str) -> list[Row]:
    picker = random.Random(seed)  # noqa: S311  # reproducible, not secret
    drawn: list[Row] = []
    while len(drawn) < count:
        drawn += picker.sample(rows, len(rows))
    return drawn[:count]
