"""Step 4: several passes over the round's completions, in minibatches, with clipped losses."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ftkit.algos import (
    approx_kl,
    clip_fraction,
    masked_mean,
    policy_loss,
    value_loss,
)
from ftkit.models.roles import Roles
from ftkit.stages.ppo.config import PPOConfig
from ftkit.stages.ppo.rollout import Rollout

# The sampler decodes token by token with a cache, the updates read whole rows. In float32 that is
# the same up to rounding. In 16 bits single tokens differ by some 0.1 nats (0.05 on average,
# 0.45 at most in 760 tokens of SmolLM2-135M), but either way alike, so their mean says it there.
EXACT_NATS = 0.02
MEAN_NATS_16_BIT = 0.03
WORST_NATS_16_BIT = 2.0


@dataclass(frozen=True, slots=True)
class Update:
    """One optimizer step, as its loss saw the minibatch.

    Attributes:
        epoch: From 1.
        minibatch: From 1, within the epoch.
        rows: ``(minibatch,)`` indices into the round's completions.
        mask: Bool ``(minibatch, completion)``.
        ratio: ``(minibatch, completion)`` π/π_old.
        clipped: Bool ``(minibatch, completion)``, where clipping stopped the policy gradient.
        policy_loss: Clipped policy loss, a mean over real tokens.
        value_loss: Clipped value loss, a mean over real tokens.
        entropy: Nats a token.
        clip_fraction: Share of tokens with a stopped policy gradient.
        value_clip_fraction: Share of tokens with a stopped value gradient.
        approx_kl: KL[π_old, π] in nats a token (k3).
        grad_norm: Before clipping.
    """

    epoch: int
    minibatch: int
    rows: Tensor
    mask: Tensor
    ratio: Tensor
    clipped: Tensor
    policy_loss: float
    value_loss: float
    entropy: float
    clip_fraction: float
    value_clip_fraction: float
    approx_kl: float
    grad_norm: float


@dataclass(frozen=True, slots=True)
class _Pass:
    """What one forward pass of a micro-batch gave, detached."""

    share: float
    policy_loss: Tensor
    value_loss: Tensor
    ratio: Tensor
    clipped: Tensor
    value_clipped: Tensor
    logprobs: Tensor
    entropy: Tensor


def updates(
    roles: Roles,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    advantages: Tensor,
    returns: Tensor,
    config: PPOConfig,
    generator: torch.Generator,
) -> Iterator[Update]:
    """Run epochs × minibatches optimizer steps, yielding each as it is done.

    Args:
        roles: The policy adapter and the value head are trained.
        optimizer: Over ``roles.trainable("policy")``.
        rollout: This round's completions with the old policy's log-probabilities and values.
        advantages: ``(batch, completion)``.
        returns: ``(batch, completion)``.
        config: Sizes and coefficients.
        generator: On the CPU; shuffles rows.

    Raises:
        RuntimeError: the very first ratio is not 1; see `check_first_ratio`.
    """
    size = config.batch_size // config.minibatches
    for epoch in range(1, config.epochs + 1):
        order = torch.randperm(config.batch_size, generator=generator)
        for minibatch, rows in enumerate(order.split(size), start=1):
            rows = rows.to(rollout.mask.device)
            update = _step(
                roles, optimizer, rollout, advantages, returns, rows, config, epoch, minibatch
            )
            if epoch == minibatch == 1:
                check_first_ratio(update, rollout, roles.facts.compute_dtype)
            yield update


def _step(
    roles: Roles,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    advantages: Tensor,
    returns: Tensor,
    rows: Tensor,
    config: PPOConfig,
    epoch: int,
    minibatch: int,
) -> Update:
    optimizer.zero_grad(set_to_none=True)
    total = rollout.mask[rows].sum()
    parts = []
    with roles.as_policy():
        for micro in rows.split(config.micro_batch):
            # Weighted by its share of the real tokens, so that the sum is the minibatch's mean.
            share = float(rollout.mask[micro].sum() / total)
            parts.append(_backward(roles, rollout, advantages, returns, micro, share, config))
    norm = torch.nn.utils.clip_grad_norm_(list(roles.trainable("policy")), config.max_grad_norm)
    optimizer.step()
    mask = rollout.mask[rows]
    ratio, clipped, value_clipped, logprobs, entropy = (
        torch.cat([getattr(part, name) for part in parts])
        for name in ("ratio", "clipped", "value_clipped", "logprobs", "entropy")
    )
    return Update(
        epoch=epoch,
        minibatch=minibatch,
        rows=rows,
        mask=mask,
        ratio=ratio,
        clipped=clipped,
        policy_loss=sum(part.share * float(part.policy_loss) for part in parts),
        value_loss=sum(part.share * float(part.value_loss) for part in parts),
        entropy=float(masked_mean(entropy, mask)),
        clip_fraction=float(clip_fraction(clipped, mask)),
        value_clip_fraction=float(clip_fraction(value_clipped, mask)),
        approx_kl=float(approx_kl(logprobs, rollout.logprobs[rows], mask)),
        grad_norm=float(norm),
    )


def _backward(
    roles: Roles,
    rollout: Rollout,
    advantages: Tensor,
    returns: Tensor,
    rows: Tensor,
    share: float,
    config: PPOConfig,
) -> _Pass:
    mask = rollout.mask[rows]
    seen = roles.logprobs_and_values(
        rollout.ids[rows],
        rollout.attention[rows],
        rollout.start,
        temperature=config.temperature,
        with_entropy=True,
        entropy_slope=config.entropy_coef > 0,
    )
    values, entropy = cast(Tensor, seen.values), cast(Tensor, seen.entropy)
    policy = policy_loss(
        seen.logprobs, rollout.logprobs[rows], advantages[rows], mask, config.clip_range
    )
    value = value_loss(values, rollout.values[rows], returns[rows], mask, config.clip_range_value)
    loss = policy.loss + config.value_coef * value.loss
    if config.entropy_coef:
        loss = loss - config.entropy_coef * masked_mean(entropy, mask)
    (share * loss).backward()
    return _Pass(
        share=share,
        policy_loss=policy.loss.detach(),
        value_loss=value.loss.detach(),
        ratio=policy.ratio,
        clipped=policy.clipped,
        value_clipped=value.clipped,
        logprobs=seen.logprobs.detach(),
        entropy=entropy.detach(),
    )


def check_first_ratio(update: Update, rollout: Rollout, dtype: torch.dtype) -> None:
    """Refuse a round whose sampler drew from another distribution than the updates see.

    Args:
        update: The first of the round: its ratios π/π_old are taken before any step.
        rollout: With the sampler's log-probabilities.
        dtype: Of the base's activations.

    Raises:
        RuntimeError: names the completion, the token and both log-probabilities.
    """
    gap = update.ratio.log().masked_fill(~update.mask, 0.0)
    row, token = divmod(int(gap.abs().argmax()), gap.shape[1])
    worst, mean = float(gap[row, token].abs()), float(masked_mean(gap, update.mask).abs())
    if dtype.itemsize >= torch.float32.itemsize:
        same = worst <= EXACT_NATS
    else:
        same = mean <= MEAN_NATS_16_BIT and worst <= WORST_NATS_16_BIT
    if same:
        return
    sampled = float(rollout.logprobs[update.rows[row], token])
    raise RuntimeError(
        f"the sampler is not the scorer, so the ratio of the first update is not 1: token {token} "
        f"of completion {int(update.rows[row])} was drawn with log-probability {sampled:.3f} but "
        f"is scored {sampled + float(gap[row, token]):.3f} (mean difference {mean:.3f} nats). Look "
        "for dropout, another temperature, top-k, or an adapter that is switched between the two"
    )
