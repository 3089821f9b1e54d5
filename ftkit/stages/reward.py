"""The reward model: a `trl.RewardTrainer` with LoRA and a score head on the quantized base.

It reads a whole conversation and gives one number, read behind the last token of the answer. The
backbone is the base's own decoder (`ftkit.models.score_model`), so the reward model costs an
adapter and one row of weights. Left out: process rewards (a score for each step) and rankings of
more than two answers.
"""

import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import TrainerCallback
from trl import RewardConfig, RewardTrainer

from ftkit.chat import annotate
from ftkit.chat.annotated import IGNORE_INDEX
from ftkit.chat.prepare import each_row, tools
from ftkit.data.preferences import require_preferences
from ftkit.errors import ChatError, DataError
from ftkit.models import Loaded, LoraAdapter, score_model
from ftkit.models.unpacking import folded, unpacked
from ftkit.records import ScoredPair
from ftkit.stages import limits
from ftkit.stages.adapters import (
    fresh_base,
    require_distinct_pad,
    shared_arguments,
)
from ftkit.stages.starting import Start, new_adapter, settle, started, take_start

_SIDES = ("chosen", "rejected")


@dataclass(frozen=True, slots=True)
class RewardRecipe:
    """The choices of a run.

    Attributes:
        steps: Optimizer steps.
        batch_size: Pairs a step; the model reads twice as many rows.
        learning_rate: Peak, after warm-up, decaying linearly to 0. Higher than for SFT: the
            judgement is new to the model, and one pass over few pairs has to do.
        warmup_steps: Steps of linear warm-up.
        lora_r: Rank of a new adapter; one to start from keeps its own.
        lora_alpha: Scale of a new adapter; the update is multiplied by ``lora_alpha / lora_r``.
        max_length: Longest conversation in tokens; pairs with a longer one are left out, since a
            cut answer would be scored by its beginning.
        centering: Weight of (r_chosen + r_rejected)², which holds the scores near 0 (Eisenstein
            et al. 2023); 0.01 is usual, 0 turns it off.
        margin: Score units by which chosen should lead, the same for all pairs. A column
            ``margin`` in the data gives each pair its own (Llama 2).
        eval_every: Steps between scores of the held-out pairs; 0 scores none.
        log_every: Steps between logged metrics.
        seed: Of the adapter's and head's start and of the shuffling.
    """

    steps: int = 60
    batch_size: int = 8
    learning_rate: float = 1e-3
    warmup_steps: int = 5
    lora_r: int = 16
    lora_alpha: int = 32
    max_length: int = 256
    centering: float = 0.01
    margin: float = 0.0
    eval_every: int = 20
    log_every: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        limits.at_least_one(
            self, "steps", "batch_size", "lora_r", "lora_alpha", "max_length", "log_every"
        )
        limits.not_negative(self, "warmup_steps", "eval_every", "centering", "margin")
        limits.positive(self, "learning_rate")


def reward(
    base: Loaded,
    dataset: Dataset,
    *,
    eval_dataset: Dataset | None = None,
    adapter: Start | None = None,
    recipe: RewardRecipe | None = None,
    args: RewardConfig | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> RewardTrainer:
    """Build a TRL `RewardTrainer` on `base`, ready for ``train()``.

    Adapter and score head are trained in the compute dtype. Afterwards
    ``Roles(base).add_reward(read_adapter(trainer.model))`` scores with the same numbers.

    There is one base in memory: a later stage on it takes this adapter out, so read or save it
    before. An adapter that the base carries now is removed, with a warning if it was trained and
    is not the one to start from.

    Args:
        base: From `ftkit.load`.
        dataset: Preferences, see `ftkit.data.require_preferences`.
        eval_dataset: Held-out pairs, of other prompts (`ftkit.data.split_by_prompt`).
        adapter: Where the judge starts, e.g. an SFT adapter, as in InstructGPT (Ouyang et al.
            2022, section 3.5): its folder (``sft_trainer.save_model``), a `LoraAdapter`, or the
            trainer itself. A copy is trained. None for a new adapter on the bare base.
        recipe: Sizes and rates; see `RewardRecipe`.
        args: Your own `trl.RewardConfig`, used instead of what `recipe` says, except for LoRA and
            ``margin``.
        callbacks: E.g. ``[ftkit.LiveMetrics()]``.

    Raises:
        DataError: as `reward_rows`.
        SettingsError: the tokenizer has no pad token of its own, the architecture has no sequence
            classifier with a score head, or `adapter` cannot be read or does not fit the base.
    """
    recipe = recipe or RewardRecipe()
    args = args or _config(base, recipe, evaluate=eval_dataset is not None)
    # transformers looks for the last token that is not the pad *id*; see notebook 04.
    require_distinct_pad(
        base.tokenizer,
        "a reward model would take the stop token for padding and read the score before it",
    )
    options = {"max_length": args.max_length, "margin": recipe.margin}
    train = reward_rows(base, dataset, **options)
    held_out = None if eval_dataset is None else reward_rows(base, eval_dataset, **options)
    start = take_start(base, adapter)
    trainer = RewardTrainer(
        args=args,
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=base.tokenizer,
        callbacks=list(callbacks),
        **_judge(base, start, recipe),
    )
    settle(trainer, base, start, callbacks)
    return trainer


def reward_rows(
    base: Loaded, dataset: Dataset, *, max_length: int | None = None, margin: float = 0.0
) -> Dataset:
    """Return `dataset` with the ``chosen_ids`` and ``rejected_ids`` that `reward` trains on.

    Each ends with the stop token of the answer. What a template writes behind it (a line break
    in ChatML) is cut: PPO stops there, and the score must be read at the same place.

    Args:
        base: Its tokenizer is used.
        dataset: Preferences, see `ftkit.data.require_preferences`.
        max_length: Pairs with a longer side, in tokens, are left out with a warning.
        margin: Above 0, what the column ``margin`` gets.

    Raises:
        DataError: no preferences, a row that cannot be rendered, an answer that is empty or both
            sides the same, two sources of margins, or no pair left.
    """
    require_preferences(dataset)
    if margin and "margin" in dataset.column_names:
        raise DataError("the data have a column 'margin': leave margin at 0, or remove the column")

    def tokenize(row: dict[str, Any], index: int) -> dict[str, Any]:
        ids = {f"{side}_ids": _ids(base.tokenizer, row, side, index) for side in _SIDES}
        if ids["chosen_ids"] == ids["rejected_ids"]:
            raise DataError(f"row {index}: chosen and rejected are the same; remove the row")
        return ids | ({"margin": margin} if margin else {})

    rows = each_row(dataset, tokenize, "pairs")
    return rows if max_length is None else _short(rows, max_length)


def pair_scores(trainer: RewardTrainer, dataset: Dataset) -> list[ScoredPair]:
    """Return each pair of `dataset` with the scores of the trainer's model now.

    Args:
        trainer: From `reward`.
        dataset: From `reward_rows`, or the trainer's own ``eval_dataset``.
    """
    size = trainer.args.per_device_eval_batch_size
    with unpacked(trainer.model), folded(trainer.model):
        scores = {
            side: torch.cat(
                [
                    _scores(trainer, dataset[start : start + size][f"{side}_ids"])
                    for start in range(0, len(dataset), size)
                ]
            ).tolist()
            for side in _SIDES
        }
    return [
        ScoredPair(
            prompt=_text(row.get("prompt")),
            chosen=_text(row["chosen"]),
            rejected=_text(row["rejected"]),
            chosen_score=chosen,
            rejected_score=rejected,
            gold_gap=row["gold_chosen"] - row["gold_rejected"] if "gold_chosen" in row else nan,
        )
        for row, chosen, rejected in zip(dataset, scores["chosen"], scores["rejected"], strict=True)
    ]


@torch.no_grad()
def _scores(trainer: RewardTrainer, ids: Sequence[Sequence[int]]) -> Tensor:
    """Return ``(rows,)`` scores, float32, through the trainer's own collator and model."""
    model = trainer.model
    was_training = model.training
    batch = trainer.data_collator([{"chosen_ids": row, "rejected_ids": row[:1]} for row in ids])
    inputs = {k: v[: len(ids)].to(model.device) for k, v in batch.items()}
    try:
        with trainer.compute_loss_context_manager():
            return model.eval()(**inputs, use_cache=False).logits.squeeze(1).float().cpu()
    finally:
        model.train(was_training)


def _config(base: Loaded, recipe: RewardRecipe, *, evaluate: bool) -> RewardConfig:
    return RewardConfig(
        center_rewards_coefficient=recipe.centering or None,
        **shared_arguments(base, recipe, evaluate=evaluate),
    )


def _judge(base: Loaded, start: LoraAdapter | None, recipe: RewardRecipe) -> dict[str, Any]:
    """Return ``model`` and ``peft_config`` of a judge with a new score head."""
    config = start.config if start else new_adapter(recipe.lora_r, recipe.lora_alpha)
    config = copy.deepcopy(config)
    config.task_type = "SEQ_CLS"
    config.modules_to_save = ["score"]
    model = score_model(fresh_base(base.model), seed=recipe.seed)
    if start is None:
        return {"model": model, "peft_config": config}
    return {"model": started(model, config, start), "peft_config": None}


def _ids(tokenizer: Any, row: dict[str, Any], side: str, index: int) -> list[int]:
    """Return the tokens of prompt and answer, the stop token last."""
    prompt = row.get("prompt") or row[side][:0]
    if not row[side]:
        raise DataError(f"row {index}: {side} is empty; give an answer or remove the row")
    if isinstance(row[side], str):
        text = prompt + row[side].removesuffix(tokenizer.eos_token) + tokenizer.eos_token
        return list(tokenizer(text)["input_ids"])
    try:
        messages = [*prompt, *row[side]]
        chat = annotate(tokenizer, messages, mask="last_assistant", tools=tools(row))
    except ChatError as error:
        raise DataError(f"row {index}, {side}: {error}") from error
    trained = [i for i, label in enumerate(chat.labels) if label != IGNORE_INDEX]
    if not trained:
        raise DataError(f"row {index}, {side}: there is no assistant's answer to score")
    return list(chat.input_ids[: trained[-1] + 1])


def _short(rows: Dataset, max_length: int) -> Dataset:
    longest = [max(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in rows]
    kept = [i for i, length in enumerate(longest) if length <= max_length]
    if not kept:
        raise DataError(
            f"every pair is longer than max_length={max_length} (the shortest has {min(longest)} "
            "tokens); raise it"
        )
    if len(kept) < len(rows):
        warnings.warn(
            f"{len(rows) - len(kept)} of {len(rows)} pairs are longer than max_length="
            f"{max_length} tokens (the longest has {max(longest)}) and are left out",
            stacklevel=4,
        )
        return rows.select(kept)
    return rows


def _text(value: Any) -> str:
    """Return text or messages as one readable text."""
    if value is None or isinstance(value, str):
        return value or ""
    return "\n".join(_lines(value))


def _lines(messages: Sequence[dict[str, Any]]) -> Iterator[str]:
    for message in messages:
        said = str(message["content"])
        yield said if len(messages) == 1 else f"{message['role']}: {said}"
