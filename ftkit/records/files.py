"""Text files that are either whole or not there, and JSON that says what it holds."""

import json
import os
from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from ftkit.errors import RecordError

_Record = TypeVar("_Record")


def write(path: Path, text: str) -> Path:
    """Write `text` to `path` as UTF-8 so that no reader ever sees half of it; return the path.

    The folder is made if need be. Half of a file is not even there after a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        return draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def json_text(data: Any) -> str:
    """Return `data` as JSON, with null for NaN and infinite numbers, which JSON does not have."""
    return json.dumps(_nulls(data), allow_nan=False, indent=1)


def read_record(
    path: Path, parse: Callable[[dict[str, Any], Path], _Record], *, what: str, mend: str
) -> _Record:
    """Return what `parse` makes of the JSON in `path`.

    Args:
        path: The file.
        parse: Called with the JSON and `path`.
        what: What the file holds, e.g. ``"run history"``.
        mend: What to do with a damaged one.

    Raises:
        FileNotFoundError: there is no such file.
        RecordError: it is damaged, or `parse` said so.
    """
    if not path.exists():
        raise FileNotFoundError(f"no {what} in {path.parent}: {path.name} is missing")
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")), path)
    except RecordError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{path} is damaged ({error}); {mend}") from error


def check_format(data: Mapping[str, Any], path: Path, known: tuple[str, int], what: str) -> None:
    """Refuse JSON of another kind, or of a newer ftkit.

    Args:
        data: With ``format`` and ``version``.
        path: Where it was read.
        known: Format and newest version that are read here.
        what: The kind in words, e.g. ``"a run history"``.

    Raises:
        RecordError: names the file.
    """
    name, version = known
    if data["format"] != name:
        raise RecordError(f"{path} holds {data['format']!r}, not {what}")
    if data["version"] > version:
        raise RecordError(
            f"{path} has version {data['version']}; ftkit here reads {version}: update it"
        )


def check_same(
    kept: Mapping[str, Any], wanted: Mapping[str, Any], folder: str | os.PathLike[str]
) -> None:
    """Refuse to add to results that were made otherwise.

    Args:
        kept: Settings of the results in `folder`; more than the wanted ones may be there.
        wanted: Settings of what would be added.
        folder: Where the results lie.

    Raises:
        RecordError: names the first setting that differs, and both values.
    """
    for name, now in wanted.items():
        was = kept.get(name)
        if was != now:
            raise RecordError(
                f"{folder} holds results with another {name} ({was}, now {now}), which "
                "must not be mixed with these: choose another folder, or delete that one"
            )


def _nulls(value: Any) -> Any:
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {key: _nulls(inner) for key, inner in value.items()}
    return [_nulls(inner) for inner in value] if isinstance(value, list | tuple) else value
