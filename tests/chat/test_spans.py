"""Every character has exactly one owner, whatever the tokenizer reports."""

from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

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


@pytest.fixture(scope="module")
def llama2_style() -> PreTrainedTokenizerFast:
    """Words with their blank as ``▁``, bytes for the rest; its decoder strips one first blank."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    vocab = {name: i for i, name in enumerate(names)}
    merges = []
    for word in ("▁Hello", "▁world", "▁you"):
        for end in range(1, len(word) + 1):
            vocab.setdefault(word[end - 1], len(vocab))
            if end > 1 and word[:end] not in vocab:
                vocab[word[:end]] = len(vocab)
                merges.append((word[: end - 1], word[end - 1]))
    core = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True))
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    core.decoder = decoders.Sequence(
        [
            *(decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.mark.parametrize(
    "text", ["Hello world you", "Hello  world 龘龘 you", "Hello   </s> world", "怎么办? Hello 🤖"]
)
def test_decoding_keeps_the_blanks_that_a_decoder_strips_off_a_first_word(
    llama2_style, text
) -> None:
    ids = llama2_style(text)["input_ids"]
    decoded, encoded = decode(llama2_style, ids)
    assert decoded == llama2_style.decode(ids)
    assert "".join(decoded[a:b] for a, b in encoded.spans) == decoded


def test_a_cut_character_does_not_take_the_finished_one_before_it_along(llama2_style) -> None:
    ids = llama2_style("龘龘")["input_ids"][:-1]
    assert decode(llama2_style, ids)[0].startswith("龘\ufffd")
