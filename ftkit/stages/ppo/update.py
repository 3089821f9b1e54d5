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

# Rounding of one forward pass against another; anything more means that the policy the gradient
# goes through is not the policy that sampled.
RATIO_TOLERANCE = 0.02


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
        RuntimeError: the very first ratio is not 1.
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
                _check_first_ratio(update)
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


def _check_first_ratio(update: Update) -> None:
    gap = float((update.ratio - 1.0).abs().masked_fill(~update.mask, 0.0).max())
    if gap > RATIO_TOLERANCE:
        raise RuntimeError(
            f"the first ratio of the round is off 1 by {gap:.3f}: the policy that is trained is "
            "not the one that sampled. Look for dropout, a changed adapter, or another temperature"
        )
