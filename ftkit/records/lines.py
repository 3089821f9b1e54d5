"""A few curves that belong in one picture: a sweep over λ, a distance against its price, …"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from ftkit.showing import Showable

if TYPE_CHECKING:
    import pandas as pd

MAX_CURVES = 4


@dataclass(frozen=True)
class Lines(Showable):
    """Named curves over one axis, with one sentence of meaning.

    Attributes:
        title: What the picture shows.
        x: Name of the horizontal axis, with its unit where it has one.
        y: Name of the vertical axis.
        curves: Name → points ``(x, y)`` in the order in which they are joined; 1 to 4 curves.
        say: One sentence on what to see in it.

    Raises:
        ValueError: no curve or too many, a curve without points, or a number that is not finite.
    """

    title: str
    x: str
    y: str
    curves: Mapping[str, Sequence[tuple[float, float]]]
    say: str = ""

    def __post_init__(self) -> None:
        if not 1 <= len(self.curves) <= MAX_CURVES:
            raise ValueError(
                f"lines {self.title!r}: {len(self.curves)} curves; a picture holds 1 to "
                f"{MAX_CURVES}"
            )
        for name, points in self.curves.items():
            if not points or not all(isfinite(v) for point in points for v in point):
                raise ValueError(
                    f"lines {self.title!r}: curve {name!r} needs points, all of them finite"
                )

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a point: curve, x, y."""
        import pandas as pd

        rows = [(name, *point) for name, points in self.curves.items() for point in points]
        return pd.DataFrame(rows, columns=["curve", self.x, self.y])

    def __str__(self) -> str:
        return f"{self.title}\n{self.to_pandas().to_string(index=False)}\n{self.say}".rstrip()
