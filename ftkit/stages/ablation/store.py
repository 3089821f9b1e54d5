"""Where outcomes are kept: Optuna's journal for what has ended, a file lock for what runs.

An outcome is one line of the journal, written when the trial ends, so it is there whole or not at
all. That a trial runs is never written down, where a dead process could not take it back: it is a
lock that the operating system frees when the process ends, however it ends.
"""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from ftkit.errors import RecordError
from ftkit.records.ablation import AblationTrial, Failure, Setting
from ftkit.stages.ablation.design import Cell, Plan, cell
from ftkit.stages.ablation.journal import JOURNAL, open_study

_FACTORS, _RUN, _RETRY = "factors", "run", "retried trials"


@dataclass(frozen=True)
class Claim:
    """The right to run one trial; nobody else runs it until `release`."""

    _lock: FileLock | None

    def release(self) -> None:
        """Give the right back; what was not stored by then is for others to run."""
        if self._lock is not None:
            self._lock.release()


class Store:
    """Outcomes by setting and seed, shared by every process that opens the same folder."""

    def __init__(self, study: optuna.Study, plan: Plan, folder: Path | None) -> None:
        """Use `open_store` instead."""
        self._study = study
        self._plan = plan
        self._folder = folder

    def outcomes(self) -> dict[Cell, AblationTrial]:
        """Return every outcome of the storage as it is now, the first of each trial."""
        retried = set(self._study.user_attrs.get(_RETRY, ()))
        found: dict[Cell, AblationTrial] = {}
        for stored in self._study.get_trials(deepcopy=False):
            if stored.state.is_finished() and stored.number not in retried:
                trial = _trial(stored)
                if trial is not None:
                    found.setdefault(cell(trial.setting, trial.seed), trial)
        return found

    def claim(self, setting: Setting, seed: int) -> Claim | None:
        """Return the right to run a trial, None where it has ended or runs elsewhere."""
        if self._folder is None:
            return Claim(None)
        lock = FileLock(self._folder / "running" / f"{_fingerprint(setting, seed)}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        claim: Claim | None = None
        try:
            if cell(setting, seed) not in self.outcomes():  # it may have ended while we looked
                claim = Claim(lock)
        finally:
            if claim is None:
                lock.release()
        return claim

    def put(self, trial: AblationTrial) -> None:
        """Keep an outcome; it is on the disk when this returns."""
        self._study.add_trial(_stored(trial, self._plan))


@contextmanager
def open_store(folder: str | os.PathLike[str] | None, plan: Plan, run_name: str) -> Iterator[Store]:
    """Open the folder's journal, or a store in memory where there is no folder.

    Raises:
        RecordError: the folder holds an ablation of other factors, or a damaged journal.
    """
    if folder is None:
        yield Store(open_study(None), plan, None)
        return
    path = Path(folder).resolve()
    (path / "running").mkdir(parents=True, exist_ok=True)
    with FileLock(path / "open.lock"):
        study = open_study(path)
        _check(study, plan, run_name, path)
    yield Store(study, plan, path)


def retry_failures(storage: str | os.PathLike[str]) -> int:
    """Let the next `ftkit.ablate` on a folder run its failed trials again; return how many.

    Their records stay in the journal, but count no more.

    Raises:
        FileNotFoundError: the folder holds no ablation.
        RecordError: its journal is damaged.
    """
    path = Path(storage).resolve()
    if not (path / JOURNAL).exists():
        raise FileNotFoundError(f"no ablation in {storage}: {JOURNAL} is missing")
    with FileLock(path / "open.lock"):
        study = open_study(path)
        retried = set(study.user_attrs.get(_RETRY, ()))
        failed = {t.number for t in study.get_trials(deepcopy=False) if t.state == TrialState.FAIL}
        study.set_user_attr(_RETRY, sorted(retried | failed))
    return len(failed - retried)


def _check(study: optuna.Study, plan: Plan, run_name: str, path: Path) -> None:
    """Refuse other factors; remember the names of a new study, and warn of another function."""
    known, wanted = study.user_attrs.get(_FACTORS), sorted(plan.factors)
    if known is None:
        study.set_user_attr(_FACTORS, wanted)
        study.set_user_attr(_RUN, run_name)
        return
    if known != wanted:
        raise RecordError(
            f"{path} holds an ablation of {', '.join(known)}; this one is of "
            f"{', '.join(wanted)}, and their trials can't be compared: choose another storage "
            "folder, or delete that one. More values or seeds of the same factors can be added."
        )
    before = study.user_attrs.get(_RUN, run_name)
    if before != run_name:
        warnings.warn(
            f"the trials in {path} are of {before}, these of {run_name}. ftkit cannot tell whether "
            "both do the same: use another storage folder if they don't",
            stacklevel=5,  # the caller of ablate
        )


# --- a trial in Optuna's words -----------------------------------------------------------------


def _stored(trial: AblationTrial, plan: Plan) -> FrozenTrial:
    """Metrics and failure as attributes; params and value too, so that Optuna's tools show them."""
    choices: Mapping[str, Sequence[Any]] = {**plan.factors, "seed": plan.seeds}
    params = {**trial.setting, "seed": trial.seed}
    failure = trial.failure
    attributes = {
        "setting": dict(trial.setting),
        "seed": trial.seed,
        "metrics": dict(trial.metrics),
        "seconds": trial.seconds,
        "failure": {"error": failure.error, "traceback": failure.traceback} if failure else None,
    }
    stored = create_trial(
        state=TrialState.FAIL if failure else TrialState.COMPLETE,
        value=None if failure else next(iter(trial.metrics.values())),
        params=params,
        distributions={name: CategoricalDistribution(choices[name]) for name in params},
        user_attrs=attributes,
    )
    stored.datetime_start = datetime.now() - timedelta(seconds=trial.seconds or 0.0)
    return stored


def _trial(stored: FrozenTrial) -> AblationTrial | None:
    """Read what `_stored` wrote; None for a trial that something else added to the study."""
    attributes = stored.user_attrs
    if "setting" not in attributes:
        return None
    failure = attributes["failure"]
    return AblationTrial(
        attributes["setting"],
        attributes["seed"],
        "failed" if failure else "done",
        attributes["metrics"],
        attributes["seconds"],
        Failure(**failure) if failure else None,
    )


def _fingerprint(setting: Setting, seed: int) -> str:
    """A file name; equal values such as 1, 1.0 and True have equal ones."""
    parts = sorted((name, _plain(value)) for name, value in setting.items())
    return sha256(repr((parts, seed)).encode()).hexdigest()[:24]


def _plain(value: Any) -> str:
    if not isinstance(value, int | float):
        return repr(value)
    return repr(int(value)) if value == int(value) else repr(value)
