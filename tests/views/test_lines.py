"""Curves over one axis: named beside their ends, told apart without colour, escaped."""

from math import nan

import pytest
from bs4 import BeautifulSoup

from ftkit.records import Lines

TWO = {"a <b>": [(0.0, 1.0), (1.0, 3.0)], "c": [(0.0, 1.0), (1.0, 2.99)]}


def test_curves_carry_names_marks_and_dashes_and_escape() -> None:
    page = BeautifulSoup(Lines("T <i>", "λ", "error", TWO, "Say.").to_html(), "html.parser")
    assert [t.text for t in page.select("text.c0, text.c1")] == ["a <b>", "c"]
    assert not page.select("i, b, script")
    assert len(page.select("path.ln")) == 2
    assert [t.text for t in page.select("text.name")] == ["λ", "error"]
    assert "a <b>: from 1 to 3" in page.svg["aria-label"]


def test_names_that_would_overlap_are_moved_apart() -> None:
    page = BeautifulSoup(Lines("T", "x", "y", TWO).to_html(), "html.parser")
    first, second = (float(t["y"]) for t in page.select("text.c0, text.c1"))
    assert abs(first - second) == pytest.approx(17)


def test_higher_values_are_drawn_higher() -> None:
    page = BeautifulSoup(Lines("T", "x", "y", {"a": TWO["c"]}).to_html(), "html.parser")
    ends = page.select_one("path.ln")["d"][1:].split("L")
    (x0, y0), (x1, y1) = (map(float, end.split()) for end in ends)
    assert x1 > x0
    assert y1 < y0


def test_one_flat_curve_and_one_point_can_be_drawn() -> None:
    for points in ([(0.0, 2.0), (1.0, 2.0)], [(1.0, 0.0)]):
        assert "<svg" in Lines("T", "x", "y", {"a": points}).to_html()


def test_the_text_twin_has_one_row_a_point() -> None:
    table = Lines("T", "x", "y", TWO).to_pandas()
    assert table["y"].tolist() == [1.0, 3.0, 1.0, 2.99]
    assert "a <b>" in str(Lines("T", "x", "y", TWO))


@pytest.mark.parametrize(
    ("curves", "says"),
    [
        ({}, "0 curves"),
        ({str(i): [(0, 0)] for i in range(5)}, "5 curves"),
        ({"a": []}, "'a' needs points"),
        ({"a": [(0.0, nan)]}, "finite"),
    ],
)
def test_what_cannot_be_drawn_is_refused(curves, says) -> None:
    with pytest.raises(ValueError, match=says):
        Lines("T", "x", "y", curves)
