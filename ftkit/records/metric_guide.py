"""The metric guide: what each logged key means, its unit, its healthy band and when to worry.

`METRICS` is the dictionary, read from ``metric_guide.toml`` beside this module; `explain` looks a
key up. It covers every key that TRL's SFT, Reward, DPO, GRPO and RLOO trainers and transformers'
Trainer log. Bands are guidance, not verdicts; they are wide on purpose. Left out: any opinion on
keys that it does not know.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from math import inf, isfinite
from statistics import median
from types import MappingProxyType
from typing import Any, Literal, get_args

from ftkit.findings import Finding

Method = Literal["", "sft", "reward", "dpo", "grpo", "rloo", "ppo"]
METHODS: tuple[Method, ...] = get_args(Method)
Group = Literal["loss", "signal", "policy", "samples", "optimizer", "books", "other"]
GROUPS: dict[Group, str] = {
    "loss": "loss",
    "signal": "learning signal",
    "policy": "policy",
    "samples": "what it writes",
    "optimizer": "optimizer",
    "other": "your own",
    "books": "bookkeeping",
}
"""Every group with its name for readers, in display order."""

JUDGED_FROM = 3
"""Points that a metric needs before its band is applied; the median of as many is judged."""

_NAN_FIX = (
    "Once NaN reaches the weights it stays: start again from the last good checkpoint with a lower "
    "learning rate. With fp16 a few such steps at the start are normal, the loss scaler skips them."
)
Band = tuple[float, float]
_BANDS = ("healthy", "stop", "from_start")
_WITH_DATASET = "loss|runtime|samples_per_second|steps_per_second|model_preparation_time"


@dataclass(frozen=True, slots=True)
class Metric:
    """What is known of one logged key.

    Attributes:
        key: The key as it stands in `METRICS`; ``{…}`` stands for any text.
        group: Where it belongs in the picture.
        unit: Unit of the values.
        meaning: One line that says what is measured, over what.
        expect: What a good run looks like, in a few words.
        healthy: Band ``(low, high)``, inclusive, for the values; None when none holds in general.
        stop: Wider band around `healthy`; outside it, going on is a waste.
        from_start: Healthy band as multiples of where the curve began, for metrics whose size
            depends on the task; see `grounded`.
        look: "Look here": what a value outside `healthy` tells, and what to do.
        halt: "Stop": when to end the run, and what to do.
        gaps: Why missing values can be normal here; empty where NaN means stop.
        minor: Whether the metric may be folded away while it is in its band.
    """

    key: str
    group: Group
    unit: str
    meaning: str
    expect: str = ""
    healthy: Band | None = None
    stop: Band | None = None
    from_start: Band | None = None
    look: str = ""
    halt: str = ""
    gaps: str = ""
    minor: bool = False

    def grounded(self, values: Sequence[float]) -> "Metric":
        """Return the metric with the healthy band that holds for one curve.

        Where the guide knows a band only as multiples of the start, the start is the median of
        the first three finite values. Before there are three, or at 0, there is no band.
        """
        first = [v for v in values if isfinite(v)][:JUDGED_FROM]
        if self.from_start is None or len(first) < JUDGED_FROM or median(first) <= 0:
            return self
        low, high = (factor * median(first) for factor in self.from_start)
        return replace(self, healthy=(low, high), from_start=None)

    def judge(self, values: Sequence[float], *, name: str = "") -> Finding | None:
        """Return what to tell about a curve, None when there is nothing to tell.

        The band is held against the median of the last three finite values, so that one noisy
        batch does not raise an alarm, and not before there are three. NaN is told at once.

        Args:
            values: The curve in order of steps.
            name: The key as logged, e.g. ``"eval_loss"``; `key` when empty.
        """
        name = name or self.key
        gap = self._gap(values, name)
        if gap and gap.severity == "error":
            return gap
        finite = [v for v in values if isfinite(v)]
        if len(finite) < JUDGED_FROM:
            return gap
        return self.grounded(values)._outside(median(finite[-JUDGED_FROM:]), name) or gap

    def _gap(self, values: Sequence[float], name: str) -> Finding | None:
        bad = sum(not isfinite(v) for v in values)
        if not bad:
            return None
        seen = f"Missing, NaN or infinite: {bad} of {len(values)} logged values"
        if self.gaps:
            return Finding(name, "info", f"{seen}.", self.gaps)
        if isfinite(values[-1]):
            return Finding(name, "warning", f"{seen}; the last one is finite again.", _NAN_FIX)
        return Finding(name, "error", f"{seen}, the last one too.", _NAN_FIX)

    def _outside(self, value: float, name: str) -> Finding | None:
        seen = f"Lately {value:.3g} (median of {JUDGED_FROM} logs)"
        if self.healthy is None or _within(value, self.healthy):
            return None
        healthy = band_text(self.healthy)
        if self.stop and not _within(value, self.stop):
            return Finding(name, "error", f"{seen}, far from healthy: {healthy}.", self.halt)
        return Finding(name, "warning", f"{seen}; healthy: {healthy}.", self.look)


def explain(key: str, method: Method = "") -> Metric | None:
    """Return what the guide knows of a logged key, None for a key it does not know.

    Args:
        key: As the trainer logs it, with or without ``eval_``.
        method: Which trainer logged it; the same key can mean different things.

    Example:
        >>> explain("eval_entropy", "grpo").unit
        'nats/token'
    """
    _, base = split_key(key)
    return _lookup(base, method)


def metric_for(key: str, method: Method = "") -> Metric:
    """Return what the guide knows of a logged key, or a plain entry in group ``"other"``."""
    return explain(key, method) or Metric(split_key(key)[1], "other", "", "")


def split_key(key: str) -> tuple[str, str]:
    """Return ``(split, base key)``, e.g. ``("train", "kl")`` and ``("eval", "kl")``.

    With several evaluation sets transformers puts their name between: ``"eval_code_loss"`` is
    ``("eval_code", "loss")``.
    """
    if not key.startswith("eval_"):
        return "train", key
    named = re.fullmatch(rf"(eval_.+)_({_WITH_DATASET})", key)
    return (named[1], named[2]) if named else ("eval", key.removeprefix("eval_"))


def band_text(band: Band) -> str:
    """Return a band in words: ``"0.05 to 4"``, ``"at least 2"``, ``"at most 0.3"``."""
    low, high = band
    if high == inf:
        return f"at least {low:.4g}"
    if 0 < low < 1e-4:
        return f"above 0, at most {high:.4g}"
    return f"at most {high:.4g}" if low == 0 else f"{low:.4g} to {high:.4g}".replace("-", "−")


def _within(value: float, band: Band) -> bool:
    return band[0] <= value <= band[1]


@cache
def _lookup(base: str, method: Method) -> Metric | None:
    for wanted in (method, ""):
        for name, metric in METRICS.items():
            if name.partition("@")[2] == wanted and _matches(metric.key, base):
                return metric
    return None


def _matches(template: str, key: str) -> bool:
    if "{" not in template:
        return template == key
    pattern = re.sub(r"\\\{\w+\\\}", ".+", re.escape(template))
    return re.fullmatch(pattern, key) is not None


def _read() -> Mapping[str, Metric]:
    text = (files("ftkit.records") / "metric_guide.toml").read_text(encoding="utf-8")
    return MappingProxyType({k: _metric(k, v) for k, v in tomllib.loads(text).items()})


def _metric(name: str, entry: dict[str, Any]) -> Metric:
    bands = {k: (float(v[0]), float(v[1])) for k, v in entry.items() if k in _BANDS}
    return Metric(key=name.partition("@")[0], **{**entry, **bands})


METRICS: Mapping[str, Metric] = _read()
"""Key (``"kl"``), or key of one trainer (``"kl@rloo"``), to what it means."""
