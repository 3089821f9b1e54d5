"""The quiz and the prose that a forgetting study measures with."""

from collections import Counter

import pytest

from ftkit import data
from ftkit.errors import DataError


def test_the_quiz_has_forty_different_questions_with_four_different_options() -> None:
    rows = data.quiz().to_list()
    assert len({row["question"] for row in rows}) == len(rows) == 40
    assert {len(set(row["options"])) for row in rows} == {4}


def test_the_right_option_stands_equally_often_at_each_place() -> None:
    assert Counter(data.quiz()["answer"]) == {0: 10, 1: 10, 2: 10, 3: 10}
    assert sorted(data.quiz(4)["answer"]) == [0, 1, 2, 3]


def test_the_answers_are_right() -> None:
    right = {row["question"]: row["options"][row["answer"]] for row in data.quiz()}
    assert right["What is two plus two?"] == "four"
    assert right["On which continent is Egypt?"] == "Africa"
    assert right["What do fish use to breathe?"] == "gills"


@pytest.mark.parametrize("rows", [0, 41])
def test_more_questions_than_there_are_and_none_are_refused(rows) -> None:
    with pytest.raises(DataError, match=f"rows={rows}"):
        data.quiz(rows)


def test_the_prose_is_sixteen_different_paragraphs() -> None:
    texts = data.prose()["text"]
    assert len(set(texts)) == 16
    assert all(100 < len(text) < 260 and text.endswith(".") for text in texts)
