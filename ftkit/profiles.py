"""Profiles: the same notebook on a laptop CPU, on one GPU, or as a smoke test."""

import os
from dataclasses import dataclass, replace
from typing import Literal

from ftkit.errors import SettingsError

ProfileName = Literal["cpu", "gpu", "smoke"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes of one profile.

    Attributes:
        profile: ``"cpu"`` (2 cores, minutes), ``"gpu"`` (one card) or ``"smoke"`` (tests).
        model: What `ftkit.load` takes.
        quantization: What `ftkit.load` takes.
        pretrain_steps: Optimizer steps of continued pre-training.
        pretrain_batch: Packed blocks a step.
        pretrain_block: Tokens a block.
        sft_steps: Optimizer steps of supervised fine-tuning.
        short_steps: Steps of each of the two short runs that compare one change.
        noise_alphas: Scales of NEFTune's noise that are compared, 0 first.
        noise_steps: Steps of each run that compares them.
        noise_seeds: Runs with each of the scales.
        sft_batch: Rows a step.
        reward_steps: Optimizer steps of the reward model.
        reward_batch: Pairs a step of the reward model.
        dpo_steps: Optimizer steps of DPO.
        dpo_batch: Pairs a step of DPO.
        dpo_prompts: Prompts whose answers are sampled before and after DPO.
        ppo_rounds: Rollout-then-update rounds of PPO.
        ppo_batch: Completions a round.
        ppo_tokens: Longest completion of PPO in tokens.
        grpo_steps: Optimizer steps of GRPO.
        grpo_batch: Completions a step of GRPO, a multiple of 8.
        forget_steps: Optimizer steps of each run of the forgetting study.
        forget_batch: Rows of the narrow domain a step there.
        forget_seeds: Runs of the two strategies that are compared.
        ablate_seeds: Runs of each setting of the shipped ablations.
        ablate_steps: Optimizer steps of each run of SFT there.
        ablate_batch: Rows a step of SFT there.
        ablate_rounds: Rounds of each run of PPO there.
        ablate_completions: Completions a round there.
        max_length: Longest training sequence in tokens.
        new_tokens: Longest sampled answer in tokens.
        eval_rows: Held-out rows that are scored.
    """

    profile: ProfileName
    model: str = "smollm2-135m"
    quantization: Literal["nf4", "int8"] | None = "nf4"
    pretrain_steps: int = 24
    pretrain_batch: int = 8
    pretrain_block: int = 128
    sft_steps: int = 40
    short_steps: int = 8
    noise_alphas: tuple[int, ...] = (0, 5, 10, 15)
    noise_steps: int = 5
    noise_seeds: int = 3
    sft_batch: int = 8
    reward_steps: int = 40
    reward_batch: int = 8
    dpo_steps: int = 16
    dpo_batch: int = 8
    dpo_prompts: int = 20
    ppo_rounds: int = 9
    ppo_batch: int = 16
    ppo_tokens: int = 16
    grpo_steps: int = 24
    grpo_batch: int = 16
    forget_steps: int = 10
    forget_batch: int = 4
    forget_seeds: int = 2
    ablate_seeds: int = 3
    ablate_steps: int = 6
    ablate_batch: int = 4
    ablate_rounds: int = 4
    ablate_completions: int = 8
    max_length: int = 128
    new_tokens: int = 40
    eval_rows: int = 32


_CPU = Settings(profile="cpu")
_PROFILES: dict[str, Settings] = {
    "cpu": _CPU,
    "smoke": replace(
        _CPU,
        profile="smoke",
        pretrain_steps=2,
        pretrain_batch=2,
        pretrain_block=64,
        sft_steps=6,
        short_steps=2,
        noise_alphas=(0, 15),
        noise_steps=1,
        noise_seeds=2,
        sft_batch=4,
        reward_steps=3,
        reward_batch=2,
        dpo_steps=2,
        dpo_batch=2,
        dpo_prompts=3,
        ppo_rounds=2,
        ppo_batch=4,
        ppo_tokens=8,
        grpo_steps=2,
        grpo_batch=8,
        forget_steps=1,
        forget_batch=2,
        forget_seeds=1,
        ablate_seeds=2,
        ablate_steps=1,
        ablate_batch=2,
        ablate_rounds=1,
        ablate_completions=4,
        new_tokens=12,
        eval_rows=8,
    ),
    "gpu": replace(
        _CPU,
        profile="gpu",
        pretrain_steps=300,
        pretrain_batch=16,
        pretrain_block=512,
        sft_steps=300,
        short_steps=60,
        noise_steps=60,
        noise_seeds=4,
        sft_batch=16,
        reward_steps=150,
        reward_batch=16,
        dpo_steps=150,
        dpo_batch=16,
        dpo_prompts=20,
        ppo_rounds=100,
        ppo_batch=64,
        ppo_tokens=64,
        grpo_steps=150,
        grpo_batch=64,
        forget_steps=60,
        forget_batch=8,
        forget_seeds=5,
        ablate_seeds=5,
        ablate_steps=60,
        ablate_batch=8,
        ablate_rounds=20,
        ablate_completions=64,
        max_length=512,
        new_tokens=128,
        eval_rows=64,
    ),
}


def settings(profile: str | None = None) -> Settings:
    """Return the sizes of `profile`, by default of ``FTKIT_PROFILE``, else ``"cpu"``.

    Raises:
        SettingsError: no such profile.
    """
    name = profile or os.environ.get("FTKIT_PROFILE") or "cpu"
    if name not in _PROFILES:
        raise SettingsError(f"profile {name!r} is unknown; use one of {', '.join(_PROFILES)}")
    return _PROFILES[name]
