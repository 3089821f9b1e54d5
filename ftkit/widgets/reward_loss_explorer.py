"""`RewardLossExplorer`: move the gap of a pair along the loss curve, with real pairs on it.

The kernel draws with the view of the static page; the JavaScript beside this module only holds
the controls. Left out: editing the scores of the real pairs.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import traitlets as t

from ftkit.records import ScoredPair
from ftkit.views.reward_loss import (
    LossSetting,
    pair_loss,
    pair_slope,
    reward_loss_body,
    reward_loss_html,
)
from ftkit.views.style import rules
from ftkit.widgets.viewer import Viewer, script

if TYPE_CHECKING:
    import pandas as pd

_INPUTS = ("gap", "margin", "centering", "level")
_REACH = 6.0


class RewardLossExplorer(Viewer):
    """The pairwise reward loss with everything movable.

    Assigning to an attribute redraws; the controls in the browser set the same attributes.

    Attributes:
        gap: Score of chosen minus score of rejected, where the arithmetic is written out.
        margin: Score units by which chosen should lead.
        centering: Weight of the squared sum of the two scores.
        level: Mean of the two scores; matters to centering only.
    """

    _esm = script("reward_loss_explorer")
    _css = rules("reward_loss")

    gap = t.Float(-1.0).tag(sync=True, echo_update=False)
    margin = t.Float(0.0, min=0.0).tag(sync=True)
    centering = t.Float(0.0, min=0.0).tag(sync=True)
    level = t.Float(0.0).tag(sync=True, echo_update=False)

    _range = t.Float(_REACH).tag(sync=True)
    _html = t.Unicode("").tag(sync=True)

    def __init__(
        self,
        pairs: Iterable[ScoredPair] = (),
        *,
        gap: float = -1.0,
        margin: float = 0.0,
        centering: float = 0.0,
        level: float = 0.0,
    ) -> None:
        """Open the explorer.

        Args:
            pairs: Scored pairs, e.g. from `ftkit.stages.pair_scores`; they lie on the curve.
            gap: See the class.
            margin: See the class.
            centering: See the class.
            level: See the class.

        Raises:
            TypeError: something else than scored pairs.
        """
        self._pairs = tuple(pairs)
        strange = [type(pair).__name__ for pair in self._pairs if not isinstance(pair, ScoredPair)]
        if strange:
            raise TypeError(
                f"pairs hold a {strange[0]}: give ftkit.records.ScoredPair, e.g. from "
                "ftkit.stages.pair_scores(trainer, dataset)"
            )
        super().__init__(gap=gap, margin=margin, centering=centering, level=level)
        self._draw()
        self.observe(self._draw, names=list(_INPUTS))

    @property
    def setting(self) -> LossSetting:
        """What is chosen now."""
        return LossSetting(self.gap, self.margin, self.centering, self.level)

    def to_html(self) -> str:
        """Return the picture as self-contained HTML without controls."""
        return reward_loss_html(self._pairs, self.setting)

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a pair, the dearest first: texts, scores, gap, loss and slope."""
        import pandas as pd

        setting = self.setting
        rows = [
            {
                "prompt": pair.prompt,
                "chosen": pair.chosen,
                "rejected": pair.rejected,
                "chosen score": pair.chosen_score,
                "rejected score": pair.rejected_score,
                "gap": pair.gap,
                "loss": pair_loss(pair.gap, _level(pair), setting),
                "slope": pair_slope(pair.gap, setting),
            }
            for pair in self._pairs
        ]
        table = pd.DataFrame(rows)
        return table.sort_values("loss", ascending=False, ignore_index=True) if rows else table

    def __str__(self) -> str:
        now = self.setting
        return (
            f"reward loss at gap {now.gap:+.2f} (margin {now.margin:g}, centring "
            f"{now.centering:g}): {pair_loss(now.gap, now.level, now):.3f} nats, slope "
            f"{pair_slope(now.gap, now):.3f}; {len(self._pairs)} pairs on the curve"
        )

    def _draw(self, *_: Any) -> None:
        self._html = reward_loss_body(self._pairs, self.setting)


def _level(pair: ScoredPair) -> float:
    return (pair.chosen_score + pair.rejected_score) / 2
