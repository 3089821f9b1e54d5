"""Which models each algorithm of the course holds while it trains, and what becomes of each.

The facts behind `RoleMap`. Left out: sizes, and variants that few use (a critic on a policy that
is not shared, a reward model for each of several aims).
"""

from dataclasses import dataclass
from typing import Literal

Head = Literal["LM head", "value head", "score head"]
Adapter = Literal["policy", "reference", "reward"]

IF_BETA = "if β > 0"
IF_MODEL = "if a model"


@dataclass(frozen=True, slots=True)
class Seat:
    """One model that an algorithm needs.

    Attributes:
        role: What it plays, e.g. ``"actor"``.
        adapter: Through which adapter the one base plays it; seats with the same one share it.
        head: What reads its hidden states.
        trained: Whether its weights change.
        when: Empty, or the condition under which it is there at all.
    """

    role: str
    adapter: Adapter
    head: Head
    trained: bool
    when: str = ""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """What one algorithm holds and eats.

    Attributes:
        name: E.g. ``"PPO"``.
        data: Its data, in a few words.
        notebooks: Numbers of the notebooks that show it.
        seats: Its models; those that share an adapter stand side by side.
    """

    name: str
    data: str
    notebooks: tuple[str, ...]
    seats: tuple[Seat, ...]

    def present(self, *, optional: bool = False) -> tuple[Seat, ...]:
        """Return the seats that are always taken; with `optional`, all of them."""
        return tuple(seat for seat in self.seats if optional or not seat.when)


_POLICY = Seat("policy", "policy", "LM head", trained=True)
_REFERENCE = Seat("reference", "reference", "LM head", trained=False)
_REFERENCE_IF_BETA = Seat("reference", "reference", "LM head", trained=False, when=IF_BETA)
_REWARD_IF_MODEL = Seat("reward", "reward", "score head", trained=False, when=IF_MODEL)
_ACTOR = Seat("actor", "policy", "LM head", trained=True)
_CRITIC = Seat("critic", "policy", "value head", trained=True)
_REWARD = Seat("reward", "reward", "score head", trained=False)
_JUDGE = Seat("reward model", "reward", "score head", trained=True)
_FROZEN_POLICY = Seat("policy", "policy", "LM head", trained=False)

ALGORITHMS: tuple[Algorithm, ...] = (
    Algorithm("Pre-training, SFT", "raw text; <input, output>", ("01", "02"), (_POLICY,)),
    Algorithm("Reward model", "<input, accept, reject>", ("04",), (_JUDGE,)),
    Algorithm("PPO", "prompts, and a reward", ("05", "06"), (_ACTOR, _CRITIC, _REWARD, _REFERENCE)),
    Algorithm("DPO", "<input, accept, reject>", ("07",), (_POLICY, _REFERENCE)),
    Algorithm(
        "GRPO, RLOO",
        "prompts, and a reward: a function or a model",
        ("08",),
        (_POLICY, _REWARD_IF_MODEL, _REFERENCE_IF_BETA),
    ),
    Algorithm(
        "Best-of-n",
        "prompts, and a reward; nothing is trained",
        ("08",),
        (_FROZEN_POLICY, _REWARD_IF_MODEL),
    ),
)
"""In the order of the course."""
