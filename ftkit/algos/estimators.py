"""How far estimates are off (bias) and how much they scatter (variance), on a tiny exact language.

With all answers and their probabilities the moments are exact expectations; with sampled answers
of equal weight they are what a batch shows. Every function takes both. Left out: anything that a
trainer calls; these measure what `ftkit.algos.returns` and `ftkit.algos.ppo` compute.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ftkit.algos.checks import check_positive, check_sequences
from ftkit.algos.masked import masked_row_sums
from ftkit.algos.mdp import Answers


class Moments(NamedTuple):
    """Bias and variance of token estimates in each cell: a state, or a state with a token.

    Attributes:
        bias: Shape of the truth, mean of the estimate minus the truth; 0 in unvisited cells.
        variance: Shape of the truth; 0 in unvisited cells.
        weight: Shape of the truth, each cell's share of all tokens; sums to 1.
    """

    bias: Tensor
    variance: Tensor
    weight: Tensor

    @property
    def rms_bias(self) -> float:
        """Root mean square of the bias over tokens, in the estimates' unit."""
        return float((self.weight * self.bias.square()).sum().sqrt())

    @property
    def std(self) -> float:
        """Square root of the variance's mean over tokens, in the estimates' unit."""
        return float((self.weight * self.variance).sum().sqrt())

    @property
    def rmse(self) -> float:
        """Root mean square error: √(bias² + variance)."""
        return float((self.rms_bias**2 + self.std**2) ** 0.5)


class Spread(NamedTuple):
    """How an estimate that is one number or one vector an answer is distributed.

    Attributes:
        mean: The estimate's expectation, without the axis of the answers.
        bias: ``‖mean − truth‖``.
        std: Square root of the summed variances: the typical distance of one answer's estimate
            from the mean. A batch of n answers has 1/√n of it.
    """

    mean: Tensor
    bias: float
    std: float


class Surrogates(NamedTuple):
    """Three estimates, an answer each, of how much better the new policy is than the old one.

    Attributes:
        whole: ``(answers,)``, Π_t r_t times Σ_t A_t: corrects for the whole answer.
        token: ``(answers,)``, Σ_t r_t·A_t: corrects each token alone.
        clipped: ``(answers,)``, Σ_t min(r_t·A_t, clip(r_t)·A_t): PPO's.
    """

    whole: Tensor
    token: Tensor
    clipped: Tensor


def moments(answers: Answers, probs: Tensor, estimates: Tensor, truth: Tensor) -> Moments:
    """Measure token estimates against the exact value of the state, or of state and token.

    Args:
        answers: All answers, or a sample.
        probs: ``(answers,)``, weights that sum to 1: exact probabilities, or 1/count each.
        estimates: ``(answers, time)``, e.g. value targets or advantages.
        truth: ``(states,)`` to average over everything that follows a state, or
            ``(states, actions)`` to average over what follows a token in it.

    Raises:
        ValueError: shapes that do not fit, or an estimate that is not finite (named).
    """
    check_sequences("moments", answers.mask, estimates=estimates)
    _check_weights("moments", probs, answers.mask)
    cell = answers.states
    if truth.ndim == 2:
        cell = cell * truth.shape[1] + answers.tokens
    real = answers.mask
    index, weights = cell[real], probs.to(estimates)[:, None].expand_as(estimates)[real]
    total, true = _summed(weights, index, truth.numel()), truth.detach().flatten()
    seen = total > 0
    mean = _summed(weights * estimates[real], index, len(true)) / total.where(seen, 1.0)
    off = weights * (estimates[real] - mean[index]).square()
    variance = _summed(off, index, len(true)) / total.where(seen, 1.0)
    bias = torch.where(seen, mean - true, 0.0)
    shaped = (x.reshape(truth.shape) for x in (bias, variance, total / total.sum()))
    return Moments(*shaped)


def spread(estimates: Tensor, probs: Tensor, truth: Tensor) -> Spread:
    """Measure estimates of one number or one vector, an answer each.

    Args:
        estimates: ``(answers, …)``.
        probs: ``(answers,)``, weights that sum to 1.
        truth: Shape of one estimate.

    Raises:
        ValueError: shapes that do not fit, or weights that do not sum to 1.
    """
    if estimates.shape[1:] != truth.shape:
        raise ValueError(
            f"spread: estimates have shape {tuple(estimates.shape)}, one row an answer, but the "
            f"truth has {tuple(truth.shape)}"
        )
    _check_weights("spread", probs, estimates)
    flat = estimates.detach().flatten(1) if estimates.ndim > 1 else estimates.detach()[:, None]
    mean = probs @ flat  # (numbers,)
    variance = probs @ (flat - mean).square()
    bias = float((mean - truth.detach().flatten()).norm())
    return Spread(mean.reshape(truth.shape), bias, float(variance.sum().sqrt()))


def answer_gradients(answers: Answers, logits: Tensor, advantages: Tensor) -> Tensor:
    """Return each answer's estimate of the policy gradient: Σ_t Â_t·∇ log π(a_t | s_t).

    For a softmax table ∇ log π is 1 at the chosen token minus the probabilities, in the row of
    its state (REINFORCE, Sutton & Barto 2018, sections 13.3 and 13.4).

    Args:
        answers: ``answers``.
        logits: ``(states, actions)`` of the policy that sampled them.
        advantages: ``(answers, time)``; what padding holds is not read.

    Returns:
        ``(answers, states, actions)``, no gradient.

    Raises:
        ValueError: shapes that differ, or an advantage that is not finite (named).
    """
    check_sequences("answer_gradients", answers.mask, advantages=advantages)
    gain = torch.where(answers.mask, advantages.detach(), 0.0)  # (answers, time)
    probs = torch.softmax(logits.detach(), 1)[answers.states]  # (answers, time, actions)
    chosen = torch.nn.functional.one_hot(answers.tokens, logits.shape[1])
    terms = gain[..., None] * (chosen - probs)
    place = answers.states[..., None].expand_as(terms)
    return terms.new_zeros(len(gain), *logits.shape).scatter_add(1, place, terms)


def surrogates(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_range: float = 0.2,
) -> Surrogates:
    """Estimate J(π) − J(π_old) from answers of the old policy, with three kinds of weight.

    With exact advantages and no KL price, Σ_t A_t of an answer is its score minus J(π_old), so the
    mean of ``whole`` under π_old is exactly the difference. ``token`` (the surrogate of Schulman
    et al. 2015, "Trust Region Policy Optimization", equation 3) has the same gradient at π = π_old
    but counts states as often as the old policy visits them. Clipping forgets more.

    Args:
        logprobs: ``(answers, time)`` in nats, of the new policy.
        old_logprobs: ``(answers, time)``, of the policy that sampled.
        advantages: ``(answers, time)``, of the old policy.
        mask: Bool ``(answers, time)``.
        clip_range: ε > 0.

    Raises:
        ValueError: shapes that differ, a number that is not finite (named), or ε not above 0.
    """
    check_positive("surrogates", clip_range=clip_range)
    tensors = {"logprobs": logprobs, "old_logprobs": old_logprobs, "advantages": advantages}
    check_sequences("surrogates", mask, **tensors)
    log_ratio = torch.where(mask, logprobs - old_logprobs, 0.0)
    ratio, gain = log_ratio.exp(), torch.where(mask, advantages, 0.0)
    bounded = torch.minimum(ratio * gain, ratio.clamp(1 - clip_range, 1 + clip_range) * gain)
    whole = masked_row_sums(log_ratio, mask).exp() * gain.sum(1)
    return Surrogates(whole, (ratio * gain).sum(1), bounded.sum(1))


def effective_share(log_weights: Tensor, probs: Tensor) -> float:
    """Return E[w]² / E[w²]: the share of the answers that importance weights leave in effect.

    Kong 1992; 1 when all weights are equal, towards 0 when one answer outweighs the rest.

    Args:
        log_weights: ``(answers,)``, log π(y)/π_old(y).
        probs: ``(answers,)``, weights of the answers under π_old, that sum to 1.

    Raises:
        ValueError: shapes that differ, or weights that do not sum to 1.
    """
    _check_weights("effective_share", probs, log_weights)
    weights = (log_weights - log_weights.max()).exp()  # the scale cancels
    return float((probs @ weights).square() / (probs @ weights.square()))


def _summed(terms: Tensor, index: Tensor, cells: int) -> Tensor:
    return terms.new_zeros(cells).index_add(0, index, terms)


def _check_weights(function: str, probs: Tensor, rows: Tensor) -> None:
    if probs.shape != rows.shape[:1] or abs(float(probs.sum()) - 1.0) > 1e-6:
        raise ValueError(
            f"{function}: probs must hold one weight for each of the {len(rows)} answers and sum "
            f"to 1; it has shape {tuple(probs.shape)} and sums to {float(probs.sum()):.6g}"
        )
