"""An ablation as a matplotlib `Figure`: means at the left, paired differences at the right."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from ftkit.records.ablation import AblationResult, SettingSummary
from ftkit.records.intervals import Interval
from ftkit.views.ablation_svg import Scale, scale_of
from ftkit.views.style import DARK, LIGHT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Ink = dict[str, str]


def figure(
    record: AblationResult,
    metric: str | None = None,
    *,
    theme: Literal["light", "dark"] = "light",
) -> "Figure":
    """Return two axes with a row a setting, each with a 95% interval; small dots are seeds.

    A filled mark at the right has an interval without 0. Intervals that reach far beyond the dots
    are cut at the frame, with an arrow.

    Args:
        record: The ablation.
        metric: Its name; by default the first.
        theme: Palette.

    Raises:
        ValueError: no trial has such a metric, or none is done.
    """
    from ftkit.views.shown_figure import ShownFigure

    name = record.metric_name(metric)
    rows = [s for s in record.summary(metric) if s.mean]
    if not rows:
        raise ValueError("no trial is done, so there is nothing to draw; see result.failures")
    ink = LIGHT if theme == "light" else DARK
    size = (10.5, 1.5 + 0.48 * len(rows))
    result = ShownFigure(figsize=size, layout="constrained", facecolor=ink["card"])
    left, right = result.subplots(1, 2, sharey=True)
    _means(left, rows, name, ink)
    _differences(right, rows, name, ink)
    labels = [record.label(s.setting) + "\nbaseline" * s.is_baseline for s in rows]
    left.set_yticks(range(len(rows)), labels, fontsize=9, color=ink["fg"], parse_math=False)
    left.set_ylim(len(rows) - 0.4, -0.6)
    return result


def _means(axes: Any, rows: Sequence[SettingSummary], name: str, ink: Ink) -> None:
    means = [s.mean for s in rows if s.mean]
    scale = scale_of([v for s in rows for v in s.values.values()], means)
    many = any(mean.half is not None for mean in means)
    what = "mean and 95% interval over seeds" if many else "one seed, so no interval"
    _frame(axes, scale, f"{name}: {what}", ink)
    for y, (summary, mean) in enumerate(zip(rows, means, strict=True)):
        hue = ink["asst" if summary.is_baseline else "acc"]
        _row(axes, y, list(summary.values.values()), mean, scale, hue, ink)
        marker = "s" if summary.is_baseline else "o"
        axes.plot([mean.mean], [y], marker, color=hue, markersize=7, zorder=4)
        if summary.is_baseline:
            axes.axvline(mean.mean, color=ink["mut"], linestyle="--", linewidth=0.9, zorder=0)


def _differences(axes: Any, rows: Sequence[SettingSummary], name: str, ink: Ink) -> None:
    differences = [s.difference for s in rows]
    paired = [v for s in rows for v in s.differences.values()]
    scale = scale_of(paired or [0.0], differences, zero=True)
    _frame(axes, scale, f"{name} minus baseline, same seed\nfilled: interval without 0", ink)
    axes.axvline(0, color=ink["mut"], linestyle="--", linewidth=0.9, zorder=0)
    for y, (summary, mean) in enumerate(zip(rows, differences, strict=True)):
        if mean is None:
            continue
        _row(axes, y, list(summary.differences.values()), mean, scale, ink["acc"], ink)
        face = ink["acc"] if mean.excludes_zero else ink["card"]
        axes.plot([mean.mean], [y], "o", mec=ink["acc"], mfc=face, mew=1.6, markersize=7, zorder=4)


def _frame(axes: Any, scale: Scale, label: str, ink: Ink) -> None:
    axes.set(xlim=(scale.low, scale.high), facecolor=ink["card"])
    axes.set_xlabel(label, color=ink["fg"], fontsize=9, parse_math=False)
    axes.tick_params(colors=ink["mut"], labelsize=8.5)
    axes.grid(axis="x", color=ink["line"], linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(ink["line"])


def _row(
    axes: Any,
    y: int,
    values: Sequence[float],
    mean: Interval,
    scale: Scale,
    hue: str,
    ink: Ink,
) -> None:
    axes.plot(values, [y + 0.26] * len(values), "o", color=ink["mut"], markersize=3, zorder=3)
    if mean.half is None:
        return
    low, high = max(mean.low, scale.low), min(mean.high, scale.high)
    axes.plot([low, high], [y, y], color=hue, linewidth=1.6, solid_capstyle="butt", zorder=3)
    for end, cut, arrow in ((low, mean.low < scale.low, "<"), (high, mean.high > scale.high, ">")):
        axes.plot([end], [y], arrow if cut else "|", color=hue, markersize=8, clip_on=False)
