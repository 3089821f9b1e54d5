"""Who runs the trials: this process, one after the other, or fresh processes, several at once."""

import gc
import json
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol, Self

import psutil
import torch

from ftkit.errors import SettingsError
from ftkit.records.ablation import AblationTrial, Failure, Setting
from ftkit.stages.ablation import child
from ftkit.stages.naming import name_of

_TAIL = 4000  # characters of a failed process's output that are kept
_LARGE_MB = 64
_LONG = 1.0  # seconds of a trial after which looking for garbage, a quarter second, costs little


class Runner(Protocol):
    """What the loop of `ftkit.ablate` needs to know."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    def has_room(self) -> bool:
        """Return whether `start` may be called."""
        ...

    def start(self, setting: Setting, seed: int) -> None:
        """Begin a trial; it may have ended when this returns."""
        ...

    def ended(self) -> list[AblationTrial]:
        """Return the trials that ended since the last call."""
        ...


class InProcess:
    """Runs each trial at once, here: nothing to pickle, but nothing is freed for certain either."""

    def __init__(self, run: Callable[..., Any]) -> None:
        """Remember what to call."""
        self._run = run
        self._ended: list[AblationTrial] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def has_room(self) -> bool:
        """Return whether the last trial was collected."""
        return not self._ended

    def start(self, setting: Setting, seed: int) -> None:
        """Run the trial to its end."""
        answer = child.measure(self._run, setting, seed)
        self._ended.append(_trial(setting, seed, answer))
        if answer["seconds"] > _LONG:
            gc.collect()  # models are rings of references
            torch.cuda.empty_cache()

    def ended(self) -> list[AblationTrial]:
        """Return the trial that ended, if one did."""
        ended, self._ended = self._ended, []
        return ended


@dataclass(frozen=True)
class _Process:
    setting: Setting
    seed: int
    handle: "subprocess.Popen[bytes]"
    folder: Path
    began: float


class Isolated:
    """Runs each trial in a fresh Python of its own: not forked, so threads and CUDA start clean."""

    def __init__(self, run: Callable[..., Any], workers: int) -> None:
        """Pickle `run` once, for all trials.

        Raises:
            SettingsError: it cannot be pickled.
        """
        self._pickled = _pickled(run)
        self._workers = workers
        self._running: list[_Process] = []

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="ftkit-ablate-")
        (Path(self._folder.name) / child.JOB).write_bytes(self._pickled)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            _kill(process.handle)
        for process in self._running:
            process.handle.communicate()
        self._folder.cleanup()

    def has_room(self) -> bool:
        """Return whether fewer than `workers` trials run."""
        return len(self._running) < self._workers

    def start(self, setting: Setting, seed: int) -> None:
        """Start a process and return."""
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))
        task = {"setting": dict(setting), "seed": seed, "path": sys.path}
        (folder / child.TASK).write_text(json.dumps(task), encoding="utf-8")
        command = [sys.executable, "-P", "-u", child.__file__, self._folder.name, str(folder)]
        with (folder / child.OUTPUT).open("wb") as output:
            handle = subprocess.Popen(  # noqa: S603  # this Python and a file beside this one
                command,
                stdin=subprocess.PIPE,  # its end tells the process that we are gone
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us alone
            )
        self._running.append(_Process(setting, seed, handle, folder, perf_counter()))

    def ended(self) -> list[AblationTrial]:
        """Return the trials whose processes have ended."""
        over = [p for p in self._running if p.handle.poll() is not None]
        self._running = [p for p in self._running if p not in over]
        return [_answer_of(p) for p in over]


def _kill(handle: "subprocess.Popen[bytes]") -> None:
    """Kill a process with all that it started, such as the workers of a data loader."""
    if handle.poll() is not None:
        return
    try:
        process = psutil.Process(handle.pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()


def _answer_of(process: _Process) -> AblationTrial:
    """What the process answered; how it died where it did not."""
    process.handle.communicate()
    path = process.folder / child.ANSWER
    output = (process.folder / child.OUTPUT).read_text(encoding="utf-8", errors="replace")
    tail = f"\n\nlast output of the process:\n{output[-_TAIL:].strip()}" if output.strip() else ""
    if path.exists():
        answer = json.loads(path.read_text(encoding="utf-8"))
        if "error" in answer:
            answer["traceback"] += tail
    else:
        answer = {
            "error": _death(process.handle.returncode),
            "traceback": tail.strip(),
            "seconds": perf_counter() - process.began,
        }
    return _trial(process.setting, process.seed, answer)


def _death(code: int) -> str:
    if code >= 0:
        return f"the process ended with exit code {code} before it answered"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = "; the system does so when memory runs out" if name == "SIGKILL" else ""
    return f"the process was killed by {name}{hint}"


def _trial(setting: Setting, seed: int, answer: dict[str, Any]) -> AblationTrial:
    failed = "error" in answer
    return AblationTrial(
        setting,
        seed,
        "failed" if failed else "done",
        {} if failed else answer["metrics"],
        answer["seconds"],
        Failure(answer["error"], answer["traceback"]) if failed else None,
    )


def _pickled(run: Callable[..., Any]) -> bytes:
    import cloudpickle

    try:
        data = bytes(cloudpickle.dumps(run))
    except Exception as error:  # pickling runs code of any object, which may raise anything
        raise SettingsError(
            f"isolate=True: {name_of(run)} cannot be sent to a process of its own "
            f"({type(error).__name__}: {error}): let it load or make inside what it uses, such as "
            "models, files and connections"
        ) from error
    if len(data) > _LARGE_MB * 1_000_000:
        warnings.warn(
            f"isolate=True: {name_of(run)} takes {len(data) / 1e6:.0f} MB with what it refers to, "
            "and every process reads that: load models and data inside of it",
            stacklevel=4,
        )
    return data
