"""An ablation's numbers: intervals against published values, differences in pairs, files."""

import json
from math import atan, inf, nan, pi, sqrt, tan
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftkit.errors import RecordError
from ftkit.records import AblationProgress, AblationResult, AblationTrial, Failure
from ftkit.records.ablation_progress import span_text
from ftkit.records.intervals import Interval, interval, student_quantile, student_within

# scipy 1.17.1: scipy.stats.t.ppf(0.975, df) and ppf(0.995, df)
SCIPY = {
    3: (3.1824463052837078, 5.840909309733355),
    4: (2.7764451051977934, 4.604094871349992),
    5: (2.5705818356363146, 4.032142983555228),
    9: (2.262157162798205, 3.249835541592126),
    10: (2.228138851986274, 3.16927267261695),
    29: (2.045229642132703, 2.756385903670605),
    30: (2.0422724563012378, 2.7499956535672254),
    100: (1.9839715185235518, 2.6258905214380173),
}
GRID = {"rank": (4, 16), "mask": ("all", "answer")}


def trial(rank: int, mask: str, seed: int, loss: float | None = None) -> AblationTrial:
    setting = {"rank": rank, "mask": mask}
    if loss is None:
        failure = Failure("ValueError: a | b", "Traceback …")
        return AblationTrial(setting, seed, "failed", {}, 0.5, failure)
    return AblationTrial(setting, seed, "done", {"loss": loss, "acc": 1 - loss / 10}, 2.0)


def result() -> AblationResult:
    """Seeds shift all settings by 1, 2 and 4; the effect of rank 16 is 0.1, 0.2, 0.3."""
    trials = [
        *(trial(4, "all", s, base) for s, base in enumerate((1.0, 2.0, 4.0))),
        *(trial(16, "all", s, loss) for s, loss in enumerate((1.1, 2.2, 4.3))),
        *(trial(16, "answer", s, loss) for s, loss in enumerate((0.5, None, 3.5))),
    ]
    return AblationResult(GRID, {"rank": 4, "mask": "all"}, tuple(trials), "m.train")


@pytest.mark.parametrize("freedom", SCIPY)
def test_the_quantiles_are_scipys(freedom: int) -> None:
    found = [student_quantile(p, freedom) for p in (0.975, 0.995)]
    assert found == pytest.approx(SCIPY[freedom], rel=1e-12)


@pytest.mark.parametrize("p", [0.6, 0.9, 0.975, 0.9995])
def test_one_and_two_degrees_of_freedom_have_closed_forms(p: float) -> None:
    assert student_quantile(p, 1) == pytest.approx(tan(pi * (p - 0.5)), rel=1e-9)
    two = 2 * (p - 0.5) * sqrt(2 / (4 * p * (1 - p)))
    assert student_quantile(p, 2) == pytest.approx(two, rel=1e-9)


@given(st.floats(0.01, 30), st.integers(1, 60))
def test_the_distribution_is_the_integral_of_its_density(t: float, freedom: int) -> None:
    angles = np.linspace(0, atan(t / sqrt(freedom)), 4001)  # x = √ν·tan θ
    density = np.cos(angles) ** (freedom - 1)
    whole = np.cos(np.linspace(0, pi / 2, 4001)) ** (freedom - 1)
    share = np.trapezoid(density, angles) / np.trapezoid(whole, np.linspace(0, pi / 2, 4001))
    assert student_within(t, freedom) == pytest.approx(share, abs=2e-5)


@pytest.mark.parametrize(("p", "freedom"), [(0.5, 3), (1.0, 3), (0.2, 3), (0.975, 0)])
def test_a_quantile_that_does_not_exist_is_refused(p: float, freedom: int) -> None:
    with pytest.raises(ValueError, match="no quantile"):
        student_quantile(p, freedom)


def test_the_interval_of_three_numbers_by_hand() -> None:
    found = interval([1.0, 2.0, 6.0])  # s² = (4 + 1 + 9) / 2 = 7
    assert found.mean == 3.0
    assert found.half == pytest.approx(4.302652729749462 * sqrt(7 / 3), rel=1e-12)
    assert (found.low, found.high) == (3.0 - found.half, 3.0 + found.half)
    assert not found.excludes_zero


def test_one_number_has_no_interval_and_never_excludes_zero() -> None:
    found = interval([5.0])
    assert found == Interval(5.0, None, 1)
    assert not found.excludes_zero
    assert found.low == found.high == 5.0


def test_about_95_of_100_intervals_hold_the_truth() -> None:
    draws = np.random.default_rng(0).normal(3.0, 2.0, size=(4000, 4))
    held = [i.low <= 3.0 <= i.high for i in map(interval, draws.tolist())]
    assert np.mean(held) == pytest.approx(0.95, abs=0.012)  # 3.5 standard errors


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (Interval(2.31, 0.0213, 3), "+2.310 ± 0.021"),
        (Interval(-0.5, 1.2, 3), "−0.5 ± 1.2"),
        (Interval(1234.5, 67.0, 3), "+1,234 ± 67"),
        (Interval(1.2, 3e-16, 3), "+1.2 ± 0"),
        (Interval(0.5, 0.0, 3), "+0.5 ± 0"),
        (Interval(1e-9, 3e-9, 3), "+1e−09 ± 3e−09"),
        (Interval(-0.25, None, 1), "−0.25"),
        (Interval(0.25, inf, 2), "+0.25 ± inf"),
        (Interval(nan, nan, 2), "+nan ± nan"),
    ],
)
def test_numbers_have_as_many_digits_as_their_interval_allows(found: Interval, text: str) -> None:
    assert found.text(signed=True) == text


def test_differences_are_taken_within_a_seed() -> None:
    base, rank, both = result().summary("loss")
    assert base.is_baseline
    assert base.difference is None
    assert rank.difference is not None
    assert rank.difference.mean == pytest.approx(0.2)
    assert rank.difference.half == pytest.approx(4.302652729749462 * 0.1 / sqrt(3), rel=1e-6)
    assert rank.mean is not None
    assert rank.mean.half is not None
    assert rank.mean.half > 10 * rank.difference.half  # the seeds' own spread is gone
    assert list(both.differences) == [0, 2]  # seed 1 failed
    assert list(both.differences.values()) == pytest.approx([-0.5, -0.5])


def test_without_the_baseline_nothing_is_compared() -> None:
    whole = result()
    bare = AblationResult(GRID, whole.baseline, whole.trials[3:])
    assert [s.difference for s in bare.summary()] == [None, None]
    assert bare.summary()[0].mean is not None


def test_each_metric_has_its_own_summary_and_an_unknown_one_is_named() -> None:
    assert result().metrics == ("loss", "acc")
    mean = result().summary("acc")[0].mean
    assert mean is not None
    assert mean.mean == pytest.approx(1 - 7 / 30)
    with pytest.raises(ValueError, match="no trial has the metric 'f1'; there are: loss, acc"):
        result().summary("f1")


def test_the_data_frame_has_a_row_a_trial() -> None:
    frame = result().to_pandas()
    assert list(frame.columns) == ["rank", "mask", "seed", "state", "loss", "acc", *SECONDS]
    assert len(frame) == 9
    failed = frame[frame.state == "failed"]
    assert failed[["rank", "mask", "seed"]].to_numpy().tolist() == [[16, "answer", 1]]
    assert failed.error.tolist() == ["ValueError: a | b"]
    assert frame.groupby("rank").loss.mean()[4] == pytest.approx(7 / 3)


SECONDS = ("seconds", "error")


def test_a_metric_named_like_a_factor_gets_a_column_of_its_own() -> None:
    one = AblationTrial({"rank": 4}, 0, "done", {"rank": 7.0, "seconds": 1.0}, 3.0)
    frame = AblationResult({"rank": (4,)}, {"rank": 4}, (one,)).to_pandas()
    assert frame.loc[0, "rank"] == 4
    assert frame.loc[0, "rank (metric)"] == 7.0
    assert frame.loc[0, "seconds"] == 3.0


def test_the_markdown_table() -> None:
    lines = result().to_markdown().splitlines()
    assert lines[0] == "| rank | mask | seeds | loss | difference to baseline |"
    assert lines[2].endswith("| baseline |")
    assert lines[3].startswith("| 16 | all | 3 | ")
    assert lines[3].endswith(" | +0.20 ± 0.25 |")
    assert lines[4].startswith("| 16 | answer | 2 (1 failed) |")


def test_the_text_names_settings_and_failures() -> None:
    text = str(result())
    assert "ablation of m.train: 8 done, 1 failed" in text
    assert "rank=16, mask=all: loss 2.5 ± 4.0, +0.20 ± 0.25" in text
    assert "failed: rank=16, mask=answer, seed 1: ValueError: a | b" in text


def test_labels_tell_what_varies() -> None:
    fixed = AblationResult({"rank": (4, 8), "lr": (1e-05,)}, {"rank": 4, "lr": 1e-05}, ())
    assert fixed.label({"rank": 8, "lr": 1e-05}) == "rank=8"
    single = AblationResult({"lr": (1e-05,)}, {"lr": 1e-05}, ())
    assert single.label({"lr": 1e-05}) == "lr=1e−05"


def test_saving_and_loading_keeps_everything(tmp_path: Path) -> None:
    path = result().save(tmp_path)
    loaded = AblationResult.load(tmp_path)
    assert path.name == "ablation.json"
    assert loaded.trials == result().trials
    assert loaded.summary() == result().summary()
    assert str(loaded) == str(result())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "other"}, "not an ablation"),
        ({"version": 99}, "update it"),
        ({"factors": {"rank": [4]}}, "other factors"),
        ({"trials": [{"seed": 1}]}, "damaged"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, change: dict[str, object], words: str) -> None:
    path = result().save(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(RecordError, match=words):
        AblationResult.load(tmp_path)


def test_a_missing_file_is_not_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no ablation"):
        AblationResult.load(tmp_path)


def test_the_progress_line_tells_what_ended_and_what_is_left() -> None:
    whole = result()
    text = str(AblationProgress(whole, 20.0, (30.0, 95.0), whole.trials[0]))
    assert text == "9 of 9 · rank=4, mask=all, seed 0 · loss 1, acc 0.9 (2.0 s) · 30 to 95 s left"
    stopped = str(AblationProgress(whole, 20.0, None, whole.trials[7], stopped=True))
    assert stopped.endswith("failed (0.5 s): ValueError: a | b · stopped")


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.2, 0.6, "less than 1 s"),
        (20.0, 20.3, "about 20 s"),
        (90, 150, "1.5 to 2.5 min"),
        (7000, 9000, "1.9 to 2.5 h"),
    ],
)
def test_a_span_of_time_in_words(low: float, high: float, text: str) -> None:
    assert span_text(low, high) == text
