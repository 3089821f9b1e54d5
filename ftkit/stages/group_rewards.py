"""ftkit's rewards as TRL's group trainers call them, each score checked before it is believed."""

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

from ftkit.chat.render import Renderer
from ftkit.stages.ppo.scoring import RewardError, RewardFunction, RewardMix, named_rewards


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


def checked_scores(
    name: str, reward: RewardFunction, prompts: Sequence[str], completions: Sequence[str]
) -> list[float]:
    """Ask `reward` and return its scores, one a completion.

    Raises:
        RewardError: it raised, gave the wrong number of scores, or one that is no finite number;
            names the reward and, where one row is to blame, that row with its completion.
    """
    try:
        scores = list(reward(list(prompts), list(completions)))
    except Exception as error:
        row = _first_to_fail(reward, prompts, completions)
        where = "on the batch, though on no row alone" if row is None else _place(row, completions)
        raise RewardError(
            f"reward {name!r} raised {type(error).__name__}: {error}, {where}"
        ) from error
    if len(scores) != len(completions):
        raise RewardError(
            f"reward {name!r} returned {len(scores)} scores for {len(completions)} completions: "
            "return one a completion, in order"
        )
    return [_number(name, score, row, completions) for row, score in enumerate(scores)]


def _adapted(name: str, reward: RewardFunction, tokenizer: Any) -> Callable[..., list[float]]:
    renderer = Renderer.of(tokenizer)

    def scored(prompts: list[Any], completions: list[Any], **_: Any) -> list[float]:
        texts = [renderer.render(prompt, generation_prompt=True) for prompt in prompts]
        answers = [completion[0]["content"] for completion in completions]
        return checked_scores(name, reward, texts, answers)

    scored.__name__ = name  # TRL logs under this name
    return scored


def _number(name: str, score: Any, row: int, completions: Sequence[str]) -> float:
    try:
        value = float(score)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise RewardError(
            f"reward {name!r} gave {score!r} {_place(row, completions)}: return finite numbers"
        )
    return value


def _first_to_fail(
    reward: RewardFunction, prompts: Sequence[str], completions: Sequence[str]
) -> int | None:
    """Ask row by row which one the reward cannot score."""
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        try:
            reward([prompt], [completion])
        except Exception:
            return row
    return None


def _place(row: int, completions: Sequence[str]) -> str:
    return f"for row {row}, completion {completions[row][:80]!r}"
