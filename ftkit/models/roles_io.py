"""Roles on disk: one folder with `roles.json`, `heads.safetensors` and one PEFT folder a role.

Each role's folder is what PEFT itself reads (`adapter_config.json`, `adapter_model.safetensors`).
A folder appears whole or not at all; nothing in it is pickled.
"""

import copy
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ftkit.errors import RecordError
from ftkit.fetching.cache import sync_one
from ftkit.models.lora import PEFT_PREFIX, LoraAdapter

FORMAT = "ftkit-roles"
VERSION = 1
_INDEX = "roles.json"
_HEADS = "heads.safetensors"
_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class BaseMark:
    """What tells one base from another.

    Attributes:
        name: As it was loaded; empty when unknown.
        sha256: Of its weights; empty when unknown.
        hidden: Width of its hidden states.
        layers: Number of its blocks.
    """

    name: str
    sha256: str
    hidden: int
    layers: int

    def fits(self, other: "BaseMark") -> bool:
        """Whether adapters made on one belong on the other; what is unknown fits anything."""
        same_weights = not (self.sha256 and other.sha256) or self.sha256 == other.sha256
        return same_weights and (self.hidden, self.layers) == (other.hidden, other.layers)


@dataclass(frozen=True, slots=True)
class SavedRoles:
    """The content of a folder.

    Attributes:
        base: What the adapters were made on.
        adapters: By role: ``"policy"``, and ``"reference"`` and ``"reward"`` where they exist.
        heads: ``"value.weight"``, ``"value.bias"``, and ``"score.weight"`` where it exists.
    """

    base: BaseMark
    adapters: dict[str, LoraAdapter]
    heads: dict[str, Tensor]


def write(folder: Path, saved: SavedRoles) -> None:
    """Write `saved` as `folder`, in place of what was there; a reader never sees half of it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _restore(folder)
    partial = folder.with_name(f".partial-{folder.name}-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _fill(partial, saved)
        _sync(partial)
        _swap(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read(folder: Path) -> SavedRoles:
    """Read a folder that `write` wrote.

    Raises:
        RecordError: there is none, it is damaged, or of another format.
    """
    _restore(folder)
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        _require_format(folder, index)
        heads = load_file(folder / _HEADS)
        adapters = {role: _read_adapter(folder / role) for role in index["adapters"]}
        saved = SavedRoles(BaseMark(**index["base"]), adapters, heads)
    except RecordError:
        raise
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise RecordError(
            f"no roles can be read from {folder}: {type(error).__name__}: {error}. Give the folder "
            "that Roles.save wrote; if it is that one it is damaged, so save again"
        ) from error
    return saved


def _require_format(folder: Path, index: Any) -> None:
    found = (index.get("format"), index.get("version")) if isinstance(index, dict) else index
    if found != (FORMAT, VERSION):
        raise RecordError(
            f"{folder / _INDEX} is of format {found}; this ftkit reads {(FORMAT, VERSION)}"
        )


def _read_adapter(folder: Path) -> LoraAdapter:
    if not (folder / _CONFIG).is_file():  # PEFT would go on and look for it on the hub
        raise FileNotFoundError(f"{folder / _CONFIG} is missing")
    config = LoraConfig.from_pretrained(str(folder))
    if not isinstance(config, LoraConfig):
        raise RecordError(f"{folder / _CONFIG} does not describe a LoRA adapter")
    config.inference_mode = False
    tensors = load_file(folder / _WEIGHTS)
    return LoraAdapter(config, {k.removeprefix(PEFT_PREFIX): v for k, v in tensors.items()})


def _fill(folder: Path, saved: SavedRoles) -> None:
    folder.mkdir()
    for role, adapter in saved.adapters.items():
        (folder / role).mkdir()
        config = copy.deepcopy(adapter.config)
        config.base_model_name_or_path = saved.base.name or None
        config.save_pretrained(folder / role)
        tensors = {PEFT_PREFIX + key: tensor for key, tensor in adapter.tensors.items()}
        save_file(_on_cpu(tensors), folder / role / _WEIGHTS, metadata={"format": "pt"})
    save_file(_on_cpu(saved.heads), folder / _HEADS)
    index = {
        "format": FORMAT,
        "version": VERSION,
        "base": asdict(saved.base),
        "adapters": sorted(saved.adapters),
    }
    (folder / _INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}


def _replaced(folder: Path) -> Path:
    return folder.with_name(f".replaced-{folder.name}")


def _restore(folder: Path) -> None:
    """A folder cannot be exchanged in one step; after a kill between the two, step back."""
    if not folder.exists() and _replaced(folder).exists():
        _replaced(folder).rename(folder)


def _swap(partial: Path, folder: Path) -> None:
    old = _replaced(folder)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    sync_one(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        sync_one(path)
