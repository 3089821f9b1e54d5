"""The maths of the course as small pure functions: tensors in, tensors out, no model, no I/O."""

from ftkit.algos.dpo import dpo_loss, dpo_losses, dpo_weights, implicit_rewards
from ftkit.algos.grpo import (
    GRPOLoss,
    RLOOLoss,
    group_advantages,
    grpo_loss,
    leave_one_out_advantages,
    rewards_after_kl,
    rloo_loss,
    token_weights,
    without_signal,
)
from ftkit.algos.kl import KLEstimator, k1, k2, k3, token_kl, token_rewards
from ftkit.algos.kl_controller import AdaptiveKL, FixedKL, KLController
from ftkit.algos.logits import token_entropy, token_logprobs
from ftkit.algos.losses import causal_lm_loss, token_losses
from ftkit.algos.masked import last_real_index, masked_mean, masked_row_sums, masked_var, whiten
from ftkit.algos.neftune import (
    critical_magnitudes,
    neftune_noise,
    noise_magnitude,
    sequence_noise_l2,
    token_noise_l2,
)
from ftkit.algos.packing import (
    Packed,
    Stream,
    concatenate,
    cut,
    document_positions,
    group_text,
    sees_other_document,
)
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
from ftkit.algos.spectrum import effective_rank, rank_for_energy, singular_values

__all__ = [
    "GAE",
    "AdaptiveKL",
    "FixedKL",
    "GRPOLoss",
    "KLController",
    "KLEstimator",
    "Packed",
    "PolicyLoss",
    "RLOOLoss",
    "Stream",
    "ValueLoss",
    "approx_kl",
    "causal_lm_loss",
    "clip_fraction",
    "concatenate",
    "critical_magnitudes",
    "cut",
    "document_positions",
    "dpo_loss",
    "dpo_losses",
    "dpo_weights",
    "effective_rank",
    "explained_variance",
    "gae",
    "group_advantages",
    "group_text",
    "grpo_loss",
    "implicit_rewards",
    "k1",
    "k2",
    "k3",
    "last_real_index",
    "leave_one_out_advantages",
    "masked_mean",
    "masked_row_sums",
    "masked_var",
    "monte_carlo_returns",
    "neftune_noise",
    "noise_magnitude",
    "pairwise_losses",
    "pairwise_reward_loss",
    "policy_loss",
    "rank_for_energy",
    "rewards_after_kl",
    "rloo_loss",
    "sees_other_document",
    "sequence_noise_l2",
    "singular_values",
    "td_targets",
    "token_entropy",
    "token_kl",
    "token_logprobs",
    "token_losses",
    "token_noise_l2",
    "token_rewards",
    "token_weights",
    "value_loss",
    "whiten",
    "without_signal",
]
