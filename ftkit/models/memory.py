"""Bytes that a model really holds."""

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
