"""bitsandbytes quantization, made safe to train with.

NF4 with double quantization (QLoRA's setting, 4.127 bits a weight) and LLM.int8. The embedding,
the LM head and the norms stay in the compute dtype.
"""

from typing import Literal, get_args

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from ftkit.errors import SettingsError

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
