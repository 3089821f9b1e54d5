"""A language so small that everything can be counted: exact values, gradients and probabilities.

State = the words so far, action = the next token: one of a few words, or the end token. Nothing is
random but the policy: a table of logits, one row a state, whose softmax picks the token. An answer
ends at the end token or at the length limit, and only then gets its score. So the estimators of
PPO can be held against what they estimate. Undiscounted, as RLHF is. Left out: prompts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from typing import NamedTuple

import torch
from torch import Tensor

from ftkit.algos.checks import check_not_negative
from ftkit.algos.kl import token_kl, token_rewards

Score = Callable[[tuple[str, ...], bool], float]
"""Words of a finished answer, and whether it ended with the end token → score."""

END = "<end>"


@dataclass(frozen=True, eq=False)
class TokenMDP:
    """A reward table over all answers of a tiny language.

    Actions are numbered by `words`, then the end token. States are numbered level by level: 0 is
    the empty answer, and word ``w`` leads from state ``s`` to ``s * len(words) + 1 + w``.

    Attributes:
        words: The vocabulary without the end token.
        max_tokens: Tokens in the longest answer, the end token included.
        scores: Float64 ``(states, actions)``, paid by the action that ends the answer; 0 where the
            answer goes on.
        ref_logits: Float64 ``(states, actions)`` of the reference policy; zeros are uniform.
        kl_coef: β ≥ 0, the price of a nat of log π − log π_ref at each token, in score units.
    """

    words: tuple[str, ...]
    max_tokens: int
    scores: Tensor
    ref_logits: Tensor
    kl_coef: float = 0.0

    @cached_property
    def prefixes(self) -> tuple[tuple[str, ...], ...]:
        """The words of each state, in the order of the state numbers."""
        return tuple(
            words
            for length in range(self.max_tokens)
            for words in product(self.words, repeat=length)
        )

    @cached_property
    def levels(self) -> tuple[slice, ...]:
        """The state numbers of each length, from 0 to ``max_tokens − 1`` words."""
        starts = [sum(len(self.words) ** k for k in range(n)) for n in range(self.max_tokens + 1)]
        return tuple(slice(a, b) for a, b in pairwise(starts))

    def text(self, tokens: Tensor) -> str:
        """Return the action numbers `tokens`, ``(time,)``, as words."""
        names = (*self.words, END)
        return " ".join(names[int(token)] for token in tokens)

    def zero_logits(self) -> Tensor:
        """Return the uniform policy: float64 zeros ``(states, actions)``."""
        return torch.zeros_like(self.scores)


class Exact(NamedTuple):
    """What a policy is really worth; every number differentiable in its logits.

    Attributes:
        objective: ``()``, J = V of the empty answer: expected score minus β·KL.
        values: ``(states,)``, V: expected rewards from a state on.
        q: ``(states, actions)``, Q: the same after a given token.
        advantages: ``(states, actions)``, A = Q − V; its mean under the policy is 0.
        visits: ``(states,)``, probability that an answer comes through a state.
    """

    objective: Tensor
    values: Tensor
    q: Tensor
    advantages: Tensor
    visits: Tensor


class Answers(NamedTuple):
    """Finished answers, padded at the right to the longest possible.

    Attributes:
        states: Int64 ``(answers, time)``, the state before each token; 0 at padding.
        tokens: Int64 ``(answers, time)``, action numbers; the end token's at padding.
        mask: Bool ``(answers, time)``, true at real tokens.
        scores: Float64 ``(answers,)``.
    """

    states: Tensor
    tokens: Tensor
    mask: Tensor
    scores: Tensor


def token_mdp(
    words: tuple[str, ...], max_tokens: int, score: Score, kl_coef: float = 0.0
) -> TokenMDP:
    """Write the reward table of `score` for every answer of up to `max_tokens` tokens.

    Args:
        words: One or more different words, without the end token.
        max_tokens: At least 1; an answer of so many words is cut without an end token.
        score: Called once for each finished answer.
        kl_coef: β ≥ 0 against a uniform reference; for another, replace ``ref_logits``.

    Raises:
        ValueError: no word or one twice, no token, more than 4,096 states, or β negative.
    """
    check_not_negative("token_mdp", kl_coef=kl_coef)
    if not words or len({*words, END}) != len(words) + 1 or max_tokens < 1:
        raise ValueError(
            f"token_mdp: words {words} and max_tokens {max_tokens}; give different words, none of "
            f"them {END!r}, and at least 1 token"
        )
    if (states := sum(len(words) ** n for n in range(max_tokens))) > 4096:
        raise ValueError(f"token_mdp: {states} states are too many to count; use at most 4,096")
    empty = torch.zeros(states, len(words) + 1, dtype=torch.float64)
    mdp = TokenMDP(words, max_tokens, empty, empty.clone(), kl_coef)
    for state, prefix in enumerate(mdp.prefixes):
        mdp.scores[state, -1] = score(prefix, True)
        if len(prefix) == max_tokens - 1:
            cut = [score((*prefix, word), False) for word in words]
            mdp.scores[state, :-1] = torch.tensor(cut, dtype=torch.float64)
    return mdp


def sentiment_mdp(max_tokens: int = 4, kl_coef: float = 0.0) -> TokenMDP:
    """Return the course's example: ``good``, ``bad``, ``not``, and a score that reads them.

    ``good`` is worth 1 and ``bad`` −1; after ``not`` they are −1 and 0.5, so that a word's worth
    depends on the state. A last ``not`` is worth nothing, and an answer without end costs 1.
    """
    return token_mdp(("good", "bad", "not"), max_tokens, _sentiment, kl_coef)


def _sentiment(words: tuple[str, ...], ended: bool) -> float:
    plain, negated = {"good": 1.0, "bad": -1.0, "not": 0.0}, {"good": -1.0, "bad": 0.5, "not": 0.0}
    before = ("", *words)
    worth = (
        (negated if last == "not" else plain)[word]
        for last, word in zip(before, words, strict=False)
    )
    return sum(worth) - (0.0 if ended else 1.0)


def solve(mdp: TokenMDP, logits: Tensor) -> Exact:
    """Compute values backwards (Bellman) and visits forwards, one length at a time.

    Args:
        mdp: The language and its rewards.
        logits: Float64 ``(states, actions)`` of the policy.

    Raises:
        ValueError: `logits` of another shape, or not finite.
    """
    logprobs = _log_policy(mdp, logits)
    probs, rewards = logprobs.exp(), action_rewards(mdp, logits)
    words, later = len(mdp.words), logits.new_zeros(len(mdp.words) ** mdp.max_tokens)
    q_levels, v_levels = [], []
    for level in reversed(mdp.levels):
        following = torch.nn.functional.pad(later.reshape(-1, words), (0, 1))  # 0 after the end
        q_levels.append(rewards[level] + following)  # (states of this length, actions)
        later = (probs[level] * q_levels[-1]).sum(1)
        v_levels.append(later)
    reached = [logits.new_ones(1)]
    for level in mdp.levels[:-1]:
        reached.append((reached[-1][:, None] * probs[level, :words]).flatten())
    q, values = torch.cat(q_levels[::-1]), torch.cat(v_levels[::-1])
    return Exact(values[0], values, q, q - values[:, None], torch.cat(reached))


def policy_gradient(mdp: TokenMDP, logits: Tensor) -> Tensor:
    """Return ∂J/∂logits in closed form: d(s)·π(a|s)·A(s, a), with d the visits.

    The policy gradient theorem (Sutton & Barto 2018, section 13.2) for a softmax table. The KL
    price depends on the policy too, but that adds nothing: E_π[∇ log π] is 0 in every state.

    Args:
        mdp: The language and its rewards.
        logits: Float64 ``(states, actions)``.

    Returns:
        ``(states, actions)`` in score units, no gradient; each row sums to 0.

    Raises:
        ValueError: as `solve`.
    """
    with torch.no_grad():
        exact = solve(mdp, logits)
        return exact.visits[:, None] * _log_policy(mdp, logits).exp() * exact.advantages


def action_rewards(mdp: TokenMDP, logits: Tensor) -> Tensor:
    """Return r(s, a) = score − β·(log π − log π_ref), ``(states, actions)``.

    Raises:
        ValueError: as `solve`.
    """
    gap = _log_policy(mdp, logits) - _log_policy(mdp, mdp.ref_logits)
    return mdp.scores - mdp.kl_coef * gap


def all_answers(mdp: TokenMDP) -> Answers:
    """Return every finished answer once, shorter ones first."""
    rows = list(_finished(len(mdp.words), mdp.max_tokens))
    padded = [row + (len(mdp.words),) * (mdp.max_tokens - len(row)) for row in rows]
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(mdp.max_tokens) < lengths[:, None]
    return _answers(mdp, torch.tensor(padded), mask)


def sample_answers(
    mdp: TokenMDP, logits: Tensor, count: int, generator: torch.Generator
) -> Answers:
    """Draw `count` answers from the policy, token by token.

    Args:
        mdp: The language.
        logits: Float64 ``(states, actions)``.
        count: At least 1.
        generator: Where the randomness comes from.

    Raises:
        ValueError: as `solve`, or `count` below 1.
    """
    if count < 1:
        raise ValueError(f"sample_answers: count is {count}; draw at least 1 answer")
    probs, end = _log_policy(mdp, logits.detach()).exp(), len(mdp.words)
    state, alive = torch.zeros(count, dtype=torch.int64), torch.ones(count, dtype=torch.bool)
    tokens, mask = [], []
    for _ in range(mdp.max_tokens):
        drawn = torch.multinomial(probs[state], 1, generator=generator)[:, 0]
        tokens.append(torch.where(alive, drawn, end))
        mask.append(alive)
        alive = alive & (drawn != end)
        state = torch.where(alive, state * end + 1 + drawn, 0) % len(probs)
    return _answers(mdp, torch.stack(tokens, 1), torch.stack(mask, 1))


def answer_logprobs(mdp: TokenMDP, answers: Answers, logits: Tensor) -> Tensor:
    """Return log π of each token of each answer, ``(answers, time)`` in nats, 0 at padding.

    Raises:
        ValueError: as `solve`.
    """
    chosen = _log_policy(mdp, logits)[answers.states, answers.tokens]
    return torch.where(answers.mask, chosen, 0.0)


def answer_rewards(mdp: TokenMDP, answers: Answers, logits: Tensor) -> Tensor:
    """Return the rewards as PPO pays them: −β·KL a token, the score at the last real one.

    Args:
        mdp: The language and its rewards.
        answers: Any answers.
        logits: Float64 ``(states, actions)`` of the policy that sampled them.

    Returns:
        ``(answers, time)`` in score units, 0 at padding, no gradient.

    Raises:
        ValueError: as `solve`.
    """
    logprobs = answer_logprobs(mdp, answers, logits)
    ref_logprobs = answer_logprobs(mdp, answers, mdp.ref_logits)
    kl = token_kl(logprobs, ref_logprobs, answers.mask)
    return token_rewards(answers.scores, kl, answers.mask, mdp.kl_coef) + 0.0  # no −0


def _answers(mdp: TokenMDP, tokens: Tensor, mask: Tensor) -> Answers:
    states = torch.zeros_like(tokens)
    for t in range(1, mdp.max_tokens):
        reached = states[:, t - 1] * len(mdp.words) + 1 + tokens[:, t - 1]
        states[:, t] = torch.where(mask[:, t], reached, 0)
    paid = mdp.scores[states, tokens]  # 0 at every token but the last
    return Answers(states, tokens, mask, torch.where(mask, paid, 0.0).sum(1))


def _finished(words: int, max_tokens: int) -> Iterator[tuple[int, ...]]:
    for length in range(max_tokens):
        for prefix in product(range(words), repeat=length):
            yield (*prefix, words)
    yield from product(range(words), repeat=max_tokens)


def _log_policy(mdp: TokenMDP, logits: Tensor) -> Tensor:
    if logits.shape != mdp.scores.shape:
        raise ValueError(
            f"the logits have shape {tuple(logits.shape)}; this language needs one row for each "
            f"of its states and one column for each action: {tuple(mdp.scores.shape)}"
        )
    if not torch.isfinite(logits).all():
        raise ValueError("the logits hold NaN or infinity; the policy is not defined there")
    return torch.log_softmax(logits, 1)
