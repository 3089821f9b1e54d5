"""A trace of groups: what it says of itself, and that it survives the disk whole."""

import json

import pytest

from ftkit.errors import RecordError
from ftkit.records import Answer, Group, GroupStep, GroupTrace


def answer(score: float, advantage: float = 0.0, text: str = "7") -> Answer:
    return Answer(text, {"right": score, "short": 1.0}, advantage, tokens=2, ended=True)


@pytest.fixture
def trace() -> GroupTrace:
    mixed = Group("3 + 4?", (answer(1.0, 0.7071), answer(0.0, -0.7071, "x 😀\u2028怎")))
    equal = Group("1 + 1?", (answer(1.0), answer(1.0)))
    record = GroupTrace("grpo", 2, {"right": 1.0, "short": 0.5}, beta=0.04, max_new_tokens=8)
    record.steps.append(GroupStep(1, (mixed, equal), sampled=4))
    record.steps.append(GroupStep(5, (equal,), sampled=4))
    return record


def test_it_is_the_same_after_saving_and_loading(trace, tmp_path) -> None:
    path = trace.save(tmp_path / "new" / "folder")
    assert GroupTrace.load(path.parent) == trace
    assert [p.name for p in path.parent.iterdir()] == ["groups.json"]


def test_the_reward_is_the_weighted_sum_and_equal_ones_are_silent(trace) -> None:
    mixed, equal = trace.steps[0].groups
    assert trace.reward(mixed.answers[0]) == 1.5
    assert (trace.silent(mixed), trace.silent(equal)) == (False, True)


def test_the_table_has_one_row_an_answer(trace) -> None:
    table = trace.to_pandas()
    assert table["step"].tolist() == [1, 1, 1, 1, 5, 5]
    assert table["advantage"].tolist()[:2] == [0.7071, -0.7071]
    assert table["zero variance"].tolist() == [False, False, True, True, True, True]
    assert {"reward right", "reward short", "reward", "tokens", "ended"} <= set(table)
    assert str(trace) == (
        "GRPO, 3 groups of 2 answers, steps 1, 5; 2 groups without signal (all rewards the same)"
    )
    assert "steps none" in str(GroupTrace("rloo", 2, {}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 9}, "version 9; this ftkit reads"),
        ({"format": "other"}, "is other version 1"),
        ({"weights": {"else": 1.0}}, "have other names"),
        ({"group_size": 3}, "a group of 2 answers instead of 3"),
        ({"steps": [{"step": 1}]}, "is damaged"),
        ({"more": 1}, "is damaged"),
    ],
)
def test_a_damaged_file_is_refused(trace, tmp_path, change, message) -> None:
    path = trace.save(tmp_path)
    data = json.loads(path.read_text()) | change
    path.write_text(json.dumps(data))
    with pytest.raises(RecordError, match=message):
        GroupTrace.load(tmp_path)


def test_what_is_no_trace_at_all_is_refused(tmp_path) -> None:
    with pytest.raises(FileNotFoundError):
        GroupTrace.load(tmp_path)
    (tmp_path / "groups.json").write_text("[1, 2")
    with pytest.raises(RecordError, match="is damaged"):
        GroupTrace.load(tmp_path)


def test_a_number_that_is_not_finite_is_not_written(trace, tmp_path) -> None:
    trace.steps.append(GroupStep(6, (Group("?", (answer(float("nan")),) * 2),), 1))
    with pytest.raises(ValueError, match="JSON"):
        trace.save(tmp_path)
    assert list(tmp_path.glob("groups.json")) == []
