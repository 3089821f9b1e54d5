"""What a run will cost: memory by part and moment, and money as a range; plain numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ftkit.showing import Showable

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Moment:
    """What lies in memory at one point of a training step.

    Attributes:
        name: ``"loss"``, ``"backward"``, ``"rollout"``, …
        parts: Bytes by part, e.g. ``{"weights": 5.4e8, "activations": …}``.
    """

    name: str
    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        """Sum of the parts, in bytes."""
        return sum(self.parts.values())


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that saves memory.

    Attributes:
        text: What to do, in a few words.
        price: What it costs.
    """

    text: str
    price: str


@dataclass(frozen=True, slots=True)
class CardFit:
    """Whether a run fits on a card, and what would make it fit.

    Attributes:
        gb: Memory of the card in GB (1e9 bytes).
        fits: Whether it fits as planned.
        changes: The smallest set of changes after which it fits; empty where it fits already.
        peak: Peak in bytes after the changes; where nothing helps, after all of them.
        possible: Whether it fits, as planned or after the changes.
    """

    gb: float
    fits: bool
    changes: tuple[Change, ...]
    peak: float
    possible: bool

    def __str__(self) -> str:
        if self.fits:
            return f"{self.gb:g} GB: fits"
        if self.possible:
            return f"{self.gb:g} GB: fits after {' + '.join(c.text for c in self.changes)}"
        return f"{self.gb:g} GB: no, {self.peak / 1e9:.1f} GB even with every change"


@dataclass(frozen=True)
class MemoryEstimate(Showable):
    """The memory of one training step, by part and moment.

    Attributes:
        model: Name of the model.
        parameters: How many it has.
        plan: The choices in words.
        moments: In the order in which a step passes them.
        cards: Whether it fits on cards of several sizes.
        notes: What the arithmetic does not know about this model.
    """

    model: str
    parameters: int
    plan: str
    moments: tuple[Moment, ...]
    cards: tuple[CardFit, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.moments:
            raise ValueError("a memory estimate needs one moment at least")

    @property
    def highest(self) -> Moment:
        """The moment of the peak."""
        return max(self.moments, key=lambda moment: moment.total)

    @property
    def peak(self) -> float:
        """The most that is held at any moment, in bytes."""
        return self.highest.total

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a moment and part, in GB (1e9 bytes)."""
        import pandas as pd

        rows = [
            {"moment": moment.name, "part": part, "GB": size / 1e9}
            for moment in self.moments
            for part, size in moment.parts.items()
        ]
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        head = f"{self.model}, {self.plan}: {self.peak / 1e9:.2f} GB at '{self.highest.name}'"
        parts = ", ".join(f"{k} {v / 1e9:.2f}" for k, v in self.highest.parts.items() if v)
        return "\n".join([head, f"  {parts}", *(f"  {card}" for card in self.cards)])


@dataclass(frozen=True, slots=True)
class CostTerm:
    """One term of the bill, as sampled.

    Attributes:
        name: ``"GPU"``, ``"labels"``, …
        low: 5 % of the samples lie below.
        median: Half of them do.
        high: 5 % lie above.
    """

    name: str
    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True)
class Swing:
    """What one uncertain number does to the total while every other stays at its median.

    Attributes:
        term: The term it belongs to.
        factor: Its name.
        low_value: Its 5 % quantile.
        high_value: Its 95 % quantile.
        unit: Of the values.
        total_at_low: Total cost at `low_value`.
        total_at_high: Total cost at `high_value`.
    """

    term: str
    factor: str
    low_value: float
    high_value: float
    unit: str
    total_at_low: float
    total_at_high: float

    @property
    def size(self) -> float:
        """Distance of the two totals."""
        return abs(self.total_at_high - self.total_at_low)


@dataclass(frozen=True)
class CostEstimate(Showable):
    """What a project costs, as a range.

    Attributes:
        title: What is estimated.
        currency: Of every amount.
        terms: The bill.
        low: 5 % quantile of the sampled total.
        median: Its median.
        high: Its 95 % quantile.
        mean: Its mean.
        base: Total with every number at its own median.
        swings: The tornado, the widest first.
        edges: Bins of the sampled total, one more than `counts`.
        counts: Samples in each bin.
        samples: How many were drawn.
        notes: E.g. which numbers are examples and not the reader's.
    """

    title: str
    currency: str
    terms: tuple[CostTerm, ...]
    low: float
    median: float
    high: float
    mean: float
    base: float
    swings: tuple[Swing, ...]
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    samples: int
    notes: tuple[str, ...] = field(default=())

    @property
    def most_uncertain(self) -> Swing | None:
        """The number worth finding out first; None where every number is fixed."""
        return self.swings[0] if self.swings and self.swings[0].size > 0 else None

    def to_pandas(self) -> "pd.DataFrame":
        """Return the bill: one row a term, and the total."""
        import pandas as pd

        rows = [(t.name, t.low, t.median, t.high) for t in self.terms]
        rows.append(("total", self.low, self.median, self.high))
        return pd.DataFrame(rows, columns=["term", "low (5 %)", "median", "high (95 %)"])

    def __str__(self) -> str:
        widest = self.most_uncertain
        first = "" if widest is None else f"; most uncertain: {widest.factor} ({widest.term})"
        return (
            f"{self.title}: {self.low:,.0f} to {self.high:,.0f} {self.currency} (90 %), median "
            f"{self.median:,.0f}{first}"
        )
