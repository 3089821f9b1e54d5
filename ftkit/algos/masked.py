"""Statistics over real tokens only: mean, variance, whitening, row sums.

A batch is a rectangle, answers are not: what pads them must not count. TRL's PPO (until 1.12)
averaged some statistics over padding too; here every number is over the tokens that the mask
selects and nothing else. Left out: the unbiased variance, see `masked_var`.
"""

import torch
from torch import Tensor

from ftkit.algos.checks import at_least_float32, check_sequences, check_tokens, keep_real


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of `values` where `mask` is true: Σ m·x / Σ m.

    Args:
        values: Any shape and dtype; summed in at least float32.
        mask: Bool, of the same shape.

    Returns:
        ``()`` in the unit of `values`.

    Raises:
        ValueError: shapes differ, the mask is not bool or selects nothing, or a real value is not
            finite (named with row and token).
    """
    check_tokens("masked_mean", mask, values=values)
    return at_least_float32(values)[mask].mean()


def masked_var(values: Tensor, mask: Tensor) -> Tensor:
    """Return the biased (population) variance of the real values: Σ m·(x − mean)² / Σ m.

    Biased, as in the code of Ziegler et al. 2019; TRL divides by one less. The biased one
    is defined for a single token (0), and whitened values then have a mean square of 1.

    Args:
        values: Any shape and dtype; summed in at least float32.
        mask: Bool, of the same shape.

    Returns:
        ``()`` in the square of the unit of `values`.

    Raises:
        ValueError: as `masked_mean`.
    """
    check_tokens("masked_var", mask, values=values)
    real = at_least_float32(values)[mask]  # (real tokens,)
    return (real - real.mean()).square().mean()


def whiten(values: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
    """Scale the real values to variance 1, and shift them to mean 0: (x − mean) / √(var + 1e-8).

    Detail 9 of "The N Implementation Details of RLHF with PPO" (Huang et al. 2023): advantages
    are shifted, rewards are not (shifting them would change which answers are worth a reward).
    The variance is the biased one; 1e-8 keeps constant values from being divided by 0, and so
    values that spread by much less than 1e-4 stay short of variance 1.

    Args:
        values: ``(batch, time)`` or any other shape.
        mask: Bool, of the same shape.
        shift_mean: False adds the mean back after scaling.

    Returns:
        Shape of `values`, no unit, 0 at padding.

    Raises:
        ValueError: as `masked_mean`.
    """
    mean, variance = masked_mean(values, mask), masked_var(values, mask)
    whitened = (keep_real(values, mask) - mean) * torch.rsqrt(variance + 1e-8)
    return keep_real(whitened if shift_mean else whitened + mean, mask)


def masked_row_sums(values: Tensor, mask: Tensor) -> Tensor:
    """Return the sum over the real tokens of each row: Σ_t m·x.

    Of token log-probabilities it is that of the whole answer; of token KLs the answer's KL, since
    log π(y | x) = Σ_t log π(y_t | x, y_<t).

    Args:
        values: ``(batch, time)``.
        mask: Bool ``(batch, time)``.

    Returns:
        ``(batch,)`` in the unit of `values`; 0 for a row of padding only.

    Raises:
        ValueError: as `masked_mean`, or not two axes.
    """
    check_sequences("masked_row_sums", mask, values=values)
    return keep_real(values, mask).sum(1)


def last_real_index(mask: Tensor) -> Tensor:
    """Return where the last real token of each row is, whichever side is padded.

    The score of an answer is read there and paid there: the only token that has seen all of it.

    Args:
        mask: Bool ``(batch, time)``.

    Returns:
        Int64 ``(batch,)``, each in ``[0, time)``.

    Raises:
        ValueError: a row without a real token (named), a mask that is not bool or not 2-D.
    """
    check_sequences("last_real_index", mask)
    empty = (~mask.any(1)).nonzero()
    if len(empty):
        raise ValueError(
            f"last_real_index: row {empty[0].item()} has no real token ({len(empty)} of "
            f"{len(mask)} rows are empty); drop empty answers or let them end with the end token"
        )
    time = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, time, 0).amax(1)
