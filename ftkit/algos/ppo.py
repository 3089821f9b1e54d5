"""The two losses of PPO and the numbers that say whether an update was healthy.

The total is ``policy + value_coef·value − entropy_coef·entropy`` (Schulman et al. 2017,
"Proximal Policy Optimization Algorithms", equation 9); the trainer adds it up. Every mean is over
real tokens, each of equal weight whatever the length of its answer. To split a batch, weight each
part's loss by its share of the real tokens: then gradients add up to those of the whole.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ftkit.algos.checks import check_positive, check_sequences, check_tokens, keep_real
from ftkit.algos.kl import KLEstimator, token_kl
from ftkit.algos.masked import masked_mean, masked_var


class PolicyLoss(NamedTuple):
    """The clipped policy loss, and token by token what it was made of.

    Attributes:
        loss: ``()``, to be minimised.
        ratio: ``(batch, completion)``, π/π_old of the sampled token, 1 at padding, no gradient.
        clipped: Bool ``(batch, completion)``, true where clipping stops the gradient.
    """

    loss: Tensor
    ratio: Tensor
    clipped: Tensor


class ValueLoss(NamedTuple):
    """The clipped value loss.

    Attributes:
        loss: ``()``, in the squared unit of the rewards, to be minimised.
        clipped: Bool ``(batch, completion)``, true where clipping stops the gradient.
    """

    loss: Tensor
    clipped: Tensor


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_range: float = 0.2,
) -> PolicyLoss:
    """Return −mean min(r·A, clip(r, 1 − ε, 1 + ε)·A) with r = π/π_old (PPO, equation 7).

    No gradient at tokens whose ratio has already left [1 − ε, 1 + ε] in the direction that the
    advantage asks for; full gradient at those that went the wrong way. The log-ratio is not
    clamped: one so large that its exponential overflows is an error, not a number to hide.

    Args:
        logprobs: ``(batch, completion)`` in nats, of the policy that is trained.
        old_logprobs: ``(batch, completion)``, of the policy that sampled; taken as constants.
        advantages: ``(batch, completion)``, whitened as a rule; taken as constants.
        mask: Bool ``(batch, completion)``, true at response tokens.
        clip_range: ε > 0.

    Returns:
        `PolicyLoss`; its loss has the unit of `advantages`.

    Raises:
        ValueError: shapes that differ, a mask that is not bool, not 2-D or selects nothing, an
            input or a ratio that is not finite (named with row and token), or ε not above 0.
    """
    check_positive("policy_loss", clip_range=clip_range)
    check_sequences(
        "policy_loss", mask, logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages
    )
    gain = keep_real(advantages.detach(), mask)
    ratio = torch.exp(keep_real(logprobs, mask) - keep_real(old_logprobs.detach(), mask))
    check_tokens("policy_loss", mask, **{"the ratio exp(logprobs − old_logprobs)": ratio})
    free = -gain * ratio  # (batch, completion)
    bounded = -gain * ratio.clamp(1.0 - clip_range, 1.0 + clip_range)
    loss = masked_mean(torch.maximum(free, bounded), mask)
    return PolicyLoss(loss, ratio.detach(), bounded.detach() > free.detach())


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    clip_range: float | None = 0.2,
) -> ValueLoss:
    """Return ½·mean max((V − R)², (clip(V, V_old − ε, V_old + ε) − R)²).

    Detail 10 of "The N Implementation Details of RLHF with PPO" (Huang et al. 2023), and there
    since OpenAI's first PPO code: a value that has moved by more than ε towards its target gets no
    more gradient in this round. Never below the plain ½·mean (V − R)². Not in the PPO paper;
    Engstrom et al. 2020 saw no gain from it, Andrychowicz et al. 2021 a loss. None turns it off.

    Args:
        values: ``(batch, completion)``, of the critic that is trained.
        old_values: ``(batch, completion)``, at the rollout; taken as constants.
        returns: ``(batch, completion)`` targets; taken as constants.
        mask: Bool ``(batch, completion)``, true at response tokens.
        clip_range: ε > 0 in the unit of the values, or None.

    Returns:
        `ValueLoss`.

    Raises:
        ValueError: shapes that differ, a mask that is not bool, not 2-D or selects nothing, an
            input that is not finite (named with row and token), or ε not above 0.
    """
    check_sequences("value_loss", mask, values=values, old_values=old_values, returns=returns)
    value, old = keep_real(values, mask), keep_real(old_values.detach(), mask)
    target = keep_real(returns.detach(), mask)
    free = (value - target).square()  # (batch, completion)
    if clip_range is None:
        return ValueLoss(0.5 * masked_mean(free, mask), torch.zeros_like(mask))
    check_positive("value_loss", clip_range=clip_range)
    bounded = (value.clamp(old - clip_range, old + clip_range) - target).square()
    loss = 0.5 * masked_mean(torch.maximum(free, bounded), mask)
    return ValueLoss(loss, bounded.detach() > free.detach())


def clip_fraction(clipped: Tensor, mask: Tensor) -> Tensor:
    """Return the share of real tokens whose gradient was stopped, of either loss.

    Huang et al. 2022, "The 37 Implementation Details of PPO", detail 12. Counts the tokens where
    clipping acts, as OpenAI and TRL do; those merely outside the range may be more.

    Args:
        clipped: Bool ``(batch, completion)``, from `policy_loss` or `value_loss`.
        mask: Bool ``(batch, completion)``, true at response tokens.

    Returns:
        ``()`` in [0, 1].

    Raises:
        ValueError: shapes that differ, a mask that is not bool or selects nothing.
    """
    return masked_mean(clipped, mask)


def approx_kl(
    logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, estimator: KLEstimator = "k3"
) -> Tensor:
    """Return the mean estimate of KL[π_old, π] a token: how far this round's updates have moved.

    The tokens were sampled from the old policy, so that is the side the expectation is over
    (Schulman 2020; Huang et al. 2022, detail 12). k3 is unbiased; TRL's
    ``policy/approxkl_avg`` is k2. Zero before the first update.

    Args:
        logprobs: ``(batch, completion)`` in nats, of the policy that is trained.
        old_logprobs: ``(batch, completion)``, of the policy that sampled.
        mask: Bool ``(batch, completion)``, true at response tokens.
        estimator: ``"k1"``, ``"k2"`` or ``"k3"``, see `ftkit.algos.kl`.

    Returns:
        ``()`` in nats a token, no gradient.

    Raises:
        ValueError: as `token_kl`.
    """
    return masked_mean(token_kl(old_logprobs.detach(), logprobs.detach(), mask, estimator), mask)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """Return 1 − Var(R − V) / Var(R): how much of the returns' spread the critic foresees.

    1 is perfect, 0 no better than a constant, negative worse than one. A constant offset of the
    values does not count, unlike in the R² of a regression. OpenAI Baselines reports it so.

    Args:
        values: ``(batch, completion)``, at the rollout.
        returns: ``(batch, completion)``.
        mask: Bool ``(batch, completion)``, true at response tokens.

    Returns:
        ``()``, at most 1, no unit, no gradient; NaN where all real returns are equal, so that
        there is nothing to explain.

    Raises:
        ValueError: shapes that differ, a mask that is not bool, not 2-D or selects nothing, or an
            input that is not finite (named with row and token).
    """
    check_sequences("explained_variance", mask, values=values, returns=returns)
    target = keep_real(returns.detach(), mask)
    error = masked_var(target - keep_real(values.detach(), mask), mask)
    flat = target[mask].max() == target[mask].min()
    return torch.where(flat, torch.nan, 1.0 - error / masked_var(target, mask))
