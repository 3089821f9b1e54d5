"""Weights as plain matrices for a while: where passes are many, unpacking at each of them is waste.

Nothing is written into the model; layers get another `forward` for a block, then their own again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from ftkit.models.lora import active_names, is_plain, other_forwards, tuner_layers

_FEW_ROWS = 16


@contextmanager
def unpacked(model: nn.Module, share: float = 0.25) -> Iterator[None]:
    """Keep 4-bit weights unpacked during the block, if that takes little of the free memory.

    bitsandbytes unpacks a layer's weight at every pass. Decoding makes one pass a token, and
    spends a third of its time on that (SmolLM2-135M, batch 16, CPU). The numbers stay the same
    to the last bit, since the same unpacked weight goes into the same product; but for `product`.

    Args:
        model: Its 4-bit layers are found; others stay as they are.
        share: Largest part of the free memory that the unpacked weights may take; when they
            would take more, nothing changes. Blocks may be nested: what is unpacked stays so.
    """
    layers = list(_packed_layers(model))
    if not layers or not _fits(model, sum(map(_matrix_bytes, layers)), share):
        yield
        return
    forwards = [partial(_dense_forward, _unpack(layer.weight), layer.bias) for layer in layers]
    with other_forwards(layers, forwards):
        yield


@contextmanager
def folded(model: nn.Module, share: float = 0.25) -> Iterator[None]:
    """Read the active adapter as part of the weights during the block: W + (α/r)·B·A.

    The adapter's two small products beside every layer cost as much as the layer itself when a
    pass holds one token a row (SmolLM2-135M, batch 16, CPU). Only where it is exact to rounding:
    float32, plain LoRA, weights that are not packed (see `unpacked`); else nothing changes. No
    gradients reach the adapter, its dropout is not applied, and switching adapters inside the block
    has no effect. Weights of the model are copied; `unpacked` ones, which are copies already, are
    added to in place, and unpacked again at the end.

    Args:
        model: With PEFT's layers in it, in eval mode.
        share: Largest part of the free memory that the copies may take.
    """
    layers = _foldable(model)
    packed = any(map(_is_packed, map(_base, layers)))
    if not layers or packed or not _fits(model, _copied_bytes(layers), share):
        yield
        return
    unpacked_bases = [base for base in map(_base, layers) if _is_unpacked(base)]
    try:
        forwards = [partial(_dense_forward, _sum(layer), _base(layer).bias) for layer in layers]
        with other_forwards(layers, forwards):
            yield
    finally:
        for base in unpacked_bases:
            _dense(base).copy_(_unpack(base.weight))


def _base(layer: Any) -> Any:
    return layer.get_base_layer()


def _foldable(model: nn.Module) -> list[Any]:
    """Return the layers with an active adapter; none if one of them cannot be exact."""
    layers = [layer for layer in tuner_layers(model) if active_names(layer)]
    return layers if all(map(_adds_exactly, layers)) else []


def _adds_exactly(layer: Any) -> bool:
    """Whether this is plain LoRA on a matrix that is, or is unpacked to, float32."""
    plain = is_plain(layer, active_names(layer))
    return plain and _matrix(_base(layer)).dtype is torch.float32


def _copied_bytes(layers: list[Any]) -> int:
    """Return what folding copies: weights that are the model's own."""
    return sum(_matrix_bytes(base) for base in map(_base, layers) if not _is_four_bit(base))


@torch.no_grad()
def _sum(layer: Any) -> Tensor:
    base = _base(layer)
    delta = sum(layer.get_delta_weight(name) for name in active_names(layer))
    return _dense(base).add_(delta) if _is_unpacked(base) else base.weight + delta


def _fits(model: nn.Module, needed: int, share: float) -> bool:
    return needed <= share * _free_memory(next(model.parameters()).device)


def _packed_layers(model: nn.Module) -> Iterator[Any]:
    return filter(_is_packed, model.modules())


def _is_packed(layer: nn.Module) -> bool:
    return _is_four_bit(layer) and not _is_unpacked(layer)


def _is_four_bit(layer: nn.Module) -> bool:
    # Its own weight: PEFT's wrappers show their base layer's weight as theirs.
    return getattr(layer._parameters.get("weight"), "quant_state", None) is not None


def _is_unpacked(layer: nn.Module) -> bool:
    return getattr(layer.__dict__.get("forward"), "func", None) is _dense_forward


def _dense(layer: Any) -> Tensor:
    """The plain matrix of an unpacked layer."""
    weight: Tensor = layer.forward.args[0]
    return weight


def dense_weight(layer: Any) -> Tensor:
    """Return the plain matrix ``(out, in)`` of a linear layer, unpacked if it is 4-bit."""
    if _is_unpacked(layer):
        return _dense(layer)
    weight: Tensor = layer.weight
    return _unpack(weight) if _is_four_bit(layer) else weight


def _unpack(weight: Any) -> Tensor:
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight.data, weight.quant_state)


def _dense_forward(weight: Tensor, bias: Tensor | None, states: Tensor) -> Tensor:
    return product(states.to(weight.dtype), weight, bias).to(states.dtype)


def product(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``states @ weight.T + bias`` of states ``(…, in)``, fast for few of them on a CPU.

    Decoding multiplies a whole weight with one state a row. MKL is up to twice as fast then if
    the weight comes first (4 to 16 rows of SmolLM2-135M, AVX2), and equal to rounding.
    """
    bias = None if bias is None else bias.to(weight.dtype)
    rows = states.numel() // states.shape[-1]
    if states.device.type != "cpu" or rows > _FEW_ROWS or torch.is_grad_enabled():
        return nn.functional.linear(states, weight, bias)
    result = torch.mm(weight, states.reshape(rows, -1).t()).t().contiguous()
    result = result.view(*states.shape[:-1], -1)
    return result if bias is None else result + bias


def _matrix(layer: Any) -> Any:
    """What tells shape and dtype of a layer's weight, packed or not."""
    state = getattr(layer.weight, "quant_state", None)
    return layer.weight if state is None else state


def _matrix_bytes(layer: Any) -> int:
    matrix = _matrix(layer)
    return int(matrix.shape.numel() * matrix.dtype.itemsize)


def copies_mb(model: nn.Module) -> float:
    """Return the MB (1e6 bytes) that `unpacked` and `folded` take together for a block."""
    return (sum(map(_matrix_bytes, _packed_layers(model))) + _copied_bytes(_foldable(model))) / 1e6


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
