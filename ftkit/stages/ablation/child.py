"""One trial: call `run`, and make a small plain answer of whatever comes out.

Also the script that does so in a process of its own. As such it is started by its path and needs
nothing of ftkit, whose stages would load torch before a function that may not even use it.
"""

import json
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

JOB, TASK, ANSWER, OUTPUT = "job.pickle", "task.json", "answer.json", "output.txt"


def measure(run: Callable[..., Any], setting: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Call `run`; return ``seconds`` and either ``metrics`` or ``error`` and ``traceback``.

    `SystemExit` counts as a failure too; an interrupt is not caught.
    """
    began = time.perf_counter()
    try:
        answer: dict[str, Any] = {"metrics": metrics_of(run(**setting, seed=seed))}
    except (Exception, SystemExit) as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())
        answer = {"error": line.removesuffix(":"), "traceback": _own_part(error)}
    return {**answer, "seconds": time.perf_counter() - began}


def metrics_of(returned: Any) -> dict[str, float]:
    """Return what `run` returned as metrics; a lone number is called ``value``.

    Raises:
        TypeError: it is neither a number nor a mapping of names to numbers.
        ValueError: a number is NaN or infinite, or there is none.
    """
    if not isinstance(returned, Mapping):
        return {"value": _number(returned, "run")}
    if not returned:
        raise ValueError("run returned no metrics: return a number, or a dict with at least one")
    for name in returned:
        if not isinstance(name, str):
            raise TypeError(f"run returned a metric named {name!r}; names must be strings")
    return {name: _number(value, f"metric {name!r} of run") for name, value in returned.items()}


def _number(value: Any, what: str) -> float:
    try:
        if value is None or isinstance(value, str | bytes):
            raise TypeError("not a number")
        number = float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        kind = type(value).__name__
        raise TypeError(f"{what} is a {kind} ({error}); it must be one number") from None
    if not math.isfinite(number):
        raise ValueError(f"{what} is {number}")
    return number


def _own_part(error: BaseException) -> str:
    """The traceback from the user's function on, without this file's frame."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace))


# --- the script --------------------------------------------------------------------------------


def main(folder: Path, trial: Path) -> None:
    """Read the function and the task, run it, write the answer whole or not at all."""
    parent = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # what reads stdin gets an end, and does not wait
    threading.Thread(target=_die_with_parent, args=(parent,), daemon=True).start()
    task = json.loads((trial / TASK).read_text(encoding="utf-8"))
    sys.path[:] = task["path"]
    answer = measure(_Loaded(folder / JOB), task["setting"], task["seed"])
    draft = trial / "answer.draft"
    draft.write_text(json.dumps(answer), encoding="utf-8")
    draft.replace(trial / ANSWER)


class _Loaded:
    """The pickled function; what fails while it is loaded is a failure of the trial."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, **arguments: Any) -> Any:
        import cloudpickle

        return cloudpickle.loads(self._path.read_bytes())(**arguments)


def _die_with_parent(parent: int) -> None:
    """The pipe ends when the parent does, however it dies; nobody would read the answer then."""
    os.read(parent, 1)
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # the answer is written; threads that the function left behind must not keep it
