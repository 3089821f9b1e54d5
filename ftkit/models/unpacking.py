"""Weights as plain matrices for a while: where passes are many, unpacking at each of them is waste.

Nothing is written into the model; layers get another `forward` for a block, then their own again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psutil
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from ftkit.models.lora import tuner_layers
from ftkit.models.memory import give_back


@contextmanager
def unpacked(model: nn.Module, share: float = 0.25) -> Iterator[None]:
    """Keep 4-bit weights unpacked during the block, if that takes little of the free memory.

    bitsandbytes unpacks a layer's weight at every pass. Decoding makes one pass a token, and
    spends a third of its time on that (SmolLM2-135M, batch 16, CPU). The numbers stay the same
    to the last bit: the same unpacked weight goes into the same product.

    Args:
        model: Its 4-bit layers are found; others stay as they are.
        share: Largest part of the free memory that the unpacked weights may take; when they
            would take more, nothing changes. Blocks may be nested: what is unpacked stays so.
    """
    layers = list(_four_bit_layers(model))
    needed = sum(map(_unpacked_bytes, layers))
    if not _fits(model, needed, share):
        yield
        return
    forwards = [partial(_dense_forward, _unpack(layer.weight), layer.bias) for layer in layers]
    with _other_forwards(layers, forwards):
        yield


@contextmanager
def folded(model: nn.Module, share: float = 0.25) -> Iterator[None]:
    """Read the active adapter as part of the weights during the block: W + (α/r)·B·A, a copy.

    The adapter's two small products beside every layer cost as much as the layer itself when a
    pass holds one token a row (SmolLM2-135M, batch 16, CPU). Only where it is exact to rounding:
    float32, plain LoRA, weights that are not packed (see `unpacked`); else nothing changes. No
    gradients reach the adapter, its dropout is not applied, and switching adapters inside the block
    has no effect.

    Args:
        model: With PEFT's layers in it, in eval mode.
        share: Largest part of the free memory that the copies may take.
    """
    layers = [layer for layer in tuner_layers(model) if _active(layer)]
    weights = [_plain_weight(layer) for layer in layers]
    needed = sum(weight.nbytes for weight in weights if weight is not None)
    if any(weight is None for weight in weights) or not _fits(model, needed, share):
        yield
        return
    forwards = [
        partial(_dense_forward, _sum(layer, weight), layer.get_base_layer().bias)
        for layer, weight in zip(layers, weights, strict=True)
    ]
    with _other_forwards(layers, forwards):
        yield


def _active(layer: Any) -> list[str]:
    if layer.disable_adapters:
        return []
    return [name for name in layer.active_adapters if name in getattr(layer, "lora_A", {})]


def _plain_weight(layer: Any) -> Tensor | None:
    """Return the float32 matrix under a LoRA layer, None where there is none to add to."""
    base, names = layer.get_base_layer(), _active(layer)
    plain = (
        isinstance(layer, LoraLayer)
        and isinstance(base, nn.Linear)
        and not layer.merged
        and not any(name in layer.lora_variant or layer.lora_bias[name] for name in names)
    )
    if not plain:
        return None
    weight = base.forward.args[0] if _is_unpacked(base) else base.weight
    return weight if weight.dtype is torch.float32 else None


@torch.no_grad()
def _sum(layer: Any, weight: Any) -> Tensor:
    return weight + sum(layer.get_delta_weight(name).to(weight.dtype) for name in _active(layer))


@contextmanager
def _other_forwards(layers: list[Any], forwards: list[Any]) -> Iterator[None]:
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
        forwards.clear()  # their weights, before the memory is handed back
        give_back()


def _fits(model: nn.Module, needed: int, share: float) -> bool:
    device = next(model.parameters()).device
    return 0 < needed <= share * _free_memory(device)


def _four_bit_layers(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        # Its own weight: PEFT's wrappers show their base layer's weight as theirs.
        weight = module._parameters.get("weight")
        if getattr(weight, "quant_state", None) is not None and not _is_unpacked(module):
            yield module


def _is_unpacked(layer: nn.Module) -> bool:
    return getattr(layer.__dict__.get("forward"), "func", None) is _dense_forward


def _unpack(weight: Any) -> Tensor:
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight.data, weight.quant_state)


def _dense_forward(weight: Tensor, bias: Tensor | None, states: Tensor) -> Tensor:
    bias = None if bias is None else bias.to(weight.dtype)
    return nn.functional.linear(states.to(weight.dtype), weight, bias).to(states.dtype)


def _unpacked_bytes(layer: Any) -> int:
    state = layer.weight.quant_state
    return int(state.shape.numel() * state.dtype.itemsize)


def copies_mb(model: nn.Module) -> float:
    """Return the MB (1e6 bytes) that `unpacked` and `folded` take together for a block."""
    plain = sum(map(_unpacked_bytes, _four_bit_layers(model)))
    with_adapter = 0
    for layer in filter(_active, tuner_layers(model)):
        base = layer.get_base_layer()
        state = getattr(base.weight, "quant_state", None)
        if (base.weight if state is None else state).dtype is torch.float32:
            with_adapter += 4 * (base.weight.numel() if state is None else state.shape.numel())
    return (plain + with_adapter) / 1e6


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
