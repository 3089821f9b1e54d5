"""The embedded tokenizer is SmolLM2's own, and its padding ends nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.models import load_tokenizer
from ftkit.models.padding import separate_pad

TEXTS = ["Hello, world!", "怎么 café 😀 日本", " two  spaces\n\n\tand a tab ", "a<b>&\"'", "é", ""]


def test_special_tokens_have_their_ids(tokenizer):
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [
        *(0, 1, 2)
    ]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)
    assert (len(tokenizer), tokenizer.model_max_length) == (49152, 8192)


def test_the_chat_template_is_chatml_with_smollms_system_prompt(tokenizer):
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_encoding_and_offsets_cover_it(tokenizer, text):
    encoded = tokenizer(text, return_offsets_mapping=True)
    assert tokenizer.decode(encoded.input_ids) == text
    covered = {i for start, end in encoded.offset_mapping for i in range(start, end)}
    assert covered == set(range(len(text)))


@settings(deadline=None)
@given(text=st.text(st.characters(exclude_categories=["C"], include_characters="\n\t\r\u200d")))
def test_any_text_survives_encoding(tokenizer, text):
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_six_control_characters_have_no_token_as_in_the_original(tokenizer):
    # The vocabulary lacks their bytes, and its BPE has no unknown token: they vanish.
    encoded = tokenizer("a\x04\x06\x13\x14\x16\x1db", return_offsets_mapping=True)
    assert tokenizer.decode(encoded.input_ids) == "ab"
    assert encoded.offset_mapping == [(0, 1), (7, 8)]


def test_digits_are_single_tokens_cut_before_anything_else(tokenizer):
    assert tokenizer.tokenize("1024") == ["1", "0", "2", "4"]
    # Splitting digits off first keeps the three spaces together; GPT-2's rule alone would not.
    assert tokenizer.tokenize("x   2") == ["x", "ĠĠĠ", "2"]
    assert tokenizer.tokenize("x   y") == ["x", "ĠĠ", "Ġy"]


def test_no_beginning_token_is_added(tokenizer):
    assert tokenizer("Hi").input_ids == [26843]


def test_padding_is_distinct_and_counts_as_special(tokenizer):
    assert tokenizer.pad_token_id == 16
    batch = tokenizer(["one", "one two three"], padding=True)
    assert batch.input_ids[0][-1] == 16
    assert tokenizer.decode(batch.input_ids[0], skip_special_tokens=True) == "one"
    assert len(tokenizer) == 49152, "no token was added"


def test_the_trap_can_be_kept_for_the_lesson():
    shipped = load_tokenizer(pad="shipped")
    assert shipped.pad_token_id == shipped.eos_token_id == 2


def separated(tokenizer, **tokens):
    """Change special tokens, run the rule, and return the pad token and the note."""
    for role, token in tokens.items():
        setattr(tokenizer, role, token)
    note = separate_pad(tokenizer, len(tokenizer), set(), change=True)
    return tokenizer.pad_token, note


def test_a_pad_token_that_ends_nothing_is_left_alone(fresh_tokenizer):
    assert separated(fresh_tokenizer, pad_token="<file_sep>") == ("<file_sep>", "")


def test_a_missing_pad_token_is_filled_in(fresh_tokenizer):
    pad, note = separated(fresh_tokenizer, pad_token=None)
    assert pad == "<empty_output>"
    assert "ships without a pad token" in note


@pytest.mark.parametrize("named", ["<pad>", "[PAD]", "<|finetune_right_pad_id|>"])
def test_a_token_named_for_padding_is_preferred(fresh_tokenizer, named):
    fresh_tokenizer.add_special_tokens({"additional_special_tokens": [named, "<zzz>"]})
    assert separated(fresh_tokenizer, pad_token="<|im_end|>")[0] == named


def test_a_reserved_token_is_preferred_to_a_meaningful_one(fresh_tokenizer):
    extra = ["<|reserved_special_token_0|>", "<|python_tag|>"]
    fresh_tokenizer.add_special_tokens({"additional_special_tokens": extra})
    assert separated(fresh_tokenizer, pad_token="<|im_end|>")[0] == extra[0]


def test_a_token_that_the_template_uses_is_not_padding(fresh_tokenizer):
    fresh_tokenizer.chat_template += "<empty_output>"
    assert separated(fresh_tokenizer, pad_token="<|im_end|>")[0] == "<jupyter_script>"


def test_a_pad_token_that_the_model_stops_at_is_the_trap_too(fresh_tokenizer):
    fresh_tokenizer.pad_token = "<|endoftext|>"
    note = separate_pad(fresh_tokenizer, len(fresh_tokenizer), {0}, change=True)
    assert "<|endoftext|> (id 0) also ends an answer" in note


def test_a_pad_token_outside_the_embedding_is_replaced(fresh_tokenizer):
    fresh_tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    note = separate_pad(fresh_tokenizer, 49152, set(), change=True)
    assert "has no row" in note
    assert fresh_tokenizer.pad_token == "<empty_output>"


def test_loading_a_tokenizer_reads_no_weights(monkeypatch):
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)
    hashed = []
    monkeypatch.setattr("ftkit.fetching.cache.sha256_file", lambda p: hashed.append(p) or real(p))
    from ftkit.fetching.hashing import sha256_file as real

    load_tokenizer()
    assert not [path for path in hashed if path.suffix == ".safetensors"]
