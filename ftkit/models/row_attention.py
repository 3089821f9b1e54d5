"""Attention of a packed row (`packed_rows`): its tokens are laid out in the rows of their batch.

What waits for the backward pass is packed, too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ftkit.models.kept import Kept

if TYPE_CHECKING:
    from ftkit.models.packed_rows import Packed

BY_ROWS = "ftkit_rows"
"""This attention's name in transformers' registry."""


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed: "Packed",
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it, of tensors ``(1, heads, tokens, size)``.

    Padding lies behind the tokens of a line, so a causal mask keeps it out.
    """
    tokens = [part[0].transpose(0, 1) for part in (query, key, value)]  # (tokens, heads, size)
    attend = partial(_attended, module, packed, options)
    halves = query.device.type == "cpu" and query.dtype.itemsize < torch.float32.itemsize
    if halves and not options.get("dropout"):
        return _Halves.apply(attend, *tokens)[None], None
    return attend(*tokens)[None], None


def _attended(
    module: nn.Module, packed: "Packed", options: dict[str, Any], *tokens: Tensor
) -> Tensor:
    rows = [_Laid.apply(part, packed).transpose(1, 2) for part in tokens]
    waiting = _Waiting(packed)
    with torch.autograd.graph.saved_tensors_hooks(waiting.keep, waiting.give):
        attended = ALL_ATTENTION_FUNCTIONS["sdpa"](module, *rows, None, **options)[0]
    result: Tensor = _Gathered.apply(attended, packed)
    waiting.pack([*rows, attended.transpose(1, 2)], [*tokens, result])
    return result


class _Halves(torch.autograd.Function):
    """Attention in 16 bits whose backward pass runs in float32, forward part included.

    On a CPU that takes a quarter of the time (bfloat16, AMX).
    """

    @staticmethod
    def forward(ctx: Any, attend: Callable[..., Tensor], *tokens: Tensor) -> Tensor:
        ctx.attend = attend
        ctx.save_for_backward(*tokens)
        return attend(*tokens)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Any:
        wide = [part.float().requires_grad_() for part in ctx.saved_tensors]
        with torch.enable_grad():
            result = ctx.attend(*wide)
        slopes = torch.autograd.grad(result, wide, slope.float())
        return None, *(part.to(slope.dtype) for part in slopes)


class _Waiting:
    """What attention keeps for its backward pass, without what lies in rows.

    In rows, shared tokens are in each of them. The same numbers wait anyway as tokens behind each
    other, and are laid out again when they are asked for. Where SDPA has no fused kernel, it keeps
    its weights besides, as in any other pass.
    """

    def __init__(self, packed: "Packed") -> None:
        self._packed = packed
        self._kept: list[_Rows] = []

    def keep(self, states: Tensor) -> "_Rows":
        self._kept.append(_Rows(Kept(states)))
        return self._kept[-1]

    def pack(self, rows: list[Tensor], tokens: list[Tensor]) -> None:
        """Let each of `tokens` ``(tokens, heads, size)`` wait in place of its `rows` ``(batch,
        heads, longest, size)``."""
        for one in self._kept:
            for laid, states in zip(rows, tokens, strict=True):
                if _same(one.kept.tensor, laid):
                    one.kept, one.packed = Kept(states), True
                    break
        self._kept = []

    def give(self, one: "_Rows") -> Tensor:
        states = one.kept.unchanged()
        return _picked(states, self._packed.lines).transpose(1, 2) if one.packed else states


@dataclass(slots=True)
class _Rows:
    """A tensor as it was kept, or packed: as tokens."""

    kept: Kept
    packed: bool = False


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether both are views of the same numbers."""
    alike = one.shape == other.shape and one.stride() == other.stride()
    return alike and one.dtype == other.dtype and one.data_ptr() == other.data_ptr()


class _Laid(torch.autograd.Function):
    """``(tokens, …)`` → ``(batch, longest, …)``, each token in every row that it belongs to.

    The backward pass gathers too: own tokens are in one place, and shared ones in the same columns
    of all rows. Autograd would scatter, which is slower and sums in any order on a GPU.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, packed: "Packed") -> Tensor:
        ctx.packed = packed
        return _picked(states, packed.lines)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Any:
        total = _picked(slope.flatten(0, 1), ctx.packed.home)
        total[: ctx.packed.shared] = slope[:, : ctx.packed.shared].sum(0)
        return total, None


class _Gathered(torch.autograd.Function):
    """``(batch, longest, …)`` → ``(tokens, …)``, each token from one row that it belongs to."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, packed: "Packed") -> Tensor:
        ctx.packed = packed
        return _picked(states.flatten(0, 1), packed.home)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Any:
        lines, home = ctx.packed.lines, ctx.packed.home
        rows = slope.new_zeros(lines.numel(), slope[0].numel())
        rows.index_copy_(0, home, slope.flatten(1))
        return rows.view(*lines.shape, *slope.shape[1:]), None


def _picked(states: Tensor, places: Tensor) -> Tensor:
    """``states[places]``, of whole rows of memory."""
    picked = states.flatten(1).index_select(0, places.flatten())
    return picked.view(*places.shape, *states.shape[1:])


AttentionInterface.register(BY_ROWS, _attend)
