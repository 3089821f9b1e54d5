"""`DPOExplorer`: move one pair over the plane of log-ratios, with real pairs on it.

The kernel draws with the view of the static page; the JavaScript beside this module only holds
the controls. Left out: editing the real pairs.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import traitlets as t

from ftkit.records import DPOPair
from ftkit.views.dpo import (
    TITLE,
    DPOSetting,
    dpo_body,
    dpo_html,
    known_pairs,
    pair_loss,
    pair_weight,
    reach_of,
)
from ftkit.views.style import rules
from ftkit.widgets.viewer import Viewer, script

if TYPE_CHECKING:
    import pandas as pd

_LEAST_REACH = 12.0  # of the sliders, in nats


class DPOExplorer(Viewer):
    """DPO's loss with everything movable.

    Assigning to an attribute redraws; the controls in the browser set the same attributes.

    Attributes:
        beta: Reward units a nat, at least 0.001.
        chosen: log π − log π_ref of the chosen answer that is written out, in nats.
        rejected: The same of the rejected answer.
        pair: Number of a real pair, from 1: choosing one moves `chosen` and `rejected` to it. 0
            once they stand where no real pair was chosen.

    Raises:
        traitlets.TraitError: a number outside its range.
    """

    _esm = script("dpo_explorer")
    _css = rules("dpo")

    beta = t.Float(0.1, min=0.001).tag(sync=True, echo_update=False)
    chosen = t.Float(-4.0).tag(sync=True, echo_update=False)
    rejected = t.Float(-10.0).tag(sync=True, echo_update=False)
    pair = t.Int(0, min=0).tag(sync=True, echo_update=False)

    _title = t.Unicode(TITLE).tag(sync=True)
    _range = t.Float(_LEAST_REACH).tag(sync=True)
    _count = t.Int(0).tag(sync=True)
    _html = t.Unicode("").tag(sync=True)

    def __init__(
        self,
        pairs: Iterable[DPOPair] = (),
        *,
        beta: float = 0.1,
        chosen: float = -4.0,
        rejected: float = -10.0,
        pair: int = 0,
    ) -> None:
        """Open the explorer.

        Args:
            pairs: E.g. from `ftkit.stages.dpo_pairs`; they are the marks on the plane.
            beta: See the class; to see the trainer's own loss, the trainer's.
            chosen: See the class.
            rejected: See the class.
            pair: See the class.

        Raises:
            TypeError: something else than DPO pairs.
        """
        self._pairs = tuple(pairs)
        strange = [type(item).__name__ for item in self._pairs if not isinstance(item, DPOPair)]
        if strange:
            raise TypeError(
                f"pairs hold a {strange[0]}: give ftkit.records.DPOPair, e.g. from "
                "ftkit.stages.dpo_pairs(trainer, dataset)"
            )
        super().__init__(beta=beta, chosen=chosen, rejected=rejected)
        self._range = max(_LEAST_REACH, float(round(reach_of(self._pairs))))
        self._count = len(self._pairs)
        self.observe(self._picked, names="pair")
        self.observe(self._moved, names=["chosen", "rejected"])
        self.observe(self._draw, names="beta")
        self.pair = pair
        self._draw()

    @t.validate("pair")
    def _known(self, proposal: Any) -> int:
        number, known = int(proposal["value"]), {i for i, _ in known_pairs(self._pairs)}
        if number and number not in known:
            raise t.TraitError(
                f"pair={number}: there are pairs 1 to {len(self._pairs)} (those with finite "
                "numbers), and 0 for none"
            )
        return number

    @property
    def setting(self) -> DPOSetting:
        """What is chosen now."""
        return DPOSetting(self.beta, self.chosen, self.rejected, self.pair)

    def to_html(self) -> str:
        """Return the picture as self-contained HTML without controls."""
        return dpo_html(self._pairs, self.setting)

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a pair, by number: texts, log-probabilities, lead, loss and weight."""
        import pandas as pd

        return pd.DataFrame([{"pair": i, **self._row(p)} for i, p in enumerate(self._pairs, 1)])

    def _row(self, pair: DPOPair) -> dict[str, Any]:
        return {
            "prompt": pair.prompt,
            "chosen": pair.chosen,
            "rejected": pair.rejected,
            "chosen logp": pair.chosen_logp,
            "chosen change": pair.chosen_gain,
            "rejected logp": pair.rejected_logp,
            "rejected change": pair.rejected_gain,
            "lead": pair.lead,
            "loss": pair_loss(pair.lead, self.beta),
            "weight": pair_weight(pair.lead, self.beta),
        }

    def __str__(self) -> str:
        now = self.setting
        return (
            f"DPO at β {now.beta:g}, chosen {now.chosen:+.2f} and rejected {now.rejected:+.2f} "
            f"nats: loss {pair_loss(now.lead, now.beta):.3f} nats, weight "
            f"{pair_weight(now.lead, now.beta):.4f}; {len(self._pairs)} pairs on the plane"
        )

    def _picked(self, _: Any) -> None:
        if self.pair:
            with self.hold_trait_notifications():  # else the first would count as a move away
                self.chosen, self.rejected = self._place()
            self._draw()

    def _moved(self, _: Any) -> None:
        if self.pair and (self.chosen, self.rejected) != self._place():
            self.pair = 0
        self._draw()

    def _place(self) -> tuple[float, float]:
        picked = self._pairs[self.pair - 1]
        return picked.chosen_gain, picked.rejected_gain

    def _draw(self, *_: Any) -> None:
        self._html = dpo_body(self._pairs, self.setting)
