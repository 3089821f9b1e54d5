"""The memory of every model, adapter and head that an algorithm holds, in two layouts.

*Copies*: each model has weights of its own, counted from the model's shape. *One base*: the base
that is loaded, with adapters and heads on it, all measured. Weights only. Left out: gradients,
optimizer states and activations (`ftkit.stages.costs`), and anything that looks at a model.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ftkit.records.algorithm_roles import ALGORITHMS, Algorithm, Head
from ftkit.records.table import Table
from ftkit.showing import Showable

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["base", "adapter", "head"]
COPIES, ONE_BASE = "full copies", "one base"


@dataclass(frozen=True, slots=True)
class Part:
    """Something that lies in memory once.

    Attributes:
        name: ``"base"``, an adapter's name, ``"value head"`` or ``"score head"``.
        kind: What it is.
        size: Its measured bytes.
    """

    name: str
    kind: Kind
    size: int


@dataclass(frozen=True)
class RoleMap(Showable):
    """Who holds what, and what it takes; shows itself as a diagram.

    Attributes:
        model: Name of the loaded base.
        quantization: Of the base, e.g. ``"nf4"``; empty without.
        parts: What was measured, the base first.
        whole: Measured bytes of all parts together, each storage once.
        copy_dtype: Dtype of the full copies: the base's compute dtype.
        copies: Bytes of a full copy by the head on it, counted from the model's shape.
        algorithms: Whose models are mapped.

    Raises:
        ValueError: no base among the parts, or a head without a copy.
    """

    model: str
    quantization: str
    parts: tuple[Part, ...]
    whole: int
    copy_dtype: str
    copies: Mapping[Head, int]
    algorithms: tuple[Algorithm, ...] = ALGORITHMS

    def __post_init__(self) -> None:
        if [part.kind for part in self.parts].count("base") != 1:
            raise ValueError("a role map needs one base among its parts")
        missing = {seat.head for a in self.algorithms for seat in a.seats} - set(self.copies)
        if missing:
            raise ValueError(f"no copy has a {min(missing)}; give its bytes in copies")

    def algorithm(self, name: str) -> Algorithm:
        """Return the algorithm called `name`, e.g. ``"PPO"`` or ``"GRPO"``.

        Raises:
            KeyError: there is none; names those that are there.
        """
        for algorithm in self.algorithms:
            if name.lower() in {n.strip().lower() for n in (algorithm.name, *_split(algorithm))}:
                return algorithm
        raise KeyError(f"{name!r} is none of {', '.join(a.name for a in self.algorithms)}")

    def part(self, name: str) -> Part | None:
        """Return the part called `name`, None where the base plays without it."""
        return next((part for part in self.parts if part.name == name), None)

    def held(self, algorithm: Algorithm | str, *, optional: bool = False) -> list[Part]:
        """Return what the one-base layout holds for an algorithm, each part once, base first."""
        seats = self._of(algorithm).present(optional=optional)
        wanted = {name for seat in seats for name in (seat.adapter, seat.head)}
        return [part for part in self.parts if part.kind == "base" or part.name in wanted]

    def shared_size(self, algorithm: Algorithm | str, *, optional: bool = False) -> int:
        """Return the bytes of the one-base layout."""
        return sum(part.size for part in self.held(algorithm, optional=optional))

    def copied_size(self, algorithm: Algorithm | str, *, optional: bool = False) -> int:
        """Return the bytes of the layout with full copies."""
        seats = self._of(algorithm).present(optional=optional)
        return sum(self.copies[seat.head] for seat in seats)

    def factor(self, algorithm: Algorithm | str, *, optional: bool = False) -> float:
        """Return how many times smaller the one-base layout is."""
        copied = self.copied_size(algorithm, optional=optional)
        return copied / self.shared_size(algorithm, optional=optional)

    def reasons(self, algorithm: Algorithm | str) -> tuple[float, float]:
        """Return `factor` as a product: what the smaller weights give, what sharing gives.

        Between the two layouts lies a third: as many copies, each as small as the loaded base.
        """
        wanted = self._of(algorithm)
        between = len(wanted.present()) * self.parts[0].size
        return self.copied_size(wanted) / between, between / self.shared_size(wanted)

    def summary(self) -> Table:
        """Return one row an algorithm: models held, and MB (1e6 bytes) in both layouts."""
        columns = ("algorithm", "models", f"{COPIES}, MB", f"{ONE_BASE}, MB", "times less")
        rows = [
            (a.name, len(a.present()), *map(_whole_mb, sizes), sizes[0] / sizes[1])
            for a in self.algorithms
            for sizes in [(self.copied_size(a), self.shared_size(a))]
        ]
        say = (
            f"Weights of {self.model} alone. {ONE_BASE.capitalize()}: measured. "
            f"{COPIES.capitalize()}: counted from the model's shape, {self.copy_dtype}. "
            "Models that are there only under a condition are not counted."
        )
        return Table("Every algorithm in two layouts", columns, rows, say)

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row an algorithm, layout and thing in memory, in MB (1e6 bytes)."""
        import pandas as pd

        columns = ["algorithm", "layout", "part", "for", "trained", "when", "MB"]
        return pd.DataFrame(
            [row for a in self.algorithms for row in self._rows(a)], columns=columns
        )

    def __str__(self) -> str:
        lines = [
            f"{a.name}: {_mb(self.copied_size(a)):,.1f} MB as {len(a.present())} full "
            f"{'copy' if len(a.present()) == 1 else 'copies'}, "
            f"{_mb(self.shared_size(a)):,.1f} MB on one base "
            f"({', '.join(f'{p.name} {_mb(p.size):,.3f}' for p in self.held(a))})"
            for a in self.algorithms
        ]
        return "\n".join([f"Weights of {self.model}, by algorithm", *lines])

    def _of(self, algorithm: Algorithm | str) -> Algorithm:
        return self.algorithm(algorithm) if isinstance(algorithm, str) else algorithm

    def _rows(self, algorithm: Algorithm) -> Iterator[tuple[object, ...]]:
        for seat in algorithm.seats:
            size = _mb(self.copies[seat.head])
            yield (algorithm.name, COPIES, f"copy with {seat.head}", seat.role, seat.trained,
                   seat.when, size)  # fmt: skip
        for part in self.held(algorithm, optional=True):
            users = [s for s in algorithm.seats if part.name in ("base", s.adapter, s.head)]
            trained = part.kind != "base" and any(seat.trained for seat in users)
            when = "" if any(not seat.when for seat in users) else users[0].when
            roles = ", ".join(seat.role for seat in users)
            yield algorithm.name, ONE_BASE, part.name, roles, trained, when, _mb(part.size)


def _split(algorithm: Algorithm) -> list[str]:
    return algorithm.name.split(",")


def _whole_mb(size: int) -> int:
    return round(_mb(size))


def _mb(size: float) -> float:
    return size / 1e6
