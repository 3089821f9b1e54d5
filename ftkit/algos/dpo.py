"""Direct preference optimization: a reward model that is never built, read off two policies.

The reward is β·(log π − log π_ref) of a whole answer; put into the pairwise loss of a reward
model it trains the policy itself (Rafailov et al. 2023). Left out: the other losses over the same
four numbers (IPO, hinge, KTO, …), and losses that average over the tokens of an answer.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ftkit.algos.checks import at_least_float32, check_positive, check_vector


def implicit_rewards(logprobs: Tensor, ref_logprobs: Tensor, beta: float) -> Tensor:
    """Return β·(log π − log π_ref): how much an answer gained over the reference.

    Rafailov et al. 2023, equation 5, without the term that depends on the prompt alone: it is the
    same for both answers of a pair and drops out of their difference.

    Args:
        logprobs: ``(answers,)`` log-probability of each whole answer under the policy, in nats:
            the sum over its tokens.
        ref_logprobs: ``(answers,)`` the same under the reference.
        beta: > 0, reward units a nat.

    Returns:
        ``(answers,)`` in reward units, at least float32.

    Raises:
        ValueError: shapes that differ or are not ``(answers,)``, no answer, a number that is not
            finite (named with its row), or `beta` not above 0.
    """
    check_positive("implicit_rewards", beta=beta)
    check_vector("implicit_rewards", logprobs=logprobs, ref_logprobs=ref_logprobs)
    return beta * (at_least_float32(logprobs) - at_least_float32(ref_logprobs))


def dpo_losses(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return −log σ(m) of each pair, m the margin between its two implicit rewards.

    Rafailov et al. 2023, equation 7. log 2 while policy and reference are equal. Only m enters:
    both answers may become less likely while the loss falls.

    With ε = `label_smoothing` > 0 the loss is [−(1 − ε)·log σ(m) + ε·log σ(−m)] / (1 − 2ε), which
    is right in the mean if a share ε of the labels is flipped (Chowdhury et al. 2024, "Provably
    robust DPO", equation 12). TRL calls it ``loss_type="robust"``; its ``"sigmoid"`` does not look
    at the label smoothing.

    Args:
        chosen: ``(pairs,)`` log-probability of each preferred answer under the policy, in nats:
            the sum over its tokens.
        rejected: ``(pairs,)`` of the other answers.
        ref_chosen: ``(pairs,)`` of the preferred answers under the reference.
        ref_rejected: ``(pairs,)`` of the other answers under the reference.
        beta: > 0, reward units a nat; 0.1 is usual. Higher keeps nearer to the reference.
        label_smoothing: Share of flipped labels to expect, 0 to below 0.5.

    Returns:
        ``(pairs,)`` in nats, at least float32.

    Raises:
        ValueError: as `implicit_rewards`, or `label_smoothing` out of range.
    """
    _check_smoothing("dpo_losses", label_smoothing)
    margins = _margins(chosen, rejected, ref_chosen, ref_rejected, beta)
    kept = (1 - label_smoothing) * -logsigmoid(margins)
    flipped = label_smoothing * -logsigmoid(-margins)
    return (kept - flipped) / (1 - 2 * label_smoothing)


def dpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the mean of `dpo_losses`, ``()`` in nats; arguments and errors are its."""
    return dpo_losses(chosen, rejected, ref_chosen, ref_rejected, beta, label_smoothing).mean()


def dpo_weights(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return how hard each pair pushes: the derivative of its loss by log π of rejected.

    β·σ(−m), by chosen the same with a minus: the gradient raises chosen and lowers rejected by
    one weight, large where the implicit rewards have the pair the wrong way round (Rafailov et al.
    2023, section 4, "What does the DPO update do?").

    Args:
        chosen: As in `dpo_losses`, and so the others.
        rejected: See there.
        ref_chosen: See there.
        ref_rejected: See there.
        beta: See there.
        label_smoothing: See there.

    Returns:
        ``(pairs,)``, 0 to β without label smoothing; no gradient flows through it.

    Raises:
        ValueError: as `dpo_losses`.
    """
    _check_smoothing("dpo_weights", label_smoothing)
    margins = _margins(chosen, rejected, ref_chosen, ref_rejected, beta).detach()
    kept = (1 - label_smoothing) * torch.sigmoid(-margins)
    flipped = label_smoothing * torch.sigmoid(margins)
    return beta * (kept + flipped) / (1 - 2 * label_smoothing)


def _margins(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float
) -> Tensor:
    """Return ``(pairs,)`` implicit reward of chosen minus that of rejected."""
    check_vector(
        "dpo", chosen=chosen, rejected=rejected, ref_chosen=ref_chosen, ref_rejected=ref_rejected
    )
    return implicit_rewards(chosen, ref_chosen, beta) - implicit_rewards(
        rejected, ref_rejected, beta
    )


def _check_smoothing(function: str, label_smoothing: float) -> None:
    if not 0.0 <= label_smoothing < 0.5:
        raise ValueError(
            f"{function}: label_smoothing is {label_smoothing}; it must lie in 0 … 0.5, without "
            "0.5: then labels would say nothing"
        )
