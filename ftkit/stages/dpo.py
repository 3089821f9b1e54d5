"""Direct preference optimization: a `trl.DPOTrainer` with LoRA on the quantized base.

(Some course notes expand DPO as "Dynamic Policy Optimization"; the paper's name is Direct
Preference Optimization.) Two models are enough, policy and reference, and both are the one base:
the reference is the base without the adapter, or a frozen copy of the adapter that training starts
from. Left out: a reference that is a model of its own, and images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer

from ftkit.errors import SettingsError
from ftkit.models import Loaded
from ftkit.stages import limits
from ftkit.stages.adapters import (
    require_distinct_pad,
    shared_arguments,
)
from ftkit.stages.dpo_rows import TOKENS, tokenized
from ftkit.stages.starting import Start, policy_arguments, settle, take_start

_SMOOTHED_LOSSES = {"robust", "exo_pair", "aot", "aot_unpaired"}


@dataclass(frozen=True, slots=True)
class DPORecipe:
    """The choices of a run.

    Attributes:
        steps: Optimizer steps.
        batch_size: Pairs a step; the policy and the reference read twice as many rows.
        learning_rate: Peak, after warm-up, decaying linearly to 0. Lower than for SFT: the loss
            does not mind where the likelihood of both answers goes, and steps that are too large
            push it down.
        warmup_steps: Steps of linear warm-up.
        beta: Reward units a nat of log-ratio; higher keeps nearer to the reference. 0.1 is the
            paper's value.
        label_smoothing: Share of flipped labels to expect, 0 to below 0.5 (Chowdhury et al. 2024).
        sft_weight: Weight of the mean cross entropy of the chosen answers' tokens beside the DPO
            loss, which holds them up (Pang et al. 2024, equation 1; RPO); 0 turns it off.
        lora_r: Rank of a new adapter; one to start from keeps its own.
        lora_alpha: Scale of a new adapter; the update is multiplied by ``lora_alpha / lora_r``.
        max_length: Longest prompt with answer, in tokens; pairs with a longer one are left out.
        eval_every: Steps between scores of the held-out pairs; 0 scores none.
        log_every: Steps between logged metrics.
        seed: Of a new adapter's start and of the shuffling.
    """

    steps: int = 60
    batch_size: int = 8
    learning_rate: float = 5e-5
    warmup_steps: int = 5
    beta: float = 0.1
    label_smoothing: float = 0.0
    sft_weight: float = 0.0
    lora_r: int = 16
    lora_alpha: int = 32
    max_length: int = 256
    eval_every: int = 20
    log_every: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        limits.at_least_one(
            self, "steps", "batch_size", "lora_r", "lora_alpha", "max_length", "log_every"
        )
        limits.not_negative(self, "warmup_steps", "eval_every", "sft_weight")
        limits.positive(self, "learning_rate", "beta")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(
                f"DPORecipe: label_smoothing={self.label_smoothing} must lie in 0 … 0.5, without "
                "0.5: then labels would say nothing"
            )


def dpo(
    base: Loaded,
    dataset: Dataset,
    *,
    eval_dataset: Dataset | None = None,
    adapter: Start | None = None,
    recipe: DPORecipe | None = None,
    args: DPOConfig | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> DPOTrainer:
    """Build a TRL `DPOTrainer` on `base`, ready for ``train()``.

    Policy and reference are equal at the start, to the last bit: every margin is 0 and the loss
    log 2. (On a quantized base TRL rounds the policy's adapter to bfloat16 and leaves the
    reference's copy as it is.) Precomputed log-probabilities of the reference are equal to
    rounding only.

    There is one base in memory: a later stage on it takes this adapter out, so read or save it
    before. An adapter that the base carries now is removed, with a warning if it was trained and
    is not the one to start from.

    Args:
        base: From `ftkit.load`.
        dataset: Preferences, see `dpo_rows`.
        eval_dataset: Held-out pairs, of other prompts (`ftkit.data.split_by_prompt`).
        adapter: Where the policy starts, e.g. an SFT adapter: its folder
            (``sft_trainer.save_model``), a `LoraAdapter`, or the trainer itself. The reference is
            then a frozen copy of it; for None the policy is a new adapter, and the reference the
            bare base.
        recipe: Sizes and rates; see `DPORecipe`.
        args: Your own `trl.DPOConfig`, used instead of what `recipe` says, except for LoRA.
        callbacks: E.g. ``[ftkit.LiveMetrics()]``.

    Raises:
        DataError: as `dpo_rows`.
        SettingsError: the tokenizer has no pad token of its own, `adapter` cannot be read or does
            not fit the base, or `args` smooth labels for losses that do not.
    """
    recipe = recipe or DPORecipe()
    args = args or _config(base, recipe, evaluate=eval_dataset is not None)
    # TRL itself masks by place, but whoever masks by the pad id would drop the stop token.
    require_distinct_pad(base.tokenizer, "padding and the end of an answer could not be told apart")
    _require_smoothing_has_effect(args)
    train = dpo_rows(base, dataset, max_length=args.max_length)
    held_out = (
        None if eval_dataset is None else dpo_rows(base, eval_dataset, max_length=args.max_length)
    )
    start = take_start(base, adapter)
    trainer = _RowsAsTheyAre(
        args=args,
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=base.tokenizer,
        callbacks=list(callbacks),
        **policy_arguments(base, start, recipe.lora_r, recipe.lora_alpha),
    )
    settle(trainer, base, start, callbacks)
    return trainer


def dpo_rows(base: Loaded, dataset: Dataset, *, max_length: int | None = None) -> Dataset:
    """Return `dataset` with the ``prompt_ids``, ``chosen_ids`` and ``rejected_ids`` of `dpo`.

    An answer ends with its stop token. What a template writes behind it (a line break in ChatML)
    is left out: generation stops there, so no sampled answer has it.

    Args:
        base: Its tokenizer is used.
        dataset: Preferences as conversations or text, see `ftkit.data.require_preferences`; a
            column ``tools`` goes to the template.
        max_length: Pairs with more tokens in prompt and longer answer are left out, with a
            warning that names them; so are pairs with the same answer twice.

    Raises:
        DataError: no preferences, a row that cannot be rendered or whose answer is empty or not
            an assistant's, different prompts in one pair, or no pair left.
    """
    return tokenized(base.tokenizer, dataset, max_length)


class _RowsAsTheyAre(DPOTrainer):
    """TRL's trainer, which takes tokenized rows as they are, as its SFT and reward trainers do."""

    def _prepare_dataset(
        self, dataset: Dataset, processing_class: Any, args: DPOConfig, dataset_name: str
    ) -> Dataset:
        if set(TOKENS) <= set(dataset.column_names):
            return dataset
        return tokenized(processing_class, dataset, args.max_length)


def _config(base: Loaded, recipe: DPORecipe, *, evaluate: bool) -> DPOConfig:
    preference = "robust" if recipe.label_smoothing else "sigmoid"
    weighted = {preference: 1.0} | ({"sft": recipe.sft_weight} if recipe.sft_weight else {})
    return DPOConfig(
        beta=recipe.beta,
        label_smoothing=recipe.label_smoothing,
        loss_type=list(weighted),
        loss_weights=list(weighted.values()),
        **shared_arguments(base, recipe, evaluate=evaluate),
    )


def _require_smoothing_has_effect(args: DPOConfig) -> None:
    if args.label_smoothing and not _SMOOTHED_LOSSES & set(args.loss_type):
        raise SettingsError(
            f"DPOConfig(label_smoothing={args.label_smoothing}) has no effect on loss_type="
            f"{args.loss_type}: use loss_type=['robust'], or DPORecipe(label_smoothing=…)"
        )
