"""One module a stage: builds the right TRL trainer with the field's defaults."""

from ftkit.stages.sampling import answer
from ftkit.stages.sft import SFTRecipe, sft

__all__ = ["SFTRecipe", "answer", "sft"]
