"""A preference pair with what DPO's loss sees of it: four log-probabilities."""

from dataclasses import dataclass
from math import nan


@dataclass(frozen=True, slots=True)
class DPOPair:
    """Two answers to one prompt, and how likely policy and reference find them.

    Attributes:
        prompt: What was asked, as text.
        chosen: The preferred answer, as text.
        rejected: The other one.
        chosen_logp: log π of the whole preferred answer under the policy, in nats.
        rejected_logp: The same of the other answer.
        ref_chosen_logp: log π_ref of the preferred answer under the reference.
        ref_rejected_logp: The same of the other answer.
        chosen_tokens: Length of the preferred answer, its stop token included.
        rejected_tokens: Length of the other one.
        gold_gap: Gold reward of chosen minus that of rejected; NaN where there is no gold.
    """

    prompt: str
    chosen: str
    rejected: str
    chosen_logp: float
    rejected_logp: float
    ref_chosen_logp: float
    ref_rejected_logp: float
    chosen_tokens: int = 0
    rejected_tokens: int = 0
    gold_gap: float = nan

    @property
    def chosen_gain(self) -> float:
        """log π − log π_ref of the preferred answer, in nats: above 0 it became likelier."""
        return self.chosen_logp - self.ref_chosen_logp

    @property
    def rejected_gain(self) -> float:
        """log π − log π_ref of the other answer, in nats."""
        return self.rejected_logp - self.ref_rejected_logp

    @property
    def lead(self) -> float:
        """`chosen_gain` minus `rejected_gain`, in nats; times β it is the margin of the loss."""
        return self.chosen_gain - self.rejected_gain
