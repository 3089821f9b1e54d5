"""One module a stage: builds the right TRL trainer with the field's defaults."""

import ftkit.models  # noqa: F401  # first: it hushes bitsandbytes, which peft imports
from ftkit.stages.adapters import fresh_base
from ftkit.stages.sampling import answer
from ftkit.stages.sft import SFTRecipe, sft, sft_rows

__all__ = ["SFTRecipe", "answer", "fresh_base", "sft", "sft_rows"]
