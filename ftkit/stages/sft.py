"""Supervised fine-tuning: a `trl.SFTTrainer` with LoRA on the quantized base, masks by ftkit.

Left out: packing and multi-GPU settings. Pass your own `trl.SFTConfig` as `args` for those.
"""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from ftkit.chat.annotated import MaskName
from ftkit.chat.prepare import is_conversational, prepare, truncation
from ftkit.errors import DataError
from ftkit.models import Loaded
from ftkit.stages import limits
from ftkit.stages.adapters import (
    attach_displays,
    fresh_base,
    match_compute_dtype,
    shared_arguments,
    warn_of_trained_adapter,
)
from ftkit.stages.passes import shorten
from ftkit.stages.starting import new_adapter


@dataclass(frozen=True, slots=True)
class SFTRecipe:
    """The choices of a run, with defaults of the field for QLoRA.

    Attributes:
        steps: Optimizer steps.
        batch_size: Rows a step.
        learning_rate: Peak, after warm-up, decaying linearly to 0. 2e-4 is QLoRA's value for
            small models (Dettmers et al. 2023, table 9).
        warmup_steps: Steps of linear warm-up.
        lora_r: Rank of the adapter.
        lora_alpha: Scale of the adapter; the update is multiplied by ``lora_alpha / lora_r``.
        max_length: Longest row in tokens; the end of longer rows is cut.
        group_by_length: Whether rows of similar length share a batch, so that fewer tokens are
            padding. Rows are shuffled first, then sorted in groups of up to 50 batches; held-out
            rows are batched so, too.
        neftune_alpha: NEFTune noise scale, None for no noise (Jain et al. 2023).
        eval_every: Steps between scores of the held-out rows; 0 scores none.
        log_every: Steps between logged metrics.
        seed: Of the adapter's start, the shuffling and the noise.
    """

    steps: int = 60
    batch_size: int = 8
    learning_rate: float = 2e-4
    warmup_steps: int = 5
    lora_r: int = 16
    lora_alpha: int = 32
    max_length: int = 256
    group_by_length: bool = False
    neftune_alpha: float | None = None
    eval_every: int = 10
    log_every: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        limits.at_least_one(
            self, "steps", "batch_size", "lora_r", "lora_alpha", "max_length", "log_every"
        )
        limits.not_negative(self, "warmup_steps", "eval_every")
        limits.positive(self, "learning_rate")
        if self.neftune_alpha is not None:
            limits.not_negative(self, "neftune_alpha")


def sft(
    base: Loaded,
    dataset: Dataset,
    *,
    eval_dataset: Dataset | None = None,
    mask: MaskName = "assistant",
    response_template: str | None = None,
    chat_template: str | None = None,
    recipe: SFTRecipe | None = None,
    args: SFTConfig | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> SFTTrainer:
    """Build a TRL `SFTTrainer` on `base`, ready for ``train()``.

    Conversational rows get their labels from `ftkit.chat.annotate`, so what the inspector shows
    is what the trainer trains. Other formats (``text``, ``prompt`` and ``completion`` as text,
    tokenized) go to TRL as they are.

    There is one base in memory, and an adapter sits in it: a second call on the same base takes
    the first trainer's adapter out, and that trainer's model becomes the bare base. Save it
    before (``trainer.save_model(folder)``); a trained adapter is removed with a warning.

    Args:
        base: From `ftkit.load`.
        dataset: Rows with ``messages``, ShareGPT's ``conversations``, or ``prompt`` and
            ``completion``; ``tools`` (schemas or their JSON) go to the template. Or rows of the
            other formats.
        eval_dataset: Held-out rows in the same format.
        mask: See `ftkit.chat.annotate`. Rows that are no conversations have no roles to mask by;
            another mask than what TRL does with them is refused.
        response_template: See `ftkit.chat.annotate`.
        chat_template: Jinja source to train with; None for the tokenizer's own.
        recipe: Sizes and rates; see `SFTRecipe`.
        args: Your own `trl.SFTConfig`, used instead of what `recipe` says, except for LoRA.
        callbacks: E.g. ``[ftkit.LiveMetrics()]``.

    Raises:
        DataError: empty dataset, columns that SFT cannot use or that the mask does not fit, a row
            that cannot be rendered, or no row left to train on.
    """
    recipe = recipe or SFTRecipe()
    args = args or _config(base, recipe, evaluate=eval_dataset is not None)
    truncation_mode = getattr(args, "truncation_mode", "keep_start")
    if truncation_mode != "keep_start":
        raise DataError(
            f"SFTConfig(truncation_mode={truncation_mode!r}) is not supported: a row without its "
            "beginning is no conversation any more. Use 'keep_start', and a larger max_length"
        )
    options: _Options = {
        "mask": mask,
        "response_template": response_template,
        "chat_template": chat_template,
        "max_length": args.max_length,
        "text_field": args.dataset_text_field,
    }
    train = sft_rows(base, dataset, **options)
    held_out = None if eval_dataset is None else sft_rows(base, eval_dataset, **options)
    warn_of_trained_adapter(base.model)
    trainer = SFTTrainer(
        model=fresh_base(base.model),
        args=args,
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=_tokenizer(base, chat_template),
        peft_config=new_adapter(recipe.lora_r, recipe.lora_alpha),
        callbacks=list(callbacks),
    )
    match_compute_dtype(trainer.model, base)
    shorten(trainer)
    attach_displays(trainer, callbacks)
    return trainer


class _Options(TypedDict):
    mask: MaskName
    response_template: str | None
    chat_template: str | None
    max_length: int | None
    text_field: str


def _tokenizer(base: Loaded, chat_template: str | None) -> Any:
    """The tokenizer that the trainer shows and saves: with the template that it trains."""
    if chat_template is None:
        return base.tokenizer
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.chat_template = chat_template
    return tokenizer


def _config(base: Loaded, recipe: SFTRecipe, *, evaluate: bool) -> SFTConfig:
    return SFTConfig(
        neftune_noise_alpha=recipe.neftune_alpha,
        train_sampling_strategy="group_by_length" if recipe.group_by_length else "random",
        **shared_arguments(base, recipe, evaluate=evaluate),
    )


def sft_rows(
    base: Loaded,
    dataset: Dataset,
    *,
    mask: MaskName = "assistant",
    response_template: str | None = None,
    chat_template: str | None = None,
    max_length: int | None = None,
    text_field: str = "text",
) -> Dataset:
    """Return `dataset` with the `input_ids` and `labels` that `sft` would train on.

    Warns of rows whose answer `max_length` cuts or removes. For another evaluation set, or for
    your own trainer; the arguments are those of `sft`, and `text_field` is the column of plain
    text, `trl.SFTConfig`'s ``dataset_text_field``.

    Raises:
        DataError: as for `sft`.
    """
    if not isinstance(dataset, Dataset):
        raise DataError(
            f"sft needs a datasets.Dataset, not a {type(dataset).__name__}: choose one entry of a "
            "dict, and collect a stream with Dataset.from_list(list(stream.take(1000)))"
        )
    if len(dataset) == 0:
        raise DataError("the dataset has no rows")
    if "input_ids" in dataset.column_names or not is_conversational(dataset):
        _check_given(dataset.column_names, mask, text_field)
        return dataset
    prepared = prepare(
        base.tokenizer,
        dataset,
        mask=mask,
        response_template=response_template,
        chat_template=chat_template,
    )
    findings = truncation(prepared, max_length)
    for finding in findings:
        if finding.severity in ("warning", "error"):
            warnings.warn(str(finding), stacklevel=3)
    if not any(any(label != -100 for label in row[:max_length]) for row in prepared["labels"]):
        raise DataError(
            f"no token of any row would be trained (mask={mask!r}, max_length={max_length}): "
            + "; ".join(str(f) for f in findings)
        )
    return prepared


def _check_given(columns: Sequence[str], mask: MaskName, text_field: str) -> None:
    """Refuse rows that TRL would train in another way than `mask` says, or not at all."""
    if "input_ids" in columns:
        kind, does = "tokenized rows, which bring their own labels", None
    elif {"chosen", "rejected"} & set(columns):
        raise DataError(
            f"columns {list(columns)} hold preferences (chosen, rejected), which the reward and "
            "DPO stages take: SFT needs one answer a row, in 'messages'"
        )
    elif {"prompt", "completion"} <= set(columns):
        kind, does = "prompts and completions as text", "completion"
    elif text_field in columns:
        kind, does = "plain text", "full"
    else:
        raise DataError(
            f"columns {list(columns)} hold nothing that SFT trains on: give 'messages' (lists of "
            f"role and content), 'prompt' and 'completion', {text_field!r}, or 'input_ids'"
        )
    if mask not in ("assistant", does):
        only = f"TRL trains them by mask={does!r}; " if does else ""
        raise DataError(
            f"mask={mask!r} does not fit {kind}: {only}leave mask out, or give 'messages'"
        )
