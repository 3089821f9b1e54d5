"""The audit of a template: markers, stop token, prefix stability, against TRL's own checks."""

import copy

import pytest
from byte_level import byte_tokenizer
from families import FAMILIES, OWN_MARKERS

from ftkit.chat import audit, templates


def codes(result) -> dict[str, str]:
    return {f.code: f.severity for f in result.findings}


def test_the_embedded_template_has_no_markers_and_no_twin(tokenizer) -> None:
    result = audit(tokenizer)
    assert result.marked_by is None
    assert codes(result)["generation-markers"] == "warning"
    assert codes(result)["prefix-stable"] == "ok"
    assert codes(result)["stop-token-trained"] == "ok"


def test_a_known_family_is_compared_with_trls_twin(tokenizer) -> None:
    known = copy.deepcopy(tokenizer)
    known.chat_template = templates.get("qwen2_5")
    result = audit(known)
    assert (result.template, result.marked_by) == ("qwen2_5", "TRL's training twin")
    assert {d.kind for d in result.differences} == {"also trains before", "also trains after"}
    assert "turn 1 also trains after '\\n'" in str(result)


@pytest.mark.parametrize("name", sorted(OWN_MARKERS))
def test_a_template_with_markers_is_compared_with_itself(name) -> None:
    result = audit(byte_tokenizer(templates.get(name)))
    assert result.marked_by == "its own markers"
    assert codes(result)["generation-markers"] == "ok"


STABLE = {"llama3": True, "qwen2_5": True, "qwen3": False, "gptoss": False, "phi3": False}


@pytest.mark.parametrize("name", STABLE)
def test_a_template_that_rewrites_earlier_turns_is_found(name) -> None:
    """Qwen 3 drops old thoughts; gpt-oss and Phi 3 end the last turn otherwise than the others."""
    found = codes(audit(byte_tokenizer(templates.get(name))))
    assert ("prefix-stable" in found) is STABLE[name]
    assert ("prefix-unstable" in found) is not STABLE[name]


def test_markers_that_are_never_reached_are_a_difference(fresh_tokenizer) -> None:
    fresh_tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last"
        " %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}\n{% else %}"
        "{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    result = audit(fresh_tokenizer)
    assert [(d.turn, d.kind, d.text) for d in result.differences] == [
        (1, "leaves out", "Blue.<|im_end|>")
    ]


def test_audit_of_every_family_shows_itself() -> None:
    for name in FAMILIES:
        html = audit(byte_tokenizer(templates.get(name))).to_html()
        assert "Template audit" in html
        assert "<script" not in html
