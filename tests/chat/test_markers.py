"""Markers proposed for templates that have none: same text, same answers, as TRL reads them."""

import pytest
from byte_level import byte_tokenizer
from families import FAMILIES, OWN_MARKERS, PARTS_ONLY
from trl.chat_template_utils import is_chat_template_stop_token_trained

from ftkit.chat import annotate, jinja_source, markers, templates
from ftkit.chat.render import Renderer

# Their answers begin or end differently from turn to turn, so that no fixed place is right.
WITHOUT = {"glm4moe", "qwen3_5_nothink", "qwen3_5_think", "qwen3_6"}
UNMARKED = sorted((set(FAMILIES) | PARTS_ONLY) - OWN_MARKERS)
OTHER = [
    {"role": "user", "content": "A question that no check of ftkit asks, 怎么办?"},
    {"role": "assistant", "content": "An <answer> with {{ braces }} and 'quotes'."},
    {"role": "user", "content": "Another."},
    {"role": "assistant", "content": "1\n2\n\n3"},
]


def trained(tokenizer, template: str, messages) -> list[int]:
    """What transformers itself takes for the assistant's tokens."""
    out = tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=True, return_dict=True,
        return_assistant_tokens_mask=True,
    )  # fmt: skip
    return [i for i, m in zip(out["input_ids"], out["assistant_masks"], strict=True) if m]


@pytest.mark.parametrize("name", UNMARKED)
def test_proposed_markers_mark_what_the_family_must_produce(name: str) -> None:
    tokenizer = byte_tokenizer(templates.get(name))
    marked = markers.mark(tokenizer)
    assert (marked is None) is (name in WITHOUT)
    if marked is None:
        return
    messages = markers.in_parts(OTHER) if name in PARTS_ONLY else OTHER
    plain = Renderer.of(tokenizer)
    assert plain.with_template(marked.template).render(messages) == plain.render(messages)
    ids = trained(tokenizer, marked.template, messages)
    derived = annotate(tokenizer, messages)
    assert ids == [t.id for t in derived.trained]
    if name in FAMILIES:
        answers = [m["content"] for m in OTHER if m["role"] == "assistant"]
        assert tokenizer.decode(ids) == "".join(FAMILIES[name].expected(answers))


@pytest.mark.parametrize("name", ["llama3_1", "qwen2_5", "gemma3", "qwen3"])
def test_trl_agrees_that_the_stop_token_is_trained(name: str) -> None:
    tokenizer = byte_tokenizer(templates.get(name))
    marked = markers.mark(tokenizer)
    assert marked is not None
    assert is_chat_template_stop_token_trained(tokenizer, marked.template)


def test_the_embedded_models_template_is_marked_in_place(tokenizer) -> None:
    marked = markers.mark(tokenizer)
    assert marked is not None
    assert (marked.how, marked.verified, marked.tools) == ("in place", 6, True)
    assert marked.places[0] == (
        "{% generation %} before \"message['content']\" at line 3, column 16"
    )


def test_a_template_with_markers_needs_none(tokenizer) -> None:
    assert markers.mark(tokenizer, templates.twin("qwen3")) is None


def test_a_wrong_place_is_seen(tokenizer) -> None:
    plain = Renderer.of(tokenizer)
    marked = markers.mark(tokenizer)
    assert marked is not None
    conversations = [OTHER]
    assert markers.disagreement(plain, plain.with_template(marked.template), conversations) is None
    header = marked.template.replace("{% generation %}", "").replace(
        "{%- if message['role'] == 'assistant' %}{{",
        "{%- if message['role'] == 'assistant' %}{% generation %}{{",
    )
    assert "markers enclose" in str(
        markers.disagreement(plain, plain.with_template(header), conversations)
    )
    louder = marked.template.replace("<|im_end|>", "<|im_end|>!")
    assert "other text" in str(
        markers.disagreement(plain, plain.with_template(louder), conversations)
    )


@pytest.mark.parametrize("name", templates.names())
def test_the_segments_of_a_template_are_its_source(name: str) -> None:
    source = templates.get(name)
    parts = jinja_source.segments(source)
    assert "".join(part.source for part in parts) == source
    assert sum(part.depth for part in parts) == 0


PIECES = [
    ("a + b | trim + 'c'", ["a", "b | trim", "'c'"]),
    ("'<|' ~ role ~ '|>'", ["'<|'", "role", "'|>'"]),
    ("a + b if c else d", ["a + b if c else d"]),
    ("f(a + b) + x['y + z']", ["f(a + b)", "x['y + z']"]),
    ("a ~ b + c", ["a ~ b + c"]),
    ("message.content", ["message.content"]),
]


@pytest.mark.parametrize(("expression", "expected"), PIECES)
def test_expressions_are_split_only_where_that_is_safe(expression, expected) -> None:
    assert jinja_source.pieces(expression) == expected


@pytest.mark.parametrize("value", ["plain", "it's", "a\nb", "back\\slash", "<｜end▁of▁sentence｜>"])
def test_a_quoted_literal_reads_back(value: str) -> None:
    assert jinja_source.literal(jinja_source.quoted(value)) == value
