"""What is examined: a trainer with its final tensors, or a tokenizer with data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch

from ftkit.chat.annotated import MaskName
from ftkit.chat.labels import Labelled
from ftkit.chat.prepare import conversation
from ftkit.diagnosis.rows import Row, Rows
from ftkit.errors import DataError

Kind = Literal["chats", "pairs", "rated", "tokens", "completions", "texts", "prompts", "none"]
REINFORCED = ("grpo", "rloo", "ppo")
_METHODS = ("sft", "reward", "dpo", "kto", "grpo", "rloo", "ppo")


@dataclass
class Case:
    """One examination.

    Attributes:
        subject: What it is, for the head of the report.
        rows: Of the dataset; a trainer's prepared one.
        tokenizer: None for preference data without one.
        model: None when there is none at hand.
        trainer: None for a tokenizer with data.
        chat_template: The one that is trained with; None for the tokenizer's own.
        mask: Which tokens would be trained, where no trainer has decided that.
        response_template: As for `ftkit.chat.annotate`.
        max_length: Where rows are cut, in tokens.
        text_field: Column of plain text.
        progress: Whether to show a progress bar.
    """

    subject: str
    rows: Rows
    tokenizer: Any = None
    model: Any = None
    trainer: Any = None
    chat_template: str | None = None
    mask: MaskName = "assistant"
    response_template: str | None = None
    max_length: int | None = None
    text_field: str = "text"
    progress: bool = True
    lengths: list[tuple[int, str]] = field(default_factory=list)
    """Length in tokens of each row, and what `max_length` does to it: whole, cut or gone."""

    @property
    def args(self) -> Any:
        """The trainer's arguments, None without a trainer."""
        return getattr(self.trainer, "args", None)

    @property
    def method(self) -> str:
        """``"sft"``, ``"reward"``, ``"dpo"``, …; empty for another trainer or none."""
        names = [cls.__name__.removesuffix("Config").lower() for cls in type(self.args).__mro__]
        return next((name for name in names if name in _METHODS), "")

    @property
    def packed(self) -> bool:
        """Whether a row holds several texts."""
        return bool(getattr(self.args, "packing", False))

    @cached_property
    def kind(self) -> Kind:
        """What the columns hold."""
        return kind_of(self.rows.first, self.text_field)

    @cached_property
    def labelled(self) -> list[Labelled]:
        """The prepared rows as the trainer keeps them; empty where it keeps no labels."""
        if "labels" not in self.rows.first or "input_ids" not in self.rows.first:
            return []
        return [
            Labelled(i, row["input_ids"], row["labels"])
            for i, row in self.rows.items
            if len(row["input_ids"]) == len(row["labels"])
        ]

    @cached_property
    def batch(self) -> Mapping[str, Any]:
        """The trainer's first batch, by its own sampler and collator; empty without tensors.

        Raises:
            Exception: whatever the collator raises.
        """
        if self.trainer is None or self.method in REINFORCED or not self.rows.items:
            return {}
        with torch.random.fork_rng():  # the sampler draws its seed; training must not notice
            batch = next(iter(self.trainer.get_train_dataloader()))
        return batch if isinstance(batch, Mapping) else {}

    def batch_rows(self) -> list[Labelled]:
        """The rows of the first batch without padding; empty where it has no labels."""
        if "labels" not in self.batch or "input_ids" not in self.batch:
            return []
        ids, labels = self.batch["input_ids"].tolist(), self.batch["labels"].tolist()
        real = self.batch.get("attention_mask")
        if real is None or real.dim() != 2:  # padding-free: one long row
            return [Labelled(i, *row) for i, row in enumerate(zip(ids, labels, strict=True))]
        return [
            _real(i, *row) for i, row in enumerate(zip(ids, labels, real.tolist(), strict=True))
        ]


def _real(index: int, ids: list[int], labels: list[int], mask: list[int]) -> Labelled:
    kept = [k for k, m in enumerate(mask) if m]
    return Labelled(index, [ids[k] for k in kept], [labels[k] for k in kept])


def kind_of(row: Row, text_field: str = "text") -> Kind:
    """Return what a row holds.

    Raises:
        DataError: columns that no trainer reads.
    """
    columns = set(row)
    if not columns:
        return "none"
    if {"chosen", "rejected"} <= columns or {"chosen_ids", "rejected_ids"} <= columns:
        return "pairs"
    if {"completion", "label"} <= columns:
        return "rated"
    if conversation(row) is not None:
        return "chats"
    if "input_ids" in columns:
        return "tokens"
    if isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str):
        return "completions"
    if isinstance(row.get(text_field), str):
        return "texts"
    if "prompt" in columns:
        return "prompts"
    raise DataError(
        f"columns {sorted(columns)} hold nothing that a trainer reads: give 'messages', 'prompt' "
        f"and 'completion', 'chosen' and 'rejected', {text_field!r} or 'input_ids'"
    )
