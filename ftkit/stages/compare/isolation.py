"""A process for each run: its memory is its own, and when it dies the others go on."""

from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from ftkit.errors import SettingsError
from ftkit.records.comparison_run import ComparisonRun
from ftkit.stages.compare.runners import Job, run


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception of another process, as text."""

    text: str


def run_apart(name: str, job: Job) -> ComparisonRun:
    """Load `name` in a new process, do `job` there, and return what came out.

    Raises:
        RuntimeError: the run failed, or its process died; says how.
    """
    context = get_context("spawn")  # a fork would share torch's threads and CUDA's state
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, name, job), daemon=True)
    process.start()
    sender.close()
    try:
        outcome = receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"the process ended with exit code {process.exitcode}") from None
    finally:
        if process.is_alive():
            process.join(timeout=10)
            process.terminate()
        process.join()
    if isinstance(outcome, Failure):
        raise RuntimeError(outcome.text)
    done: ComparisonRun = outcome
    return done


def require_importable(reward: Callable[..., Any]) -> None:
    """Refuse a reward that another process could not find again.

    Raises:
        SettingsError: it was defined in a notebook or script, or within a function.
    """
    module, name = getattr(reward, "__module__", None), getattr(reward, "__qualname__", "<")
    if module in (None, "__main__") or "<" in name:
        raise SettingsError(
            f"isolate=True runs in other processes, which cannot import reward {name!r}: put it "
            "into a .py file and import it from there, or use isolate=False"
        )


def _child(sender: Connection, name: str, job: Job) -> None:
    try:
        from ftkit.models import load

        outcome: ComparisonRun | Failure = run(load(name), job)
    except Exception as error:
        outcome = Failure(f"{type(error).__name__}: {error}")
    sender.send(outcome)
