"""A run's curves as one card: every logged metric, what it means, its band, and when to worry.

The picture is HTML with inline SVG and needs no script. Left out: judging (that is the guide's,
`ftkit.records.metric_guide`) and updating (`ftkit.LiveMetrics`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite

from ftkit.findings import SEVERITIES, Finding, Severity
from ftkit.records.history import Outcome, RunHistory
from ftkit.records.metric_guide import (
    GROUPS,
    JUDGED_FROM,
    METRICS,
    Metric,
    band_text,
    metric_for,
    split_key,
)
from ftkit.views import plot
from ftkit.views._registry import to_html
from ftkit.views.plot import Series, number
from ftkit.views.style import card, css

WORDS: dict[Severity, str] = {
    "ok": "✓ fine",
    "info": "i note",
    "warning": "! look here",
    "error": "✗ stop",
}
_TITLES = {
    "": "Training metrics",
    "sft": "SFT metrics",
    "reward": "Reward model metrics",
    "dpo": "DPO metrics",
    "grpo": "GRPO metrics",
    "rloo": "RLOO metrics",
    "ppo": "PPO metrics",
}
_KEY_MARKS = {
    "training": '<path class="ln s0" d="M2 6H32"/><circle class="s0 pt" cx="17" cy="6" r="2.2"/>',
    "held-out (eval)": '<path class="ln s1 ev" d="M2 6H32"/>'
    '<path class="s1 dm" d="M17 2l4 4l-4 4l-4 -4z"/>',
    "healthy band": '<rect class="band" x="2" width="30" height="12"/>'
    '<path class="edge" d="M2 0H32M2 12H32"/>',
    "missing, NaN or infinite": '<path class="nx" d="M14 3l6 6m0 -6l-6 6"/>',
    "thin: as logged, thick: running mean": '<path class="ln s0 raw" d="M2 8L12 3L22 9L32 4"/>'
    '<path class="ln s0" d="M2 7L32 5"/>',
}
_GROUP_ORDER = {group: i for i, group in enumerate(GROUPS)}
_GUIDE_ORDER = {metric.key: i for i, metric in enumerate(METRICS.values())}
_ALARMS = ("warning", "error")
_OUTCOMES: dict[Outcome, str] = {
    "waiting": "not started",
    "running": "running",
    "finished": "finished",
    "stopped": "stopped early",
}


@dataclass(frozen=True, slots=True)
class Panel:
    """One metric with all its curves.

    Attributes:
        metric: What the guide knows of it.
        name: The key as logged in training (or the only one logged).
        series: Training first, then held-out.
        findings: What there is to tell about any of its curves.
        step_unit: What a step on the x axis is.
    """

    metric: Metric
    name: str
    series: tuple[Series, ...]
    findings: tuple[Finding, ...]
    step_unit: str

    @property
    def severity(self) -> Severity:
        """The gravest of `findings`."""
        return self.findings[0].severity if self.findings else "ok"


@to_html.register
def history_card(history: RunHistory) -> str:
    """Return a self-contained card of a run's curves."""
    found = panels(history)
    if not found:
        return css("curves") + card(_TITLES[history.method], "", say="Nothing logged yet.")
    body = f'<div class="ft-curves">{_summary(found)}{_panels(found)}{_key(found)}</div>'
    aside = f"<span>{escape(run_text(history))}</span>"
    skipped = "".join(f"{k} ({t}), " for k, t in history.skipped.items()).rstrip(", ")
    say = f"Not numbers, so without a curve: {skipped}." if skipped else ""
    return css("curves") + card(_TITLES[history.method], body, aside=aside, say=say)


def panels(history: RunHistory) -> list[Panel]:
    """Return one panel a metric, in display order: by group, as the guide lists them."""
    told: dict[str, list[Finding]] = {}
    for finding in history.findings():
        told.setdefault(split_key(finding.code)[1], []).append(finding)
    curves: dict[str, dict[str, Series]] = {}
    for key, points in history.curves().items():
        split, base = split_key(key)
        splits = curves.setdefault(base, {})
        rank = 0 if split == "train" else 1 + sum(name != "train" for name in splits)
        splits[split] = Series(split, tuple(points), rank)
    made = [
        Panel(
            metric_for(base, history.method).grounded(_values(splits)),
            base if "train" in splits else f"{next(iter(splits))}_{base}",
            tuple(sorted(splits.values(), key=lambda s: s.rank)),
            tuple(told.get(base, ())),
            history.step_unit,
        )
        for base, splits in curves.items()
    ]
    return sorted(made, key=_place)


def _values(splits: Mapping[str, Series]) -> list[float]:
    """The training curve, or the first other one."""
    return [value for _, value in min(splits.values(), key=lambda s: s.rank).points]


def run_text(history: RunHistory) -> str:
    """Return where the run stands: ``"step 40 of 60 · 2 min 5 s · running"``."""
    of = f" of {history.max_steps}" if history.max_steps else ""
    took = f" · {duration(history.seconds)}" if history.seconds else ""
    return f"{history.step_word} {history.last_step}{of}{took} · {_OUTCOMES[history.outcome]}"


def duration(seconds: float) -> str:
    """Return a length of time in its two largest units: ``"2 min 5 s"``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def progress(text: Sequence[str], done: float) -> str:
    """Return the progress line: a bar, what is known in bold, then remarks.

    Args:
        text: The first is shown bold, the others plain.
        done: Share of the run that is done, 0 to 1.
    """
    percent = 100 * min(max(done, 0.0), 1.0)
    bar = (
        f'<div class="ft-bar" role="progressbar" aria-label="training progress" '
        f'aria-valuenow="{percent:.0f}" aria-valuemin="0" aria-valuemax="100">'
        f'<i style="width:{percent:.1f}%"></i></div>'
    )
    head, *rest = text
    words = f"<b>{escape(head)}</b>" + "".join(f"<span>{escape(t)}</span>" for t in rest)
    return f'{css("curves")}<div class="ftkit"><div class="ft-run">{bar}{words}</div></div>'


# --- the page --------------------------------------------------------------------------------


def _place(panel: Panel) -> tuple[int, int, str]:
    metric = panel.metric
    return _GROUP_ORDER[metric.group], _GUIDE_ORDER.get(metric.key, 0), panel.name


def _summary(found: Sequence[Panel]) -> str:
    alarms = [f for p in found for f in p.findings if f.severity in _ALARMS]
    judged = sum(_is_judged(p) for p in found)
    items = "".join(
        f'<li class="{f.severity}"><b>{WORDS[f.severity]}</b> <code>{escape(f.code)}</code>: '
        f"{escape(f.message)}</li>"
        for f in sorted(alarms, key=lambda f: -SEVERITIES.index(f.severity))
    )
    if judged and not alarms:
        items = f'<li class="ok"><b>{WORDS["ok"]}</b> {judged} metrics judged, all healthy.</li>'
    return f'<ul class="ft-sum">{items}</ul>' if items else ""


def _is_judged(panel: Panel) -> bool:
    longest = max(len(s.points) for s in panel.series)
    return panel.metric.healthy is not None and longest >= JUDGED_FROM


def _panels(found: Sequence[Panel]) -> str:
    shown = [p for p in found if not _is_folded(p)]
    minor = [p for p in found if _is_folded(p) and p.metric.group != "books"]
    books = [p for p in found if _is_folded(p) and p.metric.group == "books"]
    return _grid(shown) + _fold("More metrics", minor) + _fold("Bookkeeping", books)


def _is_folded(panel: Panel) -> bool:
    folds = panel.metric.group == "books" or panel.metric.minor
    return folds and panel.severity not in _ALARMS


def _fold(title: str, found: Sequence[Panel]) -> str:
    if not found:
        return ""
    drawn = [p for p in found if _is_curve(p)]
    single = [p for p in found if not _is_curve(p)]
    body = _grid(drawn) + (_table(single) if single else "")
    return f"<details><summary>{title} ({len(found)})</summary>{body}</details>"


def _is_curve(panel: Panel) -> bool:
    return max(len(s.points) for s in panel.series) > 1


def _grid(found: Iterable[Panel]) -> str:
    figures = "".join(map(_figure, found))
    return f'<div class="ft-grid">{figures}</div>' if figures else ""


def _table(found: Iterable[Panel]) -> str:
    rows = "".join(
        f'<tr><td><code>{escape(p.name)}</code></td><td class="num">'
        f"{number(p.series[0].points[-1][1])} {escape(p.metric.unit)}</td>"
        f"<td>{escape(p.metric.meaning)}</td></tr>"
        for p in found
    )
    return f'<table class="ft-table"><tbody>{rows}</tbody></table>'


def _key(found: Sequence[Panel]) -> str:
    series = [s for p in found if not _is_folded(p) for s in p.series]
    long = any(s.rank == 0 and len(s.points) > plot.SMOOTHED_FROM for s in series)
    present = {
        "training": any(s.rank == 0 for s in series),
        "held-out (eval)": any(s.rank for s in series),
        "healthy band": any(p.metric.healthy for p in found),
        "missing, NaN or infinite": any(not isfinite(v) for s in series for _, v in s.points),
        "thin: as logged, thick: running mean": long,
    }
    items = "".join(
        '<span><span class="ft-plot"><svg viewBox="0 0 34 12" aria-hidden="true">'
        f"{_KEY_MARKS[name]}</svg></span>{name}</span>"
        for name, shown in present.items()
        if shown
    )
    return f'<div class="ft-key">{items}</div>'


# --- one metric ------------------------------------------------------------------------------


def _figure(panel: Panel) -> str:
    metric = panel.metric
    alarm = panel.severity if panel.severity in _ALARMS else ""
    picture = plot.svg(
        panel.series,
        unit=metric.unit,
        title=_spoken(panel),
        steps=panel.step_unit,
        band=metric.healthy,
    )
    meaning = f"<p>{escape(metric.meaning)}</p>" if metric.meaning else ""
    return (
        f'<figure class="ft-plot {alarm}"><header><small>{GROUPS[metric.group]}</small>'
        f"{_last(panel)}<code>{escape(panel.name)}</code></header>"
        f"{picture}{meaning}{_expectation(metric)}{''.join(map(_flag, panel.findings))}</figure>"
    )


def _last(panel: Panel) -> str:
    values = [(s, number(s.points[-1][1])) for s in panel.series]
    parts = [
        f"<span>◇ {value}</span> <small>{escape(s.name)}</small>" if s.rank else value
        for s, value in values
    ]
    return f'<span class="ft-last">{" ".join(parts)}</span>'


def _spoken(panel: Panel) -> str:
    parts = [
        f"{s.name}: {len(s.points)} points, from {number(s.points[0][1])} "
        f"to {number(s.points[-1][1])}"
        for s in panel.series
    ]
    return f"{panel.name} over {panel.step_unit}s; {'; '.join(parts)}"


def _expectation(metric: Metric) -> str:
    band = f"<b>Healthy: {band_text(metric.healthy)}.</b> " if metric.healthy else ""
    text = f"{band}{escape(metric.expect)}"
    return f"<p>{text}</p>" if text else ""


def _flag(finding: Finding) -> str:
    return (
        f'<p class="ft-flag {finding.severity}"><b>{WORDS[finding.severity]}</b> '
        f"{escape(finding.message)} {escape(finding.fix)}</p>"
    )
