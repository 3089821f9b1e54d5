"""Whether the run fits its hardware: a dtype that is fast and does not overflow, and memory."""

import os
from collections.abc import Iterator

import torch
from peft import PeftModel

from ftkit.diagnosis.case import REINFORCED, Case
from ftkit.findings import Finding
from ftkit.models import memory_mb

_STEPS_OF_ADAM = 8  # bytes a parameter: two moments in float32


def examine_hardware(case: Case) -> Iterator[Finding]:
    """Every check of dtype and memory; needs the model's weights."""
    yield from _dtype(case)
    yield from _memory(case)


def _dtype(case: Case) -> Iterator[Finding]:
    """A compute dtype that this hardware emulates, or that overflows."""
    device = next(case.model.parameters()).device
    dtype = _compute_dtype(case)
    slow = _why_slow(device, dtype)
    if slow:
        yield Finding(
            "dtype-slow",
            "warning",
            f"the model computes in {_short(dtype)} on {device.type}, {slow}",
            "SFTConfig(bf16=False) and a model in float32" if device.type == "cpu"
            else "SFTConfig(fp16=True, bf16=False)",
        )  # fmt: skip
    yield from _overflow(case, dtype)
    half = sorted(
        {_short(p.dtype) for p in case.model.parameters() if p.requires_grad} & {"float16"}
    )
    if half:
        yield Finding(
            "dtype-half-weights",
            "error",
            "trainable weights are float16: the gradient scaler refuses them, and without it small "
            "updates are lost",
            "keep trainable weights in float32 (fp16=True then computes in half)",
        )


def _compute_dtype(case: Case) -> torch.dtype:
    args = case.args
    if getattr(args, "bf16", False):
        return torch.bfloat16
    if getattr(args, "fp16", False):
        return torch.float16
    for module in case.model.modules():
        kept = getattr(module, "compute_dtype", None)  # bitsandbytes' 4-bit layers
        if isinstance(kept, torch.dtype):
            return kept
    floats = [p.dtype for p in case.model.parameters() if p.is_floating_point()]
    return floats[-1] if floats else torch.float32


def _why_slow(device: torch.device, dtype: torch.dtype) -> str:
    """Why `dtype` is slow there; empty where it is not."""
    if device.type == "cuda" and dtype is torch.bfloat16:
        major, minor = torch.cuda.get_device_capability(device)
        return "" if major >= 8 else f"which emulates it (capability {major}.{minor}, native: 8.0)"
    if device.type == "cpu" and dtype is torch.float16:
        return "which has no fast half precision"
    if device.type == "cpu" and dtype is torch.bfloat16 and not cpu_has_bf16():
        return "which has no bf16 instructions: some 30 times slower than float32"
    return ""


def cpu_has_bf16() -> bool:
    """Whether this CPU has bfloat16 instructions."""
    known = torch.cpu.get_capabilities()
    return any(known.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))


def _overflow(case: Case, dtype: torch.dtype) -> Iterator[Finding]:
    trained_in = getattr(case.model.config.get_text_config(), "dtype", None)
    if dtype is torch.float16 and trained_in is torch.bfloat16:
        yield Finding(
            "dtype-overflow",
            "warning",
            "the run computes in float16 (largest number 65,504), the model was made in bfloat16 "
            "(3·10³⁸): activations of such models overflow to infinity, and the loss to NaN",
            "bf16=True where the card has it (capability 8.0), else float32 for the layers that "
            "overflow; watch for NaN",
        )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _memory(case: Case) -> Iterator[Finding]:
    """A lower bound: gradients and Adam's moments, without a single activation."""
    weights = [p for p in case.model.parameters() if p.requires_grad]
    moments = 2 if "8bit" in str(getattr(case.args, "optim", "")) else _STEPS_OF_ADAM
    needed = sum(p.numel() * (p.element_size() + moments) for p in weights)
    free = free_bytes(next(case.model.parameters()).device)
    if needed > free:
        yield Finding(
            "does-not-fit",
            "error",
            f"gradients and optimizer of {sum(p.numel() for p in weights) / 1e6:,.0f} M trainable "
            f"parameters take {needed / 1e9:.1f} GB, before any activation; {free / 1e9:.1f} GB "
            "are free",
            "train a LoRA adapter on a 4-bit base: ftkit.load(…, quantization='nf4')",
        )
    copy = getattr(case.trainer, "ref_model", None)
    if copy is not None and isinstance(case.model, PeftModel) and case.method not in REINFORCED:
        yield Finding(
            "second-copy",
            "info",
            f"the reference is a second model of {memory_mb(copy):,.0f} MB, although the base with "
            "its adapter switched off gives the same numbers",
            "leave ref_model out",
        )


def free_bytes(device: torch.device) -> int:
    """Memory that is free on `device` now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on this platform
        return 1 << 62
