"""What a comparison of algorithms leaves behind: trajectories, and where each stood at a budget.

Every run is a list of measured points. A budget reads each run at its last point within it, so
one set of runs answers for equal tokens and for equal seconds. Left out: the trained adapters.
"""

import importlib
import os
from dataclasses import asdict, dataclass, field
from importlib.resources import files as resources
from math import nan
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, get_args

from ftkit.errors import RecordError
from ftkit.records import comparison_words as words
from ftkit.records import files
from ftkit.records.comparison_run import (
    ALGORITHMS,
    NAMES,
    Budget,
    ComparisonPoint,
    ComparisonRun,
    Reading,
    Sample,
)
from ftkit.records.table import Table
from ftkit.showing import Showable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FILE_NAME = "comparison.json"
_FORMAT, _VERSION = "ftkit.comparison", 1


@dataclass
class ComparisonResult(Showable):
    """Several algorithms from one start, on one reward; shows itself as a frontier with a table.

    Attributes:
        model: The base.
        start: Where every policy began, in words.
        reward: The gold reward.
        tokens: The budget of sampled completion tokens.
        seconds: The budget of wall time.
        device: Where it ran, e.g. ``"cpu"``.
        isolated: Whether each run had a process of its own, so that its memory is its own.
        settings: Sizes, rates and fingerprints; results with other settings don't mix.
        runs: In the order in which they finished.
    """

    model: str
    start: str
    reward: str
    tokens: int
    seconds: float
    device: str = "cpu"
    isolated: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    runs: list[ComparisonRun] = field(default_factory=list)

    @classmethod
    def recorded(cls) -> "ComparisonResult":
        """Return the comparison that ftkit ships, as ``python -m ftkit.stages.compare`` made it.

        Raises:
            FileNotFoundError: this ftkit came without it.
        """
        return cls.load(recorded_folder())

    def run(self, algorithm: str, seed: int) -> ComparisonRun | None:
        """Return the run that did not fail of `algorithm` with `seed`, None without one."""
        same = (r for r in self.runs if (r.algorithm, r.seed) == (algorithm, seed))
        return next((r for r in same if not r.failed), None)

    def seeds_of(self, algorithm: str) -> list[ComparisonRun]:
        """Return the runs of `algorithm` that did not fail, in the order of seeds."""
        own = [r for r in self.runs if r.algorithm == algorithm and not r.failed]
        return sorted(own, key=lambda run: run.seed)

    def failures(self) -> list[ComparisonRun]:
        """Return the runs that failed and were not repeated."""
        return [r for r in self.runs if r.failed and self.run(r.algorithm, r.seed) is None]

    def put(self, run: ComparisonRun) -> None:
        """Add `run`, in place of an earlier failure of the same algorithm and seed."""
        same = (run.algorithm, run.seed)
        self.runs = [r for r in self.runs if (r.algorithm, r.seed) != same or not r.failed]
        self.runs.append(run)

    def limit(self, budget: Budget) -> float:
        """Return the budget's size, in tokens or seconds."""
        return float(self.tokens if budget == "tokens" else self.seconds)

    def readings(self, budget: Budget) -> list[Reading]:
        """Return each algorithm at its last points within a budget, those without runs left out."""
        found = {name: self.seeds_of(name) for name in ALGORITHMS}
        limit = self.limit(budget)
        return [
            Reading(name, tuple(run.within(budget, limit) for run in runs))
            for name, runs in found.items()
            if runs
        ]

    def at_start(self) -> tuple[float, float]:
        """Return the mean gold of the start over all runs, and its mean standard error."""
        firsts = [r.points[0] for r in self.runs if r.points and r.algorithm != "best-of-n"]
        firsts = firsts or [r.points[0] for r in self.runs if r.points]
        if not firsts:
            return nan, nan
        return fmean(p.gold for p in firsts), fmean(p.gold_error for p in firsts)

    def table(self) -> Table:
        """Return one row an algorithm and budget: gold, KL, and what it cost, means over seeds."""
        rows = [
            words.row(self, budget, reading)
            for budget in get_args(Budget)
            for reading in self.readings(budget)
        ]
        return Table("Every algorithm at the same budget", words.COLUMNS, rows, words.say(self))

    def samples(self) -> Table:
        """Return evaluation answers of each algorithm's first seed, at its last point."""
        rows = [
            (NAMES[name], sample.prompt, sample.text, sample.gold)
            for name in ALGORITHMS
            for run in self.seeds_of(name)[:1]
            for sample in run.samples
        ]
        say = "A high score is not a good answer: the reward is all that was asked for."
        return Table("What they write at the end", ["algorithm", "prompt", "answer", "gold"], rows,
                     say)  # fmt: skip

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a measured point, with algorithm and seed."""
        import pandas as pd

        return pd.DataFrame(
            [
                {"algorithm": run.algorithm, "seed": run.seed, **asdict(point)}
                for run in self.runs
                for point in run.points
            ]
        )

    def to_markdown(self) -> str:
        """Return `table` in Markdown, with its sentence below."""
        return self.table().to_markdown()

    def plot(self, *, theme: Literal["light", "dark"] = "light") -> "Figure":
        """Return the two panels of the card as a matplotlib figure: gold for KL, for seconds."""
        figure = importlib.import_module("ftkit.views.comparison_figure").figure
        drawn: Figure = figure(self, theme=theme)
        return drawn

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``comparison.json`` into `folder`, whole or not at all; return its path."""
        data = {"format": _FORMAT, "version": _VERSION, **asdict(self)}
        return files.write(Path(folder) / FILE_NAME, files.json_text(data))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "ComparisonResult":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: `folder` holds no ``comparison.json``.
            RecordError: the file is damaged, or a newer ftkit wrote it.
        """
        return files.read_record(
            Path(folder) / FILE_NAME,
            _from_json,
            what="comparison",
            mend="delete the file and run the comparison again",
        )

    def __str__(self) -> str:
        head = f"{self.reward} of {self.model}, at the start {words.start_text(self)}"
        lines = [
            f"  {words.limit_text(self, budget)}: {words.in_short(reading)}"
            for budget in get_args(Budget)
            for reading in self.readings(budget)
        ]
        broken = [f"  {r.algorithm}, seed {r.seed} failed: {r.failed}" for r in self.failures()]
        return "\n".join([head, *lines, *broken])


def recorded_folder() -> Path:
    """Return where the shipped comparison lies, whether it exists or not."""
    return Path(str(resources("ftkit.records"))) / "presets" / "comparison"


# --- JSON -------------------------------------------------------------------------------------


def _from_json(data: dict[str, Any], path: Path) -> ComparisonResult:
    files.check_format(data, path, (_FORMAT, _VERSION), "a comparison")
    strange = {run["algorithm"] for run in data["runs"]} - set(ALGORITHMS)
    if strange:
        raise RecordError(f"{path} names an unknown algorithm {min(strange)!r}")
    return ComparisonResult(
        model=str(data["model"]),
        start=str(data["start"]),
        reward=str(data["reward"]),
        tokens=int(data["tokens"]),
        seconds=float(data["seconds"]),
        device=str(data["device"]),
        isolated=bool(data["isolated"]),
        settings=dict(data["settings"]),
        runs=[_run(run) for run in data["runs"]],
    )


def _run(data: dict[str, Any]) -> ComparisonRun:
    points = tuple(_point(point) for point in data["points"])
    samples = tuple(Sample(**sample) for sample in data["samples"])
    return ComparisonRun(**{**data, "points": points, "samples": samples})


def _point(data: dict[str, Any]) -> ComparisonPoint:
    whole: dict[str, Any] = {name: nan if v is None else v for name, v in data.items()}
    return ComparisonPoint(**whole)
