"""How far the policy is from the reference, estimated from the sampled tokens; and as a reward.

The exact KL of one position is a sum over the vocabulary for two models. Three estimators need
only the log-probabilities of the token that was sampled (Schulman 2020, "Approximating KL
Divergence", joschu.net/blog/kl-approx.html). With x drawn from q, r = p(x) / q(x) and
KL[q, p] = E_q[log q(x) − log p(x)], they are functions of log r.

These are estimates of the *value* of the KL. As a loss they differ: in expectation the gradient of
k1 is 0, that of k2 is the gradient of KL[q, p], that of k3 is the gradient of KL[p, q].
"""

from typing import Literal

import torch
from torch import Tensor

from ftkit.algos.checks import check_not_negative, check_sequences, check_vector, keep_real
from ftkit.algos.masked import last_real_index

KLEstimator = Literal["k1", "k2", "k3"]


def k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Return −log r = log q − log p: unbiased, but negative for about half of the tokens.

    Summed over an answer it is exactly log π(y)/π_ref(y), the penalty of Ziegler et al. 2019.

    Args:
        logprobs: log q of the sampled tokens, in nats, any shape; they were sampled from q.
        ref_logprobs: log p of the same tokens.

    Returns:
        Nats, same shape.
    """
    return logprobs - ref_logprobs


def k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Return ½·(log r)²: never negative, low variance, biased (little while q is close to p).

    Args:
        logprobs: log q of the sampled tokens, in nats, any shape; they were sampled from q.
        ref_logprobs: log p of the same tokens.

    Returns:
        Nats, same shape.
    """
    return 0.5 * (ref_logprobs - logprobs).square()


def k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Return (r − 1) − log r: unbiased and, up to rounding, never negative.

    k1 plus a control variate of mean 0. Overflows to infinity where log r > 88 in float32: then
    the sampled token was all but impossible under the model that is said to have sampled it.

    Args:
        logprobs: log q of the sampled tokens, in nats, any shape; they were sampled from q.
        ref_logprobs: log p of the same tokens.

    Returns:
        Nats, same shape.
    """
    log_ratio = ref_logprobs - logprobs
    return torch.expm1(log_ratio) - log_ratio


_ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3}


def token_kl(
    logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, estimator: KLEstimator = "k1"
) -> Tensor:
    """Estimate KL[policy, reference] at each token that the policy sampled.

    Args:
        logprobs: ``(batch, completion)``, the policy's, in nats.
        ref_logprobs: ``(batch, completion)``, the reference's, of the same tokens.
        mask: Bool ``(batch, completion)``, true at response tokens.
        estimator: ``"k1"``, ``"k2"`` or ``"k3"``, see the functions of these names.

    Returns:
        ``(batch, completion)`` in nats, at least float32, 0 at padding.

    Raises:
        ValueError: an unknown estimator, shapes that differ, a mask that is not bool, not 2-D or
            selects nothing, or a log-probability that is not finite (named with row and token).
    """
    if estimator not in _ESTIMATORS:
        raise ValueError(f"token_kl: estimator is {estimator!r}; use 'k1', 'k2' or 'k3'")
    check_sequences("token_kl", mask, logprobs=logprobs, ref_logprobs=ref_logprobs)
    return _ESTIMATORS[estimator](keep_real(logprobs, mask), keep_real(ref_logprobs, mask))


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """Pay −β·KL at every response token, and the answer's score at its last real one.

    Equation 2 of Ziegler et al. 2019, R = r(x, y) − β·log(π(y|x)/ρ(y|x)), spread over the tokens:
    each carries its own KL term, so with k1 a row sums to R.

    Args:
        scores: ``(batch,)``, one an answer, in the unit of the reward model.
        kl: ``(batch, completion)`` in nats, see `token_kl`.
        mask: Bool ``(batch, completion)``, true at response tokens.
        kl_coef: β ≥ 0, in score units a nat.

    Returns:
        ``(batch, completion)`` in the unit of `scores`, 0 at padding, no gradient.

    Raises:
        ValueError: shapes that differ, a row without a response token (nowhere to pay its score),
            a score or KL that is not finite (named), or β negative.
    """
    check_sequences("token_rewards", mask, kl=kl)
    check_not_negative("token_rewards", kl_coef=kl_coef)
    check_vector("token_rewards", scores=scores)
    if len(scores) != len(mask):
        raise ValueError(f"token_rewards: {len(scores)} scores for {len(mask)} answers")
    penalty = -kl_coef * keep_real(kl.detach(), mask)  # (batch, completion)
    last = last_real_index(mask)[:, None]  # (batch, 1)
    return penalty.scatter_add(1, last, scores.detach().to(penalty.dtype)[:, None])
