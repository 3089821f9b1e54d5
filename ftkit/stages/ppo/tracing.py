"""What a round leaves in the trace: the very tensors that it computed with, for a few rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ftkit.algos import GAE, masked_mean, masked_var
from ftkit.chat.spans import decode
from ftkit.models import Loaded
from ftkit.models.roles import Roles
from ftkit.records.ppo_trace import PPOIteration, PPOTraceConfig, PPOUpdate
from ftkit.stages.ppo.config import PPOConfig
from ftkit.stages.ppo.rollout import Rollout
from ftkit.stages.ppo.scoring import Scored
from ftkit.stages.ppo.update import Update


@dataclass(frozen=True, slots=True)
class Round:
    """Everything that one round computed.

    Attributes:
        number: From 1.
        rollout: Completions, old log-probabilities, values.
        scored: Scores, reference log-probabilities, KL, rewards.
        estimate: Advantages (not whitened) and returns.
        advantages: ``(batch, completion)``, what the policy loss saw.
        updates: In the order in which they ran.
        metrics: What was logged.
    """

    number: int
    rollout: Rollout
    scored: Scored
    estimate: GAE
    advantages: Tensor
    updates: Sequence[Update]
    metrics: dict[str, float]


def trace_config(
    config: PPOConfig, base: Loaded, roles: Roles, rewards: Mapping[str, object]
) -> PPOTraceConfig:
    """Return what the trace needs of the run's choices, and what its roles are, in words."""
    kind = (base.card.quantization or base.card.compute_dtype).upper()
    millions = base.card.parameters / 1e6
    copied = "reference" in roles.model.peft_config
    return PPOTraceConfig(
        base=f"one {kind} base, {millions:.0f} M parameters, {base.card.memory_mb:.0f} MB",
        reward=" + ".join(
            "reward adapter · score head" if part == "model" else f"function {name}"
            for name, part in rewards.items()
        ),
        reference="SFT adapter, frozen" if copied else "the bare base, frozen",
        gamma=config.gamma,
        lam=config.lam,
        cliprange=config.clip_range,
        cliprange_value=config.clip_range_value,
        value_coef=config.value_coef,
        entropy_coef=config.entropy_coef,
        temperature=config.temperature,
        kl_estimator=config.kl_estimator,
        whiten_rewards=config.whiten_rewards,
        whiten_advantages=config.whiten_advantages,
        rows=max(1, len(config.traced_rows)),
        max_iterations=config.trace_iterations,
    )


def traced(
    done: Round, roles: Roles, tokenizer: Any, kl_coef: float, config: PPOConfig
) -> PPOIteration:
    """Return the record of a round, of the completions that `config.traced_rows` names."""
    rows = list(config.traced_rows)
    rollout, scored, estimate = done.rollout, done.scored, done.estimate
    raw, mask = estimate.advantages, rollout.mask
    whitened = config.whiten_advantages
    tokens = [
        _texts(tokenizer, ids[real].tolist())
        for ids, real in zip(rollout.completion_ids[rows], mask[rows], strict=True)
    ]
    return PPOIteration(
        number=done.number,
        prompts=[rollout.prompts[row] for row in rows],
        prompt_ids=[
            ids[real].tolist()
            for ids, real in zip(rollout.prompt_ids[rows], rollout.prompt_mask[rows], strict=True)
        ],
        tokens=tokens,
        token_ids=_array(rollout.completion_ids[rows]),
        logprobs=_array(rollout.logprobs[rows]),
        ref_logprobs=_array(scored.ref_logprobs[rows]),
        kl=_array(scored.kl[rows]),
        values=_array(rollout.values[rows]),
        rewards=_array(scored.token_rewards[rows]),
        advantages=_array(raw[rows]),
        returns=_array(estimate.returns[rows]),
        scores=_array(scored.scores[rows]),
        kl_coef=kl_coef,
        updates=[_update(update, rows) for update in done.updates],
        metrics=done.metrics,
        new_logprobs=_array(_logprobs_now(rollout, roles, config, rows)),
        paid_scores=_array(scored.paid[rows]),
        whitened_rewards=_array(scored.rewards[rows]) if config.whiten_rewards else None,
        whitened_advantages=_array(done.advantages[rows]) if whitened else None,
        advantage_mean=float(masked_mean(raw, mask)) if whitened else None,
        advantage_std=float((masked_var(raw, mask) + 1e-8).sqrt()) if whitened else None,
    )


def _logprobs_now(rollout: Rollout, roles: Roles, config: PPOConfig, rows: list[int]) -> Tensor:
    """Log-probabilities of the same tokens after the round's last update."""
    with torch.no_grad(), roles.as_policy():
        return roles.logprobs_and_values(
            rollout.ids[rows],
            rollout.attention[rows],
            rollout.start,
            temperature=config.temperature,
            with_values=False,
        ).logprobs


def _update(update: Update, kept: list[int]) -> PPOUpdate:
    held = update.rows.tolist()
    here = [place for place, row in enumerate(held) if row in kept]
    return PPOUpdate(
        epoch=update.epoch,
        minibatch=update.minibatch,
        rows=[kept.index(held[place]) for place in here],
        ratio=_array(update.ratio[here]),
        clipped=_array(update.clipped[here]),
        policy_loss=update.policy_loss,
        value_loss=update.value_loss,
        entropy=update.entropy,
        clip_fraction=update.clip_fraction,
        approx_kl=update.approx_kl,
    )


def _texts(tokenizer: Any, ids: list[int]) -> list[str]:
    """The characters that each token owns; joined they give the answer."""
    text, encoded = decode(tokenizer, ids)
    return [text[slice(*span)] for span in encoded.spans]


def _array(tensor: Tensor) -> Any:
    return tensor.detach().cpu().numpy()
