"""`GRPOExplorer`: move the rewards and lengths of one group and see what each token is pushed by.

The kernel draws with the view of the static page; the JavaScript beside this module only holds
the controls.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import traitlets as t

from ftkit.views.grpo import LOSS_TYPES, SCALES, TITLE, GroupSetting, grpo_body, grpo_html
from ftkit.views.style import rules
from ftkit.widgets.viewer import Viewer, script

if TYPE_CHECKING:
    import pandas as pd

_INPUTS = ("rewards", "lengths", "scale", "loss_type", "max_tokens", "others", "picked")
_DEFAULT = GroupSetting()


class GRPOExplorer(Viewer):
    """One group of answers with every reward and length movable.

    Assigning to an attribute redraws; the controls in the browser set the same attributes.

    Attributes:
        rewards: Score of each answer.
        lengths: Tokens of each answer.
        scale: What divides the advantages: ``"group"``, ``"batch"`` or ``"none"``.
        loss_type: What a token weighs: ``"grpo"``, ``"dapo"``, ``"bnpo"`` or ``"dr_grpo"``.
        max_tokens: Longest answer that the sampler may write.
        others: Rewards of the other groups of the batch; matter to ``scale="batch"`` only.
        picked: Index of the answer whose arithmetic is written out.

    Raises:
        ValueError: as `ftkit.views.grpo.GroupSetting`.
    """

    _esm = script("grpo_explorer")
    _css = rules("grpo")

    rewards = t.List(t.Float()).tag(sync=True, echo_update=False)
    lengths = t.List(t.Int()).tag(sync=True, echo_update=False)
    scale = t.Enum(SCALES, "group").tag(sync=True)
    loss_type = t.Enum(LOSS_TYPES, "dapo").tag(sync=True)
    max_tokens = t.Int(_DEFAULT.max_tokens, min=1).tag(sync=True)
    others = t.List(t.Float())
    picked = t.Int(0, min=0).tag(sync=True)

    _title = t.Unicode(TITLE).tag(sync=True)
    _html = t.Unicode("").tag(sync=True)

    def __init__(
        self,
        rewards: Sequence[float] = _DEFAULT.rewards,
        lengths: Sequence[int] | None = None,
        *,
        scale: str = "group",
        loss_type: str = "dapo",
        max_tokens: int | None = None,
        others: Sequence[float] = _DEFAULT.others,
        picked: int = 0,
    ) -> None:
        """Open the explorer, e.g. on a real group: its rewards and lengths.

        Args:
            rewards: See the class.
            lengths: See the class; None for the example's, or 16 tokens each.
            scale: See the class.
            loss_type: See the class.
            max_tokens: See the class; None for 64, or the longest answer where that is longer.
            others: See the class.
            picked: See the class.
        """
        if lengths is None:
            known = len(rewards) == len(_DEFAULT.lengths)
            lengths = _DEFAULT.lengths if known else [16] * len(rewards)
        super().__init__(
            rewards=[float(reward) for reward in rewards],
            lengths=[int(length) for length in lengths],
            scale=scale,
            loss_type=loss_type,
            max_tokens=max_tokens or max(_DEFAULT.max_tokens, *lengths),
            others=[float(reward) for reward in others],
            picked=picked,
        )
        self._draw()
        self.observe(self._draw, names=list(_INPUTS))

    @t.validate("rewards", "lengths")
    def _as_many(self, proposal: Any) -> Any:
        """Refuse to change the number of answers, which the controls are made for."""
        value, name = proposal["value"], proposal["trait"].name
        other = self.lengths if name == "rewards" else self.rewards
        if other and len(value) != len(other):
            raise t.TraitError(
                f"{len(value)} {name} for a group of {len(other)} answers: open a new explorer for "
                "a group of another size"
            )
        return value

    @property
    def setting(self) -> GroupSetting:
        """What is chosen now."""
        return GroupSetting(
            rewards=tuple(self.rewards),
            lengths=tuple(self.lengths),
            scale=self.scale,
            loss_type=self.loss_type,
            max_tokens=self.max_tokens,
            others=tuple(self.others),
            picked=self.picked,
        )

    def to_html(self) -> str:
        """Return the picture as self-contained HTML without controls."""
        return grpo_html(self.setting)

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row an answer: reward, advantages, and what a token weighs by loss type."""
        import pandas as pd

        now = self.setting
        return pd.DataFrame(
            {
                "reward": now.rewards,
                "tokens": now.lengths,
                "advantage": now.advantages,
                "RLOO advantage": now.leave_one_out,
                **{f"token weight, {kind}": now.token_weights(kind) for kind in LOSS_TYPES},
            }
        )

    def __str__(self) -> str:
        now = self.setting
        advantages = ", ".join(f"{a:+.2f}" for a in now.advantages)
        signal = "no signal, " if now.silent else ""
        return (
            f"GRPO group of {len(now.rewards)}, divided by {now.scale}, loss {now.loss_type}: "
            f"{signal}advantages {advantages}"
        )

    def _draw(self, *_: Any) -> None:
        self._html = grpo_body(self.setting)
