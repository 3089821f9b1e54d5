"""Mask strategies: which characters carry loss, and the reason, token by token.

A strategy answers in characters of the rendered text; a token is trained when it overlaps one of
them (the rule of transformers for `{% generation %}` spans). So no strategy depends on how a
piece of text would tokenize outside its context.
"""

from dataclasses import dataclass

from ftkit.chat.annotated import MaskName, Part
from ftkit.chat.render import Messages, Renderer
from ftkit.chat.turns import Turn
from ftkit.errors import ChatError

MASKS: tuple[MaskName, ...] = ("assistant", "last_assistant", "completion", "full")

_BY_PART: dict[Part, str] = {
    "template": "text of the template, belongs to no turn",
    "header": "role header: given by the generation prompt",
    "content": "{role} text: the model reads it",
    "stop": "end of the {role} turn",
    "after": "template text behind the stop token",
    "generation_prompt": "generation prompt: given at inference",
    "pad": "padding",
}


@dataclass(frozen=True, slots=True)
class Region:
    """Characters ``start`` to ``end`` carry loss; `why` is shown as the reason."""

    start: int
    end: int
    why: str
    turn: int | None = None

    def overlaps(self, span: tuple[int, int]) -> bool:
        """Whether a token that owns `span` takes part in the region."""
        return self.start < span[1] and span[0] < self.end


def regions(
    mask: MaskName,
    renderer: Renderer,
    messages: Messages,
    text: str,
    turns: list[Turn],
    response_template: str | None = None,
) -> list[Region]:
    """Return what `mask` trains, in order.

    Raises:
        ChatError: unknown mask, or a response template that does not occur in the text.
    """
    if mask == "full":
        return [Region(0, len(text), "full sequence: every token is a target")]
    if mask == "completion":
        return [_completion(text, turns, response_template)]
    if mask not in MASKS:
        raise ChatError(f"mask {mask!r} is unknown; use one of {', '.join(MASKS)}")
    if renderer.has_generation_markers:
        spans = renderer.generation_spans(messages)
        found = [Region(a, b, "inside the template's {% generation %}") for a, b in spans]
    else:
        found = answers(turns)
    if mask == "last_assistant":
        begins = max((t.start for t in turns if t.role == "assistant" and t.rendered), default=0)
        return [region for region in found if region.end > begins]
    return found


def answers(turns: list[Turn]) -> list[Region]:
    """Return what the model itself must produce: each answer with its stop token."""
    return [
        Region(t.answer, t.stop_end, "part of the answer", t.index)
        for t in turns
        if t.role == "assistant" and t.rendered
    ]


def completion_template(text: str, turns: list[Turn]) -> str:
    """Return the role header of the last answer, which is what opens the response.

    Raises:
        ChatError: there is no answer to open.
    """
    last = next((t for t in reversed(turns) if t.role == "assistant" and t.rendered), None)
    if last is None or not text[last.start : last.answer]:
        raise ChatError(
            "mask='completion' needs response_template=, the text that opens the answer: this "
            "conversation has no assistant turn with a role header to take it from"
        )
    return text[last.start : last.answer]


def _completion(text: str, turns: list[Turn], response_template: str | None) -> Region:
    if response_template is None:
        response_template = completion_template(text, turns)
    at = text.rfind(response_template) if response_template else -1
    if at < 0:
        raise ChatError(
            f"response_template {response_template!r} does not occur in the rendered text, so "
            f"nothing would be trained. The text ends with {text[-80:]!r}"
        )
    return Region(at + len(response_template), len(text), "after the response template")


def reason(part: Part, role: str | None, region: Region | None) -> str:
    """Say in a few words why a token is or is not trained."""
    if region is None:
        return _BY_PART[part].format(role=role)
    if part == "stop":
        return f"{region.why}: the stop token, so that the model learns to end"
    if part in ("header", "after"):
        return f"{region.why} (the model is never asked for this at inference)"
    return region.why
