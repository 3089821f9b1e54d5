"""GRPO and RLOO: reinforcement learning from groups of answers, without a critic.

TRL's `GRPOTrainer` and `RLOOTrainer` on the quantized base with LoRA, sampling with the model
itself (no engine). Two honest words on names. TRL's defaults are not those of the GRPO paper:
``loss_type="dapo", beta=0`` (no reference at all) against ``loss_type="grpo", beta=0.04`` of
DeepSeekMath. And TRL's two trainers put the KL in different places: GRPO into the loss (k3 of each
token), RLOO into the reward (k1, summed over the answer). Left out: several processes, tools,
environments, images, vLLM, and TRL's loss types that are not in `ftkit.algos`; your own
`trl.GRPOConfig` as `args` may still ask for them.
"""

from collections.abc import Sequence
from copy import copy
from typing import Any, TypeVar

from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from ftkit.errors import DataError
from ftkit.models import Loaded
from ftkit.stages.adapters import (
    shared_arguments,
)
from ftkit.stages.group_recipes import GroupRecipe, GRPORecipe, RLOORecipe
from ftkit.stages.group_rewards import trl_rewards
from ftkit.stages.ppo.rollout import encode_prompts
from ftkit.stages.ppo.scoring import RewardMix
from ftkit.stages.ppo.trainer import conversations
from ftkit.stages.starting import Start, policy_arguments, settle, take_start

_Trainer = TypeVar("_Trainer", GRPOTrainer, RLOOTrainer)


def grpo(
    base: Loaded,
    prompts: Any,
    reward: RewardMix,
    *,
    recipe: GRPORecipe | None = None,
    adapter: Start | None = None,
    args: GRPOConfig | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> GRPOTrainer:
    """Build a TRL `GRPOTrainer` on `base`, ready for ``train()``.

    There is one base in memory: a later stage on it takes this adapter out, so read or save it
    before. An adapter that the base carries now is removed, with a warning if it was trained and
    is not the one to start from. ``trainer.evaluate(rows)`` samples answers to other prompts and
    gives their mean reward; `rows` is a dataset with conversations in ``prompt``.

    Args:
        base: From `ftkit.load`.
        prompts: Texts (each a user's message), conversations that end with the user's turn, or a
            dataset with the column ``prompt`` (conversations).
        reward: ``(prompts, completions) -> scores``, or a mix ``{"name": (weight, reward), …}``;
            see `ftkit.stages.group_rewards.trl_rewards`.
        recipe: Sizes and rates; see `GRPORecipe`.
        adapter: Where the policy starts, e.g. an SFT adapter; with ``beta > 0`` a frozen copy of
            it is the reference. None for a new adapter and the bare base as reference.
        args: Your own `trl.GRPOConfig`, used instead of what `recipe` says, except for LoRA and
            `max_prompt_tokens`.
        callbacks: E.g. ``[ftkit.LiveMetrics(), ftkit.stages.GroupRecorder()]``.

    Raises:
        DataError: a prompt that is no conversation or too long (named), or too few prompts.
        TypeError: a reward that is no function.
        SettingsError: an adapter that cannot be read or does not fit.

    While it trains, a reward that raises or gives something else than one finite number a
    completion ends the run with `ftkit.stages.ppo.RewardError`, which names the row.
    """
    recipe = recipe or GRPORecipe()
    args = args or _grpo_config(base, recipe)
    return _trainer(GRPOTrainer, base, prompts, reward, recipe, adapter, args, callbacks)


def rloo(
    base: Loaded,
    prompts: Any,
    reward: RewardMix,
    *,
    recipe: RLOORecipe | None = None,
    adapter: Start | None = None,
    args: RLOOConfig | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> RLOOTrainer:
    """Build a TRL `RLOOTrainer` on `base`, ready for ``train()``.

    Args:
        base: See `grpo`.
        prompts: See `grpo`.
        reward: See `grpo`.
        recipe: Sizes and rates; see `RLOORecipe`.
        adapter: See `grpo`.
        args: Your own `trl.RLOOConfig`, used instead of what `recipe` says, except for LoRA and
            `max_prompt_tokens`.
        callbacks: See `grpo`.

    Raises:
        DataError: as `grpo`.
        TypeError: as `grpo`.
        SettingsError: as `grpo`.
    """
    recipe = recipe or RLOORecipe()
    args = args or _rloo_config(base, recipe)
    return _trainer(RLOOTrainer, base, prompts, reward, recipe, adapter, args, callbacks)


def _trainer(
    kind: type[_Trainer],
    base: Loaded,
    prompts: Any,
    reward: RewardMix,
    recipe: GroupRecipe,
    adapter: Start | None,
    args: Any,
    callbacks: Sequence[TrainerCallback],
) -> _Trainer:
    rows = _rows(base, prompts, recipe.max_prompt_tokens, args)
    functions, weights = trl_rewards(reward, base.tokenizer)
    start = take_start(base, adapter)
    trainer = kind(
        reward_funcs=functions,
        args=_weighted(args, weights),
        train_dataset=rows,
        processing_class=base.tokenizer,
        callbacks=list(callbacks),
        **policy_arguments(base, start, recipe.lora_r, recipe.lora_alpha),
    )
    settle(trainer, base, start, callbacks)
    return trainer


def _rows(base: Loaded, prompts: Any, longest: int, args: Any) -> Dataset:
    found = conversations(prompts)
    needed = args.generation_batch_size // args.num_generations
    if len(found) < needed:
        raise DataError(
            f"{len(found)} prompts for {needed} groups a step: give more prompts, or a smaller "
            "batch_size or a larger group_size"
        )
    encode_prompts(base.tokenizer, found, longest)  # refuses one that is too long, by its number
    return Dataset.from_list([{"prompt": list(conversation)} for conversation in found])


def _weighted(args: Any, weights: list[float]) -> Any:
    """Return `args` with the weights of a mix, unless they bring their own."""
    if args.reward_weights is not None:
        return args
    weighted = copy(args)
    weighted.reward_weights = weights
    return weighted


def _grpo_config(base: Loaded, recipe: GRPORecipe) -> GRPOConfig:
    return GRPOConfig(
        loss_type=recipe.loss_type,
        scale_rewards=recipe.scale_rewards,
        epsilon_high=recipe.clip_range_high,
        **_shared(base, recipe),
    )


def _rloo_config(base: Loaded, recipe: RLOORecipe) -> RLOOConfig:
    return RLOOConfig(normalize_advantages=recipe.normalize_advantages, **_shared(base, recipe))


def _shared(base: Loaded, recipe: GroupRecipe) -> dict[str, Any]:
    common = shared_arguments(base, recipe, evaluate=False)
    del common["max_length"]  # TRL never cuts here: prompts are checked, completions limited
    micro = recipe.micro_batch or recipe.batch_size
    return common | {
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": recipe.batch_size // micro,
        "num_generations": recipe.group_size,
        "max_completion_length": recipe.max_new_tokens,
        "temperature": recipe.temperature,
        "num_iterations": recipe.epochs,
        "epsilon": recipe.clip_range,
        "beta": recipe.beta,
    }
