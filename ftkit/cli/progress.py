"""What the terminal shows while a notebook runs.

The remaining time is only told when it is known: from the reader's own last complete run, or from
what the notebook's author measured. Cells differ by a factor of a hundred, so their mean is no
estimate.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from ftkit.cli.tour import OnCell


@contextmanager
def show(console: Console, name: str, usual: float | None) -> Iterator[OnCell]:
    """Show the progress of notebook `name`, which usually takes `usual` seconds (None: unknown)."""
    if not console.is_terminal:
        yield _lines(console, name)
        return
    with Progress(
        SpinnerColumn(),
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[at]}"),
        _Clock(usual),
        TextColumn("[dim]{task.fields[label]}", markup=True),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task(name, total=1, at="", label="starting the kernel")

        def on_cell(number: int, count: int, label: str) -> None:
            at = f"cell {number}/{count}"
            bar.update(task, completed=number - 1, total=count, at=at, label=escape(label))

        yield on_cell


def clock(elapsed: float, usual: float | None) -> str:
    """Return elapsed and, where it is known, remaining time, both in minutes and seconds."""
    gone = _minutes(elapsed)
    if usual is None:
        return gone
    if elapsed > usual:
        return f"{gone}, over the usual {_minutes(usual)}"
    return f"{gone}, about {_minutes(usual - elapsed)} left"


class _Clock(ProgressColumn):
    def __init__(self, usual: float | None) -> None:
        super().__init__()
        self._usual = usual

    def render(self, task: Task) -> Text:
        return Text(clock(task.elapsed or 0.0, self._usual), style="cyan")


def _lines(console: Console, name: str) -> OnCell:
    """One plain line a cell, for logs."""
    started = time.monotonic()

    def on_cell(number: int, count: int, label: str) -> None:
        gone = _minutes(time.monotonic() - started)
        console.print(f"{name}  cell {number}/{count}  {gone}  {label}", markup=False)

    return on_cell


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
