"""What a model folder must hold before anything is read from it."""

import json
from pathlib import Path

from ftkit.errors import ModelSourceError

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of the checkpoint in `folder`.

    Raises:
        ModelSourceError: no config, no safetensors weights, or shards are missing.
    """
    if not (folder / "config.json").is_file():
        raise ModelSourceError(f"{folder} holds no model: {_what_instead(folder)}")
    index = folder / "model.safetensors.index.json"
    names = _shards(index) if index.is_file() else ["model.safetensors"]
    missing = [name for name in names if not (folder / name).is_file()]
    if not missing:
        return [folder / name for name in names]
    if any(file for pattern in _PICKLES for file in folder.glob(pattern)):
        raise ModelSourceError(
            f"{folder} holds its weights as pickle files (.bin, .pt), which can run code when "
            "they are read, so ftkit reads safetensors only. Use a revision that has them, or "
            "convert the folder once where you trust it: "
            "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder)"
        )
    raise ModelSourceError(f"{folder} lacks {', '.join(missing)}. Copy or download it again")


def _what_instead(folder: Path) -> str:
    if (folder / "adapter_config.json").is_file():
        return (
            "it is a PEFT adapter. Load its base model first, then attach the adapter with "
            "peft.PeftModel.from_pretrained(base.model, folder)"
        )
    return "config.json is missing. Give a folder written by save_pretrained"


def _shards(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise ModelSourceError(f"{index} is damaged. Copy or download it again") from error


def stated_licence(folder: Path) -> str:
    """Return the licence in the front matter of the folder's README, or ``"not stated"``."""
    readme = folder / "README.md"
    lines = (
        readme.read_text(encoding="utf-8", errors="replace").splitlines()
        if readme.is_file()
        else []
    )
    if lines[:1] != ["---"]:
        return "not stated"
    for line in lines[1 : lines.index("---", 1) if "---" in lines[1:] else 1]:
        key, _, value = line.partition(":")
        if key == "license" and value.strip():
            return value.strip().strip("\"'")
    return "not stated"
