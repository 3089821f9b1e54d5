"""PEFT's LoRA layer in one node of the graph for a while: W·x + (α/r)·B·A·x.

PEFT copies the base's output, and makes B·A·x, its scaled form and the sum one after another: four
tensors of the output's size that live for a moment between those that wait for the backward pass,
and leave holes in the heap there. Here there is one (a PPO round of SmolLM2-135M: 80 MB less).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ftkit.models.hooks import is_hooked
from ftkit.models.lora import active_names, is_plain, other_forwards, tuner_layers


@contextmanager
def lean(model: nn.Module) -> Iterator[None]:
    """Run plain LoRA layers so during the block; the numbers are PEFT's up to rounding.

    What is not plain, or not at the time of a pass, goes PEFT's way: dropout, DoRA, biases, merged,
    mixed or several adapters, other dtypes than the base's, autocast, hooks on A or B.

    Args:
        model: With PEFT's layers in it.
    """
    layers = [
        layer
        for layer in tuner_layers(model)
        # One with another forward already has its adapter in the weights.
        if isinstance(layer, LoraLayer) and "forward" not in layer.__dict__
    ]
    with other_forwards(layers, [partial(_forward, layer) for layer in layers]):
        yield


def _forward(layer: Any, states: Tensor, **options: Any) -> Tensor:
    names = active_names(layer)
    if options or len(names) != 1 or not _adds_alone(layer, names[0], states.dtype):
        return type(layer).forward(layer, states, **options)
    result = layer.base_layer(states)
    a, b = (half[names[0]].weight for half in (layer.lora_A, layer.lora_B))
    return _Added.apply(result, states, a, b, layer.scaling[names[0]])


def _adds_alone(layer: Any, name: str, dtype: torch.dtype) -> bool:
    a, b, dropout = layer.lora_A[name], layer.lora_B[name], layer.lora_dropout[name]
    return (
        is_plain(layer, [name])
        and type(a) is type(b) is nn.Linear
        and a.weight.dtype is b.weight.dtype is dtype
        and (isinstance(dropout, nn.Identity) or not dropout.training)
        and not torch.is_autocast_enabled(a.weight.device.type)
        and not any(map(is_hooked, (a, b, dropout)))
    )


class _Added(torch.autograd.Function):
    """``result + scale · states·Aᵀ·Bᵀ``; only A's small product waits for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, result: Tensor, states: Tensor, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        low = states.flatten(0, -2) @ a.t()  # (tokens, rank)
        ctx.save_for_backward(states, a, b, low)
        ctx.scale = scale
        total = torch.addmm(result.flatten(0, -2), low, b.t(), alpha=scale)
        return total.view_as(result)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Any:
        states, a, b, low = ctx.saved_tensors
        rows = slope.flatten(0, -2)
        low_slope = (rows @ b).mul_(ctx.scale)
        wanted = ctx.needs_input_grad
        return (
            slope,
            (low_slope @ a).view_as(states) if wanted[1] else None,
            low_slope.t() @ states.flatten(0, -2) if wanted[2] else None,
            (rows.t() @ low).mul_(ctx.scale) if wanted[3] else None,
            None,
        )
