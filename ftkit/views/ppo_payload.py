"""A PPO trace as one compact JSON text, all that the browser needs to step through it.

Numbers are rounded to 6 significant digits. Left out: prompt ids (only their number is shown).
"""

import json
from collections.abc import Sequence
from dataclasses import astuple
from math import isfinite
from typing import Any

import numpy as np

from ftkit.records.metric_guide import metric_for
from ftkit.records.ppo_trace import PPOIteration, PPOTrace, PPOUpdate

BUDGET_BYTES = 4_000_000
_FIELDS = {
    "old": "logprobs",
    "ref": "ref_logprobs",
    "new": "new_logprobs",
    "kl": "kl",
    "v": "values",
    "r": "rewards",
    "rw": "whitened_rewards",
    "a": "advantages",
    "aw": "whitened_advantages",
    "ret": "returns",
}


def to_json(trace: PPOTrace, budget: int = BUDGET_BYTES) -> str:
    """Return `trace` as JSON of at most about `budget` bytes.

    A trace that is larger loses iterations at even distances, never the first or the last; the
    key ``left_out`` says how many.
    """
    texts = [dumps(_iteration(iteration)) for iteration in trace.iterations]
    kept = _within(texts, budget)
    config = trace.config
    head = {
        "title": trace.title,
        "say": trace.say,
        "look": trace.look,
        "cure": trace.cure,
        "watch": [[key, *_explained(key)] for key in trace.watch],
        "start": trace.start and list(astuple(trace.start)),
        "gamma": _number(config.gamma),
        "lam": _number(config.lam),
        "eps": _number(config.cliprange),
        "valueCoef": _number(config.value_coef),
        "entropyCoef": _number(config.entropy_coef),
        "temperature": _number(config.temperature),
        "estimator": config.kl_estimator,
        "base": config.base,
        "reward": config.reward,
        "reference": config.reference,
        "left_out": len(texts) - len(kept),
    }
    return f'{dumps(head)[:-1]},"iterations":[{",".join(kept)}]}}'


def dumps(value: Any) -> str:
    """Return `value` as compact JSON in ASCII."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _within(texts: Sequence[str], budget: int) -> list[str]:
    size = sum(map(len, texts))
    if size <= budget or len(texts) <= 2:
        return list(texts)
    count = max(2, len(texts) * budget // size)
    places = np.unique(np.linspace(0, len(texts) - 1, count).round().astype(int))
    return [texts[i] for i in places]


def _explained(key: str) -> tuple[str, str]:
    metric = metric_for(key, "ppo")
    return metric.unit, metric.meaning


def _iteration(iteration: PPOIteration) -> dict[str, Any]:
    return {
        "n": iteration.number,
        "beta": _number(iteration.kl_coef),
        "mean": _number(iteration.advantage_mean),
        "std": _number(iteration.advantage_std),
        "metrics": {name: _number(value) for name, value in iteration.metrics.items()},
        "rows": [_row(iteration, row) for row in range(len(iteration.tokens))],
        "updates": [_update(update, iteration.lengths) for update in iteration.updates],
    }


def _row(iteration: PPOIteration, row: int) -> dict[str, Any]:
    length = iteration.lengths[row]
    arrays = {key: getattr(iteration, name) for key, name in _FIELDS.items()}
    return {
        "prompt": iteration.prompts[row],
        "size": len(iteration.prompt_ids[row]),
        "tokens": iteration.tokens[row],
        "ids": iteration.token_ids[row, :length].tolist(),
        "score": _number(iteration.scores[row]),
        "paid": _number(iteration.paid[row]),
        **{k: _numbers(a[row, :length]) for k, a in arrays.items() if a is not None},
    }


def _update(update: PPOUpdate, lengths: Sequence[int]) -> dict[str, Any]:
    real = [(i, row, lengths[row]) for i, row in enumerate(update.rows)]
    return {
        "e": update.epoch,
        "m": update.minibatch,
        "policy": _number(update.policy_loss),
        "value": _number(update.value_loss),
        "entropy": _number(update.entropy),
        "cut": _number(update.clip_fraction),
        "kl": _number(update.approx_kl),
        "ratio": {row: _numbers(update.ratio[i, :n]) for i, row, n in real},
        "clipped": {
            row: "".join("01"[int(c)] for c in update.clipped[i, :n]) for i, row, n in real
        },
    }


def _numbers(values: np.ndarray) -> list[float | str | None]:
    return [_number(value) for value in values]


def _number(value: float | None) -> float | str | None:
    """Rounded; NaN and infinities as the text from which JavaScript's `Number` makes them again."""
    if value is None:
        return None
    number = float(value)
    if isfinite(number):
        return float(f"{number:.6g}")
    return "NaN" if number != number else "Infinity" if number > 0 else "-Infinity"
