"""What every row of a batch begins with is read once: a system prompt, the head of a template.

A token's hidden state depends on the tokens before it alone, so rows that begin alike have equal
states there. One row is read for all of them, and the rest of each row reads on from its keys and
values, gradients included. In SmolLM2's chat template 24 tokens come before the user's first
word: with 13 tokens of prompt and 24 of answer that is two fifths of all work.

Servers call this prefix caching (Zheng et al. 2023, arXiv 2312.07104); here it also saves
the backward pass. What it costs: a layer runs twice, so short beginnings are not split off.
"""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from ftkit.models.heads import position_ids

_WORTH = 1 / 8
"""Least share of a batch's tokens that must be saved; a second, short pass has its own price."""


def read(
    decoder: Any, ids: Tensor, mask: Tensor, *, keep_cache: bool = False
) -> tuple[Tensor, DynamicCache | None, Tensor]:
    """Return the last hidden states of a padded batch, its common beginning computed once.

    Args:
        decoder: The model without its LM head.
        ids: ``(batch, time)``, padded on either side.
        mask: Bool ``(batch, time)``, true at real tokens.
        keep_cache: Whether keys and values are wanted, for decoding on.

    Returns:
        States ``(batch, time, hidden)``, in the columns of `ids`; the cache or None; and the mask
        ``(batch, time)`` in the cache's order of columns, which is that of `ids` unless a
        beginning was split off.
    """
    cache = DynamicCache(config=decoder.config)
    split = Split.of(ids, mask) if _rows_can_part(cache) else None
    if split is not None:
        return split.read(decoder, cache), cache, split.mask
    if not keep_cache:
        cache = None
    outputs = decoder(
        input_ids=ids,
        attention_mask=mask.long(),
        position_ids=position_ids(mask),
        cache=cache,
        use_cache=keep_cache,
    )
    return outputs.last_hidden_state, cache, mask


def _rows_can_part(cache: DynamicCache) -> bool:
    """Whether all layers attend to everything before; a sliding window counts padding, too."""
    return all(type(layer) is DynamicLayer for layer in cache.layers)


@dataclass(frozen=True, slots=True)
class Split:
    """A batch whose rows share their first `size` real tokens.

    Attributes:
        start: ``(1, size)`` the shared tokens.
        rest: ``(batch, time − size)`` what follows them in each row, padding where it was.
        positions: ``(batch, time − size)`` of `rest`, counting real tokens of the whole row.
        mask: Bool ``(batch, time)``: the shared tokens, then `rest`.
        shared: Bool ``(batch, time)``, true where the batch held the shared tokens.
    """

    start: Tensor
    rest: Tensor
    positions: Tensor
    mask: Tensor
    shared: Tensor

    @classmethod
    def of(cls, ids: Tensor, mask: Tensor) -> Self | None:
        """Split a padded batch, or return None where it would not pay."""
        batch, time = ids.shape
        # Something must remain of every row: its last real token at least.
        size = min(_common(ids, mask), int(mask.sum(1).min()) - 1)
        if size * (batch - 1) < _WORTH * batch * time:
            return None
        positions = position_ids(mask)
        shared = mask & (positions < size)
        rest = (batch, time - size)
        return cls(
            start=ids[0][shared[0]][None],
            rest=ids[~shared].view(rest),
            positions=positions[~shared].view(rest),
            mask=torch.cat([mask[shared].view(batch, size), mask[~shared].view(rest)], 1),
            shared=shared,
        )

    def read(self, decoder: Any, cache: DynamicCache) -> Tensor:
        """Return the states ``(batch, time, hidden)`` in the columns of the batch; fill `cache`."""
        ahead = decoder(input_ids=self.start, cache=cache, use_cache=True).last_hidden_state
        cache.batch_repeat_interleave(len(self.rest))
        behind = decoder(
            input_ids=self.rest,
            attention_mask=self.mask.long(),
            position_ids=self.positions,
            cache=cache,
            use_cache=True,
        ).last_hidden_state
        states = behind.new_zeros(*self.shared.shape, behind.shape[-1])
        states[self.shared] = ahead.expand(len(self.rest), -1, -1).flatten(0, 1)
        states[~self.shared] = behind.flatten(0, 1)
        return states


def _common(ids: Tensor, mask: Tensor) -> int:
    """Return how many real tokens all rows have in common at their beginning."""
    order = (~mask).long().argsort(dim=1, stable=True)  # real tokens first, in their order
    ids, mask = ids.gather(1, order), mask.gather(1, order)
    alike = ((ids == ids[:1]) & mask).all(0)
    return int(alike.long().cumprod(0).sum())
