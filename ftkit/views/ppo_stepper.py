"""A PPO trace as one still picture: the GAE of one answer, with the arithmetic of every step.

No script is needed to read it. The interactive form is `ftkit.widgets.PPOStepper`; both draw the
same recorded numbers with the same style sheet. δ is the only number computed here, since the
recursion needs it written out; each result is held against the recorded advantage.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite

from ftkit.records.ppo_trace import PHASES, Phase, PPOIteration, PPOTrace, PPOTraceConfig
from ftkit.views._registry import to_html
from ftkit.views.plot import number
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
TOLERANCE = 2e-4
_BAR_PX = 30
_UPDATE_COLUMNS = (
    "epoch",
    "minibatch",
    "policy loss",
    "value loss",
    "entropy",
    "clip fraction",
    "approx. KL",
)
_SAY = (
    "GAE runs backwards: each advantage is this token's surprise plus a discounted share of the "
    "next one's. Advantage plus value is the return, what the critic should have said."
)


@dataclass(frozen=True, slots=True)
class GAEStep:
    """One step of the recursion at token `t`, with the numbers that enter it.

    Attributes:
        t: Token, from 0.
        last: Whether nothing follows it.
        reward: What GAE saw.
        value: Of the state before the token.
        next_value: Of the next one; 0 after the last token.
        next_advantage: Recorded; 0 after the last token.
        delta: r + γ·V' − V.
        advantage: δ + γλ·Â'.
        recorded: The advantage that the trainer used.
    """

    t: int
    last: bool
    reward: float
    value: float
    next_value: float
    next_advantage: float
    delta: float
    advantage: float
    recorded: float

    @property
    def agrees(self) -> bool:
        """Whether the recorded advantage is the computed one, up to float32."""
        scale = max(1.0, abs(self.recorded), abs(self.delta))
        return abs(self.advantage - self.recorded) <= TOLERANCE * scale


def gae_steps(iteration: PPOIteration, row: int, config: PPOTraceConfig) -> list[GAEStep]:
    """Return the steps of one answer in the order in which they run: from the last token back."""
    length = iteration.lengths[row]
    rewards = iteration.gae_rewards[row, :length].tolist()
    values = [*iteration.values[row, :length].tolist(), 0.0]
    advantages = [*iteration.advantages[row, :length].tolist(), 0.0]
    steps = []
    for t in range(length - 1, -1, -1):
        delta = rewards[t] + config.gamma * values[t + 1] - values[t]
        advantage = delta + config.gamma * config.lam * advantages[t + 1]
        step = GAEStep(
            t,
            t == length - 1,
            rewards[t],
            values[t],
            values[t + 1],
            advantages[t + 1],
            delta,
            advantage,
            advantages[t],
        )
        steps.append(step)
    return steps


@to_html.register
def ppo_trace_html(record: PPOTrace) -> str:
    """Return the picture of the trace's start, or of its latest iteration."""
    if not record.iterations:
        return css() + card("PPO stepper", "", say="Nothing is recorded yet: run the trainer.")
    if record.start:
        return stepper_html(record, record.start.iteration, record.start.row)
    return stepper_html(record, record.iterations[-1].number)


def stepper_html(trace: PPOTrace, iteration: int, row: int = 0) -> str:
    """Return one answer's GAE as a card.

    Args:
        trace: The record.
        iteration: Its number.
        row: Which recorded answer, from 0.

    Raises:
        ValueError: no such iteration or row.
    """
    found = trace.at(iteration)
    if not 0 <= row < len(found.tokens):
        raise ValueError(f"iteration {iteration} has rows 0 to {len(found.tokens) - 1}")
    steps = gae_steps(found, row, trace.config)
    body = "".join(
        (
            _phases(),
            roles_html(trace.config),
            _prompt(found, row),
            _stats(found, row),
            _token_table(found, row),
            _sum(steps[0], trace.config),
            _all_sums(steps, trace.config),
            _updates(found),
            _metrics(found),
        )
    )
    aside = (
        f"<span>iteration <b>{found.number}</b> of {trace.iterations[-1].number}</span>"
        f"<span>sample <b>#{row}</b></span>"
    )
    title = f"PPO stepper: {trace.title}" if trace.title else "PPO stepper"
    say = f"{trace.say} {_SAY}" if trace.say else _SAY
    return css("ppo_stepper") + card(title, body, aside=aside, say=say)


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


def signed(value: float, digits: int = 3) -> str:
    """Return ``+0.313`` or ``−0.005``; NaN and infinities by name."""
    if not isfinite(value):
        return number(value)
    shown = f"{value:+.{digits}f}"
    return f"{0:+.{digits}f}" if float(shown) == 0 else shown.replace("-", "−")


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


def _sum(step: GAEStep, config: PPOTraceConfig) -> str:
    return f'<p class="ft-arith ft-tally">{_formulas(step, config)}</p>'


def _all_sums(steps: Sequence[GAEStep], config: PPOTraceConfig) -> str:
    items = "".join(
        f'<li value="{s.t}"><p class="ft-tally ft-arith">{_formulas(s, config)}</p></li>'
        for s in steps
    )
    return (
        '<details class="ft-more"><summary>the arithmetic of every token, from the last to the '
        f"first ({len(steps)})</summary><ol>{items}</ol></details>"
    )


def _formulas(step: GAEStep, config: PPOTraceConfig) -> str:
    """Return δ_t and Â_t written out, and whether the record agrees."""
    t = step.t
    following = "0" if step.last else f"V<sub>{t + 1}</sub>"
    later = "0" if step.last else f"Â<sub>{t + 1}</sub>"
    delta = (
        f"δ<sub>{t}</sub> = r<sub>{t}</sub> + γ·{following} − V<sub>{t}</sub> = "
        f"{_plain(step.reward)} + {config.gamma:.4g}·{_exact(step.next_value)} − "
        f"{_inner(step.value)} = <b>{signed(step.delta, 4)}</b>"
    )
    advantage = (
        f"Â<sub>{t}</sub> = δ<sub>{t}</sub> + γλ·{later} = {_plain(step.delta)} + "
        f"{config.gamma * config.lam:.4g}·{_exact(step.next_advantage)} = "
        f"<b>{signed(step.advantage, 4)}</b>{_verdict(step)}"
    )
    return f"<span>{delta}</span><span>{advantage}</span>"


def _verdict(step: GAEStep) -> str:
    if step.agrees:
        return f'<span class="ft-agree">✓ recorded {signed(step.recorded, 4)}</span>'
    return f'<span class="ft-agree off">✗ recorded {signed(step.recorded, 4)}</span>'


def _plain(value: float) -> str:
    return signed(value, 4).removeprefix("+")


def _inner(value: float) -> str:
    """A number after an operator: negative ones in brackets."""
    shown = _plain(value)
    return f"({shown})" if shown.startswith("−") else shown


def _exact(value: float) -> str:
    """As `_inner`; the 0 after the last token is exact, not rounded."""
    return "0" if value == 0 else _inner(value)


def _updates(iteration: PPOIteration) -> str:
    if not iteration.updates:
        return ""
    rows = [
        (u.epoch, u.minibatch, u.policy_loss, u.value_loss, u.entropy, u.clip_fraction, u.approx_kl)
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
