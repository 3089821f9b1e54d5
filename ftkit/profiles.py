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
        sft_steps: Optimizer steps of supervised fine-tuning.
        short_steps: Steps of each of the two short runs that compare one change.
        sft_batch: Rows a step.
        reward_steps: Optimizer steps of the reward model.
        reward_batch: Pairs a step of the reward model.
        ppo_rounds: Rollout-then-update rounds of PPO.
        ppo_batch: Completions a round.
        max_length: Longest training sequence in tokens.
        new_tokens: Longest sampled answer in tokens.
        eval_rows: Held-out rows that are scored.
    """

    profile: ProfileName
    model: str = "smollm2-135m"
    quantization: Literal["nf4", "int8"] | None = "nf4"
    sft_steps: int = 40
    short_steps: int = 12
    sft_batch: int = 8
    reward_steps: int = 40
    reward_batch: int = 8
    ppo_rounds: int = 16
    ppo_batch: int = 16
    max_length: int = 128
    new_tokens: int = 40
    eval_rows: int = 32


_CPU = Settings(profile="cpu")
_PROFILES: dict[str, Settings] = {
    "cpu": _CPU,
    "smoke": replace(
        _CPU,
        profile="smoke",
        sft_steps=6,
        short_steps=2,
        sft_batch=4,
        reward_steps=3,
        reward_batch=2,
        ppo_rounds=2,
        ppo_batch=4,
        new_tokens=12,
        eval_rows=8,
    ),
    "gpu": replace(
        _CPU,
        profile="gpu",
        sft_steps=300,
        short_steps=60,
        sft_batch=16,
        reward_steps=150,
        reward_batch=16,
        ppo_rounds=100,
        ppo_batch=64,
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
