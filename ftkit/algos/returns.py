"""What a value should have predicted, three ways: Monte Carlo, one-step TD, and GAE between them.

State = the tokens so far, action = the next token; the value at position t is that of the state
*before* token t. An answer ends at its last real token, also one cut by the length limit: nothing
follows, so the value after it is 0. Positions that the mask leaves out are stepped over, on
whichever side or in whichever gap they lie, so padding changes nothing. Everything here is a
target: computed without gradient. Left out: bootstrapping from a value after the last token.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ftkit.algos.checks import check_fraction, check_sequences, keep_real


class GAE(NamedTuple):
    """Generalized advantage estimates and what they are made of, each ``(batch, completion)``.

    Attributes:
        deltas: One-step TD errors δ_t = r_t + γ·V_{t+1} − V_t.
        advantages: Σ_l (γλ)^l δ_{t+l}.
        returns: ``advantages + values``, the target of the value function.
    """

    deltas: Tensor
    advantages: Tensor
    returns: Tensor


def monte_carlo_returns(rewards: Tensor, mask: Tensor, gamma: float = 1.0) -> Tensor:
    """Sum the rewards that really came, discounted: G_t = Σ_{l≥0} γ^l r_{t+l}.

    Unbiased and of high variance (Sutton & Barto 2018, equation 3.8 and chapter 5).

    Args:
        rewards: ``(batch, completion)``.
        mask: Bool ``(batch, completion)``, true at response tokens.
        gamma: Discount a token, in [0, 1]; 1 in RLHF.

    Returns:
        ``(batch, completion)`` in the unit of `rewards`, 0 at padding, no gradient.

    Raises:
        ValueError: shapes that differ, a mask that is not bool, not 2-D or selects nothing, a
            reward that is not finite (named with row and token), or γ outside [0, 1].
    """
    check_sequences("monte_carlo_returns", mask, rewards=rewards)
    check_fraction("monte_carlo_returns", gamma=gamma)
    return _discounted_sums(keep_real(rewards.detach(), mask), mask, gamma)


def td_targets(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0) -> Tensor:
    """Trust the next value instead of waiting: r_t + γ·V_{t+1}, and r_t at the last token.

    The target of TD(0) (Sutton & Barto 2018, equation 6.2): low variance, biased as V is.

    Args:
        rewards: ``(batch, completion)``.
        values: ``(batch, completion)``, the value of the state before each token.
        mask: Bool ``(batch, completion)``, true at response tokens.
        gamma: Discount a token, in [0, 1].

    Returns:
        ``(batch, completion)`` in the unit of `rewards`, 0 at padding, no gradient.

    Raises:
        ValueError: as `monte_carlo_returns`, for rewards and values.
    """
    check_sequences("td_targets", mask, rewards=rewards, values=values)
    check_fraction("td_targets", gamma=gamma)
    following = _next_values(keep_real(values.detach(), mask), mask)
    return keep_real(keep_real(rewards.detach(), mask) + gamma * following, mask)


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = 1.0, lam: float = 0.95
) -> GAE:
    """Estimate advantages by the backward recursion A_t = δ_t + γλ·A_{t+1}.

    Schulman et al. 2015, "High-Dimensional Continuous Control Using Generalized Advantage
    Estimation", equation 16 (the sum); equations 11 and 12 of Schulman et al. 2017 (PPO). λ = 0
    leaves the TD error (biased), λ = 1 the Monte-Carlo return minus the value (high variance).

    Args:
        rewards: ``(batch, completion)``.
        values: ``(batch, completion)``, the value of the state before each token.
        mask: Bool ``(batch, completion)``, true at response tokens.
        gamma: Discount a token, in [0, 1].
        lam: λ, weight of each further step, in [0, 1].

    Returns:
        `GAE`, all in the unit of `rewards`, 0 at padding, no gradient.

    Raises:
        ValueError: as `td_targets`, or λ outside [0, 1].
    """
    check_fraction("gae", gamma=gamma, lam=lam)
    check_sequences("gae", mask, rewards=rewards, values=values)
    real_values = keep_real(values.detach(), mask)
    deltas = td_targets(rewards, values, mask, gamma) - real_values  # (batch, completion)
    advantages = _discounted_sums(deltas, mask, gamma * lam)
    return GAE(deltas, advantages, advantages + real_values)


def _discounted_sums(terms: Tensor, mask: Tensor, decay: float) -> Tensor:
    """Return S_t = x_t + decay·S_{t+1} over the real tokens of each row, 0 at padding."""
    sums = torch.zeros_like(terms)
    carry = terms.new_zeros(len(terms))  # (batch,): the sum from the next real token on
    for t in range(terms.shape[1] - 1, -1, -1):
        carry = torch.where(mask[:, t], terms[:, t] + decay * carry, carry)
        sums[:, t] = carry
    return keep_real(sums, mask)


def _next_values(values: Tensor, mask: Tensor) -> Tensor:
    """Return, at each position, the value at the next real token of the row, else 0."""
    batch, time = mask.shape
    index = torch.where(mask, torch.arange(time, device=mask.device), time)
    here_or_later = index.flip(1).cummin(1).values.flip(1)  # first real position ≥ t
    none = index.new_full((batch, 1), time)
    later = torch.cat([here_or_later[:, 1:], none], 1)  # first real position > t, or `time`
    ended = torch.cat([values, values.new_zeros(batch, 1)], 1)  # (batch, time + 1)
    return ended.gather(1, later)
