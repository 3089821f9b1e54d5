"""`GroupRecorder`: keeps the groups that a GRPO or RLOO trainer really used, as it used them.

It listens to the trainer's own sampling step: texts and scores come from the trainer's logs, the
advantages and the mask from the batch that goes into the loss. Nothing is computed again.
"""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from transformers import TrainerCallback
from trl import GRPOTrainer, RLOOTrainer

from ftkit.records.group_trace import Answer, Group, GroupStep, GroupTrace


class GroupRecorder(TrainerCallback):
    """Records groups of chosen steps; pass it in ``callbacks`` or call `attach`.

    Attributes:
        trace: What was recorded of the trainer that it was attached to last.
    """

    trace: GroupTrace

    def __init__(self, *, steps: Collection[int] | None = None, groups: int = 4) -> None:
        """Choose what is kept.

        Args:
            steps: Optimizer steps, counted from 1; None for all.
            groups: How many groups of a step, at least 1.

        Raises:
            ValueError: `groups` below 1.
        """
        if groups < 1:
            raise ValueError(f"groups={groups}: a recorder keeps at least 1 group a step")
        self._steps = None if steps is None else frozenset(steps)
        self._groups = groups

    def attach(self, trainer: Any) -> "GroupRecorder":
        """Listen to `trainer`, with a new trace; return self.

        Raises:
            TypeError: a trainer that samples no groups.
            ValueError: a run of several processes, whose logs and batches hold different rows.
        """
        if not isinstance(trainer, GRPOTrainer | RLOOTrainer):
            raise TypeError(
                f"a {type(trainer).__name__} samples no groups: GroupRecorder listens to "
                "trl.GRPOTrainer and trl.RLOOTrainer"
            )
        if trainer.accelerator.num_processes > 1:
            raise ValueError("GroupRecorder records runs of one process only")
        self.trace = _empty_trace(trainer)
        sample_and_score = trainer._generate_and_score_completions

        def listening(inputs: Any) -> dict[str, Any]:
            batch: dict[str, Any] = sample_and_score(inputs)
            step = trainer.state.global_step + 1
            if trainer.model.training and (self._steps is None or step in self._steps):
                self.trace.steps.append(_recorded(trainer, batch, step, self._groups))
            return batch

        trainer._generate_and_score_completions = listening
        return self


def _empty_trace(trainer: Any) -> GroupTrace:
    args = trainer.args
    weights = dict(zip(trainer.reward_func_names, trainer.reward_weights.tolist(), strict=True))
    shared = {
        "group_size": args.num_generations,
        "weights": weights,
        "beta": args.beta,
        "max_new_tokens": args.max_completion_length,
    }
    if isinstance(trainer, RLOOTrainer):
        return GroupTrace("rloo", scale="none", loss_type="sequence", **shared)
    return GroupTrace("grpo", scale=args.scale_rewards, loss_type=args.loss_type, **shared)


def _recorded(trainer: Any, batch: dict[str, Any], step: int, groups: int) -> GroupStep:
    """Read one sampling step; the logs' last rows are those of `batch`, in its order."""
    rows, size = len(batch["advantages"]), trainer.args.num_generations
    logs = trainer._logs
    prompts, texts = list(logs["prompt"])[-rows:], list(logs["completion"])[-rows:]
    scores = {name: list(column)[-rows:] for name, column in logs["rewards"].items()}
    ended = _ended(batch, trainer.eos_token_ids)
    answers = [
        Answer(
            text=_last_words(texts[row]),
            rewards={name: column[row] for name, column in scores.items()},
            advantage=float(batch["advantages"][row]),
            tokens=int(batch["completion_mask"][row].sum()),
            ended=ended[row],
        )
        for row in range(min(groups * size, rows))
    ]
    kept = tuple(
        Group(_last_words(prompts[start]), tuple(answers[start : start + size]))
        for start in range(0, len(answers), size)
    )
    return GroupStep(step, kept, rows // size)


def _ended(batch: dict[str, Any], stops: Sequence[int]) -> list[bool]:
    is_stop = torch.isin(
        batch["completion_ids"], torch.tensor(stops, device=batch["completion_ids"].device)
    )
    return list((is_stop & batch["completion_mask"].bool()).any(1).tolist())


def _last_words(said: Any) -> str:
    """Return text or the last of several messages as text."""
    return said if isinstance(said, str) else str(said[-1]["content"])
