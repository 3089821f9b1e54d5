"""Roles on disk: everything comes back, whole or not at all."""

import json
from dataclasses import replace

import pytest
import torch
from peft import PeftModel

from ftkit.errors import RecordError, SettingsError
from ftkit.models import Roles, load, roles_io

IDS = torch.tensor([[30, 31, 32, 33], [40, 41, 42, 43]])
MASK = torch.ones_like(IDS)


def stir(roles) -> None:
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for role in ("policy", "reward"):
            for parameter in roles.trainable(role):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


def numbers(roles) -> list[torch.Tensor]:
    """What every role and head says: policy, values, scores, reference."""
    with torch.no_grad():
        out = roles.logprobs_and_values(IDS, MASK, 2)
        with roles.as_reference():
            reference = roles.logprobs_and_values(IDS, MASK, 2, with_values=False)
        return [out.logprobs, out.values, roles.scores(IDS, MASK), reference.logprobs]


@pytest.fixture
def another(tiny_folder):
    """A second copy of the tiny base, as a new session would load it."""
    return load(str(tiny_folder), quantization=None, device="cpu")


@pytest.fixture
def roles(tiny_base):
    """All roles with trained weights; the reference is a copy of another adapter."""
    first = Roles(tiny_base)
    first.add_reward()
    stir(first)
    from ftkit.models import read_adapter

    roles = Roles(tiny_base, start=read_adapter(first.model, "reward"), lora_r=4)
    roles.add_reward()
    stir(roles)
    return roles


def test_scores_and_logprobs_come_back_in_a_new_session(roles, another, tmp_path) -> None:
    roles.save(tmp_path / "roles")
    loaded = Roles.load(another, tmp_path / "roles")
    before, after = numbers(roles), numbers(loaded)
    for mine, other in zip(before, after, strict=True):
        torch.testing.assert_close(other, mine, rtol=0, atol=1e-6)
    assert not torch.allclose(before[0], before[3], atol=1e-3), "policy and reference are one"
    assert not torch.allclose(before[2], torch.zeros(2), atol=1e-3)


def test_a_reload_on_the_base_that_still_carries_roles_works_as_well(
    roles, tiny_base, tmp_path
) -> None:
    before = numbers(roles)
    roles.save(tmp_path / "roles")
    stir(roles)
    for mine, other in zip(before, numbers(Roles.load(tiny_base, tmp_path / "roles")), strict=True):
        torch.testing.assert_close(other, mine, rtol=0, atol=1e-6)


def test_a_reward_model_alone_can_be_taken_from_a_folder(roles, another, tmp_path) -> None:
    roles.save(tmp_path / "roles")
    new = Roles(another)
    new.load_reward(tmp_path / "roles")
    torch.testing.assert_close(new.scores(IDS, MASK), roles.scores(IDS, MASK), rtol=0, atol=1e-6)
    Roles(another).save(tmp_path / "without")
    with pytest.raises(SettingsError, match="holds no reward model"):
        Roles(another).load_reward(tmp_path / "without")


def test_roles_train_on_after_a_reload(roles, another, tmp_path) -> None:
    roles.save(tmp_path / "roles")
    loaded = Roles.load(another, tmp_path / "roles")
    for role in ("policy", "reward"):
        assert all(p.requires_grad for p in loaded.trainable(role))
    names = [n for n, p in loaded.model.named_parameters() if p.requires_grad]
    assert names
    assert not any(".reference." in n or "lora_" not in n for n in names)


def test_each_adapter_is_a_folder_that_peft_reads(roles, another, tmp_path) -> None:
    roles.save(tmp_path / "roles")
    model = PeftModel.from_pretrained(another.model, str(tmp_path / "roles" / "policy")).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, roles.model(IDS).logits)
    names = {p.suffix for p in (tmp_path / "roles").rglob("*") if p.is_file()}
    assert names == {".json", ".safetensors"}


def test_a_save_that_fails_leaves_the_old_folder_whole(roles, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "roles"
    roles.save(folder)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    stir(roles)
    with monkeypatch.context() as patch:
        patch.setattr(roles_io, "_sync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            roles.save(folder)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["roles"]
    roles.save(folder)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} != before


def test_a_kill_between_the_two_renames_loses_nothing(roles, another, tmp_path, monkeypatch):
    folder = tmp_path / "roles"
    roles.save(folder)
    expected = numbers(roles)
    folder.rename(tmp_path / ".replaced-roles")  # what a kill there leaves behind
    for mine, other in zip(expected, numbers(Roles.load(another, folder)), strict=True):
        torch.testing.assert_close(other, mine, rtol=0, atol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["roles"]


def test_a_folder_that_is_missing_damaged_or_foreign_is_named(roles, another, tmp_path) -> None:
    with pytest.raises(RecordError, match=r"no roles can be read from .*nowhere"):
        Roles.load(another, tmp_path / "nowhere")
    folder = tmp_path / "roles"
    for damage in ("heads.safetensors", "policy/adapter_model.safetensors"):
        roles.save(folder)
        (folder / damage).write_bytes(b"\x00" * 40)
        with pytest.raises(RecordError, match="damaged"):
            Roles.load(another, folder)
    roles.save(folder)
    (folder / "policy" / "adapter_config.json").unlink()
    with pytest.raises(RecordError, match=r"adapter_config\.json is missing"):
        Roles.load(another, folder)
    roles.save(folder)
    index = json.loads((folder / "roles.json").read_text())
    (folder / "roles.json").write_text(json.dumps({**index, "version": 99}))
    with pytest.raises(RecordError, match="99"):
        Roles.load(another, folder)


def test_roles_of_another_base_are_refused(roles, another, tmp_path) -> None:
    roles.save(tmp_path / "roles")
    other = replace(another, card=replace(another.card, sha256="0" * 64))
    with pytest.raises(SettingsError, match="made on another base"):
        Roles.load(other, tmp_path / "roles")
