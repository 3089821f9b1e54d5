"""Which characters of the text each token owns.

Tokenizers report overlapping, gapped or missing offsets: the byte-level pieces of one character
all claim it, an added token may swallow blanks, a slow tokenizer reports nothing. Here every
character gets exactly one owner, so that the texts of all tokens, concatenated, are the text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from os.path import commonprefix
from typing import Any

from ftkit.errors import ChatError

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Ids of a text, with the characters each id owns.

    Attributes:
        ids: Token ids.
        spans: Adjacent ``(start, end)`` of each token; they tile the text.
        pieces: ``(k, n)`` where one character takes n tokens and this is its k-th, else None.
        lost: The characters that the tokenizer dropped, other than blanks: the model never sees
            them, although a neighbouring token owns their place.
    """

    ids: list[int]
    spans: list[Span]
    pieces: list[tuple[int, int] | None]
    lost: str = ""


def encode(tokenizer: Any, text: str) -> Encoded:
    """Tokenize rendered `text` (special tokens are in it already) and tile it with spans.

    Raises:
        ChatError: a tokenizer without offsets whose decoding does not give back the text.
    """
    if getattr(tokenizer, "is_fast", False):
        out = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = list(out["input_ids"]), [tuple(o) for o in out["offset_mapping"]]
        return Encoded(ids, tile(offsets, len(text)), _pieces(offsets), _lost(offsets, text))
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    decoded, encoded = decode(tokenizer, ids)
    if decoded != text:
        at = len(commonprefix([decoded, text]))
        raise ChatError(
            f"{type(tokenizer).__name__} reports no offsets and its decoding does not give back "
            f"the text from character {at} on ({text[at : at + 30]!r}); use the fast version of "
            "this tokenizer (use_fast=True)"
        )
    return encoded


def decode(tokenizer: Any, ids: Sequence[int]) -> tuple[str, Encoded]:
    """Return the text of `ids` and which of its characters each id owns, by decoding in steps."""
    text, before, start = "", 0, 0
    offsets: list[Span] = []
    for stop in range(1, len(ids) + 1):
        chunk = _continuation(tokenizer, ids[before:start], ids[start:stop])
        # Nothing, or a replacement character: an unfinished character, of at most four bytes.
        unfinished = not chunk or "\ufffd" in chunk
        if unfinished and stop < len(ids) and stop - start < 4:
            continue
        offsets += [(len(text), len(text) + len(chunk))] * (stop - start)
        before = start if chunk else before
        text, start = text + chunk, stop
    return text, Encoded(list(ids), tile(offsets, len(text)), _pieces(offsets))


def _continuation(tokenizer: Any, context: Sequence[int], ids: Sequence[int]) -> str:
    """The text of `ids` behind `context`: many decoders take the blank off a first word."""
    if not context:
        return _text(tokenizer, ids)
    known, joined = _text(tokenizer, context), _text(tokenizer, [*context, *ids])
    # An unfinished character may make a decoder give up the finished one before it.
    return joined[len(known) :] if joined.startswith(known) else _text(tokenizer, ids)


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(
        tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    )


def tile(offsets: Sequence[Span], length: int) -> list[Span]:
    """Turn reported offsets into adjacent spans that cover ``range(length)`` exactly.

    A character claimed by several tokens goes to the first of them; one claimed by none (a blank
    that the tokenizer drops) to the token after it, and at the end to the last token.
    """
    ends: list[int] = []
    position = 0
    for _, end in offsets:
        position = min(max(position, end), length)
        ends.append(position)
    if ends:
        ends[-1] = length
    return list(pairwise([0, *ends]))


def _lost(offsets: Sequence[Span], text: str) -> str:
    """Characters between the reported offsets that are no blanks."""
    gaps, position = [], 0
    for start, end in [*offsets, (len(text), len(text))]:
        gaps.append(text[position:start])
        position = max(position, end)
    return "".join("".join(gaps).split())


def _pieces(offsets: Sequence[Span]) -> list[tuple[int, int] | None]:
    """Number the tokens of each run that claims one character between them."""
    pieces: list[tuple[int, int] | None] = [None] * len(offsets)
    start = 0
    while start < len(offsets):
        stop = start + 1
        # The pieces of a character all end behind it; blanks before it may widen the first.
        while stop < len(offsets) and offsets[stop][1] == offsets[start][1] > offsets[stop][0]:
            stop += 1
        if stop - start > 1:
            pieces[start:stop] = [(k + 1, stop - start) for k in range(stop - start)]
        start = stop
    return pieces
