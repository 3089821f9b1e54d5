"""Step 1 of a PPO round: sample completions and keep what the policy said about them.

The log-probabilities kept here are those of the *old policy* for the whole round; the updates
compare with them, not with the reference. They are the sampler's own, and so are the values: a
second pass over the finished completions would cost a tenth of a round and tell nothing that the
first update does not check (its ratio must be 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ftkit.chat.render import Messages, Renderer
from ftkit.errors import DataError
from ftkit.models.roles import Roles
from ftkit.stages.ppo.config import PPOConfig


@dataclass(frozen=True, slots=True)
class Rollout:
    """Completions of one round and the old policy's view of them.

    Attributes:
        prompts: Rendered prompt texts.
        completions: Decoded completions, without special tokens.
        prompt_ids: ``(batch, prompt)``, padded on the left.
        prompt_mask: Bool ``(batch, prompt)``.
        completion_ids: ``(batch, completion)``, padded on the right.
        mask: Bool ``(batch, completion)``, true at sampled tokens, the stop token included.
        ended: Bool ``(batch,)``, whether a stop token was sampled.
        logprobs: ``(batch, completion)`` log π_old in nats, 0 at padding.
        values: ``(batch, completion)`` the critic's estimate before each token.
        entropy: ``(batch, completion)`` of π_old in nats.
    """

    prompts: list[str]
    completions: list[str]
    prompt_ids: Tensor
    prompt_mask: Tensor
    completion_ids: Tensor
    mask: Tensor
    ended: Tensor
    logprobs: Tensor
    values: Tensor
    entropy: Tensor

    @property
    def ids(self) -> Tensor:
        """``(batch, prompt + completion)``."""
        return torch.cat([self.prompt_ids, self.completion_ids], dim=1)

    @property
    def attention(self) -> Tensor:
        """Bool ``(batch, prompt + completion)``."""
        return torch.cat([self.prompt_mask, self.mask], dim=1)

    @property
    def start(self) -> int:
        """Column of the first completion token."""
        return self.prompt_ids.shape[1]


def collect(
    roles: Roles,
    tokenizer: Any,
    conversations: Sequence[Messages],
    config: PPOConfig,
    generator: torch.Generator,
) -> Rollout:
    """Sample one completion for each conversation, with the policy's view of every token.

    Raises:
        DataError: a prompt longer than `config.max_prompt_tokens`; names the row.
    """
    prompts, ids, mask = encode_prompts(tokenizer, conversations, config.max_prompt_tokens)
    ids, mask = ids.to(roles.model.device), mask.to(roles.model.device)
    sampled = roles.generate(
        ids,
        mask,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        generator=generator,
        stop=config.stop_at_eos,
    )
    return Rollout(
        prompts=prompts,
        completions=tokenizer.batch_decode(
            [row[real] for row, real in zip(sampled.ids, sampled.mask, strict=True)],
            skip_special_tokens=True,
        ),
        prompt_ids=ids,
        prompt_mask=mask,
        completion_ids=sampled.ids,
        mask=sampled.mask,
        ended=sampled.ended,
        logprobs=sampled.logprobs,
        values=sampled.values,
        entropy=sampled.entropy,
    )


def encode_prompts(
    tokenizer: Any, conversations: Sequence[Messages], longest: int
) -> tuple[list[str], Tensor, Tensor]:
    """Render with the generation prompt and pad on the left.

    Returns:
        Texts, ids ``(batch, prompt)`` and bool mask ``(batch, prompt)``.

    Raises:
        DataError: a prompt longer than `longest` tokens; names the row.
    """
    renderer = Renderer.of(tokenizer)
    texts = [renderer.render(c, generation_prompt=True) for c in conversations]
    batch = tokenizer(
        texts, padding=True, padding_side="left", add_special_tokens=False, return_tensors="pt"
    )
    lengths = batch["attention_mask"].sum(dim=1)
    if (too_long := lengths > longest).any():
        row = int(too_long.nonzero()[0])
        raise DataError(
            f"prompt {row} has {int(lengths[row])} tokens, more than "
            f"max_prompt_tokens={longest}: raise it, or leave such prompts out. It begins "
            f"{texts[row][:60]!r}"
        )
    return texts, batch["input_ids"], batch["attention_mask"].bool()
