"""`LiveMetrics`: every metric that a trainer logs, drawn while it trains.

A callback that reads `logs` and the step counter, and nothing else: it never touches the model.
Left out: judging and drawing (`ftkit.records.metric_guide`, `ftkit.views.curves`).
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Self

from IPython import get_ipython
from IPython.display import DisplayHandle, display
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils.notebook import NotebookProgressCallback

from ftkit.records.history import Outcome, RunHistory
from ftkit.records.metric_guide import METHODS, Method
from ftkit.views import curves

_PACE_STEPS = 50  # steps that the estimate of the remaining time looks back
_SHARE = 10  # drawing may take one part in so many of the time
Draw = Callable[[], str]


class LiveMetrics(TrainerCallback):
    """Plots every logged metric in place, with its meaning and healthy band.

    ``trainer = SFTTrainer(..., callbacks=[LiveMetrics()])`` is enough; `attach` also takes away
    transformers' own progress display, so that there is one picture. In a notebook the picture is
    plain HTML that stays when the run ends, fails or is interrupted, and when the notebook is
    saved. Elsewhere an attached `LiveMetrics` prints one line a log.

    While it listens, ``args.logging_nan_inf_filter`` is off: transformers would otherwise replace
    a NaN loss by an average, and the curve would look healthy.

    Attributes:
        history: Everything logged so far; `history.to_pandas()` is the table.
    """

    def __init__(self, *, every: float = 0.5) -> None:
        """Make a callback that redraws at most once in `every` seconds, slower when drawing is."""
        self.history = RunHistory()
        self._every = every
        self._attached = False
        self._screens: dict[str, _Screen] = {}
        self._clock = _Clock()
        self._shell: Any = None
        self._stale = False

    def attach(self, trainer: Trainer) -> Self:
        """Listen to `trainer` and replace transformers' own progress display; return self."""
        for other in (NotebookProgressCallback, ProgressCallback, PrinterCallback):
            trainer.remove_callback(other)
        if self not in trainer.callback_handler.callbacks:
            trainer.add_callback(self)
        self._attached = True
        return self

    # --- what the trainer calls --------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start a new history; go on with the old one when a checkpoint is resumed."""
        if self.history.outcome in ("finished", "stopped") and state.global_step == 0:
            self.history = RunHistory()
        history = self.history
        history.rows = [row for row in history.rows if row.step <= state.global_step]
        history.method, history.max_steps = method_of(args), state.max_steps
        history.outcome = "running"
        if isinstance(args, TrainingArguments):
            args.logging_nan_inf_filter = False
        self._clock = _Clock(offset=history.seconds)
        self._clock.tick(state.global_step)
        self._screens = {}
        self._watch_cell()
        self._draw_progress(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the progress line, and draw what a pause between two pictures held back."""
        self._clock.tick(state.global_step)
        self._draw_progress(state)
        if self._stale:
            self._draw_curves()

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say that an evaluation is running."""
        if self.history.outcome == "running":
            self._draw_progress(state, note="evaluating")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Keep what was logged and redraw."""
        if not logs or not state.is_world_process_zero:
            return
        self.history.method = self.history.method or method_of(args)
        self.history.append(state.global_step, logs, seconds=self._clock.seconds)
        self._draw_curves(force=self.history.outcome != "running")
        if self._attached and not _in_notebook():
            print(_line(state, logs))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Draw the last picture."""
        whole = state.global_step >= state.max_steps
        self._finish("finished" if whole else "stopped", state.global_step)

    # --- drawing -----------------------------------------------------------------------------

    def _draw_progress(self, state: Any, *, note: str = "") -> None:
        if state.is_world_process_zero:
            word = self.history.step_word
            text = self._clock.text(state.global_step, state.max_steps, word, note)
            done = state.global_step / max(state.max_steps, 1)
            self._show("progress", lambda: curves.progress(text, done), ", ".join(text))

    def _draw_curves(self, *, force: bool = False) -> None:
        text = curves.run_text(self.history)
        self._stale = not self._show("curves", self.history.to_html, text, force=force)

    def _show(self, place: str, draw: Draw, text: str, *, force: bool = False) -> bool:
        """Return whether the picture is up to date now; outside notebooks it always is."""
        if not _in_notebook():
            return True
        screen = self._screens.setdefault(place, _Screen(self._every))
        return screen.show(draw, text, force=force)

    def _finish(self, outcome: Outcome, step: int) -> None:
        self.history.outcome = outcome
        self._unwatch_cell()
        steps = self.history.max_steps
        word = self.history.step_word
        text = [f"{outcome}: {step} of {steps} {word}s", curves.duration(self._clock.seconds)]
        done = step / max(steps, 1)
        self._show("progress", lambda: curves.progress(text, done), ", ".join(text), force=True)
        if self.history.rows:
            self._draw_curves(force=True)

    # --- a run that never reaches its end ------------------------------------------------------

    def _watch_cell(self) -> None:
        """An exception or an interrupt skips `on_train_end`; the end of the cell does not."""
        if _in_notebook() and self._shell is None:
            self._shell = get_ipython()
            self._shell.events.register("post_run_cell", self._after_cell)

    def _unwatch_cell(self) -> None:
        if self._shell is not None:
            self._shell.events.unregister("post_run_cell", self._after_cell)
            self._shell = None

    def _after_cell(self, result: Any) -> None:
        if self.history.outcome == "running":
            self._finish("stopped", self._clock.step)


def method_of(args: object) -> Method:
    """Return which trainer a training-arguments object configures, ``""`` when unknown.

    Subclasses count: a class that inherits from `trl.SFTConfig` is ``"sft"``.
    """
    names = [cls.__name__.removesuffix("Config").lower() for cls in type(args).__mro__]
    return next((method for name in names for method in METHODS if method and method == name), "")


class _Clock:
    """Time since the run began, and the pace of its last steps."""

    def __init__(self, *, offset: float = 0.0) -> None:
        self._start = time.monotonic() - offset
        self._marks: deque[tuple[int, float]] = deque(maxlen=_PACE_STEPS)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    @property
    def step(self) -> int:
        return self._marks[-1][0] if self._marks else 0

    def tick(self, step: int) -> None:
        self._marks.append((step, self.seconds))

    def pace(self) -> float | None:
        """Return seconds a step, evaluations included; None before the second step.

        The first mark is the beginning of the run, so the first step, which often warms up, leaves
        the window first.
        """
        marks = list(self._marks)[1:] if len(self._marks) > 2 else []
        if len(marks) < 2 or marks[-1][0] == marks[0][0]:
            return None
        return (marks[-1][1] - marks[0][1]) / (marks[-1][0] - marks[0][0])

    def text(self, step: int, steps: int, word: str, note: str) -> list[str]:
        words = [f"{word} {step} of {steps}", curves.duration(self.seconds)]
        pace = self.pace()
        if pace is None:
            words.append("measuring the pace")
        else:
            left = curves.duration(pace * (steps - step))
            words.append(f"about {left} left ({pace:.2g} s a {word})")
        return [*words, note or "interrupt the kernel to stop: the curves stay"]


class _Screen:
    """One output of a cell that is rewritten in place, not too often."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._next = float("-inf")
        self._handle: DisplayHandle | None = None

    def show(self, draw: Draw, text: str, *, force: bool) -> bool:
        """Draw now or leave it for later; return whether it was drawn."""
        began = time.monotonic()
        if not force and began < self._next:
            return False
        bundle = {"text/html": draw(), "text/plain": text}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)
        now = time.monotonic()
        self._next = now + max(self._every, _SHARE * (now - began))
        return True


def _in_notebook() -> bool:
    shell = get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def _line(state: Any, logs: dict[str, Any]) -> str:
    numbers = (f"{k} {v:.4g}" for k, v in logs.items() if isinstance(v, int | float))
    return f"step {state.global_step}/{state.max_steps}  {'  '.join(numbers)}"
