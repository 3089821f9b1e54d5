"""The rows that are read: all of them, or an even sample; of a stream, one of its beginning."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from datasets import Dataset, IterableDataset
from tqdm import tqdm

from ftkit.errors import DataError

Row = dict[str, Any]
T = TypeVar("T")
_REACH = 4  # a stream's end is unknown: so many times the rows asked for are drawn, and sampled


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows with their numbers in the dataset.

    Attributes:
        items: ``(index, row)``, ascending.
        total: Rows of the whole dataset; of a stream, those that were drawn.
        stream: Whether there may be more.
    """

    items: list[tuple[int, Row]]
    total: int
    stream: bool = False

    @property
    def first(self) -> Row:
        """The first row; an empty one where there is none."""
        return self.items[0][1] if self.items else {}

    @property
    def note(self) -> str:
        """How many were read, in words."""
        n = len(self.items)
        first, end = ("the first ", " of a stream") if self.stream else ("", "")
        if n < self.total:
            return f"{n:,} of {first}{self.total:,} rows{end}, evenly spread"
        return f"{first}{n:,} row{'' if n == 1 else 's'}{end}"


def take(dataset: Any, limit: int) -> Rows:
    """Read at most `limit` rows.

    Args:
        dataset: A `datasets.Dataset`, a stream (`IterableDataset`), or a list of dicts.
        limit: Of a larger dataset, rows at even distances are read; of a stream, such rows of its
            first 4 times `limit`.

    Raises:
        DataError: a dict of splits, no rows, or what is no dataset; says what to give instead.
    """
    if limit < 1:
        raise DataError(f"rows={limit}: read at least one row")
    if isinstance(dataset, Mapping):
        raise DataError(f"choose one split of the dataset: {', '.join(map(str, dataset))}")
    if isinstance(dataset, IterableDataset):
        drawn = list(islice(dataset, _REACH * limit))
        chosen = _spread(len(drawn), limit)
        rows = Rows([(i, drawn[i]) for i in chosen], len(drawn), stream=True)
    elif isinstance(dataset, Dataset):
        chosen = _spread(len(dataset), limit)
        rows = Rows(list(zip(chosen, dataset.select(chosen), strict=True)), len(dataset))
    elif isinstance(dataset, Sequence) and not isinstance(dataset, str | bytes):
        rows = Rows([(i, dataset[i]) for i in _spread(len(dataset), limit)], len(dataset))
    else:
        raise DataError(
            f"a {type(dataset).__name__} is no dataset: give a datasets.Dataset, a stream of one, "
            "or a list of dicts"
        )
    if not rows.items:
        raise DataError("the dataset has no rows")
    odd = next((i for i, row in rows.items if not isinstance(row, Mapping)), None)
    if odd is not None:
        raise DataError(f"row {odd} is no dict of columns: {dataset[odd]!r:.80}")
    return rows


def shown(items: Iterable[T], what: str, *, progress: bool) -> Iterator[T]:
    """Pass `items` on, with a progress bar on stderr where it takes longer than a second."""
    return iter(tqdm(items, desc=what, delay=1.0, leave=False, disable=not progress))


def _spread(total: int, limit: int) -> list[int]:
    count = min(total, limit)
    return [i * total // count for i in range(count)]
