"""`annotate_batch` shows a trainer's own tensors, whoever prepared them."""

import pytest
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from ftkit import chat, data
from ftkit.errors import DataError


def trl_trainer(base, dataset, tmp_path, eval_dataset=None, **options) -> SFTTrainer:
    args = SFTConfig(
        output_dir=str(tmp_path), bf16=False, use_cpu=True, report_to="none",
        gradient_checkpointing=False, **options,
    )  # fmt: skip
    return SFTTrainer(
        model=base.model,
        args=args,
        train_dataset=dataset,
        eval_dataset=eval_dataset,
        processing_class=base.tokenizer,
    )


def test_a_plain_trl_trainer_is_read_as_it_is(tiny_base, tmp_path) -> None:
    rows = data.chatterbot("tech_support")
    trainer = trl_trainer(tiny_base, rows, tmp_path)
    batch = chat.annotate_batch(trainer, rows=3)
    assert len(batch.rows) == 3
    for row, prepared in zip(batch.rows, trainer.train_dataset, strict=False):
        real = [t for t in row.tokens if t.part != "pad"]
        assert [t.id for t in real] == prepared["input_ids"]
        assert [t.label for t in real] == prepared["labels"]
        assert {t.role for t in real} == {None, "user", "assistant"}
        assert "".join(t.text for t in row.tokens) == row.text
    # TRL trains the whole sequence of rows with messages unless told otherwise.
    assert all(t.trained for row in batch.rows for t in row.tokens if t.part != "pad")


@pytest.mark.parametrize(("hidden", "code"), [(False, "trained"), (True, "untrained")])
def test_each_row_says_whether_its_stop_token_is_trained(tiny_base, tmp_path, hidden, code) -> None:
    trainer = trl_trainer(tiny_base, data.chatterbot("tech_support"), tmp_path)
    stop = tiny_base.tokenizer.eos_token_id

    def labels(row):
        return {"labels": [-100 if hidden and i == stop else i for i in row["input_ids"]]}

    trainer.train_dataset = trainer.train_dataset.map(labels)
    for row in chat.annotate_batch(trainer, rows=2).rows:
        assert f"stop-token-{code}" in {finding.code for finding in row.findings}


def test_padding_is_shown_and_carries_no_loss(tiny_base, tmp_path) -> None:
    trainer = trl_trainer(tiny_base, data.chatterbot("tech_support"), tmp_path)
    batch = chat.annotate_batch(trainer, rows=6)
    assert len({len(row.tokens) for row in batch.rows}) == 1
    padding = [t for row in batch.rows for t in row.tokens if t.part == "pad"]
    assert padding
    assert not any(t.trained for t in padding)
    assert {t.id for t in padding} == {tiny_base.tokenizer.pad_token_id}


def test_rows_without_messages_are_shown_without_roles(tiny_base, tmp_path) -> None:
    texts = Dataset.from_dict({"text": ["Plain text, 怎么办?", "More."]})
    batch = chat.annotate_batch(trl_trainer(tiny_base, texts, tmp_path), rows=2)
    assert batch.rows[0].text.startswith("Plain text, 怎么办?")
    assert {t.role for row in batch.rows for t in row.tokens} == {None}
    assert batch.to_pandas()["row"].unique().tolist() == [0, 1]


def test_answers_cut_by_the_trainers_max_length_are_found(tiny_base, tmp_path) -> None:
    trainer = trl_trainer(tiny_base, data.chatterbot("tech_support"), tmp_path, max_length=40)
    codes = {f.code for f in chat.annotate_batch(trainer).findings}
    assert "answer-cut" in codes


def test_a_trainer_without_rows_is_an_error(tiny_base, tmp_path) -> None:
    trainer = trl_trainer(tiny_base, data.chatterbot("tech_support"), tmp_path)
    with pytest.raises(DataError, match="no eval rows"):
        chat.annotate_batch(trainer, split="eval")
    with pytest.raises(DataError, match="rows=0"):
        chat.annotate_batch(trainer, rows=0)
    with pytest.raises(DataError, match="split='test' is unknown"):
        chat.annotate_batch(trainer, split="test")


@pytest.mark.parametrize("strategy", ["bfd", "wrapped"])
def test_packed_rows_are_shown_without_roles_and_say_so(tiny_base, tmp_path, strategy) -> None:
    rows = data.chatterbot("tech_support")
    trainer = trl_trainer(
        tiny_base, rows, tmp_path, packing=True, packing_strategy=strategy, max_length=256
    )
    batch = chat.annotate_batch(trainer, rows=2)
    shown = [t.id for row in batch.rows for t in row.tokens if t.part != "pad"]
    assert shown == [i for row in trainer.train_dataset.select(range(2)) for i in row["input_ids"]]
    if strategy == "bfd":
        lengths = [n for row in trainer.train_dataset.select(range(2)) for n in row["seq_lengths"]]
        assert [len(row.tokens) for row in batch.rows] == lengths
        # A sequence's first token follows on the one before it, so the collator masks it.
        assert not any(row.tokens[0].trained for row in batch.rows)
    assert {t.role for row in batch.rows for t in row.tokens} == {None}
    (finding,) = [f for f in batch.findings if f.code == "packed-rows"]
    assert finding.severity == "info"


def test_rows_of_a_padding_free_batch_keep_their_roles(tiny_base, tmp_path) -> None:
    trainer = trl_trainer(
        tiny_base, data.chatterbot("tech_support"), tmp_path, padding_free=True, max_length=None,
        pad_to_multiple_of=64,
    )  # fmt: skip
    batch = chat.annotate_batch(trainer, rows=3)
    assert len(batch.rows) == 3
    assert all("assistant" in {t.role for t in row.tokens} for row in batch.rows)
    assert "packed-rows" not in {f.code for f in batch.findings}


def test_datasets_whose_rows_cannot_be_looked_up_are_errors(tiny_base, tmp_path) -> None:
    rows = data.chatterbot("tech_support").select(range(4))
    trainer = trl_trainer(tiny_base, rows, tmp_path, eval_dataset={"one": rows, "two": rows})
    with pytest.raises(DataError, match="the eval dataset is a dict"):
        chat.annotate_batch(trainer, split="eval")
    stream = trl_trainer(tiny_base, rows.to_iterable_dataset(), tmp_path, max_steps=1)
    with pytest.raises(DataError, match="the train dataset is a IterableDataset"):
        chat.annotate_batch(stream)


def test_tools_of_a_row_do_not_hide_its_roles(tiny_base, tmp_path) -> None:
    tiny_base.tokenizer.chat_template = chat.templates.get("qwen2_5")
    tool = '[{"type": "function", "function": {"name": "weather_now", "description": "d"}}]'
    messages = data.chatterbot("tech_support")[0]["messages"]
    rows = Dataset.from_list([{"messages": messages, "tools": tool}] * 2)
    (row,) = chat.annotate_batch(trl_trainer(tiny_base, rows, tmp_path), rows=1).rows
    assert "weather_now" in row.text
    assert "assistant" in {t.role for t in row.tokens}
