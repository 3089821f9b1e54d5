"""The comparison: every algorithm from one start, on one reward, at an equal budget.

In reading order: `recipe` (sizes), `best_of_n` and `pairs` (what needs no trainer of its own),
`probe` (the one evaluation), `meter` (what a run has cost), `pacing` (when to look, when to stop),
`runners` (one function an algorithm), `isolation` (a process a run), `study` (all of them).
"""

from ftkit.stages.compare.recipe import CompareRecipe
from ftkit.stages.compare.study import compare

__all__ = ["CompareRecipe", "compare"]
