"""SFT → reward model → PPO: each stage begins where the one before ended, on one base."""

import warnings

import pytest
import torch
from preference_pairs import pairs

from ftkit import PPOConfig, PPOTrainer, data, stages
from ftkit.errors import SettingsError
from ftkit.models import Roles, load, read_adapter

PROMPTS = ["How was day 1?", "How was day 2?"]
RECIPE = {"steps": 2, "batch_size": 2, "warmup_steps": 0, "eval_every": 0, "log_every": 1}
PPO = PPOConfig(iterations=1, batch_size=2, minibatches=1, epochs=1, max_new_tokens=4, lora_r=4)


def trained_sft(base):
    recipe = stages.SFTRecipe(**RECIPE, max_length=64, learning_rate=1e-2, lora_r=4)
    trainer = stages.sft(base, data.chatterbot("tech_support").select(range(4)), recipe=recipe)
    trainer.train()
    return trainer


def judge_from(base, start):
    recipe = stages.RewardRecipe(**RECIPE, learning_rate=1e-2)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the base carries a trained adapter")
        return stages.reward(base, pairs(4), adapter=start, recipe=recipe)


def base_weights(base) -> dict[str, torch.Tensor]:
    """Copies of all weights that belong to no adapter, under their names without adapters."""
    return {
        name.replace(".base_layer", ""): weight.detach().clone()
        for name, weight in base.model.named_parameters()
        if ".lora_" not in name
    }


def last_state(model, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        out = model(torch.tensor([ids]), output_hidden_states=True)
    return out.hidden_states[-1][0, -1]


@pytest.mark.parametrize("give", ["trainer", "model", "adapter", "folder"])
def test_a_judge_starts_as_the_sft_model_with_a_new_head(tiny_base, tmp_path, give) -> None:
    sft = trained_sft(tiny_base)
    started = read_adapter(sft.model)
    ids = stages.reward_rows(tiny_base, pairs(1))[0]["chosen_ids"]
    state = last_state(sft.model.eval(), ids)
    sft.save_model(str(tmp_path))
    start = {"trainer": sft, "model": sft.model, "adapter": started, "folder": str(tmp_path)}[give]
    if give in ("adapter", "folder"):  # its own copy is safe, so the base may lose it
        stages.fresh_base(tiny_base.model)
    judge = judge_from(tiny_base, start)
    mine = read_adapter(judge.model)
    assert mine.tensors.keys() == started.tensors.keys()
    assert all(torch.equal(mine.tensors[name], started.tensors[name]) for name in mine.tensors)
    assert mine.config.r == 4
    score = stages.pair_scores(judge, stages.reward_rows(tiny_base, pairs(1)))[0].chosen_score
    assert score == pytest.approx(float(mine.head @ state), abs=1e-5)
    judge.train()
    after = read_adapter(judge.model)
    assert any(not torch.equal(after.tensors[name], mine.tensors[name]) for name in mine.tensors)
    assert not torch.equal(after.head, mine.head)


def test_a_judge_does_not_start_from_a_judge(tiny_base) -> None:
    judge = judge_from(tiny_base, None)
    with pytest.raises(SettingsError, match="is a reward model's"):
        stages.reward(tiny_base, pairs(4), adapter=judge)


def test_the_chain_runs_on_one_base_that_never_changes(tiny_base, tmp_path) -> None:
    before = base_weights(tiny_base)
    sft = trained_sft(tiny_base)
    start = read_adapter(sft.model)
    judge = judge_from(tiny_base, sft)
    judge.train()
    adapter = read_adapter(judge.model)
    roles = Roles(tiny_base, start=start)
    roles.add_reward(adapter)
    trainer = PPOTrainer(
        tiny_base, PROMPTS, reward="model", roles=roles, config=PPO, output_dir=tmp_path
    )
    trainer.train()
    assert trainer.history[0]["objective/kl"] == pytest.approx(0, abs=1e-4)
    for name, role in (("reference", start), ("reward", adapter)):
        kept = read_adapter(roles.model, name).tensors
        assert all(torch.equal(kept[key], role.tensors[key]) for key in kept)
    policy = read_adapter(roles.model, "policy").tensors
    assert any(not torch.equal(policy[key], start.tensors[key]) for key in policy)
    after = base_weights(tiny_base)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_model_from_sft_flows_straight_into_ppo(tiny_base, tmp_path) -> None:
    start = read_adapter(trained_sft(tiny_base).model)
    trainer = PPOTrainer(
        tiny_base, PROMPTS, reward=lambda p, c: [0.0] * len(c), config=PPO, output_dir=tmp_path
    )
    for role in ("policy", "reference"):
        kept = read_adapter(trainer.roles.model, role).tensors
        assert all(torch.equal(kept[key], start.tensors[key]) for key in kept)
    trainer.train()
    assert trainer.history[0]["objective/kl"] == pytest.approx(0, abs=1e-4)


def test_ppo_starts_from_a_saved_adapter(tiny_base, tmp_path) -> None:
    sft = trained_sft(tiny_base)
    start = read_adapter(sft.model)
    sft.save_model(str(tmp_path / "sft"))
    stages.fresh_base(tiny_base.model)
    trainer = PPOTrainer(
        *(tiny_base, PROMPTS),
        reward=lambda p, c: [0.0] * len(c),
        config=PPO,
        adapter=tmp_path / "sft",
    )
    kept = read_adapter(trainer.roles.model, "reference").tensors
    assert all(torch.equal(kept[key], start.tensors[key]) for key in kept)
    with pytest.raises(SettingsError, match="roles have a start of their own"):
        PPOTrainer(
            *(tiny_base, PROMPTS),
            reward=lambda p, c: [0.0] * len(c),
            config=PPO,
            adapter=start,
            roles=trainer.roles,
        )


def test_on_the_quantized_base_the_judges_start_is_exact_too() -> None:
    """TRL rounds a quantized base's trainable weights to bfloat16 on its way."""
    base = load(quantization="nf4", device="cpu", compute_dtype="float32")
    sft = trained_sft(base)
    start = read_adapter(sft.model)
    mine = read_adapter(judge_from(base, sft).model)
    assert any(not torch.equal(t, t.bfloat16().float()) for t in start.tensors.values())
    assert all(torch.equal(mine.tensors[name], start.tensors[name]) for name in mine.tensors)
