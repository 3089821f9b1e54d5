"""The two panels of a comparison as a matplotlib `Figure`, for papers and slides.

Built on `matplotlib.figure.Figure` alone: no pyplot, no global state, no display needed.
"""

from math import isfinite, sqrt
from typing import TYPE_CHECKING, Any, Literal

from ftkit.records.comparison import ComparisonResult
from ftkit.records.comparison_run import ALGORITHMS, NAMES, Algorithm
from ftkit.records.comparison_words import limit_text
from ftkit.views.comparison import PANELS, Panel, marks_along
from ftkit.views.plot import number
from ftkit.views.style import DARK, LIGHT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HUES: dict[Algorithm, str] = {
    "ppo": "acc",
    "dpo": "neg",
    "grpo": "tool",
    "rloo": "sys",
    "best-of-n": "mut",
}
_MARKS: dict[Algorithm, str] = {
    "ppo": "o",
    "dpo": "s",
    "grpo": "^",
    "rloo": "D",
    "best-of-n": "x",
}


def figure(record: ComparisonResult, *, theme: Literal["light", "dark"] = "light") -> "Figure":
    """Return gold for KL and gold for seconds: thin lines a seed, large marks at the budget.

    Args:
        record: The comparison.
        theme: Palette.
    """
    from ftkit.views.shown_figure import ShownFigure

    ink = LIGHT if theme == "light" else DARK
    result = ShownFigure(figsize=(10.2, 3.8), layout="constrained", facecolor=ink["card"])
    for axes, panel in zip(result.subplots(1, 2), PANELS, strict=True):
        _draw(axes, record, panel, ink)
    return result


def _draw(axes: Any, record: ComparisonResult, panel: Panel, ink: dict[str, str]) -> None:
    axes.set_facecolor(ink["card"])
    axes.set_title(
        f"{panel.title}\nmarks: mean over seeds within {limit_text(record, panel.budget)}",
        loc="left", fontsize=10, color=ink["fg"],
    )  # fmt: skip
    axes.set_xlabel(panel.axis, color=ink["mut"], fontsize=9)
    axes.set_ylabel("gold reward (mean)", color=ink["mut"], fontsize=9)
    axes.tick_params(colors=ink["mut"], labelsize=8)
    for spine in axes.spines.values():
        spine.set_color(ink["line"])
    axes.axhline(record.at_start()[0], color=ink["mut"], linestyle=":", linewidth=1, label="start")
    for name in ALGORITHMS:
        _lines(axes, record, panel, name, ink[_HUES[name]])
    _marks(axes, record, panel, ink)
    if panel.root:
        at, values = zip(*marks_along(panel, axes.get_xlim()[1]), strict=True)
        axes.set_xticks(at, [number(value) for value in values])
    else:
        axes.axvline(record.limit(panel.budget), color=ink["mut"], linestyle=":", linewidth=1)
        axes.legend(fontsize=8, facecolor=ink["card"], edgecolor=ink["line"], labelcolor=ink["fg"])


def _lines(axes: Any, record: ComparisonResult, panel: Panel, name: Algorithm, colour: str) -> None:
    end = 1.05 * sqrt(_farthest(record)) if panel.root else 1.3 * _longest(record)
    for run in record.seeds_of(name):
        points = [p for p in run.points if isfinite(p.gold) and panel.along(p) <= end]
        axes.plot(
            [panel.along(p) for p in points],
            [p.gold for p in points],
            color=colour, linewidth=0.9, alpha=0.55, marker=".", markersize=3,
            linestyle="--" if name == "best-of-n" else "-",
        )  # fmt: skip


def _farthest(record: ComparisonResult) -> float:
    farthest = max((p.kl for run in record.runs for p in run.points), default=0.0)
    return farthest if farthest > 0 else 1.0


def _longest(record: ComparisonResult) -> float:
    """Seconds of the longest training: answers of best-of-n may take far longer."""
    trained = [p for run in record.runs if run.algorithm != "best-of-n" for p in run.points]
    return max([p.seconds for p in trained] + [record.seconds])


def _marks(axes: Any, record: ComparisonResult, panel: Panel, ink: dict[str, str]) -> None:
    for reading in record.readings(panel.budget):
        places = [panel.along(point) for point in reading.points]
        axes.plot(
            sum(places) / len(places),
            reading.mean("gold"),
            _MARKS[reading.algorithm],
            color=ink[_HUES[reading.algorithm]], markersize=8, linestyle="",
            label=NAMES[reading.algorithm],
        )  # fmt: skip
