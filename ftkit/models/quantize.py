"""bitsandbytes quantization, made safe to train with.

NF4 with double quantization (QLoRA's setting, 4.127 bits a weight) and LLM.int8. The embedding,
the LM head and the norms stay in the compute dtype.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, get_args

import psutil
import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from ftkit.errors import SettingsError
from ftkit.models.memory import give_back

Quantization = Literal["nf4", "int8"]


def quantization_config(
    method: Quantization | None, device: torch.device, dtype: torch.dtype
) -> BitsAndBytesConfig | None:
    """Return what `from_pretrained` needs for `method`, or None for plain weights.

    Raises:
        SettingsError: an unknown method, or one that bitsandbytes cannot run on `device`.
    """
    if method is None:
        return None
    if method not in get_args(Quantization):
        names = ", ".join(map(repr, get_args(Quantization)))
        raise SettingsError(f"quantization {method!r} is unknown; use one of {names} or None")
    _require_bitsandbytes(method, device)
    if method == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _require_bitsandbytes(method: Quantization, device: torch.device) -> None:
    if device.type not in ("cpu", "cuda"):
        raise SettingsError(
            f"quantization={method!r} runs on CUDA and CPU, not on {device.type!r}; use "
            "quantization=None there, or device='cpu'"
        )
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"quantization={method!r} needs bitsandbytes, which cannot be imported here "
            f"({error}); install bitsandbytes>=0.50, or use quantization=None"
        ) from error


def keep_weights_trainable(model: PreTrainedModel) -> None:
    """Stop bitsandbytes from repacking 4-bit weights for inference on AVX512-BF16 CPUs.

    There, the first forward pass in eval mode (sampling, a loss before training) rewrites each
    weight for a kernel that computes in bfloat16 and has no backward pass. It is not undone by
    `train()`: LoRA layers below would get no gradient through it, with a warning at most.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


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
    needed = sum(_unpacked_bytes(layer.weight.quant_state) for layer in layers)
    if not layers or needed > share * _free_memory(layers[0].weight.device):
        yield
        return
    before = [layer.__dict__.get("forward") for layer in layers]
    try:
        for layer in layers:
            layer.forward = partial(_dense_forward, _unpack(layer.weight), layer.bias)
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            layer.__dict__.pop("forward", None)
            if forward is not None:
                layer.forward = forward
        give_back()


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
    return nn.functional.linear(states.to(weight.dtype), weight, bias).to(states.dtype)


def _unpacked_bytes(state: Any) -> int:
    return state.shape.numel() * state.dtype.itemsize


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def method_of(model: nn.Module) -> str | None:
    """Return ``"nf4"``, ``"int8"``, another method that the checkpoint came with, or None."""
    config = getattr(getattr(model, "config", None), "quantization_config", None)
    if config is None:
        return None
    if getattr(config, "load_in_8bit", False):
        return "int8"
    if getattr(config, "load_in_4bit", False):
        return str(config.bnb_4bit_quant_type)
    return str(getattr(config.quant_method, "value", config.quant_method))
