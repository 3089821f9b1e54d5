"""A padded batch read as one row: no padding, and what all rows begin with only once.

A token's hidden state depends on the tokens before it alone, so rows that begin alike (a system
prompt, the head of a template) have equal states there. The distinct tokens of a batch lie behind
each other in one row, and the attention mask lets each see the shared beginning and its own row.
Forward and backward pass are exact to rounding. In SmolLM2's chat template 24 tokens come before
the user's first word: with 13 tokens of prompt and 24 of answer that is two fifths of all work.

Servers share beginnings when they decode (Zheng et al. 2023, arXiv 2312.07104). Left out on
purpose: long rows, where attending to all others costs more than it saves.
"""

from dataclasses import dataclass
from typing import Any, Self
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from ftkit.models.heads import position_ids

_WORTH = 1 / 8
"""Least share of the work that must be saved."""

_understood: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def read(
    decoder: Any, ids: Tensor, mask: Tensor, *, keep_cache: bool = False
) -> tuple[Tensor, DynamicCache | None]:
    """Return the last hidden states of a padded batch, packed where that pays.

    Args:
        decoder: The model without its LM head.
        ids: ``(batch, time)``, padded on either side.
        mask: Bool ``(batch, time)``, true at real tokens.
        keep_cache: Whether keys and values are wanted, for decoding on.

    Returns:
        States ``(batch, time, hidden)``, without meaning at padding, and the cache or None; both
        have the columns of `ids`.
    """
    cache = DynamicCache(config=decoder.config) if keep_cache else None
    row = Packed.of(ids, mask, decoder.config.hidden_size)
    if row is not None and _understands(decoder):
        return row.read(decoder, cache), cache
    outputs = decoder(
        input_ids=ids,
        attention_mask=mask.long(),
        position_ids=position_ids(mask),
        cache=cache,
        use_cache=keep_cache,
    )
    return outputs.last_hidden_state, cache


@dataclass(frozen=True, slots=True)
class Packed:
    """The distinct tokens of a batch in one row: the shared beginning, then what each row adds.

    Attributes:
        ids: ``(1, tokens)``.
        positions: ``(1, tokens)`` of each within its row of the batch.
        rows: ``(tokens,)`` the row of each in the batch, −1 for those of all rows.
        place: ``(batch, time)`` where each token of the batch lies; 0 at padding.
    """

    ids: Tensor
    positions: Tensor
    rows: Tensor
    place: Tensor

    @classmethod
    def of(cls, ids: Tensor, mask: Tensor, hidden: int) -> Self | None:
        """Pack a padded batch, or return None where a model of this width would not gain."""
        batch, time = ids.shape
        positions, shared = position_ids(mask), _common(ids, mask)
        own = mask & (positions >= shared)
        tokens = shared + int(own.sum())
        if _work(tokens, tokens, hidden) > (1 - _WORTH) * _work(batch * time, time, hidden):
            return None
        place = own.flatten().cumsum(0).view_as(ids) - 1 + shared
        place = torch.where(own, place, positions * mask)
        begins = mask[0] & (positions[0] < shared)
        start = torch.arange(shared, device=ids.device)
        return cls(
            ids=torch.cat([ids[0][begins], ids[own]])[None],
            positions=torch.cat([start, positions[own]])[None],
            rows=torch.cat([torch.full_like(start, -1), own.nonzero()[:, 0]]),
            place=place,
        )

    def read(self, decoder: Any, cache: DynamicCache | None = None) -> Tensor:
        """Return the states ``(batch, time, hidden)`` in the batch's columns; fill `cache` so."""
        states = decoder(
            input_ids=self.ids,
            attention_mask=self._attention(decoder.get_input_embeddings().weight.dtype),
            position_ids=self.positions,
            cache=cache,
            use_cache=cache is not None,
        ).last_hidden_state[0]  # (tokens, hidden)
        for layer in cache.layers if cache is not None else ():
            layer.keys = layer.keys[0][:, self.place].transpose(0, 1)
            layer.values = layer.values[0][:, self.place].transpose(0, 1)
        return states[self.place]

    def _attention(self, dtype: torch.dtype) -> Tensor:
        """``(1, 1, tokens, tokens)`` to be added to attention scores."""
        sees = (self.rows == -1) | (self.rows == self.rows[:, None])
        sees &= self.positions <= self.positions[0][:, None]
        blocked = torch.zeros(sees.shape, dtype=dtype, device=sees.device)
        return blocked.masked_fill_(~sees, torch.finfo(dtype).min)[None, None]


def _work(tokens: int, seen: int, hidden: int) -> float:
    """Multiplications of a layer, in units of 2·hidden: 12·hidden² for its matrices (Kaplan et al.
    2020, arXiv 2001.08361), and attention to `seen` tokens."""
    return tokens * (6.0 * hidden + seen)


def _common(ids: Tensor, mask: Tensor) -> int:
    """Return how many real tokens all rows have in common at their beginning."""
    order = (~mask).long().argsort(dim=1, stable=True)  # real tokens first, in their order
    ids, mask = ids.gather(1, order), mask.gather(1, order)
    alike = ((ids == ids[:1]) & mask).all(0)
    return int(alike.long().cumprod(0).sum())


def _understands(decoder: Any) -> bool:
    """Whether `decoder` reads a packed row as it reads a batch: tried once on a small one."""
    if decoder not in _understood:
        _understood[decoder] = _attends_to_all(decoder) and _reads_alike(decoder)
    return _understood[decoder]


def _attends_to_all(decoder: Any) -> bool:
    """A sliding window would count the tokens of other rows, and a recurrent layer mix them."""
    layers = DynamicCache(config=decoder.config).layers
    kernel = decoder.config._attn_implementation
    return kernel in ("sdpa", "eager") and all(type(layer) is DynamicLayer for layer in layers)


@torch.no_grad()
def _reads_alike(decoder: Any) -> bool:
    device = decoder.get_input_embeddings().weight.device
    ids = torch.tensor([[1, 2, 3, 4, 5, 6], [1, 2, 3, 7, 8, 9]], device=device)
    mask = torch.ones_like(ids).bool()
    mask[1, -1] = False
    row = Packed.of(ids, mask, decoder.config.hidden_size)
    if row is None:  # so narrow that nothing is ever worth it
        return False
    plain = decoder(input_ids=ids, use_cache=False).last_hidden_state[mask]
    try:
        packed = row.read(decoder)[mask]
    except Exception:  # an architecture may refuse such a mask in any way
        return False
    tolerance = 1e-3 if plain.dtype.itemsize >= torch.float32.itemsize else 3e-2
    return bool((packed - plain).float().norm() <= tolerance * plain.float().norm())
