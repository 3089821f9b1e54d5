"""A PPO trace as two files: arrays in ``trace.safetensors``, texts and numbers in ``trace.json``.

The JSON names the SHA-256 of the arrays that it belongs to. Saving writes drafts of both, then
moves the arrays and last the JSON into place; when a process dies between the two moves, the draft
of the JSON still names the arrays, and `load` takes it.
"""

import hashlib
import json
import os
from dataclasses import asdict, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from ftkit.errors import RecordError
from ftkit.records.ppo_trace import (
    OPTIONAL_FLOATS,
    PHASES,
    TOKEN_FLOATS,
    PPOIteration,
    PPOTrace,
    PPOTraceConfig,
    PPOUpdate,
    Start,
)

ARRAYS, TEXTS = "trace.safetensors", "trace.json"
_FORMAT, _VERSION = "ftkit.ppo-trace", 1
_ALL_ARRAYS = (*TOKEN_FLOATS, *OPTIONAL_FLOATS, "token_ids", "scores", "paid_scores")
_NUMBERS = ("kl_coef", "advantage_mean", "advantage_std")
_LOSSES = ("policy_loss", "value_loss", "entropy", "clip_fraction", "approx_kl")
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)


def save(trace: PPOTrace, folder: Path) -> Path:
    """Write `trace` into `folder`; see `PPOTrace.save`."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = save_arrays(_arrays(trace))
    data = {
        "format": _FORMAT,
        "version": _VERSION,
        "sha256": hashlib.sha256(arrays).hexdigest(),
        "title": trace.title,
        "say": trace.say,
        "look": trace.look,
        "cure": trace.cure,
        "watch": trace.watch,
        "start": None if trace.start is None else asdict(trace.start),
        "stride": trace.stride,
        "config": asdict(trace.config),
        "iterations": [_texts(iteration) for iteration in trace.iterations],
    }
    _write(_draft(folder / ARRAYS), arrays)
    _write(_draft(folder / TEXTS), json.dumps(data, allow_nan=False).encode())
    for name in (ARRAYS, TEXTS):
        _draft(folder / name).replace(folder / name)
    return folder / TEXTS


def load(folder: Path) -> PPOTrace:
    """Read a trace from `folder`; see `PPOTrace.load`."""
    arrays, texts = folder / ARRAYS, folder / TEXTS
    if not arrays.exists() or not (texts.exists() or _draft(texts).exists()):
        raise FileNotFoundError(f"no PPO trace in {folder}: it needs {ARRAYS} and {TEXTS}")
    try:
        blob = arrays.read_bytes()
        return _trace(_belonging(texts, blob), load_arrays(blob), texts)
    except RecordError:
        raise
    except (*_DAMAGE, SafetensorError) as error:
        raise RecordError(
            f"{texts} or {ARRAYS} is damaged ({error}); record the run again or delete both"
        ) from error


def preset_names() -> tuple[str, ...]:
    """Return the names of the recorded traces that ftkit ships."""
    folder = presets_folder()
    if not folder.is_dir():
        return ()
    return tuple(sorted(path.parent.name for path in folder.glob(f"*/{TEXTS}")))


def load_preset(name: str) -> PPOTrace:
    """Read a trace that ftkit ships.

    Raises:
        ValueError: `name` is none of `preset_names`.
    """
    if name not in preset_names():
        known = ", ".join(preset_names()) or "none"
        raise ValueError(f"there is no recorded trace {name!r}; shipped with ftkit: {known}")
    return load(presets_folder() / name)


def presets_folder() -> Path:
    """Return where the recorded traces of ftkit lie, whether it exists or not."""
    return Path(str(files("ftkit.records"))) / "presets"


def _arrays(trace: PPOTrace) -> dict[str, np.ndarray]:
    found = {}
    for i, iteration in enumerate(trace.iterations):
        for name in _ALL_ARRAYS:
            if (array := getattr(iteration, name)) is not None:
                found[f"{i}/{name}"] = array
        for j, update in enumerate(iteration.updates):
            found[f"{i}/updates/{j}/ratio"] = update.ratio
            found[f"{i}/updates/{j}/clipped"] = update.clipped
    return {name: np.ascontiguousarray(array) for name, array in found.items()}


def _texts(iteration: PPOIteration) -> dict[str, Any]:
    return {
        "number": iteration.number,
        "prompts": iteration.prompts,
        "prompt_ids": [[int(i) for i in row] for row in iteration.prompt_ids],
        "tokens": iteration.tokens,
        "metrics": {name: _pack(value) for name, value in iteration.metrics.items()},
        **{name: _pack(getattr(iteration, name)) for name in _NUMBERS},
        "updates": [
            {
                "epoch": update.epoch,
                "minibatch": update.minibatch,
                "rows": list(update.rows),
                **{name: _pack(getattr(update, name)) for name in _LOSSES},
            }
            for update in iteration.updates
        ],
    }


def _trace(data: dict[str, Any], arrays: dict[str, np.ndarray], path: Path) -> PPOTrace:
    config = PPOTraceConfig(**_only_known(PPOTraceConfig, data["config"]))
    start = None if data["start"] is None else Start(**data["start"])
    if start and start.phase not in PHASES:
        raise RecordError(f"{path} starts at the unknown phase {start.phase!r}")
    kept = [_iteration(entry, i, arrays) for i, entry in enumerate(data["iterations"])]
    return PPOTrace(
        config=config,
        **{name: str(data[name]) for name in ("title", "say", "look", "cure")},
        watch=tuple(map(str, data["watch"])),
        start=start,
        iterations=kept,
        stride=int(data["stride"]),
    )


def _only_known(kind: type, data: dict[str, Any]) -> dict[str, Any]:
    return {f.name: data[f.name] for f in fields(kind)}


def _iteration(entry: dict[str, Any], i: int, arrays: dict[str, np.ndarray]) -> PPOIteration:
    texts = ("number", "prompts", "prompt_ids", "tokens")
    given: dict[str, Any] = {name: entry[name] for name in texts}
    given |= {name: arrays.get(f"{i}/{name}") for name in _ALL_ARRAYS}
    given |= {name: _unpack(entry[name]) for name in _NUMBERS}
    given["metrics"] = {name: float(value) for name, value in entry["metrics"].items()}
    given["updates"] = [
        _update(u, arrays, f"{i}/updates/{j}") for j, u in enumerate(entry["updates"])
    ]
    return PPOIteration(**given)


def _update(entry: dict[str, Any], arrays: dict[str, np.ndarray], key: str) -> PPOUpdate:
    return PPOUpdate(
        epoch=int(entry["epoch"]),
        minibatch=int(entry["minibatch"]),
        rows=entry["rows"],
        ratio=arrays[f"{key}/ratio"],
        clipped=arrays[f"{key}/clipped"],
        **{name: float(entry[name]) for name in _LOSSES},
    )


def _belonging(texts: Path, blob: bytes) -> dict[str, Any]:
    """Return the JSON that names these arrays: the saved one, or the draft of a save cut short."""
    digest = hashlib.sha256(blob).hexdigest()
    for path in (texts, _draft(texts)):
        if not path.exists():
            continue
        data = json.loads(path.read_text(encoding="utf-8"))
        _check_version(data, path)
        if data["sha256"] == digest:
            return dict(data)
    raise RecordError(
        f"{texts} and {ARRAYS} do not belong together (another SHA-256); "
        "copy both files of one trace, or record the run again"
    )


def _check_version(data: dict[str, Any], path: Path) -> None:
    if data["format"] != _FORMAT:
        raise RecordError(f"{path} holds {data['format']!r}, not a PPO trace")
    if data["version"] != _VERSION:
        raise RecordError(
            f"{path} has version {data['version']!r}; ftkit here reads {_VERSION}: update ftkit "
            "or record the run again"
        )


def _pack(value: float | None) -> float | str | None:
    """Floats as JSON knows them; NaN and infinities as text."""
    if value is None:
        return None
    return float(value) if np.isfinite(value) else str(float(value))


def _unpack(value: float | str | None) -> float | None:
    return None if value is None else float(value)


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.draft")


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
