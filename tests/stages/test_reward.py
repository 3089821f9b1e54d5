"""`stages.reward`: a real TRL trainer on the shared base, whose scores survive every hand-over.

A tiny random model where weights don't matter; the embedded one, quantized, for the dtype trap.
"""

import hashlib
import math
import warnings
from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from preference_pairs import pairs
from trl import RewardConfig

from ftkit import chat, data, stages
from ftkit.algos import pairwise_reward_loss
from ftkit.errors import DataError, SettingsError
from ftkit.models import Roles, load, memory_mb, read_adapter, score_model

QUICK = stages.RewardRecipe(
    steps=4, batch_size=4, learning_rate=5e-3, warmup_steps=0, log_every=1, eval_every=0
)


@pytest.fixture
def trained(tiny_base):
    trainer = stages.reward(tiny_base, pairs(), eval_dataset=pairs(4), recipe=QUICK)
    trainer.train()
    return trainer


def scores_of_roles(roles: Roles, trainer, rows: Dataset) -> list[tuple[float, float]]:
    """Score every pair through the roles, padded on the left, where the trainer pads right."""
    scores = []
    for row in rows:
        ids = [row["chosen_ids"], row["rejected_ids"]]
        width = max(map(len, ids)) + 2
        batch = torch.full((2, width), trainer.processing_class.pad_token_id)
        mask = torch.zeros(2, width, dtype=torch.long)
        for i, side in enumerate(ids):
            batch[i, -len(side) :], mask[i, -len(side) :] = torch.tensor(side), 1
        with torch.no_grad():
            scores.append(tuple(roles.scores(batch, mask).tolist()))
    return scores


def by_pair(scored) -> list[tuple[float, float]]:
    return [(pair.chosen_score, pair.rejected_score) for pair in scored]


def test_the_reward_role_gives_the_trainers_scores(tiny_base, trained) -> None:
    rows = trained.eval_dataset
    expected = by_pair(stages.pair_scores(trained, rows))
    assert len({round(score, 6) for pair in expected for score in pair}) > 4
    adapter = read_adapter(trained.model)
    roles = Roles(tiny_base, start="new")
    roles.add_reward(adapter)
    for ours, theirs in zip(scores_of_roles(roles, trained, rows), expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_saved_and_loaded_the_scores_are_equal(tiny_base, tiny_folder, trained, tmp_path) -> None:
    rows, adapter = trained.eval_dataset, read_adapter(trained.model)
    roles = Roles(tiny_base, start="new")
    roles.add_reward(adapter)
    before = scores_of_roles(roles, trained, rows)
    roles.save(tmp_path / "roles")
    again = Roles.load(load(str(tiny_folder), quantization=None, device="cpu"), tmp_path / "roles")
    for one, two in zip(before, scores_of_roles(again, trained, rows), strict=True):
        assert two == pytest.approx(one, abs=1e-6)
    other = Roles(load(str(tiny_folder), quantization=None, device="cpu"))
    other.load_reward(tmp_path / "roles")
    for one, two in zip(before, scores_of_roles(other, trained, rows), strict=True):
        assert two == pytest.approx(one, abs=1e-6)


def test_pair_scores_are_what_the_trainers_own_loss_sees(tiny_base) -> None:
    recipe = stages.RewardRecipe(
        steps=1, batch_size=4, centering=0.1, margin=0.5, eval_every=0, log_every=1
    )
    trainer = stages.reward(tiny_base, pairs(4), recipe=recipe)
    scored = stages.pair_scores(trainer, trainer.train_dataset)
    columns = ("chosen_ids", "rejected_ids", "margin")
    rows = [{name: row[name] for name in columns} for row in trainer.train_dataset]
    trainer.model.eval()
    theirs = trainer.compute_loss(
        trainer.model, trainer._prepare_inputs(trainer.data_collator(rows))
    )
    chosen, rejected = (torch.tensor(side) for side in zip(*by_pair(scored), strict=True))
    ours = pairwise_reward_loss(chosen, rejected, torch.full((4,), 0.5), centering=0.1)
    assert theirs.item() == pytest.approx(ours.item(), abs=1e-5)
    assert scored[0].prompt == "How was day 0?"
    assert (scored[0].chosen, scored[0].rejected) == ("It was great.", "It was awful 0.")
    assert scored[0].gold_gap == pytest.approx(0.75)


def test_it_learns_the_training_pairs(tiny_base) -> None:
    recipe = stages.RewardRecipe(
        steps=30, batch_size=8, learning_rate=1e-2, eval_every=0, log_every=10
    )
    trainer = stages.reward(tiny_base, pairs(), recipe=recipe)
    trainer.train()
    scored = stages.pair_scores(trainer, trainer.train_dataset)
    assert sum(pair.gap > 0 for pair in scored) >= 15
    assert trainer.state.log_history[-2]["loss"] < 0.4


def test_the_backbone_is_the_bases_own_and_never_changes(tiny_base) -> None:
    def checksum() -> str:
        digest = hashlib.sha256()
        for name, parameter in sorted(tiny_base.model.named_parameters()):
            if "lora_" not in name:
                digest.update(parameter.detach().contiguous().numpy().tobytes())
        return digest.hexdigest()

    model = score_model(tiny_base.model)
    theirs = {id(p) for p in model.parameters()} - {id(p) for p in tiny_base.model.parameters()}
    assert theirs == {id(model.score.weight)}
    assert memory_mb(model) - memory_mb(tiny_base.model) < 0.001
    trainer = stages.reward(tiny_base, pairs(), recipe=QUICK)
    before = checksum()
    trainer.train()
    assert checksum() == before
    assert all(not p.is_meta for p in trainer.model.parameters())


def test_the_score_is_read_at_the_stop_token(tiny_base) -> None:
    rows = stages.reward_rows(tiny_base, pairs(2))
    stop = tiny_base.tokenizer.eos_token_id
    for row in rows:
        assert row["chosen_ids"][-1] == row["rejected_ids"][-1] == stop
    whole = chat.annotate(tiny_base.tokenizer, [*rows[0]["prompt"], *rows[0]["chosen"]]).input_ids
    assert whole[: len(rows[0]["chosen_ids"])] == rows[0]["chosen_ids"]


def test_tools_of_a_row_reach_reward_and_dpo_alike(tiny_base) -> None:
    tiny_base.tokenizer.chat_template = chat.templates.get("qwen2_5")
    tool = '[{"type": "function", "function": {"name": "weather_now", "description": "d"}}]'
    rows = Dataset.from_list([row | {"tools": tool} for row in pairs(2)])
    judged, compared = stages.reward_rows(tiny_base, rows)[0], stages.dpo_rows(tiny_base, rows)[0]
    assert "weather_now" in tiny_base.tokenizer.decode(judged["chosen_ids"])
    assert judged["chosen_ids"] == compared["prompt_ids"] + compared["chosen_ids"]


def test_conversations_that_people_rated_train_a_judge(tiny_base) -> None:
    talks = data.chitchat(turns=4).select(range(8))
    trainer = stages.reward(tiny_base, talks, recipe=replace(QUICK, steps=12, max_length=256))
    texts = tiny_base.tokenizer.batch_decode(list(trainer.train_dataset["chosen_ids"]))
    for row, text in zip(talks, texts, strict=True):
        assert row["prompt"][0]["content"] in text
        assert all(turn["content"].strip() in text for turn in row["chosen"])
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[-1] < losses[0]
    gaps = [good - bad for good, bad in by_pair(stages.pair_scores(trainer, trainer.train_dataset))]
    assert sum(gap > 0 for gap in gaps) >= 6


def test_text_pairs_and_pairs_without_a_prompt_column_work(tiny_base) -> None:
    tokenizer = tiny_base.tokenizer
    text = Dataset.from_list([{"prompt": "2+2=", "chosen": "4", "rejected": "5"}])
    row = stages.reward_rows(tiny_base, text)[0]
    assert tokenizer.decode(row["chosen_ids"]) == "2+2=4" + tokenizer.eos_token
    with_prompt = pairs(1)[0]
    both = {side: [*with_prompt["prompt"], *with_prompt[side]] for side in ("chosen", "rejected")}
    implicit = stages.reward_rows(tiny_base, Dataset.from_list([both]))[0]
    assert implicit["chosen_ids"] == stages.reward_rows(tiny_base, pairs(1))[0]["chosen_ids"]


def test_too_long_pairs_are_left_out_aloud(tiny_base) -> None:
    long = pairs(3).to_list()
    long[1]["chosen"][0]["content"] *= 30
    with pytest.warns(UserWarning, match="1 of 3 pairs are longer than max_length=60"):
        rows = stages.reward_rows(tiny_base, Dataset.from_list(long), max_length=60)
    assert len(rows) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match="every pair is longer than max_length=5"):
            stages.reward_rows(tiny_base, pairs(2), max_length=5)


def broken(**changes) -> Dataset:
    return Dataset.from_list([pairs(1)[0], pairs(1)[0] | changes])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (pairs(1).remove_columns("rejected"), "have no 'rejected'"),
        (pairs(1).select([]), "no rows"),
        (broken(chosen=pairs(1)[0]["rejected"]), "row 1: chosen and rejected are the same"),
        (broken(chosen=[]), "row 1: chosen is empty"),
        (broken(chosen=[{"role": "usr", "content": "x"}]), "row 1, chosen: message 1 has role"),
        (broken(chosen=[{"role": "user", "content": "x"}]), "row 1, chosen: there is no"),
    ],
)
def test_bad_pairs_are_errors_that_name_the_row(tiny_base, data, says) -> None:
    with pytest.raises(DataError, match=says):
        stages.reward_rows(tiny_base, data)


def test_two_sources_of_margins_are_refused_and_one_reaches_the_trainer(tiny_base) -> None:
    own = pairs(4).add_column("margin", [0.1, 0.2, 0.3, 0.4])
    with pytest.raises(DataError, match="leave margin at 0"):
        stages.reward_rows(tiny_base, own, margin=1.0)
    trainer = stages.reward(tiny_base, own, recipe=QUICK)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    assert batch["margin"].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_your_own_arguments_are_used(tiny_base, tmp_path) -> None:
    args = RewardConfig(
        output_dir=str(tmp_path), max_steps=1, use_cpu=True, bf16=False, report_to="none",
        center_rewards_coefficient=0.5, gradient_checkpointing=False,
    )  # fmt: skip
    assert stages.reward(tiny_base, pairs(4), args=args).args.center_rewards_coefficient == 0.5


def test_a_pad_token_that_is_the_stop_token_is_refused(tiny_folder) -> None:
    base = load(str(tiny_folder), quantization=None, device="cpu")
    base.tokenizer.pad_token = base.tokenizer.eos_token
    with pytest.raises(SettingsError, match="take the stop token for padding"):
        stages.reward(base, pairs(2), recipe=QUICK)


def test_a_second_stage_starts_from_a_clean_base(tiny_base, trained) -> None:
    adapter = read_adapter(trained.model)
    with pytest.warns(UserWarning, match="trained adapter"):
        again = stages.reward(tiny_base, pairs(), recipe=QUICK)
    fresh = read_adapter(again.model)
    assert fresh.tensors.keys() == adapter.tensors.keys()
    assert not any("base_layer.base_layer" in name for name, _ in again.model.named_modules())
    assert all(not t.any() for name, t in fresh.tensors.items() if "lora_B" in name)
    assert not torch.equal(fresh.head, adapter.head)


@pytest.mark.parametrize(
    "bad", [{"steps": 0}, {"margin": -1.0}, {"centering": math.nan}, {"learning_rate": 0.0}]
)
def test_impossible_recipes_are_refused(bad) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        stages.RewardRecipe(**bad)


def test_on_the_quantized_base_everything_trained_is_in_the_compute_dtype() -> None:
    """TRL casts adapter and score head of a quantized base to bfloat16; then nothing runs."""
    base = load(quantization="nf4", device="cpu", compute_dtype="float32")
    before = memory_mb(base.model)
    recipe = stages.RewardRecipe(steps=1, batch_size=2, eval_every=0, log_every=1)
    trainer = stages.reward(base, pairs(2), recipe=recipe)
    trained = {n: p for n, p in trainer.model.named_parameters() if p.requires_grad}
    assert any("score.modules_to_save" in name for name in trained)
    assert {p.dtype for p in trained.values()} == {torch.float32}
    own = sum(p.numel() * p.element_size() for p in trained.values()) / 1e6
    assert memory_mb(trainer.model) < before + own + 0.01
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert all(math.isfinite(loss) for loss in losses)
    expected = by_pair(stages.pair_scores(trainer, trainer.train_dataset))
    adapter = read_adapter(trainer.model)
    roles = Roles(base, start="new")
    roles.add_reward(adapter)
    rows = trainer.train_dataset
    for ours, theirs in zip(scores_of_roles(roles, trainer, rows), expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
