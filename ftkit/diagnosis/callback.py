"""`Watch`: the doctor at the bedside, a callback that speaks up while a run goes wrong.

It reads `logs` and nothing else, so it works for every TRL and transformers trainer and for
`ftkit.PPOTrainer`. Each fault is told once. Left out: pictures (`ftkit.LiveMetrics` draws them).
"""

import time
import warnings
from typing import Any

from transformers import TrainerCallback, TrainingArguments

from ftkit.diagnosis.curves import judge
from ftkit.diagnosis.gathering import merged
from ftkit.findings import Finding
from ftkit.records import RunHistory
from ftkit.records.report import DoctorReport


class TrainingWarning(UserWarning):
    """What `Watch` warns with."""


class Watch(TrainerCallback):
    """Warns of loss 0, NaN, missing gradients, KL that is negative or explodes, reward hacking.

    ``trainer = SFTTrainer(..., callbacks=[ftkit.diagnosis.Watch()])``. While it listens,
    ``args.logging_nan_inf_filter`` is off: transformers would otherwise replace a NaN loss by an
    average, and nobody would see it.

    Attributes:
        history: Everything logged so far.
        findings: What was told, gravest first.
    """

    def __init__(self, *, gold: str | None = None, stop: bool = False) -> None:
        """Make a callback.

        Args:
            gold: Key of a score that the run is not trained on, e.g. ``"rewards/gold/mean"``; by
                default a key whose name says ``gold``.
            stop: End the run at the first error.
        """
        self.history = RunHistory()
        self.findings: tuple[Finding, ...] = ()
        self._gold = gold
        self._stop = stop
        self._started = time.monotonic()
        self._subject = "run"

    @property
    def report(self) -> DoctorReport:
        """What was seen so far; shows itself."""
        seconds = self.history.seconds
        read = f"{len(self.history.rows)} logs"
        return DoctorReport(f"{self._subject} in training", self.findings, read, seconds)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start a new history, or go on with what a resumed checkpoint had seen."""
        kept = [row for row in self.history.rows if row.step <= state.global_step]
        self.history = RunHistory(max_steps=state.max_steps, outcome="running", rows=kept)
        self.findings = ()
        self._subject = type(args).__name__.removesuffix("Config").removesuffix("Arguments")
        self._started = time.monotonic()
        if isinstance(args, TrainingArguments):
            args.logging_nan_inf_filter = False

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Judge what was logged, and warn of what is new."""
        if not logs or not state.is_world_process_zero:
            return
        self.history.append(state.global_step, logs, seconds=time.monotonic() - self._started)
        known = {f.code for f in self.findings}
        found = judge(self.history, gold=self._gold)
        for finding in found:
            if finding.code not in known and finding.severity != "info":
                warnings.warn(str(finding), TrainingWarning, stacklevel=2)
        # A fault stays on record when a later log looks fine again.
        self.findings = tuple(merged([*found, *self.findings]))
        if self._stop and any(f.severity == "error" for f in self.findings):
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note how far the run came."""
        whole = state.global_step >= state.max_steps
        self.history.outcome = "finished" if whole else "stopped"
