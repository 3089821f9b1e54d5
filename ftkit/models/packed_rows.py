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

_MOST_TOKENS = 2048
"""In a packed row: its attention mask, and scores without a fused kernel, grow by the square."""

_OWN_WINDOWS = ("attention_types", "window_size", "attention_window")
"""Settings of architectures whose layers cut the columns that they see by themselves (GPT-Neo)."""

_alike: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


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
    row = Packed.of(ids, mask, decoder.config.hidden_size, _longest(decoder.config))
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
    def of(cls, ids: Tensor, mask: Tensor, hidden: int, longest: int = _MOST_TOKENS) -> Self | None:
        """Pack a padded batch, or return None where a model of this width would not gain."""
        batch, time = ids.shape
        positions, shared = position_ids(mask), _common(ids, mask)
        own = mask & (positions >= shared)
        tokens = shared + int(own.sum())
        work, plain = _work(tokens, tokens, hidden), _work(batch * time, time, hidden)
        if tokens > longest or work > (1 - _WORTH) * plain:
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
        # Unlike indexing, this sums the gradients of shared tokens in the same order every time.
        return nn.functional.embedding(self.place, states)

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
    if not _attends_to_all(decoder):
        return False
    if decoder not in _alike:
        _alike[decoder] = _reads_alike(decoder)
    return _alike[decoder]


def _attends_to_all(decoder: Any) -> bool:
    """A sliding window would count the tokens of other rows, and a recurrent layer mix them."""
    config = decoder.config
    layers = DynamicCache(config=config).layers
    return (
        config._attn_implementation in ("sdpa", "eager")
        and all(type(layer) is DynamicLayer for layer in layers)
        and not any(getattr(config, name, None) for name in _OWN_WINDOWS)
    )


@torch.no_grad()
def _reads_alike(decoder: Any) -> bool:
    """Compare the second of two rows, which a packed row moves by as much as the first is long."""
    config, was_training = decoder.config, decoder.training
    decoder.eval()
    try:
        ids = (torch.arange(64, device=decoder.device) % config.vocab_size).view(2, 32)
        ids[1, :16] = ids[0, :16]
        mask = torch.ones_like(ids).bool()
        row = Packed.of(ids, mask, config.hidden_size, _longest(config))
        if row is None:
            return False
        plain = decoder(input_ids=ids, use_cache=False).last_hidden_state[1].float()
        gap = (row.read(decoder)[1].float() - plain).norm(dim=-1) / plain.norm(dim=-1)
        exact = decoder.get_input_embeddings().weight.dtype.itemsize >= torch.float32.itemsize
        return bool(gap.max() <= (1e-4 if exact else 5e-2))
    except Exception:  # an architecture may refuse such a mask in any way
        return False
    finally:
        decoder.train(was_training)


def _longest(config: Any) -> int:
    return min(_MOST_TOKENS, getattr(config, "max_position_embeddings", None) or _MOST_TOKENS)
