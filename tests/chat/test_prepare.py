"""`prepare` reads every conversational format, and refuses what it would have to leave out."""

import json

import pytest
from datasets import Dataset

from ftkit.chat import annotate, prepare, templates, truncation
from ftkit.chat.prepare import each_row, is_conversational
from ftkit.errors import DataError

ASKED = {"role": "user", "content": "Is it sunny?"}
SAID = {"role": "assistant", "content": "Yes."}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather_now",
        "description": "The weather.",
        "parameters": {"type": "object", "properties": {}},
    },
}
SHAREGPT = [
    {"from": "system", "value": "Be short."},
    {"from": "human", "value": "Is it sunny?"},
    {"from": "gpt", "value": "Yes."},
]


def test_sharegpt_rows_are_the_conversations_they_mean(tokenizer) -> None:
    meant = [{"role": "system", "content": "Be short."}, ASKED, SAID]
    rows = Dataset.from_list([{"conversations": SHAREGPT}, {"conversations": SHAREGPT}])
    expected = annotate(tokenizer, meant)
    for row in prepare(tokenizer, rows):
        assert row["input_ids"] == expected.input_ids
        assert row["labels"] == expected.labels


def test_conversations_may_have_roles_and_contents(tokenizer) -> None:
    rows = prepare(tokenizer, Dataset.from_list([{"conversations": [ASKED, SAID]}]))
    assert rows[0]["labels"] == annotate(tokenizer, [ASKED, SAID]).labels


@pytest.mark.parametrize("written", [list, json.dumps])
def test_tools_of_a_row_reach_the_template(fresh_tokenizer, written) -> None:
    fresh_tokenizer.chat_template = templates.get("qwen2_5")
    rows = Dataset.from_list([{"messages": [ASKED, SAID], "tools": written([TOOL])}])
    ids = prepare(fresh_tokenizer, rows)[0]["input_ids"]
    assert "weather_now" in fresh_tokenizer.decode(ids)
    assert (
        ids
        == annotate(
            fresh_tokenizer, [ASKED, SAID], tools=rows[0]["tools"] if written is list else [TOOL]
        ).input_ids
    )


@pytest.mark.parametrize("empty", [[], None, ""])
def test_a_row_without_tools_renders_as_if_there_were_no_column(fresh_tokenizer, empty) -> None:
    fresh_tokenizer.chat_template = templates.get("llama3_1")
    rows = Dataset.from_list([{"messages": [ASKED, SAID], "tools": empty}])
    ids = prepare(fresh_tokenizer, rows)[0]["input_ids"]
    assert ids == annotate(fresh_tokenizer, [ASKED, SAID]).input_ids


@pytest.mark.parametrize(("wrong", "why"), [("[{", "not valid JSON"), ("{}", "holds a dict")])
def test_tools_that_cannot_be_read_are_errors_that_name_the_row(tokenizer, wrong, why) -> None:
    rows = [{"messages": [ASKED, SAID], "tools": "[]"}, {"messages": [ASKED, SAID], "tools": wrong}]
    with pytest.raises(DataError, match=f"row 1: column 'tools' .*{why}"):
        prepare(tokenizer, Dataset.from_list(rows))


def test_template_arguments_of_a_row_are_refused_by_name(tokenizer) -> None:
    rows = [{"messages": [ASKED, SAID], "chat_template_kwargs": {"enable_thinking": False}}]
    with pytest.raises(DataError, match="'chat_template_kwargs' is not supported"):
        prepare(tokenizer, Dataset.from_list(rows))


def test_columns_not_single_rows_say_what_is_conversational() -> None:
    assert is_conversational(Dataset.from_list([{"messages": None}, {"messages": [ASKED]}]))
    assert is_conversational(Dataset.from_list([{"prompt": [ASKED], "completion": [SAID]}]))
    assert not is_conversational(Dataset.from_list([{"prompt": "Sunny?", "completion": "Yes."}]))
    assert not is_conversational(Dataset.from_list([{"text": "Yes.", "conversations": "three"}]))


def test_a_row_without_conversation_is_an_error_that_names_it(tokenizer) -> None:
    rows = Dataset.from_list([{"messages": [ASKED, SAID]}, {"messages": None}])
    with pytest.raises(DataError, match="row 1 has no conversation"):
        prepare(tokenizer, rows)


def test_truncation_promises_dropped_rows_only_where_rows_are_cut() -> None:
    rows = Dataset.from_dict({"labels": [[-100, -100], [-100, 5]]})
    (whole,) = truncation(rows, None)
    assert whole.code == "nothing-trained"
    assert "drop" not in whole.message
    cut = truncation(rows, 1)
    assert [f.code for f in cut] == ["nothing-trained", "answer-gone"]
    assert all("unless it packs, the trainer drops them" in f.message for f in cut)


def test_what_makes_the_columns_is_not_pickled_and_nothing_comes_from_a_cache() -> None:
    pickled = []

    class Model:
        size = 1

        def __reduce__(self):
            pickled.append(self)
            return Model, ()

    model, rows = Model(), Dataset.from_list([{"a": 1}, {"a": 2}])

    def columns(row, index):
        return {"b": row["a"] * 10 + index + model.size}

    assert each_row(rows, columns, "test")["b"] == [11, 22]
    model.size = 2
    assert each_row(rows, columns, "test")["b"] == [12, 23]
    assert not pickled, "a whole model would be read to name the result"


def test_rows_of_a_dataset_on_disk_leave_no_file_beside_it(tmp_path) -> None:
    Dataset.from_list([{"a": 1}, {"a": 2}]).save_to_disk(str(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    for _ in range(2):
        made = each_row(Dataset.load_from_disk(str(tmp_path)), lambda row, _: {"b": row["a"]}, "t")
        assert made["b"] == [1, 2]
        assert made.cache_files, "large datasets stay in files"
    assert sorted(tmp_path.rglob("*")) == before
