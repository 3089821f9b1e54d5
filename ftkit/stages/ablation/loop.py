"""`ablate`: check, open the store, run what is missing, show it, return all of it."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ftkit.errors import SettingsError
from ftkit.records.ablation import (
    AblationResult,
    AblationTrial,
    Setting,
)
from ftkit.records.ablation_progress import AblationProgress
from ftkit.stages.ablation.clock import Clock
from ftkit.stages.ablation.design import Cell, Design, Grid, Plan, cell, check_run, planned
from ftkit.stages.ablation.runners import InProcess, Isolated, Runner
from ftkit.stages.ablation.screen import Screen
from ftkit.stages.ablation.store import Claim, Store, open_store
from ftkit.stages.ablation.trackers import Trackers
from ftkit.stages.naming import name_of

_POLL = 0.03  # seconds between two looks at the processes
_POLL_ELSEWHERE = 0.5  # seconds between two looks at trials that other processes run


class AblationInterrupted(KeyboardInterrupt):
    """Raised by an interrupt or Ctrl-C.

    Attributes:
        result: All that had ended by then; with a storage it is on the disk too.
    """

    def __init__(self, result: AblationResult, stored: bool) -> None:
        """Say how to go on."""
        ended = result.count("done") + result.count("failed")
        how = "call ablate again to run the rest" if stored else "give a storage=… to resume"
        super().__init__(f"ablation stopped, {ended} of {len(result.trials)} trials ended: {how}")
        self.result = result


def ablate(
    run: Callable[..., float | Mapping[str, float]],
    grid: Grid,
    *,
    seeds: int | Sequence[int] = 3,
    design: Design = "full",
    baseline: Setting | None = None,
    storage: str | os.PathLike[str] | None = None,
    isolate: bool = False,
    workers: int = 1,
    report_to: str = "none",
    progress: bool = True,
) -> AblationResult:
    """Run a function with every setting of a grid and every seed, and compare the settings.

    ``run(**setting, seed=seed)`` returns a number, or a dict of names to numbers. It must use its
    seed: ftkit sets none. Settings with the same seed are compared in pairs. What a trial raises,
    and a metric that is NaN or infinite, is kept as a failure and stops nothing.

    With a storage folder each outcome is on the disk when the next trial starts, and a call runs
    only what is missing: after an interrupt, a crash or ``kill -9``, with more values or seeds, or
    when several processes (or machines that share the folder) call with the same storage, which
    then share the trials. Failures are kept like results; `ftkit.stages.ablation.retry_failures`
    frees them to run again. A change of `run` itself cannot be seen, only a change of its name:
    give changed code another folder.

    Args:
        run: Any function or callable; takes the factors and ``seed`` by name.
        grid: Factor to its values: str, int, float, bool or None.
        seeds: So many seeds from 0, or a list of them.
        design: ``"full"`` for every combination; ``"one-factor"`` for the baseline and all
            settings that differ from it in one factor: fewer trials, blind to interactions.
        baseline: The setting that the others are compared with; by default each first value.
        storage: Folder for the outcomes; its file system must know file locks (local disks and
            NFS 4 do). None keeps them in memory.
        isolate: Run each trial in a fresh process: all its memory is freed, and its crash is a
            failure like others. Each process imports and loads anew what `run` needs.
        workers: Trials at once; more than 1 needs `isolate`, and memory for each.
        report_to: An experiment tracker as in `transformers.TrainingArguments`, e.g.
            ``"trackio"``, ``"tensorboard"``, ``"wandb"``.
        progress: Show a live table in a notebook, a line a trial elsewhere.

    Returns:
        The trials of this grid and these seeds.

    Raises:
        SettingsError: an argument is wrong; nothing has run then.
        RecordError: the storage holds an ablation of other factors, or is damaged.
        AblationInterrupted: on an interrupt; carries the result so far.
    """
    plan = planned(grid, seeds=seeds, design=design, baseline=baseline)
    check_run(run, plan)
    _check_workers(workers, isolate)
    trackers = Trackers(report_to, None if storage is None else Path(storage))
    runner: Runner = Isolated(run, workers) if isolate else InProcess(run)
    name = name_of(run)
    with open_store(storage, plan, name) as store:
        loop = _Loop(plan, store, trackers, Screen(progress), Clock(workers), name)
        try:
            with runner:
                try:
                    return loop.go(runner)
                except KeyboardInterrupt:
                    loop.collect(runner)  # what has ended by now is kept
                    raise
        except KeyboardInterrupt:
            raise AblationInterrupted(loop.stopped(), storage is not None) from None
        finally:
            loop.give_back()


class _Loop:
    """The state of one call."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        trackers: Trackers,
        screen: Screen,
        clock: Clock,
        name: str,
    ) -> None:
        self._plan, self._store, self._trackers = plan, store, trackers
        self._screen, self._clock, self._name = screen, clock, name
        self._claims: dict[Cell, Claim] = {}
        self._elsewhere: set[Cell] = set()
        self._latest: AblationTrial | None = None

    def go(self, runner: Runner) -> AblationResult:
        """Run until every trial of the plan has ended, here or elsewhere."""
        self._show(line=True, now=True)
        while True:
            started = self._start_next(runner)
            news = self.collect(runner)
            if not (started or news or self._claims):
                result = self._result()
                if all(trial.state in ("done", "failed") for trial in result.trials):
                    self._show(now=True)
                    return result
            if not (started or news):
                time.sleep(_POLL if self._claims else _POLL_ELSEWHERE)
            self._show()

    def stopped(self) -> AblationResult:
        """Give the running trials back, show where it stopped, return what has ended."""
        self.give_back()
        self._show(line=True, now=True, stopped=True)
        return self._result()

    def give_back(self) -> None:
        """Let others run what did not end here; a traceback would keep the locks alive."""
        for claim in self._claims.values():
            claim.release()
        self._claims.clear()

    def _start_next(self, runner: Runner) -> bool:
        """Start the first trial that nobody has; return whether there was one."""
        if not runner.has_room():
            return False
        self._elsewhere.clear()
        ended = self._store.outcomes()
        for setting, seed in self._plan.pairs:
            key = cell(setting, seed)
            if key in ended or key in self._claims:
                continue
            claim = self._store.claim(setting, seed)
            if claim is not None:
                self._claims[key] = claim
                self._show(now=True)
                runner.start(setting, seed)
                return True
            self._elsewhere.add(key)
        return False

    def collect(self, runner: Runner) -> bool:
        """Store what has ended; return whether something had."""
        ended = runner.ended()
        for trial in ended:
            self._store.put(trial)
            self._claims.pop(cell(trial.setting, trial.seed)).release()
            self._latest = trial
            words = ", ".join(f"{name}={value}" for name, value in trial.setting.items())
            self._trackers.report(trial, f"{words}, seed={trial.seed}")
            self._show(line=True, now=True)
        return bool(ended)

    def _result(self) -> AblationResult:
        ended = self._store.outcomes()
        trials = [self._trial(setting, seed, ended) for setting, seed in self._plan.pairs]
        plan = self._plan
        return AblationResult(plan.factors, plan.baseline, tuple(trials), self._name)

    def _trial(
        self, setting: Setting, seed: int, ended: Mapping[Cell, AblationTrial]
    ) -> AblationTrial:
        key = cell(setting, seed)
        if key in ended:
            return replace(ended[key], setting=setting)  # as this grid writes it: 1 or 1.0
        running = key in self._claims or key in self._elsewhere
        return AblationTrial(setting, seed, "running" if running else "waiting")

    def _show(self, *, line: bool = False, now: bool = False, stopped: bool = False) -> None:
        def progress() -> AblationProgress:
            result, clock = self._result(), self._clock
            left = None if stopped else clock.left(result.trials)
            return AblationProgress(result, clock.seconds, left, self._latest, stopped)

        self._screen.show(progress, line=line, now=now)


def _check_workers(workers: int, isolate: bool) -> None:
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise SettingsError(f"workers={workers!r}: give a whole number from 1")
    if workers > 1 and not isolate:
        raise SettingsError(
            f"workers={workers} needs isolate=True: trials at once run in processes of their own"
        )
