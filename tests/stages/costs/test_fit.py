"""The smallest change that makes a run fit."""

from dataclasses import replace
from itertools import product

import pytest

from ftkit.errors import SettingsError
from ftkit.stages import costs
from ftkit.stages.costs import MemoryPlan

FULL = MemoryPlan(method="full", weights="bfloat16", layout="copies")


def answers(name: str, plan: MemoryPlan, *cards: float):
    return costs.fit(name, plan, cards=cards).cards


def texts(answer) -> list[str]:
    return [change.text for change in answer.changes]


def test_what_fits_needs_no_change() -> None:
    (answer,) = answers("smollm2-135m", MemoryPlan(), 8)
    assert (answer.fits, answer.changes) == (True, ())
    assert answer.peak == costs.estimate("smollm2-135m").peak


def test_one_change_is_enough_where_one_is_enough() -> None:
    (answer,) = answers("llama-3.1-8b", MemoryPlan(), 24)
    assert texts(answer) == ["micro-batch 8 → 4, 2 passes a step"]
    changed = MemoryPlan(batch=4, accumulation=2)
    assert answer.peak == costs.estimate("llama-3.1-8b", changed).peak <= 24e9


def test_brute_force_finds_nothing_smaller() -> None:
    plan = replace(FULL, batch=2)
    (answer,) = answers("llama-3.2-3b", plan, 8)
    found = len(answer.changes)
    assert found >= 2
    smaller = (
        {"batch": 1, "accumulation": 2},
        {"checkpointing": True},
        {"head": "fused"},
        {"optimizer": "adamw_8bit"},
        {"length": 256, "new_tokens": 128},
        {"length": 128, "new_tokens": 64},
        {"method": "lora", "layout": "shared"},
    )
    single = [costs.estimate("llama-3.2-3b", replace(plan, **c)).peak for c in smaller]
    pairs = [
        costs.estimate("llama-3.2-3b", replace(plan, **a, **b)).peak
        for a, b in product(smaller, smaller)
        if not a.keys() & b.keys()
    ]
    assert (min(single) > 8e9) == (found > 1)
    assert (min(single + pairs) > 8e9) == (found > 2)


def test_nf4_comes_only_with_an_adapter() -> None:
    (answer,) = answers("llama-3.1-70b", FULL, 80)
    assert texts(answer)[-2:] == ["LoRA r=16", "NF4 base"]


def test_what_no_change_can_do_is_said_with_the_least_peak() -> None:
    (answer,) = answers("llama-3.1-405b", MemoryPlan(), 80)
    assert not answer.possible
    assert answer.peak > 80e9
    assert str(answer) == f"80 GB: no, {answer.peak / 1e9:.1f} GB even with every change"


def test_ppo_gives_up_its_copies() -> None:
    plan = MemoryPlan("ppo", weights="bfloat16", layout="copies", batch=1, new_tokens=128)
    (answer,) = answers("llama-3.1-8b", plan, 24)
    assert texts(answer) == ["one shared base"]


def test_generation_samples_fewer_rows() -> None:
    plan = MemoryPlan("generate", weights="bfloat16", batch=64, length=4096)
    (answer,) = answers("llama-3.1-8b", plan, 24)
    assert texts(answer) == ["8 instead of 64 rows at once"]


def test_every_answer_keeps_its_promise() -> None:
    for name, plan in product(("llama-3.2-1b", "llama-3.1-8b"), (FULL, MemoryPlan("dpo"))):
        for answer in costs.fit(name, plan).cards:
            assert answer.peak <= answer.gb * 1e9 or not answer.possible


@pytest.mark.parametrize("card", [0, -8, float("nan"), float("inf")])
def test_a_card_of_no_size_is_refused(card) -> None:
    with pytest.raises(SettingsError, match="give a size above 0"):
        costs.fit("gpt2", cards=[card])
