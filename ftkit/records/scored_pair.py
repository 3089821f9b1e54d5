"""A preference pair with the scores that a reward model gave."""

from dataclasses import dataclass
from math import nan


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """Two answers to one prompt and their scores.

    Attributes:
        prompt: What was asked, as text.
        chosen: The preferred answer, as text.
        rejected: The other one.
        chosen_score: Of the preferred answer, in the reward model's own unit.
        rejected_score: Of the other one.
        gold_gap: Gold reward of chosen minus that of rejected; NaN where there is no gold.
    """

    prompt: str
    chosen: str
    rejected: str
    chosen_score: float
    rejected_score: float
    gold_gap: float = nan

    @property
    def gap(self) -> float:
        """Score of chosen minus score of rejected: above 0 the reward model agrees."""
        return self.chosen_score - self.rejected_score
