"""Two short runs to ablate, one of SFT and one of PPO, in the sizes of the profile.

Ordinary functions of a setting and a seed, as `ftkit.ablate` takes them; yours may look the same.
Three things make their numbers comparable: everything random follows the seed, every setting is
scored by one measure, and every run begins and ends on the bare base, so that none depends on
those before it. They load what they need, so they also run in processes of their own. Left out:
training to the end; a few steps show how an ablation is read, not which setting wins.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from math import isfinite
from statistics import fmean
from time import perf_counter
from typing import Literal

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray

from ftkit import data
from ftkit.algos import monte_carlo_returns
from ftkit.chat.annotated import MaskName
from ftkit.models import Loaded, load
from ftkit.profiles import settings
from ftkit.records.ppo_trace import PPOIteration
from ftkit.stages.adapters import fresh_base
from ftkit.stages.forgetting.measure import Row, mean_loss
from ftkit.stages.forgetting.rows import tokenized
from ftkit.stages.ppo import PPOConfig, PPOTrainer
from ftkit.stages.quiet import hush
from ftkit.stages.sft import SFTRecipe, sft, sft_rows

_MAX_LENGTH = 64  # longer rows are left out, not cut


def sft_run(
    *, mask: MaskName = "assistant", neftune_alpha: float = 0, lora_r: int = 16, seed: int = 0
) -> dict[str, float]:
    """Fine-tune the help desk of notebook 02 for a few steps; score its answers.

    Args:
        mask: Which tokens are trained, see `ftkit.chat.annotate`.
        neftune_alpha: Scale of NEFTune's noise, 0 for none.
        lora_r: Rank of the adapter. ``lora_alpha`` is twice the rank, so its update is always
            multiplied by 2, and more rank is also a larger step at the same learning rate.
        seed: Of the adapter's start, the order of the rows and the noise.

    Returns:
        ``answer_loss``: held out, nats a token of the *answers*, whatever the mask.
        ``train_loss``: mean of the run over what the mask trains, noise included.
        ``train_seconds``: of the steps alone.
    """
    model = base()
    train, judged = _help_desk()
    with bare(model):
        trainer = sft(model, train, mask=mask, recipe=_recipe(neftune_alpha, lora_r, seed))
        hush(trainer)
        began = perf_counter()
        trained = trainer.train()
        seconds = perf_counter() - began
        loss = mean_loss(trainer.model, judged, model.tokenizer.pad_token_id)
    return {"answer_loss": loss, "train_loss": trained.training_loss, "train_seconds": seconds}


def ppo_run(*, kl_coef: float = 0.05, lam: float = 0.95, seed: int = 0) -> dict[str, float]:
    """Climb the gold reward of notebook 06, VADER's sentiment, for a few rounds of PPO.

    Args:
        kl_coef: β, the price of a nat of KL from the reference, in units of the score.
        lam: λ of GAE.
        seed: Of adapter, sampling and shuffling.

    Returns:
        Means over the second half of the rounds. ``gold``: the score, −1 to 1. ``kl``: nats a
        completion from the reference. ``advantage_std``: of the advantages before whitening, in
        units of the score. ``critic_error``: root mean square of outcome − value in the same
        unit, for every λ alike. ``explained_variance``: of the target that λ makes; left out
        where that never varied.
    """
    model = base()
    with bare(model), tempfile.TemporaryDirectory(prefix="ftkit-ppo-") as folder:
        config = _ppo_config(kl_coef, lam, seed)
        trainer = PPOTrainer(
            model, data.sentiment_prompts(), reward=_gold, config=config, output_dir=folder
        )
        history = trainer.train()
    late = len(history) // 2
    return _ppo_metrics(history[late:], trainer.trace.iterations[late:])


def base() -> Loaded:
    """Return the profile's model, loaded once a process."""
    sizes = settings()
    return _loaded(sizes.model, sizes.quantization)


@contextmanager
def bare(model: Loaded) -> Iterator[None]:
    """Take adapters and hooks off the base, before and after, also after an exception."""
    fresh_base(model.model).eval()
    try:
        yield
    finally:
        fresh_base(model.model).eval()


def _recipe(neftune_alpha: float, lora_r: int, seed: int) -> SFTRecipe:
    sizes = settings()
    return SFTRecipe(
        steps=sizes.ablate_steps,
        batch_size=sizes.ablate_batch,
        learning_rate=5e-4,
        warmup_steps=1,
        lora_r=lora_r,
        lora_alpha=max(1, 2 * lora_r),
        max_length=_MAX_LENGTH,
        neftune_alpha=neftune_alpha or None,
        seed=seed,
    )


def _ppo_config(kl_coef: float, lam: float, seed: int) -> PPOConfig:
    sizes = settings()
    return PPOConfig(
        iterations=sizes.ablate_rounds,
        batch_size=sizes.ablate_completions,
        epochs=1,
        max_new_tokens=sizes.ppo_tokens,
        learning_rate=1e-3,
        lr_schedule="constant",
        kl_coef=kl_coef,
        lam=lam,
        trace_rows=sizes.ablate_completions,
        checkpoint_every=sizes.ablate_rounds,
        seed=seed,
    )


def _ppo_metrics(
    history: Sequence[Mapping[str, float]], rounds: Sequence[PPOIteration]
) -> dict[str, float]:
    errors = [_outcomes(r) - r.values[r.mask] for r in rounds]
    metrics = {
        "gold": fmean(row["objective/scores"] for row in history),
        "kl": fmean(row["objective/kl"] for row in history),
        "advantage_std": fmean(r.advantage_std or 0.0 for r in rounds),
        "critic_error": float(np.sqrt(np.mean(np.concatenate(errors) ** 2))),
    }
    explained = [row["val/explained_variance"] for row in history]
    known = [value for value in explained if isfinite(value)]
    return {**metrics, "explained_variance": fmean(known)} if known else metrics


def _outcomes(recorded: PPOIteration) -> NDArray[np.float32]:
    """Return what came after each real token, ``(tokens,)``: λ = 1, the Monte Carlo return."""
    mask = torch.from_numpy(recorded.mask)
    returns = monte_carlo_returns(torch.from_numpy(recorded.gae_rewards), mask)
    return returns[mask].numpy()


def _gold(prompts: Sequence[object], completions: Sequence[str]) -> list[float]:
    return data.sentiment(completions)


@cache
def _loaded(name: str, quantization: Literal["nf4", "int8"] | None) -> Loaded:
    return load(name, quantization=quantization)


@cache
def _help_desk() -> tuple[Dataset, list[Row]]:
    """Return short conversations to train on, and rows of unseen questions to score."""
    parts = data.split_by_question(data.chatterbot(), held_out=24)
    train, unseen = (_short(parts[name]) for name in ("train", "test"))
    return train, tokenized(base(), unseen, "held-out", _MAX_LENGTH)


def _short(rows: Dataset) -> Dataset:
    lengths = [len(ids) for ids in sft_rows(base(), rows)["input_ids"]]
    return rows.select([i for i, length in enumerate(lengths) if length <= _MAX_LENGTH])
