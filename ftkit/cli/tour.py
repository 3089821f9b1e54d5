"""Run one notebook of the course from top to bottom and keep what it showed.

The kernel is the interpreter that runs this, whatever kernelspecs the machine has, and it starts in
the output folder: packaged notebooks may lie where nobody can write. The executed copy carries a
`Record` in its metadata, so the index page can be drawn from the folder alone. Deliberately left
out: a time limit (a training cell takes what it takes; Ctrl-C stops it) and parallel notebooks (one
model in memory is the point of the course).
"""

import asyncio
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode

from ftkit.cli import export
from ftkit.cli.course import Stage
from ftkit.records import files
from ftkit.threads import wait_briefly

METADATA_KEY = "ftkit_tour"
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_CELL_LINE = re.compile(r"Cell In\[\d+\], line (\d+)")

OnCell = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Failure:
    """Where a notebook stopped.

    Attributes:
        cell: Number of the code cell, as in ``In [5]``; 0 when no cell had started.
        line: Number of the line in that cell, from 1; 0 when unknown.
        source: That line; empty when unknown.
        error: Name of the exception.
        message: Its text.
    """

    cell: int
    line: int
    source: str
    error: str
    message: str

    def __str__(self) -> str:
        place = f"cell {self.cell}" if self.cell else "before the first cell"
        line = f", line {self.line}: {self.source}" if self.line else ""
        return f"{place}{line}\n{self.error}: {self.message}"


@dataclass(frozen=True, slots=True)
class Record:
    """How a notebook ran; stored in the metadata of its executed copy.

    Attributes:
        status: ``"ok"``, ``"failed"`` or ``"interrupted"``.
        profile: Name of the profile it ran in.
        seconds: Wall time, kernel start included.
        cells: Number of code cells that were to run.
        failure: Where it stopped, when it failed.
    """

    status: Literal["ok", "failed", "interrupted"]
    profile: str
    seconds: float
    cells: int
    failure: Failure | None = None

    @classmethod
    def of(cls, notebook: NotebookNode) -> "Record | None":
        """Return the record that an executed copy carries, or None."""
        stored = notebook.metadata.get(METADATA_KEY)
        if not stored:
            return None
        failure = Failure(**stored["failure"]) if stored["failure"] else None
        return cls(**{**stored, "failure": failure})


def usual_seconds(stage: Stage, out: Path, profile: str) -> float | None:
    """Return how long `stage` takes, or None when nobody has measured it.

    The reader's own last complete run counts first, then the notebook's ``metadata.ftkit.minutes``,
    a number for each profile.
    """
    copy = out / f"{stage.name}.ipynb"
    last = Record.of(read(copy)) if copy.is_file() else None
    if last and last.status == "ok" and last.profile == profile:
        return last.seconds
    minutes = read(stage.path).metadata.get("ftkit", {}).get("minutes", {}).get(profile)
    return None if minutes is None else 60.0 * minutes


def run(stage: Stage, out: Path, profile: str, on_cell: OnCell) -> Record:
    """Execute `stage` in `profile` and write its copy and HTML page to `out`.

    Args:
        stage: The notebook to run.
        out: Existing folder; the kernel's working directory, too.
        profile: Name of the profile, handed over as ``FTKIT_PROFILE``.
        on_cell: Called before each code cell with its number, their count, and a label.

    Returns:
        How it went. A failing cell, a dead kernel and Ctrl-C are told here, not raised; what ran
        until then is in the copy.
    """
    notebook, started = read(stage.path), time.monotonic()
    status, failure = _attempt(notebook, out, profile, on_cell)
    seconds = round(time.monotonic() - started, 1)
    record = Record(status, profile, seconds, len(code_cells(notebook)), failure)
    _drop_widgets(notebook)
    notebook.metadata[METADATA_KEY] = asdict(record)
    files.write(out / f"{stage.name}.ipynb", nbformat.writes(notebook) + "\n")
    files.write(out / f"{stage.name}.html", export.to_html(notebook, stage.name))
    return record


def read(path: Path) -> NotebookNode:
    """Return the notebook at `path`; a broken file gives one that fails and says why."""
    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, nbformat.ValidationError) as error:
        text = f"{path.name} is not a notebook that nbformat can read: {error}"
        cell = nbformat.v4.new_code_cell(f"raise ValueError({text!r})")
        return nbformat.v4.new_notebook(cells=[cell])


def code_cells(notebook: NotebookNode) -> list[int]:
    """Return the indices of the cells that will be executed."""
    return [
        index
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code"
        and cell.source.strip()
        and "skip-execution" not in cell.metadata.get("tags", [])
    ]


def heading_above(notebook: NotebookNode, index: int) -> str:
    """Return the last Markdown heading before cell `index`, without its hashes."""
    above = (c.source for c in notebook.cells[:index] if c.cell_type == "markdown")
    return next(reversed(re.findall(r"^#{1,6}[ \t]+(.+)$", "\n".join(above), re.MULTILINE)), "")


def _attempt(
    notebook: NotebookNode, out: Path, profile: str, on_cell: OnCell
) -> tuple[Literal["ok", "failed", "interrupted"], Failure | None]:
    number = 0

    def note(cell: int, count: int, label: str) -> None:
        nonlocal number
        number = cell
        on_cell(cell, count, label)

    with tempfile.TemporaryFile() as log:
        try:
            asyncio.run(_execute(notebook, out, profile, note, log))
        except CellExecutionError as error:
            source = notebook.cells[code_cells(notebook)[number - 1]].source
            line, text = _line_of(error.traceback, source)
            return "failed", Failure(number, line, text, error.ename, _ANSI.sub("", error.evalue))
        except DeadKernelError:
            said = "the kernel's process ended, most often because memory ran out"
            return "failed", Failure(number, 0, "", "DeadKernelError", _with_log(said, log))
        except RuntimeError as error:  # the kernel never came up
            return "failed", Failure(0, 0, "", "RuntimeError", _with_log(str(error), log))
        except KeyboardInterrupt:
            return "interrupted", None
    return "ok", None


async def _execute(
    notebook: NotebookNode, out: Path, profile: str, on_cell: OnCell, log: IO[bytes]
) -> None:
    """Run all cells; `log` takes what the kernel process itself writes to its standard error."""
    manager = AsyncKernelManager(kernel_spec_manager=_ThisInterpreter())
    client = NotebookClient(
        notebook,
        km=manager,
        store_widget_state=False,
        resources={"metadata": {"path": str(out)}},
    )
    env = {**wait_briefly(dict(os.environ)), "FTKIT_STATIC": "1", "FTKIT_PROFILE": profile}
    await client.async_start_new_kernel(env=env, stderr=log)
    try:
        await client.async_start_new_kernel_client()
        await _execute_cells(client, notebook, on_cell)
    finally:
        if client.kc:
            client.kc.stop_channels()
        if await manager.is_alive():
            await manager.shutdown_kernel(now=_interrupted())


async def _execute_cells(client: Any, notebook: NotebookNode, on_cell: OnCell) -> None:
    reply = await client.async_wait_for_reply(client.kc.kernel_info())
    notebook.metadata["language_info"] = reply["content"]["language_info"]
    cells = code_cells(notebook)
    for number, index in enumerate(cells, start=1):
        cell = notebook.cells[index]
        first_line = cell.source.strip().splitlines()[0]
        on_cell(number, len(cells), heading_above(notebook, index) or first_line)
        try:
            await client.async_execute_cell(cell, index, execution_count=number)
        except DeadKernelError:
            if _interrupted():  # nbclient takes any cancellation for a dead kernel
                raise asyncio.CancelledError from None
            raise


def _interrupted() -> bool:
    """Whether Ctrl-C has cancelled the running task."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class _ThisInterpreter(KernelSpecManager):
    """Every kernel name means the running interpreter, so that a tour tests what is installed."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python")


def _line_of(traceback: str, source: str) -> tuple[int, str]:
    """Return number and text of the cell's line in an IPython traceback; (0, "") if none."""
    match, lines = _CELL_LINE.search(_ANSI.sub("", traceback)), source.splitlines()
    line = int(match[1]) if match else 0
    return (line, lines[line - 1].strip()) if 0 < line <= len(lines) else (0, "")


def _with_log(message: str, log: IO[bytes]) -> str:
    """Return `message` and below it the end of what the kernel's process wrote to `log`."""
    log.seek(0)
    lines = log.read().decode(errors="replace").splitlines()
    told = "\n".join(line for line in lines if "encryption" not in line)
    return f"{message}\n{told[-2000:]}".strip()


def _drop_widgets(notebook: NotebookNode) -> None:
    """Remove widget views: without a kernel they would hide the HTML beside them."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(_WIDGET_VIEW, None)
        if "outputs" in cell:
            cell.outputs = [o for o in cell.outputs if o.get("data", True)]
