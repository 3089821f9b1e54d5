"""How far a study is, and how long the rest will take, as far as that can be known."""

from dataclasses import dataclass
from time import perf_counter

from ftkit.records.forgetting import ForgettingRun


@dataclass(frozen=True, slots=True)
class Progress:
    """The state after a run; printing it gives one line.

    Attributes:
        done: Runs that are there.
        total: Runs that were asked for.
        run: The latest one.
        seconds: That it took, scoring included; None where it was there already.
        left: Shortest and longest time for the rest in seconds, if it goes as the fastest and as
            the slowest run so far; None before anything was timed, and at the end.
    """

    done: int
    total: int
    run: ForgettingRun
    seconds: float | None
    left: tuple[float, float] | None

    def __str__(self) -> str:
        took = "kept from before" if self.seconds is None else f"{self.seconds:.0f} s"
        rest = f", {_span(*self.left)} left" if self.left else ""
        head = f"{self.done} of {self.total}: {self.run.strategy}, seed {self.run.seed}"
        return f"{head}, {took}{rest}"


class Clock:
    """Times the runs of one call."""

    def __init__(self, total: int) -> None:
        """Start at `total` runs to go."""
        self._total, self._done = total, 0
        self._trained: list[float] = []
        self._last: float | None = None
        self._since = perf_counter()

    def ran(self, run: ForgettingRun) -> None:
        """Count a run that ended just now."""
        now = perf_counter()
        self._last, self._since = now - self._since, now
        self._done += 1
        if run.trained:  # doing nothing takes no time, and says nothing about the others
            self._trained.append(self._last)

    def found(self) -> None:
        """Count a run that was there already."""
        self._last, self._since = None, perf_counter()
        self._done += 1

    def progress(self, run: ForgettingRun, *, rest: int) -> Progress:
        """Return the state; `run` is the latest, and `rest` have still to be trained."""
        known = bool(self._trained and rest)
        left = (rest * min(self._trained), rest * max(self._trained)) if known else None
        return Progress(self._done, self._total, run, self._last, left)


def _span(low: float, high: float) -> str:
    if high < 100:
        shown = [f"{value:.0f}" for value in (low, high)]
        unit = "s"
    else:
        shown = [f"{value / 60:.1f}" for value in (low, high)]
        unit = "min"
    return (
        f"about {shown[0]} {unit}" if shown[0] == shown[1] else f"{shown[0]} to {shown[1]} {unit}"
    )
