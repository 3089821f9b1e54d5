"""Does it fit, and if not, what is the least that must change?

The changes are ordered by what they cost: first those that leave the maths as it is, then those
that touch precision, then those that change what is trained. The answer has as few changes as
possible, and among equally many the cheapest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import combinations, product
from math import isfinite
from typing import Any

from ftkit.errors import SettingsError
from ftkit.models.shape import ModelShape
from ftkit.records.costs import CardFit, Change, MemoryEstimate
from ftkit.stages.costs.memory import estimate
from ftkit.stages.costs.plan import MemoryPlan

CARDS = (8.0, 16.0, 24.0, 80.0)
"""GB (1e9 bytes). Cards are sold in GiB, 7 % more: that is left for the CUDA context."""
_SHORTEST = 128  # tokens


_Option = tuple[Change, MemoryPlan]


def fit(
    source: Any, plan: MemoryPlan | None = None, *, cards: Sequence[float] = CARDS
) -> MemoryEstimate:
    """Return the estimate of `plan` with an answer for each card.

    Args:
        source: What `ModelShape.of` takes.
        plan: The choices; by default `MemoryPlan`'s defaults.
        cards: Memory of the cards in GB (1e9 bytes).

    Raises:
        SettingsError: no shape can be read, or a card of no size.
    """
    wrong = [card for card in cards if not (isfinite(card) and card > 0)]
    if wrong:
        raise SettingsError(f"a card of {wrong[0]} GB: give a size above 0")
    shape, plan = ModelShape.of(source), plan or MemoryPlan()
    found = estimate(shape, plan)
    answers = tuple(_answer(shape, plan, found.peak, float(card)) for card in cards)
    return replace(found, cards=answers)


def _answer(shape: ModelShape, plan: MemoryPlan, peak: float, gb: float) -> CardFit:
    if peak <= gb * 1e9:
        return CardFit(gb, fits=True, changes=(), peak=peak, possible=True)
    kinds = tuple(range(len(_STEPS)))
    least = min(_peak(shape, last) for _, last in _applied(plan, kinds))
    if least > gb * 1e9:
        return CardFit(gb, fits=False, changes=(), peak=least, possible=False)
    for count in range(1, len(kinds) + 1):
        for chosen in sorted(combinations(kinds, count), key=sum):
            found = _mildest(shape, plan, chosen, gb * 1e9)
            if found is not None:
                return CardFit(gb, fits=False, changes=found[0], peak=found[1], possible=True)
    raise AssertionError("all changes together fit, so some combination must")


def _mildest(
    shape: ModelShape, plan: MemoryPlan, kinds: tuple[int, ...], limit: float
) -> tuple[tuple[Change, ...], float] | None:
    """Return the mildest form of these kinds of change that fits, and its peak."""
    for made, changed in _applied(plan, kinds):
        peak = _peak(shape, changed)
        if len(made) == len(kinds) and peak <= limit:
            return made, peak
    return None


def _applied(
    plan: MemoryPlan, kinds: tuple[int, ...]
) -> Iterator[tuple[tuple[Change, ...], MemoryPlan]]:
    """Yield every combination of levels of `kinds`, the mildest first, with what results.

    Those that do not apply are passed over, so there can be fewer changes than kinds.
    """
    levels = [range(max(1, len(list(_STEPS[kind](plan))))) for kind in kinds]
    for picked in sorted(product(*levels), key=sum):
        current, made = plan, []
        for kind, level in zip(kinds, picked, strict=True):
            options = list(_STEPS[kind](current))
            if level < len(options):
                change, current = options[level]
                made.append(change)
        yield tuple(made), current


@lru_cache(maxsize=65536)
def _peak(shape: ModelShape, plan: MemoryPlan) -> float:
    return estimate(shape, plan).peak


# --- the changes, the cheapest first ---------------------------------------------------------


def _smaller_batch(plan: MemoryPlan) -> Iterator[_Option]:
    rows, passes = plan.batch, plan.accumulation
    while rows % 2 == 0 and plan.trains:
        rows, passes = rows // 2, passes * 2
        text = f"micro-batch {plan.batch} → {rows}, {passes} passes a step"
        smaller = replace(plan, batch=rows, accumulation=passes)
        yield Change(text, "the same gradient, a little slower"), smaller


def _fewer_rows(plan: MemoryPlan) -> Iterator[_Option]:
    rows = plan.batch // 2
    while rows >= 1 and not plan.trains:
        text = f"{rows} instead of {plan.batch} rows at once"
        yield Change(text, "slower"), replace(plan, batch=rows)
        rows //= 2


def _fused_head(plan: MemoryPlan) -> Iterator[_Option]:
    if plan.head == "whole" and plan.trains and plan.stage != "reward":
        yield Change("fused output layer", "the same loss"), replace(plan, head="fused")


def _checkpointing(plan: MemoryPlan) -> Iterator[_Option]:
    if plan.trains and not plan.checkpointing:
        change = Change("gradient checkpointing", "the same gradient, one more forward pass")
        yield change, replace(plan, checkpointing=True)


def _shared_base(plan: MemoryPlan) -> Iterator[_Option]:
    several = plan.stage in ("ppo", "dpo", "grpo")
    if several and plan.method == "lora" and plan.layout == "copies":
        change = Change("one shared base", "models differ by their adapters only")
        yield change, replace(plan, layout="shared")


def _small_states(plan: MemoryPlan) -> Iterator[_Option]:
    if plan.trains and plan.optimizer == "adamw":
        change = Change("8-bit AdamW", "rounded optimizer states")
        yield change, replace(plan, optimizer="adamw_8bit")


def _half_precision(plan: MemoryPlan) -> Iterator[_Option]:
    if plan.weights == "float32":
        change = Change("bfloat16 weights", "rounded weights and updates")
        yield change, replace(plan, weights="bfloat16", compute="bfloat16")


def _lora(plan: MemoryPlan) -> Iterator[_Option]:
    if plan.trains and plan.method == "full":
        change = Change(f"LoRA r={plan.lora_r}", "an update of low rank")
        yield change, replace(plan, method="lora", layout="shared")


def _nf4(plan: MemoryPlan) -> Iterator[_Option]:
    if plan.weights != "nf4" and (plan.method == "lora" or not plan.trains):
        yield Change("NF4 base", "weights of 4 bits"), replace(plan, weights="nf4")


def _shorter(plan: MemoryPlan) -> Iterator[_Option]:
    length, sampled = plan.length // 2, plan.new_tokens // 2
    while length >= _SHORTEST and sampled >= 1:
        text = f"rows of {length} instead of {plan.length} tokens"
        yield Change(text, "long rows are cut"), replace(plan, length=length, new_tokens=sampled)
        length, sampled = length // 2, sampled // 2


_STEPS = (
    *(_smaller_batch, _fewer_rows, _fused_head, _checkpointing, _shared_base, _small_states),
    *(_half_precision, _lora, _nf4, _shorter),
)
