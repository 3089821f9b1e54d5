"""Learning from groups: advantages without a critic, and the losses of GRPO and RLOO.

Several answers to one prompt are each other's baseline: GRPO compares with the group's mean
(Shao et al. 2024, DeepSeekMath, section 4.1), RLOO with the mean of the *others* (Kool et al.
2019; Ahmadian et al. 2024). The loss types of GRPO differ in one thing only, what a token weighs;
`token_weights` is all there is to it. Left out: sequence-level ratios in GRPO (GSPO), and the loss
types of TRL that change the objective itself (CISPO, SAPO, LUSPO, VESPO).
"""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ftkit.algos.checks import (
    at_least_float32,
    check_not_negative,
    check_positive,
    check_sequences,
    check_tokens,
    check_vector,
    keep_real,
)
from ftkit.algos.kl import k1, k3
from ftkit.algos.masked import masked_row_sums

Scale = Literal["group", "batch", "none"]
LossType = Literal["grpo", "bnpo", "dr_grpo", "dapo"]
STD_FLOOR = 1e-4
"""What TRL adds to the standard deviation, in reward units."""


class GRPOLoss(NamedTuple):
    """The loss, and token by token what it was made of.

    Attributes:
        loss: ``()``, to be minimised.
        ratio: ``(batch, completion)``, π/π_old of the sampled token, 1 at padding, no gradient.
        clipped: Bool ``(batch, completion)``, true where clipping stops the policy's gradient.
        kl: ``(batch, completion)``, k3 in nats before the correction by the ratio, 0 at padding
            and everywhere without a reference; no gradient.
    """

    loss: Tensor
    ratio: Tensor
    clipped: Tensor
    kl: Tensor


class RLOOLoss(NamedTuple):
    """The loss, and answer by answer what it was made of.

    Attributes:
        loss: ``()``, to be minimised.
        ratio: ``(batch,)``, π/π_old of the whole answer, no gradient.
        clipped: Bool ``(batch,)``, true where clipping stops the gradient.
    """

    loss: Tensor
    ratio: Tensor
    clipped: Tensor


def group_advantages(rewards: Tensor, group_size: int, scale: Scale = "group") -> Tensor:
    """Return (r − mean of its group) / (std + 1e-4); DeepSeekMath, section 4.1.2.

    The standard deviation divides by one less than the number of rewards (Bessel), as TRL's and
    as PyTorch's default. Dividing by it makes easy and hard prompts, where nearly all answers
    score the same, count as much as those in the middle; Dr. GRPO (Liu et al. 2025) leaves it out.

    Args:
        rewards: ``(batch,)``; each `group_size` neighbours answer one prompt.
        group_size: G ≥ 2, answers a prompt.
        scale: Whose standard deviation divides: the ``"group"``'s, that of the whole ``"batch"``,
            or ``"none"``.

    Returns:
        ``(batch,)``, at least float32, no unit (that of the rewards for ``"none"``), no gradient.
        0 for a group whose rewards are all the same: it teaches nothing.

    Raises:
        ValueError: `scale` unknown, `rewards` no vector or not finite (named), a group size below
            2 or one that does not divide the batch.
    """
    if scale not in get_args(Scale):
        raise ValueError(f"group_advantages: scale is {scale!r}; use 'group', 'batch' or 'none'")
    grouped = _grouped("group_advantages", rewards, group_size)  # (groups, group)
    centred = grouped - grouped.mean(1, keepdim=True)
    if scale == "group":
        centred = centred / (grouped.std(1, keepdim=True) + STD_FLOOR)
    elif scale == "batch":
        centred = centred / (grouped.std() + STD_FLOOR)
    return centred.flatten()


def leave_one_out_advantages(rewards: Tensor, group_size: int) -> Tensor:
    """Return r − mean of the *other* rewards of its group: RLOO, Ahmadian et al. 2024, section 3.

    The baseline does not depend on the answer that it judges, so the gradient stays unbiased. It
    is G/(G − 1) times the advantage of GRPO without the standard deviation.

    Args:
        rewards: ``(batch,)``, the KL already taken off (`rewards_after_kl`); each `group_size`
            neighbours answer one prompt.
        group_size: G ≥ 2, answers a prompt.

    Returns:
        ``(batch,)`` in the unit of the rewards, at least float32, no gradient.

    Raises:
        ValueError: as `group_advantages`.
    """
    grouped = _grouped("leave_one_out_advantages", rewards, group_size)
    others = (grouped.sum(1, keepdim=True) - grouped) / (group_size - 1)
    return (grouped - others).flatten()


def without_signal(rewards: Tensor, group_size: int) -> Tensor:
    """Return, for each group, whether all of its rewards are the same, so that it teaches nothing.

    Its share of the groups is what TRL logs as ``frac_reward_zero_std``; with ``scale="batch"`` TRL
    asks for the spread of the whole batch instead, and logs 0 unless there is none at all.

    Args:
        rewards: ``(batch,)``.
        group_size: G ≥ 2.

    Returns:
        Bool ``(groups,)``.

    Raises:
        ValueError: as `group_advantages`.
    """
    std = _grouped("without_signal", rewards, group_size).std(1)
    return torch.isclose(std, torch.zeros_like(std))


def rewards_after_kl(
    rewards: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, beta: float
) -> Tensor:
    """Return r − β·Σ_t (log π − log π_ref), the reward that RLOO (and PPO) learns from.

    GRPO puts its KL into the loss instead; see `grpo_loss`.

    Args:
        rewards: ``(batch,)``.
        logprobs: ``(batch, completion)`` of the policy that sampled, in nats.
        ref_logprobs: ``(batch, completion)`` of the reference.
        mask: Bool ``(batch, completion)``, true at response tokens.
        beta: β ≥ 0, reward units a nat.

    Returns:
        ``(batch,)`` in the unit of the rewards, no gradient.

    Raises:
        ValueError: shapes that differ, an input that is not finite (named), or β negative.
    """
    check_sequences("rewards_after_kl", mask, logprobs=logprobs, ref_logprobs=ref_logprobs)
    check_not_negative("rewards_after_kl", beta=beta)
    _check_per_answer("rewards_after_kl", mask, rewards=rewards)
    log_ratio = k1(keep_real(logprobs, mask), keep_real(ref_logprobs, mask))
    return (at_least_float32(rewards) - beta * masked_row_sums(log_ratio, mask)).detach()


def token_weights(
    mask: Tensor,
    loss_type: LossType = "grpo",
    *,
    max_tokens: int | None = None,
    total_tokens: int | None = None,
) -> Tensor:
    """Return what each token counts in the loss; the loss is the sum of weight × token loss.

    ========  ===================================  ====================================
    type      weight of a token                    so that
    ========  ===================================  ====================================
    grpo      1 / (answers · tokens of *its own*)  every answer counts the same, and a
                                                   token of a long one little
    bnpo      1 / tokens of this (micro-)batch     every token counts the same
    dapo      1 / tokens of the whole batch        the same, over all micro-batches
    dr_grpo   1 / (answers · `max_tokens`)         every token counts the same, whatever
                                                   else is in the batch
    ========  ===================================  ====================================

    DeepSeekMath (Shao et al. 2024, equation 3), Dr. GRPO (Liu et al. 2025), DAPO (Yu et al. 2025).

    Args:
        mask: Bool ``(batch, completion)``, true at response tokens; a row may be empty, and still
            counts as an answer.
        loss_type: See above.
        max_tokens: Longest completion that the sampler may write; ``"dr_grpo"`` needs it.
        total_tokens: Response tokens of the whole batch of which `mask` is a part, for ``"dapo"``;
            None when it is the whole.

    Returns:
        ``(batch, completion)`` float32, 0 at padding.

    Raises:
        ValueError: `loss_type` unknown, ``"dr_grpo"`` without `max_tokens`, or a mask that is not
            bool, not 2-D or selects nothing.
    """
    check_sequences("token_weights", mask)
    answers, lengths = len(mask), mask.sum(1, keepdim=True)  # lengths: (batch, 1)
    if loss_type == "grpo":
        share = 1.0 / (answers * lengths.clamp(min=1))
    elif loss_type in ("bnpo", "dapo"):
        whole = total_tokens if loss_type == "dapo" and total_tokens else int(lengths.sum())
        share = torch.full_like(lengths, 1.0 / whole, dtype=torch.float32)
    elif loss_type == "dr_grpo":
        if max_tokens is None:
            raise ValueError("token_weights: loss_type 'dr_grpo' divides by max_tokens; give it")
        check_positive("token_weights", max_tokens=max_tokens)
        share = torch.full_like(lengths, 1.0 / (answers * max_tokens), dtype=torch.float32)
    else:
        raise ValueError(
            f"token_weights: loss_type is {loss_type!r}; use one of {', '.join(get_args(LossType))}"
        )
    return mask * share


def grpo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    ref_logprobs: Tensor | None = None,
    beta: float = 0.0,
    correct_kl: bool = True,
    clip_range: float = 0.2,
    clip_range_high: float | None = None,
    loss_type: LossType = "grpo",
    max_tokens: int | None = None,
    total_tokens: int | None = None,
) -> GRPOLoss:
    """Return Σ w·[−min(r·A, clip(r, 1 − ε, 1 + ε)·A) + β·k3]; DeepSeekMath, equation 3.

    Args:
        logprobs: ``(batch, completion)`` in nats, of the policy that is trained.
        old_logprobs: ``(batch, completion)`` of the policy that sampled; constants.
        advantages: ``(batch,)``, the same for every token of an answer; constants.
        mask: Bool ``(batch, completion)``, true at response tokens.
        ref_logprobs: ``(batch, completion)`` of the reference; needed for β > 0. Constants.
        beta: β ≥ 0, weight of the KL in the loss. 0.04 in DeepSeekMath, 0 in TRL and DAPO.
        correct_kl: Multiply k3 by the ratio, as TRL does by default: then its gradient is that of
            the KL from policy to reference. False is DeepSeekMath's own term, whose gradient is
            that of the KL in the other direction.
        clip_range: ε > 0.
        clip_range_high: ε of the upper side, DAPO's "clip higher"; None for the same.
        loss_type: See `token_weights`.
        max_tokens: See `token_weights`.
        total_tokens: See `token_weights`.

    Returns:
        `GRPOLoss`.

    Raises:
        ValueError: shapes that differ, a mask that is not bool, not 2-D or selects nothing, an
            input that is not finite (named with row and token), ε not above 0, β negative, or β
            without a reference.
    """
    check_positive("grpo_loss", clip_range=clip_range, clip_range_high=clip_range_high or 1.0)
    check_not_negative("grpo_loss", beta=beta)
    check_sequences("grpo_loss", mask, logprobs=logprobs, old_logprobs=old_logprobs)
    _check_per_answer("grpo_loss", mask, advantages=advantages)
    if beta and ref_logprobs is None:
        raise ValueError(f"grpo_loss: beta={beta} needs ref_logprobs, those of the reference")
    now = keep_real(logprobs, mask)
    ratio = torch.exp(now - keep_real(old_logprobs.detach(), mask))
    gain = at_least_float32(advantages.detach())[:, None].expand_as(ratio)
    token_loss, clipped = _clipped(ratio, gain, clip_range, clip_range_high)
    kl = torch.zeros_like(ratio)
    if beta and ref_logprobs is not None:
        check_tokens("grpo_loss", mask, ref_logprobs=ref_logprobs)
        kl = k3(now, keep_real(ref_logprobs.detach(), mask))
        token_loss = token_loss + beta * (kl * ratio if correct_kl else kl)
    weights = token_weights(mask, loss_type, max_tokens=max_tokens, total_tokens=total_tokens)
    loss = (token_loss * weights).sum()
    return GRPOLoss(loss, ratio.detach(), clipped & mask, kl.detach())


def rloo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_range: float = 0.2,
) -> RLOOLoss:
    """Return −mean over answers of min(R·A, clip(R, 1 − ε, 1 + ε)·A), R = π(y|x)/π_old(y|x).

    The whole answer is one action: its log-probabilities are summed, never averaged, so there is
    no length to divide by. In the first update R is 1 and this is REINFORCE with a baseline.

    Args:
        logprobs: ``(batch, completion)`` in nats, of the policy that is trained.
        old_logprobs: ``(batch, completion)`` of the policy that sampled; constants.
        advantages: ``(batch,)``; constants.
        mask: Bool ``(batch, completion)``, true at response tokens.
        clip_range: ε > 0.

    Returns:
        `RLOOLoss`.

    Raises:
        ValueError: shapes that differ, a mask that is not bool, not 2-D or selects nothing, an
            input that is not finite (named with row and token), or ε not above 0.
    """
    check_positive("rloo_loss", clip_range=clip_range)
    check_sequences("rloo_loss", mask, logprobs=logprobs, old_logprobs=old_logprobs)
    _check_per_answer("rloo_loss", mask, advantages=advantages)
    log_ratio = masked_row_sums(logprobs, mask) - masked_row_sums(old_logprobs.detach(), mask)
    ratio = torch.exp(log_ratio)  # (batch,)
    answer_loss, clipped = _clipped(ratio, at_least_float32(advantages.detach()), clip_range, None)
    return RLOOLoss(answer_loss.mean(), ratio.detach(), clipped)


def _clipped(ratio: Tensor, gain: Tensor, low: float, high: float | None) -> tuple[Tensor, Tensor]:
    """Return −min(r·A, clip(r)·A), and where clipping stops the gradient."""
    bounded = -gain * ratio.clamp(1.0 - low, 1.0 + (low if high is None else high))
    free = -gain * ratio
    return torch.maximum(free, bounded), bounded.detach() > free.detach()


def _grouped(function: str, rewards: Tensor, group_size: int) -> Tensor:
    check_vector(function, rewards=rewards)
    if group_size < 2:
        raise ValueError(
            f"{function}: group_size is {group_size}; an answer needs at least one other to be "
            "compared with"
        )
    if len(rewards) % group_size:
        raise ValueError(
            f"{function}: {len(rewards)} rewards do not divide into groups of {group_size}"
        )
    return at_least_float32(rewards.detach()).view(-1, group_size)


def _check_per_answer(function: str, mask: Tensor, **tensors: Tensor) -> None:
    check_vector(function, **tensors)
    for name, tensor in tensors.items():
        if len(tensor) != len(mask):
            raise ValueError(f"{function}: {len(tensor)} {name} for {len(mask)} answers")
