"""Best-of-n without sampling n answers for each n: from one pool of N answers to each prompt."""

from math import comb, log

import torch
from torch import Tensor


def expected_best(rewards: Tensor, n: int) -> Tensor:
    """Return the expected highest of `n` answers drawn from each pool, ``(prompts,)``.

    The mean over all subsets of n of the N answers, so without bias and with less noise than n
    fresh answers: Σᵢ C(i−1, n−1)/C(N, n) · r₍ᵢ₎ over the rewards in rising order (Nakano et al.
    2021, WebGPT, appendix I).

    Args:
        rewards: ``(prompts, N)``.
        n: From 1 to N.

    Raises:
        ValueError: an `n` outside that range.
    """
    pool = rewards.shape[1]
    if not 1 <= n <= pool:
        raise ValueError(f"best of {n} from {pool} answers: n must lie in 1 … {pool}")
    shares = [comb(i, n - 1) / comb(pool, n) for i in range(pool)]
    weights = torch.tensor(shares, dtype=torch.float64, device=rewards.device)
    return rewards.double().sort(dim=1).values @ weights


def kl_bound(n: int) -> float:
    """Return log n − (n − 1)/n, nats: the most that best-of-n can be from its start.

    Equal to the KL only where no two answers are alike in probability and reward (Beirami et al.
    2024, theorem 1): for real answers the KL is lower.

    Raises:
        ValueError: `n` below 1.
    """
    if n < 1:
        raise ValueError(f"best of {n}: n must be at least 1")
    return log(n) - (n - 1) / n
