"""`stages.sft`: the trainer trains exactly the labels that are shown, on a clean base.

A tiny random model where weights don't matter; the embedded one for the QLoRA run.
"""

import hashlib
import warnings

import pytest
import torch

from ftkit import chat, data, stages
from ftkit.errors import DataError
from ftkit.stages.adapters import fresh_base

QUICK = stages.SFTRecipe(steps=1, batch_size=2, max_length=96, log_every=1, eval_every=0)


@pytest.fixture(scope="module")
def rows():
    return data.chatterbot("tech_support")


def test_the_trainer_gets_the_labels_that_annotate_shows(tiny_base, rows) -> None:
    trainer = stages.sft(tiny_base, rows, recipe=QUICK)
    prepared = trainer.train_dataset
    assert len(prepared) == len(rows)
    for row in prepared:
        shown = chat.annotate(tiny_base.tokenizer, row["messages"])
        assert row["input_ids"] == shown.input_ids
        assert row["labels"] == shown.labels


@pytest.mark.parametrize("mask", ["full", "completion", "last_assistant"])
def test_every_mask_reaches_the_trainer(tiny_base, rows, mask) -> None:
    trainer = stages.sft(tiny_base, rows.select(range(2)), mask=mask, recipe=QUICK)
    row = trainer.train_dataset[0]
    assert row["labels"] == chat.annotate(tiny_base.tokenizer, row["messages"], mask=mask).labels


def test_labels_agree_with_trls_own_where_trl_knows_the_template(
    tiny_base, fresh_tokenizer, rows, tmp_path
) -> None:
    """TRL masks Llama 3 by its own training twin, an independent implementation."""
    from dataclasses import replace

    from trl import SFTConfig, SFTTrainer

    fresh_tokenizer.chat_template = chat.templates.get("llama3")
    args = SFTConfig(
        output_dir=str(tmp_path), assistant_only_loss=True, max_length=None, bf16=False,
        use_cpu=True, report_to="none", gradient_checkpointing=False,
    )  # fmt: skip
    theirs = SFTTrainer(
        model=tiny_base.model, args=args, train_dataset=rows, processing_class=fresh_tokenizer
    )
    ours = stages.sft_rows(replace(tiny_base, tokenizer=fresh_tokenizer), rows)
    assert theirs.train_dataset["input_ids"] == ours["input_ids"]
    assert theirs.train_dataset["labels"] == ours["labels"]


def test_displayed_losses_are_the_trainers_loss(tiny_base, rows) -> None:
    trainer = stages.sft(tiny_base, rows, recipe=QUICK)
    trainer.model.eval()
    batch = chat.annotate_batch(trainer, rows=3)
    shown = [t.loss for row in batch.rows for t in chat.score(trainer.model, row).trained]
    examples = [{k: trainer.train_dataset[i][k] for k in ("input_ids", "labels")} for i in range(3)]
    inputs = trainer._prepare_inputs(trainer.data_collator(examples))
    theirs = trainer.compute_loss(trainer.model, inputs).item()
    assert sum(shown) / len(shown) == pytest.approx(theirs, abs=1e-4)


def test_a_second_trainer_starts_from_a_clean_base(tiny_base, rows) -> None:
    ids = torch.tensor([tiny_base.tokenizer("My printer is not printing.")["input_ids"]])
    before = tiny_base.model(ids).logits.detach()
    trainer = stages.sft(tiny_base, rows, recipe=QUICK)
    trainer.train()
    again = stages.sft(tiny_base, rows, recipe=QUICK)
    adapted = [n for n, _ in again.model.named_modules() if n.endswith("lora_A.default")]
    assert adapted
    assert not any("base_layer.base_layer" in n for n, _ in again.model.named_modules())
    with torch.no_grad():
        torch.testing.assert_close(again.model.eval()(ids).logits, before)


def test_base_weights_never_change(tiny_base, rows) -> None:
    def checksum() -> str:
        digest = hashlib.sha256()
        for name, parameter in sorted(tiny_base.model.named_parameters()):
            if "lora_" not in name:
                digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    trainer = stages.sft(tiny_base, rows, recipe=QUICK)
    before = checksum()
    trainer.train()
    assert checksum() == before


def test_a_row_cut_by_max_length_is_a_warning_and_an_emptied_dataset_an_error(
    tiny_base, rows
) -> None:
    longest = max(len(chat.annotate(tiny_base.tokenizer, m).input_ids) for m in rows["messages"])
    with pytest.warns(UserWarning, match="answer-cut"):
        stages.sft_rows(tiny_base, rows, max_length=longest - 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match="no token of any row would be trained"):
            stages.sft_rows(tiny_base, rows, max_length=5)


def test_bad_rows_are_errors_that_name_the_row(tiny_base, rows) -> None:
    from datasets import Dataset

    with pytest.raises(DataError, match="no rows"):
        stages.sft(tiny_base, rows.select([]), recipe=QUICK)
    bad = [rows[0]["messages"], [{"role": "usr", "content": "hello"}]]
    with pytest.raises(DataError, match="row 1: message 0 has role 'usr'"):
        stages.sft(tiny_base, Dataset.from_dict({"messages": bad}), recipe=QUICK)


def test_prompt_and_completion_rows_train_the_completion(tiny_base, rows) -> None:
    from datasets import Dataset

    pairs = Dataset.from_dict(
        {
            "prompt": [m[:-1] for m in rows["messages"]],
            "completion": [m[-1:] for m in rows["messages"]],
        }
    )
    split = stages.sft_rows(tiny_base, pairs)
    assert split["labels"] == stages.sft_rows(tiny_base, rows)["labels"]


def test_recipes_refuse_sizes_that_make_no_sense() -> None:
    for wrong in ({"steps": 0}, {"lora_r": 0}, {"learning_rate": 0.0}, {"neftune_alpha": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            stages.SFTRecipe(**wrong)


@pytest.fixture
def borrowed_base(base):
    """The shared embedded model, given back without adapters."""
    yield base
    fresh_base(base.model)


def test_qlora_on_the_embedded_model_learns_in_the_compute_dtype(borrowed_base, rows) -> None:
    base = borrowed_base
    recipe = stages.SFTRecipe(
        steps=4, batch_size=2, max_length=64, learning_rate=2e-3, warmup_steps=0, log_every=1
    )
    trainer = stages.sft(base, rows, recipe=recipe)
    trainable = {p.dtype for p in trainer.model.parameters() if p.requires_grad}
    assert trainable == {getattr(torch, base.card.compute_dtype)}
    with warnings.catch_warnings():
        # A kernel without backward pass would warn and train on wrong gradients.
        warnings.filterwarnings("error", message=".*autograd kernel was not registered.*")
        before = trainer.evaluate(trainer.train_dataset.select(range(4)))["eval_loss"]
        trainer.train()
    after = trainer.evaluate(trainer.train_dataset.select(range(4)))["eval_loss"]
    assert after < before - 0.1


def test_answers_are_greedy_and_leave_the_models_mode_alone(base) -> None:
    asked = [[{"role": "user", "content": "Say hello."}], [{"role": "user", "content": "Why?"}]]
    base.model.train()
    try:
        one = stages.answer(base.model, base.tokenizer, asked, max_new_tokens=6)
        assert base.model.training
    finally:
        base.model.eval()
    assert one == stages.answer(base.model, base.tokenizer, asked, max_new_tokens=6)
    alone = stages.answer(base.model, base.tokenizer, asked[1:], max_new_tokens=6)
    assert alone[0] == one[1], "left padding changed an answer"
