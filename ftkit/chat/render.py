"""Messages → text, by the tokenizer's own `apply_chat_template`, with errors that name the place.

Rendering happens in the sandboxed Jinja environment of transformers, as in training.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from jinja2 import TemplateError, TemplateSyntaxError

from ftkit.errors import ChatError

Message: TypeAlias = dict[str, Any]
Messages: TypeAlias = Sequence[Message]

STANDARD_ROLES = ("system", "developer", "user", "assistant", "tool")
OPTIONAL_FIELDS = ("tool_calls", "reasoning_content", "reasoning", "thinking")
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


def check_messages(messages: Messages, template: str) -> None:
    """Refuse a conversation that no template could render as meant.

    Raises:
        ChatError: naming the message by its index.
    """
    if isinstance(messages, str | dict) or not isinstance(messages, Sequence):
        raise ChatError(f"messages must be a list of dicts, not {type(messages).__name__}")
    if not messages:
        raise ChatError("messages is empty: give at least one message, e.g. a user's question")
    for index, message in enumerate(messages):
        _check_message(index, message, template)


def _check_message(index: int, message: Message, template: str) -> None:
    where = f"message {index}"
    if not isinstance(message, dict):
        raise ChatError(f"{where} is a {type(message).__name__}, not a dict with role and content")
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise ChatError(f"{where} has no role: add 'role', one of {', '.join(STANDARD_ROLES)}")
    if role not in STANDARD_ROLES and not re.search(rf"""['"]{re.escape(role)}['"]""", template):
        raise ChatError(
            f"{where} has role {role!r}, which neither the standard nor this template knows: "
            f"use one of {', '.join(STANDARD_ROLES)}"
        )
    if message.get("content") is None and not message.get("tool_calls"):
        state = "is None" if "content" in message else "is missing"
        raise ChatError(f"{where} ({role}): content {state}; give a string, '' for an empty one")
    content = message.get("content")
    if not isinstance(content, str | list | None):
        raise ChatError(f"{where} ({role}): content is {type(content).__name__}, not a string")


def _without(message: Message, name: str) -> Message:
    return {key: value for key, value in message.items() if key != name}


@dataclass(frozen=True)
class Renderer:
    """A tokenizer with one chat template: turns messages into text.

    Attributes:
        tokenizer: A transformers tokenizer.
        template: Jinja source that is rendered.
        tools: Tool schemas handed to the template.
    """

    tokenizer: Any
    template: str
    tools: tuple[Any, ...] | None = field(default=None)

    @classmethod
    def of(
        cls, tokenizer: Any, chat_template: str | None = None, tools: Sequence[Any] | None = None
    ) -> "Renderer":
        """Pick the template: `chat_template`, else the tokenizer's own.

        Raises:
            ChatError: there is no template, or it has a syntax error.
        """
        template = chat_template or getattr(tokenizer, "chat_template", None)
        if isinstance(template, dict):
            template = template.get("tool_use" if tools else "default") or template.get("default")
        if not template:
            raise ChatError(
                f"{type(tokenizer).__name__} has no chat template (a base model?): pass "
                "chat_template=, e.g. ftkit.chat.templates.get('qwen2_5'), and train with it"
            )
        renderer = cls(tokenizer, template, None if tools is None else tuple(tools))
        renderer._compile()
        return renderer

    def _compile(self) -> None:
        from transformers.utils.chat_template_utils import _compile_jinja_template

        try:
            _compile_jinja_template(self.template)
        except TemplateSyntaxError as error:
            line = (self.template.splitlines() or [""])[min(error.lineno, 10**6) - 1 :][:1]
            raise ChatError(
                f"chat template: syntax error in line {error.lineno}: {error.message}"
                + (f"\n    {line[0].strip()[:120]}" if line else "")
            ) from error

    @property
    def has_generation_markers(self) -> bool:
        """Whether the template marks the answers with `{% generation %}`."""
        return bool(_GENERATION.search(self.template))

    def with_template(self, template: str) -> "Renderer":
        """Return the same renderer with another Jinja source."""
        return replace(self, template=template)

    def render(self, messages: Messages, *, generation_prompt: bool = False) -> str:
        """Return the rendered conversation.

        Raises:
            ChatError: the template refuses the conversation; names the message that it refuses.
        """
        try:
            return self._render(messages, generation_prompt)
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            index = self._first_refused(messages)
            role = messages[index].get("role")
            raise ChatError(
                f"the chat template refuses message {index} (role {role!r}): "
                f"{type(error).__name__}: {error}"
            ) from error

    def try_render(self, messages: Messages, *, generation_prompt: bool = False) -> str | None:
        """Return the rendered conversation, None where the template refuses it."""
        try:
            return self._render(messages, generation_prompt)
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError):
            return None

    def _render(self, messages: Messages, generation_prompt: bool) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                list(messages),
                tokenize=False,
                chat_template=self.template,
                tools=None if self.tools is None else list(self.tools),
                add_generation_prompt=generation_prompt,
            )
        )

    def unused_fields(self, messages: Messages) -> list[tuple[int, str]]:
        """Return ``(message, field)`` of every thought or tool call that is left out."""
        given = [(i, n) for i, m in enumerate(messages) for n in OPTIONAL_FIELDS if m.get(n)]
        if not given:  # as in most conversations, which then need no rendering here
            return []
        text = self.try_render(messages)
        return [
            (i, n)
            for i, n in given
            if self.try_render([*messages[:i], _without(messages[i], n), *messages[i + 1 :]])
            == text
        ]

    def _first_refused(self, messages: Messages) -> int:
        """Index of the message from which on every longer conversation is refused, too."""
        index = len(messages) - 1
        while index > 0 and self.try_render(messages[:index]) is None:
            index -= 1
        return index

    def generation_spans(self, messages: Messages) -> list[tuple[int, int]]:
        """Return what the template's own `{% generation %}` markers enclose, in characters."""
        from transformers.utils.chat_template_utils import render_jinja_template

        _, spans = render_jinja_template(
            [list(messages)],
            tools=None if self.tools is None else list(self.tools),
            chat_template=self.template,
            return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
        )
        return [(int(start), int(end)) for start, end in spans[0]]
