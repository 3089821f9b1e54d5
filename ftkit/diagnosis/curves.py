"""What a run's logged numbers say went wrong: while it trains, or from its history afterwards.

The metric guide judges each curve alone. Here are the verdicts that need two curves (reward up
while something else collapses), and the ones that are plain faults (NaN, loss 0, no gradient).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import inf, isfinite
from statistics import fmean, median

from ftkit.findings import Finding
from ftkit.records import RunHistory, explain

JUDGED_FROM = 3
TREND_FROM = 9
"""Points that a trend needs: the first and the last third are compared."""

_LOSSES = ("loss", "loss/policy_avg", "loss/value_avg", "grad_norm", "policy/grad_norm")
_REINFORCED = ("objective/kl", "frac_reward_zero_std", "reward", "objective/scores")
_REWARDS = ("objective/scores", "reward")
_LENGTHS = ("objective/length", "completions/mean_length")
_DIVERSITY = ("objective/distinct", "objective/entropy", "policy/entropy_avg", "entropy")
_KLS = {"objective/kl": -1.0, "kl": -0.05}
"""KL to the reference, and how negative noise alone can make it (nats a sequence, nats a token)."""
_COLLAPSED, _GROWN = 0.5, 2.0
_ZERO_GROUPS = 0.8

Curves = Mapping[str, list[tuple[int, float]]]


def judge(history: RunHistory, *, gold: str | None = None) -> list[Finding]:
    """Return what went wrong so far, nothing for a healthy run.

    Args:
        history: What was logged.
        gold: Key of a score that the run is not trained on; None takes the first whose name says
            ``gold``.
    """
    curves = history.curves()
    return [
        *_broken(curves),
        *_zero_loss(curves),
        *_no_gradient(curves),
        *_kl(curves),
        *_alike(curves),
        *_hacked(curves, gold or _gold(curves)),
        *_chosen_falls(curves),
    ]


# --- plain faults ------------------------------------------------------------------------------


def _broken(curves: Curves) -> Iterator[Finding]:
    for key in (*_LOSSES, *_REWARDS, *_KLS):
        points = curves.get(key, [])
        bad = [step for step, value in points if not isfinite(value)]
        if bad and not isfinite(points[-1][1]):
            yield Finding(
                "loss-nan",
                "error",
                f"{key} is NaN or infinite from step {bad[0]} on ({len(bad)} of {len(points)} "
                "logs)",
                "stop: once in the weights it stays. Go back to the last good checkpoint with a "
                "lower learning rate; with fp16, use bf16 or float32",
                f"step {bad[0]}",
            )
            return


def _zero_loss(curves: Curves) -> Iterator[Finding]:
    """A policy loss of 0 is normal; a cross entropy of 0 means that no token carries loss."""
    if any(key in curves for key in _REINFORCED):
        return
    last = curves.get("loss", [])[-2:]
    if len(last) == 2 and all(value == 0 for _, value in last):
        yield Finding(
            "loss-zero",
            "error",
            f"the loss is exactly 0 at steps {_steps(last)}: no token carries loss",
            "stop, and look at the labels: ftkit.doctor(trainer)",
            f"step {last[0][0]}",
        )


def _no_gradient(curves: Curves) -> Iterator[Finding]:
    for key in ("grad_norm", "policy/grad_norm"):
        last = curves.get(key, [])[-JUDGED_FROM:]
        groups = [v for _, v in curves.get("frac_reward_zero_std", [])[-JUDGED_FROM:]]
        explained = bool(groups) and min(groups) == 1  # told as groups of equal rewards
        if len(last) >= JUDGED_FROM and all(value == 0 for _, value in last) and not explained:
            yield Finding(
                "no-gradient",
                "error",
                f"{key} is exactly 0 at steps {_steps(last)}: nothing is learned",
                "is the adapter trainable, and is the loss connected to it? With gradient "
                "checkpointing, call model.enable_input_require_grads()",
                f"step {last[0][0]}",
            )


def _kl(curves: Curves) -> Iterator[Finding]:
    for key, noise in _KLS.items():
        values = [v for _, v in curves.get(key, []) if isfinite(v)]
        if len(values) < JUDGED_FROM:
            continue
        now, where = median(values[-JUDGED_FROM:]), f"step {curves[key][-1][0]}"
        seen = f"{key} is {now:.3g} (median of {JUDGED_FROM} logs)".replace("-", "−")
        guide = explain(key, "ppo" if key == "objective/kl" else "grpo")
        limit = guide.stop[1] if guide and guide.stop else inf
        if now < noise:
            yield Finding(
                "kl-negative",
                "error",
                f"{seen}: a KL divergence is never below 0",
                "sample with the distribution that is scored: temperature alone, no top-k, no "
                "minimal length, no dropout, the same adapter on both sides",
                where,
            )
        elif now > limit:
            yield Finding(
                "kl-exploding",
                "error",
                f"{seen}, past {limit:g}: the policy has left the language of its reference",
                "stop, go back to a checkpoint, and raise the KL coefficient or lower the learning "
                "rate",
                where,
            )


def _alike(curves: Curves) -> Iterator[Finding]:
    values = [v for _, v in curves.get("frac_reward_zero_std", []) if isfinite(v)]
    if len(values) < JUDGED_FROM:
        return
    now = median(values[-JUDGED_FROM:])
    if now >= _ZERO_GROUPS:
        yield Finding(
            "zero-variance-groups",
            "warning",
            f"in {now:.0%} of the groups all completions get the same reward: their advantages are "
            "0, and the loss with them",
            "take prompts that are neither solved always nor never, a finer reward, larger groups, "
            "or a higher temperature",
        )


# --- two curves that tell a story -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Trend:
    """The means of the first and the last third of a curve."""

    first: float
    last: float
    noise: float

    @property
    def rises(self) -> bool:
        return self.last - self.first > 2 * self.noise

    @property
    def falls(self) -> bool:
        return self.first - self.last > 2 * self.noise

    @property
    def ratio(self) -> float:
        return self.last / self.first if self.first > 0 else 1.0

    def __str__(self) -> str:
        return f"{self.first:.3g} → {self.last:.3g}".replace("-", "−")


def _trend(curves: Curves, key: str | None) -> _Trend | None:
    values = [v for _, v in curves.get(key or "", []) if isfinite(v)]
    third = len(values) // 3
    if len(values) < TREND_FROM:
        return None
    first, last = values[:third], values[-third:]
    # Of a steady climb, the distance to the neighbour is the noise; the spread would be the climb.
    steps = [abs(b - a) for a, b in pairwise(values)]
    return _Trend(fmean(first), fmean(last), fmean(steps) / third**0.5)


def _gold(curves: Curves) -> str | None:
    return next((key for key in curves if "gold" in key and not key.endswith("/std")), None)


def _hacked(curves: Curves, gold: str | None) -> Iterator[Finding]:
    key = next((k for k in _REWARDS if k in curves), None)
    reward = _trend(curves, key)
    if reward is None or not reward.rises:
        return
    for what, trend in _collapses(curves, gold):
        yield Finding(
            "reward-hacking",
            "warning",
            f"{key} rises ({reward}) while {what} ({trend}): the policy may have found what the "
            "reward likes and nobody wants",
            "read samples before going on; stop at the best gold score, raise the KL coefficient, "
            "or repair the reward",
        )
        return


def _collapses(curves: Curves, gold: str | None) -> Iterator[tuple[str, _Trend]]:
    scored = _trend(curves, gold)
    if scored and scored.falls:
        yield f"the gold score {gold} falls", scored
    for key in _LENGTHS:
        length = _trend(curves, key)
        if length and not _COLLAPSED < length.ratio < _GROWN:
            yield f"{key} {'collapses' if length.ratio < 1 else 'explodes'}", length
    for key in _DIVERSITY:
        spread = _trend(curves, key)
        if spread and spread.ratio <= _COLLAPSED:
            yield f"{key} collapses", spread


def _chosen_falls(curves: Curves) -> Iterator[Finding]:
    chosen, margin = _trend(curves, "rewards/chosen"), _trend(curves, "rewards/margins")
    if chosen and margin and chosen.falls and chosen.last < 0 and margin.rises:
        yield Finding(
            "chosen-falls",
            "info",
            f"the margin grows ({margin}) while the reward of the chosen answers itself falls "
            f"({chosen}): both answers become less likely, the rejected one faster",
            "common for DPO after SFT; read samples. If they get worse: smaller learning rate, "
            "larger β, or an SFT term (loss_type=['sigmoid', 'sft'])",
        )


def _steps(points: list[tuple[int, float]]) -> str:
    return ", ".join(str(step) for step, _ in points)
