"""Recorded failures: the recipes break what they say, and what ships shows it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ftkit.records import PPOTrace, ppo_store
from ftkit.stages import make_ppo_presets as made
from ftkit.stages.ppo import trainer, update

NAMES = [recipe.name for recipe in made.RECIPES]
QUICK = {"batch_size": 4, "micro_batch": 4, "max_new_tokens": 8, "iterations": 2, "lora_r": 4}


@pytest.fixture
def lively_base(tiny_base):
    """The tiny random Llama with logits wide enough for temperatures to matter."""
    with torch.no_grad():
        tiny_base.model.get_input_embeddings().weight.mul_(6)
    return tiny_base


def length(prompts, completions):
    return [len(completion) / 10 for completion in completions]


def quick(name: str):
    """The recipe, made small; random texts have no sentiment, but a length."""
    recipe = next(r for r in made.RECIPES if r.name == name)
    config = replace(recipe.config, **QUICK)
    return replace(recipe, config=config, reward={"gold": (1.0, length)})


@pytest.fixture(scope="module")
def shipped() -> dict[str, PPOTrace]:
    return {name: ppo_store.load_preset(name) for name in NAMES}


def test_another_temperature_moves_ratio_and_kl_before_any_training(lively_base, tmp_path) -> None:
    before = trainer.collect, trainer.whiten, update.check_first_ratio
    trace = made.record(quick("sampler-is-not-scorer"), lively_base, tmp_path)
    assert [i.number for i in trace.iterations] == [1, 2]
    assert abs(trace.iterations[0].metrics["objective/kl"]) > 0.05
    assert abs(first_ratios(trace) - 1).max() > 0.02
    assert all((trace.title, trace.say, trace.look, trace.cure, trace.watch))
    assert (trainer.collect, trainer.whiten, update.check_first_ratio) == before


def test_whitening_everything_counts_padding(tmp_path) -> None:
    values = torch.tensor([[1.0, 2.0, 6.0], [3.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    with made._whitening_everything():
        seen = trainer.whiten(values, mask)
    expected = (values.numpy() - values.numpy().mean()) / values.numpy().std()
    np.testing.assert_allclose(seen.numpy(), np.where(mask.numpy(), expected, 0), atol=1e-5)


def test_rewards_of_the_recipes() -> None:
    texts = ["Great!!", "one one two", "?"]
    assert made.cheer(texts, texts) == [0.5, 0.0, 0.0]
    assert made.variety(texts, texts) == pytest.approx([1.0, 2 / 3, 0.0])


def test_thinning_keeps_the_first_two_and_the_last() -> None:
    assert made.thinned(range(30), 6)[:2] == [0, 1]
    assert made.thinned(range(30), 6)[-1] == 29
    assert len(made.thinned(range(30), 6)) == 6
    assert made.thinned(range(3), 6) == [0, 1, 2]


def test_an_unknown_recipe_is_named() -> None:
    with pytest.raises(ValueError, match=r"no recipe \{'nothing'\}"):
        made.main(["nothing"])


@pytest.mark.parametrize("name", NAMES)
def test_what_ships_is_small_and_complete(name, shipped) -> None:
    folder = ppo_store.presets_folder() / name
    assert sum(path.stat().st_size for path in folder.iterdir()) < 150_000
    trace = shipped[name]
    assert trace.title
    assert bool(trace.cure) == (name != "healthy")
    start = trace.at(trace.start.iteration)
    assert trace.start.row < len(start.tokens)
    recipe = next(r for r in made.RECIPES if r.name == name)
    assert all(len(i.tokens) == recipe.config.trace_rows for i in trace.iterations)
    assert (trace.say, trace.look, trace.cure) == recipe.tell(trace), "numbers of this very run"
    for key in trace.watch:
        assert all(key in iteration.metrics for iteration in trace.iterations)


def test_only_recipes_ship() -> None:
    assert list(ppo_store.preset_names()) == sorted(NAMES)


def first_ratios(trace: PPOTrace) -> np.ndarray:
    return np.concatenate(
        [i.updates[0].ratio[i.mask[list(i.updates[0].rows)]] for i in trace.iterations]
    )


def whitening_gap(trace: PPOTrace) -> float:
    """Largest distance of what the loss saw from (Â − mean) / deviation over real tokens."""
    gaps = [
        (i.advantages - i.advantage_mean) / i.advantage_std - i.whitened_advantages
        for i in trace.iterations
    ]
    return max(abs(g[i.mask]).max() for g, i in zip(gaps, trace.iterations, strict=True))


def test_only_the_sampler_that_is_not_the_scorer_starts_off_one(shipped) -> None:
    off = {name: abs(first_ratios(trace) - 1).max() for name, trace in shipped.items()}
    assert off.pop("sampler-is-not-scorer") > 0.5
    assert max(off.values()) < 0.02


def test_only_whitening_over_padding_disagrees_with_whitening(shipped) -> None:
    gaps = {name: whitening_gap(trace) for name, trace in shipped.items()}
    assert gaps.pop("whitening-over-padding") > 0.2
    assert max(gaps.values()) < 0.01


def test_the_fooled_reward_climbs_and_its_gold_does_not(shipped) -> None:
    first, last = (shipped["reward-hacking"].iterations[i].metrics for i in (0, -1))
    assert last["objective/scores"] > first["objective/scores"] + 1
    assert last["rewards/gold/mean"] < first["rewards/gold/mean"] + 0.1
    assert last["rewards/variety/mean"] < first["rewards/variety/mean"] - 0.15


def test_kl_explodes_in_one_and_stays_bounded_in_the_healthy_one(shipped) -> None:
    peak = {n: max(i.metrics["objective/kl"] for i in t.iterations) for n, t in shipped.items()}
    assert peak["kl-explosion"] > 30
    assert peak["healthy"] < 5
    scores = [i.metrics["objective/scores"] for i in shipped["healthy"].iterations]
    assert np.mean(scores[-3:]) > np.mean(scores[:3]) + 0.05
