"""Continued pre-training: a `trl.SFTTrainer` with LoRA on the quantized base, on packed text.

The loss is that of SFT, with nothing masked: every token of every block is trained, but the first
of each block, which nothing predicts. Left out: training from a random start, and attention that
stops at document borders (`ftkit.stages.crossing_effect` measures what that would change).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from ftkit.algos import group_text
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
from ftkit.stages.starting import new_adapter


@dataclass(frozen=True, slots=True)
class PretrainRecipe:
    """The choices of a run.

    Attributes:
        steps: Optimizer steps.
        batch_size: Blocks a step and process.
        learning_rate: Peak, after warm-up, decaying linearly to 0. 2e-4 is QLoRA's value for
            small models (Dettmers et al. 2023, table 9).
        warmup_steps: Steps of linear warm-up.
        lora_r: Rank of the adapter.
        lora_alpha: Scale of the adapter; the update is multiplied by ``lora_alpha / lora_r``.
        block_size: Tokens a block. Longer blocks give more context and drop more of the end of a
            small corpus; memory grows with them.
        eval_every: Steps between scores of the held-out blocks; 0 scores none.
        log_every: Steps between logged metrics.
        seed: Of the adapter's start and the shuffling.
    """

    steps: int = 60
    batch_size: int = 8
    learning_rate: float = 2e-4
    warmup_steps: int = 5
    lora_r: int = 16
    lora_alpha: int = 32
    block_size: int = 128
    eval_every: int = 20
    log_every: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        limits.at_least_one(self, "steps", "batch_size", "lora_r", "lora_alpha", "log_every")
        if self.block_size < 2:
            raise ValueError(
                f"PretrainRecipe: block_size={self.block_size} must be at least 2: the first "
                "token of a block has nothing before it that could predict it"
            )
        limits.not_negative(self, "warmup_steps", "eval_every")
        limits.positive(self, "learning_rate")

    @property
    def max_length(self) -> int:
        """What TRL's configs call `block_size`."""
        return self.block_size


def pretrain(
    base: Loaded,
    dataset: Dataset,
    *,
    eval_dataset: Dataset | None = None,
    text_field: str = "text",
    recipe: PretrainRecipe | None = None,
    args: SFTConfig | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> SFTTrainer:
    """Build a TRL `SFTTrainer` on packed blocks of `dataset`, ready for ``train()``.

    With several processes (``accelerate launch``) the first one tokenizes and packs, and the
    others read its result, where `dataset` lies on disk (`Dataset.load_from_disk`, a hub set).

    There is one base in memory: a later stage on it takes this adapter out, so save it before
    (``trainer.save_model(folder)``). An adapter that the base carries now is removed, with a
    warning if it was trained.

    Args:
        base: From `ftkit.load`.
        dataset: One document a row.
        eval_dataset: Held-out documents.
        text_field: Column of the text.
        recipe: Sizes and rates; see `PretrainRecipe`.
        args: Your own `trl.SFTConfig`, used instead of what `recipe` says, except for LoRA and
            `block_size`.
        callbacks: E.g. ``[ftkit.LiveMetrics()]``.

    Raises:
        DataError: as `pretrain_rows`, or `args` would pack or cut the blocks again.
    """
    recipe = recipe or PretrainRecipe()
    args = args or SFTConfig(**shared_arguments(base, recipe, evaluate=eval_dataset is not None))
    _check_arguments(args, recipe)
    rows = partial(pretrain_rows, base, block_size=recipe.block_size, text_field=text_field)
    with args.main_process_first(desc="tokenizing and packing"):
        train = rows(dataset)
        held_out = None if eval_dataset is None else rows(eval_dataset)
    warn_of_trained_adapter(base.model)
    trainer = SFTTrainer(
        model=fresh_base(base.model),
        args=args,
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=base.tokenizer,
        peft_config=new_adapter(recipe.lora_r, recipe.lora_alpha),
        callbacks=list(callbacks),
    )
    match_compute_dtype(trainer.model, base)
    attach_displays(trainer, callbacks)
    return trainer


def pretrain_rows(
    base: Loaded, dataset: Dataset, *, block_size: int, text_field: str = "text"
) -> Dataset:
    """Return the blocks that `pretrain` trains on: a column ``input_ids``, all of one length.

    Args:
        base: Its tokenizer is used.
        dataset: One document a row.
        block_size: Tokens a block, at least 2.
        text_field: Column of the text.

    Raises:
        DataError: no dataset, no rows, no such column, a row without text, or a block that is
            longer than all documents together.
    """
    _check_dataset(dataset, text_field)
    arguments = {"tokenizer": base.tokenizer, "block_size": block_size}
    try:
        return dataset.map(
            _blocks,
            fn_kwargs=arguments,
            input_columns=text_field,
            batched=True,
            batch_size=None,  # one remainder for the whole set, not one a batch
            remove_columns=dataset.column_names,
            desc="Tokenizing and packing",
        )
    except ValueError as error:
        raise DataError(f"these {len(dataset)} documents cannot be packed: {error}") from error


def tokenize(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each document, each ended by the tokenizer's end token.

    Raises:
        DataError: a document is no text, or only white space; names its row.
    """
    bad = [i for i, text in enumerate(texts) if not isinstance(text, str) or not text.strip()]
    if bad:
        raise DataError(
            f"row {bad[0]} holds no text ({len(bad)} of {len(texts)} rows): leave such rows out, "
            "e.g. dataset.filter(lambda row: row['text'].strip())"
        )
    # Whole documents are longer than the model's context; the blocks are not.
    rows = tokenizer(list(texts), verbose=False)["input_ids"]
    return [[*row, tokenizer.eos_token_id] for row in rows]


def _blocks(texts: Sequence[str], tokenizer: Any, block_size: int) -> dict[str, Any]:
    return {"input_ids": group_text(tokenize(tokenizer, texts), block_size).input_ids.tolist()}


def _check_dataset(dataset: Any, text_field: str) -> None:
    if not isinstance(dataset, Dataset):
        raise DataError(
            f"pretrain needs a datasets.Dataset, not a {type(dataset).__name__}: choose one entry "
            "of a dict, and collect a stream with Dataset.from_list(list(stream.take(1000)))"
        )
    if len(dataset) == 0:
        raise DataError("the corpus is empty: the dataset has no rows")
    if text_field not in dataset.column_names:
        raise DataError(
            f"no column {text_field!r} among {dataset.column_names}: name the one that holds the "
            "text by text_field="
        )


def _check_arguments(args: SFTConfig, recipe: PretrainRecipe) -> None:
    if args.packing:
        raise DataError("SFTConfig(packing=True) would pack the blocks again: leave it out")
    if args.max_length is not None and args.max_length < recipe.block_size:
        raise DataError(
            f"SFTConfig(max_length={args.max_length}) would cut the blocks of "
            f"{recipe.block_size} tokens: give recipe=PretrainRecipe(block_size={args.max_length})"
        )
