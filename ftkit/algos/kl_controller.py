"""Who sets β, the price of KL: nobody (fixed), or a controller that holds the KL at a target.

Controllers hold no state: the coefficient goes in and the next one comes out, so a checkpoint
keeps one number.
"""

import math
from dataclasses import dataclass
from typing import Protocol

from ftkit.algos.checks import check_not_negative, check_positive


class KLController(Protocol):
    """Anything that turns this round's β and KL into the next round's β."""

    def next_coef(self, coef: float, kl: float, episodes: int) -> float:
        """Return the β of the next round.

        Args:
            coef: β of this round, in score units a nat.
            kl: Mean KL of this round's answers to the reference, in nats an answer.
            episodes: Answers sampled in this round.
        """


@dataclass(frozen=True, slots=True)
class FixedKL:
    """β stays what it is."""

    def next_coef(self, coef: float, kl: float, episodes: int) -> float:
        """Return `coef`; see `KLController.next_coef`.

        Raises:
            ValueError: β negative or not finite, KL not finite, or no episode.
        """
        _check_round("FixedKL", coef, kl, episodes)
        return coef


@dataclass(frozen=True, slots=True)
class AdaptiveKL:
    """Proportional control of log β, section 2.2 of Ziegler et al. 2019.

    With e = clip(KL/target − 1, −0.2, 0.2): β ← β·(1 + K·e), and K = episodes/horizon as in their
    code, so that the pace does not depend on the batch size.

    Attributes:
        target: KL to hold, in nats an answer; 6 in "The N Implementation Details of RLHF with
            PPO" (Huang et al. 2023), policy detail 11. Longer answers need a larger one.
        horizon: Episodes in which a KL that is 20 % or more off scales β by about e^0.2; 10,000
            there.

    Raises:
        ValueError: target or horizon not above 0.
    """

    target: float = 6.0
    horizon: int = 10_000

    def __post_init__(self) -> None:
        check_positive("AdaptiveKL", target=self.target, horizon=self.horizon)

    def next_coef(self, coef: float, kl: float, episodes: int) -> float:
        """Return β·(1 + e·episodes/horizon); see `KLController.next_coef`.

        Raises:
            ValueError: β negative or not finite, KL not finite, no episode, or so many that one
                step could turn β negative (5 horizons).
        """
        _check_round("AdaptiveKL", coef, kl, episodes)
        if episodes >= 5 * self.horizon:
            raise ValueError(
                f"AdaptiveKL: {episodes} episodes a round are 5 horizons of {self.horizon} or "
                "more, so one step could turn the coefficient negative; lengthen the horizon"
            )
        error = min(max(kl / self.target - 1.0, -0.2), 0.2)
        return coef * (1.0 + error * episodes / self.horizon)


def _check_round(controller: str, coef: float, kl: float, episodes: int) -> None:
    check_not_negative(controller, coef=coef)
    check_positive(controller, episodes=episodes)
    if not math.isfinite(kl):
        raise ValueError(
            f"{controller}: the measured KL is {kl}; check the log-probabilities before pricing it"
        )
