"""LoRA adapters on one base: read them, take them off, put them on, switch between them.

PEFT puts its layers into the base in place, so one base can carry many adapters but must not be
wrapped twice. Left out on purpose: adapters that change weights outside their own matrices
(bias training, `modules_to_save`, PiSSA, layer replication); `read_adapter` refuses them.
"""

import copy
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from ftkit.errors import SettingsError

PEFT_PREFIX = "base_model.model."
_SCORE_HEAD = "score.weight"
_NAMES_OF_SCORE_HEADS = {"score", "classifier"}
_STARTS_THAT_KEEP_THE_BASE = (True, False, None, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True, slots=True)
class LoraAdapter:
    """An adapter apart from any model.

    Attributes:
        config: Rank, scale and target modules; without dropout, which would make the sampler's
            and the scorer's distributions differ.
        tensors: A and B matrices by module name, copies on their own storage.
        head: ``(1, hidden)`` score head that was trained with it, or None.
    """

    config: LoraConfig
    tensors: dict[str, Tensor]
    head: Tensor | None = None

    @property
    def digest(self) -> str:
        """16 hex digits that tell its matrices from others."""
        found = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            found.update(name.encode())
            found.update(tensor.float().cpu().numpy().tobytes())
        return found.hexdigest()[:16]


def read_adapter(model: Any, name: str | None = None) -> LoraAdapter:
    """Copy an adapter out of `model`; a score head in ``modules_to_save`` comes along.

    Args:
        model: A `PeftModel`, e.g. ``trainer.model``, or the base that carries its layers.
        name: Of the adapter; None for the active one.

    Raises:
        SettingsError: no such adapter, or one that changes more than its own matrices.
    """
    known = getattr(model, "peft_config", {})
    name = name or _active_name(model, known)
    if name not in known:
        raise SettingsError(f"the model carries no adapter {name!r}; it has {sorted(known)}")
    config = _own_matrices_only(known[name], name)
    tensors = {
        k.removeprefix(PEFT_PREFIX): v.detach().clone() for k, v in _state(model, name).items()
    }
    return LoraAdapter(config, tensors, head=tensors.pop(_SCORE_HEAD, None))


def _state(model: Any, name: str) -> dict[str, Tensor]:
    """Return what PEFT would save of adapter `name`, on the model's own storage."""
    state: dict[str, Tensor] = get_peft_model_state_dict(
        model, dict(model.named_parameters()), adapter_name=name, save_embedding_layers=False
    )
    return state


def _active_name(model: Any, known: dict[str, Any]) -> str:
    layer = next(tuner_layers(model), None)
    active = layer.active_adapters if layer is not None else []
    return active[0] if active else next(iter(known), "default")


def _own_matrices_only(config: Any, name: str) -> LoraConfig:
    extra = set(getattr(config, "modules_to_save", None) or ()) - _NAMES_OF_SCORE_HEADS
    problem = (
        f"is {type(config).__name__}, not LoRA" if not isinstance(config, LoraConfig)
        else f"trains biases (bias={config.bias!r})" if config.bias != "none"
        else f"trains whole modules ({sorted(extra)})" if extra
        else "replicates layers" if config.layer_replication
        else "trains embedding rows" if config.trainable_token_indices
        else f"starts from changed base weights ({config.init_lora_weights!r})"
        if config.init_lora_weights not in _STARTS_THAT_KEEP_THE_BASE
        else None
    )  # fmt: skip
    if problem:
        raise SettingsError(
            f"adapter {name!r} {problem}, so it cannot share a base with other roles; train it as "
            "plain LoRA"
        )
    plain = copy.deepcopy(config)
    plain.lora_dropout = 0.0
    plain.modules_to_save = None
    plain.inference_mode = False
    plain.task_type = "CAUSAL_LM"
    plain.init_lora_weights = True
    return plain


def tuner_layers(model: nn.Module) -> Iterator[Any]:
    """Yield the layers that PEFT put into `model`."""
    return (module for module in model.modules() if isinstance(module, BaseTunerLayer))


def active_names(layer: Any) -> list[str]:
    """Return the adapters that one of `tuner_layers` adds now."""
    if layer.disable_adapters:
        return []
    return [name for name in layer.active_adapters if name in getattr(layer, "lora_A", {})]


def is_plain(layer: Any, names: list[str]) -> bool:
    """Whether adapters `names` only add B·A·x to a linear layer: no DoRA, biases or merging."""
    return (
        isinstance(layer, LoraLayer)
        and isinstance(layer.get_base_layer(), nn.Linear)
        and not layer.merged
        and not any(name in layer.lora_variant or layer.lora_bias[name] for name in names)
    )


@contextmanager
def other_forwards(layers: list[Any], forwards: list[Any]) -> Iterator[None]:
    """Give each layer another `forward` for the block; blocks may be nested."""
    before = [layer.__dict__.get("forward") for layer in layers]
    try:
        for layer, forward in zip(layers, forwards, strict=True):
            layer.forward = forward
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            layer.__dict__.pop("forward", None)
            if forward is not None:
                layer.forward = forward


def strip_adapters(model: nn.Module) -> nn.Module:
    """Return `model` without adapters, changed in place; the base's weights stay as they are.

    Raises:
        SettingsError: an adapter is merged into the base's weights.
    """
    if any(layer.merged for layer in tuner_layers(model)):
        raise SettingsError(
            "an adapter is merged into the base; call model.unmerge_adapter() first"
        )
    wrapped = (BaseTunerLayer, AuxiliaryTrainingWrapper)
    found = [(name, m) for name, m in model.named_modules() if isinstance(m, wrapped)]
    for name, layer in found:
        parent, _, child = name.rpartition(".")
        original = (
            layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer.original_module
        )
        setattr(model.get_submodule(parent), child, original)
    for leftover in ("peft_config", "_hf_peft_config_loaded", "ftkit_roles"):
        model.__dict__.pop(leftover, None)
    return model


def attach(model: Any, name: str, adapter: LoraAdapter, dtype: torch.dtype) -> None:
    """Fill adapter `name` of `model`, added when it is not there yet, with a copy of `adapter`.

    Args:
        model: A `PeftModel`. Its active adapter and all ``requires_grad`` flags stay.
        name: Of the adapter in `model`.
        adapter: What to copy.
        dtype: Of the copy.

    Raises:
        SettingsError: the adapter was made for another architecture.
    """
    if name not in model.peft_config:
        add(model, name, adapter.config, dtype)
    own = dict(adapter_parameters(model, name))
    # A new score head beside the adapter stays as it is.
    state = _state(model, name) | {PEFT_PREFIX + k: tensor for k, tensor in adapter.tensors.items()}
    try:
        set_peft_model_state_dict(model, state, adapter_name=name)
    except RuntimeError as error:
        raise _other_base(name, str(error).strip().splitlines()[-1].strip()) from error
    if len(own) != len(adapter.tensors):
        raise _other_base(name, f"{len(adapter.tensors)} matrices for {len(own)} places")


def _other_base(name: str, what: str) -> SettingsError:
    return SettingsError(
        f"the adapter for {name!r} does not fit this base ({what}); load it on the model that it "
        "was trained on"
    )


def add(model: Any, name: str, config: LoraConfig, dtype: torch.dtype) -> None:
    """Add a new adapter that changes nothing yet; the active one and all flags stay.

    Raises:
        SettingsError: `model` has none of the modules that `config` names.
    """
    with _flags_kept(model):
        try:
            model.add_adapter(name, copy.deepcopy(config))
        except ValueError as error:
            raise _other_base(name, str(error)) from error
    cast(model, name, dtype)


def cast(model: nn.Module, name: str, dtype: torch.dtype) -> None:
    """Cast adapter `name` to `dtype`, whatever PEFT or a trainer made of it."""
    for _, parameter in adapter_parameters(model, name):
        parameter.data = parameter.data.to(dtype)


def adapter_parameters(model: nn.Module, name: str) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the named parameters of adapter `name`."""
    for key, parameter in model.named_parameters():
        if ".lora_" in key and f".{name}." in f"{key}.":
            yield key, parameter


@contextmanager
def switched(model: Any, name: str | None) -> Iterator[None]:
    """Run the block with adapter `name` active (None: no adapter), then restore the one before.

    No ``requires_grad`` flag changes, neither inside nor after; blocks may be nested.

    Raises:
        SettingsError: adapters are switched off by `disable_adapter`, so switching has no effect.
    """
    if any(layer.disable_adapters for layer in tuner_layers(model)):
        raise SettingsError("adapters are disabled here; leave model.disable_adapter() first")
    before = list(model.active_adapters)
    _activate(model, [] if name is None else [name])
    try:
        yield
    finally:
        _activate(model, before)


def _activate(model: Any, names: list[str]) -> None:
    if _plays(model, names):
        return  # PEFT would walk through the model four times
    with _flags_kept(model):
        model.base_model.set_adapter(names)
    if names:
        model.active_adapter = names[0]


def _plays(model: Any, names: list[str]) -> bool:
    """Whether PEFT has nothing left to do: it keeps the names in three places, and unmerges."""
    return model.active_adapters == names == [model.active_adapter] and all(
        layer.active_adapters == names and not layer.merged for layer in tuner_layers(model)
    )


@contextmanager
def _flags_kept(model: nn.Module) -> Iterator[None]:
    """PEFT makes the adapter that it activates trainable and freezes all others; undo that."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
