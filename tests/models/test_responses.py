"""Where responses lie in a padded batch, and which tokens need to be read for them."""

import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from ftkit.models.responses import predicting, response_columns


def needed(rows: list[list[int]], start: int | list[int]) -> list[list[int]]:
    mask = torch.tensor(rows).bool()
    _, real = response_columns(mask, torch.tensor(start))
    return predicting(mask, real).int().tolist()


def test_the_last_token_of_each_response_is_left_out() -> None:
    assert needed([[1, 1, 1, 1, 0], [0, 1, 1, 1, 1]], 2) == [[1, 1, 1, 0], [0, 1, 1, 1]]


def test_a_row_without_a_response_keeps_its_prompt() -> None:
    assert needed([[1, 1, 0, 0], [1, 1, 1, 1]], 2) == [[1, 1, 0], [1, 1, 1]]


def test_columns_behind_the_last_token_read_are_cut_off_and_no_other() -> None:
    assert needed([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]], [2, 1]) == [[1, 1], [1, 0]]


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 5)), min_size=1, max_size=4))
def test_every_response_token_finds_the_state_that_predicts_it(lengths) -> None:
    assume(any(answer for _, answer in lengths))
    longest = max(sum(pair) for pair in lengths)
    mask = torch.arange(longest) < torch.tensor([sum(pair) for pair in lengths])[:, None]
    prompts = torch.tensor([min(prompt, longest - 1) for prompt, _ in lengths])
    columns, real = response_columns(mask, prompts)
    kept = predicting(mask, real)
    rows, places = torch.where(real)[0], columns[real]
    assert kept[rows, places - 1].all()
    assert int(kept.sum()) == int(mask.sum()) - int(real.any(1).sum())
