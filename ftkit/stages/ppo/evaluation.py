"""How good a policy is now: one completion for each prompt, scored; nothing is trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ftkit.algos import masked_row_sums
from ftkit.chat.render import Messages
from ftkit.models.roles import Roles
from ftkit.stages.ppo.config import PPOConfig
from ftkit.stages.ppo.rollout import collect, encode_prompts
from ftkit.stages.ppo.scoring import RewardMix, numbered, score

_ROWS = 4
"""Batches of training that are read at once: no pass keeps anything for a backward pass."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a policy answers, and what that is worth.

    Attributes:
        prompts: Rendered prompt texts.
        completions: One for each, without special tokens.
        scores: ``(prompts,)`` weighted sums of the rewards.
        parts: Name → ``(prompts,)`` scores of each reward, before weights.
        kl: ``(prompts,)`` Σ of the config's per-token estimate of the KL from the reference, nats.
    """

    prompts: list[str]
    completions: list[str]
    scores: Tensor
    parts: dict[str, Tensor]
    kl: Tensor


def evaluate(
    roles: Roles,
    tokenizer: Any,
    conversations: Sequence[Messages],
    reward: RewardMix,
    config: PPOConfig,
    seed: int,
) -> Evaluation:
    """Sample a completion for each conversation, and score them.

    Raises:
        DataError: a prompt longer than `config.max_prompt_tokens`; names the row.
        RewardError: names the reward and the prompt.
    """
    encode_prompts(tokenizer, conversations, config.max_prompt_tokens)  # before any work is lost
    batches, rows = [], _ROWS * config.batch_size
    for at in range(0, len(conversations), rows):
        batch = conversations[at : at + rows]
        # One each: a batch that ends early leaves the random numbers of the next as they are.
        generator = torch.Generator(roles.model.device).manual_seed(seed + at)
        rollout = collect(roles, tokenizer, batch, config, generator)
        with numbered(range(at, at + len(batch))):
            batches.append((rollout, score(roles, rollout, reward, config.kl_coef, config)))
    rollouts, scored = zip(*batches, strict=True)
    return Evaluation(
        prompts=[prompt for rollout in rollouts for prompt in rollout.prompts],
        completions=[text for rollout in rollouts for text in rollout.completions],
        scores=torch.cat([s.scores for s in scored]).cpu(),
        parts={name: torch.cat([s.parts[name] for s in scored]).cpu() for name in scored[0].parts},
        kl=torch.cat([masked_row_sums(s.kl, r.mask) for r, s in batches]).cpu(),
    )
