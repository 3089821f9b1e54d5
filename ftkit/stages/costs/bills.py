"""The usual terms of a fine-tuning project, ready for your own numbers.

ftkit ships no prices: they age within weeks. Every range that `example_bill` makes is an example
that is marked as one, in the code and in the picture.
"""

from dataclasses import dataclass, field
from typing import Any

from ftkit.errors import SettingsError
from ftkit.stages.costs.flops import HARDWARE, Work, gpu_hours, stage_flops
from ftkit.stages.costs.money import Bill, Factor
from ftkit.stages.costs.plan import MemoryPlan
from ftkit.stages.costs.ranges import Range


@dataclass(frozen=True, slots=True)
class Compute:
    """What the accelerators do.

    Attributes:
        model: What `ModelShape.of` takes.
        plan: Stage, method and length.
        work: How many rows.
        hardware: A name of `HARDWARE`.

    Raises:
        SettingsError: unknown hardware.
    """

    model: Any = "llama-3.1-8b"
    plan: MemoryPlan = field(default_factory=lambda: MemoryPlan(length=1024))
    work: Work = field(default_factory=lambda: Work(100_000))
    hardware: str = "H100 SXM"

    def __post_init__(self) -> None:
        if self.hardware not in HARDWARE:
            names = ", ".join(HARDWARE)
            raise SettingsError(f"hardware {self.hardware!r} is unknown; use one of {names}")

    @property
    def hours(self) -> float:
        """Hours of one accelerator at its peak; real ones are this divided by the utilization."""
        flops = sum(stage_flops(self.model, self.plan, self.work).values())
        return gpu_hours(flops, HARDWARE[self.hardware], mfu=1.0)


def gpu_term(compute: Compute, *, price: Range, mfu: Range, runs: Range) -> tuple[Factor, ...]:
    """Return the factors of the accelerator bill.

    Args:
        compute: What is computed in one run.
        price: Of an accelerator's hour.
        mfu: Share of the peak that is reached.
        runs: How many runs it takes until one is kept: tests, crashes, other settings.
    """
    hours = Range.exactly(compute.hours)
    return (
        Factor("GPU hours at the peak", hours, f"{compute.hardware} hours"),
        Factor("utilization", mfu, "of the peak", divides=True),
        Factor("runs", runs),
        Factor("price of a GPU hour", price, "an hour"),
    )


def example_bill(compute: Compute | None = None) -> Bill:
    """Return a bill with five terms, all ranges examples: replace them by your own.

    Args:
        compute: What the accelerators do; by default LoRA on an 8B model, 100,000 rows.
    """
    gpu = gpu_term(
        compute or Compute(),
        price=Range(1.5, 6.0),
        mfu=Range(0.15, 0.45, "triangular", likely=0.3),
        runs=Range(3, 30),
    )
    return {
        "GPU": (gpu[0], *(_example(f.name, f.range, f.unit, f.divides) for f in gpu[1:])),
        "data": (
            _example("rows collected", Range(5_000, 50_000), "rows"),
            _example("price of a row", Range(0.02, 1.0), "a row"),
        ),
        "labels": (
            _example("items labelled", Range(2_000, 20_000), "items"),
            _example("raters an item", Range(1, 5, "triangular", likely=3), "raters"),
            _example("price of a label", Range(0.2, 4.0), "a label"),
        ),
        "people": (
            _example("hours of work", Range(80, 600), "hours"),
            _example("cost of an hour", Range(30, 120), "an hour"),
        ),
        "inference": (
            _example("million tokens served", Range(50, 5_000), "M tokens"),
            _example("price of a million tokens", Range(0.1, 2.0), "a M tokens"),
        ),
    }


def _example(name: str, value: Range, unit: str = "", divides: bool = False) -> Factor:
    return Factor(name, value, unit, divides=divides, example=True)
