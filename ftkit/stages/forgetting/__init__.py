"""The forgetting study: strategies, runs from one start, and the scores after each.

In reading order: `strategies` (what is trained, what pulls back), `rows` (the same rows for all),
`weights` (made trainable, put back), `anchored` (the loss), `measure` (the scores), `study`.
"""

from ftkit.stages.forgetting.progress import Progress
from ftkit.stages.forgetting.strategies import STRATEGIES, Strategy
from ftkit.stages.forgetting.study import ForgettingRecipe, forgetting

__all__ = ["STRATEGIES", "ForgettingRecipe", "Progress", "Strategy", "forgetting"]
