"""One module a stage: builds the right TRL trainer with the field's defaults."""

import ftkit.models  # noqa: F401  # first: it hushes bitsandbytes, which peft imports
from ftkit.stages.adapters import fresh_base
from ftkit.stages.reward import RewardRecipe, pair_scores, reward, reward_rows
from ftkit.stages.sampling import answer
from ftkit.stages.sft import SFTRecipe, sft, sft_rows

__all__ = [
    "RewardRecipe",
    "SFTRecipe",
    "answer",
    "fresh_base",
    "pair_scores",
    "reward",
    "reward_rows",
    "sft",
    "sft_rows",
]
