"""What the forgetting study leaves behind: scores before, scores after every run, and what it cost.

Left out: the weights. A run is a point in a picture, not a model to keep.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import nan
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, get_args

from ftkit.errors import RecordError
from ftkit.records import files
from ftkit.records.table import Table
from ftkit.showing import Showable

if TYPE_CHECKING:
    import pandas as pd

Family = Literal["nothing", "full", "held back", "few layers", "lora"]
FAMILIES: tuple[Family, ...] = get_args(Family)

FILE_NAME = "forgetting.json"
_FORMAT, _VERSION = "ftkit.forgetting", 1


@dataclass(frozen=True, slots=True)
class Scores:
    """How good one set of weights is.

    Attributes:
        domain_loss: Mean loss of held-out rows of the domain, nats a token.
        general_loss: Mean loss of held-out general text, nats a token.
        quiz_accuracy: Share of the questions whose right option is the likeliest; NaN without quiz.
        quiz_confidence: Mean probability of the right option among the four; NaN without quiz.
    """

    domain_loss: float
    general_loss: float
    quiz_accuracy: float = nan
    quiz_confidence: float = nan


@dataclass(frozen=True, slots=True)
class ForgettingRun:
    """One strategy with one seed.

    Attributes:
        strategy: Its name.
        family: What is trained: nothing, all weights (free, or held back to the start by replay or
            a penalty), few layers, or adapters.
        seed: Of the order of rows and the start of adapters.
        scores: After training.
        trained: Weights that training may change.
        gradients_mb: Bytes of all gradients at one step, in MB (1e6).
        optimizer_mb: Bytes of the optimizer's state after the run.
        extra_mb: Bytes that the strategy adds: adapters, a copy of the start.
        seconds: Training only.
        steps: Optimizer steps done.
        spectra: Singular values of the change of some matrices, by name, the largest first.
    """

    strategy: str
    family: Family
    seed: int
    scores: Scores
    trained: int
    gradients_mb: float = 0.0
    optimizer_mb: float = 0.0
    extra_mb: float = 0.0
    seconds: float = 0.0
    steps: int = 0
    spectra: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Spread:
    """One measure over the seeds of a strategy: mean, lowest and highest."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        span = "" if self.low == self.high else f" ({self.low:.3f} to {self.high:.3f})"
        return f"{self.mean:.3f}{span}".replace("-", "−")


@dataclass(frozen=True, slots=True)
class Summary:
    """A strategy over its seeds.

    Attributes:
        strategy: Its name.
        runs: One a seed, in the order of seeds.
        learned: Fall of the domain loss, nats a token; above 0 is good.
        forgotten: Rise of the general loss, nats a token; above 0 is bad.
        quiz: Change of the quiz's accuracy; below 0 is bad.
        confidence: Change of the probability of the right option.
    """

    strategy: str
    runs: tuple[ForgettingRun, ...]
    learned: Spread
    forgotten: Spread
    quiz: Spread
    confidence: Spread


@dataclass
class ForgettingResult(Showable):
    """Every run of a study, against one start; shows itself as learned against forgotten.

    Attributes:
        domain: What was trained, in words.
        general: What should not be forgotten, in words.
        start: Scores before any training.
        quiz_questions: How many; 0 without quiz.
        weights: Parameters of the model.
        weights_mb: Their bytes, in MB (1e6).
        settings: Sizes and fingerprints of the data; results with other settings don't mix.
        runs: In the order in which they finished.
    """

    domain: str
    general: str
    start: Scores
    quiz_questions: int
    weights: int
    weights_mb: float
    settings: dict[str, Any] = field(default_factory=dict)
    runs: list[ForgettingRun] = field(default_factory=list)

    def run(self, strategy: str, seed: int) -> ForgettingRun | None:
        """Return the finished run of `strategy` with `seed`, None where there is none."""
        return next((r for r in self.runs if (r.strategy, r.seed) == (strategy, seed)), None)

    def learned(self, run: ForgettingRun) -> float:
        """Return by how much the run lowered the domain's loss, nats a token."""
        return self.start.domain_loss - run.scores.domain_loss

    def forgotten(self, run: ForgettingRun) -> float:
        """Return by how much the run raised the general loss, nats a token."""
        return run.scores.general_loss - self.start.general_loss

    def summaries(self) -> list[Summary]:
        """Return one summary a strategy, in the order in which they first finished."""
        names = dict.fromkeys(run.strategy for run in self.runs)
        return [self._summary(name) for name in names]

    def summary(self, strategy: str) -> Summary:
        """Return the summary of one strategy.

        Raises:
            KeyError: it has no run.
        """
        if all(run.strategy != strategy for run in self.runs):
            known = ", ".join(dict.fromkeys(run.strategy for run in self.runs)) or "none"
            raise KeyError(f"no run of {strategy!r}; there are runs of: {known}")
        return self._summary(strategy)

    def _summary(self, name: str) -> Summary:
        own = sorted((r for r in self.runs if r.strategy == name), key=lambda r: r.seed)
        start = self.start
        return Summary(
            name,
            tuple(own),
            learned=_spread(map(self.learned, own)),
            forgotten=_spread(map(self.forgotten, own)),
            quiz=_spread(r.scores.quiz_accuracy - start.quiz_accuracy for r in own),
            confidence=_spread(r.scores.quiz_confidence - start.quiz_confidence for r in own),
        )

    def memory(self) -> Table:
        """Return what each strategy holds in memory while it trains, counted in bytes."""
        columns = ["strategy", "trained weights", "weights, MB", "gradients, MB", "optimizer, MB"]
        rows = [
            (s.strategy, r.trained, *_mb(self.weights_mb + r.extra_mb, r.gradients_mb,
             r.optimizer_mb, self.weights_mb + r.extra_mb + r.gradients_mb + r.optimizer_mb))
            for s in self.summaries()
            for r in s.runs[:1]
        ]  # fmt: skip
        say = (
            "Counted from the tensors of the run, 1 MB = 1e6 bytes; activations come on top and "
            "are about the same for all."
        )
        return Table("Memory while training", [*columns, "sum, MB"], rows, say)

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a run: strategy, seed, learned, forgotten, quiz, cost."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "strategy": run.strategy,
                    "seed": run.seed,
                    "learned": self.learned(run),
                    "forgotten": self.forgotten(run),
                    "quiz accuracy": run.scores.quiz_accuracy,
                    "quiz confidence": run.scores.quiz_confidence,
                    "trained": run.trained,
                    "steps": run.steps,
                    "seconds": run.seconds,
                }
                for run in self.runs
            ]
        )

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``forgetting.json`` into `folder`, whole or not at all; return its path."""
        data = {"format": _FORMAT, "version": _VERSION, **asdict(self)}
        return files.write(Path(folder) / FILE_NAME, files.json_text(data))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "ForgettingResult":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: `folder` holds no ``forgetting.json``.
            RecordError: the file is damaged, or a newer ftkit wrote it.
        """
        return files.read_record(
            Path(folder) / FILE_NAME,
            _from_json,
            what="forgetting study",
            mend="delete the file and run the study again",
        )

    def __str__(self) -> str:
        head = (
            f"{self.domain} learned against {self.general} forgotten, nats a token; start: domain "
            f"{self.start.domain_loss:.3f}, general {self.start.general_loss:.3f}"
        )
        lines = [
            f"  {s.strategy}: learned {s.learned}, forgotten {s.forgotten}, quiz {s.quiz}"
            for s in self.summaries()
        ]
        return "\n".join([head, *lines])


def _spread(values: Any) -> Spread:
    known = list(values)
    if any(value != value for value in known):
        return Spread(nan, nan, nan)
    return Spread(fmean(known), min(known), max(known))


def _mb(*sizes: float) -> tuple[int | float, ...]:
    """Whole MB, with a digit where there is less than 10 of them."""
    return tuple(round(size) if size >= 10 else round(size, 1) for size in sizes)


def _from_json(data: dict[str, Any], path: Path) -> ForgettingResult:
    files.check_format(data, path, (_FORMAT, _VERSION), "a forgetting study")
    strange = {run["family"] for run in data["runs"]} - set(FAMILIES)
    if strange:
        raise RecordError(f"{path} names an unknown family {min(strange)!r}")
    runs = [ForgettingRun(**{**run, "scores": _scores(run["scores"])}) for run in data["runs"]]
    return ForgettingResult(
        domain=str(data["domain"]),
        general=str(data["general"]),
        start=_scores(data["start"]),
        quiz_questions=int(data["quiz_questions"]),
        weights=int(data["weights"]),
        weights_mb=float(data["weights_mb"]),
        settings=dict(data["settings"]),
        runs=runs,
    )


def _scores(data: dict[str, Any]) -> Scores:
    return Scores(**{name: nan if value is None else float(value) for name, value in data.items()})
