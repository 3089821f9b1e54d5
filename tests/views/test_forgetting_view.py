"""The picture of a study: marks where the numbers say, apart without colour, escaped."""

from math import nan

import pytest
from bs4 import BeautifulSoup

from ftkit.records import ForgettingResult, ForgettingRun, Scores


def study(*points, quiz: int = 40) -> ForgettingResult:
    """Each point is (name, family, seed, learned, forgotten)."""
    result = ForgettingResult("Spanish <b>", "prose <i>", Scores(4.0, 2.0, 0.8, 0.6), quiz, 9, 1.0)
    for name, family, seed, learned, forgotten in points:
        scores = Scores(4.0 - learned, 2.0 + forgotten, 0.7, 0.5)
        result.runs.append(ForgettingRun(name, family, seed, scores, trained=9))
    return result


def page(result: ForgettingResult) -> BeautifulSoup:
    return BeautifulSoup(result.to_html(), "html.parser")


def centre(mark) -> tuple[float, float]:
    x, y = mark["d"][1:].split("m")[0].split()
    return float(x), float(y)


def test_more_learned_is_to_the_right_and_more_forgotten_is_higher() -> None:
    drawn = page(study(("a", "full", 0, 1.0, 0.5), ("b", "lora", 0, 0.5, 0.1)))
    (ax, ay), (bx, by) = (centre(mark) for mark in drawn.select("g > path.mark"))
    assert ax > bx
    assert ay < by


def test_families_differ_in_shape_and_the_key_names_those_that_are_there() -> None:
    drawn = page(study(("a", "full", 0, 1.0, 0.5), ("b", "lora", 0, 0.5, 0.1)))
    shapes = {mark["d"].split("m", 1)[1] for mark in drawn.select("g > path.mark")}
    assert len(shapes) == 2
    assert [s.text for s in drawn.select(".ft-forgetkey span")] == ["all weights", "LoRA"]


def test_seeds_get_dots_and_a_cross_from_the_lowest_to_the_highest() -> None:
    drawn = page(study(("a", "full", 0, 1.0, 0.5), ("a", "full", 1, 0.6, 0.1)))
    dots = sorted(float(dot["cx"]) for dot in drawn.select("circle.seed"))
    (bar,) = drawn.select("path.bar")
    left, right = bar["d"][1:].split("M")[0].split("H")
    assert [float(left.split()[0]), float(right)] == pytest.approx(dots)
    assert not page(study(("a", "full", 0, 1.0, 0.5))).select("circle.seed, path.bar")


def test_names_do_not_lie_on_each_other() -> None:
    crowd = [(f"lora-{i}", "lora", 0, 0.8 + i / 100, 0.1) for i in range(5)]
    labels = page(study(*crowd)).select("text.label")
    spots = {(label["x"], label["y"]) for label in labels}
    rows = [float(label["y"]) for label in labels]
    assert len(spots) == 5
    assert max(rows) - min(rows) > 14


def test_a_diverged_run_is_in_the_table_and_not_in_the_plot() -> None:
    drawn = page(study(("a", "full", 0, 1.0, 0.5), ("burnt", "full", 0, nan, nan)))
    assert len(drawn.select("g > path.mark")) == 1
    assert "diverged" in drawn.table.text
    assert "<svg" not in study(("burnt", "full", 0, nan, nan)).to_html()


def test_names_are_escaped_and_the_picture_is_spoken() -> None:
    drawn = page(study(("<u>x", "full", 0, 1.0, 0.5)))
    assert not drawn.select("b, i, u, script")
    assert "<u>x: learned 1, forgotten 0.5" in drawn.select("svg")[-1]["aria-label"]


def test_without_a_quiz_there_are_no_quiz_columns() -> None:
    with_quiz = page(study(("a", "full", 0, 1.0, 0.5)))
    without = page(study(("a", "full", 0, 1.0, 0.5), quiz=0))
    assert "28 of 40" in with_quiz.table.text
    assert "quiz" not in without.text


def test_a_study_that_has_only_begun_can_be_shown() -> None:
    assert "perplexity before" in page(study()).text
