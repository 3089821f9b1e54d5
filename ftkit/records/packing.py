"""What packing did to a corpus, and what context of other documents changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Packing:
    """A corpus cut into blocks of one length.

    Attributes:
        input_ids: ``(blocks, block_size)``.
        document_ids: ``(blocks, block_size)``, the index of the document of each token.
        crossing: ``(blocks, block_size)`` bool: whether the position's context holds tokens of an
            earlier document.
        dropped: Tokens of the remainder, which are in no block.
        documents: How many documents the corpus has.

    Raises:
        ValueError: arrays that differ in shape or are not ``(blocks, block_size)``.
    """

    input_ids: NDArray[Any]
    document_ids: NDArray[Any]
    crossing: NDArray[Any]
    dropped: int
    documents: int

    def __post_init__(self) -> None:
        _require_same_shape(
            input_ids=self.input_ids, document_ids=self.document_ids, crossing=self.crossing
        )

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return int(self.document_ids.shape[0])

    @property
    def block_size(self) -> int:
        """Tokens a block."""
        return int(self.document_ids.shape[1])

    @property
    def tokens(self) -> int:
        """Tokens of the corpus, with the dropped ones."""
        return self.blocks * self.block_size + self.dropped

    @property
    def crossing_share(self) -> float:
        """Share of the predictions whose context crosses a document border.

        The last position of a block predicts nothing, so it does not count.
        """
        return float(self.crossing[:, :-1].mean())

    @property
    def documents_per_block(self) -> float:
        """Mean number of documents that a block holds parts of."""
        borders = self.document_ids[:, 1:] != self.document_ids[:, :-1]
        return float(1 + borders.sum(axis=1).mean())

    def segments(self, block: int) -> list["Segment"]:
        """Return the runs of one document in `block`, in order."""
        row = self.document_ids[block]
        borders = [0, *(np.flatnonzero(np.diff(row)) + 1).tolist(), len(row)]
        return [Segment(int(row[a]), a, b) for a, b in pairwise(borders)]


class Segment(NamedTuple):
    """Positions `start` to `stop` (exclusive) of a block, all of one document."""

    document: int
    start: int
    stop: int


class PackingPoint(NamedTuple):
    """The bill of one block size.

    Attributes:
        block_size: Tokens a block.
        crossing_share: See `Packing.crossing_share`.
        dropped_share: Share of the corpus' tokens that are in no block.
    """

    block_size: int
    crossing_share: float
    dropped_share: float


@dataclass(frozen=True, eq=False)
class CrossingEffect:
    """The same blocks twice: all of a block visible, and each document alone.

    Attributes:
        positions: ``(blocks, block_size)``, tokens of its own document that are before each token
            in its block.
        crossing: ``(blocks, block_size)`` bool, as `Packing.crossing`.
        packed: ``(blocks, block_size - 1)`` loss of each prediction in nats, plain packing: the
            context may reach into earlier documents. Entry t is of the position t.
        alone: The same with attention that stops at document borders.
        packed_gradient: L2 norm of the gradient of the mean loss, plain packing.
        alone_gradient: The same with attention that stops at document borders.
        difference: L2 norm of the difference of the two gradients.
        cosine: Cosine between them.
    """

    positions: NDArray[Any]
    crossing: NDArray[Any]
    packed: NDArray[Any]
    alone: NDArray[Any]
    packed_gradient: float
    alone_gradient: float
    difference: float
    cosine: float

    def __post_init__(self) -> None:
        _require_same_shape(positions=self.positions, crossing=self.crossing)
        _require_same_shape(crossing=self.crossing[:, :-1], packed=self.packed, alone=self.alone)

    @property
    def block_size(self) -> int:
        """Tokens a block."""
        return int(self.positions.shape[1])

    @property
    def where(self) -> NDArray[Any]:
        """``(blocks, block_size - 1)`` bool: predictions whose context crosses a border."""
        crossing: NDArray[Any] = self.crossing[:, :-1]
        return crossing

    @property
    def share(self) -> float:
        """Share of the predictions whose context crosses a border."""
        return float(self.where.mean())

    def after_border(self, edges: Sequence[int] = (1, 4, 16, 64)) -> list["AfterBorder"]:
        """Return the mean losses by how many tokens of its own document a prediction sees.

        Only predictions whose context crosses a border are counted.

        Args:
            edges: Upper ends of the bins, inclusive; what lies above is one more bin.
        """
        seen = self.positions[:, :-1] + 1
        lows = [1, *(edge + 1 for edge in edges)]
        highs = [*edges, self.block_size]
        bins = [
            (low, high, self.where & (low <= seen) & (seen <= high))
            for low, high in zip(lows, highs, strict=True)
        ]
        losses = (self.packed, self.alone)
        return [
            AfterBorder(low, high, int(at.sum()), *(float(x[at].mean()) for x in losses))
            for low, high, at in bins
            if at.any()
        ]


class AfterBorder(NamedTuple):
    """Predictions that see `low` to `high` tokens of their own document.

    Attributes:
        low: Fewest tokens of the own document in the context.
        high: Most.
        number: How many predictions.
        packed: Their mean loss in nats, with the earlier documents in view.
        alone: Without them.
    """

    low: int
    high: int
    number: int
    packed: float
    alone: float


def _require_same_shape(**arrays: NDArray[Any]) -> None:
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 2 for shape in shapes.values()):
        raise ValueError(f"all need one shape (blocks, positions), these have {shapes}")
