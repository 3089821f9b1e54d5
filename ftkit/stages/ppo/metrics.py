"""What a PPO round logs, under the names that readers know from TRL's PPO, padding never counted.

`objective/*` describes the sampled completions, `policy/*`, `loss/*` and `val/*` the updates.
New here: completion length, distinct-2, EOS rate, empty completions, k2 and k3 estimates, explained
variance, the first update's ratio, gradient norm.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ftkit.algos import explained_variance, masked_mean, masked_row_sums, token_kl
from ftkit.algos.kl import KLEstimator
from ftkit.stages.ppo.rollout import Rollout
from ftkit.stages.ppo.scoring import Scored
from ftkit.stages.ppo.update import Update


def rollout_metrics(
    rollout: Rollout, scored: Scored, returns: Tensor, kl_coef: float
) -> dict[str, float]:
    """Return the numbers of the sampled completions, means over the round."""
    mask = rollout.mask
    sequence_kl = masked_row_sums(scored.kl, mask)

    def mean_kl(estimator: KLEstimator) -> float:
        kl = token_kl(rollout.logprobs, scored.ref_logprobs, mask, estimator)
        return float(masked_row_sums(kl, mask).mean())

    parts = {f"rewards/{name}/mean": float(part.mean()) for name, part in scored.parts.items()}
    return {
        "objective/scores": float(scored.scores.mean()),
        "objective/scores_std": float(scored.scores.std(correction=0)),
        "objective/rlhf_reward": float((scored.paid - kl_coef * sequence_kl).mean()),
        "objective/non_score_reward": float((-kl_coef * sequence_kl).mean()),
        "objective/kl": float(sequence_kl.mean()),
        "objective/kl_k2": mean_kl("k2"),
        "objective/kl_k3": mean_kl("k3"),
        "objective/kl_coef": kl_coef,
        "objective/entropy": float(masked_mean(rollout.entropy, mask)),
        "objective/length": float(mask.sum(dim=1).float().mean()),
        "objective/distinct": _distinct_pairs(rollout.completion_ids, mask),
        "objective/eos_rate": float(rollout.ended.float().mean()),
        "objective/empty_rate": rollout.completions.count("") / len(rollout.completions),
        "val/num_eos_tokens": float(rollout.ended.sum()),
        "val/explained_variance": float(explained_variance(rollout.values, returns, mask)),
        **parts,
    }


def _distinct_pairs(ids: Tensor, mask: Tensor) -> float:
    """Return distinct-2: different neighbouring token pairs by all of them, 0 without any."""
    pairs = torch.stack([ids[:, :-1], ids[:, 1:]], dim=-1)[mask[:, 1:]]  # (pairs, 2)
    return len(pairs.unique(dim=0)) / len(pairs) if len(pairs) else 0.0


def update_metrics(updates: Sequence[Update]) -> dict[str, float]:
    """Return the numbers of the round's optimizer steps, means over the steps."""
    ratios = [masked_mean(u.ratio, u.mask) for u in updates]
    mean_ratio = sum(map(float, ratios)) / len(ratios)
    return {
        "loss/policy_avg": _mean([u.policy_loss for u in updates]),
        "loss/value_avg": _mean([u.value_loss for u in updates]),
        "policy/approxkl_avg": _mean([u.approx_kl for u in updates]),
        "policy/clipfrac_avg": _mean([u.clip_fraction for u in updates]),
        "policy/entropy_avg": _mean([u.entropy for u in updates]),
        "policy/grad_norm": _mean([u.grad_norm for u in updates]),
        "val/clipfrac_avg": _mean([u.value_clip_fraction for u in updates]),
        "val/first_ratio": float(ratios[0]),
        "val/ratio": mean_ratio,
        "val/ratio_var": _mean([(float(r) - mean_ratio) ** 2 for r in ratios]),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
