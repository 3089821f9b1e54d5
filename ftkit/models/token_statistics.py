"""Log-probability and entropy of tokens from hidden states, a block of the vocabulary at a time.

A batch's logits are the largest tensor of a step, and autograd keeps them until the backward pass.
Here they never exist: a block of them is read while it is in the processor's cache, and running
sums are rescaled when a higher logit turns up (online softmax: Milakov & Gimelshein 2018, arXiv
1805.02867). Slopes are summed beside: they are what attention to the vocabulary gives, with rows
of the LM head as keys and values (as Dao et al. 2022, arXiv 2205.14135).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ftkit.models.heads import LogitHead, tempered

_ROWS = 1024
"""States read at a time."""

_LOGITS = {"cpu": 2**19}
_LOGITS_ELSEWHERE = 2**23
"""Held at a time: 2 MB stay in a CPU's cache; a GPU wants fewer and larger products."""

_EVEN = 256
"""Blocks of the vocabulary are multiples of this: MKL takes a quarter longer for odd ones."""


def token_statistics(
    head: LogitHead,
    states: Tensor,
    ids: Tensor,
    *,
    temperature: float,
    with_entropy: bool,
    entropy_slope: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Return log softmax(z/τ) at `ids`, and the entropy, without ever holding all logits.

    Gradients reach `states`, not the head: it is frozen.

    Args:
        head: The base's LM head.
        states: ``(n, hidden)``, the hidden state before each token.
        ids: ``(n,)`` tokens.
        temperature: τ > 0 of the sampler.
        with_entropy: Whether to return the second result.
        entropy_slope: Whether gradients flow through it; they cost half as much as everything
            else.

    Returns:
        Log-probabilities ``(n,)`` in nats, and entropies ``(n,)`` or None.

    Raises:
        ValueError: an id outside the vocabulary.
    """
    slopes = 0
    if torch.is_grad_enabled() and states.requires_grad:
        slopes = 2 if with_entropy and entropy_slope else 1
    parts = [
        _Statistics.apply(rows, wanted, head, temperature, slopes)
        for rows, wanted in zip(states.split(_ROWS), ids.split(_ROWS), strict=True)
    ]
    logprobs, entropy = (torch.cat(column) for column in zip(*parts, strict=True))
    return logprobs, entropy if with_entropy else None


class _Statistics(torch.autograd.Function):
    """One scan for the numbers and their slopes.

    Row i gives number i alone, so the slopes of all rows fit in ``(n, hidden)`` and the backward
    pass is one product with them.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, ids: Tensor, head: LogitHead, temperature: float, slopes: int
    ) -> tuple[Tensor, Tensor]:
        weight, bias = head.matrix()
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < len(weight):
            raise ValueError(f"ids must be 0 to {len(weight) - 1}, the head's vocabulary")
        scan, states = _Scan(rows, ids, slopes), rows.to(weight.dtype)
        block = _LOGITS.get(rows.device.type, _LOGITS_ELSEWHERE) // max(1, len(rows))
        block = block // _EVEN * _EVEN or max(1, block)
        for first in range(0, len(weight), block):
            part = weight[first : first + block]
            raw = nn.functional.linear(states, part, None if bias is None else bias[first:][:block])
            logits = head.adjusted(raw)
            steep = head.steepness(logits)
            scan.read(first, part, tempered(logits, temperature), steep)
        if slopes:
            ctx.dtype, factor = rows.dtype, head.scale / temperature
            ctx.save_for_backward(*(factor * slope for slope in scan.slopes(weight)))
        entropy = scan.entropy
        if slopes < 2:
            ctx.mark_non_differentiable(entropy)
        return scan.logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        pairs = zip(upstream, ctx.saved_tensors, strict=False)
        total = sum(factor[:, None] * slope for factor, slope in pairs)
        return total.to(ctx.dtype), None, None, None, None


class _Scan:
    """Sums over the part of the vocabulary that was read, relative to its highest logit.

    With z the logits at temperature τ, m the highest of a row, e = exp(z − m) and ∂z the gradient
    by the state, but for a factor that all have in common: Σe and Σe·(z − m), each ``(n,)``, and
    where slopes are asked for Σe·∂z and Σe·(z − m)·∂z, each ``(n, hidden)``.
    """

    def __init__(self, rows: Tensor, ids: Tensor, slopes: int) -> None:
        wide = torch.promote_types(rows.dtype, torch.float32)
        self._ids = ids
        self._top = rows.new_full((len(rows),), torch.finfo(wide).min, dtype=wide)
        self._mass, self._heat, self._chosen = (torch.zeros_like(self._top) for _ in range(3))
        self._steep = torch.ones_like(self._top)  # of the chosen token
        self._pulls = [torch.zeros_like(rows, dtype=wide) for _ in range(slopes)]

    def read(self, first: int, weight: Tensor, z: Tensor, steep: Tensor | None) -> None:
        """Add a block of the vocabulary.

        Args:
            first: Its first token.
            weight: ``(block, hidden)``, its rows of the head.
            z: ``(n, block)`` logits; overwritten.
            steep: ``(n, block)`` ∂z in units of `weight`; None for 1.
        """
        self._pick(first, z, steep)
        self._raise_top(torch.maximum(self._top, z.amax(1)))
        below = z.sub_(self._top[:, None])
        e = below.exp()
        heat = below.mul_(e)
        self._mass += e.sum(1)
        self._heat += heat.sum(1)
        for pull, factor in zip(self._pulls, (e, heat), strict=False):
            factor = factor if steep is None else factor * steep
            pull += factor.to(weight.dtype) @ weight

    def _pick(self, first: int, z: Tensor, steep: Tensor | None) -> None:
        """Keep the logit of the chosen token, if it is in this block."""
        place = self._ids - first
        here = (place >= 0) & (place < z.shape[1])
        place = place.clamp(0, z.shape[1] - 1)[:, None]
        self._chosen = torch.where(here, z.gather(1, place)[:, 0], self._chosen)
        if steep is not None:
            self._steep = torch.where(here, steep.gather(1, place)[:, 0], self._steep)

    def _raise_top(self, top: Tensor) -> None:
        """Take all sums relative to `top`: Σe·(z − m) shrinks and moves, Σe only shrinks."""
        drop = self._top - top
        kept = drop.exp()
        self._top = top
        self._heat = kept * (self._heat + drop * self._mass)
        self._mass = kept * self._mass
        if len(self._pulls) == 2:
            self._pulls[1].addcmul_(drop[:, None], self._pulls[0]).mul_(kept[:, None])
        if self._pulls:
            self._pulls[0].mul_(kept[:, None])

    @property
    def logprobs(self) -> Tensor:
        """``(n,)`` of the chosen tokens."""
        return self._chosen - self._top - self._mass.log()

    @property
    def entropy(self) -> Tensor:
        """``(n,)``: log Σe − Σe·(z − m) / Σe."""
        return self._mass.log() - self._heat / self._mass

    def slopes(self, weight: Tensor) -> list[Tensor]:
        """``(n, hidden)`` of the log-probabilities, ∂z(y) − Σp·∂z, and of the entropies if asked
        for, −Σp·(log p + H)·∂z."""
        means = [pull / self._mass[:, None] for pull in self._pulls]
        slopes = [self._steep[:, None] * weight[self._ids] - means[0]]
        if len(means) == 2:
            rest = self.entropy - self._mass.log()
            slopes.append(-means[1] - rest[:, None] * means[0])
        return slopes
