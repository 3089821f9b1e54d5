"""Bytes that a model really holds."""

import ctypes
import os
from collections.abc import Iterator

import torch
from torch import nn


def memory_mb(model: nn.Module) -> float:
    """Return parameters, buffers and quantization constants of `model` in MB (1e6 bytes).

    Storage shared by several tensors (tied embeddings, views) counts once. Gradients, optimizer
    states and activations are not part of it.
    """
    storages = {
        (storage.device, storage.data_ptr()): storage.nbytes()
        for storage in (tensor.untyped_storage() for tensor in _tensors(model))
    }
    return sum(storages.values()) / 1e6


def leave_file(model: nn.Module) -> None:
    """Copy the weights that still lie in the mapped weight file, so that the file is let go.

    On a CPU the unquantized weights (embedding, norms) of a quantized model are views of the
    file, and keep all of it in the process: 415 MB of float32 that are only read once, beside
    166 MB of NF4 model (SmolLM2-135M).
    """
    quantized = any(True for weight in model.parameters() for _ in _constants(weight))
    if model.device.type != "cpu" or not quantized:
        return
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.clone()
    give_back()


def give_back() -> None:
    """Hand freed heap memory back to the system, where the C library is one that keeps it.

    glibc holds on to freed blocks between used ones: 200 MB after quantizing SmolLM2-135M. Between
    the steps of a training they are used again, and handing them back would cost time.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def _tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    yield from model.buffers()
    for parameter in model.parameters():
        yield parameter
        yield from _constants(parameter)


def _constants(parameter: nn.Parameter) -> Iterator[torch.Tensor]:
    """What bitsandbytes hangs on a packed weight: 4-bit blocks' scales, 8-bit rows' scales."""
    state = getattr(parameter, "quant_state", None)
    while state is not None:
        yield from (value for value in vars(state).values() if isinstance(value, torch.Tensor))
        state = getattr(state, "state2", None)
    row_scales = getattr(parameter, "SCB", None)
    if row_scales is not None:
        yield row_scales
