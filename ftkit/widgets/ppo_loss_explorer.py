"""`PPOLossExplorer`: move one token along PPO's clipped objective and see when the push stops.

The kernel draws with the view of the static page; the JavaScript beside this module only holds
the controls.
"""

from typing import TYPE_CHECKING, Any

import traitlets as t

from ftkit.views.ppo_loss import TITLE, ClipSetting, ppo_loss_body, ppo_loss_html
from ftkit.views.style import rules
from ftkit.widgets.viewer import Viewer, script

if TYPE_CHECKING:
    import pandas as pd

_INPUTS = ("ratio", "advantage", "clip_range")
_RATIOS = (0.5, 0.8, 1.0, 1.2, 1.5)


class PPOLossExplorer(Viewer):
    """The clipped objective of one token with everything movable.

    Assigning to an attribute redraws; the controls in the browser set the same attributes.

    Attributes:
        ratio: π/π_old of the token, at least 0; 1 before the first update.
        advantage: How much better than expected the token was.
        clip_range: ε, at least 0.01.

    Raises:
        traitlets.TraitError: a number outside its range.
    """

    _esm = script("ppo_loss_explorer")
    _css = rules("ppo_loss")

    ratio = t.Float(1.4, min=0.0).tag(sync=True, echo_update=False)
    advantage = t.Float(1.0).tag(sync=True, echo_update=False)
    clip_range = t.Float(0.2, min=0.01).tag(sync=True, echo_update=False)

    _title = t.Unicode(TITLE).tag(sync=True)
    _html = t.Unicode("").tag(sync=True)

    def __init__(
        self, *, ratio: float = 1.4, advantage: float = 1.0, clip_range: float = 0.2
    ) -> None:
        """Open the explorer.

        Args:
            ratio: See the class.
            advantage: See the class.
            clip_range: See the class.
        """
        super().__init__(ratio=ratio, advantage=advantage, clip_range=clip_range)
        self._draw()
        self.observe(self._draw, names=list(_INPUTS))

    @property
    def setting(self) -> ClipSetting:
        """What is chosen now."""
        return ClipSetting(self.ratio, self.advantage, self.clip_range)

    def to_html(self) -> str:
        """Return the picture as self-contained HTML without controls."""
        return ppo_loss_html(self.setting)

    def to_pandas(self) -> "pd.DataFrame":
        """Return objective and gradient at five ratios and the present one, for both signs."""
        import pandas as pd

        ratios = sorted({*_RATIOS, self.ratio})
        size = abs(self.advantage)
        settings = [ClipSetting(r, a, self.clip_range) for a in (size, -size) for r in ratios]
        rows = [(s.advantage, s.ratio, s.objective, s.slope, s.clipped) for s in settings]
        return pd.DataFrame(
            rows, columns=["advantage", "ratio", "objective", "gradient by the ratio", "clipped"]
        )

    def __str__(self) -> str:
        now = self.setting
        ending = "clipped: gradient 0" if now.clipped else f"gradient by the ratio {now.slope:+.2f}"
        return (
            f"PPO objective at ratio {now.ratio:.2f}, advantage {now.advantage:+.2f}, ε "
            f"{now.clip_range:.2f}: {now.objective:.3f}, {ending}"
        )

    def _draw(self, *_: Any) -> None:
        self._html = ppo_loss_body(self.setting)
