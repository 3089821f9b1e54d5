"""The arithmetic of a PPO iteration written out in numbers, each held against the record.

Only δ and Â′ (whitened) are computed here, to be written out; each result stands beside the
recorded number. Part of the stepper's still picture (`ftkit.views.ppo_stepper`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from ftkit.records.ppo_trace import PPOIteration, PPOTraceConfig, PPOUpdate
from ftkit.views.plot import number

TOLERANCE = 2e-4
_FIRST_RATIO = 0.02


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


def total_loss(update: PPOUpdate, config: PPOTraceConfig) -> float:
    """Return what the optimizer lowered: policy loss + c·value loss − c_H·entropy."""
    return (
        update.policy_loss
        + config.value_coef * update.value_loss
        - config.entropy_coef * update.entropy
    )


def signed(value: float, digits: int = 3) -> str:
    """Return ``+0.313`` or ``−0.005``; NaN and infinities by name."""
    if not isfinite(value):
        return number(value)
    shown = f"{value:+.{digits}f}"
    return f"{0:+.{digits}f}" if float(shown) == 0 else shown.replace("-", "−")


def step_html(step: GAEStep, config: PPOTraceConfig) -> str:
    """Return one step as a line."""
    return f'<p class="ft-arith ft-tally">{_formulas(step, config)}</p>'


def steps_html(steps: Sequence[GAEStep], config: PPOTraceConfig) -> str:
    """Return all steps as a closed list."""
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
        f"<b>{signed(step.advantage, 4)}</b>{_verdict(step.agrees, step.recorded)}"
    )
    return f"<span>{delta}</span><span>{advantage}</span>"


def _verdict(agrees: bool, recorded: float) -> str:
    if agrees:
        return f'<span class="ft-agree">✓ recorded {signed(recorded, 4)}</span>'
    return f'<span class="ft-agree off">✗ recorded {signed(recorded, 4)}: they differ</span>'


def whitening_html(iteration: PPOIteration, row: int) -> str:
    """Return Â′ of the first token written out, empty where nothing was whitened."""
    white, mean, std = (
        iteration.whitened_advantages,
        iteration.advantage_mean,
        iteration.advantage_std,
    )
    if white is None or mean is None or std is None:
        return ""
    advantage, recorded = float(iteration.advantages[row, 0]), float(white[row, 0])
    computed = (advantage - mean) / std
    agrees = abs(computed - recorded) <= TOLERANCE * max(1.0, abs(recorded), abs(advantage / std))
    return (
        '<p class="ft-arith ft-tally"><span>Â′<sub>0</sub> = (Â<sub>0</sub> − mean) / deviation = '
        f"({_plain(advantage)} − {_inner(mean)}) / {_plain(std)} = <b>{signed(computed, 4)}</b>"
        f"{_verdict(agrees, recorded)}</span></p>"
    )


def first_ratios_html(iteration: PPOIteration) -> str:
    """Return a warning where ratios were off 1 before anything was trained."""
    if not iteration.updates:
        return ""
    ratios = iteration.updates[0].ratio
    real = ratios[iteration.mask[list(iteration.updates[0].rows)]]
    if not real.size or abs(real - 1).max() <= _FIRST_RATIO:
        return ""
    return (
        '<p class="ft-arith"><span class="ft-agree off">✗ ratios of the first minibatch lie '
        f"between {real.min():.3f} and {real.max():.3f}</span>; nothing was trained yet, so all "
        "should be 1: the distribution that sampled is not the one that is scored</p>"
    )


def _plain(value: float) -> str:
    return signed(value, 4).removeprefix("+")


def _inner(value: float) -> str:
    """A number after an operator: negative ones in brackets."""
    shown = _plain(value)
    return f"({shown})" if shown.startswith("−") else shown


def _exact(value: float) -> str:
    """As `_inner`; the 0 after the last token is exact, not rounded."""
    return "0" if value == 0 else _inner(value)
