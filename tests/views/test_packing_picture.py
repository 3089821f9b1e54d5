"""The packing picture draws every block as the record has it, and escapes the text."""

import numpy as np
import pytest
from bs4 import BeautifulSoup

from ftkit.records import CrossingEffect, Packing, PackingPoint
from ftkit.views.packing import PackingView, packing_html

IDS = np.array([[0, 0, 1, 1], [1, 1, 1, 1], [1, 2, 3, 3]])
CROSSING = np.not_equal(IDS, IDS[:, :1])
SWEEP = (PackingPoint(2, 0.1, 0.0), PackingPoint(8, 0.6, 0.4))


def packing(blocks: int = 1) -> Packing:
    ids, crossing = (np.concatenate([part] * blocks) for part in (IDS, CROSSING))
    return Packing(ids, ids, crossing, dropped=2, documents=4)


def effect(size: int = 4) -> CrossingEffect:
    positions = np.array([[0, 1, 0, 1], [0, 1, 2, 3], [0, 0, 0, 1]])
    crossing = CROSSING
    if size != 4:
        positions, crossing = positions[:, :size], crossing[:, :size]
    packed = np.full(crossing[:, :-1].shape, 2.5)
    return CrossingEffect(positions, crossing, packed, packed + 0.5, 0.8, 0.9, 0.3, 0.75)


def soup(made: Packing, **view) -> BeautifulSoup:
    return BeautifulSoup(packing_html(made, PackingView(**view)), "html.parser")


def test_the_numbers_that_matter_come_first() -> None:
    text = soup(packing()).select_one(".ft-stat").text
    assert "3blocks of 4 tokens" in text
    assert "33.3%of the predictions see another document" in text
    assert "2.00documents a block" in text
    assert "2tokens dropped (14.29%)" in text


def test_each_segment_is_a_bar_of_its_length_and_later_ones_are_hatched() -> None:
    rows = soup(packing()).select("g[data-block]")
    assert [row["data-block"] for row in rows] == ["0", "1", "2"]
    documents = [[bar.title.text for bar in row.select("rect.doc")] for row in rows]
    assert documents[0] == ["document 0, positions 0 to 1", "document 1, positions 2 to 3"]
    assert [len(row.select("rect.cross")) for row in rows] == [1, 0, 2]
    assert [len(row.select("path.border")) for row in rows] == [1, 0, 2]
    widths = [float(bar["width"]) for bar in rows[2].select("rect.doc")]
    assert widths == pytest.approx([162, 162, 324], abs=0.2)


def test_of_many_blocks_ten_around_the_chosen_one_are_drawn() -> None:
    rows = soup(packing(20), block=30).select("g[data-block]")
    assert [int(row["data-block"]) for row in rows] == list(range(27, 37))
    assert len(soup(packing(20), block=59).select("g[data-block]")) == 10
    (marked,) = [r for r in rows if r.select("rect.frame.here")]
    assert marked["data-block"] == "30"
    assert marked.select_one("text.no").text == "▸ 30"


def test_the_text_of_the_chosen_block_is_shown_document_by_document_and_escaped() -> None:
    page = soup(packing(), block=2, texts=["<script>x</script>", "mid " * 200, "end"])
    pieces = page.select(".piece")
    assert [piece.b.text for piece in pieces] == [
        "document 1 · positions 0–0 · sees only itself",
        "document 2 · positions 1–1 · sees the documents above, too",
        "document 3 · positions 2–3 · sees the documents above, too",
    ]
    assert pieces[0].p.text == "<script>x</script>"
    assert not page.select("script")
    assert "[…]" in pieces[1].p.text
    assert len(pieces[1].p.text) < 400


def test_the_curve_marks_the_present_block_size_between_the_others() -> None:
    page = soup(packing(), sweep=SWEEP)
    marks = [float(dot["cx"]) for dot in page.select("circle.dot")[:3]]
    here = float(page.select_one("circle.here")["cx"])
    assert marks == sorted(marks)
    assert here == marks[1] == pytest.approx((marks[0] + marks[2]) / 2)
    assert [t.text for t in page.select("svg text.name")][-4:] == [
        "block size (tokens, doubling)",
        "share",
        "see another document",
        "tokens dropped",
    ]
    assert not soup(packing()).select("circle.here")


def test_what_was_measured_stands_in_tables() -> None:
    page = soup(packing(), effects=[effect(), effect(3)])
    rows = [[cell.text for cell in row.select("td")] for row in page.select("tbody tr")]
    assert rows[0] == ["4", "33.3%", "2.500", "3.000", "0.800", "0.900", "0.750"]
    assert rows[2:] == [["1", "3", "2.500", "3.000", "−0.500"]]
    assert "blocks of 4 tokens" in page.select_one("summary").text
    assert not soup(packing()).select("table")


def test_without_borders_nothing_is_said_about_what_lies_behind_them() -> None:
    whole = Packing(IDS * 0, IDS * 0, CROSSING & False, dropped=0, documents=1)
    flat = np.zeros((3, 3))
    alone = CrossingEffect(IDS, CROSSING & False, flat, flat, 1.0, 1.0, 0.0, 1.0)
    page = soup(whole, effects=[alone])
    assert not page.select("details")
    assert "0.0%of the predictions" in page.select_one(".ft-stat").text
