"""ftkit's rewards as TRL's group trainers call them, each score checked before it is believed."""

from collections.abc import Callable
from typing import Any, cast

from ftkit.chat.render import Renderer
from ftkit.stages.ppo.scoring import RewardFunction, RewardMix, checked_scores, named_rewards


def trl_rewards(reward: RewardMix, tokenizer: Any) -> tuple[list[Callable[..., Any]], list[float]]:
    """Return reward functions in TRL's signature, and the weight of each.

    Args:
        reward: ``(prompts, completions) -> scores``, or a mix ``{"name": (weight, reward), …}``.
            The prompts come as rendered text, with template and generation prompt, as PPO gives
            them; the completions as text without special tokens.
        tokenizer: Renders the prompts.

    Raises:
        TypeError: neither a function nor a mix of functions.
    """
    mix = named_rewards(reward)
    for name, (_, part) in mix.items():
        if not callable(part):
            raise TypeError(
                f"reward {name!r} is {part!r}: group trainers take functions of prompts and "
                "completions; wrap a reward model in one (Roles.scores)"
            )
    functions = [
        _adapted(name, cast(RewardFunction, part), tokenizer) for name, (_, part) in mix.items()
    ]
    return functions, [weight for weight, _ in mix.values()]


def _adapted(name: str, reward: RewardFunction, tokenizer: Any) -> Callable[..., list[float]]:
    renderer = Renderer.of(tokenizer)

    def scored(prompts: list[Any], completions: list[Any], **_: Any) -> list[float]:
        texts = [renderer.render(prompt, generation_prompt=True) for prompt in prompts]
        answers = [completion[0]["content"] for completion in completions]
        return checked_scores(name, reward, texts, answers)

    scored.__name__ = name  # TRL logs under this name
    return scored
