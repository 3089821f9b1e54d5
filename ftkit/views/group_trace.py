"""Groups that a trainer really used: prompts as blocks, answers with reward and advantage.

Advantages and rewards are the record's; drawn here are only their bars. Left out: curves over the
run, which `ftkit.views.curves` draws.
"""

from collections.abc import Sequence
from html import escape
from statistics import fmean, pstdev

from ftkit.records.group_trace import Answer, Group, GroupStep, GroupTrace
from ftkit.views._registry import to_html
from ftkit.views.style import card, css, stat
from ftkit.views.text import visible

Scale = tuple[float, float]

_LONGEST = 400  # characters of an answer that are shown
_STEPS = 12  # steps that are drawn; the table has all of them
_SAY = {
    "grpo": "▲ more likely, ▼ less likely, by how much better the answer was than its group. A "
    "hatched group has the same reward everywhere: it was sampled and scored for nothing.",
    "rloo": "▲ more likely, ▼ less likely, by how much better the answer was than the mean of the "
    "others. A hatched group has the same reward everywhere.",
}
_RLOO_KL = " RLOO takes β · KL off each reward first, so advantages are not quite 0 there."


@to_html.register
def group_trace_html(trace: GroupTrace) -> str:
    """Return the card of a trace: the first and the last recorded step open, the others folded."""
    shown = _spaced(trace.steps)
    scale = _scale(trace)
    steps = "".join(
        _step(trace, step, scale, unfolded=step in (shown[0], shown[-1])) for step in shown
    )
    left = len(trace.steps) - len(shown)
    note = f"<p>{left} more steps are recorded: to_pandas() has them.</p>" if left else ""
    nothing = "" if shown else "<p>nothing recorded yet: call trainer.train()</p>"
    body = _stats(trace) + steps + note + nothing
    say = _SAY[trace.method] + (_RLOO_KL if trace.method == "rloo" and trace.beta else "")
    return css("group_trace") + card(
        f"Groups of {trace.method.upper()}", f'<div class="ft-gt">{body}</div>',
        aside=escape(_settings(trace)), say=say,
    )  # fmt: skip


def _spaced(steps: Sequence[GroupStep]) -> Sequence[GroupStep]:
    """Return at most `_STEPS` of `steps`, evenly spaced, the first and the last among them."""
    if len(steps) <= _STEPS:
        return steps
    return [steps[round(i * (len(steps) - 1) / (_STEPS - 1))] for i in range(_STEPS)]


def _scale(trace: GroupTrace) -> Scale:
    """Return lowest and highest reward, 0 included: one scale for the whole trace."""
    rewards = [trace.reward(answer) for _, _, answer in trace.answers()]
    return min([0.0, *rewards]), max([0.0, *rewards])


def _settings(trace: GroupTrace) -> str:
    weights = ", ".join(f"{weight:g} × {name}" for name, weight in trace.weights.items())
    kept = [f"reward {weights}", f"β {trace.beta:g}"]
    if trace.method == "grpo":
        kept += [f"loss {trace.loss_type}", f"divided by std: {trace.scale}"]
    return " · ".join(kept)


def _stats(trace: GroupTrace) -> str:
    groups = [group for step in trace.steps for group in step.groups]
    if not groups:
        return ""
    silent = sum(trace.silent(group) for group in groups)
    first, last = (_mean(trace, step) for step in (trace.steps[0], trace.steps[-1]))
    return (
        '<div class="ft-stat">'
        + stat(str(len(groups)), f"groups of {trace.group_size} answers recorded")
        + stat(f"{silent / len(groups):.0%}", "of them without signal")
        + stat(f"{_number(first)} → {_number(last)}", "mean reward, first and last recorded step")
        + "</div>"
    )


def _mean(trace: GroupTrace, step: GroupStep) -> float:
    return fmean(trace.reward(answer) for group in step.groups for answer in group.answers)


def _step(trace: GroupTrace, step: GroupStep, scale: Scale, *, unfolded: bool) -> str:
    silent = sum(trace.silent(group) for group in step.groups)
    head = (
        f"step {step.step} · mean reward {_number(_mean(trace, step))} · {silent} of "
        f"{len(step.groups)} groups without signal"
    )
    if step.sampled > len(step.groups):
        head += f" ({step.sampled} were sampled)"
    groups = "".join(_group(trace, group, scale) for group in step.groups)
    return f"<details{' open' if unfolded else ''}><summary>{head}</summary>{groups}</details>"


def _group(trace: GroupTrace, group: Group, scale: Scale) -> str:
    rewards = [trace.reward(answer) for answer in group.answers]
    silent = trace.silent(group)
    chip = (
        f'<span class="chip">✗ no signal: every reward is {_number(rewards[0])}</span>'
        if silent
        else f"<small>mean {_number(fmean(rewards))}, spread {_number(pstdev(rewards))}</small>"
    )
    answers = "".join(_answer(answer, trace.reward(answer), scale) for answer in group.answers)
    return (
        f'<div class="group{" silent" if silent else ""}"><h3>{escape(visible(group.prompt))}'
        f'{chip}</h3><div class="ft-scroll"><table>{_HEAD}<tbody>{answers}</tbody></table></div>'
        "</div>"
    )


_HEAD = (
    '<thead class="ft-vh"><tr><th scope="col">advantage</th><th scope="col">reward</th>'
    '<th scope="col">answer</th><th scope="col">tokens</th></tr></thead>'
)


def _answer(answer: Answer, reward: float, scale: Scale) -> str:
    text = visible(answer.text[:_LONGEST]) + ("…" if len(answer.text) > _LONGEST else "")
    shown = escape(text) if text else "<i>(empty)</i>"
    parts = ", ".join(f"{name} {_number(score)}" for name, score in answer.rewards.items())
    cut = "" if answer.ended else ' <span class="cut" title="cut at the limit">✂ cut</span>'
    return (
        f'<tr><td class="{_sign(answer.advantage)}">{_mark(answer.advantage)} '
        f"{_signed(answer.advantage)}</td>"
        f'<td class="bar" title="{escape(parts)}">{_bar(reward, *scale)}</td>'
        f"<td>{shown}</td><td>{answer.tokens} tok{cut}</td></tr>"
    )


def _bar(reward: float, low: float, high: float) -> str:
    """A bar from 0."""
    span = (high - low) or 1.0
    left, wide = (min(reward, 0.0) - low) / span, abs(reward) / span
    return f'<i><b style="left:{left:.1%};width:{wide:.1%}"></b></i><span>{_number(reward)}</span>'


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−") if abs(value) > 5e-3 else "0.00"


def _mark(advantage: float) -> str:
    return "▲" if advantage > 5e-3 else "▼" if advantage < -5e-3 else "●"


def _sign(advantage: float) -> str:
    return "up" if advantage > 5e-3 else "down" if advantage < -5e-3 else "flat"
