"""Sampling from exactly the distribution that is scored: softmax(z/τ) and nothing else.

Written out instead of calling `generate`, which takes top-k, repetition penalties and the like
from a checkpoint's files. With them PPO's ratio is not 1 before the first update.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ftkit.models import packed_rows
from ftkit.models.heads import position_ids, tempered
from ftkit.models.reserved_cache import reserve


@dataclass(frozen=True, slots=True)
class Completions:
    """Sampled answers.

    Attributes:
        ids: ``(batch, completion)`` tokens; the pad id behind the first stop token.
        mask: Bool ``(batch, completion)``, true at sampled tokens, the stop token included.
        logprobs: ``(batch, completion)`` of the sampler in nats, 0 at padding.
        values: ``(batch, completion)`` the critic's estimate before each token, 0 at padding.
        entropy: ``(batch, completion)`` of the sampler in nats, 0 at padding.
        ended: Bool ``(batch,)``, true where a stop token was sampled.
    """

    ids: Tensor
    mask: Tensor
    logprobs: Tensor
    values: Tensor
    entropy: Tensor
    ended: Tensor


@torch.no_grad()
def sample(
    decoder: Any,
    logits_of: Callable[[Tensor], Tensor],
    value_of: Callable[[Tensor], Tensor],
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    *,
    max_new_tokens: int,
    temperature: float,
    stop_ids: Tensor,
    pad_id: int,
    generator: torch.Generator | None = None,
    count_padding: bool = False,
) -> Completions:
    """Sample a completion of at most `max_new_tokens` tokens for each left-padded prompt.

    Args:
        decoder: The model without its LM head.
        logits_of: Its LM head, ``(batch, hidden) -> (batch, vocab)``.
        value_of: The critic's head, ``(batch, hidden) -> (batch,)``.
        prompt_ids: ``(batch, time)``.
        prompt_mask: Bool ``(batch, time)``.
        max_new_tokens: Longest completion.
        temperature: τ > 0.
        stop_ids: ``(stops,)`` tokens that end a completion; none for a fixed length.
        pad_id: What fills a completion up; may be a stop token too.
        generator: Source of randomness on the model's device; None for the global one.
        count_padding: As in `position_ids`.
    """
    read, cache = packed_rows.read(
        decoder, prompt_ids, prompt_mask, keep_cache=True, count_padding=count_padding
    )
    reserve(cache, max_new_tokens)
    states = read[:, -1]  # (batch, hidden)
    mask, positions = prompt_mask, position_ids(prompt_mask, count_padding)[:, -1:]
    done = torch.zeros_like(prompt_mask[:, 0])
    columns: list[tuple[Tensor, ...]] = []
    while True:
        drawn, logprobs, entropy = _next(tempered(logits_of(states), temperature), generator)
        new_ids = drawn.masked_fill(done[:, None], pad_id)
        columns.append((new_ids[:, 0], ~done, logprobs, value_of(states), entropy))
        done = done | torch.isin(drawn[:, 0], stop_ids)
        if len(columns) == max_new_tokens or done.all():
            break
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        positions = positions + 1
        states = decoder(
            input_ids=new_ids,
            attention_mask=mask.long(),
            position_ids=positions,
            cache=cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
    stacked = [torch.stack(column, 1) for column in zip(*columns, strict=True)]
    ids, real = stacked[:2]
    logprobs, values, entropy = (number.masked_fill(~real, 0.0) for number in stacked[2:])
    return Completions(ids, real, logprobs, values, entropy, done)


def _next(z: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a token ``(batch, 1)`` for each row of logits z/τ ``(batch, vocab)``.

    Not by `torch.log_softmax`: on a CPU it adds up so that rare tokens get lost when they are many,
    1.5e-5 nats at every token of SmolLM2-135M.

    Returns:
        Tokens, their log-probabilities ``(batch,)`` and the entropies ``(batch,)``, in nats.
    """
    below = z - z.amax(1, keepdim=True)
    weights = below.exp()
    drawn, mass = draw(weights, generator), weights.sum(1)
    logprobs = below.gather(1, drawn)[:, 0] - mass.log()
    return drawn, logprobs, mass.log() - below.mul_(weights).sum(1) / mass


def draw(weights: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw one index ``(batch, 1)`` from each row of weights ``(batch, n)``, by inverting its sums.

    One random number a row, where `torch.multinomial` makes one for every entry: a tenth of the
    time of decoding with a vocabulary of 49,152. Summed in float64, so that the rounding of a
    sum over the vocabulary moves no token's probability. An entry of 0 is never drawn.

    Raises:
        ValueError: a row whose sum is not finite or not above 0; names it.
    """
    sums = weights.double().cumsum(1)
    total = sums[:, -1:]
    bad = ~(total.isfinite() & (total > 0))
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        raise ValueError(
            f"row {row} holds no distribution to draw from, its sum is {float(total[row])}: the "
            "model's logits are not finite. Lower the learning rate, or look for a layer that "
            "overflows in 16 bits"
        )
    uniform = torch.rand(total.shape, dtype=sums.dtype, device=sums.device, generator=generator)
    # In (0, total], also when rounded: the first sum that reaches it belongs to an entry above 0.
    return torch.searchsorted(sums, (1.0 - uniform) * total)
