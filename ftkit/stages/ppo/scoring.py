"""Step 2: what the completions are worth, and what each token is paid.

A reward is a Python function of prompts and completions, the reward role of `Roles`, or a
weighted mix. The score goes to the last real token; every token pays β a nat of KL from the
reference (detail P8 of Huang et al. 2023).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from ftkit.algos import token_kl, token_rewards, whiten
from ftkit.errors import DataError
from ftkit.models.roles import Roles
from ftkit.stages.ppo.config import PPOConfig
from ftkit.stages.ppo.rollout import Rollout

RewardFunction: TypeAlias = Callable[[list[str], list[str]], Sequence[float]]
Reward: TypeAlias = RewardFunction | Literal["model"]
RewardMix: TypeAlias = Reward | Mapping[str, tuple[float, Reward]]


_TELLING = 4  # fewer completions can all be empty by chance
_TAIL = 100  # characters of a prompt: its last words, and what a chat template writes behind them


class RewardError(ValueError):
    """A reward that raised, returned the wrong number of scores, or one that is not finite.

    Attributes:
        row: Of the batch that was scored; None where no single row is to blame.
    """

    def __init__(self, message: str, row: int | None = None) -> None:
        super().__init__(message)
        self.row = row


@dataclass(frozen=True, slots=True)
class Scored:
    """What one round's completions earned.

    Attributes:
        parts: Name → ``(batch,)`` scores of each reward, before weights.
        scores: ``(batch,)`` weighted sum, as the rewards gave it.
        paid: ``(batch,)`` what of it is paid: after the penalty for completions that do not end.
        ref_logprobs: ``(batch, completion)`` of the reference, in nats.
        kl: ``(batch, completion)`` per-token estimate in nats.
        token_rewards: ``(batch, completion)``, −β·KL, plus the paid score at the last real token.
        rewards: ``(batch, completion)``, what GAE sees: the same, whitened where asked.
    """

    parts: dict[str, Tensor]
    scores: Tensor
    paid: Tensor
    ref_logprobs: Tensor
    kl: Tensor
    token_rewards: Tensor
    rewards: Tensor


def named_rewards(reward: RewardMix) -> dict[str, tuple[float, Reward]]:
    """Return any reward as a mix: name → (weight, reward).

    Raises:
        TypeError: neither a function, nor ``"model"``, nor a mix of those.
    """
    if isinstance(reward, Mapping):
        mix = dict(reward)
    else:
        mix = {getattr(reward, "__name__", "model"): (1.0, reward)}
    for name, (_, part) in mix.items():
        if part != "model" and not callable(part):
            raise TypeError(f"reward {name!r} is {part!r}; give a function or 'model'")
    return mix


def score(
    roles: Roles, rollout: Rollout, reward: RewardMix, kl_coef: float, config: PPOConfig
) -> Scored:
    """Ask the rewards and the reference, and pay each token.

    A completion that is only the stop token is scored as ``""``.

    Raises:
        RewardError: names the reward and the row.
    """
    mix = named_rewards(reward)
    parts = {name: _ask(roles, rollout, name, part) for name, (_, part) in mix.items()}
    scores = torch.stack([mix[name][0] * part for name, part in parts.items()]).sum(dim=0)
    paid = scores - config.missing_eos_penalty * (~rollout.ended).to(scores.dtype)
    if not config.score_at_last_real:
        paid = paid * rollout.mask[:, -1]
    with torch.no_grad(), roles.as_reference():
        reference = roles.logprobs_and_values(
            rollout.ids,
            rollout.attention,
            rollout.start,
            temperature=config.temperature,
            with_values=False,
        )
    kl = token_kl(rollout.logprobs, reference.logprobs, rollout.mask, config.kl_estimator)
    tokens = token_rewards(paid, kl, rollout.mask, kl_coef)
    rewards = whiten(tokens, rollout.mask, shift_mean=False) if config.whiten_rewards else tokens
    return Scored(parts, scores, paid, reference.logprobs, kl, tokens, rewards)


def require_text(rollout: Rollout) -> None:
    """Refuse a round that teaches nothing.

    Raises:
        DataError: all completions are empty, of a batch of at least four.
    """
    if len(rollout.completions) >= _TELLING and not any(rollout.completions):
        prompt = rollout.prompts[0][-_TAIL:]
        raise DataError(
            f"all {len(rollout.completions)} completions of this round are empty: the policy ends "
            f"every answer at once, from row 0 on (prompt ends with {prompt!r}), so "
            "there is nothing to learn from. Does the reward pay for short answers? Start anew, in "
            "another output_dir, with a higher kl_coef or a lower learning rate; if it is the "
            "first round, look at the chat template"
        )


@contextmanager
def numbered(prompts: Sequence[int]) -> Iterator[None]:
    """Let an error about a row also say which prompt that is.

    Args:
        prompts: Number of each row's prompt among all that were given.
    """
    try:
        yield
    except RewardError as error:
        if error.row is not None:
            error.args = (f"{error}. Row {error.row} here is prompt {prompts[error.row]}",)
        raise


def _ask(roles: Roles, rollout: Rollout, name: str, reward: Reward) -> Tensor:
    if reward == "model":
        with torch.no_grad():
            scores = roles.scores(rollout.ids, rollout.attention).float()
    else:
        given = checked_scores(name, reward, rollout.prompts, rollout.completions)
        scores = torch.tensor(given, device=rollout.logprobs.device)
    # Of a function, too: what float32 cannot hold is infinite by now.
    _numbers(name, scores.tolist(), rollout.prompts, rollout.completions)
    return scores


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
        where = (
            "on the batch, though on no row alone"
            if row is None
            else _place(row, prompts, completions)
        )
        raise RewardError(
            f"reward {name!r} raised {type(error).__name__}: {error}, {where}", row
        ) from error
    if len(scores) != len(completions):
        raise RewardError(
            f"reward {name!r} returned {len(scores)} scores for {len(completions)} completions: "
            "return one a completion, in order"
        )
    return _numbers(name, scores, prompts, completions)


def _numbers(
    name: str, scores: Sequence[Any], prompts: Sequence[str], completions: Sequence[str]
) -> list[float]:
    values = [_number(score) for score in scores]
    for row, value in enumerate(values):
        if not math.isfinite(value):
            where = _place(row, prompts, completions)
            raise RewardError(
                f"reward {name!r} gave {scores[row]!r} {where}: return finite numbers", row
            )
    return values


def _number(score: Any) -> float:
    """Return `score` as a number, NaN for what is none."""
    try:
        return float(score)
    except (TypeError, ValueError):
        return math.nan


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


def _place(row: int, prompts: Sequence[str], completions: Sequence[str]) -> str:
    prompt = str(prompts[row])[-_TAIL:]
    return f"for row {row}, prompt ending {prompt!r}, completion {completions[row][:80]!r}"
