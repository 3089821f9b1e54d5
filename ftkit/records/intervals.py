"""The mean of a few runs and how far to trust it: Student's t interval, exact for small samples.

The quantile comes from the closed form of Student's distribution for whole degrees of freedom, a
finite sum (Abramowitz and Stegun, 26.7.3 and 26.7.4), so no statistics package is needed for one
number. Left out: anything but means of independent numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import atan, cos, floor, isfinite, log10, pi, sin, sqrt, tan
from statistics import fmean, stdev

LEVEL = 0.95
_ROUNDING = 1e-9  # relative; a spread below it is that of floating point


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its 95% confidence interval.

    Attributes:
        mean: Of the values.
        half: Half the width of the interval; None with one value, which says nothing of spread.
        count: How many values.
    """

    mean: float
    half: float | None
    count: int

    @property
    def low(self) -> float:
        """The lower end; the mean where there is no interval."""
        return self.mean - (self.half or 0.0)

    @property
    def high(self) -> float:
        """The upper end; the mean where there is no interval."""
        return self.mean + (self.half or 0.0)

    @property
    def excludes_zero(self) -> bool:
        """Whether there is an interval and 0 is outside of it."""
        return self.half is not None and (self.low > 0 or self.high < 0)

    def text(self, *, signed: bool = False) -> str:
        """Return ``"2.310 ± 0.021"``; the mean alone where there is no interval.

        Args:
            signed: Whether a mean above 0 gets a plus sign, as differences do.
        """
        sign = "+" if signed else ""
        if self.half is None:
            return _minus(f"{self.mean:{sign}.4g}")
        if not isfinite(self.half):
            return _minus(f"{self.mean:{sign}.4g} ± {self.half:g}")
        if self.half <= _ROUNDING * abs(self.mean):
            return _minus(f"{self.mean:{sign}.4g} ± 0")
        digits = max(0, 1 - floor(log10(self.half)))  # two figures of the half width
        if digits > 6 or abs(self.mean) >= 1e6:
            return _minus(f"{self.mean:{sign}.3g} ± {self.half:.2g}")
        return _minus(f"{self.mean:{sign},.{digits}f} ± {self.half:,.{digits}f}")


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of `values` with its 95% interval, ``mean ± t · s / √n``.

    Args:
        values: One finite number a run; at least one.
    """
    mean, count = fmean(values), len(values)
    if count < 2:
        return Interval(mean, None, count)
    quantile = student_quantile((1 + LEVEL) / 2, count - 1)
    return Interval(mean, quantile * stdev(values) / sqrt(count), count)


@lru_cache(maxsize=256)
def student_quantile(probability: float, freedom: int) -> float:
    """Return t with ``P(T ≤ t) = probability`` for Student's T.

    Args:
        probability: Between 0.5 and 1, without the ends.
        freedom: Degrees of freedom, a whole number from 1.

    Raises:
        ValueError: one of them is outside its range.
    """
    if not 0.5 < probability < 1 or freedom < 1:
        raise ValueError(f"no quantile for probability {probability}, freedom {freedom}")
    inside = 2 * probability - 1  # P(|T| ≤ t)
    low, high = 0.0, pi / 2  # of the angle arctan(t / √freedom), which has both ends
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < inside else (low, middle)
    return sqrt(freedom) * tan((low + high) / 2)


def student_within(t: float, freedom: int) -> float:
    """Return ``P(|T| ≤ t)`` for Student's T with `freedom` degrees of freedom."""
    return _within(atan(t / sqrt(freedom)), freedom)


def _within(angle: float, freedom: int) -> float:
    """The finite sums: each term is the one before times (k − 1) / k · cos², k rising by two."""
    odd = freedom % 2
    term = total = (cos(angle) if odd else 1.0) if freedom > 1 else 0.0
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= (k - 1) / k * cos(angle) ** 2
        total += term
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total


def _minus(text: str) -> str:
    return text.replace("-", "−")
