"""Lead a reader through the chosen notebooks: run each, say how it went, leave the index page."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ftkit.cli import page, progress, tour
from ftkit.cli.course import Stage

_EXITS = {"ok": 0, "failed": 1, "interrupted": 130}


def lead(chosen: Sequence[Stage], out: Path, profile: str, console: Console) -> int:
    """Run `chosen` one after the other and return the exit status of the tour.

    A failing notebook does not stop the others; Ctrl-C stops all.

    Args:
        chosen: The notebooks, in order.
        out: Where copies and pages go; made when missing.
        profile: Name of the profile.
        console: Where progress and results are told.
    """
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    worst = 0
    for stage in chosen:
        with progress.show(console, stage.name, tour.usual_seconds(stage, out, profile)) as on_cell:
            record = tour.run(stage, out, profile, on_cell)
        _tell(console, stage, record)
        worst = max(worst, _EXITS[record.status])
        if record.status == "interrupted":
            break
    index = page.write(out)
    console.print(f"\nOpen {index}", markup=False, highlight=False, soft_wrap=True)
    return worst


def _tell(console: Console, stage: Stage, record: tour.Record) -> None:
    took = page.span(record.seconds)
    if record.status == "ok":
        console.print(f"✓ {stage.name}  {record.cells} cells in {took}", style="green")
    elif record.status == "interrupted":
        console.print(f"‖ {stage.name}  interrupted after {took}; what ran is kept", style="yellow")
    else:
        console.print(f"✗ {stage.name}  stopped after {took}", style="bold red")
        console.print(str(record.failure), markup=False, highlight=False, soft_wrap=True)
