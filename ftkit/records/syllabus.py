"""The course as a record: its notebooks, where each stands in a model's life, and the glossary.

The texts are in ``course.toml`` and ``glossary.toml`` beside this module. Links are relative, so
they work in the folder of the notebooks. Left out: what a notebook computes.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ftkit.showing import Showable

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Notebook:
    """One notebook of the course.

    Attributes:
        number: Two digits.
        file: Its name, and so its relative link.
        title: In English.
        chinese: The course notes' term.
        step: ``"pre-training"``, ``"SFT"``, ``"alignment"``, ``"every stage"`` or ``"map"``.
        shows: What one sees there, in a few words.
        lane: The way of alignment that it belongs to; empty elsewhere.
    """

    number: str
    file: str
    title: str
    chinese: str
    step: str
    shows: str
    lane: str = ""


@dataclass(frozen=True)
class Course(Showable):
    """The notebooks in order; shows itself as the way from raw text to an aligned model.

    Attributes:
        notebooks: All of them.
    """

    notebooks: tuple[Notebook, ...]

    def __getitem__(self, number: str) -> Notebook:
        """Return the notebook with `number`.

        Raises:
            KeyError: there is none.
        """
        found = next((n for n in self.notebooks if n.number == number), None)
        if found is None:
            raise KeyError(f"the course has no notebook {number!r}")
        return found

    def at(self, step: str) -> list[Notebook]:
        """Return the notebooks of one step, in order."""
        return [notebook for notebook in self.notebooks if notebook.step == step]

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a notebook."""
        import pandas as pd

        rows = [(n.number, n.title, n.chinese, n.step, n.shows, n.file) for n in self.notebooks]
        return pd.DataFrame(rows, columns=["notebook", "title", "中文", "step", "shows", "file"])

    def __str__(self) -> str:
        return "\n".join(f"{n.number} {n.title} ({n.chinese}): {n.shows}" for n in self.notebooks)


@dataclass(frozen=True, slots=True)
class Term:
    """One entry of the glossary.

    Attributes:
        english: The term.
        chinese: As the course notes have it.
        meaning: One plain sentence.
        seen: Notebooks that show it; the first explains it.
    """

    english: str
    chinese: str
    meaning: str
    seen: tuple[Notebook, ...]


@dataclass(frozen=True)
class Glossary(Showable):
    """Terms in the order of the course; shows itself as a table with links.

    Attributes:
        terms: The entries.
        wanted: What was asked for; empty for all.
    """

    terms: Sequence[Term]
    wanted: str = ""

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a term."""
        import pandas as pd

        rows = [
            (t.english, t.chinese, t.meaning, ", ".join(n.number for n in t.seen))
            for t in self.terms
        ]
        return pd.DataFrame(rows, columns=["English", "中文", "in one sentence", "notebooks"])

    def __str__(self) -> str:
        return "\n".join(f"{t.english} ({t.chinese}): {t.meaning}" for t in self.terms)


@cache
def course() -> Course:
    """Return the course."""
    return Course(tuple(Notebook(**entry) for entry in _read("course")["notebook"]))


def glossary(wanted: str = "") -> Glossary:
    """Return the glossary, or the terms that contain `wanted`, e.g. ``"KL"`` or ``"优势"``.

    Raises:
        KeyError: no term, translation or sentence contains it.
    """
    terms = [_term(entry) for entry in _read("glossary")["term"]]
    key = wanted.casefold()
    found = [t for t in terms if key in f"{t.english} {t.chinese} {t.meaning}".casefold()]
    if not found:
        raise KeyError(f"the glossary of {len(terms)} terms has nothing with {wanted!r}")
    return Glossary(found, wanted)


def _term(entry: dict[str, Any]) -> Term:
    seen = tuple(course()[number] for number in entry["seen"])
    return Term(entry["english"], entry["chinese"], entry["meaning"], seen)


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((files("ftkit.records") / f"{name}.toml").read_text(encoding="utf-8"))
