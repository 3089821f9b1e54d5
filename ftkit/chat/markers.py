"""Where to put ``{% generation %}`` in a template that has none, and proof that it is right there.

The markers go where the answers by definition (see `ftkit.chat.turns`) begin and end: into the
template's own expressions, or, where that is spread over several branches, around a text that is
caught in a variable and cut at role header and stop token. Either way the result is
proposed only after `disagreement` found none: same text, same answers, on every conversation that
it knows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jinja2 import TemplateError

from ftkit.chat import jinja_source as jinja
from ftkit.chat.markers_in_place import CLOSE, OPEN, marked_in_place
from ftkit.chat.masks import answers
from ftkit.chat.render import Message, Messages, Renderer
from ftkit.chat.turns import Span, find_turns
from ftkit.errors import ChatError

_NAME = "ftkit_text"


def _said(*texts: str) -> list[Message]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


_CALL = {"type": "function", "function": {"name": "weather", "arguments": {"at": "Rome"}}}
CONVERSATIONS: tuple[list[Message], ...] = (
    _said("Which colour is the sky?", "Blue."),
    _said("Which colour is the sky?", "Blue.", "And at night?", "Black, with stars."),
    [{"role": "system", "content": "Be kind."}, *_said("Hi?", "Hello!", "Bye?", "See you.")],
    _said(
        "怎么办?", "你好 👩‍👩‍👧, ‘so’ it is\\n.", "And\n\nthen?", "First\nsecond\n\nthird: {{ x }}"
    ),
    _said("One?", "  blanks  ", "Two?"),
    [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [_CALL]},
        {"role": "tool", "content": "sunshine", "name": "weather"},
        {"role": "assistant", "content": "Bright day."},
    ],
)


@dataclass(frozen=True, slots=True)
class MarkedTemplate:
    """A template with markers that were verified.

    Attributes:
        template: Its Jinja source.
        how: ``"in place"``, or ``"around the text"`` where the text is rendered into a variable
            first.
        places: Where the markers stand, in words, with line and column of the original.
        verified: On how many conversations text and answers agree.
        tools: False where calls of tools may lie outside the markers.
    """

    template: str
    how: Literal["in place", "around the text"]
    places: tuple[str, ...]
    verified: int
    tools: bool = True


def mark(
    tokenizer: Any, chat_template: str | None = None, *, extra: Sequence[Messages] = ()
) -> MarkedTemplate | None:
    """Propose markers for a template, None where no verified place was found.

    Args:
        tokenizer: A transformers tokenizer.
        chat_template: Jinja source without markers, or None for the tokenizer's own.
        extra: Conversations of the user's own that have to agree, too.

    Raises:
        ChatError: no template, or one with a syntax error.
    """
    plain = Renderer.of(tokenizer, chat_template)
    if plain.has_generation_markers:
        return None
    known = [c for c in (*CONVERSATIONS, *extra) if _renders(plain, c)]
    known = known or [c for c in map(in_parts, CONVERSATIONS) if _renders(plain, c)]
    texts = [c for c in known if not any("tool_calls" in message for message in c)]
    for tried in filter(None, (known, texts)):
        for template, how, places in _candidates(plain, tried):
            marked = plain.with_template(template)
            if disagreement(plain, marked, tried) is None and _same_text(plain, marked, known):
                return MarkedTemplate(template, how, tuple(places), len(tried), tried == known)
    return None


def _renders(plain: Renderer, messages: Messages) -> bool:
    """Whether the template takes the conversation, and writes each of its answers."""
    return plain.try_render(messages) is not None and all(
        turn.rendered for turn in find_turns(plain, messages) if turn.role == "assistant"
    )


def in_parts(messages: Messages) -> list[Message]:
    """The same conversation with each content as a list of parts, as templates for images want."""
    return [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]


def disagreement(
    plain: Renderer, marked: Renderer, conversations: Sequence[Messages]
) -> str | None:
    """Return in words where text or answers under `marked` differ; None for nowhere."""
    if not _same_text(plain, marked, conversations):
        return "the marked template renders other text"
    for messages in conversations:
        try:
            spans = _merged(marked.generation_spans(messages))
        except (ChatError, TemplateError, TypeError, ValueError) as error:
            return f"the marked template cannot be tracked: {error}"
        wanted = _merged([(r.start, r.end) for r in answers(find_turns(plain, messages))])
        if spans != wanted:
            return f"the markers enclose {spans}, the answers are {wanted}"
    return None


def _same_text(plain: Renderer, marked: Renderer, conversations: Sequence[Messages]) -> bool:
    return all(
        plain.try_render(messages, generation_prompt=prompt)
        == marked.try_render(messages, generation_prompt=prompt)
        for messages in conversations
        for prompt in (False, True)
    )


def _merged(spans: Sequence[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(s for s in spans if s[1] > s[0]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


Candidate = tuple[str, Literal["in place", "around the text"], list[str]]


def _candidates(plain: Renderer, known: Sequence[Messages]) -> Iterator[Candidate]:
    edited = marked_in_place(plain, known)
    if edited:
        yield edited[0], "in place", edited[1]
    wrapped = _around(plain, known)
    if wrapped:
        yield wrapped, "around the text", ["the whole template is rendered into a variable first"]


def _around(plain: Renderer, known: Sequence[Messages]) -> str | None:
    """Render everything into a variable, and cut the answers out of it at header and stop token."""
    edges = _edges(plain, known)
    if edges is None:
        return None
    head, stop = map(jinja.quoted, edges)
    source = plain.template.removesuffix("\n")
    return (
        f"{{% set {_NAME} %}}{source}{{% endset %}}{{% for part in {_NAME}.split({head}) %}}"
        f"{{% if not loop.first %}}{{{{ {head} }}}}{{% endif %}}"
        f"{{% if loop.first or {stop} not in part %}}{{{{ part }}}}{{% else %}}{OPEN}"
        f"{{{{ part.split({stop}, 1)[0] + {stop} }}}}{CLOSE}{{{{ part.split({stop}, 1)[1] }}}}"
        "{% endif %}{% endfor %}"
    )


def _edges(plain: Renderer, known: Sequence[Messages]) -> tuple[str, str] | None:
    """The role header before an answer and the stop token behind it; None where they vary."""
    heads, stops = set(), set()
    for messages in known:
        text = plain.render(messages)
        for turn in find_turns(plain, messages):
            if turn.role == "assistant" and turn.rendered:
                heads.add(text[turn.start : turn.answer])
                stops.add(text[turn.content_end : turn.stop_end])
    if len(heads) != 1 or len(stops) != 1 or "" in heads | stops:
        return None
    return heads.pop(), stops.pop()
