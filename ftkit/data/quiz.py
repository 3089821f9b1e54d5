"""Forty easy questions with four options each: does a model still know what it knew?

Written for ftkit (Apache-2.0, like the package). Questions of general knowledge that a model of
135 million weights answers far better than by guessing; none was dropped for its answer to them.
Left out: anything that needs reasoning in several steps, where so small a model only guesses.
"""

import json
from importlib import resources

from datasets import Dataset

from ftkit.errors import DataError

QUIZ_FILE = "quiz.jsonl"


def quiz(rows: int | None = None) -> Dataset:
    """Return the questions.

    Args:
        rows: Only the first so many; None for all 40. The right option stands equally often at
            each of the four places in every four rows.

    Returns:
        Columns ``question``, ``options`` (four texts) and ``answer`` (index of the right one).

    Raises:
        DataError: fewer than one row, or more than there are.
    """
    text = (resources.files("ftkit.data") / QUIZ_FILE).read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    if rows is not None and not 1 <= rows <= len(lines):
        raise DataError(f"rows={rows}: the quiz has {len(lines)} questions; choose 1 to that")
    return Dataset.from_list(lines[:rows])
