"""An ablation while it runs: what has ended, what runs, and how long the rest may take."""

from dataclasses import dataclass

from ftkit.records.ablation import AblationResult, AblationTrial
from ftkit.showing import Showable


@dataclass(frozen=True)
class AblationProgress(Showable):
    """An ablation while it runs: the result so far, and how long the rest will take.

    Attributes:
        result: With trials that run or wait.
        seconds: Since the call began.
        left: Shortest and longest time for the rest in seconds; None before anything was timed.
        latest: The trial that ended last in this call, if any.
        stopped: Whether the call was interrupted.
    """

    result: AblationResult
    seconds: float
    left: tuple[float, float] | None = None
    latest: AblationTrial | None = None
    stopped: bool = False

    @property
    def ended(self) -> int:
        """Trials that are done or failed."""
        return self.result.count("done") + self.result.count("failed")

    def __str__(self) -> str:
        parts = [f"{self.ended} of {len(self.result.trials)}"]
        if self.latest:
            parts.append(f"{self.result.label(self.latest.setting)}, seed {self.latest.seed}")
            parts.append(_outcome(self.latest))
        if self.left:
            parts.append(f"{span_text(*self.left)} left")
        if self.stopped:
            parts.append("stopped")
        return " · ".join(parts)


def span_text(low: float, high: float) -> str:
    """Return a length of time that is known roughly: ``"3 to 5 min"``, ``"about 20 s"``."""
    if high < 1:
        return "less than 1 s"
    unit, size = ("s", 1) if high < 100 else ("min", 60) if high < 6000 else ("h", 3600)
    digits = 0 if high / size >= 10 or unit == "s" else 1
    ends = [f"{value / size:.{digits}f}" for value in (low, high)]
    return f"about {ends[0]} {unit}" if ends[0] == ends[1] else f"{ends[0]} to {ends[1]} {unit}"


def _outcome(trial: AblationTrial) -> str:
    took = f" ({trial.seconds:.1f} s)" if trial.seconds is not None else ""
    if trial.failure:
        return f"failed{took}: {trial.failure.error}"
    return ", ".join(f"{name} {value:.4g}" for name, value in trial.metrics.items()) + took
