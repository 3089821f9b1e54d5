"""What estimates say in text, and what they refuse."""

import pytest

from ftkit.records import CardFit, Change, CostEstimate, CostTerm, MemoryEstimate, Moment, Swing

LOSS = Moment("loss", {"weights": 2e9, "activations": 3e9})
BACKWARD = Moment("backward", {"weights": 2e9, "gradients": 1e9})


def test_the_peak_is_the_highest_moment() -> None:
    record = MemoryEstimate("m", 10, "sft", (BACKWARD, LOSS))
    assert (record.highest, record.peak) == (LOSS, 5e9)
    table = record.to_pandas()
    assert list(table.columns) == ["moment", "part", "GB"]
    assert table["GB"].sum() == pytest.approx(8)
    assert str(record).splitlines()[0] == "m, sft: 5.00 GB at 'loss'"


def test_an_estimate_without_moments_is_refused() -> None:
    with pytest.raises(ValueError, match="one moment at least"):
        MemoryEstimate("m", 10, "sft", ())


def test_cards_answer_in_words() -> None:
    changes = (Change("LoRA r=16", "low rank"), Change("NF4 base", "4 bits"))
    assert str(CardFit(8, True, (), 1e9, True)) == "8 GB: fits"
    assert str(CardFit(8, False, changes, 7e9, True)) == "8 GB: fits after LoRA r=16 + NF4 base"
    assert str(CardFit(8, False, (), 9e9, False)) == "8 GB: no, 9.0 GB even with every change"


def test_a_bill_names_what_is_most_uncertain() -> None:
    swing = Swing("labels", "price", 1, 4, "a label", 10, 40)
    terms = (CostTerm("labels", 10, 20, 40),)
    bill = CostEstimate("Bill", "EUR", terms, 10, 20, 40, 22, 20, (swing,), (0, 50), (9,), 9)
    assert swing.size == 30
    assert bill.most_uncertain is swing
    assert str(bill) == ("Bill: 10 to 40 EUR (90 %), median 20; most uncertain: price (labels)")
    assert list(bill.to_pandas()["term"]) == ["labels", "total"]
