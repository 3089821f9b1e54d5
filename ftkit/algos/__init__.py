"""The maths of the course as small pure functions: tensors in, tensors out, no model, no I/O."""

from ftkit.algos.kl import KLEstimator, k1, k2, k3, token_kl, token_rewards
from ftkit.algos.kl_controller import AdaptiveKL, FixedKL, KLController
from ftkit.algos.logits import token_entropy, token_logprobs
from ftkit.algos.losses import causal_lm_loss, token_losses
from ftkit.algos.masked import last_real_index, masked_mean, masked_row_sums, masked_var, whiten
from ftkit.algos.ppo import (
    PolicyLoss,
    ValueLoss,
    approx_kl,
    clip_fraction,
    explained_variance,
    policy_loss,
    value_loss,
)
from ftkit.algos.returns import GAE, gae, monte_carlo_returns, td_targets
from ftkit.algos.reward import pairwise_losses, pairwise_reward_loss

__all__ = [
    "GAE",
    "AdaptiveKL",
    "FixedKL",
    "KLController",
    "KLEstimator",
    "PolicyLoss",
    "ValueLoss",
    "approx_kl",
    "causal_lm_loss",
    "clip_fraction",
    "explained_variance",
    "gae",
    "k1",
    "k2",
    "k3",
    "last_real_index",
    "masked_mean",
    "masked_row_sums",
    "masked_var",
    "monte_carlo_returns",
    "pairwise_losses",
    "pairwise_reward_loss",
    "policy_loss",
    "td_targets",
    "token_entropy",
    "token_kl",
    "token_logprobs",
    "token_losses",
    "token_rewards",
    "value_loss",
    "whiten",
]
