"""What an ablation leaves behind: every trial, and each setting against the baseline.

Trials of one seed are compared in pairs: what a seed changes (order of rows, start of adapters)
then falls out of the difference. Left out: running them (`ftkit.ablate`), and which of two numbers
is better, which only the reader knows.
"""

import importlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ftkit.errors import RecordError
from ftkit.records import files
from ftkit.records.intervals import Interval, interval
from ftkit.records.table import markdown
from ftkit.showing import Showable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Value = str | int | float | bool | None
Setting = Mapping[str, Value]
State = Literal["done", "failed", "running", "waiting"]
STATES: tuple[State, ...] = get_args(State)

FILE_NAME = "ablation.json"
_FORMAT, _VERSION = "ftkit.ablation", 1


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a trial has no numbers.

    Attributes:
        error: One line: kind and message.
        traceback: Where it happened; of a trial in a process of its own also what it last printed.
    """

    error: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class AblationTrial:
    """One setting with one seed.

    Attributes:
        setting: Factor to value.
        seed: What `run` got as ``seed``.
        state: Done, failed, running or waiting.
        metrics: What `run` returned; empty unless done.
        seconds: That it took; None before its end.
        failure: Set when it failed.
    """

    setting: Setting
    seed: int
    state: State = "waiting"
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class SettingSummary:
    """One setting over its seeds, for one metric.

    Attributes:
        setting: Factor to value.
        is_baseline: Whether the others are compared with this one.
        trials: One a seed.
        values: Seed to the metric, of the trials that are done.
        mean: With its interval; None before the first trial is done.
        difference: Mean over the seeds of this setting's value minus the baseline's; None for the
            baseline itself, and where no seed is done in both.
        differences: Seed to that difference.
    """

    setting: Setting
    is_baseline: bool
    trials: tuple[AblationTrial, ...]
    values: Mapping[int, float]
    mean: Interval | None
    difference: Interval | None
    differences: Mapping[int, float]


@dataclass(frozen=True)
class AblationResult(Showable):
    """Every trial of an ablation; shows itself as a table with intervals.

    Attributes:
        factors: Factor to the values that were tried, in order.
        baseline: The setting that the others are compared with.
        trials: Seed by seed, in each all settings.
        run: The name of the function.
    """

    factors: Mapping[str, Sequence[Value]]
    baseline: Setting
    trials: tuple[AblationTrial, ...]
    run: str = ""

    @cached_property
    def settings(self) -> tuple[Setting, ...]:
        """The different settings, in the order in which they run."""
        return tuple({_key(t.setting): t.setting for t in self.trials}.values())

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """Names of all metrics, in the order in which they came."""
        return tuple(dict.fromkeys(name for t in self.trials for name in t.metrics))

    @property
    def varied(self) -> tuple[str, ...]:
        """The factors of which more than one value was tried."""
        return tuple(name for name, values in self.factors.items() if len(values) > 1)

    @property
    def failures(self) -> tuple[AblationTrial, ...]:
        """The trials that failed, with `failure.error` and `failure.traceback`."""
        return tuple(t for t in self.trials if t.state == "failed")

    def count(self, state: State) -> int:
        """Return how many trials are in `state`."""
        return sum(t.state == state for t in self.trials)

    def label(self, setting: Setting) -> str:
        """Return a setting in words, e.g. ``"lora_r=4, neftune_alpha=0"``: what varies."""
        names = self.varied or tuple(self.factors)
        return ", ".join(f"{name}={value_text(setting[name])}" for name in names)

    def summary(self, metric: str | None = None) -> tuple[SettingSummary, ...]:
        """Return each setting over its seeds, in the order in which they run.

        Args:
            metric: Its name; by default the first that `run` returned.

        Raises:
            ValueError: no trial has such a metric.
        """
        name = self.metric_name(metric)
        own: dict[Any, list[AblationTrial]] = {}
        for trial in self.trials:
            own.setdefault(_key(trial.setting), []).append(trial)
        base = _values(own.get(_key(self.baseline), []), name)
        return tuple(self._summary(trials, base, name) for trials in own.values())

    def metric_name(self, metric: str | None = None) -> str:
        """Return `metric`, by default the first one's name; ``""`` while nothing is done.

        Raises:
            ValueError: no trial has such a metric.
        """
        if metric is None:
            return self.metrics[0] if self.metrics else ""
        if metric not in self.metrics:
            known = ", ".join(self.metrics) or "none yet"
            raise ValueError(f"no trial has the metric {metric!r}; there are: {known}")
        return metric

    def _summary(
        self, trials: list[AblationTrial], base: Mapping[int, float], name: str
    ) -> SettingSummary:
        values = _values(trials, name)
        is_baseline = _key(trials[0].setting) == _key(self.baseline)
        paired = {} if is_baseline else {s: v - base[s] for s, v in values.items() if s in base}
        return SettingSummary(
            trials[0].setting,
            is_baseline,
            tuple(trials),
            values,
            interval(list(values.values())) if values else None,
            interval(list(paired.values())) if paired else None,
            paired,
        )

    # --- other forms -------------------------------------------------------------------------

    def plot(
        self, metric: str | None = None, *, theme: Literal["light", "dark"] = "light"
    ) -> "Figure":
        """Draw each setting's mean, and its differences to the baseline, with 95% intervals.

        Args:
            metric: Its name; by default the first that `run` returned.
            theme: Palette.

        Raises:
            ValueError: no trial has such a metric, or none is done.
        """
        figure: Figure = importlib.import_module("ftkit.views.ablation_figure").figure(
            self, metric, theme=theme
        )
        return figure

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a trial: factors, seed, state, metrics, seconds, error."""
        import pandas as pd

        taken = {*self.factors, "seed", "state", "seconds", "error"}
        names = {m: f"{m} (metric)" if m in taken else m for m in self.metrics}
        rows = [
            {
                **t.setting,
                "seed": t.seed,
                "state": t.state,
                **{column: t.metrics.get(m) for m, column in names.items()},
                "seconds": t.seconds,
                "error": t.failure.error if t.failure else None,
            }
            for t in self.trials
        ]
        columns = [*self.factors, "seed", "state", *names.values(), "seconds", "error"]
        return pd.DataFrame(rows, columns=columns)

    def to_markdown(self, metric: str | None = None) -> str:
        """Return a table of the settings for a report: mean and paired difference, both ± 95%.

        Args:
            metric: Its name; by default the first that `run` returned.
        """
        name = self.metric_name(metric)
        head = [*self.factors, "seeds", name or "metric", "difference to baseline"]
        return markdown(head, [self._cells(summary) for summary in self.summary(metric)])

    def _cells(self, summary: SettingSummary) -> list[str]:
        failed = sum(t.state == "failed" for t in summary.trials)
        seeds = f"{len(summary.values)}" + (f" ({failed} failed)" if failed else "")
        versus = summary.difference.text(signed=True) if summary.difference else "–"
        return [
            *(value_text(summary.setting[name]) for name in self.factors),
            seeds,
            summary.mean.text() if summary.mean else "–",
            "baseline" if summary.is_baseline else versus,
        ]

    def __str__(self) -> str:
        counts = ", ".join(f"{self.count(s)} {s}" for s in STATES if self.count(s))
        name = self.metric_name()
        lines = [f"ablation of {self.run or 'a function'}: {counts or 'no trials'}"]
        for summary in self.summary():
            mean = summary.mean.text() if summary.mean else "nothing done"
            versus = f", {summary.difference.text(signed=True)}" if summary.difference else ""
            mark = ", baseline" if summary.is_baseline else versus
            lines.append(f"  {self.label(summary.setting)}: {name} {mean}{mark}")
        lines += [
            f"  failed: {self.label(t.setting)}, seed {t.seed}: {t.failure.error}"
            for t in self.failures
            if t.failure
        ]
        return "\n".join(lines)

    # --- files -------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``ablation.json`` into `folder`, whole or not at all; return its path."""
        data = {
            "format": _FORMAT,
            "version": _VERSION,
            "run": self.run,
            "factors": {name: list(values) for name, values in self.factors.items()},
            "baseline": dict(self.baseline),
            "trials": [asdict(trial) for trial in self.trials],
        }
        text = json.dumps(data, allow_nan=False, indent=1)
        return files.write(Path(folder) / FILE_NAME, text)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "AblationResult":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: `folder` holds no ``ablation.json``.
            RecordError: the file is damaged, or a newer ftkit wrote it.
        """
        return files.read_record(
            Path(folder) / FILE_NAME,
            cls._from_json,
            what="ablation",
            mend="save the result again or delete the file",
        )

    @classmethod
    def _from_json(cls, data: dict[str, Any], path: Path) -> "AblationResult":
        files.check_format(data, path, (_FORMAT, _VERSION), "an ablation")
        trials = tuple(_trial(t) for t in data["trials"])
        if any(t.state not in STATES or set(t.setting) != set(data["factors"]) for t in trials):
            raise RecordError(f"{path} has trials of an unknown state or with other factors")
        return cls(data["factors"], data["baseline"], trials, data["run"])


def value_text(value: Value) -> str:
    """Return a factor's value in few characters."""
    if isinstance(value, float) and not isinstance(value, bool):
        return f"{value:g}".replace("-", "−")
    return str(value)


def _key(setting: Setting) -> frozenset[tuple[str, Value]]:
    return frozenset(setting.items())


def _values(trials: Sequence[AblationTrial], metric: str) -> dict[int, float]:
    return {t.seed: t.metrics[metric] for t in trials if metric in t.metrics}


def _trial(data: dict[str, Any]) -> AblationTrial:
    failure = Failure(**data["failure"]) if data["failure"] else None
    return AblationTrial(**{**data, "failure": failure})
