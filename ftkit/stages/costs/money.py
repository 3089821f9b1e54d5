"""From uncertain numbers to a bill: every term is a product, and the total is sampled.

The terms that people argue about (GPU hours) are rarely those that they know least about. So the
estimate is a range, and it names the number that is worth finding out first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from ftkit.errors import SettingsError
from ftkit.records.costs import CostEstimate, CostTerm, Swing
from ftkit.stages.costs.ranges import HIGH, LOW, Range

if TYPE_CHECKING:
    import numpy as np

_BINS = 36


@dataclass(frozen=True, slots=True)
class Factor:
    """One number of a product.

    Attributes:
        name: What it is.
        range: Where it may lie.
        unit: E.g. ``"H100 hours"``; empty for a plain number.
        divides: Whether the term is divided by it, as by a utilization.
        example: Whether it is our example and not a number of yours.
    """

    name: str
    range: Range
    unit: str = ""
    divides: bool = False
    example: bool = False

    def __post_init__(self) -> None:
        if self.divides and self.range.low <= 0:
            raise ValueError(f"{self.name}: the term is divided by it, so it must be above 0")

    @property
    def median(self) -> float:
        """Its middle value."""
        return self.range.quantile(0.5)


Bill = Mapping[str, Sequence[Factor]]
"""Terms by name; each is the product of its factors."""


def term_value(factors: Sequence[Factor], values: Sequence[float] | None = None) -> float:
    """Return the product of the factors at `values`; by default at their medians."""
    at = [factor.median for factor in factors] if values is None else values
    return prod(1 / v if factor.divides else v for factor, v in zip(factors, at, strict=True))


def simulate(
    bill: Bill,
    *,
    title: str = "What it costs",
    currency: str = "USD",
    samples: int = 20_000,
    seed: int = 0,
) -> CostEstimate:
    """Sample the bill.

    Args:
        bill: Terms and their factors; every factor is drawn independently.
        title: Of the picture.
        currency: Of every price in `bill`.
        samples: How many totals are drawn.
        seed: Of the draws; the same seed gives the same estimate.

    Raises:
        SettingsError: no terms, an empty term, or too few samples.
    """
    empty = [name for name, factors in bill.items() if not factors]
    if not bill or empty:
        raise SettingsError(f"a bill needs terms with factors; empty: {empty or 'all of it'}")
    if samples < 100:
        raise SettingsError(f"samples={samples}: 5 % quantiles need 100 samples at least")
    import numpy as np

    source = np.random.default_rng(seed)
    drawn = {name: _draw(factors, source, samples) for name, factors in bill.items()}
    total = np.sum(list(drawn.values()), axis=0)
    counts, edges = np.histogram(total, bins=_BINS, range=(0.0, float(np.quantile(total, 0.99))))
    low, median, high = _quantiles(total)
    return CostEstimate(
        title=title,
        currency=currency,
        terms=tuple(CostTerm(name, *_quantiles(values)) for name, values in drawn.items()),
        low=low,
        median=median,
        high=high,
        mean=float(total.mean()),
        base=sum(term_value(factors) for factors in bill.values()),
        swings=tuple(sorted(_swings(bill), key=lambda s: s.size, reverse=True)),
        edges=tuple(map(float, edges)),
        counts=tuple(map(int, counts)),
        samples=samples,
        notes=_examples(bill),
    )


def _draw(factors: Sequence[Factor], source: "np.random.Generator", samples: int) -> "np.ndarray":
    import numpy as np

    value = np.ones(samples)
    for factor in factors:
        drawn = factor.range.sample(source, samples)
        value = value / drawn if factor.divides else value * drawn
    return value


def _quantiles(values: "np.ndarray") -> tuple[float, float, float]:
    import numpy as np

    low, median, high = np.quantile(values, [LOW, 0.5, HIGH])
    return float(low), float(median), float(high)


def _swings(bill: Bill) -> list[Swing]:
    total = sum(term_value(factors) for factors in bill.values())
    return [
        _swing(name, factors, position, total)
        for name, factors in bill.items()
        for position, factor in enumerate(factors)
        if not factor.range.certain
    ]


def _swing(name: str, factors: Sequence[Factor], position: int, total: float) -> Swing:
    """Move one factor between its quantiles, and leave everything else at its median."""
    factor, medians = factors[position], [f.median for f in factors]
    rest = total - term_value(factors)
    low, high = factor.range.quantile(LOW), factor.range.quantile(HIGH)
    at_low, at_high = (
        rest + term_value(factors, [*medians[:position], end, *medians[position + 1 :]])
        for end in (low, high)
    )
    return Swing(name, factor.name, low, high, factor.unit, at_low, at_high)


def _examples(bill: Bill) -> tuple[str, ...]:
    names = [f.name for factors in bill.values() for f in factors if f.example]
    return (f"examples, not yours: {', '.join(names)}",) if names else ()
