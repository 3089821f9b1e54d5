"""`NEFTuneExplorer`: move α, the length of a row and its padding; see what the noise can turn.

The kernel draws with the view of the static page; the JavaScript beside this module only holds
the controls. Left out: the width d, which the model sets (the table below the picture varies it).
"""

from typing import TYPE_CHECKING, Any

import traitlets as t

from ftkit.records.noise import NoiseMap
from ftkit.views.neftune import TITLE, NoiseSetting, neftune_body, noise_map_html
from ftkit.views.style import rules
from ftkit.widgets.viewer import Viewer, script

if TYPE_CHECKING:
    import pandas as pd

_INPUTS = ("alpha", "length", "padding")
_MOST = 1_000_000


class NEFTuneExplorer(Viewer):
    """NEFTune's noise on a real embedding matrix with everything movable.

    Assigning to an attribute redraws; the controls in the browser set the same attributes.

    Attributes:
        alpha: α, at least 0; 5, 10 and 15 are the paper's.
        length: Real tokens of the row, at least 1.
        padding: Tokens that the batch adds to the row, at least 0.

    Raises:
        traitlets.TraitError: a number outside its range.
    """

    _esm = script("neftune_explorer")
    _css = rules("neftune")

    alpha = t.Float(5.0, min=0.0, max=float(_MOST)).tag(sync=True, echo_update=False)
    length = t.Int(64, min=1, max=_MOST).tag(sync=True, echo_update=False)
    padding = t.Int(0, min=0, max=_MOST).tag(sync=True, echo_update=False)

    _title = t.Unicode(TITLE).tag(sync=True)
    _html = t.Unicode("").tag(sync=True)

    def __init__(
        self, noise_map: NoiseMap, *, alpha: float = 5.0, length: int = 64, padding: int = 0
    ) -> None:
        """Open the explorer.

        Args:
            noise_map: Words and distances, from `ftkit.stages.noise_map`.
            alpha: See the class.
            length: See the class.
            padding: See the class.

        Raises:
            TypeError: something else than a noise map.
        """
        if not isinstance(noise_map, NoiseMap):
            raise TypeError(
                f"noise_map is a {type(noise_map).__name__}: give ftkit.records.NoiseMap, e.g. "
                "from ftkit.stages.noise_map(base)"
            )
        self._map = noise_map
        super().__init__(alpha=alpha, length=length, padding=padding)
        self._draw()
        self.observe(self._draw, names=list(_INPUTS))

    @property
    def setting(self) -> NoiseSetting:
        """What is chosen now."""
        return NoiseSetting(self.alpha, self.length, self.padding)

    def to_html(self) -> str:
        """Return the picture as self-contained HTML without controls."""
        return noise_map_html(self._map, self.setting)

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a word: nearest other token, its distance, and the noise in numbers."""
        import pandas as pd

        magnitude = self.setting.magnitude(self._map.hidden)
        rows = [
            {
                "word": word,
                "nearest": nearest,
                "distance": distance,
                "noise of a token": self.setting.token_l2,
                "noise along that line": magnitude / 3**0.5,
                "share of tokens turned": self._map.moved(magnitude),
            }
            for word, (nearest, distance) in zip(self._map.words, self._map.neighbours, strict=True)
        ]
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        now = self.setting
        moved = self._map.moved(now.magnitude(self._map.hidden))
        return (
            f"NEFTune noise at α {now.alpha:g}, {now.length} tokens + {now.padding} padding: "
            f"{now.token_l2:.3f} a token, {now.row_l2:.3f} the row (L2); {moved:.0%} of "
            f"{len(self._map.critical)} tokens turn into another"
        )

    def _draw(self, *_: Any) -> None:
        self._html = neftune_body(self._map, self.setting)
