"""The loss of a reward model that learns from pairs: chosen should score above rejected.

Left out: listwise (Plackett–Luce) losses, and label smoothing.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ftkit.algos.checks import at_least_float32, check_not_negative, check_vector


def pairwise_losses(chosen: Tensor, rejected: Tensor, margin: Tensor | None = None) -> Tensor:
    """Return −log σ(r_c − r_r − m) of each pair: the surprise at the choice that was made.

    Bradley & Terry 1952; Ouyang et al. 2022 (InstructGPT), equation 1; with a margin equation 2
    of Touvron et al. 2023 (Llama 2), which asks clear choices for a wider gap. About the size of
    the gap when the order is wrong; log 2 at a tie.

    Args:
        chosen: ``(pairs,)`` scores of the preferred answers.
        rejected: ``(pairs,)`` scores of the others.
        margin: ``(pairs,)`` gaps to ask for, in score units, usually ≥ 0.

    Returns:
        ``(pairs,)`` in nats, at least float32.

    Raises:
        ValueError: shapes that differ or are not ``(pairs,)``, no pair, or a score or margin that
            is not finite (named with its row).
    """
    named = {"chosen": chosen, "rejected": rejected}
    check_vector("pairwise_losses", **named, **({} if margin is None else {"margin": margin}))
    gap = at_least_float32(chosen) - at_least_float32(rejected)  # (pairs,)
    return -logsigmoid(gap if margin is None else gap - margin)


def pairwise_reward_loss(
    chosen: Tensor, rejected: Tensor, margin: Tensor | None = None, centering: float = 0.0
) -> Tensor:
    """Return the mean of `pairwise_losses`, plus centering·mean((r_c + r_r)²).

    Only differences enter the first term, so the scores may drift as one; the second holds their
    mean near 0 (Eisenstein et al. 2023, "Helping or Herding?", equation 2). The formula of
    TRL's `RewardTrainer`, whose ``center_rewards_coefficient`` is `centering`.

    Args:
        chosen: ``(pairs,)`` scores of the preferred answers.
        rejected: ``(pairs,)`` scores of the others.
        margin: ``(pairs,)`` gaps to ask for, in score units.
        centering: ≥ 0, in nats a squared score unit; 0.01 is usual.

    Returns:
        ``()`` in nats.

    Raises:
        ValueError: as `pairwise_losses`, or `centering` negative.
    """
    check_not_negative("pairwise_reward_loss", centering=centering)
    loss = pairwise_losses(chosen, rejected, margin).mean()
    if centering == 0.0:
        return loss
    total = at_least_float32(chosen) + at_least_float32(rejected)
    return loss + centering * torch.mean(total.square())
