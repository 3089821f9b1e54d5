"""One group of GRPO as a picture: rewards, the advantages they become, and what a token weighs.

The formulas are those of `ftkit.algos.group_advantages`, `leave_one_out_advantages` and
`token_weights` for plain numbers. Left out: ratios and clipping (`ftkit.views.ppo_loss` draws
them), and the KL term.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite
from statistics import fmean, stdev

from ftkit.views.plot import number
from ftkit.views.style import card, css, stat
from ftkit.views.table import rows_html

TITLE = "One group of GRPO: rewards become advantages"
SCALES = ("group", "batch", "none")
LOSS_TYPES = ("grpo", "dapo", "bnpo", "dr_grpo")
STD_FLOOR = 1e-4

_SAY = (
    "An answer is good or bad only beside the others of its group. When all are scored the same, "
    "nobody is better, and the whole group teaches nothing. The loss type decides who speaks "
    "louder: every answer alike (grpo), or every token alike (dapo, bnpo, dr_grpo)."
)
_WIDTH, _LEFT, _RIGHT = 760, 96, 748
_REWARDS, _ADVANTAGES, _WEIGHTS = (26, 112), (160, 260), 308  # vertical places of the bands
_ROW = 64


@dataclass(frozen=True, slots=True)
class GroupSetting:
    """One group, and how its loss is made.

    Attributes:
        rewards: Score of each answer, at least two.
        lengths: Tokens of each answer, at least 1.
        scale: What divides the advantages: ``"group"``, ``"batch"`` or ``"none"``.
        loss_type: ``"grpo"``, ``"dapo"``, ``"bnpo"`` or ``"dr_grpo"``.
        max_tokens: Longest answer that the sampler may write.
        others: Rewards of the other groups of the batch; matter to ``scale="batch"`` only.
        picked: Index of the answer whose arithmetic is written out.

    Raises:
        ValueError: numbers that are not finite or out of range, or lists that do not fit; named.
    """

    rewards: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    lengths: tuple[int, ...] = (12, 8, 48, 16, 24, 20)
    scale: str = "group"
    loss_type: str = "dapo"
    max_tokens: int = 64
    others: tuple[float, ...] = (1.0, 1.0, 0.0, 1.0, 1.0, 1.0)
    picked: int = 0

    def __post_init__(self) -> None:
        if len(self.rewards) < 2 or len(self.rewards) != len(self.lengths):
            raise ValueError(
                f"{len(self.rewards)} rewards and {len(self.lengths)} lengths: a group needs at "
                "least 2 answers, and each a reward and a length"
            )
        if not all(map(isfinite, (*self.rewards, *self.others))):
            raise ValueError(f"rewards {self.rewards} and others {self.others} must be finite")
        if min(self.lengths) < 1 or max(self.lengths) > self.max_tokens:
            raise ValueError(
                f"lengths {self.lengths} must lie between 1 and max_tokens={self.max_tokens}"
            )
        for name, known in (("scale", SCALES), ("loss_type", LOSS_TYPES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; use one of {known}")
        if not 0 <= self.picked < len(self.rewards):
            raise ValueError(f"picked={self.picked} is none of the {len(self.rewards)} answers")

    @property
    def silent(self) -> bool:
        """Whether all rewards are the same, so that the group teaches nothing."""
        return max(self.rewards) - min(self.rewards) < 1e-8

    @property
    def divisor(self) -> float:
        """What the centred rewards are divided by."""
        if self.scale == "none":
            return 1.0
        spread = stdev(self.rewards if self.scale == "group" else self.rewards + self.others)
        return spread + STD_FLOOR

    @property
    def advantages(self) -> tuple[float, ...]:
        """One an answer."""
        if self.silent:
            return (0.0,) * len(self.rewards)
        mean = fmean(self.rewards)
        return tuple((reward - mean) / self.divisor for reward in self.rewards)

    @property
    def leave_one_out(self) -> tuple[float, ...]:
        """RLOO's advantages: each reward less the mean of the others."""
        total, others = sum(self.rewards), len(self.rewards) - 1
        return tuple(reward - (total - reward) / others for reward in self.rewards)

    def token_weights(self, loss_type: str) -> tuple[float, ...]:
        """Return what each token of each answer counts in the loss of a batch of this group."""
        answers = len(self.lengths)
        if loss_type == "grpo":
            return tuple(1 / (answers * length) for length in self.lengths)
        whole = answers * self.max_tokens if loss_type == "dr_grpo" else sum(self.lengths)
        return (1 / whole,) * answers


def grpo_html(setting: GroupSetting | None = None) -> str:
    """Return the picture as self-contained HTML; by default of a group with two right answers."""
    body = grpo_body(setting or GroupSetting())
    return css("grpo") + card(TITLE, f'<div class="ft-gr">{body}</div>', say=_SAY)


def grpo_body(setting: GroupSetting) -> str:
    """Return what stands inside the card: numbers, bars, arithmetic, and the loss types."""
    return _stats(setting) + _svg(setting) + _arithmetic(setting) + _types(setting)


def _stats(setting: GroupSetting) -> str:
    signal = "✗ none" if setting.silent else "✓ yes"
    return (
        '<div class="ft-stat">'
        + stat(_plain(fmean(setting.rewards)), "mean reward: the baseline")
        + stat(_plain(stdev(setting.rewards)), "standard deviation of the group")
        + stat(signal, "signal")
        + stat(f"{max(setting.lengths) / min(setting.lengths):.1f}×", "longest over shortest")
        + "</div>"
    )


# --- the bars --------------------------------------------------------------------------------


def _svg(setting: GroupSetting) -> str:
    says = (
        f"{len(setting.rewards)} answers. Rewards "
        f"{', '.join(map(_plain, setting.rewards))} become advantages "
        f"{', '.join(map(_signed, setting.advantages))}."
    )
    rows = _weight_rows(setting)
    height = _WEIGHTS + len(rows) * _ROW + 4
    parts = (_chosen(setting, height), _rewards(setting), _advantages(setting), *rows)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(says)}">'
        f"{''.join(parts)}</svg>"
    )


def _column(setting: GroupSetting, index: int) -> tuple[float, float]:
    """Return middle and half width of the bar of an answer."""
    step = (_RIGHT - _LEFT) / len(setting.rewards)
    return _LEFT + (index + 0.5) * step, min(26.0, step * 0.3)


def _chosen(setting: GroupSetting, height: float) -> str:
    """The column whose arithmetic is written out."""
    middle, _ = _column(setting, setting.picked)
    half = (_RIGHT - _LEFT) / len(setting.rewards) / 2 - 2
    return (
        f'<rect class="pick" x="{middle - half:.1f}" y="2" width="{2 * half:.1f}" '
        f'height="{height - 4}" rx="6"/>'
    )


def _rewards(setting: GroupSetting) -> str:
    top, bottom = _REWARDS
    low, high = min(0.0, *setting.rewards), max(0.0, *setting.rewards)
    span = (high - low) or 1.0

    def y(value: float) -> float:
        return bottom - (value - low) / span * (bottom - top)

    mean = fmean(setting.rewards)
    bars = "".join(
        _bar(setting, i, y(0.0), y(reward), "rew", _plain(reward), below=reward < 0)
        for i, reward in enumerate(setting.rewards)
    )
    names = "".join(
        f'<text class="who" x="{_column(setting, i)[0]:.1f}" y="{bottom + 30}" '
        f'text-anchor="middle">#{i + 1} · {length} tok</text>'
        for i, length in enumerate(setting.lengths)
    )
    return (
        f"{_label('reward', 10)}{bars}{names}"
        f'<path class="ax" d="M{_LEFT} {y(0.0):.1f}H{_RIGHT}"/>'
        f'<path class="mean" d="M{_LEFT - 4} {y(mean):.1f}H{_RIGHT}"/>'
        f'<text class="mean" x="{_LEFT - 8}" y="{y(mean) + 4:.1f}" text-anchor="end">mean '
        f"{_plain(mean)}</text>"
    )


def _advantages(setting: GroupSetting) -> str:
    top, bottom = _ADVANTAGES
    middle = (top + bottom) / 2
    reach = max(1.0, *(abs(a) for a in setting.advantages))
    bars = "".join(
        _bar(
            setting, i, middle, middle - advantage / reach * (bottom - top - 30) / 2,
            _sign_class(advantage), f"{_mark(advantage)} {_signed(advantage)}",
            below=advantage < 0,
        )
        for i, advantage in enumerate(setting.advantages)
    )  # fmt: skip
    note = (
        f'<text class="none" x="{(_LEFT + _RIGHT) / 2}" y="{middle + 34}" text-anchor="middle">'
        "all rewards the same: no signal, gradient 0</text>"
        if setting.silent
        else ""
    )
    return (
        f"{_label('advantage', middle)}{bars}"
        f'<path class="ax" d="M{_LEFT} {middle}H{_RIGHT}"/>{note}'
    )


def _weight_rows(setting: GroupSetting) -> list[str]:
    """One row of bars a loss type; bnpo and dapo are the same within one micro-batch."""
    shown = [("grpo", ("grpo",)), ("dapo, bnpo", ("dapo", "bnpo")), ("dr_grpo", ("dr_grpo",))]
    largest = max(max(setting.token_weights(kinds[0])) for _, kinds in shown)
    return [
        _weight_row(setting, name, kinds, largest, _WEIGHTS + place * _ROW)
        for place, (name, kinds) in enumerate(shown)
    ]


def _weight_row(
    setting: GroupSetting, name: str, kinds: Sequence[str], largest: float, top: float
) -> str:
    bottom = top + _ROW - 14
    active = setting.loss_type in kinds
    bars = "".join(
        _bar(
            setting, i, bottom, bottom - weight / largest * (_ROW - 34), "wt",
            f"{1000 * weight:.2f}", below=False,
        )
        for i, weight in enumerate(setting.token_weights(kinds[0]))
    )  # fmt: skip
    head = (
        f'<text class="name" x="{_LEFT - 8}" y="{top - 22}" text-anchor="end">a token</text>'
        f'<text class="name" x="{_LEFT - 8}" y="{top - 8}" text-anchor="end">weighs ‰</text>'
        if kinds == ("grpo",)
        else ""
    )
    mark = "▸ " if active else ""
    return (
        f'{head}<g class="{"on" if active else "off"}">'
        f'<text class="kind" x="{_LEFT - 8}" y="{bottom - 4}" text-anchor="end">{mark}{name}</text>'
        f'{bars}<path class="ax" d="M{_LEFT} {bottom}H{_RIGHT}"/></g>'
    )


def _bar(
    setting: GroupSetting, index: int, base: float, tip: float, kind: str, text: str, *, below: bool
) -> str:
    middle, half = _column(setting, index)
    place = max(base, tip) + 13 if below else min(base, tip) - 4
    return (
        f'<rect class="{kind}" x="{middle - half:.1f}" y="{min(base, tip):.1f}" '
        f'width="{2 * half:.1f}" height="{abs(base - tip):.1f}"/>'
        f'<text class="v" x="{middle:.1f}" y="{place:.1f}" text-anchor="middle">{text}</text>'
    )


def _label(name: str, y: float) -> str:
    return f'<text class="name" x="{_LEFT - 8}" y="{y + 4:.0f}" text-anchor="end">{name}</text>'


# --- words and numbers -----------------------------------------------------------------------


def _plain(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−") if value else "0"


def _mark(advantage: float) -> str:
    return "▲" if advantage > 0 else "▼" if advantage < 0 else "●"


def _sign_class(advantage: float) -> str:
    return "up" if advantage > 0 else "down" if advantage < 0 else "flat"


def _arithmetic(setting: GroupSetting) -> str:
    i = setting.picked
    reward, length = setting.rewards[i], setting.lengths[i]
    advantage, weight = setting.advantages[i], setting.token_weights(setting.loss_type)[i]
    centred = f"{_plain(reward)} − {_inner(fmean(setting.rewards))}"
    divided = "" if setting.scale == "none" else f" / ({setting.divisor - STD_FLOOR:.2f} + 0.0001)"
    left = f"({centred}){divided}" if divided else centred
    return (
        f'<div class="ft-arith">answer #{i + 1}: A = {left} = <b>{_signed(advantage)}</b>'
        f" · RLOO: {_plain(reward)} − mean of the others = <b>{_signed(setting.leave_one_out[i])}"
        f"</b><br>each of its {length} tokens weighs {_why(setting, length)} = "
        f"{1000 * weight:.2f} ‰ and is pushed with weight · A = "
        f"<b>{_signed(1000 * weight * advantage)} ‰</b>; the whole answer with "
        f"{_signed(length * weight * advantage)}<br>{escape(_meaning(setting))}</div>"
    )


def _inner(value: float) -> str:
    return f"({_plain(value)})" if value < 0 else _plain(value)


def _why(setting: GroupSetting, length: int) -> str:
    answers = len(setting.rewards)
    return {
        "grpo": f"1/({answers}·{length})",
        "dr_grpo": f"1/({answers}·{setting.max_tokens})",
    }.get(setting.loss_type, f"1/{sum(setting.lengths)}")


def _meaning(setting: GroupSetting) -> str:
    if setting.silent:
        return (
            "Nobody is better than anybody else here: this group is sampled, scored, and thrown "
            "away. TRL logs the share of such groups as frac_reward_zero_std."
        )
    if setting.scale == "group" and stdev(setting.rewards) < 0.05:
        blown = 1 / setting.divisor
        return (
            f"The rewards hardly differ, and dividing by their spread multiplies the difference by "
            f"{number(blown)}: noise of the reward becomes a full-sized push."
        )
    if setting.loss_type == "grpo":
        return (
            "Every answer counts the same, so a token of a long one counts little: a long wrong "
            "answer is punished less a token than a short wrong one."
        )
    if setting.loss_type == "dr_grpo":
        return (
            "Divided by a constant: a token weighs the same whatever its answer's length and "
            "whatever else is in the batch."
        )
    return "Every token counts the same, so a long answer moves the policy more than a short one."


def _types(setting: GroupSetting) -> str:
    short, long = min(setting.lengths), max(setting.lengths)
    rows = []
    for kind, divides in _DIVIDES.items():
        weights = dict(zip(setting.lengths, setting.token_weights(kind), strict=True))
        rows.append(
            (
                f"▸ {kind}" if kind == setting.loss_type else kind,
                divides,
                f"{1000 * weights[short]:.2f}",
                f"{1000 * weights[long]:.2f}",
                f"{short * weights[short]:.1%}",
                f"{long * weights[long]:.1%}",
            )
        )
    columns = (
        *("loss type", "divides the sum over tokens by"),
        *(f"a token of {short}, ‰", f"a token of {long}, ‰"),
        *(f"answer of {short}", f"answer of {long}"),
    )
    return (
        "<details><summary>The loss types in numbers: shortest against longest answer</summary>"
        f"{rows_html(columns, rows)}</details>"
    )


_DIVIDES = {
    "grpo": "answers × tokens of its own answer",
    "dapo": "tokens of the whole batch",
    "bnpo": "tokens of the micro-batch",
    "dr_grpo": "answers × longest allowed answer",
}
