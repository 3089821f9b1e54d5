"""Sixteen short paragraphs of plain English prose, to see whether a model still reads it well.

Written for ftkit (Apache-2.0, like the package), so no model has them in its training text. Left
out: anything difficult; a small model should have something to lose here.
"""

from importlib import resources

from datasets import Dataset

PROSE_FILE = "prose.txt"


def prose() -> Dataset:
    """Return the paragraphs as a column ``text``, two or three sentences each."""
    text = (resources.files("ftkit.data") / PROSE_FILE).read_text(encoding="utf-8")
    return Dataset.from_dict({"text": text.splitlines()})
