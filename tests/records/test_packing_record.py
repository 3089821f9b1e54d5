"""What the packing record counts, by hand."""

import numpy as np
import pytest

from ftkit.records import CrossingEffect, Packing

IDS = np.array([[0, 0, 1, 1], [1, 1, 1, 1], [1, 2, 3, 3]])
CROSSING = np.not_equal(IDS, IDS[:, :1])


def packing(**changes) -> Packing:
    fields = {"input_ids": IDS, "document_ids": IDS, "crossing": CROSSING}
    return Packing(**(fields | changes), dropped=2, documents=4)


def effect() -> CrossingEffect:
    positions = np.array([[0, 1, 0, 1], [0, 1, 2, 3], [0, 0, 0, 1]])
    packed = np.arange(9.0).reshape(3, 3)
    return CrossingEffect(positions, CROSSING, packed, packed + 1, 2.0, 3.0, 1.0, 0.5)


def test_counts_by_hand() -> None:
    made = packing()
    assert (made.blocks, made.block_size, made.tokens) == (3, 4, 14)
    assert made.crossing_share == pytest.approx(3 / 9)  # the last positions predict nothing
    assert made.documents_per_block == pytest.approx((2 + 1 + 3) / 3)


def test_segments_are_the_runs_of_one_document() -> None:
    assert packing().segments(0) == [(0, 0, 2), (1, 2, 4)]
    assert packing().segments(1) == [(1, 0, 4)]
    assert packing().segments(2) == [(1, 0, 1), (2, 1, 2), (3, 2, 4)]


def test_losses_behind_a_border_are_binned_by_what_is_seen_of_the_own_document() -> None:
    made = effect()
    assert made.share == pytest.approx(3 / 9)
    assert made.after_border((1, 2)) == [(1, 1, 3, 17 / 3, 20 / 3)]  # positions (0,2), (2,1), (2,2)
    assert [bin.number for bin in made.after_border()] == [3]


@pytest.mark.parametrize("wrong", [IDS[:, :2], IDS.flatten()])
def test_arrays_that_do_not_fit_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match=r"all need one shape \(blocks, positions\)"):
        packing(crossing=wrong)
