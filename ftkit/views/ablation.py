"""An ablation as one card: a row a setting, with its trials, mean, and difference to the baseline.

The same card, with a bar on top, is the live table. Left out: which direction is better.
"""

from collections.abc import Sequence
from html import escape

from ftkit.records.ablation import (
    STATES,
    AblationResult,
    AblationTrial,
    SettingSummary,
    State,
    value_text,
)
from ftkit.records.ablation_progress import AblationProgress, span_text
from ftkit.views import ablation_svg as svg
from ftkit.views._registry import to_html
from ftkit.views.curves import duration
from ftkit.views.style import card, css

MARKS: dict[State, str] = {"done": "✓", "failed": "✗", "running": "▶", "waiting": "·"}
_SHEETS = ("curves", "ablation")
_SHOWN_ERRORS = 12


@to_html.register
def ablation_html(record: AblationResult) -> str:
    """Return the card of an ablation."""
    return css(*_SHEETS) + _card(record, "")


@to_html.register
def progress_html(record: AblationProgress) -> str:
    """Return the live table: a bar, what is known of the time, and the card so far."""
    return css(*_SHEETS) + _card(record.result, _progress(record))


def _card(record: AblationResult, above: str) -> str:
    settings, seeds = len(record.settings), len({t.seed for t in record.trials})
    aside = f"{settings} settings × {seeds} seed{'s' * (seeds != 1)}"
    names = record.varied or tuple(record.factors)
    first, *others = record.metrics or ("",)
    more = "".join(
        f"<details><summary>{escape(name)}</summary>{_table(record, name)}</details>"
        for name in others
    )
    body = above + _counts(record) + _table(record, first) + _key(record) + more + _errors(record)
    return card(
        f"Ablation of {_listed(names)}",
        f'<div class="ft-abl">{body}</div>',
        aside=f"<span>{aside}</span>",
        say=" ".join(_meaning(record)),
    )


def _listed(names: Sequence[str]) -> str:
    *front, last = names
    return f"{', '.join(front)} and {last}" if front else last


def _counts(record: AblationResult) -> str:
    counts = {state: record.count(state) for state in STATES}
    parts = "".join(
        f'<span class="{state}"><b>{MARKS[state]} {count}</b> {state}</span>'
        for state, count in counts.items()
        if count or state == "done"
    )
    return f'<div class="ft-ablcount">{parts}</div>'


def _progress(record: AblationProgress) -> str:
    total = len(record.result.trials)
    percent = 100 * record.ended / max(total, 1)
    words = [duration(record.seconds)]
    if record.stopped:
        words.append("stopped: call again to go on")
    elif record.ended < total:
        words.append(f"{span_text(*record.left)} left" if record.left else "measuring the pace")
    rest = "".join(f"<span>{escape(word)}</span>" for word in words)
    return (
        '<div class="ft-run"><div class="ft-bar" role="progressbar" aria-label="trials that ended" '
        f'aria-valuenow="{percent:.0f}" aria-valuemin="0" aria-valuemax="100">'
        f'<i style="width:{percent:.1f}%"></i></div><b>{record.ended} of {total}</b>{rest}</div>'
    )


# --- the table -------------------------------------------------------------------------------


def _table(record: AblationResult, metric: str) -> str:
    rows = record.summary(metric or None)
    factors = record.varied or tuple(record.factors)
    columns = _Columns(rows, metric)
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in factors)
    body = "".join(
        f"<tr{_BASE if s.is_baseline else ''}>{_factor_cells(record, s, factors)}"
        f"<td>{_trials(s)}</td>{columns.cells(record, s)}</tr>"
        for s in rows
    )
    return (
        '<div class="ft-scroll"><table class="ft-table ft-abltable"><thead><tr>'
        f'{head}<th scope="col">seeds</th>{columns.head()}</tr></thead><tbody>{body}</tbody>'
        "</table></div>"
    )


_BASE = ' class="base"'


class _Columns:
    """The two columns with pictures, each with one scale for all rows."""

    def __init__(self, rows: Sequence[SettingSummary], metric: str) -> None:
        self._metric = metric
        values = [v for s in rows for v in s.values.values()]
        paired = [v for s in rows for v in s.differences.values()]
        self._mean = svg.scale_of(values, [s.mean for s in rows]) if values else None
        self._versus = (
            svg.scale_of(paired, [s.difference for s in rows], zero=True) if paired else None
        )
        base = next((s for s in rows if s.is_baseline), None)
        self._line = base.mean.mean if base and base.mean else None

    def head(self) -> str:
        """The names of the columns, with their axes."""
        name = escape(self._metric) or "metric"
        first = f'<th scope="col">{name}: mean ± 95%{_axis(self._mean)}</th>'
        return f'{first}<th scope="col">difference to baseline ± 95%{_axis(self._versus)}</th>'

    def cells(self, record: AblationResult, summary: SettingSummary) -> str:
        """The two cells of a setting."""
        return f"<td>{self._mean_cell(record, summary)}</td><td>{self._versus_cell(summary)}</td>"

    def _mean_cell(self, record: AblationResult, summary: SettingSummary) -> str:
        if summary.mean is None or self._mean is None:
            return '<span class="none">–</span>'
        text = summary.mean.text()
        picture = svg.row(
            list(summary.values.values()),
            summary.mean,
            self._mean,
            line=self._line,
            kind="base" if summary.is_baseline else "clear",
            spoken=f"{record.label(summary.setting)}: {self._metric} {text}",
        )
        return f'<div class="ft-ablcell"><b>{escape(text)}</b>{picture}</div>'

    def _versus_cell(self, summary: SettingSummary) -> str:
        if summary.is_baseline:
            return '<span class="none">baseline</span>'
        if summary.difference is None or self._versus is None:
            return '<span class="none">–</span>'
        text, (mark, kind) = summary.difference.text(signed=True), verdict(summary)
        picture = svg.row(
            list(summary.differences.values()),
            summary.difference,
            self._versus,
            line=0.0,
            kind=kind,
            spoken=f"difference {text}",
        )
        return f'<div class="ft-ablcell {kind}"><b>{escape(text)} {mark}</b>{picture}</div>'


def verdict(summary: SettingSummary) -> tuple[str, str]:
    """Return the mark of a difference, and ``"clear"`` where its interval excludes 0."""
    difference = summary.difference
    if difference is None or not difference.excludes_zero:
        return "", "open"
    return ("▲" if difference.mean > 0 else "▼"), "clear"


def _axis(scale: svg.Scale | None) -> str:
    return f'<div class="ft-ablcell"><b></b>{svg.axis(scale)}</div>' if scale else ""


def _factor_cells(record: AblationResult, summary: SettingSummary, factors: Sequence[str]) -> str:
    """The values; what differs from the baseline is bold."""
    cells = []
    for name in factors:
        value = summary.setting[name]
        text = escape(value_text(value))
        cells.append(
            f"<td>{text}</td>" if value == record.baseline[name] else f"<td><b>{text}</b></td>"
        )
    return "".join(cells)


def _trials(summary: SettingSummary) -> str:
    chips = "".join(
        f'<span class="{t.state}" title="{escape(_told(t))}">{MARKS[t.state]}'
        f'<span class="ft-vh"> {escape(_told(t))}</span></span>'
        for t in summary.trials
    )
    return f'<span class="ft-abltrials" style="--n:{len(summary.trials)}">{chips}</span>'


def _told(trial: AblationTrial) -> str:
    if trial.failure:
        return f"seed {trial.seed}: failed, {trial.failure.error}"
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in trial.metrics.items())
    took = f" ({duration(trial.seconds)})" if trial.seconds is not None else ""
    return f"seed {trial.seed}: {numbers or trial.state}{took}"


# --- below the table ---------------------------------------------------------------------------


def _key(record: AblationResult) -> str:
    if not record.metrics:
        return ""
    return (
        '<p class="ft-ablkey">Square: baseline. Bold: not as in the baseline. Small dots: seeds, '
        "in the right column each minus the baseline with the same seed. Filled, ▲ or ▼: the "
        "interval excludes 0. Arrow: the interval goes on.</p>"
    )


def _errors(record: AblationResult) -> str:
    """Failures by error, each with where it happened and the first traceback."""
    groups: dict[str, list[AblationTrial]] = {}
    for trial in record.failures:
        groups.setdefault(trial.failure.error if trial.failure else "", []).append(trial)
    items = "".join(_error(record, e, trials) for e, trials in list(groups.items())[:_SHOWN_ERRORS])
    hidden = len(groups) - _SHOWN_ERRORS
    more = f"<p>… and {hidden} other errors, in <code>failures</code>.</p>" if hidden > 0 else ""
    hint = (
        "<p>Failures are kept. <code>ftkit.stages.ablation.retry_failures(storage)</code> lets the "
        "next call run them again.</p>"
    )
    return f'<div class="ft-ablerrors">{items}{more}{hint}</div>' if groups else ""


def _error(record: AblationResult, error: str, trials: Sequence[AblationTrial]) -> str:
    where = "; ".join(f"{record.label(t.setting)}, seed {t.seed}" for t in trials[:6])
    more = f"; and {len(trials) - 6} more" if len(trials) > 6 else ""
    trace = trials[0].failure.traceback if trials[0].failure else ""
    return (
        f"<details><summary><b>✗ {len(trials)} failed</b> {escape(error)}</summary>"
        f"<p>{escape(where + more)}</p><pre>{escape(trace)}</pre></details>"
    )


def _meaning(record: AblationResult) -> list[str]:
    rows = [s for s in record.summary() if s.mean]
    if not rows:
        return ["Nothing is done yet."]
    compared = [s for s in rows if s.difference and s.difference.half is not None]
    if all(len(s.values) < 2 for s in rows):
        return ["One seed a setting so far: a difference may be luck. More seeds show how much."]
    said = []
    if compared:
        clear = sum(s.difference.excludes_zero for s in compared if s.difference)
        said.append(
            f"{clear} of {len(compared)} differences have a 95% interval without 0; "
            "by luck alone it would be about 1 in 20."
        )
    if all(len(set(s.values.values())) == 1 for s in rows):
        said.append("Every seed gave the same number: does the function use its seed?")
    return said
