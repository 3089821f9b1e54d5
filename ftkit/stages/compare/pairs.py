"""Preference pairs for DPO, sampled from the start and labelled by the gold reward.

The pairs keep the sampled tokens themselves. Text would be tokenized anew, and an answer that was
cut at its greatest length would get a stop token that nobody sampled.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset

from ftkit.chat.render import Messages
from ftkit.errors import DataError
from ftkit.models import Roles
from ftkit.stages.compare.meter import Meter
from ftkit.stages.compare.recipe import CompareRecipe
from ftkit.stages.ppo.rollout import encode_prompts
from ftkit.stages.ppo.scoring import RewardFunction, checked_scores


@dataclass(frozen=True, slots=True)
class SampledPair:
    """The best and the worst of a few answers to one prompt."""

    prompt: Messages
    prompt_ids: list[int]
    chosen: str
    rejected: str
    chosen_ids: list[int]
    rejected_ids: list[int]


def sampled_pairs(
    roles: Roles,
    tokenizer: Any,
    prompts: Sequence[Messages],
    reward: RewardFunction,
    recipe: CompareRecipe,
    meter: Meter,
    seed: int,
) -> tuple[list[SampledPair], int]:
    """Sample until the token budget holds no further batch, and pair what differs in reward.

    Args:
        roles: Their policy is the start.
        tokenizer: The base's.
        prompts: Each is asked `recipe.group_size` times before any comes again.
        reward: Of prompts and completions.
        recipe: Budget and sizes.
        meter: Its tokens are counted, those of dropped answers too.
        seed: Of the order and the sampling.

    Returns:
        The pairs, and how many groups of answers gave none: all with one reward, or with an
        empty answer as the best or worst.

    Raises:
        DataError: no group gave a pair.
        RewardError: the reward raised or gave something unusable.
    """
    generator = torch.Generator(roles.model.device).manual_seed(seed)
    turns = _turns(len(prompts), recipe.batch_size // recipe.group_size, seed)
    pairs: list[SampledPair] = []
    groups = 0
    latest = recipe.patience * recipe.seconds
    while meter.tokens + recipe.step_tokens <= recipe.tokens and meter.seconds <= latest:
        asked = [prompts[i] for i in next(turns) for _ in range(recipe.group_size)]
        found = _batch(roles, tokenizer, asked, reward, recipe, meter, generator)
        groups += len(found)
        pairs += [pair for pair in found if pair is not None]
    if not pairs:
        raise DataError(
            f"the reward gave one and the same score within each of {groups} groups of "
            f"{recipe.group_size} answers: there are no pairs for DPO to learn from"
        )
    return pairs, groups - len(pairs)


def pair_rows(pairs: Sequence[SampledPair]) -> Dataset:
    """Return the pairs as tokens, as TRL's collator reads them."""
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    return Dataset.from_list([{name: getattr(pair, name) for name in names} for pair in pairs])


def pair_texts(pairs: Sequence[SampledPair]) -> Dataset:
    """Return the pairs as conversations."""
    return Dataset.from_list(
        [
            {
                "prompt": list(pair.prompt),
                "chosen": [{"role": "assistant", "content": pair.chosen}],
                "rejected": [{"role": "assistant", "content": pair.rejected}],
            }
            for pair in pairs
        ]
    )


def _turns(count: int, size: int, seed: int) -> Iterator[list[int]]:
    """Yield lists of `size` prompt numbers; each prompt once before any comes again."""
    shuffled = torch.Generator().manual_seed(seed)
    order: list[int] = []
    while True:
        while len(order) < size:
            order += torch.randperm(count, generator=shuffled).tolist()
        yield order[:size]
        order = order[size:]


def _batch(
    roles: Roles,
    tokenizer: Any,
    asked: Sequence[Messages],
    reward: RewardFunction,
    recipe: CompareRecipe,
    meter: Meter,
    generator: torch.Generator,
) -> list[SampledPair | None]:
    """Sample one answer to each of `asked`; return a pair or None for each group."""
    texts, ids, mask = encode_prompts(tokenizer, asked, recipe.max_prompt_tokens)
    device = roles.model.device
    done = roles.generate(
        ids.to(device),
        mask.to(device),
        max_new_tokens=recipe.max_new_tokens,
        temperature=recipe.temperature,
        generator=generator,
    )
    meter.tokens += int(done.mask.sum())
    answers = [row[real].tolist() for row, real in zip(done.ids, done.mask, strict=True)]
    said = tokenizer.batch_decode(answers, skip_special_tokens=True)
    scores = checked_scores(getattr(reward, "__name__", "reward"), reward, texts, said)
    found: list[SampledPair | None] = []
    for first in range(0, len(asked), recipe.group_size):
        group = range(first, first + recipe.group_size)
        best, worst = max(group, key=scores.__getitem__), min(group, key=scores.__getitem__)
        usable = scores[best] > scores[worst] and said[best].strip() and said[worst].strip()
        prompt_ids = ids[first][mask[first]].tolist()
        pair = SampledPair(
            asked[first], prompt_ids, said[best], said[worst], answers[best], answers[worst]
        )
        found.append(pair if usable else None)
    return found
