"""A line of ftkit's own code, with the lines around it: the place where a detail acts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class SourceLine:
    """One line of a file of the package.

    Attributes:
        file: Below the package ``ftkit``, e.g. ``"algos/gae.py"``.
        number: Of the line, from 1.
        first: Number of the first of `lines`.
        lines: The line with its neighbours, without line breaks.
    """

    file: str
    number: int
    first: int
    lines: tuple[str, ...]

    @classmethod
    def find(cls, file: str, code: str, around: int = 6) -> Self:
        """Return the line of `file` that is `code`, leading and trailing blanks apart.

        Args:
            file: Below the package.
            code: The line as it stands there.
            around: Lines to show before and behind.

        Raises:
            LookupError: the file does not hold `code` exactly once.
        """
        lines = (PACKAGE / file).read_text("utf-8").splitlines()
        found = [index for index, text in enumerate(lines) if text.strip() == code]
        if len(found) != 1:
            raise LookupError(f"{code!r} is {len(found)} times in {file}")
        start = max(found[0] - around, 0)
        shown = tuple(lines[start : found[0] + around + 1])
        return cls(file, found[0] + 1, start + 1, shown)

    def __str__(self) -> str:
        return f"{self.file}:{self.number}"
