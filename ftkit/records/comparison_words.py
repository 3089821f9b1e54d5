"""How numbers of a comparison are written, in its table, its text and its picture."""

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from ftkit.records.comparison_run import NAMES, Budget, Reading

if TYPE_CHECKING:
    from ftkit.records.comparison import ComparisonResult

COLUMNS = (
    *("budget", "algorithm", "seeds", "gold", "KL, nats", "tokens"),
    *("seconds", "peak memory, MB"),
)


def limit_text(result: "ComparisonResult", budget: Budget) -> str:
    """Return the budget in words: ``2,560 tokens``, ``75 s``."""
    return f"{result.tokens:,} tokens" if budget == "tokens" else f"{result.seconds:g} s"


def kl_text(reading: Reading) -> str:
    """Return the mean KL, marked as a bound where it is one."""
    bound = "≤ " if reading.algorithm == "best-of-n" else ""
    return f"{bound}{reading.mean('kl'):.2f}".replace("-", "−")


def signed(value: float) -> str:
    """Return a reward with its sign and two digits."""
    return f"{value:+.2f}".replace("-", "−")


def in_short(reading: Reading) -> str:
    """Return an algorithm's gold, KL and seconds in one line."""
    gold, seconds = signed(reading.mean("gold")), reading.mean("seconds")
    return f"{NAMES[reading.algorithm]} gold {gold}, KL {kl_text(reading)} nats, {seconds:.0f} s"


def row(result: "ComparisonResult", budget: Budget, reading: Reading) -> Sequence[Any]:
    """Return the cells of `COLUMNS` for an algorithm at a budget, means over its seeds.

    Memory alone is the highest of the seeds.
    """
    low, high = reading.span("gold")
    span = f" ({signed(low)} to {signed(high)})" if len(reading.points) > 1 else ""
    name = NAMES[reading.algorithm]
    if reading.algorithm == "best-of-n":
        name = f"best of {_between(p.step for p in reading.points)}"
    memory = reading.span("memory_mb")[1]
    return (
        *(limit_text(result, budget), name, len(reading.points)),
        *(f"{signed(reading.mean('gold'))}{span}", kl_text(reading)),
        *(round(reading.mean("tokens")), round(reading.mean("seconds"))),
        round(memory) if isfinite(memory) else "",
    )


def _between(values: Iterable[int]) -> str:
    known = sorted(set(values))
    return str(known[0]) if len(known) == 1 else f"{known[0]} to {known[-1]}"


def start_text(result: "ComparisonResult") -> str:
    """Return the gold of the start with the standard error of one run's evaluation."""
    gold, error = result.at_start()
    return f"{signed(gold)} ± {error:.2f}" if isfinite(gold) else "not yet measured"


def say(result: "ComparisonResult") -> str:
    """Return what has to be known to read the table, failures included."""
    parts = [
        "Means over seeds, in brackets the lowest and highest; memory is the highest of the "
        f"seeds; gold at the start, ± its standard error: {start_text(result)}. A run is read at "
        "its last measured point within the budget. Seconds and memory are those of these "
        "implementations: PPO is ftkit's, the other trainers TRL's."
    ]
    if result.seeds_of("best-of-n"):
        parts.append(
            "Best-of-n trains nothing: its tokens and seconds are those of answering the "
            "evaluation prompts, and would be paid again for the next ones; its KL is the bound "
            "log n − (n − 1)/n."
        )
    parts += [
        f"{NAMES[run.algorithm]}, seed {run.seed}, failed: {run.failed}"
        for run in result.failures()
    ]
    return " ".join(parts)
