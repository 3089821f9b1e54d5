"""The derived mask against the hand-written statement, for every template family of TRL."""

import csv
import os
from pathlib import Path

import pytest
from byte_level import byte_tokenizer
from families import FAMILIES, NO_SYSTEM, OWN_MARKERS, PARTS_ONLY

from ftkit.chat import annotate, templates
from ftkit.chat.audit import differences
from ftkit.chat.masks import answers as answer_regions
from ftkit.chat.render import Renderer
from ftkit.chat.turns import find_turns
from ftkit.errors import ChatError

TABLE = Path(__file__).with_name("twin_differences.csv")
ANSWERS = {
    "single turn": ["It is blue."],
    "multi-turn": ["It is blue.", "Black.", "Good night!"],
    "multi-byte": ["Überall 你好 👩‍👩‍👧 שלום", "مرحبا 🎉"],
    "leading and trailing spaces": ["  two before", "two after  ", "  both  "],
}


def conversation(answers: list[str], *, system: bool) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": "Be kind and short."}] if system else []
    for i, answer in enumerate(answers):
        messages += [
            {"role": "user", "content": f"Question {i}, 怎么办?"},
            {"role": "assistant", "content": answer},
        ]
    return messages


def test_every_family_of_trl_has_a_hand_written_statement() -> None:
    assert set(templates.names()) == set(FAMILIES) | PARTS_ONLY


CASES = [(n, False) for n in FAMILIES] + [(n, True) for n in FAMILIES if n not in NO_SYSTEM]


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize(("name", "system"), CASES)
def test_derived_mask_is_what_the_model_must_produce(name: str, kind: str, system: bool) -> None:
    template = templates.get(name)
    tokenizer = byte_tokenizer(template)
    messages = conversation(ANSWERS[kind], system=system)
    renderer = Renderer.of(tokenizer, template)
    text = renderer.render(messages)
    derived = [text[r.start : r.end] for r in answer_regions(find_turns(renderer, messages))]
    assert derived == FAMILIES[name].expected(ANSWERS[kind])


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - OWN_MARKERS))
def test_labels_are_the_mask_token_by_token(name: str) -> None:
    template = templates.get(name)
    tokenizer = byte_tokenizer(template)
    answers = ANSWERS["multi-byte"]
    chat = annotate(tokenizer, conversation(answers, system=False), chat_template=template)
    assert "".join(t.text for t in chat.tokens) == chat.text
    trained = [i for i, label in zip(chat.input_ids, chat.labels, strict=True) if label != -100]
    assert tokenizer.decode(trained) == "".join(FAMILIES[name].expected(answers))
    assert all(label in (-100, i) for i, label in zip(chat.input_ids, chat.labels, strict=True))


@pytest.mark.parametrize("name", sorted(OWN_MARKERS))
def test_a_templates_own_markers_rule(name: str) -> None:
    template = templates.get(name)
    tokenizer = byte_tokenizer(template)
    messages = conversation(ANSWERS["multi-turn"], system=True)
    chat = annotate(tokenizer, messages, chat_template=template)
    theirs = tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    assert chat.input_ids == theirs["input_ids"]
    assert [int(label != -100) for label in chat.labels] == list(theirs["assistant_masks"])


@pytest.mark.parametrize("name", sorted(PARTS_ONLY - {"llava_next"}))
def test_content_that_a_template_leaves_out_is_never_silent(name: str) -> None:
    template = templates.get(name)
    messages = conversation(["Blue."], system=False)
    chat = annotate(byte_tokenizer(template), messages, chat_template=template)
    found = {f.code: f for f in chat.findings}
    assert found["content-not-rendered"].where == "messages 0, 1"
    assert found["nothing-trained"].severity == "error"


def test_template_that_chokes_on_plain_content_is_an_error() -> None:
    template = templates.get("llava_next")
    messages = conversation(["Blue."], system=False)
    with pytest.raises(ChatError, match="refuses message"):
        annotate(byte_tokenizer(template), messages, chat_template=template)


def test_content_as_parts_is_trained_like_text() -> None:
    template = templates.get("smolvlm")
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Hi?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Blue."}]},
    ]
    tokenizer = byte_tokenizer(template)
    chat = annotate(tokenizer, messages, chat_template=template)
    trained = tokenizer.decode([t.id for t in chat.trained])
    assert trained == " Blue.<end_of_utterance>"


CALL = [{"type": "function", "function": {"name": "weather", "arguments": {"at": "Rome"}}}]
WITH_TOOLS = [
    name
    for name in FAMILIES
    if Renderer.of(byte_tokenizer(templates.get(name)), None).try_render(
        [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "", "tool_calls": CALL},
            {"role": "tool", "content": "sunshine", "name": "weather"},
            {"role": "assistant", "content": "Bright day."},
        ]
    )
]


def test_families_with_tools_are_the_known_ones() -> None:
    assert len(WITH_TOOLS) >= 25


@pytest.mark.parametrize("followed", [False, True], ids=["last", "followed"])
@pytest.mark.parametrize("said", ["Let me see.", "", None], ids=["text", "empty", "missing"])
@pytest.mark.parametrize("name", WITH_TOOLS)
def test_tool_calls_are_trained_whole_and_their_results_never(name, said, followed) -> None:
    calling = {"role": "assistant", "tool_calls": CALL}
    if said is not None:
        calling["content"] = said
    messages = [
        {"role": "user", "content": "Weather?"},
        calling,
        {"role": "tool", "content": "sunshine", "name": "weather"},
        {"role": "assistant", "content": "Bright day."},
    ]
    if followed:
        messages += [{"role": "user", "content": "Thx"}, {"role": "assistant", "content": "Bye."}]
    renderer = Renderer.of(byte_tokenizer(templates.get(name)))
    text = renderer.try_render(messages)
    if text is None:
        with pytest.raises(ChatError, match="refuses message"):
            annotate(renderer.tokenizer, messages)
        return
    trained = {
        t.index: text[t.answer : t.stop_end]
        for t in find_turns(renderer, messages)
        if t.role == "assistant"
    }
    assert ("Rome" in trained[1]) is ("Rome" in text)
    findings = {f.code for f in annotate(renderer.tokenizer, messages).findings}
    # Gemma 4 puts the text beside a tool call behind the tool's result; gpt-oss leaves it out.
    assert ((said or "") not in trained[1]) is ("content-outside-turn" in findings)
    assert "sunshine" not in "".join(trained.values())
    assert "Weather?" not in "".join(trained.values())
    assert "Bright day." in trained[3]
    assert "<|im_start|>" not in "".join(trained.values())
    assert ("field-not-rendered" in findings) is ("Rome" not in text)


def test_every_part_of_an_answer_in_parts_is_trained() -> None:
    template = templates.get("smolvlm")
    parts = [{"type": "text", "text": "Blue."}, {"type": "text", "text": "Red and green."}]
    image = {"role": "user", "content": [{"type": "image"}]}
    tokenizer = byte_tokenizer(template)
    chat = annotate(tokenizer, [image, {"role": "assistant", "content": parts}])
    trained = tokenizer.decode([t.id for t in chat.trained])
    assert trained.endswith("Red and green.<end_of_utterance>")
    assert "content-not-rendered" not in {f.code for f in chat.findings}


@pytest.mark.parametrize("name", ["phi3", "phi3_5", "diffusion_gemma"])
def test_last_assistant_trains_the_whole_last_answer_of_a_template_with_markers(name) -> None:
    twin = templates.twin(name)
    tokenizer = byte_tokenizer(twin)
    chat = annotate(tokenizer, conversation(["One.", "Two."], system=False), mask="last_assistant")
    trained = tokenizer.decode([t.id for t in chat.trained])
    assert trained.startswith("Two.")
    assert FAMILIES[name].stop in trained


def test_refused_system_role_is_named() -> None:
    template = templates.get("gemma")
    messages = conversation(["Blue."], system=True)
    with pytest.raises(ChatError, match=r"refuses message 0 \(role 'system'\)"):
        annotate(byte_tokenizer(template), messages, chat_template=template)


def twin_table() -> list[list[str]]:
    """How each of TRL's training twins marks a two-turn conversation, against the definition."""
    rows = []
    messages = conversation(["It is blue.", "Black."], system=False)
    for name in FAMILIES:
        twin = templates.twin(name)
        if twin is None:
            rows.append([name, "", "no twin", "", "TRL ships none; ftkit derives the mask"])
            continue
        plain = Renderer.of(byte_tokenizer(templates.get(name) + twin), templates.get(name))
        found = differences(plain, plain.with_template(twin), messages)
        rows += [[name, str(d.turn), d.kind, repr(d.text), d.why] for d in found] or [
            [name, "", "same", "", "trains exactly the answer and its stop token"]
        ]
    return rows


def test_differences_to_trls_twins_are_the_recorded_ones() -> None:
    rows = [["family", "turn", "kind", "text", "why"], *twin_table()]
    if os.environ.get("FTKIT_RECORD"):
        with TABLE.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
    with TABLE.open(newline="", encoding="utf-8") as file:
        recorded = list(csv.reader(file))
    assert rows == recorded, "TRL's templates changed; look, then record with FTKIT_RECORD=1"
    assert all(row[4] for row in rows)
