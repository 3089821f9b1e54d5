"""Where to compute, and in which dtype.

| device | dtype | why |
|---|---|---|
| CUDA, capability 8.0 or newer | bfloat16 | native, float32's range |
| CUDA, older | float16 | bfloat16 is emulated there |
| CPU, Apple GPU | float32 | see below |

On CPUs without bf16 instructions bfloat16 is some 30 times slower. On one with AVX512-BF16 and
AMX a PPO round on NF4 (`benchmarks/ppo_vs_trl.py`, 2 cores) took 8.0 s instead of 11.8 s, sampling
as long as before, but logits near 18 move in steps of 0.125. float32 everywhere means the same
numbers on every CPU up to rounding, and losses that add up to 1e-4; ask for
``compute_dtype="bfloat16"`` to trade that for training speed.
"""

import torch

from ftkit.errors import SettingsError

_BF16_CAPABILITY = (8, 0)
_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def pick_device(device: str = "auto") -> torch.device:
    """Return the device of that name; ``"auto"`` is the first CUDA GPU, else the CPU.

    Raises:
        SettingsError: no such device here.
    """
    if device == "auto":
        device = "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(
            f"device {device!r} cannot be used here ({reason}); use 'auto' or 'cpu'"
        ) from error
    return chosen


def compute_dtype(device: str | torch.device = "auto") -> torch.dtype:
    """Return the dtype in which `device` computes fast and faithfully (table above).

    Raises:
        SettingsError: no such device here.
    """
    chosen = pick_device(str(device))
    if chosen.type != "cuda":
        return torch.float32
    native = torch.cuda.get_device_capability(chosen) >= _BF16_CAPABILITY
    return torch.bfloat16 if native else torch.float16


def named_dtype(name: str) -> torch.dtype:
    """Return ``torch.<name>`` for the floating-point dtypes that models compute in.

    Raises:
        SettingsError: another name.
    """
    if name not in _DTYPES:
        raise SettingsError(f"compute dtype {name!r} is unknown; use one of {', '.join(_DTYPES)}")
    return _DTYPES[name]
