"""Ways to fine-tune on a narrow domain, from doing nothing to training every weight.

A strategy is data: what is trained, and what pulls back to the start. The parts combine (LoRA with
replay, the last layers with a KL anchor), so there is one class and no hierarchy.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal, get_args

from ftkit.errors import SettingsError
from ftkit.records.forgetting import Family

Trains = Literal["nothing", "all", "last", "lora"]

FULL_RATE = 1e-4
LORA_RATE = 1e-3
"""Ten times the rate of full fine-tuning, as Schulman et al. 2025 ("LoRA without regret") found."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """One way to train.

    Attributes:
        name: Shown in pictures and tables; results are kept under it.
        trains: ``"nothing"``, ``"all"`` weights, the ``"last"`` decoder layers, or ``"lora"``
            adapters in all linear layers.
        size: LoRA's rank, or how many layers; 0 where neither applies.
        learning_rate: Peak, after warm-up, decaying linearly to 0.
        replay: Rows of general data added to each batch.
        l2: Weight of half the squared distance to the start's weights, L2-SP (Li et al. 2018).
        kl: Weight of KL(start ‖ now) a token on the batch's own text, in nats: learning without
            forgetting (Li and Hoiem 2016) for a language model.

    Raises:
        ValueError: a rank or a number of layers below 1, a rate that is not positive, a negative
            weight, or parts that do not fit together.
    """

    name: str
    trains: Trains = "all"
    size: int = 0
    learning_rate: float = FULL_RATE
    replay: int = 0
    l2: float = 0.0
    kl: float = 0.0

    def __post_init__(self) -> None:
        if self.trains not in get_args(Trains):
            raise self._error(f"trains={self.trains!r} is unknown; use {_any_of(get_args(Trains))}")
        if self.trains in ("lora", "last") and self.size < 1:
            what = "rank" if self.trains == "lora" else "number of layers"
            raise self._error(f"the {what} is {self.size}; it must be at least 1")
        if self.trains in ("all", "nothing") and self.size:
            raise self._error(f"size={self.size} says nothing where {self.trains} is trained")
        for name in ("replay", "l2", "kl"):
            value = getattr(self, name)
            if not (value >= 0 and isfinite(value)):
                raise self._error(f"{name}={value} must be finite and not negative")
        if not (self.learning_rate > 0 and isfinite(self.learning_rate)):
            raise self._error(f"learning_rate={self.learning_rate} must be positive")
        if self.trains == "nothing" and (self.replay or self.l2 or self.kl):
            raise self._error("nothing is trained, so there is nothing to pull back")
        if self.trains == "lora" and self.l2:
            raise self._error("LoRA leaves the start's weights alone; l2 anchors those only")

    @property
    def family(self) -> Family:
        """What kind of strategy it is, for pictures."""
        held = self.replay or self.l2 or self.kl
        whole: Family = "held back" if held else "full"
        by_part: dict[Trains, Family] = {
            "nothing": "nothing",
            "all": whole,
            "last": "few layers",
            "lora": "lora",
        }
        return by_part[self.trains]

    def _error(self, problem: str) -> ValueError:
        return ValueError(f"strategy {self.name!r}: {problem}")


STRATEGIES: dict[str, Strategy] = {
    s.name: s
    for s in (
        Strategy("none", "nothing"),
        Strategy("full"),
        Strategy("replay", replay=2),
        Strategy("l2", l2=1.0),
        Strategy("kl", kl=1.0),
        Strategy("last-2", "last", 2),
        *(Strategy(f"lora-{rank}", "lora", rank, LORA_RATE) for rank in (4, 16, 64)),
    )
}
"""The named strategies; ``lora-<rank>`` and ``last-<layers>`` exist for any number."""


def named(given: str | Strategy) -> Strategy:
    """Return the strategy of that name; a `Strategy` is returned as it is.

    Args:
        given: A key of `STRATEGIES`, ``"lora-<rank>"`` or ``"last-<layers>"``.

    Raises:
        SettingsError: no such name, or the number in it is not at least 1.
    """
    if isinstance(given, Strategy):
        return given
    if given in STRATEGIES:
        return STRATEGIES[given]
    found = re.fullmatch(r"(lora|last)-(\d+)", given)
    if found is None:
        raise SettingsError(
            f"strategy {given!r} is unknown; use {_any_of(STRATEGIES)}, 'lora-<rank>', "
            "'last-<layers>', or a Strategy of your own"
        )
    size = int(found[2])
    if size < 1:
        what = "rank" if found[1] == "lora" else "number of layers"
        raise SettingsError(f"strategy {given!r}: the {what} must be at least 1")
    if found[1] == "lora":
        return Strategy(given, "lora", size, LORA_RATE)
    return Strategy(given, "last", size)


def chosen(strategies: Sequence[str | Strategy]) -> list[Strategy]:
    """Return the strategies by name, in order.

    Raises:
        SettingsError: none, an unknown one, or two of one name.
    """
    if isinstance(strategies, str):
        raise SettingsError(f"strategies={strategies!r} is one name; give a list: [{strategies!r}]")
    found = [named(s) for s in strategies]
    names = [s.name for s in found]
    if not found:
        raise SettingsError(f"no strategy to run; use some of {', '.join(STRATEGIES)}")
    if len(set(names)) < len(names):
        double = next(n for n in names if names.count(n) > 1)
        raise SettingsError(f"strategy {double!r} is given twice; names must differ")
    return found


def _any_of(names: Sequence[str] | dict[str, Strategy]) -> str:
    return ", ".join(map(repr, names))
