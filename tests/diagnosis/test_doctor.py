"""What `doctor` takes, what it refuses, and that rows, evidence and sampling are told truly."""

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from patients import alarms, chats, pairs, severities, sft_trainer

import ftkit
from ftkit import doctor, stages
from ftkit.diagnosis.case import Case
from ftkit.diagnosis.gathering import gather, merged
from ftkit.diagnosis.pairs import read_pair
from ftkit.diagnosis.preferences import cohens_d
from ftkit.diagnosis.rows import Rows
from ftkit.errors import ChatError, DataError, SettingsError
from ftkit.findings import Finding


def test_doctor_is_the_function_and_the_room_has_another_name() -> None:
    assert callable(ftkit.doctor)
    assert ftkit.diagnosis.doctor is ftkit.doctor


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({}, SettingsError, "nothing to examine"),
        ({"trainer": "trainer"}, SettingsError, "a str is no trainer"),
        ({"dataset": []}, DataError, "no rows"),
        ({"dataset": "rows.jsonl"}, DataError, "a str is no dataset"),
        ({"dataset": [1, 2]}, DataError, "row 0 is no dict"),
        ({"dataset": DatasetDict(train=chats())}, DataError, "choose one split.*train"),
        ({"dataset": [{"a": 1}]}, DataError, "columns .'a'. hold nothing"),
        ({"dataset": chats()}, SettingsError, "need tokenizer="),
        ({"dataset": pairs(), "rows": 0}, DataError, "rows=0"),
        ({"dataset": pairs(), "mask": "all"}, SettingsError, "mask 'all' is unknown"),
        ({"scripts": ["missing.py"]}, DataError, "missing.py cannot be read"),
    ],
)
def test_bad_input_is_a_clear_error(given, error, says) -> None:
    with pytest.raises(error, match=says):
        doctor(**given)


def test_a_template_with_a_syntax_error_is_named(tokenizer) -> None:
    with pytest.raises(ChatError, match="syntax error in line 1"):
        doctor(tokenizer=tokenizer, chat_template="{% for m in messages %}")


def test_rows_are_numbered_as_in_the_dataset(tokenizer) -> None:
    rows = list(chats(40))
    rows[17] = {"messages": rows[17]["messages"][:1]}
    report = doctor(tokenizer=tokenizer, dataset=rows)
    (found,) = [f for f in report.findings if f.code == "nothing-trained"]
    assert (found.rows, found.severity) == ((17,), "warning")
    assert found.message.startswith("1 of 40 rows. In row 17")
    assert report.lengths is not None
    assert sum(report.lengths.bins) == 40


def test_rows_that_keep_an_answer_are_cut_and_not_gone(tokenizer) -> None:
    rows = [*chats(2), {"messages": [*chats(2)[0]["messages"], *chats(2)[1]["messages"]]}]
    whole = len(tokenizer.apply_chat_template(rows[0]["messages"], tokenize=True)["input_ids"])
    report = doctor(tokenizer=tokenizer, dataset=rows, max_length=whole + 2)
    assert report.lengths is not None
    assert (report.lengths.whole, report.lengths.cut, report.lengths.gone) == (2, 1, 0)
    assert severities(report)["answer-gone"] == "warning"


def test_every_old_call_of_every_script_is_listed(tmp_path) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("from trl import Gone\nfrom trl import Away\n")
    report = doctor(scripts=[tmp_path / "a.py", tmp_path / "b.py"])
    assert [f.where for f in report.errors] == [
        *("a.py, line 1", "a.py, line 2", "b.py, line 1", "b.py, line 2"),
    ]


def test_a_large_dataset_is_read_in_part_and_evenly(tokenizer) -> None:
    report = doctor(tokenizer=tokenizer, dataset=chats(100), rows=10)
    assert report.read == "10 of 100 rows, evenly spread"


def test_a_stream_is_sampled_from_its_beginning(tokenizer) -> None:
    def endless():
        while True:
            yield from chats(3)

    from datasets import IterableDataset

    report = doctor(tokenizer=tokenizer, dataset=IterableDataset.from_generator(endless), rows=25)
    assert report.read == "25 of the first 100 rows of a stream, evenly spread"
    assert severities(report)["stop-token-trained"] == "ok"


def test_a_trainer_on_a_stream_is_read_too(tiny_base, tmp_path) -> None:
    trainer = sft_trainer(tiny_base, chats(20).to_iterable_dataset(), tmp_path)
    report = doctor(trainer, rows=5)
    assert report.read == "5 of the first 20 rows of a stream, evenly spread"
    assert severities(report)["share-trained"] == "ok"
    assert alarms(report) == {}


def test_what_the_trainer_holds_counts_not_what_was_meant(tiny_base, tmp_path) -> None:
    """A mask that is broken after all preparation is seen, since labels are read and not made."""
    trainer = sft_trainer(tiny_base, chats(4), tmp_path)
    trainer.train_dataset = trainer.train_dataset.map(
        lambda row: {"labels": [-100] * len(row["labels"])}
    )
    assert severities(doctor(trainer))["nothing-trained"] == "error"


def test_a_collator_that_masks_everything_is_named(tiny_base, tmp_path) -> None:
    trainer = sft_trainer(tiny_base, chats(4), tmp_path)
    good = trainer.data_collator

    def masks_all(examples):
        batch = good(examples)
        return {**batch, "labels": batch["labels"].fill_(-100)}

    trainer.data_collator = masks_all
    (found,) = [f for f in doctor(trainer).findings if f.code == "nothing-trained"]
    assert "masks_all" in found.message
    assert found.where == "first batch"


def test_pad_that_is_eos_is_a_note_where_the_collator_keeps_the_stop(tiny_base, tmp_path) -> None:
    tiny_base.tokenizer.pad_token = tiny_base.tokenizer.eos_token
    report = doctor(sft_trainer(tiny_base, chats(4), tmp_path))
    assert severities(report)["pad-is-eos"] == "info"


def test_a_finished_run_is_judged_by_its_log(tiny_base, tmp_path) -> None:
    trainer = sft_trainer(tiny_base, chats(4), tmp_path)
    trainer.state.log_history = [{"loss": 0.0, "step": 1}, {"loss": 0.0, "step": 2}]
    assert severities(doctor(trainer))["loss-zero"] == "error"


@pytest.mark.parametrize("column", ["text", "body"])
def test_plain_text_is_tokenized_as_trl_does_it(tokenizer, column) -> None:
    rows = [{column: "Words, " * n} for n in (1, 5, 400)]
    report = doctor(tokenizer=tokenizer, dataset=rows, text_field=column, max_length=100)
    (cut,) = [f for f in report.findings if f.code == "answer-cut"]
    assert cut.rows == (2,)
    assert report.lengths is not None
    assert (report.lengths.whole, report.lengths.cut) == (2, 1)


def test_prompt_and_completion_that_grow_together_are_found(tokenizer) -> None:
    good = [{"prompt": "Say:", "completion": " yes"}] * 2
    bad = [{"prompt": "Say: ", "completion": "yes"}] * 2
    assert "prompt-mismatch" not in severities(doctor(tokenizer=tokenizer, dataset=good))
    assert severities(doctor(tokenizer=tokenizer, dataset=bad))["prompt-mismatch"] == "warning"


def test_the_patched_template_takes_the_finding_away(fresh_tokenizer) -> None:
    report = doctor(tokenizer=fresh_tokenizer, dataset=chats())
    assert severities(report)["generation-markers"] == "warning"
    fresh_tokenizer.chat_template = report.template
    again = doctor(tokenizer=fresh_tokenizer, dataset=chats())
    assert severities(again)["generation-markers"] == "ok"
    assert again.template is None


class OldCollator:
    """What tutorials used before TRL 0.20, in short: it looks for the ids of a template."""

    def __init__(self, good, ids: list[int]) -> None:
        self.good, self.response_token_ids = good, ids

    def __call__(self, examples):
        return self.good(examples)


def test_a_collator_that_looks_for_ids_which_never_occur_is_named(tiny_base, tmp_path) -> None:
    trainer = sft_trainer(tiny_base, chats(4), tmp_path)
    ids = tiny_base.tokenizer("assistant\n", add_special_tokens=False)["input_ids"]
    good = trainer.data_collator
    trainer.data_collator = OldCollator(good, ids)
    assert "response-template-context" not in severities(doctor(trainer))
    trainer.data_collator = OldCollator(good, [*ids, 7])
    (found,) = [f for f in doctor(trainer).findings if f.code == "response-template-context"]
    assert (found.severity, found.rows) == ("error", (0, 1, 2, 3))
    assert found.evidence.startswith("looks for")


def test_a_trainer_without_a_tokenizer_asks_for_one(tiny_base, tmp_path) -> None:
    trainer = sft_trainer(tiny_base, chats(4), tmp_path)
    trainer.processing_class = None
    with pytest.raises(SettingsError, match="give tokenizer="):
        doctor(trainer)
    assert alarms(doctor(trainer, tokenizer=tiny_base.tokenizer)) == {}


def test_our_own_stages_raise_no_alarm(tiny_base, tmp_path) -> None:
    recipe = stages.SFTRecipe(steps=1, batch_size=2)
    report = doctor(stages.sft(tiny_base, chats(6), recipe=recipe))
    assert alarms(report) == {}
    assert "prompts-trained" not in severities(report)
    scored = stages.RewardRecipe(steps=1, batch_size=2)
    report = doctor(stages.reward(tiny_base, pairs(), recipe=scored))
    assert alarms(report) == {}
    assert severities(report)["score-head-saved"] == "ok"


def test_our_ppo_trainer_is_read(tiny_base, tmp_path) -> None:
    trainer = ftkit.PPOTrainer(
        tiny_base,
        ["Hello?"] * 4,
        reward=lambda prompts, completions: [0.0] * len(prompts),
        config=ftkit.PPOConfig(batch_size=2, minibatches=1, iterations=1, lora_r=2),
        output_dir=tmp_path,
    )
    report = doctor(trainer)
    assert (report.subject, alarms(report)) == ("PPOTrainer", {})
    assert severities(report)["prompts-fit"] == "ok"
    trainer.progress.history += [{"objective/kl": kl} for kl in (0.0, -3.0, -4.0, -5.0)]
    assert severities(doctor(trainer))["kl-negative"] == "error"


def test_conversational_pairs_are_rendered_with_a_tokenizer(tokenizer) -> None:
    report = doctor(tokenizer=tokenizer, dataset=pairs(), max_length=45)
    found = severities(report)
    assert found["stop-token-trained"] == "ok"
    assert report.lengths is not None
    assert sum(report.lengths.bins) == 12


def test_pairs_of_a_trainer_whose_answers_do_not_end_are_found(tiny_base, tmp_path) -> None:
    trainer = stages.reward(tiny_base, pairs(), recipe=stages.RewardRecipe(steps=1, batch_size=2))
    trainer.train_dataset = trainer.train_dataset.map(
        lambda row: {"chosen_ids": row["chosen_ids"][:-1]}
    )
    (found,) = [f for f in doctor(trainer).findings if f.code == "ends-without-stop"]
    assert found.where == "chosen_ids"


def test_cohens_d_is_the_textbooks() -> None:
    assert cohens_d([2, 3, 4], [1, 2, 3]) == pytest.approx(1.0)  # means 1 apart, both variances 1
    random = np.random.default_rng(0)
    a, b = random.normal(3, 2, 50), random.normal(2, 1, 50)
    pooled = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    assert cohens_d(list(a), list(b)) == pytest.approx((a.mean() - b.mean()) / pooled)
    assert cohens_d([1.0], [2.0]) == cohens_d([1.0, 1.0], [1.0, 1.0]) == 0.0


def test_preferences_need_no_tokenizer_and_split_common_prompts() -> None:
    question = [{"role": "user", "content": "How was it?"}]
    rows = [
        {
            "chosen": [*question, {"role": "assistant", "content": f"Great {i}."}],
            "rejected": [*question, {"role": "assistant", "content": f"Great {i}."}],
        }
        for i in range(3)
    ]
    report = doctor(dataset=Dataset.from_list(rows))
    assert severities(report)["pairs-identical"] == "error"


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("Human: Hi. Assistant: Hello!", "Human: Hi. Assistant: Go!", "Human: Hi. Assistant: "),
        ("Same words here", "Same words here and more", "Same words "),
        ("Yes", "No", ""),
    ],
)
def test_a_prompt_in_both_sides_is_taken_off_at_a_word(chosen, rejected, prompt) -> None:
    pair = read_pair(Case("x", Rows([], 0)), 0, {"chosen": chosen, "rejected": rejected})
    assert pair.prompt == prompt
    assert (prompt + pair.chosen, prompt + pair.rejected) == (chosen, rejected)


def test_an_error_in_few_rows_is_a_warning() -> None:
    bad = Finding("x", "error", "bad")
    (few,) = gather([(3, bad)], total=10)
    (most,) = gather([(i, bad) for i in range(6)], total=10)
    assert (few.severity, few.rows) == ("warning", (3,))
    assert most.severity == "error"
    pad = Finding("pad-is-eos", "warning", "same", where="message 1")
    (of_all,) = gather([(i, pad) for i in range(10)], total=10)
    assert (of_all.message, of_all.rows, of_all.where) == ("same", (), "")


def test_the_gravest_of_one_code_is_kept_and_refutes_the_passed_check() -> None:
    found = [
        Finding("stop-token-trained", "ok", ""),
        Finding("a", "info", "first"),
        Finding("a", "warning", "second"),
        Finding("stop-token-untrained", "error", ""),
    ]
    assert [(f.code, f.severity) for f in merged(found)] == [
        ("stop-token-untrained", "error"),
        ("a", "warning"),
    ]
