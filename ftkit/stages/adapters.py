"""LoRA adapters on one base: start from a clean base, and train in the compute dtype."""

from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from ftkit.models import Loaded


def fresh_base(model: nn.Module) -> nn.Module:
    """Return `model` without the adapters that an earlier trainer left in it.

    PEFT puts its layers into the model in place, so building a second trainer on the same base
    would stack adapters. The base's own weights are untouched.
    """
    adapted = [(name, m) for name, m in model.named_modules() if isinstance(m, BaseTunerLayer)]
    for name, layer in adapted:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.get_base_layer())
    for leftover in ("peft_config", "_hf_peft_config_loaded"):
        model.__dict__.pop(leftover, None)
    return model


def compute_dtype(base: Loaded) -> torch.dtype:
    """Return the dtype of the base's activations, as its card says."""
    dtype: torch.dtype = getattr(torch, base.card.compute_dtype)
    return dtype


def match_compute_dtype(model: Any, base: Loaded) -> None:
    """Cast the trainable weights to the dtype that the quantized layers compute in.

    TRL casts adapters of a quantized base to bfloat16 whatever the arguments say; on a CPU that
    computes in float32 this is slow, and heads fail with two dtypes in one product.
    """
    dtype = compute_dtype(base)
    # fp16 training keeps its trainable weights in float32: the gradient scaler needs them so.
    dtype = torch.float32 if dtype is torch.float16 else dtype
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)
