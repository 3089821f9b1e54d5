"""`GAEExplorer`: watch GAE hand a reward back, token by token, and turn λ while it does.

The kernel draws with the view of the static page; the JavaScript beside this module only holds
the controls and the clock of the animation.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import traitlets as t

from ftkit.views.gae import TITLE, GAESetting, gae_body, gae_html
from ftkit.views.style import rules
from ftkit.widgets.viewer import Viewer, script

if TYPE_CHECKING:
    import pandas as pd

_INPUTS = ("gamma", "lam", "at")


class GAEExplorer(Viewer):
    """Advantages of one completion, computed from the last token back.

    Assigning to an attribute redraws; the controls in the browser set the same attributes.

    Attributes:
        gamma: γ, discount a token, 0 to 1.
        lam: λ, 0 (TD) to 1 (Monte Carlo).
        at: Token whose advantage is being computed, from 0; those behind it are known.

    Raises:
        ValueError: lists of different length or empty, or a number that is not finite.
        traitlets.TraitError: a factor outside its range, or no such token.
    """

    _esm = script("gae_explorer")
    _css = rules("gae")

    gamma = t.Float(1.0, min=0.0, max=1.0).tag(sync=True, echo_update=False)
    lam = t.Float(0.95, min=0.0, max=1.0).tag(sync=True, echo_update=False)
    at = t.Int(0).tag(sync=True, echo_update=False)

    _count = t.Int(1).tag(sync=True)
    _title = t.Unicode(TITLE).tag(sync=True)
    _html = t.Unicode("").tag(sync=True)

    def __init__(
        self,
        tokens: Sequence[str],
        rewards: Sequence[float],
        values: Sequence[float],
        *,
        gamma: float = 1.0,
        lam: float = 0.95,
        at: int | None = None,
    ) -> None:
        """Open the explorer.

        Args:
            tokens: Of the completion.
            rewards: Of each token, in score units.
            values: The critic's, of the state before each token.
            gamma: See the class.
            lam: See the class.
            at: See the class; None for the last token, where the recursion begins.
        """
        self._given = GAESetting([*tokens], [*map(float, rewards)], [*map(float, values)])
        self._count = len(self._given.tokens)
        last = self._count - 1
        super().__init__(gamma=gamma, lam=lam, at=last if at is None else at)
        self._draw()
        self.observe(self._draw, names=list(_INPUTS))

    @t.validate("at")
    def _check_at(self, proposal: Any) -> int:
        place: int = proposal["value"]
        if not 0 <= place < self._count:
            raise t.TraitError(f"at={place}, but tokens are 0 to {self._count - 1}")
        return place

    @property
    def setting(self) -> GAESetting:
        """What is chosen now."""
        given = self._given
        return GAESetting(given.tokens, given.rewards, given.values, self.gamma, self.lam, self.at)

    def to_html(self) -> str:
        """Return the picture as self-contained HTML without controls."""
        return gae_html(self.setting)

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a token: reward, value, δ, advantage, return, all of them known."""
        import pandas as pd

        now = self.setting
        return pd.DataFrame(
            {
                "token": now.tokens,
                "reward": now.rewards,
                "value": now.values,
                "delta": now.deltas,
                "advantage": now.advantages,
                "return": now.returns,
            }
        )

    def __str__(self) -> str:
        return f"GAE at γ = {self.gamma:g}, λ = {self.lam:g}\n{self.to_pandas().to_string()}"

    def _draw(self, *_: Any) -> None:
        self._html = gae_body(self.setting)
