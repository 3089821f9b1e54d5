"""The pictures of memory and money: every number is there, everything is escaped."""

import re

import pytest

from ftkit.records import CardFit, Change, CostEstimate, CostTerm, MemoryEstimate, Moment, Swing
from ftkit.views.cost_planner import amount, cost_html
from ftkit.views.memory_planner import gigabytes, memory_html

EVIL = "<b>x</b>"
LOSS = Moment("loss", {"weights": 2e9, "activations": 3e9, "gradients": 0.0})
BACKWARD = Moment("backward", {"weights": 2e9, "gradients": 1e9})
CARDS = (
    CardFit(8, True, (), 5e9, True),
    CardFit(4, False, (Change("LoRA", "low rank"),), 3e9, True),
    CardFit(1, False, (), 2.5e9, False),
)
MEMORY = MemoryEstimate("tiny", 2_000_000, "sft", (LOSS, BACKWARD), CARDS, ("a note",))
SWINGS = (
    Swing("labels", "price", 1, 4, "a label", 10, 40),
    Swing("people", "hours", 8, 9, "hours", 19, 21),
)
BILL = CostEstimate(
    *("Bill", "EUR", (CostTerm("labels", 9, 20, 40), CostTerm("people", 1, 2, 3))),
    *(10, 20, 40, 22, 20, SWINGS, (0.0, 25.0, 50.0), (70, 30), 100, ("an example",)),
)


def test_each_moment_is_a_bar_and_the_peak_is_framed() -> None:
    html = memory_html(MEMORY)
    widths = [float(w) for w in re.findall(r'class="p[WXG]"[^>]*? width="([\d.]+)"', html)]
    loss, backward = widths[:2], widths[2:]
    assert sum(loss) / sum(backward) == pytest.approx(5 / 3, rel=0.01)
    assert loss[1] / loss[0] == pytest.approx(1.5, rel=0.01)
    assert html.count('class="peak"') == 1
    assert "loss: 5.00 GB; backward: 3.00 GB" in html


def test_colour_never_speaks_alone() -> None:
    html = memory_html(MEMORY)
    assert re.findall(r'<text class="in"[^>]*>(\w)</text>', html) == ["W", "X", "W", "G"]
    assert '<i class="pX">X</i>' in html
    assert "✓ fits" in html
    assert "✗ no" in html
    assert "→ fits after" in html


def test_cards_that_do_not_hold_it_say_how_many_would() -> None:
    html = memory_html(MEMORY)
    assert "needs 3 such cards or more" in html
    assert "<li>LoRA <small>low rank</small></li>" in html
    assert "3.00 GB left" in html


def test_parts_of_the_peak_are_a_table_without_empty_ones() -> None:
    html = memory_html(MEMORY)
    assert '<td class="num">3.00</td><td class="num">60%</td>' in html
    assert "one number a trained weight" not in html


def test_the_tornado_has_the_widest_bar_first_and_both_ends() -> None:
    html = cost_html(BILL)
    widths = [
        float(w)
        for w in re.findall(r'class="(?:first|bar)" x="[\d.]+" y="\d+" width="([\d.]+)"', html)
    ]
    assert widths[0] / widths[1] == pytest.approx(15, rel=0.05)
    assert html.index("price (labels)") < html.index("hours (people)")
    assert "price 1 to 4 moves the total from 10 to 40" in html
    assert ">price<small>is the most uncertain number (of labels)" in html


def test_a_certain_bill_has_no_tornado() -> None:
    fixed = CostEstimate("Bill", "EUR", BILL.terms, 5, 5, 5, 5, 5, (), (0.0, 5.0), (9,), 9)
    html = cost_html(fixed)
    assert "Tornado" not in html
    assert "is uncertain here" in html


def test_everything_is_escaped_and_no_script_is_left() -> None:
    evil = MemoryEstimate(
        EVIL, 1, EVIL, (Moment("loss", {EVIL: 1e9}),),
        (CardFit(8, False, (Change(EVIL, EVIL),), 1e9, True),), (EVIL,),
    )  # fmt: skip
    bill = CostEstimate(
        *(EVIL, EVIL, (CostTerm(EVIL, 1, 2, 3),), 1, 2, 3, 2, 2),
        *((Swing(EVIL, EVIL, 1, 2, EVIL, 1, 3),), (0.0, 3.0), (5,), 5, (EVIL,)),
    )
    for html in (memory_html(evil), cost_html(bill)):
        assert EVIL not in html
        assert "&lt;b&gt;x" in html
        assert "<script" not in html


@pytest.mark.parametrize(
    ("size", "text"), [(5.4e6, "0.0054"), (5.4e8, "0.54"), (36.46e9, "36.5"), (6.04e12, "6,040")]
)
def test_gigabytes_have_as_many_digits_as_help(size, text) -> None:
    assert gigabytes(size) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.347, "0.347"), (119.6, "120"), (14_485, "14.5k"), (1.234e6, "1.23M")]
)
def test_amounts_have_three_digits(value, text) -> None:
    assert amount(value) == text
