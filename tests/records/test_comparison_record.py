"""A comparison as a record: read at a budget, saved whole, read back equal, and what ships."""

import json
from math import isnan, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftkit.errors import RecordError
from ftkit.records import ComparisonPoint, ComparisonResult, ComparisonRun
from ftkit.records.comparison import FILE_NAME, recorded_folder
from ftkit.records.comparison_run import ALGORITHMS, Sample


def run(algorithm: str, seed: int, *points, **more) -> ComparisonRun:
    """Each point is (tokens, seconds, gold, kl)."""
    made = (ComparisonPoint(t, s, g, 0.05, k, 0.1, 900.0 + t, i)
            for i, (t, s, g, k) in enumerate(points))  # fmt: skip
    return ComparisonRun(algorithm, seed, tuple(made), **more)


@pytest.fixture
def result() -> ComparisonResult:
    filled = ComparisonResult("tiny", "a new adapter", "mood", 1000, 10.0, settings={"lora_r": 4})
    filled.runs += [
        run("ppo", 1, (0, 0, 0.1, 0), (900, 8, 0.3, 2), (1200, 12, 0.9, 5)),
        run("ppo", 0, (0, 0, 0.3, 0), (1000, 11, 0.5, 4)),
        run("dpo", 0, (0, 0, 0.2, 0), (500, 4, 0.4, 1), (500, 20, 0.6, 3)),
        run("best-of-n", 0, (0, 0, 0.2, 0), (400, 2, 0.5, 0.19), (3000, 9, 0.8, 1.2)),
        ComparisonRun("grpo", 0, (), failed="RewardError: <no>"),
    ]
    return filled


def reading(result, budget: str, name: str):
    return next(r for r in result.readings(budget) if r.algorithm == name)


points = st.lists(st.tuples(st.integers(0, 500), st.floats(0, 50)), max_size=12)


@given(points, st.integers(0, 5000), st.floats(0, 500))
def test_a_budget_reads_the_last_point_within_it(steps, tokens, seconds) -> None:
    spent = [(0, 0.0)]
    for more, longer in steps:
        spent.append((spent[-1][0] + more, spent[-1][1] + longer))
    made = run("grpo", 0, *((t, s, 0.0, 0.0) for t, s in spent))
    for budget, limit, place in (("tokens", tokens, 0), ("seconds", seconds, 1)):
        found = made.within(budget, limit)
        assert spent[found.step][place] <= limit
        assert all(later[place] > limit for later in spent[found.step + 1 :])


def test_a_failed_run_has_no_reading(result) -> None:
    assert [r.algorithm for r in result.readings("tokens")] == ["ppo", "dpo", "best-of-n"]
    with pytest.raises(ValueError, match="grpo, seed 0"):
        result.runs[-1].within("tokens", 10)


def test_equal_tokens_and_equal_seconds_are_read_apart(result) -> None:
    assert [p.gold for p in reading(result, "tokens", "ppo").points] == [0.5, 0.3]
    assert [p.gold for p in reading(result, "seconds", "ppo").points] == [0.3, 0.3]
    assert reading(result, "tokens", "dpo").mean("gold") == 0.6
    assert reading(result, "seconds", "dpo").mean("gold") == 0.4
    assert reading(result, "tokens", "best-of-n").points[0].kl == 0.19
    assert reading(result, "tokens", "ppo").span("kl") == (2, 4)


def test_the_start_is_that_of_the_trained_ones(result) -> None:
    assert result.at_start() == (pytest.approx(0.2), pytest.approx(0.05))
    assert isnan(ComparisonResult("m", "s", "r", 1, 1.0).at_start()[0])


def test_a_repeated_run_replaces_its_failure(result) -> None:
    assert [r.algorithm for r in result.failures()] == ["grpo"]
    result.put(run("grpo", 0, (0, 0, 0.2, 0)))
    assert result.failures() == []
    assert sum(r.algorithm == "grpo" for r in result.runs) == 1
    assert result.run("grpo", 0).points


def test_the_table_has_a_row_an_algorithm_and_budget_and_calls_a_bound_a_bound(result) -> None:
    table = result.table().to_pandas()
    assert table["budget"].tolist() == ["1,000 tokens"] * 3 + ["10 s"] * 3
    rows = table[table["budget"] == "1,000 tokens"].set_index("algorithm")
    assert rows.loc["PPO", "gold"] == "+0.40 (+0.30 to +0.50)"
    assert rows.loc["PPO", "tokens"] == 950
    assert rows.loc["PPO", "peak memory, MB"] == 1900
    assert rows.loc["best of 1", "KL, nats"] == "≤ 0.19"
    say = result.table().say
    assert "GRPO, seed 0, failed: RewardError: <no>" in say
    assert "trains nothing" in say


def test_the_same_table_as_markdown_and_text(result) -> None:
    lines = result.to_markdown().splitlines()
    assert lines[1].count("---") == len(result.table().columns)
    assert len([line for line in lines if line.startswith("|")]) == 2 + 6
    assert "10 s: DPO gold +0.40, KL 1.00 nats, 4 s" in str(result)
    assert "grpo, seed 0 failed" in str(result)


def test_where_every_run_failed_the_start_is_said_to_be_unknown() -> None:
    failed = ComparisonResult("tiny", "a new adapter", "mood", 1000, 10.0)
    failed.runs.append(ComparisonRun("grpo", 0, (), failed="RewardError: no"))
    assert "nan" not in f"{failed}{failed.to_markdown()}{failed.to_html()}".lower()
    assert "at the start not yet measured" in str(failed)


def test_the_text_twin_has_a_row_a_point(result) -> None:
    table = result.to_pandas()
    assert len(table) == 11
    assert table[table["algorithm"] == "dpo"]["gold"].tolist() == [0.2, 0.4, 0.6]


def test_saved_and_loaded_it_is_equal(result, tmp_path) -> None:
    samples = (Sample("Hi?", "“Yes”\u2028", 0.5),)
    result.runs.append(run("rloo", 3, (0, 0, 0.5, 0), samples=samples, note="7 pairs"))
    result.save(tmp_path)
    assert ComparisonResult.load(tmp_path) == result
    assert [f.name for f in tmp_path.iterdir()] == [FILE_NAME]


def test_nan_survives_as_strict_json(result, tmp_path) -> None:
    result.runs[0] = ComparisonRun("ppo", 1, (ComparisonPoint(0, 0.0, 0.5),))
    assert "NaN" not in result.save(tmp_path).read_text()
    point = ComparisonResult.load(tmp_path).runs[0].points[0]
    assert isnan(point.memory_mb)
    assert isnan(point.gold_error)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(format="other"), "not a comparison"),
        (lambda d: d.update(version=99), "update it"),
        (lambda d: d.pop("tokens"), "damaged"),
        (lambda d: d["runs"][0].update(algorithm="<i>"), "unknown algorithm"),
        (lambda d: d["runs"][0]["points"][0].update(extra=1), "damaged"),
    ],
)
def test_damage_is_named(result, tmp_path, change, says) -> None:
    path = result.save(tmp_path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match=says):
        ComparisonResult.load(tmp_path)


def test_what_ships_is_whole_and_small() -> None:
    shipped = ComparisonResult.recorded()
    assert (recorded_folder() / FILE_NAME).stat().st_size < 100_000
    assert shipped.failures() == []
    assert shipped.isolated
    for name in ALGORITHMS:
        assert [r.seed for r in shipped.seeds_of(name)] == [0, 1, 2]
    starts = {(r.seed, r.points[0].gold) for r in shipped.runs if r.algorithm != "best-of-n"}
    assert len(starts) == 3, "all trained algorithms start from the same answers"
    for r in shipped.runs:
        assert abs(r.points[0].kl) < 1e-3
        assert len(r.samples) == 4
        assert not isnan(r.points[-1].memory_mb)
    gold, error = shipped.at_start()
    for budget in ("tokens", "seconds"):
        best = max(r.mean("gold") for r in shipped.readings(budget))
        assert best > gold + 2 * error
    assert nan not in [p.kl for r in shipped.runs for p in r.points]
