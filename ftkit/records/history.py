"""What a training run logged: every number, kept plainly, saved as JSON, judged by the guide.

Left out: how it is drawn (`ftkit.views.curves`) and who fills it (`ftkit.LiveMetrics`).
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ftkit.errors import RecordError
from ftkit.findings import SEVERITIES, Finding
from ftkit.records import files
from ftkit.records.metric_guide import JUDGED_FROM, METHODS, Method, metric_for, split_key
from ftkit.showing import Showable

if TYPE_CHECKING:
    import pandas as pd

Outcome = Literal["waiting", "running", "finished", "stopped"]
Curve = list[tuple[int, float]]
"""Points ``(step, value)``; the value may be NaN or infinite."""

FILE_NAME = "history.json"
_FORMAT, _VERSION = "ftkit.run-history", 1
_OVERFIT = 1.05
_OPTIMIZER_STEP = "optimizer step"
_STEP_UNITS: dict[Method, str] = {"ppo": "round"}
_WORDS = {"NaN": nan, "Infinity": inf, "-Infinity": -inf}


@dataclass(frozen=True, slots=True)
class LogRow:
    """One call of the trainer's `log`.

    Attributes:
        step: Steps done, in the unit of `RunHistory.step_unit`.
        seconds: Time since the run began.
        values: The numbers as logged; what was logged as None is NaN here.
    """

    step: int
    seconds: float
    values: dict[str, float]


@dataclass
class RunHistory(Showable):
    """Everything that a run logged.

    Attributes:
        method: Which trainer it was; ``""`` when unknown. Decides how keys are explained.
        max_steps: Steps planned; 0 when unknown.
        outcome: ``"waiting"``, ``"running"``, ``"finished"`` or ``"stopped"`` (early).
        rows: One a log call, in order.
        skipped: Keys whose values were no numbers, with the name of the type: they have no curve.
    """

    method: Method = ""
    max_steps: int = 0
    outcome: Outcome = "waiting"
    rows: list[LogRow] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def step_unit(self) -> str:
        """What a step is: ``"optimizer step"``, but ``"round"`` (of several of them) in PPO."""
        return _STEP_UNITS.get(self.method, _OPTIMIZER_STEP)

    @property
    def step_word(self) -> str:
        """The short form of `step_unit`: ``"step"`` or ``"round"``."""
        return self.step_unit.split()[-1]

    @property
    def last_step(self) -> int:
        """The latest step that was logged, 0 before the first."""
        return max((row.step for row in self.rows), default=0)

    @property
    def seconds(self) -> float:
        """Seconds from the beginning of the run to the latest log."""
        return max((row.seconds for row in self.rows), default=0.0)

    def append(self, step: int, logs: Mapping[str, object], *, seconds: float = 0.0) -> None:
        """Add what a trainer logged; None becomes NaN, what is no number is noted in `skipped`.

        Args:
            step: Steps done.
            logs: Key to value.
            seconds: Time since the run began.
        """
        values = {}
        for key, value in logs.items():
            number = _number(value)
            if number is None:
                self.skipped[str(key)] = type(value).__name__
            else:
                values[str(key)] = number
        if values:
            self.rows.append(LogRow(int(step), float(seconds), values))

    def curves(self) -> dict[str, Curve]:
        """Return the points of each key in order of logging, NaN and infinite ones included."""
        curves: dict[str, Curve] = {}
        for row in self.rows:
            for key, value in row.values.items():
                curves.setdefault(key, []).append((row.step, value))
        return curves

    def findings(self) -> tuple[Finding, ...]:
        """Return what the guide has to say about the latest values, gravest first."""
        told = [self._judge(key, curve) for key, curve in self.curves().items()]
        found = [finding for finding in told if finding]
        return tuple(sorted(found, key=lambda f: -SEVERITIES.index(f.severity)))

    def to_pandas(self, layout: Literal["wide", "long"] = "wide") -> "pd.DataFrame":
        """Return the logged numbers as a table.

        Args:
            layout: ``"wide"`` has one row a step and one column a key; a key that was logged twice
                at one step keeps the later value. ``"long"`` has one row a number: ``step``,
                ``seconds``, ``key``, ``value``.
        """
        import pandas as pd

        if layout == "long":
            cells = [(r.step, r.seconds, k, v) for r in self.rows for k, v in r.values.items()]
            return pd.DataFrame(cells, columns=["step", "seconds", "key", "value"])
        merged: dict[int, dict[str, float]] = {}
        for row in self.rows:
            merged.setdefault(row.step, {}).update(row.values)
        index = pd.Index(sorted(merged), name="step")
        return pd.DataFrame([merged[s] for s in index], index=index, columns=list(self.curves()))

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``history.json`` into `folder`, whole or not at all; return its path."""
        text = json.dumps(self._to_json(), allow_nan=False, indent=1)
        return files.write(Path(folder) / FILE_NAME, text)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "RunHistory":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: `folder` holds no ``history.json``.
            RecordError: the file is damaged, or a newer ftkit wrote it.
        """
        return files.read_record(
            Path(folder) / FILE_NAME,
            cls._from_json,
            what="run history",
            mend="save the history again or delete the file",
        )

    def __str__(self) -> str:
        of = f" of {self.max_steps}" if self.max_steps else ""
        head = f"{self.method or 'run'}, {self.outcome}: {self.step_word} {self.last_step}{of}"
        lines = [f"  {key} {curve[-1][1]:.4g}" for key, curve in self.curves().items()]
        return "\n".join([head, *lines, *(f"  {finding}" for finding in self.findings())])

    def _judge(self, key: str, curve: Curve) -> Finding | None:
        finding = metric_for(key, self.method).judge([v for _, v in curve], name=key)
        if finding is None and split_key(key)[0] != "train" and split_key(key)[1] == "loss":
            return _overfitting(key, curve)
        return finding

    def _to_json(self) -> dict[str, Any]:
        rows = [
            {
                "step": r.step,
                "seconds": r.seconds,
                "values": {k: _pack(v) for k, v in r.values.items()},
            }
            for r in self.rows
        ]
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "method": self.method,
            "max_steps": self.max_steps,
            "outcome": self.outcome,
            "skipped": self.skipped,
            "rows": rows,
        }

    @classmethod
    def _from_json(cls, data: dict[str, Any], path: Path) -> "RunHistory":
        files.check_format(data, path, (_FORMAT, _VERSION), "a run history")
        if data["method"] not in METHODS or data["outcome"] not in get_args(Outcome):
            raise RecordError(f"{path} names an unknown method or outcome")
        rows = [
            LogRow(
                int(r["step"]), float(r["seconds"]), {k: _unpack(v) for k, v in r["values"].items()}
            )
            for r in data["rows"]
        ]
        return cls(data["method"], int(data["max_steps"]), data["outcome"], rows, data["skipped"])


def _number(value: object) -> float | None:
    """Turn numbers, numpy scalars and one-element tensors into floats; None for all else."""
    if value is None:
        return nan
    if isinstance(value, str | bytes):
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def _overfitting(key: str, curve: Curve) -> Finding | None:
    finite = [(v, s) for s, v in curve if isfinite(v)]
    if len(finite) < JUDGED_FROM:
        return None
    (best, step), last = min(finite), finite[-1][0]
    if last <= best * _OVERFIT:
        return None
    return Finding(
        key,
        "warning",
        f"Lowest at step {step} ({best:.3g}), {last:.3g} now.",
        "Held-out loss rises: overfitting. Keep the checkpoint near the lowest point, train less.",
    )


def _pack(value: float) -> float | str:
    return value if isfinite(value) else "NaN" if value != value else f"{'-' * (value < 0)}Infinity"


def _unpack(value: float | str) -> float:
    return _WORDS[value] if isinstance(value, str) else float(value)
