"""What a DPO trainer computes for single pairs, read while its own code runs.

TRL keeps the log-probabilities of a batch in local variables and logs their means. Each of its
two passes, policy and reference, goes through the trainer's model, so a hook there sees them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import nan
from typing import Any

from datasets import Dataset
from torch import Tensor
from trl import DPOTrainer

from ftkit.errors import DataError, SettingsError
from ftkit.records import DPOPair
from ftkit.stages.dpo_rows import TOKENS

Four = tuple[float, float, float, float]
_PRECOMPUTED = ("ref_chosen_logps", "ref_rejected_logps")


def dpo_pairs(trainer: DPOTrainer, dataset: Dataset) -> list[DPOPair]:
    """Return each pair of `dataset` with the log-probabilities that the trainer computes now.

    Runs the trainer's collator, its evaluation step and so its loss, and keeps what policy and
    reference gave; nothing is trained or logged.

    Args:
        trainer: From `dpo`.
        dataset: From `dpo_rows`, or the trainer's own ``train_dataset`` and ``eval_dataset``.

    Raises:
        DataError: the rows are not tokenized.
        SettingsError: `trl.DPOConfig` weighs tokens by their place (``ld_alpha``), so that there
            is no log-probability of a whole answer, or the reference is a model of its own.
    """
    if missing := set(TOKENS) - set(dataset.column_names):
        raise DataError(
            f"the rows have no {sorted(missing)}: give trainer.train_dataset, "
            "trainer.eval_dataset or ftkit.stages.dpo_rows(base, dataset)"
        )
    if trainer.ld_alpha is not None or trainer.ref_model is not None:
        raise SettingsError(
            "dpo_pairs reads policy and reference off one model, and whole answers: train without "
            "ld_alpha and without a ref_model of its own"
        )
    size, count = trainer.args.per_device_eval_batch_size, len(dataset)
    starts = range(0, count, size)
    batches = (dataset.select(range(start, min(start + size, count))) for start in starts)
    numbers = [four for batch in batches for four in _batch(trainer, batch)]
    return [_pair(row, four) for row, four in zip(dataset, numbers, strict=True)]


def _batch(trainer: DPOTrainer, rows: Dataset) -> Iterator[Four]:
    """Yield log π of chosen and rejected, then log π_ref, of each pair of one batch."""
    known = [name for name in _PRECOMPUTED if name in rows.column_names]
    batch = trainer.data_collator(list(rows.select_columns([*TOKENS, *known])))
    with _evaluating(trainer), _passes(trainer.model) as seen:
        trainer.prediction_step(trainer.model, batch, prediction_loss_only=True)
    policy = seen[0].sum(dim=1).chunk(2)
    reference = [batch[name] for name in known] or seen[1].sum(dim=1).chunk(2)
    yield from zip(*(values.float().tolist() for values in (*policy, *reference)), strict=True)


@contextmanager
def _passes(model: Any) -> Iterator[list[Tensor]]:
    """Collect the token log-probabilities ``(2 · pairs, time − 1)`` of each pass in the block."""
    seen: list[Tensor] = []
    hook = model.register_forward_hook(lambda _, __, output: seen.append(output.log_probs.detach()))
    try:
        yield seen
    finally:
        hook.remove()


@contextmanager
def _evaluating(trainer: DPOTrainer) -> Iterator[None]:
    """Evaluate in the block, and leave mode and pending metrics as they were."""
    was_training = trainer.model.training
    pending = {key: list(values) for key, values in trainer._metrics["eval"].items()}
    trainer.model.eval()
    try:
        yield
    finally:
        trainer.model.train(was_training)
        trainer._metrics["eval"].clear()
        trainer._metrics["eval"].update(pending)


def _pair(row: dict[str, Any], four: Four) -> DPOPair:
    chosen, rejected, ref_chosen, ref_rejected = four
    return DPOPair(
        prompt=_text(row.get("prompt")),
        chosen=_text(row["chosen"]),
        rejected=_text(row["rejected"]),
        chosen_logp=chosen,
        rejected_logp=rejected,
        ref_chosen_logp=ref_chosen,
        ref_rejected_logp=ref_rejected,
        chosen_tokens=len(row["chosen_ids"]),
        rejected_tokens=len(row["rejected_ids"]),
        gold_gap=row["gold_chosen"] - row["gold_rejected"] if "gold_chosen" in row else nan,
    )


def _text(value: str | Sequence[dict[str, Any]] | None) -> str:
    """Return text or messages as one readable text."""
    if value is None or isinstance(value, str):
        return value or ""
    single = len(value) == 1
    return "\n".join(str(m["content"]) if single else f"{m['role']}: {m['content']}" for m in value)
