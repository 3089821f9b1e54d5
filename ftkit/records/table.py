"""A small table that a run leaves behind: answers before and after, losses by template, …"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftkit.records.source import SourceLine
from ftkit.showing import Showable

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Table(Showable):
    """Named columns and rows, with one sentence of meaning.

    Attributes:
        title: What the table shows.
        columns: Names of the columns, with units where they have one.
        rows: One sequence a row; text is shown as it is (and escaped); numbers, NumPy's too,
            with 3 digits behind the point unless they are whole. A `SourceLine` opens to its code.
        say: One sentence on what to see in it.

    Raises:
        ValueError: a row has more or fewer cells than there are columns; names the row.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    say: str = ""

    def __post_init__(self) -> None:
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table {self.title!r}: row {index} has {len(row)} cells for "
                    f"{len(self.columns)} columns"
                )

    def to_pandas(self) -> "pd.DataFrame":
        """Return the table as a data frame."""
        import pandas as pd

        rows = [[str(c) if isinstance(c, SourceLine) else c for c in row] for row in self.rows]
        return pd.DataFrame(rows, columns=list(self.columns))

    def to_markdown(self) -> str:
        """Return the table in Markdown, with its sentence below."""
        return f"{markdown(self.columns, self.rows)}\n\n{self.say}"

    def __str__(self) -> str:
        return f"{self.title}\n{self.to_pandas().to_string(index=False)}\n{self.say}".rstrip()


def markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table in Markdown; a bar or a line break in a cell does not break it."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
