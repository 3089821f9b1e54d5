"""`stages.dpo`: a real TRL trainer on the shared base, equal to its reference at the start.

A tiny random model where weights don't matter; the embedded one, quantized, for the dtype trap.
"""

import hashlib
import math
import warnings

import pytest
import torch
from datasets import Dataset
from preference_pairs import BAD, GOOD, pairs
from trl import DPOConfig, DPOTrainer

from ftkit import stages
from ftkit.algos import dpo_loss, dpo_losses
from ftkit.errors import DataError, SettingsError
from ftkit.models import Roles, load, memory_mb, read_adapter

QUICK = stages.DPORecipe(
    steps=3, batch_size=4, learning_rate=1e-2, warmup_steps=0, log_every=1, eval_every=0
)


def texts(rows: int = 4) -> Dataset:
    """Short plain text, for tests that train."""
    return Dataset.from_list(
        [
            {"prompt": f"Day {i}:", "chosen": f" {GOOD[i % 4]}", "rejected": f" {BAD[i % 4]} {i}"}
            for i in range(rows)
        ]
    )


@pytest.fixture
def trained(tiny_base):
    trainer = stages.dpo(tiny_base, texts(), eval_dataset=texts(3), recipe=QUICK)
    trainer.train()
    return trainer


@pytest.fixture
def sft_trained(tiny_base):
    rows = Dataset.from_list([{"text": row["prompt"] + row["chosen"]} for row in texts()])
    recipe = stages.SFTRecipe(steps=2, batch_size=4, learning_rate=1e-2, eval_every=0)
    trainer = stages.sft(tiny_base, rows, recipe=recipe)
    trainer.train()
    return trainer


def four(scored) -> list[torch.Tensor]:
    names = ("chosen_logp", "rejected_logp", "ref_chosen_logp", "ref_rejected_logp")
    return [torch.tensor([getattr(pair, name) for pair in scored]) for name in names]


def losses_logged(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_without_an_adapter_the_reference_is_the_bare_base(tiny_base) -> None:
    trainer = stages.dpo(tiny_base, texts(), recipe=QUICK)
    assert isinstance(trainer, DPOTrainer)
    assert list(trainer.model.peft_config) == ["default"]
    assert trainer.ref_model is None
    assert all(pair.lead == 0.0 for pair in stages.dpo_pairs(trainer, trainer.train_dataset))
    trainer.train()
    assert losses_logged(trainer)[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses_logged(trainer)[-1] < math.log(2)


@pytest.mark.parametrize("form", ["trainer", "model", "read_adapter", "folder"])
def test_it_starts_from_an_sft_adapter_with_a_frozen_copy_as_reference(
    tiny_base, sft_trained, tmp_path, form
) -> None:
    adapter = read_adapter(sft_trained.model)
    sft_trained.save_model(str(tmp_path))
    start = {"trainer": sft_trained, "model": sft_trained.model, "read_adapter": adapter,
             "folder": str(tmp_path)}[form]  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*trained adapter of an earlier trainer")
        trainer = stages.dpo(tiny_base, texts(), adapter=start, recipe=QUICK)
    before = {name: read_adapter(trainer.model, name) for name in ("default", "ref")}
    for copied in before.values():
        assert copied.tensors.keys() == adapter.tensors.keys()
        for key, tensor in adapter.tensors.items():
            assert torch.equal(copied.tensors[key], tensor)
    assert all(pair.lead == 0.0 for pair in stages.dpo_pairs(trainer, trainer.train_dataset))
    trainer.train()
    assert losses_logged(trainer)[0] == pytest.approx(math.log(2), abs=1e-6)
    after = {name: read_adapter(trainer.model, name) for name in ("default", "ref")}
    key = next(k for k in adapter.tensors if "lora_B" in k)
    assert torch.equal(after["ref"].tensors[key], adapter.tensors[key])
    assert not torch.equal(after["default"].tensors[key], adapter.tensors[key])
    trained = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert trained
    assert all(".default." in name for name in trained)


def test_only_an_adapter_that_would_be_lost_is_warned_of(tiny_base, sft_trained) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*trained adapter of an earlier trainer")
        trainer = stages.dpo(tiny_base, texts(), adapter=sft_trained, recipe=QUICK)
    trainer.train()
    with pytest.warns(UserWarning, match="trained adapter of an earlier trainer"):
        stages.dpo(tiny_base, texts(), recipe=QUICK)


def test_pairs_are_what_the_trainers_own_loss_sees(trained) -> None:
    rows = trained.eval_dataset
    pending = dict(trained._metrics["eval"])
    scored = stages.dpo_pairs(trained, rows)
    assert dict(trained._metrics["eval"]) == pending
    assert trained.model.training
    logged = trained.evaluate()
    assert dpo_loss(*four(scored), 0.1).item() == pytest.approx(logged["eval_loss"], abs=1e-5)
    for side in ("chosen", "rejected"):
        gains = sum(getattr(pair, f"{side}_gain") for pair in scored) / len(scored)
        assert 0.1 * gains == pytest.approx(logged[f"eval_rewards/{side}"], abs=1e-5)
        logps = sum(getattr(pair, f"{side}_logp") for pair in scored) / len(scored)
        assert logps == pytest.approx(logged[f"eval_logps/{side}"], abs=1e-3)
    assert scored[0].lead != 0.0
    assert (scored[0].prompt, scored[0].chosen) == ("Day 0:", " great")
    assert scored[0].chosen_tokens == len(rows[0]["chosen_ids"])
    assert math.isnan(scored[0].gold_gap)


def test_pairs_show_conversations_as_text(tiny_base) -> None:
    trainer = stages.dpo(tiny_base, pairs(1), recipe=QUICK)
    (scored,) = stages.dpo_pairs(trainer, trainer.train_dataset)
    assert scored.prompt == "How was day 0?"
    assert (scored.chosen, scored.rejected) == ("It was great.", "It was awful 0.")
    assert scored.gold_gap == pytest.approx(0.75)


def test_pairs_are_the_policys_and_the_references_own_log_probabilities(tiny_base, trained) -> None:
    """Against the roles, which compute log-probabilities with code of their own."""
    rows, scored = trained.eval_dataset, stages.dpo_pairs(trained, trained.eval_dataset)
    roles = Roles(tiny_base, start=read_adapter(trained.model), reference="off")
    for row, pair in zip(rows, scored, strict=True):
        for side in ("chosen", "rejected"):
            ids = torch.tensor([row["prompt_ids"] + row[f"{side}_ids"]])
            for role, name in ((roles.as_policy, f"{side}_logp"),
                               (roles.as_reference, f"ref_{side}_logp")):  # fmt: skip
                with role(), torch.no_grad():
                    out = roles.logprobs_and_values(
                        ids, torch.ones_like(ids), len(row["prompt_ids"]), with_values=False
                    )
                assert out.logprobs.sum().item() == pytest.approx(getattr(pair, name), abs=1e-3)


def test_precomputed_reference_log_probabilities_are_used(tiny_base, tmp_path) -> None:
    args = DPOConfig(
        output_dir=str(tmp_path), max_steps=2, use_cpu=True, bf16=False, report_to="none",
        gradient_checkpointing=False, precompute_ref_log_probs=True, learning_rate=1e-2,
        warmup_steps=0,
    )  # fmt: skip
    trainer = stages.dpo(tiny_base, texts(4), args=args)
    trainer.train()
    scored = stages.dpo_pairs(trainer, trainer.train_dataset)
    stored = trainer.train_dataset["ref_chosen_logps"]
    assert [pair.ref_chosen_logp for pair in scored] == pytest.approx(list(stored))
    assert scored[0].lead != 0.0


def test_it_learns_the_training_pairs(tiny_base) -> None:
    recipe = stages.DPORecipe(steps=12, batch_size=4, learning_rate=1e-2, eval_every=0)
    trainer = stages.dpo(tiny_base, texts(), recipe=recipe)
    trainer.train()
    scored = stages.dpo_pairs(trainer, trainer.train_dataset)
    assert all(pair.lead > 0 for pair in scored)
    assert dpo_losses(*four(scored), 0.1).mean() < 0.5


def test_the_base_never_changes(tiny_base) -> None:
    def checksum() -> str:
        digest = hashlib.sha256()
        for name, parameter in sorted(tiny_base.model.named_parameters()):
            if "lora_" not in name:
                digest.update(parameter.detach().contiguous().numpy().tobytes())
        return digest.hexdigest()

    before = checksum()
    trainer = stages.dpo(tiny_base, texts(), recipe=QUICK)
    wrapped = checksum()
    trainer.train()
    assert checksum() == wrapped
    stages.fresh_base(tiny_base.model)
    assert checksum() == before


def test_recipe_reaches_the_trainer(tiny_base) -> None:
    plain = stages.dpo(tiny_base, texts(2), recipe=QUICK).args
    assert (plain.beta, plain.loss_type, plain.loss_weights) == (0.1, ["sigmoid"], [1.0])
    recipe = stages.DPORecipe(steps=1, beta=0.4, label_smoothing=0.2, sft_weight=0.5)
    mixed = stages.dpo(tiny_base, texts(2), recipe=recipe).args
    assert (mixed.beta, mixed.label_smoothing) == (0.4, 0.2)
    assert (mixed.loss_type, mixed.loss_weights) == (["robust", "sft"], [1.0, 0.5])


def test_the_sft_term_is_the_cross_entropy_of_the_chosen_tokens(tiny_base) -> None:
    recipe = stages.DPORecipe(
        steps=1, batch_size=4, sft_weight=0.5, eval_every=1, log_every=1, learning_rate=1e-9
    )
    trainer = stages.dpo(tiny_base, texts(4), eval_dataset=texts(4), recipe=recipe)
    scored = stages.dpo_pairs(trainer, trainer.eval_dataset)
    tokens = sum(pair.chosen_tokens for pair in scored)
    entropy = -sum(pair.chosen_logp for pair in scored) / tokens
    expected = math.log(2) + 0.5 * entropy
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, abs=1e-4)


# --- rows ------------------------------------------------------------------------------------


def test_an_answer_begins_behind_the_header_and_ends_with_its_stop_token(tiny_base) -> None:
    tokenizer = tiny_base.tokenizer
    row = stages.dpo_rows(tiny_base, pairs(1))[0]
    prompt = tokenizer.apply_chat_template(
        pairs(1)[0]["prompt"], add_generation_prompt=True, tokenize=False
    )
    assert tokenizer.decode(row["prompt_ids"]) == prompt
    assert tokenizer.decode(row["chosen_ids"]) == "It was great." + tokenizer.eos_token
    assert tokenizer.decode(row["rejected_ids"]) == "It was awful 0." + tokenizer.eos_token


def test_the_trainer_takes_the_rows_as_they_are(tiny_base) -> None:
    trainer = stages.dpo(tiny_base, pairs(4), recipe=QUICK)
    rows = stages.dpo_rows(tiny_base, pairs(4))
    names = ["prompt_ids", "chosen_ids", "rejected_ids"]
    assert list(trainer.train_dataset.select_columns(names)) == list(rows.select_columns(names))
    batch = trainer.data_collator(list(rows.select_columns(names)))
    first = batch["input_ids"][0][batch["completion_mask"][0].bool()].tolist()
    assert first == rows[0]["chosen_ids"]
    assert trainer.evaluate(pairs(2))["eval_loss"] == pytest.approx(math.log(2))


def test_text_pairs_and_pairs_without_a_prompt_column_work(tiny_base) -> None:
    tokenizer = tiny_base.tokenizer
    text = Dataset.from_list([{"prompt": "2+2=", "chosen": "4", "rejected": "5"}])
    row = stages.dpo_rows(tiny_base, text)[0]
    decoded = [tokenizer.decode(row[name]) for name in ("prompt_ids", "chosen_ids")]
    assert decoded == ["2+2=", "4" + tokenizer.eos_token]
    whole = Dataset.from_list([{"chosen": "It is so good", "rejected": "It is so bad"}])
    assert tokenizer.decode(stages.dpo_rows(tiny_base, whole)[0]["prompt_ids"]) == "It is so"
    with_prompt = pairs(1)[0]
    both = {side: [*with_prompt["prompt"], *with_prompt[side]] for side in ("chosen", "rejected")}
    implicit = stages.dpo_rows(tiny_base, Dataset.from_list([both]))[0]
    given = stages.dpo_rows(tiny_base, pairs(1))[0]
    for name in ("prompt_ids", "chosen_ids", "rejected_ids"):
        assert implicit[name] == given[name]


def test_too_long_and_identical_pairs_are_left_out_aloud(tiny_base) -> None:
    rows = pairs(4).to_list()
    rows[1]["chosen"][0]["content"] *= 30
    rows[2]["chosen"] = rows[2]["rejected"]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        kept = stages.dpo_rows(tiny_base, Dataset.from_list(rows), max_length=70)
    said = "\n".join(str(warning.message) for warning in told)
    assert "1 of 4 pairs are longer than max_length=70 tokens (row 1;" in said
    assert "1 of 4 pairs have the same answer twice (row 2)" in said
    assert [row["chosen"][0]["content"] for row in kept] == ["It was great.", "It was happy."]


def broken(**changes) -> Dataset:
    return Dataset.from_list([pairs(1)[0], pairs(1)[0] | changes])


SAID = {"role": "assistant", "content": "x"}
ASKED = {"role": "user", "content": "And then?"}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (pairs(1).remove_columns("rejected"), "have no 'rejected'"),
        (pairs(1).select([]), "no rows"),
        (broken(chosen=[]), "row 1: chosen is empty"),
        (broken(chosen=[{"role": "usr", "content": "x"}]), "row 1, chosen: message 1 has role"),
        (broken(rejected=[ASKED]), "row 1, rejected: there is no"),
        (broken(chosen=[SAID, ASKED, SAID]), "row 1: what stands before the last answer differs"),
        (Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "b"}]), "in every pair"),
        ([pairs(1)[0]], "not a list"),
    ],
)
def test_bad_pairs_are_errors_that_name_the_row(tiny_base, data, says) -> None:
    with pytest.raises(DataError, match=says):
        stages.dpo_rows(tiny_base, data)


def test_pairs_that_are_all_too_long_are_refused(tiny_base) -> None:
    with pytest.raises(DataError, match="every pair is longer than max_length=5"):
        stages.dpo(tiny_base, pairs(2), recipe=stages.DPORecipe(max_length=5))


# --- settings --------------------------------------------------------------------------------


def test_a_pad_token_that_is_the_stop_token_is_refused(tiny_folder) -> None:
    base = load(str(tiny_folder), quantization=None, device="cpu")
    base.tokenizer.pad_token = base.tokenizer.eos_token
    with pytest.raises(SettingsError, match="could not be told apart"):
        stages.dpo(base, pairs(2), recipe=QUICK)


def test_label_smoothing_that_trl_would_ignore_is_refused(tiny_base, tmp_path) -> None:
    args = DPOConfig(output_dir=str(tmp_path), label_smoothing=0.1, bf16=False, use_cpu=True)
    with pytest.raises(SettingsError, match=r"no effect on loss_type=\['sigmoid'\]"):
        stages.dpo(tiny_base, pairs(2), args=args)


def test_adapters_that_cannot_start_a_policy_are_refused(tiny_base, tmp_path) -> None:
    with pytest.raises(SettingsError, match=r"adapter_model\.safetensors does not exist"):
        stages.dpo(tiny_base, pairs(2), adapter=tmp_path, recipe=QUICK)
    judge = stages.reward(
        tiny_base, pairs(4), recipe=stages.RewardRecipe(steps=1, batch_size=2, eval_every=0)
    )
    with pytest.raises(SettingsError, match="a reward model's"):
        stages.dpo(tiny_base, pairs(2), adapter=judge, recipe=QUICK)


def test_untokenized_rows_and_weighted_tokens_are_refused(tiny_base, tmp_path) -> None:
    trainer = stages.dpo(tiny_base, pairs(2), recipe=QUICK)
    with pytest.raises(DataError, match=r"trainer\.train_dataset"):
        stages.dpo_pairs(trainer, pairs(2))
    args = DPOConfig(output_dir=str(tmp_path), ld_alpha=0.5, bf16=False, use_cpu=True)
    weighted = stages.dpo(tiny_base, pairs(2), args=args)
    with pytest.raises(SettingsError, match="without ld_alpha"):
        stages.dpo_pairs(weighted, weighted.train_dataset)


@pytest.mark.parametrize(
    "bad",
    [{"steps": 0}, {"beta": 0.0}, {"sft_weight": -1.0}, {"label_smoothing": 0.5},
     {"learning_rate": math.nan}],
)  # fmt: skip
def test_impossible_recipes_are_refused(bad) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        stages.DPORecipe(**bad)


def test_on_the_quantized_base_policy_and_reference_start_equal_in_the_compute_dtype() -> None:
    """TRL rounds the policy of a quantized base to bfloat16, not the copy for the reference."""
    base = load(quantization="nf4", device="cpu", compute_dtype="float32")
    torch.manual_seed(0)
    sft = stages.dpo(base, texts(2), recipe=stages.DPORecipe(steps=1, batch_size=2, eval_every=0))
    adapter = read_adapter(sft.model)
    for name, tensor in adapter.tensors.items():
        if "lora_B" in name:
            tensor.copy_(0.01 * torch.randn_like(tensor))
    before = memory_mb(base.model)
    recipe = stages.DPORecipe(steps=1, batch_size=2, eval_every=0, log_every=1)
    trainer = stages.dpo(base, texts(2), adapter=adapter, recipe=recipe)
    own = {p.dtype for n, p in trainer.model.named_parameters() if "lora_" in n}
    assert own == {torch.float32}
    assert all(pair.lead == 0.0 for pair in stages.dpo_pairs(trainer, trainer.train_dataset))
    size = sum(tensor.numel() * 4 for tensor in adapter.tensors.values()) / 1e6
    assert memory_mb(trainer.model) == pytest.approx(before + size, abs=0.1)
    trainer.train()
    assert losses_logged(trainer)[0] == pytest.approx(math.log(2), abs=1e-6)
