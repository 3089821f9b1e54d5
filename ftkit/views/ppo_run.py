"""What a whole PPO run tells, above its single iterations: its story, and a few curves.

Part of the stepper's still picture (`ftkit.views.ppo_stepper`); the browser draws the same from
the same style sheet. Left out: every other metric, which `ftkit.LiveMetrics` shows.
"""

from collections.abc import Iterable, Sequence
from html import escape
from math import isfinite

from ftkit.records.metric_guide import metric_for
from ftkit.records.ppo_trace import PPOTrace
from ftkit.views.plot import number

WIDTH, HEIGHT, _INSET = 160, 38, 5
_TOLD = (("What happens", "say"), ("Where to look", "look"), ("The cure", "cure"))


def story_html(trace: PPOTrace) -> str:
    """Return what `trace` has to say for itself, empty for an ordinary run."""
    told = [(label, text) for label, name in _TOLD if (text := getattr(trace, name))]
    items = "".join(f"<div><dt>{label}</dt><dd>{escape(text)}</dd></div>" for label, text in told)
    return f'<dl class="ft-story">{items}</dl>' if items else ""


def sparks_html(trace: PPOTrace, iteration: int) -> str:
    """Return one small curve for each watched metric that was logged, marked at `iteration`."""
    here = trace.iterations.index(trace.at(iteration))
    curves = {key: [it.metrics.get(key) for it in trace.iterations] for key in trace.watch}
    drawn = [
        _spark(key, [float("nan") if v is None else v for v in values], here)
        for key, values in curves.items()
        if len(values) > 1 and any(v is not None for v in values)
    ]
    return f'<div class="ft-sparks">{"".join(drawn)}</div>' if drawn else ""


def others_html(traces: Iterable[PPOTrace]) -> str:
    """Return recorded runs as closed sections: one click shows story, curves and answers."""
    made = "".join(_other(trace) for trace in traces)
    head = '<p class="ft-prompt">recorded runs to compare with:</p>'
    return f'<div class="ft-others">{head}{made}</div>' if made else ""


def mark(trace: PPOTrace) -> str:
    """Return the title with ✓ for a run that is well, ✗ for one that fails."""
    return f"{'✗' if trace.cure else '✓'} {trace.title}"


def _other(trace: PPOTrace) -> str:
    first, last = trace.iterations[0], trace.iterations[-1]
    shown = trace.start.iteration if trace.start else last.number
    answers = "".join(
        f"<br>answer of iteration {it.number}: <code>{escape(''.join(it.tokens[0]))}</code>"
        for it in (first, last)
    )
    said = f'<p class="ft-prompt">{answers.removeprefix("<br>")}</p>'
    body = story_html(trace) + sparks_html(trace, shown) + said
    return f'<details class="ft-more"><summary>{escape(mark(trace))}</summary>{body}</details>'


def _spark(key: str, values: Sequence[float], here: int) -> str:
    metric = metric_for(key, "ppo")
    ends = f"{number(values[0])} → {number(values[-1])}"
    x, y = _places(values)
    points = [(x[i], y[i]) for i, v in enumerate(values) if isfinite(v)]
    path = "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
    dot = f'<circle cx="{x[here]:.1f}" cy="{y[here]:.1f}" r="4"/>' if isfinite(values[here]) else ""
    return (
        f'<figure class="ft-spark" title="{escape(metric.meaning)}"><figcaption><code>'
        f"{escape(key)}</code><b>{number(values[here])}</b><small>{escape(metric.unit)}</small>"
        f'</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(key)} over iterations: {ends}"><path class="here" '
        f'd="M{x[here]:.1f} 0V{HEIGHT}"/><path class="run" d="M{path}"/>{dot}</svg>'
        f"<small>{ends}</small></figure>"
    )


def _places(values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return where the points stand; what is not finite stands in the middle."""
    finite = [v for v in values if isfinite(v)] or [0.0]
    low, high = min(finite), max(finite)
    span = (high - low) or 1.0
    inner = HEIGHT - 2 * _INSET
    x = [_INSET + i / (len(values) - 1) * (WIDTH - 2 * _INSET) for i in range(len(values))]
    y = [HEIGHT - _INSET - ((v - low) / span * inner if isfinite(v) else inner / 2) for v in values]
    return x, y
