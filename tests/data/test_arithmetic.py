"""Questions made by code, split without leaks, and a reward that works out the answer itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftkit import data
from ftkit.errors import DataError

SIGNS = {"sum": "+", "difference": "-", "product": "×"}


def numbers(row) -> list[int]:
    first, _, second = row["prompt"][-1]["content"].split(" ")
    return [int(first), int(second)]


@pytest.mark.parametrize("task", SIGNS)
def test_the_instruction_shows_another_question_solved_right(task) -> None:
    parts = data.arithmetic(task, rows=20, held_out=10)
    assert (len(parts["train"]), len(parts["test"])) == (20, 10)
    for row in parts["train"]:
        assert [message["role"] for message in row["prompt"]] == ["system", "user"]
        shown, question = (message["content"] for message in row["prompt"])
        asked, solved = shown.removeprefix("Answer like this: ").split(" = ")
        assert data.right_answer([asked], [solved]) == [1.0]
        assert question.split(" ")[1] == SIGNS[task]
        assert set(question.split(" ")) != set(asked.split(" "))
        assert data.solution(f"{shown} {question}") == data.solution(question) >= 0


@pytest.mark.parametrize("task", SIGNS)
def test_no_two_numbers_meet_in_both_splits(task) -> None:
    parts = data.arithmetic(task, rows=40, held_out=16)
    train, test = ([numbers(row) for row in parts[name]] for name in ("train", "test"))
    assert not {frozenset(pair) for pair in train} & {frozenset(pair) for pair in test}
    for split in (train, test):
        assert len({tuple(pair) for pair in split}) == len(split)


def test_the_seed_decides_and_nothing_else() -> None:
    first, again, other = (data.arithmetic(seed=seed)["train"][:] for seed in (0, 0, 1))
    assert first == again != other


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_solution_is_pythons(a, b) -> None:
    high, low = max(a, b), min(a, b)
    prompts = [f"1 + 2: 3. {a} + {b}", f"{high} - {low}", f"{a} × {b}"]
    expected = [a + b, high - low, a * b]
    assert [data.solution(prompt) for prompt in prompts] == expected
    said = [f"{a} + {b} = {expected[0]}", f" {expected[1]}.\n", f"12 and so {expected[2]}"]
    assert data.right_answer(prompts, said) == [1.0] * 3


@pytest.mark.parametrize("said", ["", "eleven", "1", "4 + 7 = 12", "11 or 12", "111", "１１"])
def test_only_the_right_last_number_counts(said) -> None:
    assert data.right_answer(["4 + 7"], [said]) == [0.0]


def test_what_cannot_be_asked_or_checked_is_refused() -> None:
    with pytest.raises(DataError, match="task 'root' is unknown; use one of sum, difference"):
        data.arithmetic("root")
    with pytest.raises(DataError, match="the numbers 1 to 5 make"):
        data.arithmetic(rows=18, held_out=6, low=1, high=5)
    with pytest.raises(DataError, match="must be at least 1"):
        data.arithmetic(rows=0)
    with pytest.raises(DataError, match="prompt 1 holds no question"):
        data.right_answer(["1 + 2", "How are you?"], ["3", "2"])
