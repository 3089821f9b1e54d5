"""Continued pre-training: the blocks, the loss, the adapter, and clear refusals."""

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from trl import SFTConfig

from ftkit import stages
from ftkit.algos import group_text
from ftkit.errors import DataError
from ftkit.stages import PretrainRecipe

WORDS = ["the", "raven", "himself", "is", "hoarse", "that", "croaks", "the", "fatal", "entrance"]
RECIPE = PretrainRecipe(steps=2, batch_size=2, block_size=16, eval_every=0, log_every=1)


@pytest.fixture
def corpus() -> Dataset:
    """Ten documents of different lengths."""
    return Dataset.from_dict({"text": [" ".join(WORDS * (1 + i % 4)) for i in range(10)]})


@pytest.fixture
def trainer(tiny_base, corpus):
    return stages.pretrain(tiny_base, corpus, recipe=RECIPE)


def test_the_trainer_gets_the_packed_blocks_with_an_end_after_each_document(
    trainer, tiny_base, corpus
) -> None:
    tokenizer = tiny_base.tokenizer
    documents = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in corpus["text"]]
    expected = group_text(documents, 16)
    assert expected.dropped > 0
    assert trainer.train_dataset["input_ids"] == expected.input_ids.tolist()


def test_every_token_but_the_first_is_trained_and_the_loss_is_the_shifted_cross_entropy(
    trainer,
) -> None:
    batch = trainer._prepare_inputs(
        trainer.data_collator([trainer.train_dataset[i] for i in (0, 1)])
    )
    assert torch.equal(batch["labels"], batch["input_ids"])
    with torch.no_grad():
        logits = trainer.model(input_ids=batch["input_ids"]).logits
        theirs = trainer.compute_loss(trainer.model, batch).item()
    predicted, targets = logits[:, :-1].flatten(0, 1), batch["input_ids"][:, 1:].flatten()
    assert theirs == pytest.approx(cross_entropy(predicted, targets).item(), abs=1e-5)


def test_training_moves_the_adapter_and_leaves_the_base(trainer) -> None:
    start = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    moved = {n for n, p in trainer.model.named_parameters() if not torch.equal(p, start[n])}
    assert moved
    assert all("lora_" in name for name in moved)
    assert len([row for row in trainer.state.log_history if "loss" in row]) == 2


def test_held_out_text_is_packed_and_scored(tiny_base, corpus) -> None:
    recipe = PretrainRecipe(steps=1, batch_size=2, block_size=16, eval_every=1)
    trainer = stages.pretrain(tiny_base, corpus, eval_dataset=corpus, recipe=recipe)
    trainer.train()
    assert [row["step"] for row in trainer.state.log_history if "eval_loss" in row] == [0, 1]


def test_another_column_may_hold_the_text(tiny_base, corpus) -> None:
    renamed = corpus.rename_column("text", "scene")
    rows = stages.pretrain_rows(tiny_base, renamed, block_size=16, text_field="scene")
    assert rows.column_names == ["input_ids"]
    assert rows["input_ids"] == stages.pretrain_rows(tiny_base, corpus, block_size=16)["input_ids"]


def test_a_second_run_warns_of_the_trained_adapter_and_starts_fresh(
    trainer, tiny_base, corpus
) -> None:
    trainer.train()
    with pytest.warns(UserWarning, match="carries a trained adapter"):
        again = stages.pretrain(tiny_base, corpus, recipe=RECIPE)
    up = [p for name, p in again.model.named_parameters() if "lora_B" in name]
    assert up
    assert not any(p.any() for p in up)


@pytest.mark.parametrize(
    ("rows", "options", "says"),
    [
        ([], {}, "the corpus is empty: the dataset has no rows"),
        ([{"text": "to be"}], {}, r"1 documents cannot be packed: block_size=16 is longer than"),
        ([{"text": "to be"}, {"text": " "}], {}, r"row 1 holds no text \(1 of 2 rows\)"),
        ([{"text": None}], {}, "row 0 holds no text"),
        ([{"verse": "to be"}], {}, r"no column 'text' among \['verse'\]"),
        ([{"text": "to be"}], {"args": {"packing": True}}, "pack the blocks again"),
        ([{"text": "to be"}], {"args": {"max_length": 8}}, r"max_length=8\) would cut"),
    ],
)
def test_what_cannot_be_trained_says_why(tiny_base, tmp_path, rows, options, says) -> None:
    if "args" in options:
        given = {"output_dir": str(tmp_path), "use_cpu": True, "report_to": "none"}
        options = {"args": SFTConfig(**given, **options["args"])}
    with pytest.raises(DataError, match=says):
        stages.pretrain(tiny_base, Dataset.from_list(rows), recipe=RECIPE, **options)


def test_what_is_no_dataset_is_refused(tiny_base) -> None:
    with pytest.raises(DataError, match=r"needs a datasets\.Dataset, not a list"):
        stages.pretrain(tiny_base, [{"text": "to be"}])


@pytest.mark.parametrize(
    "wrong", [{"block_size": 1}, {"steps": 0}, {"lora_r": 0}, {"warmup_steps": -1}]
)
def test_a_recipe_refuses_sizes_that_make_no_sense(wrong) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"PretrainRecipe: {name}={value} must"):
        PretrainRecipe(**wrong)


@pytest.mark.parametrize("rate", [0.0, -1e-4, float("nan")])
def test_a_recipe_refuses_rates_that_make_no_sense(rate) -> None:
    with pytest.raises(ValueError, match="learning_rate"):
        PretrainRecipe(learning_rate=rate)
