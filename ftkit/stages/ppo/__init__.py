"""PPO for language models, one file a step of the algorithm, in the order in which it runs.

`rollout` (sample, keep old log-probabilities) → `scoring` (rewards, reference, KL) → advantages
from `ftkit.algos` → `update` (minibatches, clipped losses) → `trainer` (the loop) → `tracing`.
`evaluation` asks the same of a policy without training it.
"""

from ftkit.stages.ppo.config import PPOConfig
from ftkit.stages.ppo.details import details
from ftkit.stages.ppo.evaluation import Evaluation
from ftkit.stages.ppo.scoring import RewardError
from ftkit.stages.ppo.trainer import PPOTrainer

__all__ = ["Evaluation", "PPOConfig", "PPOTrainer", "RewardError", "details"]
