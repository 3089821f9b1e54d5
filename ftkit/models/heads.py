"""What reads a token's hidden state: LM head (log-probabilities, entropy), value and score heads.

The LM head is the base's own. The other two live outside the base, in float32, so that the base
keeps its weights and its file format.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils import skip_init

from ftkit.errors import SettingsError


def value_head(hidden: int, device: torch.device) -> nn.Linear:
    """Return the critic's head, ``(n, hidden) -> (n, 1)``, zero at the start.

    Policy detail 2 of "The N Implementation Details of RLHF with PPO": a critic that starts at 0
    adds no noise to the first advantages.
    """
    head = skip_init(nn.Linear, hidden, 1, device=device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def score_head(hidden: int, device: torch.device, seed: int) -> nn.Linear:
    """Return the reward model's head, ``(n, hidden) -> (n, 1)``, weights N(0, 1/√(hidden+1)).

    Reward detail 2 of the same. No bias: a constant cancels in every preference.
    """
    head = skip_init(nn.Linear, hidden, 1, bias=False)
    generator = torch.Generator().manual_seed(seed)
    nn.init.normal_(head.weight, std=1 / math.sqrt(hidden + 1), generator=generator)
    return head.to(device)


def position_ids(mask: Tensor) -> Tensor:
    """Return ``(batch, time)`` positions that count real tokens only, whatever the padding side.

    General detail 3: without them a left-padded row is read at shifted positions.
    """
    return (mask.long().cumsum(1) - 1).clamp(min=0)


def last_real(mask: Tensor) -> Tensor:
    """Return the column ``(batch,)`` of each row's last real token.

    The mask decides, not the ids, so a pad token that equals the stop token does no harm.

    Raises:
        ValueError: a row without any real token.
    """
    empty = ~mask.any(1)
    if empty.any():
        raise ValueError(f"row {int(empty.nonzero()[0])} has no real token, so nothing to score")
    columns = torch.arange(mask.shape[1], device=mask.device)
    return (mask * columns).argmax(1)


@dataclass(frozen=True, slots=True)
class LogitHead:
    """The base's LM head with what its architecture does to logits afterwards.

    Attributes:
        head: ``(n, hidden) -> (n, vocab)``.
        scale: Factor on the logits (Cohere, Granite).
        cap: Logits z become cap·tanh(z/cap) (Gemma); None for none.
    """

    head: nn.Module
    scale: float = 1.0
    cap: float | None = None

    @classmethod
    def of(cls, model: Any) -> "LogitHead":
        """Return the head of a causal language model.

        Raises:
            SettingsError: the model has none, or an adapter sits on it.
        """
        head = model.get_output_embeddings()
        if not isinstance(head, nn.Linear):
            raise SettingsError(
                f"the LM head of {type(model).__name__} is {type(head).__name__}, not a plain "
                "linear layer; use a causal language model, and leave its head out of "
                "target_modules"
            )
        config = model.config.get_text_config()
        scale = (getattr(config, "logit_scale", None) or 1.0) / (
            getattr(config, "logits_scaling", None) or 1.0
        )
        return cls(head, scale, getattr(config, "final_logit_softcapping", None))

    def __call__(self, states: Tensor) -> Tensor:
        """Return the logits of hidden states ``(n, hidden)`` as ``(n, vocab)``, at least float32.

        Halves are too coarse for log-probabilities of a ratio near 1.
        """
        logits = self.head(states)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.scale != 1.0:  # a pass over all logits that most models need not pay for
            logits = logits * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


def log_softmax(logits: Tensor, temperature: float) -> Tensor:
    """Return log softmax(z/τ) of logits ``(n, vocab)``, in nats."""
    return torch.log_softmax(logits if temperature == 1.0 else logits / temperature, -1)


def token_statistics(
    logits_of: Callable[[Tensor], Tensor],
    states: Tensor,
    ids: Tensor,
    *,
    temperature: float,
    with_entropy: bool,
    entropy_slope: bool = True,
    chunk: int,
) -> tuple[Tensor, Tensor | None]:
    """Return log softmax(z/τ) at `ids`, and the entropy, without ever holding all logits.

    Args:
        logits_of: ``(n, hidden) -> (n, vocab)``, each row on its own.
        states: ``(n, hidden)``, the hidden state before each token.
        ids: ``(n,)`` tokens.
        temperature: τ > 0 of the sampler.
        with_entropy: Whether to compute the second result.
        entropy_slope: Whether gradients flow through it; they cost as much as those of the
            log-probabilities.
        chunk: Rows whose logits are held at a time.

    Returns:
        Log-probabilities ``(n,)`` in nats, and entropies ``(n,)`` or None.
    """
    settled = partial(_statistics, logits_of, temperature, with_entropy, entropy_slope)
    parts = [
        settled(rows, wanted)
        for rows, wanted in zip(states.split(chunk), ids.split(chunk), strict=True)
    ]
    logprobs, *entropy = (torch.cat(column) for column in zip(*parts, strict=True))
    return logprobs, entropy[0] if entropy else None


def _statistics(
    logits_of: Callable[[Tensor], Tensor],
    temperature: float,
    with_entropy: bool,
    entropy_slope: bool,
    rows: Tensor,
    ids: Tensor,
) -> tuple[Tensor, ...]:
    if torch.is_grad_enabled() and rows.requires_grad:
        slopes = with_entropy and entropy_slope
        numbers: tuple[Tensor, ...] = _RowWise.apply(rows, ids, logits_of, temperature, slopes)
        return numbers if with_entropy else numbers[:1]
    logp = log_softmax(logits_of(rows), temperature)
    picked = logp.gather(1, ids[:, None])[:, 0]
    return (picked, entropies(logp.exp(), logp)) if with_entropy else (picked,)


def entropies(probabilities: Tensor, logp: Tensor) -> Tensor:
    """Return −Σ p·log p of each row of ``(n, vocab)``, in nats, without a tensor of that size."""
    return -torch.bmm(probabilities[:, None], logp[:, :, None])[:, 0, 0]


class _RowWise(torch.autograd.Function):
    """Log-probabilities and entropies with their slopes, taken in the forward pass.

    Autograd would keep every chunk's logits until the backward pass; checkpointing would run the
    LM head a second time there. Since row i gives number i alone, the slopes of all rows fit in
    ``(n, hidden)``: they are taken at once, the logits are freed, and the backward pass is one
    product. At logits z/τ they are ∂log p(y) = 1{y} − p and ∂H = −p·(log p + H), written over
    the logits themselves. The head is frozen, so nothing else needs them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        ids: Tensor,
        logits_of: Callable[[Tensor], Tensor],
        temperature: float,
        entropy_slope: bool,
    ) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = rows.detach().requires_grad_()
            logits = logits_of(leaf)
        logp = log_softmax(logits.detach(), temperature)
        p = torch.exp(logp, out=logits.detach())
        logprobs, entropy = logp.gather(1, ids[:, None])[:, 0], entropies(p, logp)
        slopes = []
        if entropy_slope:
            slopes += [_slope(logits, leaf, logp.add_(entropy[:, None]).mul_(p).neg_())]
        chosen = torch.ones_like(entropy)[:, None]
        slopes += [_slope(logits, leaf, p.neg_().scatter_add_(1, ids[:, None], chosen))]
        ctx.save_for_backward(*(slope / temperature for slope in reversed(slopes)))
        if not entropy_slope:
            ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        pairs = zip(upstream, ctx.saved_tensors, strict=False)
        total = sum(factor[:, None] * slope for factor, slope in pairs)
        return total.to(ctx.saved_tensors[0].dtype), None, None, None, None


def _slope(logits: Tensor, leaf: Tensor, grad: Tensor) -> Tensor:
    return torch.autograd.grad(logits, leaf, grad, retain_graph=True)[0]
