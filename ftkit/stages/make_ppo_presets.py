"""Record the PPO runs that `PPOStepper` offers beside your own: one healthy, four that fail.

``python -m ftkit.stages.make_ppo_presets [NAME …]`` runs the real `PPOTrainer` on the embedded
model on the CPU and rewrites ``ftkit/records/presets/NAME``, all of them without a name; about 3
minutes each on 2 cores. Two failures come from settings alone. No setting brings the other two, a
sampler that is not the scorer and whitening over padding: they are broken on purpose here, from
outside, by replacing one function of the trainer (`_another_temperature`,
`_whitening_everything`). Every number in the texts is read from the trace that they belong to.
"""

import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from ftkit import data
from ftkit.chat.render import Messages
from ftkit.models import Loaded, Roles, load
from ftkit.records import PPOIteration, PPOTrace, Start, ppo_store
from ftkit.stages.ppo import PPOConfig, trainer, update
from ftkit.stages.ppo.rollout import Rollout
from ftkit.stages.ppo.scoring import RewardMix

KEPT = 12
"""Rounds of a run that are kept, at even distances."""
SCORE, KL = "objective/scores", "objective/kl"
CLIPPED, ENTROPY = "policy/clipfrac_avg", "objective/entropy"
SAMPLER_TEMPERATURE = 0.6
YES_OR_NO = (
    *("Is Paris in France?", "Is the sun a star?", "Is fire hot?", "Do fish swim?"),
    *("Is snow white?", "Is Monday a day?", "Do birds fly?"),
)
OPEN = ("What do you think about cats?", "Tell me about your job.", "Describe a rainy afternoon.")

Texts = tuple[str, str, str]
"""What happens, where to look, the cure."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One run to record.

    Attributes:
        name: Of the folder.
        title: In the picker.
        config: Of the trainer.
        reward: Of the trainer; parts with weight 0 are only watched.
        paid: What the reward role is, in words.
        watch: Metrics that tell the story.
        tell: Trace → its texts, with the numbers that were measured.
        start: Trace → where to look first.
        prompts: What is asked.
        broken: Holds while the trainer runs.
    """

    name: str
    title: str
    config: PPOConfig
    reward: RewardMix
    paid: str
    watch: tuple[str, ...]
    tell: Callable[[PPOTrace], Texts]
    start: Callable[[PPOTrace], Start]
    prompts: Sequence[str | Messages] = ()
    broken: Callable[[], AbstractContextManager[None]] = nullcontext


# --- rewards -----------------------------------------------------------------------------------


def sentiment(prompts: list[str], completions: list[str]) -> list[float]:
    """VADER's sentiment of each completion, −1 to 1."""
    return data.sentiment(completions)


def cheer(prompts: list[str], completions: list[str]) -> list[float]:
    """A careless stand-in for good mood: a quarter for each exclamation mark."""
    return [completion.count("!") / 4 for completion in completions]


def variety(prompts: list[str], completions: list[str]) -> list[float]:
    """Share of different words among all words of each completion; 0 without a word."""
    words = [re.findall(r"\w+", completion.lower()) for completion in completions]
    return [len(set(w)) / len(w) if w else 0.0 for w in words]


# --- what is broken from outside -----------------------------------------------------------------


@contextmanager
def _another_temperature() -> Iterator[None]:
    """Sample at another temperature than everything else scores at, and silence the check.

    The log-probabilities of the rollout are the sampler's own, as an inference engine hands them
    over; updates and reference go on with the temperature of the config.
    """
    honest = trainer.collect

    def collect(
        roles: Roles, tokenizer: Any, batch: Any, config: PPOConfig, generator: torch.Generator
    ) -> Rollout:
        other = replace(config, temperature=SAMPLER_TEMPERATURE)
        return honest(roles, tokenizer, batch, other, generator)

    silent = patch.object(update, "check_first_ratio", lambda *_: None)
    with patch.object(trainer, "collect", collect), silent:
        yield


@contextmanager
def _whitening_everything() -> Iterator[None]:
    """Take mean and variance of the advantages over the whole rectangle, padding included."""

    def whiten(values: Tensor, mask: Tensor) -> Tensor:
        whitened = (values - values.mean()) / (values.var(correction=0) + 1e-8).sqrt()
        return whitened.masked_fill(~mask, 0.0)

    with patch.object(trainer, "whiten", whiten):
        yield


# --- the runs ------------------------------------------------------------------------------------

BASE = PPOConfig(iterations=16, batch_size=16, max_new_tokens=20, trace_rows=2)
UNLEASHED = replace(BASE, kl_coef=0.0, lr_schedule="constant")
WATCHED_ONLY: dict[str, tuple[float, Any]] = {"gold": (0.0, sentiment), "variety": (0.0, variety)}


def healthy(trace: PPOTrace) -> Texts:
    """What a run looks like that does what it should."""
    score, kl = (_quarters(trace, key) for key in (SCORE, KL))
    return (
        f"Sentiment is the reward, β = 0.05 the leash. The mean score rises from {score[0]:.2f} in "
        f"the first quarter of the rounds to {score[1]:.2f} in the last, for {kl[1]:.1f} nats of "
        "KL a completion.",
        "Update, first minibatch: every ratio is 1, since nothing has been trained yet. Then move "
        "the iteration: KL grows slowly, entropy stays, few tokens are clipped, and the answers "
        "are still language, as good as the 135 M parameters allow.",
        "",
    )


def reward_hacking(trace: PPOTrace) -> Texts:
    """The proxy climbs; what it stood for does not."""
    first, last = trace.iterations[0].metrics, trace.iterations[-1].metrics
    gold, kinds = "rewards/gold/mean", "rewards/variety/mean"
    best = max(trace.iterations, key=lambda iteration: iteration.metrics[gold])
    return (
        "The reward counts exclamation marks, as a stand-in for a good mood, and β is 0. It rises "
        f"from {first[SCORE]:.2f} to {last[SCORE]:.2f}. The mood itself (gold: sentiment, watched "
        f"but not paid) rises with it at first, from {first[gold]:.2f} to "
        f"{best.metrics[gold]:.2f} in iteration {best.number}, then falls to {last[gold]:.2f}; "
        f"different words fall from {first[kinds]:.0%} of all words to {last[kinds]:.0%}.",
        "The first two curves part: the score goes on, gold turns back. Walk through the "
        "iterations and read the answers beside their scores. KL → reward: a distance of "
        f"{last[KL]:.0f} nats costs nothing, since β is 0.",
        "A β above 0, a gold measure on held-out samples to stop by, a reward that is harder to "
        "fool (a mix, or a reward model with pairs of exactly this kind). Always read samples.",
    )


def kl_explosion(trace: PPOTrace) -> Texts:
    """One round is enough to lose the language."""
    first, second = trace.iterations[0].metrics, trace.iterations[1].metrics
    return (
        "The learning rate is 1e-2, thirty times too high, and β is 0. One round later the policy "
        f"is {second[KL]:.0f} nats a completion away from the reference, and no longer writes "
        f"language; the score never comes back ({first[SCORE]:+.2f} at first, "
        f"{trace.iterations[-1].metrics[SCORE]:+.2f} at last).",
        "KL → reward of iteration 2: tokens that the reference all but excludes. Update of "
        f"iteration 1: ratios far beyond the clip range, {first[CLIPPED]:.0%} of the tokens "
        "clipped. Clipping stops the gradient of a token, not a step that is too large. In later "
        "iterations entropy falls to 0: one token for ever.",
        "A learning rate near 1e-4 to 3e-4 for LoRA, and β above 0, fixed or adaptive (kl_target). "
        "Stop when policy/approxkl_avg passes 0.05 in a round.",
    )


def sampler_is_not_the_scorer(trace: PPOTrace) -> Texts:
    """Sampled at one temperature, scored at another."""
    first = trace.iterations[0]
    ratio = first.updates[0].ratio[first.mask[list(first.updates[0].rows)]]
    return (
        f"Answers are sampled at temperature {SAMPLER_TEMPERATURE}, as the settings in many a "
        "model's files ask, but updates and reference read them at temperature 1. ftkit refuses "
        "this; the check was switched off for the recording.",
        "Update, first minibatch of iteration 1: nothing has been trained, so every ratio must be "
        f"1, but they lie between {ratio.min():.2f} and {ratio.max():.2f}, and "
        f"{first.updates[0].clip_fraction:.0%} of all tokens are clipped before they were used. "
        f"And the KL of iteration 1 is {first.metrics[KL]:.1f} nats, where policy and reference "
        "are the same model: it measures the mistake.",
        "One temperature in all log-probabilities, no top-k, top-p or penalties in the sampler; "
        "and a check that the first ratio is 1, in every round.",
    )


def whitening_over_padding(trace: PPOTrace) -> Texts:
    """Zeros behind short answers enter mean and deviation."""
    first = trace.iterations[0]
    mean, deviation = _seen_by_loss(first)
    share = 1 - first.metrics["objective/length"] / max(first.lengths)
    return (
        "Mean and deviation of the advantages were taken over the whole rectangle, with the zeros "
        f"that fill up short answers, at least {share:.0%} of iteration 1. The loss then sees "
        f"real tokens with mean {mean:+.2f} and deviation {deviation:.2f}, not 0 and 1. ftkit "
        "masks its statistics; one function was replaced for the recording.",
        "GAE, last step: whitening over the real tokens, written out, gives another number than "
        "the recorded one. Tokens that are worse than the batch are pushed up all the same; how "
        "hard depends on how much padding happens to be in the batch.",
        "Masked statistics everywhere: mean, variance, losses, KL. A test that appends padding and "
        "expects that nothing changes.",
    )


def _asked_for_a_word(question: str) -> Messages:
    """Return a conversation in which one short answer has been given, so that the next is short."""
    return [
        {"role": "user", "content": "Is ice cold? Yes or no?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": f"{question} Yes or no?"},
    ]


def _quarters(trace: PPOTrace, key: str) -> tuple[float, float]:
    """Mean of a metric over the first and over the last quarter of the kept rounds."""
    values = [iteration.metrics[key] for iteration in trace.iterations]
    size = max(1, len(values) // 4)
    return sum(values[:size]) / size, sum(values[-size:]) / size


def _seen_by_loss(iteration: PPOIteration) -> tuple[float, float]:
    """Mean and deviation over the batch's real tokens of what the loss saw.

    Whitening is a line; two recorded tokens give it, and the recorded mean and deviation of the
    advantages before it do the rest.
    """
    mask = iteration.mask
    slope, offset = np.polyfit(iteration.advantages[mask], iteration.loss_advantages[mask], 1)
    mean, deviation = iteration.advantage_mean or 0.0, iteration.advantage_std or 1.0
    return float(slope * mean + offset), float(slope * deviation)


def _first_minibatch(trace: PPOTrace) -> Start:
    first = trace.iterations[0]
    return Start(first.number, (*first.updates[0].rows, 0)[0], "update")


def _first_whitening(trace: PPOTrace) -> Start:
    first = trace.iterations[0]
    row = int(np.argmin(first.lengths))
    return Start(first.number, row, "gae", first.lengths[row])


RECIPES = (
    Recipe(
        "healthy",
        "healthy run",
        BASE,
        {"gold": (1.0, sentiment)},
        "sentiment of the answer (VADER)",
        (SCORE, KL, ENTROPY, CLIPPED),
        healthy,
        _first_minibatch,
    ),
    Recipe(
        "kl-explosion",
        "KL explosion",
        replace(UNLEASHED, iterations=8, learning_rate=1e-2),
        {"gold": (1.0, sentiment)},
        "sentiment of the answer (VADER)",
        (KL, SCORE, ENTROPY, CLIPPED),
        kl_explosion,
        lambda trace: Start(2, 0, "kl", trace.at(2).lengths[0] - 1),
    ),
    Recipe(
        "reward-hacking",
        "reward hacking",
        replace(UNLEASHED, iterations=24, learning_rate=1e-3),
        {"cheer": (1.0, cheer), **WATCHED_ONLY},
        "a quarter for each “!”",
        (SCORE, "rewards/gold/mean", "rewards/variety/mean", KL),
        reward_hacking,
        lambda trace: Start(trace.iterations[-1].number, 0, "score"),
    ),
    Recipe(
        "sampler-is-not-scorer",
        "sampler is not the scorer",
        replace(BASE, iterations=6),
        {"gold": (1.0, sentiment)},
        "sentiment of the answer (VADER)",
        (KL, CLIPPED, "val/ratio", SCORE),
        sampler_is_not_the_scorer,
        _first_minibatch,
        broken=_another_temperature,
    ),
    Recipe(
        "whitening-over-padding",
        "whitening over padding",
        replace(
            BASE, iterations=4, batch_size=10, max_new_tokens=32, temperature=0.5, trace_rows=6
        ),
        {"gold": (1.0, sentiment)},
        "sentiment of the answer (VADER)",
        ("objective/length", "val/ratio", CLIPPED, SCORE),
        whitening_over_padding,
        _first_whitening,
        [*map(_asked_for_a_word, YES_OR_NO), *OPEN],
        _whitening_everything,
    ),
)


def record(recipe: Recipe, base: Loaded, output_dir: Path) -> PPOTrace:
    """Run `recipe` on `base` and return its trace, told and thinned out."""
    run = trainer.PPOTrainer(
        base,
        recipe.prompts or data.sentiment_prompts(),
        reward=recipe.reward,
        config=recipe.config,
        roles=Roles(base, start="new", seed=recipe.config.seed),
        output_dir=output_dir,
    )
    with recipe.broken():
        run.train()
    trace = run.trace
    trace.config = replace(trace.config, reward=recipe.paid)
    trace.title, trace.watch = recipe.title, recipe.watch
    trace.iterations = thinned(trace.iterations)
    trace.say, trace.look, trace.cure = recipe.tell(trace)
    trace.start = recipe.start(trace)
    return trace


def thinned(iterations: Sequence[PPOIteration], kept: int = KEPT) -> list[PPOIteration]:
    """Return at most `kept` iterations: the first two, the last, and others evenly between."""
    places = np.linspace(1, len(iterations) - 1, min(kept, len(iterations)) - 1)
    return [iterations[i] for i in (0, *places.round().astype(int))]


def main(names: Sequence[str]) -> None:
    """Record the recipes of these names, or all, and say how large they are.

    Raises:
        ValueError: no such recipe.
    """
    if unknown := set(names) - {recipe.name for recipe in RECIPES}:
        raise ValueError(f"no recipe {unknown}; there are {[r.name for r in RECIPES]}")
    base = load(device="cpu")  # the same numbers for everyone
    for recipe in RECIPES:
        if names and recipe.name not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            trace = record(recipe, base, Path(folder))
        target = ppo_store.presets_folder() / recipe.name
        trace.save(target)
        size = sum(path.stat().st_size for path in target.iterdir())
        print(f"{trace}\n{trace.say}\n{size / 1e3:.0f} kB in {target}")


if __name__ == "__main__":
    main(sys.argv[1:])
