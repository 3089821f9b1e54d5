"""One module a stage: builds the right TRL trainer with the field's defaults."""

from typing import TYPE_CHECKING

import ftkit.models  # noqa: F401  # first: it hushes bitsandbytes, which peft imports
from ftkit.late import late

_HOMES = {
    "CompareRecipe": "compare",
    "DPORecipe": "dpo",
    "ForgettingRecipe": "forgetting",
    "GRPORecipe": "group_recipes",
    "GroupRecipe": "group_recipes",
    "GroupRecorder": "group_recorder",
    "NoiseRecorder": "noise",
    "PretrainRecipe": "pretrain",
    "RLOORecipe": "group_recipes",
    "RewardRecipe": "reward",
    "SFTRecipe": "sft",
    "STRATEGIES": "forgetting",
    "Strategy": "forgetting",
    "answer": "sampling",
    "compare": "compare",
    "crossing_effect": "crossing",
    "dpo": "dpo",
    "dpo_pairs": "dpo_pairs",
    "dpo_rows": "dpo",
    "forgetting": "forgetting",
    "fresh_base": "adapters",
    "grpo": "grpo",
    "hook_noise": "noise",
    "noise_map": "noise",
    "noise_proof": "noise",
    "pair_scores": "reward",
    "pretrain": "pretrain",
    "pretrain_rows": "pretrain",
    "reward": "reward",
    "reward_rows": "reward",
    "rloo": "grpo",
    "sft": "sft",
    "sft_rows": "sft",
    "tokenize": "pretrain",
}

__all__ = [
    "STRATEGIES",
    "CompareRecipe",
    "DPORecipe",
    "ForgettingRecipe",
    "GRPORecipe",
    "GroupRecipe",
    "GroupRecorder",
    "NoiseRecorder",
    "PretrainRecipe",
    "RLOORecipe",
    "RewardRecipe",
    "SFTRecipe",
    "Strategy",
    "answer",
    "compare",
    "crossing_effect",
    "dpo",
    "dpo_pairs",
    "dpo_rows",
    "forgetting",
    "fresh_base",
    "grpo",
    "hook_noise",
    "noise_map",
    "noise_proof",
    "pair_scores",
    "pretrain",
    "pretrain_rows",
    "reward",
    "reward_rows",
    "rloo",
    "sft",
    "sft_rows",
    "tokenize",
]

if TYPE_CHECKING:
    from ftkit.stages.adapters import fresh_base
    from ftkit.stages.compare import CompareRecipe, compare
    from ftkit.stages.crossing import crossing_effect
    from ftkit.stages.dpo import DPORecipe, dpo, dpo_rows
    from ftkit.stages.dpo_pairs import dpo_pairs
    from ftkit.stages.forgetting import STRATEGIES, ForgettingRecipe, Strategy, forgetting
    from ftkit.stages.group_recipes import GroupRecipe, GRPORecipe, RLOORecipe
    from ftkit.stages.group_recorder import GroupRecorder
    from ftkit.stages.grpo import grpo, rloo
    from ftkit.stages.noise import NoiseRecorder, hook_noise, noise_map, noise_proof
    from ftkit.stages.pretrain import PretrainRecipe, pretrain, pretrain_rows, tokenize
    from ftkit.stages.reward import RewardRecipe, pair_scores, reward, reward_rows
    from ftkit.stages.sampling import answer
    from ftkit.stages.sft import SFTRecipe, sft, sft_rows

late(__name__, _HOMES)
