"""NEFTune's noise as it was read: from the hook in a few passes, step by step, and word by word."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import nan, sqrt
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ftkit.showing import Showable

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class NoisePass:
    """What one forward pass added to the embeddings.

    Attributes:
        training: Whether the model was in train mode.
        noise: ``(batch, time, hidden)``, output of the embedding after every hook minus before.
        loss: Of this pass, nats a trained token; NaN for a batch without labels.
    """

    training: bool
    noise: Floats
    loss: float = nan

    @property
    def largest(self) -> float:
        """Largest component without its sign."""
        return float(np.abs(self.noise).max())

    @property
    def token_l2(self) -> Floats:
        """``(batch, time)`` L2 norm of each token's noise."""
        return np.asarray(np.linalg.norm(self.noise, axis=2), dtype=np.float32)

    @property
    def row_l2(self) -> Floats:
        """``(batch,)`` L2 norm of each row's noise, padding included."""
        return np.asarray(np.linalg.norm(self.noise, axis=(1, 2)), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class NoiseProof(Showable):
    """Passes of one batch in train and in eval mode: is NEFTune on, and only where it should be?

    Attributes:
        alpha: The trainer's α; None where it asks for no noise.
        tokens: Text of each token, ``batch`` rows of ``time``.
        real: Bool ``(batch, time)``, false at padding.
        clean_l2: ``(batch, time)`` L2 norm of each token's embedding before the hook.
        passes: Two or more passes in each mode.

    Raises:
        ValueError: fewer than two passes in a mode, or shapes that do not fit.
    """

    alpha: float | None
    tokens: Sequence[Sequence[str]]
    real: NDArray[np.bool_]
    clean_l2: Floats
    passes: Sequence[NoisePass]

    def __post_init__(self) -> None:
        counts = [sum(p.training is mode for p in self.passes) for mode in (True, False)]
        if min(counts) < 2:
            raise ValueError(
                f"a proof needs two passes in each mode, not {counts[0]} in train and {counts[1]} "
                "in eval mode"
            )
        shapes = {self.real.shape, self.clean_l2.shape, *(p.noise.shape[:2] for p in self.passes)}
        if len(shapes) != 1 or [len(row) for row in self.tokens] != [self.length] * self.batch:
            raise ValueError(f"the passes are of different batches: shapes {sorted(shapes)}")

    @property
    def batch(self) -> int:
        """Rows."""
        return int(self.real.shape[0])

    @property
    def length(self) -> int:
        """L: tokens a row, padding included."""
        return int(self.real.shape[1])

    @property
    def hidden(self) -> int:
        """d: numbers a token."""
        return int(self.passes[0].noise.shape[2])

    def of_mode(self, training: bool) -> list[NoisePass]:
        """Return the passes of one mode, in order."""
        return [p for p in self.passes if p.training is training]

    @property
    def varies(self) -> bool:
        """Whether two train-mode passes added different noise."""
        first, second, *_ = self.of_mode(True)
        return not np.array_equal(first.noise, second.noise)

    @property
    def quiet(self) -> bool:
        """Whether no eval-mode pass added anything."""
        return all(p.largest == 0 for p in self.of_mode(False))

    @property
    def live(self) -> bool:
        """Whether the noise is on in training, new in each pass, and off in evaluation."""
        return self.varies and self.quiet and all(p.largest > 0 for p in self.of_mode(True))

    @property
    def verdict(self) -> str:
        """What the passes show, in one sentence."""
        if self.live:
            return "live: two train passes of one batch differ, two eval passes do not"
        if not self.quiet:
            return "leaks: eval passes carry noise, too, so no held-out number is what it says"
        if all(p.largest == 0 for p in self.of_mode(True)):
            asked = "α is not set" if not self.alpha else f"α = {self.alpha:g} was asked for"
            return f"off: no pass adds anything to the embeddings ({asked})"
        return "stuck: every train pass adds the same, so it is an offset and no noise"

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a token: text, whether it is real, embedding and noise L2, their ratio."""
        import pandas as pd

        noise = self.of_mode(True)[0].token_l2
        rows = [
            {
                "row": row,
                "position": at,
                "text": self.tokens[row][at],
                "real": bool(self.real[row, at]),
                "embedding L2": float(self.clean_l2[row, at]),
                "noise L2": float(noise[row, at]),
                "share": float(noise[row, at] / self.clean_l2[row, at])
                if self.clean_l2[row, at]
                else nan,
            }
            for row in range(self.batch)
            for at in range(self.length)
        ]
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        first = self.of_mode(True)[0]
        return (
            f"NEFTune {self.verdict}; L {self.length}, d {self.hidden}: noise of a token "
            f"{first.token_l2.mean():.3f}, of a row {first.row_l2.mean():.3f} (L2)"
        )


@dataclass(frozen=True, slots=True)
class NoiseStep:
    """The noise of one forward pass inside a run, as the trainer's model got it.

    Attributes:
        step: Optimizer steps finished before it.
        training: Whether the model was in train mode.
        rows: Rows of the batch.
        length: L: tokens a row, padding included.
        largest: Largest component of the noise without its sign.
        token_l2: Mean L2 norm of a token's noise.
        row_l2: Mean L2 norm of a row's noise.
    """

    step: int
    training: bool
    rows: int
    length: int
    largest: float
    token_l2: float
    row_l2: float


@dataclass(frozen=True)
class NoiseMap:
    """Some words on a plane, and what noise it takes to turn a token into another.

    Attributes:
        words: Text of the words on the picture.
        xy: Their places: the two main directions of their embeddings, in embedding units.
        kept: Share of the words' spread that the plane shows, in [0, 1].
        distances: Exact distance of each two words, in embedding units.
        neighbours: For each word the nearest other token of the vocabulary, and its distance.
        shadows: For each word some draws of the noise at m = 1, projected onto the plane.
        critical: Sorted: the m at which each sampled token's nearest embedding becomes another
            token's.
        hidden: d, numbers a token.
        vocab: Tokens of the vocabulary.
        mean_l2: Mean L2 norm of the sampled tokens' embeddings.
        source: Where the sampled tokens come from, in words.
    """

    words: Sequence[str]
    xy: Sequence[tuple[float, float]]
    kept: float
    distances: Sequence[Sequence[float]]
    neighbours: Sequence[tuple[str, float]]
    shadows: Sequence[Sequence[tuple[float, float]]]
    critical: Sequence[float]
    hidden: int
    vocab: int
    mean_l2: float
    source: str = "the words on the map"

    def __post_init__(self) -> None:
        parts = (self.xy, self.distances, self.neighbours, self.shadows)
        if not self.words or any(len(part) != len(self.words) for part in parts):
            raise ValueError("a noise map needs words, and a place, distances and draws for each")
        if not self.critical or list(self.critical) != sorted(self.critical):
            raise ValueError("a noise map needs the critical magnitudes of some tokens, sorted")

    def moved(self, magnitude: float) -> float:
        """Return the share of sampled tokens that `magnitude` turns into another, in [0, 1]."""
        return bisect_left(self.critical, magnitude) / len(self.critical)

    def l2(self, magnitude: float) -> float:
        """Return the L2 norm of a token's noise of this magnitude: m·√(d/3)."""
        return magnitude * sqrt(self.hidden / 3)

    @cached_property
    def typical_distance(self) -> float:
        """Median distance of the words to their nearest neighbours in the vocabulary."""
        return float(np.median([distance for _, distance in self.neighbours]))

    def closest_looking(self, count: int = 3) -> list[tuple[str, str, float, float]]:
        """Return pairs whose picture lies most: both words, seen and exact distance."""
        pairs: list[tuple[str, str, float, float]] = []
        for i, one in enumerate(self.words):
            for j in range(i + 1, len(self.words)):
                seen = float(np.hypot(*np.subtract(self.xy[i], self.xy[j])))
                exact = self.distances[i][j]
                if exact > 0:
                    pairs.append((one, self.words[j], seen, exact))
        return sorted(pairs, key=lambda pair: pair[2] / pair[3])[:count]
