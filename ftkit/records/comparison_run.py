"""The parts of a comparison: measured points, runs, and an algorithm read at a budget."""

from dataclasses import dataclass
from math import nan
from statistics import fmean
from typing import Literal, get_args

Algorithm = Literal["ppo", "dpo", "grpo", "rloo", "best-of-n"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
NAMES: dict[Algorithm, str] = {
    "ppo": "PPO",
    "dpo": "DPO",
    "grpo": "GRPO",
    "rloo": "RLOO",
    "best-of-n": "best-of-n",
}
"""How each is written in pictures and tables."""
Budget = Literal["tokens", "seconds"]


@dataclass(frozen=True, slots=True)
class ComparisonPoint:
    """One look at a policy, with what it had cost until then.

    Attributes:
        tokens: Completion tokens sampled, up to and with each stop token. Best-of-n samples them
            when it answers: all n answers to each evaluation prompt.
        seconds: Wall time of sampling and training (best-of-n: of sampling), evaluation excluded.
        gold: Mean reward of the evaluation answers.
        gold_error: Its standard error.
        kl: Mean of Σ log π − log π_start over the tokens of an answer, nats; of best-of-n the
            bound log n − (n − 1)/n.
        kl_error: Its standard error; 0 for the bound.
        memory_mb: Highest memory so far, in MB (1e6): the process's resident size, sampled every
            few milliseconds while it sampled and trained; on CUDA the allocator's own peak.
        step: Optimizer steps or rounds done; of best-of-n its n.
    """

    tokens: int
    seconds: float
    gold: float
    gold_error: float = nan
    kl: float = 0.0
    kl_error: float = 0.0
    memory_mb: float = nan
    step: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """An evaluation answer, to read with one's own eyes."""

    prompt: str
    text: str
    gold: float


@dataclass(frozen=True, slots=True)
class ComparisonRun:
    """One algorithm with one seed.

    Attributes:
        algorithm: Which.
        seed: Of adapter, prompts and sampling.
        points: From the start on; empty where the run failed.
        samples: A few answers of the last point.
        failed: What went wrong, empty for a run that did not fail.
        note: What else is worth knowing, e.g. how many pairs DPO got.
    """

    algorithm: Algorithm
    seed: int
    points: tuple[ComparisonPoint, ...]
    samples: tuple[Sample, ...] = ()
    failed: str = ""
    note: str = ""

    def within(self, budget: Budget, limit: float) -> ComparisonPoint:
        """Return the last point that spent at most `limit` tokens or seconds.

        Raises:
            ValueError: there is none, since the run failed.
        """
        inside = [point for point in self.points if getattr(point, budget) <= limit]
        if not inside:
            raise ValueError(f"{self.algorithm}, seed {self.seed}: no point within {limit}")
        return inside[-1]


@dataclass(frozen=True, slots=True)
class Reading:
    """An algorithm at a budget: its seeds' points there, in the order of seeds."""

    algorithm: Algorithm
    points: tuple[ComparisonPoint, ...]

    def mean(self, name: str) -> float:
        """Return the mean of a field of the points over the seeds."""
        return fmean(getattr(point, name) for point in self.points)

    def span(self, name: str) -> tuple[float, float]:
        """Return the lowest and the highest value of a field over the seeds."""
        values = [getattr(point, name) for point in self.points]
        return min(values), max(values)
