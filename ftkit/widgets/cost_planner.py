"""`CostPlanner`: every uncertain number as a range, and a bill that says which one matters.

The kernel samples with `ftkit.stages.costs` and draws with the view of the static page; the
JavaScript beside this module only holds the controls.
"""

from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any

import traitlets as t

from ftkit.records.costs import CostEstimate
from ftkit.stages.costs import Compute, Factor, Range, example_bill, simulate
from ftkit.stages.costs.flops import HARDWARE
from ftkit.stages.costs.money import Bill
from ftkit.views.cost_planner import cost_body, cost_html
from ftkit.views.style import rules
from ftkit.widgets.viewer import Viewer, script

if TYPE_CHECKING:
    import pandas as pd

_GPU = "GPU"


class CostPlanner(Viewer):
    """A bill with every range movable.

    Assigning to an attribute redraws; the controls in the browser set the same attributes.
    Numbers that you have changed are no longer marked as examples.

    Attributes:
        ranges: Low and high end of every factor, in the order of the bill's terms.
        hardware: Name of the accelerator; changes the first GPU factor.
        seed: Of the draws.
    """

    _esm = script("cost_planner")
    _css = rules("cost_planner")

    ranges = t.List(t.List(t.Float())).tag(sync=True, echo_update=False)
    hardware = t.Enum(tuple(HARDWARE), "H100 SXM").tag(sync=True)
    seed = t.Int(0, min=0).tag(sync=True)

    _labels = t.List(t.Dict()).tag(sync=True)
    _cards = t.List(t.Unicode(), list(HARDWARE)).tag(sync=True)
    _title = t.Unicode().tag(sync=True)
    _html = t.Unicode("").tag(sync=True)

    def __init__(
        self,
        bill: Bill | None = None,
        *,
        compute: Compute | None = None,
        title: str = "What it costs",
        currency: str = "USD",
        seed: int = 0,
    ) -> None:
        """Open the planner.

        Args:
            bill: Terms and their factors; None for `ftkit.stages.costs.example_bill`.
            compute: What the accelerators do, for the example bill; None for LoRA on an 8B model.
            title: Of the picture.
            currency: Of every price.
            seed: Of the draws.

        Raises:
            SettingsError: an empty bill.
        """
        if bill is not None and compute is not None:
            raise ValueError("give a bill, or what to compute for the example bill, not both")
        self._compute = None if bill is not None else compute or Compute()
        self._bill = example_bill(self._compute) if bill is None else bill
        self._currency = currency
        simulate(self._bill, samples=100)  # complains here, not inside a callback
        factors = [factor for _, factor in self._factors()]
        super().__init__(
            ranges=[[f.range.low, f.range.high] for f in factors],
            hardware=self._compute.hardware if self._compute else "H100 SXM",
            seed=seed,
            _labels=[_label(term, factor) for term, factor in self._factors()],
            _cards=list(HARDWARE) if self._compute else [],
            _title=title,
        )
        self._draw()
        self.observe(self._recompute, names=["hardware"])
        self.observe(self._draw, names=["ranges", "seed"])

    def _factors(self) -> list[tuple[str, Factor]]:
        return [(term, factor) for term, factors in self._bill.items() for factor in factors]

    @property
    def bill(self) -> Bill:
        """The terms with the ranges that are chosen now.

        Raises:
            ValueError: a range whose ends are impossible; says which.
        """
        ends = iter(self.ranges)
        return {
            term: tuple(_with(factor, *next(ends)) for factor in factors)
            for term, factors in self._bill.items()
        }

    @property
    def estimate(self) -> CostEstimate:
        """The numbers in the picture.

        Raises:
            ValueError: a range whose ends are impossible; says which.
        """
        return simulate(self.bill, title=self._title, currency=self._currency, seed=self.seed)

    def to_html(self) -> str:
        """Return the picture as self-contained HTML without controls."""
        return cost_html(self.estimate)

    def to_pandas(self) -> "pd.DataFrame":
        """Return the bill: one row a term, and the total."""
        return self.estimate.to_pandas()

    def __str__(self) -> str:
        return str(self.estimate)

    @t.validate("ranges")
    def _as_many(self, proposal: Any) -> Any:
        count = len(self._factors())
        if len(proposal["value"]) != count or any(len(ends) != 2 for ends in proposal["value"]):
            raise t.TraitError(f"ranges must be {count} pairs of a low and a high end")
        return proposal["value"]

    def _recompute(self, *_: Any) -> None:
        """Another accelerator: other hours."""
        if self._compute is None:
            return
        hours = replace(self._compute, hardware=self.hardware).hours
        gpu = list(self._bill[_GPU])
        gpu[0] = replace(gpu[0], range=Range.exactly(hours), unit=f"{self.hardware} hours")
        self._bill = {**self._bill, _GPU: tuple(gpu)}
        self._labels = [_label(term, factor) for term, factor in self._factors()]
        self.ranges = [[hours, hours], *self.ranges[1:]]

    def _draw(self, *_: Any) -> None:
        try:
            self._html = cost_body(self.estimate)
        except ValueError as error:
            self._html = f'<p class="error" role="alert">{escape(str(error))}</p>'


def _label(term: str, factor: Factor) -> dict[str, Any]:
    fixed = factor.range.kind == "fixed"
    return {"term": term, "name": factor.name, "unit": factor.unit, "fixed": fixed}


def _with(factor: Factor, low: float, high: float) -> Factor:
    """Return `factor` with other ends; a number that was changed is no example any more."""
    old = factor.range
    if (low, high) == (old.low, old.high):
        return factor
    kind = "lognormal" if old.kind == "fixed" and low != high else old.kind
    likely = None if old.likely is None else min(max(old.likely, low), high)
    try:
        return replace(factor, range=Range(low, high, kind, likely), example=False)
    except ValueError as error:
        raise ValueError(f"{factor.name}: {error}") from error
