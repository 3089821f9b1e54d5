"""How long the rest will take, as far as the trials so far tell."""

from collections.abc import Sequence
from time import perf_counter

from ftkit.records.ablation import AblationTrial, Setting


class Clock:
    """Time since the call began, and a range for the rest."""

    def __init__(self, workers: int) -> None:
        """Start now; `workers` trials run at once."""
        self._began = perf_counter()
        self._workers = workers

    @property
    def seconds(self) -> float:
        """Since the call began."""
        return perf_counter() - self._began

    def left(self, trials: Sequence[AblationTrial]) -> tuple[float, float] | None:
        """Return the shortest and the longest time for what has not ended.

        A trial takes as long as the fastest or the slowest of its own setting, where one is done;
        else of all. Workers may stand idle while the last trial ends: the longest time is the
        bound of Graham (1966) for that. Failed trials end early and tell nothing. Other processes
        may be faster.

        Returns:
            Seconds; None before anything is done, and when nothing is left.
        """
        timed = [(t.setting, t.seconds) for t in trials if t.state == "done" and t.seconds]
        rest = [t.setting for t in trials if t.state in ("running", "waiting")]
        if not timed or not rest:
            return None
        known = [_known(setting, timed) for setting in rest]
        at_once = min(self._workers, len(rest))
        slowest = [max(k) for k in known]
        idle = max(slowest) * (at_once - 1) / at_once
        return sum(min(k) for k in known) / at_once, sum(slowest) / at_once + idle


def _known(setting: Setting, timed: Sequence[tuple[Setting, float]]) -> list[float]:
    own = [seconds for other, seconds in timed if other == setting]
    return own or [seconds for _, seconds in timed]
