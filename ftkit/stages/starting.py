"""Where a policy or a judge starts: a new adapter on the bare base, or a trained one.

TRL makes the reference of a trained adapter itself, a frozen copy named ``ref``. On a quantized
base it then rounds the policy to bfloat16 and not the copy, so that the two would differ before
the first step; `restore` undoes that.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from ftkit.errors import SettingsError
from ftkit.models import Loaded, LoraAdapter, read_adapter
from ftkit.models.lora import adapter_parameters, attach, cast
from ftkit.stages.adapters import (
    attach_displays,
    fresh_base,
    match_compute_dtype,
    warn_of_trained_adapter,
)
from ftkit.stages.passes import shorten

if TYPE_CHECKING:
    from transformers import Trainer  # which imports datasets

Start: TypeAlias = Union[str, Path, LoraAdapter, "Trainer", PeftModel]
"""A saved adapter's folder, what `ftkit.models.read_adapter` gives, a trainer, or its model."""

POLICY, REFERENCE = "default", "ref"  # TRL's names


def new_adapter(r: int, alpha: int) -> LoraConfig:
    """Return the LoRA settings that every stage of ftkit shares."""
    return LoraConfig(
        r=r, lora_alpha=alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def take_start(base: Loaded, start: Start | None) -> LoraAdapter | None:
    """Return what `read_start` does, after a warning of a trained adapter that would be lost.

    Raises:
        SettingsError: as `read_start`.
    """
    if not carries(base.model, start):
        warn_of_trained_adapter(base.model, stacklevel=4)
    return read_start(base, start)


def policy_arguments(base: Loaded, start: LoraAdapter | None, r: int, alpha: int) -> dict[str, Any]:
    """Return ``model`` and ``peft_config`` for a TRL trainer whose policy begins at `start`.

    Raises:
        SettingsError: as `started`.
    """
    model = fresh_base(base.model)
    if start is None:
        return {"model": model, "peft_config": new_adapter(r, alpha)}
    # TRL adds the frozen copy that is the reference.
    return {"model": started(model, start.config, start), "peft_config": None}


def settle(trainer: Any, base: Loaded, start: LoraAdapter | None, callbacks: Sequence[Any]) -> None:
    """Bring a trainer that was just built to the compute dtype and to its exact start, with passes
    and display of ftkit."""
    match_compute_dtype(trainer.model, base)
    shorten(trainer)
    if start is not None:
        restore(trainer.model, start)
    attach_displays(trainer, callbacks)


def carries(model: Any, start: Start | None) -> bool:
    """Whether `start` is a trainer or model whose adapter sits in the base `model`."""
    holder = _holder(start)
    return isinstance(holder, PeftModel) and any(module is model for module in holder.modules())


def _holder(start: Any) -> Any:
    """Return the model of a trainer, and anything else as it is."""
    return start if isinstance(start, nn.Module) else getattr(start, "model", start)


def read_start(base: Loaded, start: Start | None) -> LoraAdapter | None:
    """Return a copy of the adapter to start from; None for a new one.

    Raises:
        SettingsError: it cannot be read, does not fit the base, or is a reward model's.
    """
    if start is None or isinstance(start, LoraAdapter):
        adapter = start
    elif isinstance(start, str | Path):
        adapter = _from_folder(base, Path(start))
    else:
        adapter = read_adapter(_holder(start))
    if adapter is not None and adapter.head is not None:
        raise SettingsError(
            "the adapter to start from is a reward model's: training starts from an SFT adapter, "
            "or from none (adapter=None)"
        )
    return adapter


def started(model: Any, config: LoraConfig, adapter: LoraAdapter) -> PeftModel:
    """Return `model` wrapped with an adapter of `config` that is a copy of `adapter`.

    Raises:
        SettingsError: the adapter was made for another architecture.
    """
    try:
        model = get_peft_model(model, config, adapter_name=POLICY)
    except ValueError as error:
        raise SettingsError(f"the adapter to start from does not fit this base: {error}") from error
    _fill(model, POLICY, adapter)
    return model


def restore(model: Any, adapter: LoraAdapter) -> None:
    """Put `adapter` into the policy, and the reference where there is one, in one dtype."""
    dtype = next(parameter.dtype for _, parameter in adapter_parameters(model, POLICY))
    for name in (POLICY, REFERENCE):
        if name in model.peft_config:
            cast(model, name, dtype)
            _fill(model, name, adapter)


def _fill(model: Any, name: str, adapter: LoraAdapter) -> None:
    dtype = next(parameter.dtype for _, parameter in adapter_parameters(model, name))
    attach(model, name, adapter, dtype)


def _from_folder(base: Loaded, folder: Path) -> LoraAdapter:
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():  # PEFT would look for it on the hub, or unpickle another file
        raise SettingsError(
            f"{weights} does not exist: give the folder that trainer.save_model(folder) wrote"
        )
    try:
        return read_adapter(PeftModel.from_pretrained(fresh_base(base.model), str(folder)))
    except (RuntimeError, ValueError) as error:
        last = str(error).strip().splitlines()[-1].strip()
        raise SettingsError(f"the adapter in {folder} does not fit this base: {last}") from error
