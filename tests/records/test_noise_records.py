"""What a proof concludes from its passes, and how a map counts the tokens that noise turns."""

import math

import numpy as np
import pytest

from ftkit.records import NoiseMap, NoisePass, NoiseProof

QUIET = np.zeros((1, 2, 3), np.float32)
ONE, OTHER = QUIET + 0.1, QUIET - 0.2


def proof(*noises, alpha=5.0) -> NoiseProof:
    modes = (True, True, False, False)
    passes = [NoisePass(mode, noise) for mode, noise in zip(modes, noises, strict=True)]
    return NoiseProof(alpha, [["a", "b"]], np.ones((1, 2), bool), np.ones((1, 2)), passes)


@pytest.mark.parametrize(
    ("noises", "alpha", "word"),
    [
        ((ONE, OTHER, QUIET, QUIET), 5.0, "live"),
        ((QUIET, QUIET, QUIET, QUIET), None, "off: .* α is not set"),
        ((QUIET, QUIET, QUIET, QUIET), 5.0, "off: .* α = 5 was asked for"),
        ((ONE, ONE, QUIET, QUIET), 5.0, "stuck"),
        ((ONE, OTHER, ONE, ONE), 5.0, "leaks"),
    ],
)
def test_the_verdict_follows_from_the_passes(noises, alpha, word) -> None:
    import re

    found = proof(*noises, alpha=alpha)
    assert re.match(word.replace(".* ", r".*\(?"), found.verdict)
    assert found.live is (word == "live")
    assert found.verdict in str(found)


def test_norms_are_over_tokens_and_over_rows() -> None:
    only = NoisePass(True, np.array([[[3.0, 4.0], [0.0, 12.0]]], np.float32))
    assert only.token_l2.tolist() == [[5.0, 12.0]]
    assert only.row_l2.tolist() == [13.0]
    assert only.largest == 12.0
    assert math.isnan(only.loss)


def test_passes_of_different_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="different batches"):
        proof(ONE, OTHER, QUIET, np.zeros((1, 5, 3), np.float32))
    with pytest.raises(ValueError, match="two passes in each mode, not 1 in train"):
        NoiseProof(5.0, [["a"]], np.ones((1, 1), bool), np.ones((1, 1)), [NoisePass(True, ONE)])


def make_map(**changes) -> NoiseMap:
    parts = {
        "words": (" a", " b", " c"),
        "xy": ((0.0, 0.0), (0.1, 0.0), (3.0, 4.0)),
        "kept": 0.4,
        "distances": ((0.0, 2.0, 6.0), (2.0, 0.0, 5.0), (6.0, 5.0, 0.0)),
        "neighbours": ((" A", 1.0), (" B", 1.5), (" C", 9.0)),
        "shadows": (((0.1, 0.2),),) * 3,
        "critical": (0.5, 1.0, 1.0, 2.0),
        "hidden": 12,
        "vocab": 99,
        "mean_l2": 3.0,
    }
    return NoiseMap(**(parts | changes))


def test_a_map_counts_the_tokens_below_a_magnitude() -> None:
    found = make_map()
    assert [found.moved(m) for m in (0.0, 0.5, 0.6, 1.0, 1.5, 9.0)] == [0, 0, 0.25, 0.25, 0.75, 1]
    assert found.l2(0.5) == pytest.approx(1.0)  # 0.5·√(12/3)
    assert found.typical_distance == 1.5


def test_a_map_names_the_pairs_that_look_too_close() -> None:
    assert make_map().closest_looking(1) == [(" a", " b", pytest.approx(0.1), 2.0)]
    assert make_map().closest_looking()[-1][:2] == (" b", " c")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"xy": ((0.0, 0.0),)}, "a place, distances and draws for each"),
        ({"critical": (2.0, 1.0)}, "sorted"),
        ({"critical": ()}, "critical magnitudes of some tokens"),
    ],
)
def test_a_map_with_missing_parts_is_refused(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_map(**changes)
