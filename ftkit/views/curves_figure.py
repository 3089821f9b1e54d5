"""The same small multiples as a matplotlib `Figure`, for papers and slides.

Built on `matplotlib.figure.Figure` alone: no pyplot, no global state, no display needed.
"""

from collections.abc import Iterable
from math import ceil, isfinite
from typing import TYPE_CHECKING, Any, Literal

from ftkit.records.history import RunHistory
from ftkit.views.curves import Panel, panels
from ftkit.views.plot import Series, number, scale_of
from ftkit.views.style import DARK, LIGHT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HUES = ("acc", "asst", "sys", "tool")
_MARKS = ("o", "D", "s", "^")


def figure(
    history: RunHistory,
    *,
    keys: Iterable[str] | None = None,
    columns: int = 3,
    theme: Literal["light", "dark"] = "light",
) -> "Figure":
    """Return one axes a metric: curves, healthy band (hatched), gaps marked with ×.

    Args:
        history: The run.
        keys: Metrics to draw, by their training name, e.g. ``["loss", "entropy"]``; by default
            all but the bookkeeping.
        columns: Axes a row.
        theme: Palette.

    Raises:
        ValueError: one of `keys` was not logged, or nothing was logged at all.
    """
    from ftkit.views.shown_figure import ShownFigure

    chosen = _chosen(panels(history), None if keys is None else list(keys))
    ink = LIGHT if theme == "light" else DARK
    rows = ceil(len(chosen) / columns)
    result = ShownFigure(
        figsize=(4.2 * columns, 2.9 * rows), layout="constrained", facecolor=ink["card"]
    )
    grid = result.subplots(rows, columns, squeeze=False)
    for axes, panel in zip(grid.flat, chosen, strict=False):
        _draw(axes, panel, ink)
    for axes in grid.flat[len(chosen) :]:
        axes.set_axis_off()
    return result


def _chosen(found: list[Panel], keys: list[str] | None) -> list[Panel]:
    logged = ", ".join(p.name for p in found) or "nothing"
    if missing := sorted(set(keys or ()) - {p.name for p in found}):
        raise ValueError(f"no metric {', '.join(missing)} to draw; logged: {logged}")
    chosen = [p for p in found if (p.name in keys if keys else p.metric.group != "books")]
    if not chosen:
        raise ValueError(f"no metric to draw; logged: {logged}")
    return chosen


def _draw(axes: Any, panel: Panel, ink: dict[str, str]) -> None:
    scale = scale_of(panel.series, panel.metric.healthy)
    axes.set(xlim=scale.x, ylim=scale.y, facecolor=ink["card"])
    axes.set_xlabel(panel.step_unit, color=ink["mut"], fontsize=9)
    axes.set_ylabel(panel.metric.unit, color=ink["mut"], fontsize=9)
    last = ", ".join(f"{s.name} {number(s.points[-1][1])}" for s in panel.series)
    axes.set_title(f"{panel.name}\n{last}", loc="left", fontsize=10, color=ink["fg"])
    axes.tick_params(colors=ink["mut"], labelsize=8)
    for spine in axes.spines.values():
        spine.set_color(ink["line"])
    if panel.metric.healthy:
        _shade(axes, panel.metric.healthy, scale.y, ink)
    for series in panel.series:
        _plot(axes, series, ink)


def _shade(
    axes: Any, band: tuple[float, float], seen: tuple[float, float], ink: dict[str, str]
) -> None:
    low, high = max(band[0], seen[0]), min(band[1], seen[1])
    if low >= high:
        return
    style = {"facecolor": "none", "edgecolor": ink["ok"], "alpha": 0.35, "linewidth": 0.8}
    axes.axhspan(low, high, hatch="////", zorder=0, **style)
    axes.text(
        0.99,
        0.97,
        "hatched: healthy",
        transform=axes.transAxes,
        ha="right",
        va="top",
        fontsize=7,
        color=ink["ok"],
    )


def _plot(axes: Any, series: Series, ink: dict[str, str]) -> None:
    rank = min(series.rank, len(_HUES) - 1)
    colour = ink[_HUES[rank]]
    steps, values = zip(*series.points, strict=True)
    shown = [v if isfinite(v) else float("nan") for v in values]
    few = len(shown) <= 40
    axes.plot(
        steps,
        shown,
        color=colour,
        linewidth=1.4,
        linestyle="--" if rank else "-",
        marker=_MARKS[rank] if rank or few else None,
        markersize=4 if rank else 2.5,
    )
    gaps = [step for step, v in series.points if not isfinite(v)]
    for step in gaps:
        axes.axvline(step, color=ink["neg"], linestyle=":", linewidth=0.8)
    if gaps:
        low = axes.get_ylim()[0]
        axes.plot(gaps, [low] * len(gaps), "x", color=ink["neg"], clip_on=False, markersize=6)
