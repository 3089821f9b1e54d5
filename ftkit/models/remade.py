"""Activations that are made again in the backward pass, where that costs next to nothing.

Gated feed-forward layers keep three tensors of their width for the backward pass: gate, SiLU(gate)
and the other factor (Shazeer 2020, arXiv 2002.05202). The second follows from the first, so it
need not wait: an eighth of what a layer of SmolLM2-135M keeps.
"""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from ftkit.models.kept import Kept


def without_gates() -> AbstractContextManager[Any]:
    """Run the block's forward passes without keeping SiLU(x) beside x."""
    return torch.autograd.graph.saved_tensors_hooks(_pack, _unpack)


def _pack(tensor: Tensor) -> Any:
    made_by = tensor.grad_fn
    return made_by if made_by is not None and made_by.name() == "SiluBackward0" else Kept(tensor)


def _unpack(kept: Any) -> Tensor:
    if isinstance(kept, Kept):
        return kept.unchanged()
    with torch.no_grad():
        return nn.functional.silu(kept._saved_self)
