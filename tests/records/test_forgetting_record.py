"""A forgetting study as a record: what is learned and forgotten, saved whole, read back equal."""

import json
from math import isnan, nan

import pytest

from ftkit.errors import RecordError
from ftkit.records import ForgettingResult, ForgettingRun, Scores
from ftkit.records.forgetting import FILE_NAME


def study() -> ForgettingResult:
    return ForgettingResult(
        "Spanish <b>", "prose", Scores(4.0, 2.0, 0.8, 0.6), 10, 100, 0.4, {"steps": 3}
    )


def run(name: str, seed: int, domain: float, general: float, **more) -> ForgettingRun:
    return ForgettingRun(name, "full", seed, Scores(domain, general, 0.7, 0.5), 100, **more)


@pytest.fixture
def result() -> ForgettingResult:
    filled = study()
    filled.runs += [run("full", 1, 3.0, 2.5), run("full", 0, 3.5, 2.1), run("l2", 0, 3.9, 2.0)]
    return filled


def test_learned_is_the_fall_and_forgotten_the_rise(result) -> None:
    assert result.learned(result.runs[0]) == 1.0
    assert result.forgotten(result.runs[0]) == 0.5


def test_a_summary_has_mean_and_extremes_over_the_seeds_in_order(result) -> None:
    full = result.summary("full")
    assert [r.seed for r in full.runs] == [0, 1]
    assert (full.learned.low, full.learned.mean, full.learned.high) == (0.5, 0.75, 1.0)
    assert full.quiz.mean == pytest.approx(-0.1)
    assert str(full.forgotten) == "0.300 (0.100 to 0.500)"
    assert [s.strategy for s in result.summaries()] == ["full", "l2"]


def test_an_unknown_strategy_is_named_with_the_known_ones(result) -> None:
    with pytest.raises(KeyError, match="full, l2"):
        result.summary("lora-8")


def test_one_diverged_seed_makes_the_whole_summary_nan_in_any_order(result) -> None:
    for bad in (nan, float("nan")):
        result.runs.insert(0, run("l2", 9, bad, 2.0))
        spread = result.summary("l2").learned
        assert isnan(spread.low)
        assert isnan(spread.mean)
        assert isnan(spread.high)


def test_saved_and_loaded_it_is_equal(result, tmp_path) -> None:
    result.runs.append(run("lora-4", 0, 3.0, 2.0, spectra={"q": [2.0, 1.0]}, optimizer_mb=0.5))
    result.save(tmp_path)
    assert ForgettingResult.load(tmp_path) == result
    assert [f.name for f in tmp_path.iterdir()] == [FILE_NAME]


def test_nan_survives_as_strict_json(result, tmp_path) -> None:
    result.runs.append(run("lora-4", 0, nan, 2.0))
    text = result.save(tmp_path).read_text()
    assert "NaN" not in text
    assert isnan(ForgettingResult.load(tmp_path).runs[-1].scores.domain_loss)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(format="other"), "not a forgetting study"),
        (lambda d: d.update(version=99), "update it"),
        (lambda d: d.pop("start"), "damaged"),
        (lambda d: d["runs"][0].update(family="<i>"), "unknown family"),
    ],
)
def test_damage_is_named(result, tmp_path, change, says) -> None:
    path = result.save(tmp_path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match=says):
        ForgettingResult.load(tmp_path)


def test_half_a_file_and_no_file_are_told_apart(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="no forgetting study"):
        ForgettingResult.load(tmp_path)
    (tmp_path / FILE_NAME).write_text('{"format": ')
    with pytest.raises(RecordError, match="damaged"):
        ForgettingResult.load(tmp_path)


def test_the_memory_table_adds_up(result) -> None:
    result.runs.append(run("kl", 0, 3.0, 2.0, gradients_mb=20, optimizer_mb=40, extra_mb=30))
    row = result.memory().to_pandas().set_index("strategy").loc["kl"]
    assert list(row) == [100, 30, 20, 40, 90]


def test_the_text_twin_has_one_row_a_run(result) -> None:
    table = result.to_pandas()
    assert table["learned"].tolist() == [1.0, 0.5, pytest.approx(0.1)]
    assert "full: learned 0.750" in str(result)
