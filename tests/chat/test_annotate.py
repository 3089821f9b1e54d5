"""`annotate` on the embedded tokenizer: labels, reasons, truncation, and bad input."""

import pytest

from ftkit.chat import annotate, templates
from ftkit.errors import ChatError

TWO_TURNS = [
    {"role": "system", "content": "You are a patient help desk."},
    {"role": "user", "content": "My laptop gets hot, 怎么办?"},
    {"role": "assistant", "content": "Make sure the vents are clear."},
    {"role": "user", "content": "And the fan is loud."},
    {"role": "assistant", "content": "Blow out the fan."},
]


def trained_text(chat) -> str:
    return "".join(t.text for t in chat.trained)


def codes(chat) -> set[str]:
    return {f.code for f in chat.findings}


def test_text_and_ids_are_those_of_the_tokenizer(tokenizer) -> None:
    chat = annotate(tokenizer, TWO_TURNS)
    assert chat.text == tokenizer.apply_chat_template(TWO_TURNS, tokenize=False)
    assert chat.input_ids == tokenizer.apply_chat_template(TWO_TURNS)["input_ids"]
    assert "".join(t.text for t in chat.tokens) == chat.text


def test_assistant_mask_trains_every_answer_with_its_stop_token(tokenizer) -> None:
    chat = annotate(tokenizer, TWO_TURNS)
    expected = "Make sure the vents are clear.<|im_end|>Blow out the fan.<|im_end|>"
    assert trained_text(chat) == expected
    assert "stop-token-trained" in codes(chat)


def test_last_assistant_mask_trains_the_last_answer_only(tokenizer) -> None:
    chat = annotate(tokenizer, TWO_TURNS, mask="last_assistant")
    assert trained_text(chat) == "Blow out the fan.<|im_end|>"


def test_full_mask_trains_every_token(tokenizer) -> None:
    chat = annotate(tokenizer, TWO_TURNS, mask="full")
    assert chat.labels == chat.input_ids


def test_completion_mask_trains_what_follows_the_last_response_template(tokenizer) -> None:
    chat = annotate(
        tokenizer, TWO_TURNS, mask="completion", response_template="<|im_start|>assistant\n"
    )
    assert trained_text(chat) == "Blow out the fan.<|im_end|>\n"
    assert "only-last-turn-trained" in codes(chat)
    assert annotate(tokenizer, TWO_TURNS, mask="completion").labels == chat.labels


def test_response_template_is_found_although_it_tokenizes_differently_in_context(tokenizer) -> None:
    plain = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    messages = [
        {"role": "user", "content": "Q: two plus two? Answer:"},
        {"role": "assistant", "content": "  4"},
    ]
    chat = annotate(
        tokenizer, messages, mask="completion", response_template="Answer: ", chat_template=plain
    )
    assert trained_text(chat).strip() == "4"
    finding = next(f for f in chat.findings if f.code == "response-template-context")
    alone = tokenizer("Answer: ", add_special_tokens=False)["input_ids"]
    assert str(alone) in finding.message


def test_every_token_has_a_role_a_part_and_a_reason(tokenizer) -> None:
    chat = annotate(tokenizer, TWO_TURNS)
    frame = chat.to_pandas()
    assert frame["reason"].str.len().min() > 0
    assert set(frame["part"]) == {"header", "content", "stop", "after"}
    assert frame.groupby("turn")["role"].unique().map(list).tolist() == [
        [m["role"]] for m in TWO_TURNS
    ]
    header = frame[(frame["turn"] == 2) & (frame["part"] == "header")]
    assert "".join(header["text"]) == "<|im_start|>assistant\n"
    assert not header["trained"].any()


def test_generation_prompt_is_shown_and_never_trained(tokenizer) -> None:
    chat = annotate(tokenizer, TWO_TURNS[:2], add_generation_prompt=True)
    tail = [t for t in chat.tokens if t.part == "generation_prompt"]
    assert "".join(t.text for t in tail) == "<|im_start|>assistant\n"
    assert not any(t.trained for t in tail)
    assert "nothing-trained" in codes(chat)


def test_default_system_text_belongs_to_no_turn(tokenizer) -> None:
    chat = annotate(tokenizer, TWO_TURNS[1:3])
    template_text = "".join(t.text for t in chat.tokens if t.part == "template")
    assert template_text.startswith("<|im_start|>system\nYou are a helpful AI assistant")
    assert chat.turns()[0]["role"] == "user"


def test_truncation_inside_an_answer_is_a_finding(tokenizer) -> None:
    whole = annotate(tokenizer, TWO_TURNS[:3])
    assert "stop-token-trained" in codes(whole)
    chat = annotate(tokenizer, TWO_TURNS[:3], max_length=len(whole.tokens) - 4)
    assert chat.input_ids == whole.input_ids[:-4]
    assert len(chat.labels) == len(whole.tokens) - 4
    assert "answer-cut" in codes(chat)
    assert "stop-token-trained" not in codes(chat)
    assert sum(t.cut for t in chat.tokens) == 4


def test_truncation_of_the_whole_answer_is_an_error(tokenizer) -> None:
    chat = annotate(tokenizer, TWO_TURNS[:3], max_length=12)
    found = {f.code: f for f in chat.findings}
    assert found["answer-gone"].severity == "error"
    assert found["nothing-trained"].severity == "error"
    assert chat.labels == [-100] * 12


def test_empty_answer_is_a_finding_and_trains_the_stop_token(tokenizer) -> None:
    chat = annotate(tokenizer, [TWO_TURNS[1], {"role": "assistant", "content": ""}])
    assert trained_text(chat) == "<|im_end|>"
    assert next(f for f in chat.findings if f.code == "empty-answer").where == "message 1"


def test_pad_equal_to_eos_is_a_finding(tokenizer) -> None:
    import copy

    assert "pad-is-eos" not in codes(annotate(tokenizer, TWO_TURNS))
    trapped = copy.deepcopy(tokenizer)
    trapped.pad_token = trapped.eos_token
    assert "pad-is-eos" in codes(annotate(trapped, TWO_TURNS))


def test_a_stop_that_the_tokenizer_spells_out_is_a_finding(tokenizer) -> None:
    chat = annotate(tokenizer, TWO_TURNS[1:3], chat_template=templates.get("llama3"))
    assert "stop-token-trained" not in codes(chat)
    finding = next(f for f in chat.findings if f.code == "stop-not-special")
    assert "'<|eot_id|>'" in finding.message


def test_a_special_stop_that_is_not_the_eos_token_is_mentioned(fresh_tokenizer) -> None:
    fresh_tokenizer.eos_token = "<|endoftext|>"
    chat = annotate(fresh_tokenizer, TWO_TURNS)
    assert {"stop-token-trained", "stop-not-eos"} <= codes(chat)


def test_a_template_without_generation_prompt_is_a_finding(tokenizer) -> None:
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] "
        "+ '<|im_end|>\n' }}{% endfor %}"
    )
    chat = annotate(tokenizer, TWO_TURNS, chat_template=template)
    finding = next(f for f in chat.findings if f.code == "no-generation-prompt")
    assert finding.where == "messages 2, 4"
    assert "no-generation-prompt" not in codes(annotate(tokenizer, TWO_TURNS))


def test_a_field_that_the_template_leaves_out_is_a_finding(tokenizer) -> None:
    thinking = {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."}
    chat = annotate(tokenizer, [TWO_TURNS[1], thinking])
    finding = next(f for f in chat.findings if f.code == "field-not-rendered")
    assert (finding.where, "reasoning_content" in finding.message) == ("message 1", True)


def test_a_generation_prompt_after_an_answer_is_not_trained(tokenizer) -> None:
    for name in ("gptoss", "phi3", "qwen2_5"):
        chat = annotate(
            tokenizer, TWO_TURNS[1:3], chat_template=templates.get(name), add_generation_prompt=True
        )
        assert not any(t.trained for t in chat.tokens if t.part == "generation_prompt")


def test_a_generation_prompt_is_no_second_response_template(tokenizer) -> None:
    chat = annotate(tokenizer, TWO_TURNS[1:3], mask="completion", add_generation_prompt=True)
    assert "only-last-turn-trained" not in codes(chat)
    assert trained_text(chat) == "Make sure the vents are clear.<|im_end|>\n"


def test_content_of_private_use_characters_is_annotated(tokenizer) -> None:
    odd = "\ue000\ue001\ue0f1\ue0f2"
    chat = annotate(tokenizer, [{"role": "user", "content": odd}, TWO_TURNS[2]])
    assert odd in chat.text
    assert trained_text(chat) == "Make sure the vents are clear.<|im_end|>"


def test_characters_that_the_tokenizer_drops_are_a_finding(tokenizer) -> None:
    chat = annotate(tokenizer, [{"role": "user", "content": "a\x16b"}, TWO_TURNS[2]])
    assert "".join(t.text for t in chat.tokens) == chat.text
    finding = next(f for f in chat.findings if f.code == "text-lost")
    assert "'\\x16'" in finding.message
    assert "text-lost" not in codes(annotate(tokenizer, TWO_TURNS))


def test_tool_calls_are_part_of_the_answer(tokenizer) -> None:
    messages = [
        {"role": "user", "content": "Weather in Rome?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"type": "function", "function": {"name": "weather", "arguments": {"at": "Rome"}}}
            ],
        },
        {"role": "tool", "content": "sunny", "name": "weather"},
        {"role": "assistant", "content": "It is sunny."},
    ]
    chat = annotate(tokenizer, messages, chat_template=templates.get("qwen2_5"))
    trained = trained_text(chat)
    assert trained.lstrip().startswith("<tool_call>")
    assert '"weather"' in trained
    assert trained.endswith("It is sunny.<|im_end|>")
    assert "sunny<" not in trained.replace("It is sunny.<|im_end|>", "")


ALTERNATING = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{{ m['content'] }}{% endfor %}"
)
BAD = {
    "an empty list": ([], None, "messages is empty"),
    "an unknown role": ([{"role": "usr", "content": "x"}], None, "message 0 has role 'usr'"),
    "no role": ([{"content": "x"}], None, "message 0 has no role"),
    "missing content": (
        [TWO_TURNS[1], {"role": "assistant"}],
        None,
        r"message 1 \(assistant\): content is missing",
    ),
    "content None": ([{"role": "user", "content": None}], None, "message 0 .* content is None"),
    "content of a wrong type": ([{"role": "user", "content": 3}], None, "message 0 .* is int"),
    "a message that is no dict": (["hello"], None, "message 0 is a str"),
    "one message instead of a list": ({"role": "user", "content": "x"}, None, "must be a list"),
    "roles that do not alternate": (
        [TWO_TURNS[1], TWO_TURNS[2], TWO_TURNS[2]],
        ALTERNATING,
        r"refuses message 2 \(role 'assistant'\): TemplateError: roles must alternate",
    ),
    "a template with a syntax error": (
        [TWO_TURNS[1]],
        "{% for m in messages %}\n{{ m['content'] }\n{% endfor %}",
        "syntax error in line 2",
    ),
    "a template that raises": (
        [TWO_TURNS[1]],
        "{{ messages[0]['nothing']['at all'] }}",
        "refuses message 0",
    ),
    "a template that leaves the sandbox": (
        [TWO_TURNS[1]],
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "refuses message 0",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_an_error_that_names_the_place(tokenizer, case) -> None:
    messages, template, message = BAD[case]
    with pytest.raises(ChatError, match=message):
        annotate(tokenizer, messages, chat_template=template)


def test_unknown_mask_and_missing_response_template_are_errors(tokenizer) -> None:
    with pytest.raises(ChatError, match="mask 'asistant' is unknown"):
        annotate(tokenizer, TWO_TURNS, mask="asistant")
    with pytest.raises(ChatError, match="does not occur in the rendered text"):
        annotate(tokenizer, TWO_TURNS, mask="completion", response_template="### Response:")
    with pytest.raises(ChatError, match="max_length=0"):
        annotate(tokenizer, TWO_TURNS, max_length=0)


def test_tokenizer_without_template_is_an_error(tokenizer) -> None:
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    with pytest.raises(ChatError, match="has no chat template"):
        annotate(bare, TWO_TURNS)
    chat = annotate(bare, TWO_TURNS, chat_template=templates.get("qwen2_5"))
    assert chat.template == "qwen2_5"
    assert chat.trained


def test_role_that_only_the_template_knows_is_accepted(tokenizer) -> None:
    template = (
        "{% for m in messages %}{% if m['role'] == 'narrator' %}~{% endif %}"
        "{{ m['content'] }}{% endfor %}"
    )
    chat = annotate(tokenizer, [{"role": "narrator", "content": "Night."}], chat_template=template)
    assert chat.text == "~Night."
