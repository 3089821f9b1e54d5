"""A step of SFT, reward and DPO trainers with ftkit's passes against the same step as TRL makes it.

    python benchmarks/trainer_passes.py            # about 5 minutes on 2 cores
    python benchmarks/trainer_passes.py --batches 8

One trainer, one batch, twice: inside `ftkit.stages.passes` and without. Both give the same loss and
the same gradients to rounding (`tests/stages/test_passes.py`); reported are seconds of forward and
backward pass, their ratio, and the largest difference of a loss. On a GPU little is left to save:
TRL sends only labels through the LM head there, and recomputed layers are not packed.
"""

import argparse
import os
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from ftkit.threads import wait_briefly

wait_briefly()  # before torch is imported


def main() -> None:
    """Time both kinds of passes in turn, batch by batch, and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batches", type=int, default=5)
    batches = parser.parse_args().batches

    import datasets

    import ftkit

    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", category=FutureWarning)
    base = ftkit.load()
    print(f"{base.card.name}, {os.cpu_count()} cores, {batches} batches a stage")
    print(f"{'stage':8}{'TRL (s)':>10}{'ftkit (s)':>11}{'ratio':>8}{'loss differs by':>18}")
    for name, trainer in trainers(base):
        timed = [compared(trainer, batch) for batch in first(trainer, batches + 1)]
        theirs, ours, apart = zip(*timed[1:], strict=True)  # the first batch warms up
        ratio = sum(theirs) / sum(ours)
        print(f"{name:8}{sum(theirs):10.1f}{sum(ours):11.1f}{ratio:8.2f}{max(apart):18.1e}")


def trainers(base: Any) -> Iterator[tuple[str, Any]]:
    """Give a trainer of each stage on the shipped data, sized as in the notebooks."""
    from ftkit import data, stages

    sizes: dict[str, Any] = {"batch_size": 8, "max_length": 128, "eval_every": 0}
    talks, pairs = data.chatterbot(), data.sentiment_pairs()
    yield "sft", stages.sft(base, talks, recipe=stages.SFTRecipe(group_by_length=True, **sizes))
    yield "reward", stages.reward(base, pairs, recipe=stages.RewardRecipe(**sizes))
    yield "dpo", stages.dpo(base, pairs, recipe=stages.DPORecipe(**sizes))


def first(trainer: Any, batches: int) -> list[Any]:
    """Return the first batches that the trainer would take."""
    return [trainer._prepare_inputs(b) for b in islice(trainer.get_train_dataloader(), batches)]


def compared(trainer: Any, batch: Any) -> tuple[float, float, float]:
    """Return the seconds of TRL's and of ftkit's passes, and how far their losses differ."""
    plain = type(trainer).compute_loss_context_manager.__get__(trainer)
    theirs, expected = step(trainer, batch, plain)
    ours, loss = step(trainer, batch, trainer.compute_loss_context_manager)
    return theirs, ours, abs(loss - expected)


def step(trainer: Any, batch: Any, passes: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds of a forward and a backward pass, and the loss."""
    trainer.model.train()
    trainer.model.zero_grad()
    began = time.perf_counter()
    with passes():
        loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    return time.perf_counter() - began, loss.item()


if __name__ == "__main__":
    main()
