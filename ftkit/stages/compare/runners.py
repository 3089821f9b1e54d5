"""One function an algorithm: build its trainer from the start, train it, look at it on the way.

Each leaves its adapter on the base; `run` takes it off again, whatever happened.
"""

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ftkit.chat.render import Messages
from ftkit.models import Loaded, LoraAdapter, Roles
from ftkit.models.unpacking import unpacked
from ftkit.records.comparison_run import Algorithm, ComparisonPoint, ComparisonRun, Sample
from ftkit.stages.adapters import fresh_base
from ftkit.stages.compare.best_of_n import expected_best, kl_bound
from ftkit.stages.compare.meter import Meter
from ftkit.stages.compare.pacing import Pacer, PPOPacer
from ftkit.stages.compare.pairs import pair_rows, pair_texts, sampled_pairs
from ftkit.stages.compare.probe import Probe
from ftkit.stages.compare.recipe import CompareRecipe
from ftkit.stages.dpo import DPORecipe, dpo
from ftkit.stages.group_recipes import GRPORecipe, RLOORecipe
from ftkit.stages.grpo import grpo, rloo
from ftkit.stages.ppo import PPOConfig, PPOTrainer
from ftkit.stages.ppo.scoring import RewardFunction
from ftkit.stages.quiet import hush

_SAMPLES = 4  # answers that are kept to read
_NEVER = 10**9


@dataclass(frozen=True, slots=True)
class Job:
    """One run to do.

    Attributes:
        algorithm: Which.
        seed: Of new adapters, order and sampling.
        recipe: Budget, sizes and rates.
        train: Prompts to learn from.
        held_out: Prompts of the evaluation.
        reward: Of prompts and completions.
        start: The adapter that the policy starts from; None for a new one on the bare base.
    """

    algorithm: Algorithm
    seed: int
    recipe: CompareRecipe
    train: list[Messages]
    held_out: list[Messages]
    reward: RewardFunction
    start: LoraAdapter | None = None


def run(base: Loaded, job: Job) -> ComparisonRun:
    """Do `job` on `base`, which is without adapters afterwards.

    Raises:
        RewardError: the reward raised or gave something unusable.
        DataError: a prompt that is too long, or a reward that made no pairs.
    """
    try:
        return _RUNNERS[job.algorithm](base, job)
    finally:
        fresh_base(base.model)


# --- what all trained ones share ----------------------------------------------------------------


class _Trail:
    """The points of a run; `model` is what is looked at."""

    def __init__(self, base: Loaded, job: Job, model: Any) -> None:
        self.meter = Meter(base.model.device)
        self.model = model
        self.points: list[ComparisonPoint] = []
        self.samples: tuple[Sample, ...] = ()
        self._job = job
        self._probe = Probe(
            base, job.held_out, job.reward, job.recipe,
            start=job.start, seed=job.seed, samples=job.recipe.eval_samples,
        )  # fmt: skip

    def look(self, step: int) -> None:
        """Evaluate the model and keep the point; the clock stands still."""
        with self.meter.paused():
            seen = self._probe.look(self.model)
        (gold, gold_error), (kl, kl_error) = _mean(seen.golds), _mean(seen.kls)
        meter = self.meter
        self.points.append(
            ComparisonPoint(
                meter.tokens, meter.seconds, gold, gold_error, kl, kl_error, meter.memory_mb, step
            )
        )
        every = self._job.recipe.eval_samples
        rows = range(0, min(_SAMPLES * every, len(seen.texts)), every)
        self.samples = tuple(
            Sample(_asked(self._probe.prompts[i]), seen.texts[i], float(seen.golds[i]))
            for i in rows
        )

    def train(self, trainer: Any, pacer: Pacer) -> None:
        """Run `trainer` to its end or to that of the budget."""
        trainer.train()
        if self.points[-1].step != pacer.steps:
            self.look(pacer.steps)

    def result(self, note: str = "") -> ComparisonRun:
        job = self._job
        return ComparisonRun(job.algorithm, job.seed, tuple(self.points), self.samples, note=note)


def _mean(values: Tensor) -> tuple[float, float]:
    """Return the mean and its standard error."""
    spread = values.std().item() if len(values) > 1 else math.nan
    return values.mean().item(), spread / math.sqrt(len(values))


def _asked(prompt: Messages) -> str:
    return str(prompt[-1]["content"])


def _roles(base: Loaded, job: Job) -> Roles:
    recipe = job.recipe
    return Roles(
        base,
        start=job.start or "new",
        lora_r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        target_modules="all-linear",
        seed=job.seed,
    )


def _keep_rate_constant(trainer: Any) -> None:
    trainer.args.lr_scheduler_type, trainer.args.warmup_steps = "constant", 0


# --- the algorithms -----------------------------------------------------------------------------


def _ppo(base: Loaded, job: Job) -> ComparisonRun:
    recipe, roles = job.recipe, _roles(base, job)
    trail = _Trail(base, job, roles.model)
    pacer = PPOPacer(trail.meter, lambda: trail.look(pacer.steps), recipe, recipe.step_tokens)
    config = PPOConfig(
        iterations=recipe.tokens,
        batch_size=recipe.batch_size,
        epochs=1,
        micro_batch=recipe.micro_batch,
        max_prompt_tokens=recipe.max_prompt_tokens,
        max_new_tokens=recipe.max_new_tokens,
        temperature=recipe.temperature,
        learning_rate=recipe.ppo_rate,
        lr_schedule="constant",
        kl_coef=recipe.kl_coef,
        trace_rows=0,
        checkpoint_every=_NEVER,
        seed=job.seed,
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = PPOTrainer(
            base, job.train, reward=job.reward, config=config, roles=roles, output_dir=folder,
            callbacks=[pacer],
        )  # fmt: skip
        with trail.meter:
            trail.look(0)
            trail.train(trainer, pacer)
    return trail.result()


def _group(base: Loaded, job: Job) -> ComparisonRun:
    recipe, kind = job.recipe, job.algorithm
    trail = _Trail(base, job, None)
    pacer = Pacer(trail.meter, lambda: trail.look(pacer.steps), recipe, recipe.step_tokens)
    build: Any = grpo if kind == "grpo" else rloo
    trainer = build(
        base, job.train, job.reward, recipe=_group_recipe(job), adapter=job.start,
        callbacks=[pacer],
    )  # fmt: skip
    hush(trainer)
    _keep_rate_constant(trainer)
    _count(trainer, trail.meter)
    trail.model = trainer.model
    with trail.meter:
        trail.look(0)
        trail.train(trainer, pacer)
    return trail.result()


def _group_recipe(job: Job) -> GRPORecipe | RLOORecipe:
    recipe = job.recipe
    build: Any = GRPORecipe if job.algorithm == "grpo" else RLOORecipe
    made: GRPORecipe | RLOORecipe = build(
        steps=recipe.tokens,
        batch_size=recipe.batch_size,
        group_size=recipe.group_size,
        micro_batch=recipe.micro_batch,
        max_prompt_tokens=recipe.max_prompt_tokens,
        max_new_tokens=recipe.max_new_tokens,
        temperature=recipe.temperature,
        learning_rate=recipe.grpo_rate if job.algorithm == "grpo" else recipe.rloo_rate,
        beta=recipe.kl_coef,
        lora_r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        log_every=recipe.tokens,
        seed=job.seed,
    )
    return made


def _count(trainer: Any, meter: Meter) -> None:
    """Count what a group trainer samples, from unpacked weights as all others do."""
    sample_and_score = trainer._generate_and_score_completions

    def counting(inputs: Any) -> dict[str, Any]:
        with unpacked(trainer.model):
            batch: dict[str, Any] = sample_and_score(inputs)
        meter.tokens += int(batch["completion_mask"].sum())
        return batch

    trainer._generate_and_score_completions = counting


def _dpo(base: Loaded, job: Job) -> ComparisonRun:
    recipe, roles = job.recipe, _roles(base, job)
    trail = _Trail(base, job, roles.model)
    pacer = Pacer(trail.meter, lambda: trail.look(pacer.steps), recipe, step_tokens=0)
    with trail.meter as meter:
        trail.look(0)
        pairs, tied = sampled_pairs(
            roles, base.tokenizer, job.train, job.reward, recipe, meter, job.seed
        )
        with meter.paused():
            fresh_base(base.model)  # the roles have sampled, and are not needed any more
            trainer = dpo(
                base, pair_texts(pairs), adapter=job.start, recipe=_dpo_recipe(job, len(pairs)),
                callbacks=[pacer],
            )  # fmt: skip
            trainer.train_dataset = pair_rows(pairs)
            hush(trainer)
            _keep_rate_constant(trainer)
            trail.model = trainer.model
        trail.train(trainer, pacer)
    return trail.result(f"{len(pairs)} pairs from {len(pairs) + tied} groups of answers")


def _dpo_recipe(job: Job, pairs: int) -> DPORecipe:
    recipe = job.recipe
    size = min(recipe.dpo_batch, pairs)
    return DPORecipe(
        steps=recipe.dpo_epochs * math.ceil(pairs / size),
        batch_size=size,
        learning_rate=recipe.dpo_rate,
        beta=recipe.dpo_beta,
        lora_r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        max_length=_NEVER,  # prompts are checked and completions limited
        eval_every=0,
        log_every=_NEVER,
        seed=job.seed,
    )


def _best_of_n(base: Loaded, job: Job) -> ComparisonRun:
    recipe, roles, meter = job.recipe, _roles(base, job), Meter(base.model.device)
    probe = Probe(base, job.held_out, job.reward, recipe, start=job.start, seed=job.seed)
    generator = torch.Generator(roles.model.device).manual_seed(20_000 + job.seed)
    texts, golds = [], []
    with meter:
        for _ in range(max(recipe.best_of)):
            done = probe.sampled(roles.model, generator)
            meter.tokens += int(done.mask.sum())
            said, scores = probe.scored(done)
            texts.append(said)
            golds.append(scores)
    pool = torch.stack(golds, dim=1)  # (prompts, answers)
    points = [_best(pool, n, meter) for n in (1, *sorted(recipe.best_of))]
    best = [(i, int(pool[i].argmax())) for i in range(min(_SAMPLES, len(pool)))]
    samples = (Sample(_asked(probe.prompts[i]), texts[j][i], float(pool[i, j])) for i, j in best)
    note = f"answers are the best of {max(recipe.best_of)}"
    return ComparisonRun(job.algorithm, job.seed, tuple(points), tuple(samples), note=note)


def _best(pool: Tensor, n: int, meter: Meter) -> ComparisonPoint:
    gold, error = _mean(expected_best(pool, n))
    share = n / pool.shape[1] if n > 1 else 0.0  # every policy needs its one answer
    tokens, seconds = round(share * meter.tokens), share * meter.seconds
    return ComparisonPoint(tokens, seconds, gold, error, kl_bound(n), 0.0, meter.memory_mb, n)


_RUNNERS: dict[Algorithm, Callable[[Loaded, Job], ComparisonRun]] = {
    "ppo": _ppo,
    "dpo": _dpo,
    "grpo": _group,
    "rloo": _group,
    "best-of-n": _best_of_n,
}
