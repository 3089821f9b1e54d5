"""Numbers that nobody knows exactly: a low and a high end, and what lies between."""

from dataclasses import dataclass
from math import exp, isfinite, log, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np

Kind = Literal["fixed", "lognormal", "triangular"]
_KINDS: tuple[Kind, ...] = ("fixed", "lognormal", "triangular")
_Z95 = NormalDist().inv_cdf(0.95)
LOW, HIGH = 0.05, 0.95
"""Quantiles that a range is reported at."""


@dataclass(frozen=True, slots=True)
class Range:
    """An uncertain number.

    Attributes:
        low: Of a lognormal its 5 % quantile, above 0; of a triangle its least value.
        high: Of a lognormal its 95 % quantile; of a triangle its largest value.
        kind: ``"lognormal"`` for sizes and prices, where half and double are as likely;
            ``"triangular"`` for shares and anything with hard ends; ``"fixed"`` for the known.
        likely: Peak of a triangle; None for its middle.

    Raises:
        ValueError: ends that are not finite, in the wrong order or below 0, or a peak outside.
    """

    low: float
    high: float
    kind: Kind = "lognormal"
    likely: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"Range: kind={self.kind!r} is unknown; use one of {_KINDS}")
        if not (isfinite(self.low) and isfinite(self.high)):
            raise ValueError(f"Range: {self.low} to {self.high} must be finite")
        if not 0 <= self.low <= self.high:
            raise ValueError(
                f"Range: low={self.low} must not be negative, nor above high={self.high}"
            )
        if self.kind == "lognormal" and self.low <= 0:
            raise ValueError("Range: a lognormal needs low above 0; use kind='triangular'")
        if self.kind == "fixed" and self.low != self.high:
            raise ValueError(f"Range: fixed, but {self.low} to {self.high}")
        if self.likely is not None and not self.low <= self.likely <= self.high:
            raise ValueError(f"Range: likely={self.likely} lies outside {self.low} to {self.high}")

    @classmethod
    def exactly(cls, value: float) -> "Range":
        """Return a number that is known."""
        return cls(value, value, "fixed")

    @property
    def certain(self) -> bool:
        """Whether there is nothing to sample."""
        return self.low == self.high

    @property
    def peak(self) -> float:
        """The likeliest value of a triangle."""
        return (self.low + self.high) / 2 if self.likely is None else self.likely

    def quantile(self, share: float) -> float:
        """Return the value that a share of all draws stays below, in closed form."""
        if self.certain:
            return self.low
        if self.kind == "lognormal":
            middle, spread = self._log()
            return exp(middle + spread * NormalDist().inv_cdf(share))
        width, rise = self.high - self.low, self.peak - self.low
        if share * width < rise:
            return self.low + sqrt(share * width * rise)
        return self.high - sqrt((1 - share) * width * (width - rise))

    def sample(self, source: "np.random.Generator", count: int) -> Any:
        """Return `count` draws, a NumPy array ``(count,)``."""
        import numpy as np

        if self.certain:
            return np.full(count, self.low)
        if self.kind == "lognormal":
            return source.lognormal(*self._log(), count)
        return source.triangular(self.low, self.peak, self.high, count)

    def _log(self) -> tuple[float, float]:
        """Mean and standard deviation of the logarithm."""
        low, high = log(self.low), log(self.high)
        return (low + high) / 2, (high - low) / (2 * _Z95)
