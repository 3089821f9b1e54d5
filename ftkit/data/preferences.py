"""Preference sets: any set of the hub by name, and a split without leaks.

The format is TRL's: ``chosen`` and ``rejected``, with their common beginning in ``prompt`` (or in
both of them), as lists of messages or as text. Left out: rankings of more than two answers.
"""

import json
import random
from collections.abc import Mapping
from typing import Any

from datasets import Dataset, DatasetDict

from ftkit.errors import DataError

_SIDES = ("chosen", "rejected")


def preferences(name: str, *, split: str = "train", config: str | None = None) -> Dataset:
    """Return a preference set of the hub, e.g. ``"trl-lib/ultrafeedback_binarized"``.

    Args:
        name: Hub id, or what else `datasets.load_dataset` takes, such as a local folder.
        split: Which part, also with bounds: ``"train[:1000]"``.
        config: Name of the subset, for sets that have several.

    Raises:
        DataError: it cannot be loaded, or its columns hold no preferences.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        dataset = load_dataset(name, config, split=split)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError(
            f"no preference set {name!r} (split {split!r}) can be loaded: {reason}{_advice(error)}"
        ) from error
    require_preferences(dataset)
    return dataset


def require_preferences(dataset: Any) -> None:
    """Check that `dataset` holds preference pairs in one of TRL's forms.

    Raises:
        DataError: says which column is missing or of the wrong kind, and what to do.
    """
    if not isinstance(dataset, Dataset):
        raise DataError(
            f"preferences come as a datasets.Dataset, not a {type(dataset).__name__}: choose one "
            "entry of a dict, and collect a stream with Dataset.from_list(list(stream.take(1000)))"
        )
    columns = dataset.column_names
    missing = [name for name in _SIDES if name not in columns]
    if missing:
        raise DataError(
            f"columns {columns} have no {missing[0]!r}: preferences need 'chosen' and 'rejected', "
            "and 'prompt' where these do not begin with it; use dataset.rename_column()"
        )
    if len(dataset) == 0:
        raise DataError("the preference set has no rows")
    names = [name for name in ("prompt", *_SIDES) if name in columns]
    kinds = {name: _kind(dataset[0][name]) for name in names}
    if "unknown" in kinds.values() or len(set(kinds.values())) > 1:
        raise DataError(
            f"the columns hold {kinds}: give all of them as text, or all as lists of messages "
            "(dicts with role and content)"
        )


def split_by_prompt(dataset: Dataset, *, held_out: float = 0.2, seed: int = 0) -> DatasetDict:
    """Split so that no prompt stands on both sides, whatever its answers.

    A split by rows would leak: with several pairs a prompt the reward model would be tested on
    answers that it has seen.

    Args:
        dataset: A preference set.
        held_out: Share of the prompts, not of the rows, that goes to ``test``.
        seed: Decides which ones.

    Raises:
        DataError: as `require_preferences`, or one side would be empty.
    """
    require_preferences(dataset)
    keys = [prompt_key(row) for row in dataset]
    prompts = sorted(set(keys))
    count = round(held_out * len(prompts))
    if not 0 < count < len(prompts):
        raise DataError(
            f"held_out={held_out} of {len(prompts)} different prompts leaves one side empty"
        )
    picker = random.Random(seed)  # noqa: S311  # reproducible, not secret
    picked = set(picker.sample(prompts, count))
    return DatasetDict(
        train=dataset.select([i for i, key in enumerate(keys) if key not in picked]),
        test=dataset.select([i for i, key in enumerate(keys) if key in picked]),
    )


def prompt_key(row: Mapping[str, Any]) -> str:
    """Return one string a prompt; without a prompt column, what both answers begin with."""
    if row.get("prompt") is not None:
        return json.dumps(row["prompt"], sort_keys=True)
    chosen, rejected = row["chosen"], row["rejected"]
    same = next(
        (i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b),
        min(len(chosen), len(rejected)),
    )
    return json.dumps(chosen[:same], sort_keys=True)


def _advice(error: Exception) -> str:
    if isinstance(error, ConnectionError):
        return (
            ". Offline, a set that was loaded before comes from the cache, a local folder works as "
            "a name, and ftkit.data.sentiment_pairs() needs no network"
        )
    if isinstance(error, FileNotFoundError):
        return ". Check the spelling; for a private or gated set log in with `hf auth login`"
    return ""


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, list) and value and all(_is_message(message) for message in value):
        return "messages"
    return "unknown"


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and {"role", "content"} <= value.keys()
