"""Checkpoints that a kill at any moment cannot spoil.

Each is a folder ``round-000012`` that appears whole, by a rename; the one before it is removed
only then. Everything is safetensors and JSON.
"""

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ftkit.errors import RecordError
from ftkit.models.lora import read_adapter
from ftkit.models.roles import Roles
from ftkit.records.ppo_trace import PPOTrace
from ftkit.stages.ppo.config import PPOConfig

_VERSION = 2


@dataclass(slots=True)
class Progress:
    """Where a run stands between two rounds.

    Attributes:
        round: Rounds done.
        kl_coef: β of the next round.
        order: Prompt indices not yet used in this pass over the prompts.
        history: What was logged, one dict a round.
    """

    round: int
    kl_coef: float
    order: list[int]
    history: list[dict[str, float]]


def save(
    folder: Path,
    progress: Progress,
    roles: Roles,
    optimizer: torch.optim.Optimizer,
    generators: Mapping[str, torch.Generator],
    trace: PPOTrace,
    config: PPOConfig,
) -> Path:
    """Write a checkpoint of `progress` into `folder`, whole or not at all, and drop older ones."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"round-{progress.round:06d}"
    if final.exists():  # it stays until the new one is whole
        final = final.with_name(f"{final.name}.again")
    draft = folder / f".draft-{progress.round:06d}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    roles.save(draft / "roles")
    trace.save(draft / "trace")
    tensors = {f"rng.{name}": g.get_state() for name, g in generators.items()}
    save_file({**tensors, **_flat(optimizer)}, draft / "state.safetensors")
    state = {"version": _VERSION, "config": asdict(config), "start": _start(roles)}
    state |= asdict(progress)
    (draft / "state.json").write_text(json.dumps(state), encoding="utf-8")
    if final.exists():
        _set_aside(final)
    draft.rename(final)
    for old in _all(folder):
        if old != final:
            with suppress(OSError):  # open elsewhere: it may stay, `latest` takes the newer one
                _set_aside(old)
    for gone in folder.glob(".gone-*"):
        shutil.rmtree(gone, ignore_errors=True)
    return final


def _set_aside(old: Path) -> None:
    """Take a checkpoint's name away first: a kill while it is removed leaves half of it."""
    gone = old.with_name(f".gone-{old.name}")
    shutil.rmtree(gone, ignore_errors=True)
    old.rename(gone)


def latest(folder: Path) -> Path | None:
    """Return the newest whole checkpoint in `folder`, None when there is none."""
    return max(_all(folder), default=None)


def _all(folder: Path) -> list[Path]:
    return [path for path in folder.glob("round-*") if path.is_dir()]


def read_progress(checkpoint: Path, config: PPOConfig, roles: Roles) -> Progress:
    """Return where the run of `checkpoint` stood.

    Raises:
        RecordError: damaged, of another version, or of a run with another config (named) or
            another start than `roles` have.
    """
    try:
        state: dict[str, Any] = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
        version, start = state.pop("version"), state.pop("start")
        saved = asdict(PPOConfig()) | state.pop("config")  # a switch that is younger: its default
        progress = Progress(**state)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{checkpoint} is damaged ({error}); delete it to start anew") from error
    if version != _VERSION:
        raise RecordError(f"{checkpoint} is of version {version}; this ftkit reads {_VERSION}")
    wanted = json.loads(json.dumps(asdict(config)))  # tuples are lists there
    changed = [
        name
        for name, value in wanted.items()
        if saved.get(name) != value and name != "keep_unpacked"  # which changes no number
    ]
    if changed:
        raise RecordError(
            f"{checkpoint} is of a run with other {', '.join(changed)}: use its config to resume, "
            "or another output_dir to start anew"
        )
    if start != _start(roles):
        raise RecordError(
            f"{checkpoint} is of a run that started from another adapter: give that one to go on, "
            "or another output_dir to start anew"
        )
    return progress


def _start(roles: Roles) -> str:
    """What tells the start of a run from others: the frozen copy that is its reference."""
    if "reference" not in roles.model.peft_config:
        return "bare base"
    return read_adapter(roles.model, "reference").digest


def restore(
    checkpoint: Path, optimizer: torch.optim.Optimizer, generators: Mapping[str, torch.Generator]
) -> None:
    """Put the optimizer and the generators back as they were.

    Raises:
        RecordError: the tensors are damaged or belong to another optimizer.
    """
    try:
        tensors = load_file(checkpoint / "state.safetensors")
        for name, generator in generators.items():
            generator.set_state(tensors[f"rng.{name}"])
        _unflatten(optimizer, tensors)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise RecordError(f"{checkpoint} is damaged ({error}); delete it to start anew") from error


def _flat(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"optimizer.{index}.{name}": torch.as_tensor(value).cpu().contiguous()
        for index, entries in optimizer.state_dict()["state"].items()
        for name, value in entries.items()
    }


def _unflatten(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        kind, _, rest = key.partition(".")
        if kind == "optimizer":
            index, _, name = rest.partition(".")
            state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
