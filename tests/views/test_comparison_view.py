"""The picture of a comparison: marks where the numbers say, apart without colour, escaped."""

from itertools import pairwise
from math import sqrt

import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st

from ftkit.records import ComparisonPoint, ComparisonResult, ComparisonRun
from ftkit.views.comparison import PANELS, marks_along, spaced


def run(algorithm: str, seed: int, *points) -> ComparisonRun:
    """Each point is (tokens, seconds, gold, kl)."""
    made = (ComparisonPoint(t, s, g, 0.05, k) for t, s, g, k in points)
    return ComparisonRun(algorithm, seed, tuple(made))


def result(*runs: ComparisonRun) -> ComparisonResult:
    return ComparisonResult("tiny <b>", "a <i>", "mood <u>", 1000, 10.0, runs=list(runs))


PPO = run("ppo", 0, (0, 0, 0.2, 0), (900, 9, 0.6, 4))
GRPO = run("grpo", 0, (0, 0, 0.2, 0), (900, 5, 0.4, 1))
POOL = run("best-of-n", 0, (0, 0, 0.2, 0), (900, 3, 0.5, 0.6))


def page(*runs: ComparisonRun) -> BeautifulSoup:
    return BeautifulSoup(result(*runs).to_html(), "html.parser")


def pictures(drawn):
    return drawn.select("svg")


def centre(mark) -> tuple[float, float]:
    x, y = mark["d"][1:].split("m")[0].split()
    return float(x), float(y)


def test_more_gold_is_higher_and_more_kl_or_time_is_to_the_right() -> None:
    for picture in pictures(page(PPO, GRPO)):
        (px, py), (gx, gy) = (centre(mark) for mark in picture.select("path.mark"))
        assert px > gx
        assert py < gy


def test_kl_lies_on_a_root_scale_and_seconds_on_a_plain_one() -> None:
    kl, seconds = pictures(page(PPO, GRPO))
    (px, _), (gx, _) = (centre(mark) for mark in kl.select("path.mark"))
    assert (px - 56) / (gx - 56) == pytest.approx(sqrt(4), rel=0.01)
    (px, _), (gx, _) = (centre(mark) for mark in seconds.select("path.mark"))
    assert (px - 56) / (gx - 56) == pytest.approx(9 / 5, rel=0.01)


def test_each_algorithm_has_a_shape_a_name_and_a_line_a_seed() -> None:
    second = run("ppo", 1, (0, 0, 0.1, 0), (900, 9, 0.4, 2))
    kl, _ = pictures(page(PPO, second, GRPO, POOL))
    shapes = {mark["d"].split("m", 1)[1] for mark in kl.select("path.mark")}
    assert len(shapes) == 3
    assert {label.text for label in kl.select("text.label")} == {"PPO", "GRPO", "best-of-n"}
    assert len(kl.select("path.seed")) == 4
    assert len(kl.select("circle")) == 8


def test_the_mark_is_the_mean_over_seeds_at_the_budget() -> None:
    beyond = run("ppo", 1, (0, 0, 0.2, 0), (1000, 9, 0.4, 4), (2000, 30, 0.9, 9))
    kl, _ = pictures(page(PPO, beyond))
    assert "PPO gold +0.50, KL 4.00 nats" in kl["aria-label"]
    assert "1,000 tokens" in kl.text


def test_far_away_answers_of_best_of_n_do_not_squeeze_the_time_axis() -> None:
    slow = run("best-of-n", 0, (0, 0, 0.2, 0), (900, 9, 0.5, 0.6), (9000, 500, 0.9, 2))
    alone, beside = (pictures(page(*runs))[1] for runs in ([PPO], [PPO, slow]))
    assert centre(alone.select("path.mark")[0])[0] == centre(beside.select("path.mark")[0])[0]


def test_texts_are_escaped_and_failures_are_told() -> None:
    failed = ComparisonRun("dpo", 0, (), failed="<script>no</script>")
    drawn = page(PPO, failed)
    assert not drawn.select("b, i, u, script")
    assert "DPO, seed 0, failed: <script>no</script>" in drawn.text


def test_a_comparison_without_runs_can_be_shown() -> None:
    assert "not yet" in page().text
    assert "<svg" not in result().to_html()


@given(st.lists(st.floats(20, 280), max_size=5).map(sorted))
def test_names_stand_apart_and_inside(wanted) -> None:
    placed = spaced(wanted, 17, (20, 280))
    assert all(b - a >= 17 - 1e-6 for a, b in pairwise(placed))
    assert all(20 - 1e-6 <= height <= 280 for height in placed)
    if all(b - a >= 17 for a, b in pairwise(wanted)):
        assert placed == wanted


@given(st.floats(0.05, 20))
def test_ticks_of_the_root_scale_do_not_crowd(end) -> None:
    places = [at for at, _ in marks_along(PANELS[0], end)]
    assert places[0] == 0
    assert all(b - a >= 0.089 * end for a, b in pairwise(places))
    assert all(at == pytest.approx(sqrt(value)) for at, value in marks_along(PANELS[0], end))


def test_the_figure_has_both_panels_with_every_algorithm() -> None:
    figure = result(PPO, GRPO, POOL).plot(theme="dark")
    left, right = figure.axes
    assert {text.get_text() for text in right.get_legend().get_texts()} == {
        "start", "PPO", "GRPO", "best-of-n",
    }  # fmt: skip
    assert "√" in left.get_xlabel()
    assert "10 s" in right.get_title(loc="left")
