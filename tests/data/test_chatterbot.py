"""The corpus as conversations, without duplicates, split without leaks."""

import pytest

from ftkit.data import HELP_DESK, chatterbot, split_by_question, topics
from ftkit.errors import DataError


def test_repeated_pairs_are_kept_once() -> None:
    assert len(chatterbot("tech_support", deduplicate=False)) == 1050
    assert len(chatterbot("tech_support")) == 10


def test_rows_are_conversations_with_an_optional_system_message() -> None:
    row = chatterbot("tech_support", system="Be brief.")[0]
    assert [m["role"] for m in row["messages"]] == ["system", "user", "assistant"]
    assert row["messages"][1]["content"] == row["question"]
    assert row["topic"] == "tech_support"


def test_no_question_stands_on_both_sides_of_the_split() -> None:
    data = chatterbot(HELP_DESK)
    always = ["My printer is not printing."]
    parts = split_by_question(data, held_out=20, always=always)
    train, test = set(parts["train"]["question"]), set(parts["test"]["question"])
    assert not train & test
    assert len(test) == 20
    assert set(always) <= test
    assert len(parts["train"]) + len(parts["test"]) == len(data)


def test_split_is_the_same_for_the_same_seed() -> None:
    data = chatterbot(HELP_DESK)
    one, two = (split_by_question(data, held_out=9, seed=3)["test"]["question"] for _ in "ab")
    assert one == two
    assert one != split_by_question(data, held_out=9, seed=4)["test"]["question"]


def test_bad_requests_are_errors() -> None:
    with pytest.raises(DataError, match="no topic 'cooking'"):
        chatterbot("cooking")
    with pytest.raises(DataError, match="no language 'elvish'"):
        topics("elvish")
    with pytest.raises(DataError, match="at most 1 characters"):
        chatterbot("tech_support", max_chars=1)
    with pytest.raises(DataError, match="held_out=99"):
        split_by_question(chatterbot("tech_support"), held_out=99)
    with pytest.raises(DataError, match="not in the dataset"):
        split_by_question(chatterbot("tech_support"), held_out=2, always=["Why?"])
