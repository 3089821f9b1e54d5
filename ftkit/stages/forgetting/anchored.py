"""`AnchoredTrainer`: the trainer of transformers, whose loss may pull back to the start.

Left out: logging and checkpoints; a run of the study is short, and what counts is its end.
"""

import copy
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import log_softmax
from transformers import (
    DataCollatorForSeq2Seq,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from ftkit.models import Loaded
from ftkit.stages.adapters import compute_dtype
from ftkit.stages.forgetting.strategies import Strategy


def exact_kl(start: Tensor, now: Tensor, mask: Tensor) -> Tensor:
    """Return the mean KL(start ‖ now) over the whole vocabulary, nats a token.

    Args:
        start: ``(batch, time, vocab)`` logits of the model before training.
        now: Logits of the model in training, same shape.
        mask: ``(batch, time)`` bool, true at real tokens.
    """
    old, new = log_softmax(start.float(), -1), log_softmax(now.float(), -1)
    return (old.exp() * (old - new)).sum(-1)[mask].mean()


def half_squared_distance(named: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> Tensor:
    """Return ½ ‖w − w₀‖² over the weights of `start`, by name."""
    distances = [(named[name] - old).square().sum() for name, old in start.items()]
    return torch.stack(distances).sum() / 2


class AnchoredTrainer(Trainer):
    """Cross entropy plus what the strategy adds.

    Attributes:
        gradient_bytes: Of all gradients at the last step.
    """

    def __init__(
        self,
        base: Loaded,
        model: Any,
        rows: Dataset,
        strategy: Strategy,
        start: Mapping[str, Tensor],
        *,
        steps: int,
        batch_size: int,
        seed: int,
    ) -> None:
        """Prepare a run.

        Args:
            base: Says how to pad and in which precision.
            model: What is trained: the base's own model, or with LoRA layers in it.
            rows: In the order of training.
            strategy: What it adds to the loss, and the learning rate.
            start: Trained weights by name as they were, for L2.
            steps: Optimizer steps.
            batch_size: Rows a step.
            seed: Of everything random in training.
        """
        self.strategy, self.start = strategy, start
        self.frozen = _frozen(model) if strategy.kl else None
        counter = _GradientBytes()
        super().__init__(
            model=model,
            args=_arguments(base, strategy, steps=steps, batch_size=batch_size, seed=seed),
            train_dataset=rows,
            data_collator=DataCollatorForSeq2Seq(base.tokenizer),
            callbacks=[counter],
        )
        self._counter = counter
        self.remove_callback(PrinterCallback)

    @property
    def gradient_bytes(self) -> int:
        """Bytes of all gradients at the last step."""
        return self._counter.found

    @property
    def optimizer_bytes(self) -> int:
        """Bytes of the optimizer's state."""
        states = self.optimizer.state.values() if self.optimizer else ()
        return sum(t.nbytes for state in states for t in state.values() if torch.is_tensor(t))

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return cross entropy + kl · KL(start ‖ now) + l2 · ½ ‖w − w₀‖²."""
        inputs["use_cache"] = False
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if self.strategy.kl:
            mask = inputs["attention_mask"].bool()
            loss = loss + self.strategy.kl * exact_kl(self._before(inputs), outputs.logits, mask)
        if self.strategy.l2:
            named = dict(self.model.named_parameters())
            loss = loss + self.strategy.l2 * half_squared_distance(named, self.start)
        return (loss, outputs) if return_outputs else loss

    def _before(self, inputs: dict[str, Any]) -> Tensor:
        """The start's logits: of the copy, or of the base without its adapter."""
        plain = {k: v for k, v in inputs.items() if k != "labels"}
        off = self.model.disable_adapter() if self.frozen is None else nullcontext()
        with torch.no_grad(), off:
            logits: Tensor = (self.frozen or self.model)(**plain).logits
        return logits


class _GradientBytes(TrainerCallback):
    found = 0

    def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
        self.found = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)


def _frozen(model: Any) -> Any:
    """A copy that stays at the start; None for LoRA, whose base is still in there."""
    if isinstance(model, PeftModel):
        return None
    return copy.deepcopy(model).eval().requires_grad_(False)


def _arguments(
    base: Loaded, strategy: Strategy, *, steps: int, batch_size: int, seed: int
) -> TrainingArguments:
    on_cpu = base.model.device.type == "cpu"
    return TrainingArguments(
        output_dir=tempfile.mkdtemp(prefix="ftkit-"),
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        learning_rate=strategy.learning_rate,
        warmup_steps=min(max(1, steps // 10), steps - 1),
        train_sampling_strategy="sequential",  # the schedule is the order
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=seed,
        use_cpu=on_cpu,
        bf16=compute_dtype(base) is torch.bfloat16 and not on_cpu,
        fp16=compute_dtype(base) is torch.float16,
        dataloader_pin_memory=not on_cpu,
    )
