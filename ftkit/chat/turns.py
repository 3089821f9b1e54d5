"""Where each turn lies in the rendered text, for any template, with or without markers.

No template is parsed. The template is asked instead: a private character put before or behind a
message's content shows, by where the rendering changes, where that content begins and ends; and
rendering the turns before an answer with the generation prompt shows where the answer begins.

What an *answer* is: what the model itself must produce at inference, that is everything after
that turn's generation prompt, up to and including the end-of-turn (stop) token. The role header
is given by the generation prompt, so it is not part; nor is what some templates put behind the
stop token.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from os.path import commonprefix

from ftkit.chat.render import Message, Messages, Renderer

Span = tuple[int, int]

# Private-use characters: no template gives them a meaning, and they are not whitespace, so that a
# template's trim does not take them away.
_PROBES = tuple(map(chr, range(0xE000, 0xF8FF)))
_MARKER = re.compile(r"<[^<>\s]{1,60}>|\[[^\[\]\s]{1,60}\]")


@dataclass(frozen=True, slots=True)
class Turn:
    """Character positions of one message in the rendered text; each part may be empty.

    ``start ≤ answer ≤ content_end ≤ stop_end ≤ end``: the role header runs from `start` to
    `answer`, the content from there to `content_end` (for an assistant with all that the model
    says, e.g. thoughts and tool calls), the stop token to `stop_end`, what follows it to `end`.

    Attributes:
        index: Index of the message.
        role: Its role.
        rendered: False when the template leaves the content out.
        whole_prompt: Whether the full generation prompt stands before the answer. When False, the
            training text differs from what the model sees at inference.
        has_prompt: False when the template writes a header before the answer but has no
            generation prompt that gives it, so that the model must produce the header itself.
        content_inside: False when the content beside a tool call is left out, or written elsewhere
            than in its turn.
    """

    index: int
    role: str
    start: int
    answer: int
    content_end: int
    stop_end: int
    end: int
    rendered: bool = True
    whole_prompt: bool = True
    has_prompt: bool = True
    content_inside: bool = True

    @property
    def has_stop(self) -> bool:
        """Whether the template closes the turn with something the model can learn to emit."""
        return self.stop_end > self.content_end


def find_turns(renderer: Renderer, messages: Messages) -> list[Turn]:
    """Locate every message of `messages` in ``renderer.render(messages)``, in message order.

    A message whose content the template leaves out comes back with ``rendered=False`` and empty
    spans.

    Raises:
        ChatError: the template refuses the conversation.
    """
    return _Finder(renderer, messages).turns()


@dataclass(frozen=True)
class _Rendering:
    """One rendering of a conversation, and where the contents lie in it."""

    renderer: Renderer
    messages: Messages
    generation_prompt: bool = False

    @cached_property
    def text(self) -> str | None:
        return self.renderer.try_render(self.messages, generation_prompt=self.generation_prompt)

    def content(self, i: int) -> Span | None:
        """Character span of the content of message `i`; None where it is not rendered."""
        before = self._probed(i, lambda content, probe: probe + content, part=0)
        after = self._probed(i, lambda content, probe: content + probe, part=-1)
        # A template may drop one end of the content (a closed thought in an earlier turn), so one
        # unchanged rendering alone does not mean that the content is gone.
        before, after = before or after, after or before
        if self.text is None or before is None or after is None:
            return None
        start = len(commonprefix([self.text, before]))
        end = len(self.text) - len(commonprefix([self.text[::-1], after[::-1]]))
        return start, max(start, end)

    def _probed(self, i: int, edit: Callable[[str, str], str], part: int) -> str | None:
        """The rendering with message `i` edited; None where that changes nothing."""
        message = self.messages[i]
        probe = next(p for p in _PROBES if p not in str(message.get("content")))
        changed = _edited(message, lambda content: edit(content, probe), part)
        if changed is None:
            return None
        messages = [*self.messages[:i], changed, *self.messages[i + 1 :]]
        text = self.renderer.try_render(messages, generation_prompt=self.generation_prompt)
        return text if text != self.text else None


def _edited(message: Message, edit: Callable[[str], str], part: int) -> Message | None:
    """The message with its text (of a multi-part content: text part number `part`) edited."""
    content = message.get("content")
    if isinstance(content, str):
        return {**message, "content": edit(content)}
    texts = [k for k, p in enumerate(content or ()) if isinstance(p, dict) and p.get("text")]
    if not isinstance(content, list) or not texts:
        return None
    k = texts[part]
    changed = {**content[k], "text": edit(content[k]["text"])}
    return {**message, "content": [*content[:k], changed, *content[k + 1 :]]}


class _Finder:
    """Finds the turns of one conversation, in the order of the rendered text."""

    def __init__(self, renderer: Renderer, messages: Messages) -> None:
        self.renderer = renderer
        self.messages = messages
        self.text = renderer.render(messages)
        full = _Rendering(renderer, messages)
        self.contents = [full.content(i) for i in range(len(messages))]
        dropped = set(renderer.unused_fields(messages))
        self.calls_tools = [
            bool(m.get("tool_calls")) and (i, "tool_calls") not in dropped
            for i, m in enumerate(messages)
        ]
        self.prompt_added, self.closing = self._shape()

    def _shape(self) -> tuple[str, str]:
        """The generation prompt alone, and what closes a user's turn (e.g. ``<|im_end|>⏎``)."""
        roles = [m["role"] for m in self.messages]
        upto = self.messages[: roles.index("user") + 1] if "user" in roles else self.messages
        prompt = _Rendering(self.renderer, upto, generation_prompt=True)
        closed = _Rendering(self.renderer, upto).text
        content = prompt.content(len(upto) - 1)
        if prompt.text is None or closed is None or content is None:
            return "", ""
        added = max(common_length(prompt.text, closed), content[1])
        return prompt.text[added:], prompt.text[content[1] : added]

    def turns(self) -> list[Turn]:
        """Every message's turn; some templates move the system text, hence the sorting."""
        everyone = range(len(self.messages))
        present = [i for i in everyone if self.contents[i] or self.calls_tools[i]]
        order = sorted(present, key=lambda i: (self.contents[i] or (len(self.text), 0))[0])
        if any(self.contents[i] is None for i in present):
            order = present
        found: dict[int, Turn] = {}
        floor = 0
        for position, i in enumerate(order):
            following = self._next_content(order[position + 1 :])
            found[i] = self._turn(i, floor, following, last=position == len(order) - 1)
            floor = found[i].end
        for i in everyone:
            found.setdefault(i, _absent(i, str(self.messages[i]["role"]), floor))
        return [found[i] for i in everyone]

    def _next_content(self, later: list[int]) -> int:
        spans = (self.contents[k] for k in later)
        return next((span[0] for span in spans if span), len(self.text))

    def _turn(self, i: int, floor: int, following: int, *, last: bool) -> Turn:
        message = self.messages[i]
        role = str(message["role"])
        span = self.contents[i]
        whole = has_prompt = True
        if role == "assistant":
            answer, whole = self._answer_start(i, floor)
            content_end, stop_end = self._answer_end(i, answer, following, last)
            has_prompt = not self._writes_header(self.text[answer : span[0]] if span else "")
        else:
            answer, content_end = span or (floor, following)
            tail = self.text[content_end:following]
            stop_end = content_end + len(commonprefix([tail, self.closing]).rstrip())
        start = self._header_start(answer) if floor == 0 else floor
        rest = self.text[stop_end:following]
        after = self.closing[len(self.closing.rstrip()) :]
        end = stop_end + (len(rest) if last else len(commonprefix([rest, after])))
        inside = span is not None and span[1] <= stop_end
        return Turn(
            i, role, start, answer, content_end, stop_end, end, True, whole, has_prompt, inside
        )

    def _writes_header(self, lead: str) -> bool:
        """Whether `lead`, between generation prompt and content, is a header after all."""
        opener = _MARKER.match(self.prompt_added.lstrip())
        if opener:
            return opener.group() in lead
        return not self.prompt_added and bool(lead.strip())

    def _answer_start(self, i: int, floor: int) -> tuple[int, bool]:
        """Position after the generation prompt of answer `i`, and whether that prompt is whole."""
        own = self.contents[i]
        fallback = own[0] if own else floor
        prompt = _Rendering(self.renderer, self.messages[:i], generation_prompt=True)
        previous = next((k for k in range(i - 1, -1, -1) if self.contents[k]), None)
        if i == 0 or prompt.text is None or previous is None:
            return fallback, True
        if self.text.startswith(prompt.text):
            return len(prompt.text), True
        # Earlier turns may render differently by now (a template that drops old thoughts), so
        # compare only from the end of the previous content on.
        anchor, in_prompt = self.contents[previous], prompt.content(previous)
        if anchor is None or in_prompt is None:
            return fallback, False
        tail = prompt.text[in_prompt[1] :]
        if self.text.startswith(tail, anchor[1]):
            return anchor[1] + len(tail), True
        start = anchor[1] + common_length(self.text[anchor[1] :], tail)
        return (min(start, own[0]) if own else start), False

    def _answer_end(self, i: int, answer: int, following: int, last: bool) -> tuple[int, int]:
        """Where the model's words end in turn `i`, and where its stop text ends."""
        span = self.contents[i]
        if span and not self.calls_tools[i]:
            content_end = max(span[1], answer)
            return content_end, content_end + self._stop_length(
                i, self.text[content_end:following], last
            )
        # Tool calls follow the content. A last marker of the turn alone closes it.
        alone = self.renderer.try_render(self.messages[: i + 1]) or ""
        for marker in reversed(_MARKER.findall(alone)[-2:]):
            at = self.text.rfind(marker, answer, following)
            if at >= 0:
                return at, at + len(marker)
        return following, following

    def _stop_length(self, i: int, tail: str, last: bool) -> int:
        """Length of the stop text that opens `tail`, 0 when the template has none."""
        if last:
            return _stop_run(tail)
        alone = _Rendering(self.renderer, self.messages[: i + 1])
        span = alone.content(i)
        if alone.text and span:
            closing = alone.text[span[1] :]
            stop = closing[: _stop_run(closing)]
            if stop and tail.startswith(stop):
                return len(stop)
        opener = _MARKER.match(self.prompt_added.lstrip())
        if opener and (at := tail.find(opener.group())) > 0:
            return _stop_run(tail[:at])
        eos = getattr(self.renderer.tokenizer, "eos_token", None)
        return len(eos) if eos and tail.startswith(eos) else 0

    def _header_start(self, answer: int) -> int:
        """Where the first turn's header begins: BOS and a default system text are no part of it."""
        before = self.text[:answer]
        opener = _MARKER.match(self.prompt_added.lstrip())
        if opener and opener.group() in before:
            return before.rindex(opener.group())
        markers = list(_MARKER.finditer(before))
        if not markers:
            return 0
        is_bos = markers[-1].group() == getattr(self.renderer.tokenizer, "bos_token", None)
        return markers[-1].end() if is_bos else markers[-1].start()


def _absent(i: int, role: str, at: int) -> Turn:
    return Turn(i, role, at, at, at, at, at, rendered=False)


def _stop_run(tail: str) -> int:
    """Length of the stop text that opens `tail`, where nothing but closings follows."""
    stripped = tail.rstrip()
    if not _MARKER.search(stripped):
        return len(stripped)
    run = re.match(rf"\s*(?:{_MARKER.pattern})+", stripped)
    return run.end() if run else 0


def common_length(a: str, b: str) -> int:
    """Length of the common prefix of `a` and `b` that does not break a ``<marker>`` in two."""
    n = len(commonprefix([a, b]))
    for text in (a, b):
        for match in _MARKER.finditer(text, max(0, n - 64)):
            if match.start() < n < match.end():
                return match.start()
    return n
