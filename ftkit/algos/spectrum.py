"""Singular values of a weight update, and how many directions it really uses.

A matrix of rank r has r singular values above 0. A trained update has full rank on paper, so one
asks how evenly its energy is spread. Left out: which directions they are.
"""

import torch
from torch import Tensor

from ftkit.algos.checks import check_tokens


def singular_values(update: Tensor) -> Tensor:
    """Return the singular values of `update`, the largest first.

    Args:
        update: ``(out, in)``, any floating dtype; computed in float32 at least.

    Returns:
        ``(min(out, in),)``.

    Raises:
        ValueError: not a matrix, or an entry that is not finite.
    """
    if update.ndim != 2 or 0 in update.shape:
        raise ValueError(
            f"singular_values: the update has shape {tuple(update.shape)}; it must be (out, in)"
        )
    check_tokens("singular_values", torch.ones_like(update, dtype=torch.bool), update=update)
    return torch.linalg.svdvals(update.to(torch.promote_types(update.dtype, torch.float32)))


def effective_rank(values: Tensor) -> float:
    """Return exp of the entropy of the singular values as shares of their sum.

    Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality". It is k for
    k equal values, lies between 1 and the rank, and does not change with the scale.

    Args:
        values: ``(n,)`` singular values, at least one above 0.

    Raises:
        ValueError: a value that is negative or not finite, or all of them 0.
    """
    shares = _checked("effective_rank", values) / values.double().sum()
    return float(torch.exp(-torch.special.xlogy(shares, shares).sum()))


def rank_for_energy(values: Tensor, share: float = 0.9) -> int:
    """Return how many of the largest singular values hold `share` of the squared sum.

    Args:
        values: ``(n,)`` singular values in any order, at least one above 0.
        share: Above 0, at most 1. The squared sum is the squared Frobenius norm of the matrix, so
            the best matrix of the returned rank misses ``1 − share`` of it (Eckart and Young 1936).

    Raises:
        ValueError: as `effective_rank`, or a share out of range.
    """
    if not 0.0 < share <= 1.0:
        raise ValueError(f"rank_for_energy: share={share} must be above 0 and at most 1")
    energy = _checked("rank_for_energy", values).sort(descending=True).values.square().cumsum(0)
    # Sums in float64 may end a hair below themselves.
    return int((energy < share * energy[-1] * (1 - 1e-12)).sum()) + 1


def _checked(function: str, values: Tensor) -> Tensor:
    """Return `values` in float64, after the checks that both measures need."""
    if values.ndim != 1 or not len(values):
        raise ValueError(f"{function}: values have shape {tuple(values.shape)}; they must be (n,)")
    check_tokens(function, torch.ones_like(values, dtype=torch.bool), values=values)
    if (values < 0).any():
        raise ValueError(f"{function}: singular values are never negative; lowest {values.min()}")
    if not values.any():
        raise ValueError(f"{function}: all values are 0, an update that changes nothing")
    return values.double()
