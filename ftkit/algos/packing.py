"""Packing: documents one after another, cut into blocks of one length, without any padding.

This is ``group_text`` of the pre-training scripts. Left out: packing that keeps documents whole by
sorting them into blocks (TRL's ``"bfd"``), which needs attention kernels that know the borders.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Stream(NamedTuple):
    """All documents one after another.

    Attributes:
        input_ids: ``(tokens,)``.
        document_ids: ``(tokens,)``, the index of the document that each token is from.
    """

    input_ids: Tensor
    document_ids: Tensor


class Packed(NamedTuple):
    """Blocks of one length.

    Attributes:
        input_ids: ``(blocks, block_size)``.
        document_ids: ``(blocks, block_size)``, the index of the document that each token is from.
        dropped: Tokens of the remainder, which are in no block.
    """

    input_ids: Tensor
    document_ids: Tensor
    dropped: int


def concatenate(documents: Sequence[Sequence[int]]) -> Stream:
    """Put `documents` one after another.

    Args:
        documents: Token ids of each document, with the end token that shall separate them.

    Raises:
        ValueError: there is no token in any of them.
    """
    lengths = torch.tensor([len(document) for document in documents], dtype=torch.long)
    if not lengths.sum():
        raise ValueError(f"the corpus is empty: {len(documents)} documents without any token")
    ids = torch.tensor([token for document in documents for token in document], dtype=torch.long)
    return Stream(ids, torch.arange(len(documents)).repeat_interleave(lengths))


def cut(stream: Stream, block_size: int) -> Packed:
    """Cut `stream` into blocks and drop what remains at its end, if that fills no block.

    Args:
        stream: From `concatenate`.
        block_size: Tokens a block.

    Raises:
        ValueError: a block of fewer than 2 tokens, in which nothing is predicted, or one that is
            longer than the whole stream.
    """
    if block_size < 2:
        raise ValueError(
            f"block_size={block_size} must be at least 2: the first token of a block has nothing "
            "before it that could predict it"
        )
    tokens = len(stream.input_ids)
    blocks = tokens // block_size
    if not blocks:
        raise ValueError(
            f"block_size={block_size} is longer than the corpus of {tokens} tokens, all of which "
            f"would be dropped: use at most {tokens}, or more text"
        )
    kept = [part[: blocks * block_size].view(blocks, block_size) for part in stream]
    return Packed(kept[0], kept[1], tokens - blocks * block_size)


def group_text(documents: Sequence[Sequence[int]], block_size: int) -> Packed:
    """Concatenate `documents`, cut them into blocks, and drop the remainder.

    Args:
        documents: Token ids of each document, with the end token that shall separate them.
        block_size: Tokens a block.

    Raises:
        ValueError: as `concatenate` and `cut`.
    """
    return cut(concatenate(documents), block_size)


def sees_other_document(document_ids: Tensor) -> Tensor:
    """Return where the context holds tokens of an earlier document.

    Causal attention lets the position t see positions 0 to t of its block, so this is true from
    the second document of a block on.

    Args:
        document_ids: ``(blocks, block_size)``, from `cut`.

    Returns:
        ``(blocks, block_size)`` bool.
    """
    return document_ids != document_ids[:, :1]


def document_positions(document_ids: Tensor) -> Tensor:
    """Return positions that start at 0 with each document of a block.

    Models of transformers that get these ``position_ids``, and no attention mask, let no token see
    another document.

    Args:
        document_ids: ``(blocks, block_size)``, from `cut`.

    Returns:
        ``(blocks, block_size)``.
    """
    place = torch.arange(document_ids.shape[1], device=document_ids.device).expand_as(document_ids)
    starts = torch.ones_like(document_ids, dtype=torch.bool)
    starts[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    return place - torch.where(starts, place, 0).cummax(dim=1).values
