"""`stages.sft`: the trainer trains exactly the labels that are shown, on a clean base.

A tiny random model where weights don't matter; the embedded one for the QLoRA run.
"""

import hashlib
import warnings

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTConfig

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

    from trl import SFTTrainer

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
    with pytest.warns(UserWarning, match="trained adapter"):
        again = stages.sft(tiny_base, rows, recipe=QUICK)
    adapted = [n for n, _ in again.model.named_modules() if n.endswith("lora_A.default")]
    assert adapted
    assert not any("base_layer.base_layer" in n for n, _ in again.model.named_modules())
    with torch.no_grad():
        torch.testing.assert_close(again.model.eval()(ids).logits, before)


def test_rows_of_similar_length_share_a_batch_when_asked(tiny_base) -> None:
    rows = data.chatterbot()

    def sizes(together: bool) -> tuple[int, int]:
        """Real tokens of an epoch, and all that its batches hold."""
        recipe = stages.SFTRecipe(
            steps=1, batch_size=8, max_length=128, eval_every=0, group_by_length=together
        )
        masks = [
            batch["attention_mask"]
            for batch in stages.sft(tiny_base, rows, recipe=recipe).get_train_dataloader()
        ]
        return sum(int(mask.sum()) for mask in masks), sum(mask.numel() for mask in masks)

    (grouped, held), (drawn, held_blindly) = sizes(True), sizes(False)
    assert grouped == drawn  # every row once
    assert held < 1.25 * grouped < held_blindly


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
    with pytest.raises(DataError, match="no rows"):
        stages.sft(tiny_base, rows.select([]), recipe=QUICK)
    bad = [rows[0]["messages"], [{"role": "usr", "content": "hello"}]]
    with pytest.raises(DataError, match="row 1: message 0 has role 'usr'"):
        stages.sft(tiny_base, Dataset.from_dict({"messages": bad}), recipe=QUICK)


def test_prompt_and_completion_rows_train_the_completion(tiny_base, rows) -> None:
    pairs = Dataset.from_dict(
        {
            "prompt": [m[:-1] for m in rows["messages"]],
            "completion": [m[-1:] for m in rows["messages"]],
        }
    )
    split = stages.sft_rows(tiny_base, pairs)
    assert split["labels"] == stages.sft_rows(tiny_base, rows)["labels"]


def test_recipes_refuse_sizes_that_make_no_sense() -> None:
    for wrong in (
        *({"steps": 0}, {"lora_r": 0}, {"learning_rate": 0.0}, {"neftune_alpha": -1.0}),
        *({"warmup_steps": -1}, {"eval_every": -1}),
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            stages.SFTRecipe(**wrong)


def test_sharegpt_rows_train_the_answers_alone(tiny_base, rows) -> None:
    names = {"user": "human", "assistant": "gpt"}
    shared = Dataset.from_list(
        [
            {"conversations": [{"from": names[m["role"]], "value": m["content"]} for m in row]}
            for row in rows["messages"]
        ]
    )
    trainer = stages.sft(tiny_base, shared, recipe=QUICK)
    assert trainer.train_dataset["labels"] == stages.sft_rows(tiny_base, rows)["labels"]
    batch = chat.annotate_batch(trainer, rows=2)
    assert {t.role for row in batch.rows for t in row.trained} == {"assistant"}


def test_a_first_row_without_conversation_does_not_hand_the_others_to_trl(tiny_base, rows) -> None:
    mixed = [
        {"messages": None, "text": "a"},
        {"messages": rows[0]["messages"], "text": "b"},
    ]
    with pytest.raises(DataError, match="row 0 has no conversation"):
        stages.sft(tiny_base, Dataset.from_list(mixed), recipe=QUICK)


TEXT = {"text": ["one", "two"]}
PAIRS = {"prompt": ["one ", "two "], "completion": ["1", "2"]}
TOKENIZED = {"input_ids": [[5, 6]], "labels": [[-100, 6]]}


@pytest.mark.parametrize(
    ("columns", "mask"),
    [(TEXT, "last_assistant"), (TEXT, "completion"), (PAIRS, "full"), (TOKENIZED, "full")],
)
def test_a_mask_that_rows_without_roles_cannot_follow_is_refused(tiny_base, columns, mask) -> None:
    with pytest.raises(DataError, match=f"mask='{mask}' does not fit"):
        stages.sft(tiny_base, Dataset.from_dict(columns), mask=mask, recipe=QUICK)


@pytest.mark.parametrize(
    ("columns", "mask"),
    [(TEXT, "assistant"), (TEXT, "full"), (PAIRS, "completion"), (TOKENIZED, "assistant")],
)
def test_rows_without_roles_train_by_the_mask_that_trl_gives_them(tiny_base, columns, mask) -> None:
    trainer = stages.sft(tiny_base, Dataset.from_dict(columns), mask=mask, recipe=QUICK)
    masked = [-100 in labels for labels in trainer.train_dataset["labels"]]
    assert masked == [columns is not TEXT] * len(trainer.train_dataset)


def test_columns_that_sft_cannot_use_are_refused_with_the_stage_that_takes_them(
    tiny_base, rows
) -> None:
    asked, said = rows[0]["messages"][:1], rows[0]["messages"][1:]
    preference = Dataset.from_list([{"prompt": asked, "chosen": said, "rejected": said}])
    with pytest.raises(DataError, match="the reward and DPO stages take"):
        stages.sft(tiny_base, preference, recipe=QUICK)
    with pytest.raises(DataError, match=r"columns \['body'\] hold nothing that SFT trains on"):
        stages.sft_rows(tiny_base, Dataset.from_dict({"body": ["one"]}))
    named = stages.sft_rows(tiny_base, Dataset.from_dict({"body": ["one"]}), text_field="body")
    assert named.column_names == ["body"]


def test_datasets_without_numbered_rows_are_refused(tiny_base, rows) -> None:
    with pytest.raises(DataError, match="not a IterableDataset"):
        stages.sft(tiny_base, rows.to_iterable_dataset(), recipe=QUICK)
    with pytest.raises(DataError, match="not a dict: choose one entry"):
        stages.sft(tiny_base, rows, eval_dataset={"one": rows}, recipe=QUICK)


@pytest.mark.filterwarnings("ignore:.*keep_end:FutureWarning")
def test_cutting_the_beginning_of_rows_is_refused_by_name(tiny_base, rows, tmp_path) -> None:
    args = SFTConfig(output_dir=str(tmp_path), truncation_mode="keep_end", bf16=False, use_cpu=True)
    with pytest.raises(DataError, match="truncation_mode='keep_end'"):
        stages.sft(tiny_base, rows, args=args)


def test_the_trainer_keeps_the_template_that_it_trains_with(tiny_base, rows) -> None:
    own, other = tiny_base.tokenizer.chat_template, chat.templates.get("llama3")
    trainer = stages.sft(tiny_base, rows, chat_template=other, recipe=QUICK)
    assert trainer.processing_class.chat_template == other
    assert tiny_base.tokenizer.chat_template == own
    batch = chat.annotate_batch(trainer, rows=2)
    assert {t.role for row in batch.rows for t in row.trained} == {"assistant"}


class Interrupt(TrainerCallback):
    def on_step_end(self, *_args, **_kwargs) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_interrupted_noisy_run_leaves_no_noise_on_the_base(
    tiny_base, rows, tmp_path, checkpointing
) -> None:
    trainable = {n: p.requires_grad for n, p in tiny_base.model.named_parameters()}
    args = SFTConfig(
        output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=2, bf16=False,
        use_cpu=True, report_to="none", neftune_noise_alpha=50.0,
        gradient_checkpointing=checkpointing,
    )  # fmt: skip
    noisy = stages.sft(tiny_base, rows, args=args, callbacks=[Interrupt()])
    with pytest.raises(KeyboardInterrupt):
        noisy.train()
    with pytest.warns(UserWarning, match="trained adapter"):
        quiet = stages.sft(tiny_base, rows, recipe=QUICK)
    ids = torch.tensor([tiny_base.tokenizer("My printer is not printing.")["input_ids"]])
    quiet.model.train()
    with torch.no_grad():
        torch.testing.assert_close(quiet.model(ids).logits, quiet.model(ids).logits, rtol=0, atol=0)
    base = fresh_base(tiny_base.model)
    assert not base.get_input_embeddings()._forward_hooks
    assert not base.is_activation_checkpointing
    assert {n: p.requires_grad for n, p in base.named_parameters()} == trainable


def test_only_a_trained_adapter_is_removed_with_a_warning(tiny_base, rows) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        stages.sft(tiny_base, rows, recipe=QUICK)
        trainer = stages.sft(tiny_base, rows, recipe=stages.SFTRecipe(steps=1, warmup_steps=0))
    trainer.train()
    with pytest.warns(UserWarning, match="trainer.save_model") as caught:
        trainer = stages.sft(tiny_base, rows, recipe=QUICK)
    assert [w.filename for w in caught if "save_model" in str(w.message)] == [__file__]
    trainer.train()
    fresh_base(tiny_base.model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        stages.sft(tiny_base, rows, recipe=QUICK)


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


def test_no_conversations_have_no_answers(tiny_base) -> None:
    assert stages.answer(tiny_base.model, tiny_base.tokenizer, []) == []


def test_an_answer_ends_with_every_stop_token_of_the_model(tiny_base) -> None:
    model, tokenizer = tiny_base.model, tiny_base.tokenizer
    asked = [[{"role": "user", "content": "Say hello."}]]
    whole = stages.answer(model, tokenizer, asked, max_new_tokens=6, skip_special_tokens=False)
    prompt = tokenizer.apply_chat_template(asked[0], add_generation_prompt=True)["input_ids"]
    first = int(model.eval()(torch.tensor([prompt])).logits[0, -1].argmax())
    model.generation_config.eos_token_id = [first]
    (stopped,) = stages.answer(model, tokenizer, asked, max_new_tokens=6, skip_special_tokens=False)
    assert stopped == tokenizer.decode([first])
    assert len(whole[0]) > len(stopped)
