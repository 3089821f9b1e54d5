"""The one evaluation: answers to held-out prompts, their reward, and how far from the start.

It reads whatever adapter is active on a model, in place, so that a trainer can go on afterwards.
The sampler and the scorer are those of `ftkit.models`, for every algorithm.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from ftkit.algos import k1, masked_row_sums
from ftkit.chat.render import Messages
from ftkit.models import Loaded, LoraAdapter, packed_rows
from ftkit.models.generation import Completions, sample
from ftkit.models.heads import LogitHead
from ftkit.models.lora import adapter_parameters, attach, switched
from ftkit.models.responses import response_columns, spread
from ftkit.models.shared_base import BaseFacts, seeded
from ftkit.models.token_statistics import token_statistics
from ftkit.models.unpacking import folded, unpacked
from ftkit.stages.compare.recipe import CompareRecipe
from ftkit.stages.ppo.rollout import encode_prompts
from ftkit.stages.ppo.scoring import RewardFunction, checked_scores

_OWN = "start"  # of a start that no trainer keeps as its reference


@dataclass(frozen=True, slots=True)
class Look:
    """What an evaluation saw.

    Attributes:
        texts: Answers, without special tokens.
        golds: ``(answers,)`` rewards.
        kls: ``(answers,)`` Σ log π − log π_start over the tokens of each, nats.
        tokens: Completion tokens of all answers.
    """

    texts: list[str]
    golds: Tensor
    kls: Tensor
    tokens: int


def as_reward(reward: Callable[..., Sequence[float]]) -> RewardFunction:
    """Return a function of prompts and completions, made of one that may take completions alone.

    Raises:
        TypeError: not a function, or one with more than two arguments that have no default.
    """
    if not callable(reward):
        raise TypeError(f"reward={reward!r} is no function of (prompts, completions)")
    needed = [
        p
        for p in inspect.signature(reward).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(needed) > 2:
        raise TypeError(
            f"reward {getattr(reward, '__name__', reward)!r} takes {len(needed)} arguments: give a "
            "function of completions, or of prompts and completions"
        )
    if len(needed) == 2:
        return reward

    return _OfCompletions(reward)


@dataclass(frozen=True)
class _OfCompletions:
    """A reward that looks at completions alone; a class, since closures go to no other process."""

    func: Callable[[list[str]], Sequence[float]]  # as in a partial: `name_of` looks through it

    @property
    def __name__(self) -> str:
        return str(getattr(self.func, "__name__", "reward"))

    def __call__(self, prompts: list[str], completions: list[str]) -> Sequence[float]:
        return self.func(completions)


class Probe:
    """Samples answers to the same prompts with the same seed, whatever the policy."""

    def __init__(
        self,
        base: Loaded,
        prompts: Sequence[Messages],
        reward: RewardFunction,
        recipe: CompareRecipe,
        *,
        start: LoraAdapter | None,
        seed: int,
        samples: int = 1,
    ) -> None:
        """Prepare evaluations.

        Args:
            base: What all adapters sit on.
            prompts: Held-out conversations.
            reward: Of prompts and completions.
            recipe: Sizes and temperature.
            start: The adapter that all policies start from; None for the bare base.
            seed: Of the sampling; each `look` begins with it again.
            samples: Answers to each prompt.
        """
        self.prompts = [prompt for prompt in prompts for _ in range(samples)]
        self._base, self._reward, self._recipe, self._start = base, reward, recipe, start
        self._seed = seed
        self._texts, ids, mask = encode_prompts(
            base.tokenizer, self.prompts, recipe.max_prompt_tokens
        )
        self._ids, self._mask = ids.to(base.model.device), mask.to(base.model.device)
        self._facts = BaseFacts.of(base, base.model)

    def look(self, model: PeftModel) -> Look:
        """Return what `model` answers with its active adapter; nothing in it is changed."""
        generator = torch.Generator(self._ids.device).manual_seed(10_000 + self._seed)
        done = self.sampled(model, generator)
        with torch.no_grad(), _evaluating(model), switched(model, self._start_on(model)):
            before = self._logprobs(model, done)
        texts, golds = self.scored(done)
        kls = masked_row_sums(k1(done.logprobs, before), done.mask)
        return Look(texts, golds, kls.cpu(), int(done.mask.sum()))

    def sampled(self, model: PeftModel, generator: torch.Generator) -> Completions:
        """Return one answer a row from the active adapter."""
        causal, recipe = model.get_base_model(), self._recipe
        with _evaluating(model), unpacked(model), folded(model):
            return sample(
                causal.get_decoder(),
                LogitHead.of(causal),
                lambda states: states.new_zeros(len(states)),
                self._ids,
                self._mask,
                max_new_tokens=recipe.max_new_tokens,
                temperature=recipe.temperature,
                stop_ids=self._facts.stop_ids,
                pad_id=self._facts.pad_id,
                generator=generator,
            )

    def scored(self, done: Completions) -> tuple[list[str], Tensor]:
        """Return the texts of answers and their rewards ``(rows,)``.

        Raises:
            RewardError: the reward raised or gave something unusable.
        """
        rows = [ids[real].tolist() for ids, real in zip(done.ids, done.mask, strict=True)]
        texts = self._base.tokenizer.batch_decode(rows, skip_special_tokens=True)
        name = getattr(self._reward, "__name__", "reward")
        return texts, torch.tensor(checked_scores(name, self._reward, self._texts, texts))

    def _logprobs(self, model: PeftModel, done: Completions) -> Tensor:
        """Return ``(rows, completion)`` log-probabilities of `done` under the active adapter."""
        causal = model.get_base_model()
        ids = torch.cat([self._ids, done.ids], dim=1)
        mask = torch.cat([self._mask, done.mask], dim=1)
        columns, real = response_columns(mask, self._ids.shape[1])
        rows, places = torch.where(real)[0], columns[real]
        states, _ = packed_rows.read(causal.get_decoder(), ids, mask)
        logprobs, _ = token_statistics(
            LogitHead.of(causal),
            states[rows, places - 1],
            ids[rows, places],
            temperature=self._recipe.temperature,
            with_entropy=False,
        )
        laid_out: Any = spread(logprobs, real)
        return laid_out

    def _start_on(self, model: PeftModel) -> str | None:
        """Return the name of the start on `model`, put there if no trainer keeps it frozen."""
        if self._start is None:
            return None
        kept = [name for name in ("reference", "ref", _OWN) if name in model.peft_config]
        if not kept:
            with seeded(0, self._facts.device):  # PEFT draws weights that are overwritten at once
                attach(model, _OWN, self._start, self._facts.adapter_dtype)
            for _, parameter in adapter_parameters(model, _OWN):
                parameter.requires_grad_(False)
        return kept[0] if kept else _OWN


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
