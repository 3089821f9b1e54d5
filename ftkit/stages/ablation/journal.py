"""Optuna's journal in a folder, made to live through ``kill -9`` and an interrupt at any moment."""

import logging
import os
from pathlib import Path

import optuna
from filelock import FileLock
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from ftkit.errors import RecordError

JOURNAL = "journal.log"
STUDY = "ablation"


def open_study(folder: Path | None) -> optuna.Study:
    """Open the study in the folder's journal, made if need be; in memory where there is no folder.

    Raises:
        RecordError: the journal is damaged.
    """
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.WARNING)  # it would announce each study
    try:
        return optuna.create_study(
            storage=None if folder is None else _journal(folder / JOURNAL),
            study_name=STUDY,
            load_if_exists=True,
        )
    finally:
        logger.setLevel(level)


def _journal(path: Path) -> JournalStorage:
    try:
        return JournalStorage(JournalFileBackend(str(path), lock_obj=_JournalLock(path)))
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise RecordError(
            f"{path} is damaged ({error}): choose another storage folder, or mend or delete it"
        ) from error


class _JournalLock:
    """Guards the journal; free at once when its holder is killed, unlike Optuna's own two locks.

    Those are files that stay behind and are broken after 30 seconds. Who holds this one also finds
    the journal ending with a whole line: half a line of a killed writer, which nobody was told is
    stored, would else swallow the next.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = FileLock(f"{path}.lock")

    def acquire(self) -> bool:
        self._lock.acquire()
        try:
            _cut_half_line(self._path)
        except BaseException:  # an interrupt too: the caller does not hold the lock yet
            self._lock.release()
            raise
        return True

    def release(self) -> None:
        self._lock.release()


def _cut_half_line(path: Path) -> None:
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        if not end:
            return
        file.seek(end - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
