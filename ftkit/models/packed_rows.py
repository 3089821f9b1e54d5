"""A padded batch read as one row: no padding, and what all rows begin with only once.

A token's hidden state depends on the tokens before it alone, so rows that begin alike (a system
prompt, the head of a template) have equal states there. The distinct tokens of a batch lie behind
each other in one row; only attention, which is the one place where tokens meet, lays them out in
rows again. Forward and backward pass are exact to rounding. In SmolLM2's chat template 24 tokens
come before the user's first word: with 13 tokens of prompt and 24 of answer that is two fifths of
all work.

Servers share beginnings when they decode (Zheng et al. 2023, arXiv 2312.07104).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from ftkit.models.heads import position_ids
from ftkit.models.row_attention import BY_ROWS

_WORTH = 1 / 8
"""Least share of the tokens that must be saved."""

_EVEN = 8
"""Rows are laid out in multiples of so many columns: SDPA on a CPU takes a tenth to a fifth longer
for 63 than for 64."""

_OWN_WINDOWS = ("attention_types", "window_size", "attention_window")
"""Settings of architectures whose layers cut the columns that they see by themselves (GPT-Neo)."""

_alike: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def read(
    decoder: Any,
    ids: Tensor,
    mask: Tensor,
    *,
    keep_cache: bool = False,
    count_padding: bool = False,
) -> tuple[Tensor, DynamicCache | None]:
    """Return the last hidden states of a padded batch, packed where that pays.

    Args:
        decoder: The model without its LM head.
        ids: ``(batch, time)``, padded on either side.
        mask: Bool ``(batch, time)``, true at real tokens.
        keep_cache: Whether keys and values are wanted, for decoding on.
        count_padding: As in `position_ids`. Rows that begin alike may then stand at different
            positions, so they are not packed.

    Returns:
        States ``(batch, time, hidden)``, without meaning at padding, and the cache or None; both
        have the columns of `ids`.
    """
    cache = DynamicCache(config=decoder.config) if keep_cache else None
    states = None if count_padding else packed(decoder, ids, mask, cache)
    if states is not None:
        return states, cache
    outputs = decoder(
        input_ids=ids,
        attention_mask=mask.long(),
        position_ids=position_ids(mask, count_padding),
        cache=cache,
        use_cache=keep_cache,
    )
    return outputs.last_hidden_state, cache


def packed(
    decoder: Any, ids: Tensor, mask: Tensor, cache: DynamicCache | None = None
) -> Tensor | None:
    """Return the states that `read` gives, and fill `cache`; None where packing does not pay, or
    the decoder does not read a packed row as it reads a batch."""
    row = Packed.of(ids, mask, getattr(decoder.config, "max_position_embeddings", None))
    return row.read(decoder, cache) if row is not None and _understands(decoder) else None


@dataclass(frozen=True, slots=True)
class Packed:
    """The distinct tokens of a batch in one row: the shared beginning, then what each row adds.

    Attributes:
        ids: ``(1, tokens)``.
        positions: ``(1, tokens)`` of each within its row of the batch.
        place: ``(batch, time)`` where each token of the batch lies; 0 at padding.
        lines: ``(batch, longest)`` the same without holes: row by row the tokens in their order,
            with padding behind them only.
        home: ``(tokens,)`` a place of each in `lines`, counted through all rows.
        shared: Tokens that all rows begin with.
    """

    ids: Tensor
    positions: Tensor
    place: Tensor
    lines: Tensor
    home: Tensor
    shared: int

    @classmethod
    def of(cls, ids: Tensor, mask: Tensor, longest: int | None = None) -> Self | None:
        """Pack a padded batch, or return None where that saves little, or makes a row that is too
        long for the model."""
        positions, shared = position_ids(mask), _common(ids, mask)
        own = mask & (positions >= shared)
        tokens = shared + int(own.sum())
        if not 0 < tokens <= min(longest or tokens, (1 - _WORTH) * ids.numel()):
            return None
        place = own.flatten().cumsum(0).view_as(ids) - 1 + shared
        place = torch.where(own, place, positions * mask)
        begins = mask[0] & (positions[0] < shared)
        start = torch.arange(shared, device=ids.device)
        lines = place.new_zeros(len(ids), -(-int(mask.sum(1).max()) // _EVEN) * _EVEN)
        lines[mask.nonzero()[:, 0], positions[mask]] = place[mask]
        return cls(
            ids=torch.cat([ids[0][begins], ids[own]])[None],
            positions=torch.cat([start, positions[own]])[None],
            place=place,
            lines=lines,
            home=torch.cat([start, own.nonzero()[:, 0] * lines.shape[1] + positions[own]]),
            shared=shared,
        )

    def read(self, decoder: Any, cache: DynamicCache | None = None) -> Tensor:
        """Return the states ``(batch, time, hidden)`` in the batch's columns; fill `cache` so."""
        with _attending_by_rows(decoder.config):
            states = decoder(
                input_ids=self.ids,
                position_ids=self.positions,
                cache=cache,
                use_cache=cache is not None,
                packed=self,
            ).last_hidden_state[0]  # (tokens, hidden)
        for layer in cache.layers if cache is not None else ():
            layer.keys = layer.keys[0][:, self.place].transpose(0, 1)
            layer.values = layer.values[0][:, self.place].transpose(0, 1)
        # Unlike indexing, this sums the gradients of shared tokens in the same order every time.
        return nn.functional.embedding(self.place, states)


@contextmanager
def _attending_by_rows(config: Any) -> Iterator[None]:
    before = config._attn_implementation
    config._attn_implementation = BY_ROWS
    try:
        yield
    finally:
        config._attn_implementation = before


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
        config._attn_implementation == "sdpa"
        # A layer that is run again in the backward pass would attend in another way there.
        and not (decoder.training and getattr(decoder, "is_activation_checkpointing", False))
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
        row = Packed.of(ids, mask)
        if row is None:
            return False
        plain = decoder(input_ids=ids, use_cache=False).last_hidden_state[1].float()
        size = plain.norm(dim=-1).clamp(min=1e-30)  # the state of a zeroed padding token is 0
        gap = (row.read(decoder)[1].float() - plain).norm(dim=-1) / size
        exact = decoder.get_input_embeddings().weight.dtype.itemsize >= torch.float32.itemsize
        return bool(gap.max() <= (1e-4 if exact else 5e-2))
    except Exception:  # an architecture may refuse such an attention in any way
        return False
    finally:
        decoder.train(was_training)
