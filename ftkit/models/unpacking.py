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
    needed = sum(map(_matrix_bytes, layers))
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
    packed = any(list(_four_bit_layers(layer.get_base_layer())) for layer in layers)
    if packed or not _fits(model, _folded_bytes(layers), share):
        yield
        return
    forwards = [
        partial(_dense_forward, _sum(layer), layer.get_base_layer().bias) for layer in layers
    ]
    with _other_forwards(layers, forwards):
        yield


def _active(layer: Any) -> list[str]:
    if layer.disable_adapters:
        return []
    return [name for name in layer.active_adapters if name in getattr(layer, "lora_A", {})]


def _folded_bytes(layers: list[Any]) -> int:
    """Return what their folded copies take, once unpacked; 0 if one of them cannot be exact."""
    if not all(map(_adds_exactly, layers)):
        return 0
    return sum(_matrix_bytes(layer.get_base_layer()) for layer in layers)


def _adds_exactly(layer: Any) -> bool:
    """Whether this is plain LoRA on a matrix that is, or is unpacked to, float32."""
    base, names = layer.get_base_layer(), _active(layer)
    return (
        isinstance(layer, LoraLayer)
        and isinstance(base, nn.Linear)
        and not layer.merged
        and not any(name in layer.lora_variant or layer.lora_bias[name] for name in names)
        and _matrix(base).dtype is torch.float32
    )


@torch.no_grad()
def _sum(layer: Any) -> Tensor:
    base: Any = layer.get_base_layer()
    weight = base.forward.args[0] if _is_unpacked(base) else base.weight
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


def _matrix(layer: Any) -> Any:
    """What tells shape and dtype of a layer's weight, packed or not."""
    state = getattr(layer.weight, "quant_state", None)
    return layer.weight if state is None else state


def _matrix_bytes(layer: Any) -> int:
    matrix = _matrix(layer)
    return int(matrix.shape.numel() * matrix.dtype.itemsize)


def copies_mb(model: nn.Module) -> float:
    """Return the MB (1e6 bytes) that `unpacked` and `folded` take together for a block."""
    plain = sum(map(_matrix_bytes, _four_bit_layers(model)))
    return (plain + _folded_bytes([*filter(_active, tuner_layers(model))])) / 1e6


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
