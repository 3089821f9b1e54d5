"""A PPO trace as one still picture: the GAE of one answer, with the arithmetic of every step.

No script is needed to read it. The interactive form is `ftkit.widgets.PPOStepper`; both draw the
same recorded numbers with the same style sheet. The arithmetic is `ftkit.views.ppo_arithmetic`,
what the whole run tells `ftkit.views.ppo_run`.
"""

from collections.abc import Iterable, Sequence
from html import escape
from math import isfinite

from ftkit.records.ppo_trace import PHASES, Phase, PPOIteration, PPOTrace, PPOTraceConfig
from ftkit.views._registry import to_html
from ftkit.views.plot import number
from ftkit.views.ppo_arithmetic import (
    first_ratios_html,
    gae_steps,
    signed,
    step_html,
    steps_html,
    total_loss,
    whitening_html,
)
from ftkit.views.ppo_run import others_html, sparks_html, story_html
from ftkit.views.style import card, css, stat
from ftkit.views.table import rows_html
from ftkit.views.text import visible

TITLES: dict[Phase, str] = {
    "rollout": "Rollout",
    "score": "Score",
    "kl": "KL → reward",
    "values": "Values",
    "gae": "GAE",
    "update": "Update",
}
_BAR_PX = 30
_UPDATE_COLUMNS = (
    "epoch",
    "minibatch",
    "policy loss",
    "value loss",
    "total loss",
    "entropy",
    "clip fraction",
    "approx. KL",
)
_SAY = (
    "GAE runs backwards: each advantage is this token's surprise plus a discounted share of the "
    "next one's. Advantage plus value is the return, what the critic should have said."
)


@to_html.register
def ppo_trace_html(record: PPOTrace) -> str:
    """Return the picture of the trace's start, or of its latest iteration."""
    if not record.iterations:
        return css() + card("PPO stepper", "", say="Nothing is recorded yet: run the trainer.")
    if record.start:
        return stepper_html(record, record.start.iteration, record.start.row)
    return stepper_html(record, record.iterations[-1].number)


def stepper_html(
    trace: PPOTrace, iteration: int, row: int = 0, others: Iterable[PPOTrace] = ()
) -> str:
    """Return one answer's GAE as a card.

    Args:
        trace: The record.
        iteration: Its number.
        row: Which recorded answer, from 0.
        others: Recorded runs that are told below, each closed.

    Raises:
        ValueError: no such iteration or row.
    """
    found = trace.at(iteration)
    if not 0 <= row < len(found.tokens):
        raise ValueError(f"iteration {iteration} has rows 0 to {len(found.tokens) - 1}")
    steps = gae_steps(found, row, trace.config)
    body = "".join(
        (
            story_html(trace),
            sparks_html(trace, iteration),
            _phases(),
            roles_html(trace.config),
            _prompt(found, row),
            _stats(found, row),
            _token_table(found, row),
            step_html(steps[0], trace.config),
            whitening_html(found, row),
            first_ratios_html(found),
            steps_html(steps, trace.config),
            _updates(found, trace.config),
            _metrics(found),
            others_html(others),
        )
    )
    aside = (
        f"<span>iteration <b>{found.number}</b> of {trace.iterations[-1].number}</span>"
        f"<span>sample <b>#{row}</b></span>"
    )
    title = f"PPO stepper: {trace.title}" if trace.title else "PPO stepper"
    return css("ppo_stepper") + card(title, body, aside=aside, say=_SAY)


def roles_html(config: PPOTraceConfig) -> str:
    """Return the four roles over their base, as GAE uses them."""
    roles = (
        ("Actor", "policy adapter · LM head", ""),
        ("Critic", "policy adapter · value head", "recorded"),
        ("Reward", config.reward, "recorded"),
        ("Reference", config.reference, ""),
    )
    boxes = "".join(
        f'<div class="ft-role {state}"><b>{name}</b><small>{escape(what)}</small>'
        f"{'<em>its numbers</em>' if state else ''}</div>"
        for name, what, state in roles
    )
    base = f'<div class="ft-base">{escape(config.base)}</div>'
    return f'<div class="ft-frame"><div class="ft-roles">{boxes}{base}</div></div>'


def token(text: str) -> str:
    """Return a token in one visible line: ``·`` for a space, ``⏎``, ``▫`` for no text."""
    return visible(text).replace(" ", "·") or "▫"


def _phases() -> str:
    at = PHASES.index("gae")
    items = "".join(
        f'<li class="{"done" if i < at else "here" if i == at else ""}">'
        f'<span class="p"{" aria-current=step" if i == at else ""}><b>{i + 1}</b>'
        f"{TITLES[phase]}</span></li>"
        for i, phase in enumerate(PHASES)
    )
    return f'<ol class="ft-phases">{items}</ol>'


def _prompt(iteration: PPOIteration, row: int) -> str:
    size = len(iteration.prompt_ids[row])
    return (
        f'<p class="ft-prompt">prompt, {size} tokens: '
        f"<code>{escape(visible(iteration.prompts[row]))}</code></p>"
    )


def _stats(iteration: PPOIteration, row: int) -> str:
    length = iteration.lengths[row]
    numbers = (
        stat(str(length), "tokens in the answer"),
        stat(signed(float(iteration.scores[row])), "score"),
        stat(signed(float(iteration.kl[row, :length].sum())), "nats from the reference"),
        stat(number(iteration.kl_coef), "β, score a nat"),
    )
    return f'<div class="ft-stat">{"".join(numbers)}</div>'


def _token_table(iteration: PPOIteration, row: int) -> str:
    length = iteration.lengths[row]
    lines = [
        ("log π<sub>old</sub>", iteration.logprobs),
        ("log π<sub>ref</sub>", iteration.ref_logprobs),
        ("KL", iteration.kl),
        ("reward r", iteration.rewards),
        ("reward r, whitened", iteration.whitened_rewards),
        ("value V", iteration.values),
    ]
    body = [_line(name, a[row, :length].tolist()) for name, a in lines if a is not None]
    body.append(_bars(iteration.advantages[row, :length].tolist()))
    if iteration.whitened_advantages is not None:
        white = iteration.whitened_advantages[row, :length].tolist()
        body.append(_line("Â, whitened", white))
    body.append(_line("return R = Â + V", iteration.returns[row, :length].tolist()))
    heads = "".join(
        f'<th scope="col"><span class="no">{t}</span><code>{escape(token(text))}</code></th>'
        for t, text in enumerate(iteration.tokens[row])
    )
    return (
        '<div class="ft-scroll"><table class="ft-trace"><thead><tr><th scope="col">token</th>'
        f"{heads}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _line(name: str, values: Sequence[float]) -> str:
    cells = "".join(f"<td>{signed(value)}</td>" for value in values)
    return f'<tr><th scope="row">{name}</th>{cells}</tr>'


def _bars(values: Sequence[float]) -> str:
    scale = _BAR_PX / max([1e-9, *(abs(v) for v in values if isfinite(v))])
    up, down = (scale * max([0.0, *(s * v for v in values if isfinite(v))]) for s in (1, -1))
    cells = "".join(f"<td>{_bar(v, scale)}{signed(v)}</td>" for v in values)
    return (
        f'<tr class="bars" style="--up:{up:.0f}px;--dn:{down:.0f}px">'
        f'<th scope="row">advantage Â<br><small>← filled from the right</small></th>{cells}</tr>'
    )


def _bar(value: float, scale: float) -> str:
    size = f"{abs(value) * scale:.0f}" if isfinite(value) else "0"
    side = "up" if value > 0 else "down"
    return f'<div class="ft-adv"><i class="{side}" style="height:{size}px"></i></div>'


def _updates(iteration: PPOIteration, config: PPOTraceConfig) -> str:
    if not iteration.updates:
        return ""
    rows = [
        (
            *(u.epoch, u.minibatch, u.policy_loss, u.value_loss, total_loss(u, config)),
            *(u.entropy, u.clip_fraction, u.approx_kl),
        )
        for u in iteration.updates
    ]
    return _more(f"the {len(rows)} updates that followed", rows_html(_UPDATE_COLUMNS, rows))


def _metrics(iteration: PPOIteration) -> str:
    if not iteration.metrics:
        return ""
    table = rows_html(("metric", "value"), sorted(iteration.metrics.items()))
    return _more(f"all metrics of iteration {iteration.number}", table)


def _more(summary: str, body: str) -> str:
    return f'<details class="ft-more"><summary>{escape(summary)}</summary>{body}</details>'
