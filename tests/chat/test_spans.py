"""Every character has exactly one owner, whatever the tokenizer reports."""

from itertools import pairwise

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import ByT5Tokenizer

from ftkit.chat.spans import decode, encode, tile

# The vocabulary lacks a few bytes, which only control characters and those from U+40000 on need.
VISIBLE = st.characters(
    exclude_categories=("Cc", "Cs"), exclude_characters="\ufffd", max_codepoint=0x3FFFF
)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1), st.integers(0, 30))
def test_spans_tile_the_text_for_any_reported_offsets(offsets, length) -> None:
    spans = tile(offsets, length)
    assert len(spans) == len(offsets)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert all(a[1] == b[0] and a[0] <= a[1] for a, b in pairwise(spans))


@settings(max_examples=60, deadline=None)
@given(text=st.text(min_size=1, max_size=40))
def test_tokens_concatenate_to_any_text(tokenizer, text) -> None:
    encoded = encode(tokenizer, text)
    assume(encoded.ids)  # a few control characters have no token at all
    assert "".join(text[a:b] for a, b in encoded.spans) == text
    assert encoded.ids == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_pieces_of_one_character_are_numbered(tokenizer) -> None:
    text = "a 龘 b"
    encoded = encode(tokenizer, text)
    pieces = [p for p in encoded.pieces if p]
    assert pieces == [(k + 1, len(pieces)) for k in range(len(pieces))]
    assert len(pieces) > 1
    first = encoded.pieces.index((1, len(pieces)))
    assert "龘" in text[slice(*encoded.spans[first])]
    assert all(a == b for a, b in encoded.spans[first + 1 : first + len(pieces)])


@settings(max_examples=60, deadline=None)
@given(text=st.text(VISIBLE, max_size=30))
def test_decoding_gives_the_spans_that_offsets_give(tokenizer, text) -> None:
    by_offsets = encode(tokenizer, text)
    decoded, by_decoding = decode(tokenizer, by_offsets.ids)
    assert decoded == text
    assert by_decoding.spans[-1:] == by_offsets.spans[-1:]
    assert "".join(decoded[a:b] for a, b in by_decoding.spans) == text


def test_a_slow_tokenizer_without_offsets_is_aligned_by_decoding() -> None:
    text = "héllo 你"
    encoded = encode(ByT5Tokenizer(), text)
    assert "".join(text[a:b] for a, b in encoded.spans) == text
    assert encoded.pieces.count(None) == len("hllo ")


def test_row_cut_inside_a_character_still_decodes(tokenizer) -> None:
    ids = encode(tokenizer, "龘").ids[:-1]
    text, encoded = decode(tokenizer, ids)
    assert "\ufffd" in text
    assert encoded.spans[-1][1] == len(text)
