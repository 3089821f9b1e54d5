"""`ChatInspector`: edit a conversation, its template and its mask, and watch the tokens follow.

The kernel does all the work and sends one finished piece of HTML, drawn by the same view function
as the static page; the JavaScript beside this module only holds the controls. Losses are computed
on request, after the typing stopped, because a forward pass is too slow for every keystroke.
Left out: images and other structured content in the editor (they stay as they are).
"""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import traitlets as t

from ftkit import chat as chats
from ftkit.chat import AnnotatedTokens
from ftkit.findings import Finding
from ftkit.views.findings import chip
from ftkit.views.strip import meaning, view
from ftkit.views.style import card, css, rules
from ftkit.widgets.viewer import Viewer

if TYPE_CHECKING:
    import pandas as pd

_HERE = Path(__file__).parent
_MASKS = {
    "assistant": "every answer",
    "last_assistant": "the last answer",
    "completion": "what follows a marker",
    "full": "every token",
}
_OWN = "own"
_SYSTEM_ROLES = ("system", "developer")


class ChatInspector(Viewer):
    """A conversation as the trainer sees it, token by token, with everything changeable.

    Assigning to `messages`, `mask`, `response_template`, `template`, `compare`, `system` or
    `generation_prompt` redraws; the controls in the browser set the same attributes.

    Attributes:
        messages: The conversation in the standard format. Assign a new list; a change made
            inside the list goes unnoticed.
        mask: ``"assistant"``, ``"last_assistant"``, ``"completion"`` or ``"full"``.
        response_template: What opens the answer, for ``mask="completion"``; empty for the
            template's own role header.
        template: ``"own"`` for the tokenizer's chat template, or a name of
            `ftkit.chat.templates.names()`.
        compare: A second template drawn beside the first; empty for none.
        system: Whether system messages are rendered.
        generation_prompt: Whether the open assistant header is appended.
        html: What is drawn now.
    """

    _esm = _HERE / "chat_inspector.js"
    _css = rules("strip") + (_HERE / "chat_inspector.css").read_text(encoding="utf-8")

    messages = t.List().tag(sync=True, echo_update=False)
    mask = t.Enum(tuple(_MASKS), "assistant").tag(sync=True)
    response_template = t.Unicode("").tag(sync=True)
    template = t.Unicode(_OWN).tag(sync=True)
    compare = t.Unicode("").tag(sync=True)
    system = t.Bool(True).tag(sync=True)
    generation_prompt = t.Bool(False).tag(sync=True)

    _choices = t.Dict().tag(sync=True)
    _edit = t.Int(0).tag(sync=True)
    _view = t.Dict().tag(sync=True)

    def __init__(
        self,
        tokenizer: Any,
        messages: Sequence[dict[str, Any]],
        model: Any = None,
        *,
        mask: str = "assistant",
        response_template: str = "",
        template: str = _OWN,
        compare: str = "",
        tools: Sequence[Any] | None = None,
        max_length: int | None = None,
    ) -> None:
        """Open the inspector.

        Args:
            tokenizer: A transformers tokenizer.
            messages: The conversation to start with; copied.
            model: A causal language model, to show losses; None for none.
            mask: Mask strategy to start with.
            response_template: See the class.
            template: Template to start with.
            compare: Second template to start with.
            tools: Tool schemas handed to the template.
            max_length: Where the trainer would truncate, in tokens; None for nowhere.
        """
        self._tokenizer, self._model = tokenizer, model
        self._tools, self._max_length = tools, max_length
        self._results: list[AnnotatedTokens | Finding] = []
        self._scored = False
        self._drawn_for: object = None
        super().__init__(
            messages=deepcopy(list(messages)),
            mask=mask,
            response_template=response_template,
            template=template,
            compare=compare,
            _choices={"masks": _MASKS, "templates": list(chats.templates.names())},
        )
        self._refresh()
        self.observe(self._refresh, names=[*_INPUTS, "_edit"])
        self.on_msg(self._on_request)

    @property
    def chat(self) -> AnnotatedTokens:
        """The annotated conversation, with logprobs when a model was given.

        Raises:
            ChatError: the conversation or the template cannot be rendered.
        """
        self._score()
        first = self._results[0]
        return first if isinstance(first, AnnotatedTokens) else self._annotate(self.template)

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a token: the text twin of the strip."""
        return self.chat.to_pandas()

    def to_html(self) -> str:
        """Return the present picture as self-contained HTML without script."""
        self._score()
        aside = f"<span>mask <b>{escape(self.mask)}</b></span>"
        aside += f"<span>template <b>{escape(self.template)}</b></span>"
        return css("strip") + card("Chat inspector", self._body(), aside=aside)

    def __str__(self) -> str:
        return "\n".join(map(str, self._results))

    def refresh(self) -> None:
        """Draw, since a static reading may have computed losses that the browser lacks."""
        self._draw()

    # --- from inputs to the picture ------------------------------------------------------------

    def _refresh(self, _change: Any = None) -> None:
        """Annotate again when an input changed, and draw, whatever happens."""
        now = repr([getattr(self, name) for name in (*_INPUTS, "_edit")])
        if now == self._drawn_for:
            return
        self._drawn_for, self._scored = now, False
        self._results = [self._try(name) for name in self._templates()]
        self._draw()

    def _templates(self) -> list[str]:
        return [self.template, self.compare] if self.compare else [self.template]

    def _try(self, template: str) -> AnnotatedTokens | Finding:
        try:
            return self._annotate(template)
        except Exception as error:  # the user edits templates and text: show, never crash
            return _failure("cannot-render", error, f"template {template}")

    def _annotate(self, template: str) -> AnnotatedTokens:
        messages = self.messages
        if not self.system:
            messages = [m for m in messages if not _is_system(m)]
        return chats.annotate(
            self._tokenizer,
            messages,
            mask=self.mask,
            response_template=self.response_template or None,
            chat_template=None if template == _OWN else chats.templates.get(template),
            tools=self._tools,
            add_generation_prompt=self.generation_prompt,
            max_length=self._max_length,
        )

    def _score(self) -> None:
        """Add logprobs to every result, once, when a model was given."""
        if self._model is None or self._scored:
            return
        self._scored = True
        scored: list[AnnotatedTokens | Finding] = []
        for result in self._results:
            if isinstance(result, Finding):
                scored.append(result)
                continue
            try:
                scored.append(chats.score(self._model, result))
            except Exception as error:  # e.g. a longer text than the model takes
                scored += [result, _failure("cannot-score", error, "model")]
        self._results = scored

    def _on_request(self, _widget: Any, content: Any, _buffers: Any) -> None:
        """The browser asks for losses, after a pause in typing."""
        if content == {"score": self._edit}:
            self._score()
            self._draw()

    def _draw(self) -> None:
        drawn = [r for r in self._results if isinstance(r, AnnotatedTokens)]
        counts = [f"{len(c.trained)} of {len(c.kept)} tokens trained" for c in drawn]
        self._view = {
            "edit": self._edit,
            "html": self._body(),
            "said": "; ".join(counts) or "cannot render",
            "unscored": self._model is not None and not self._scored and bool(drawn),
        }

    def _body(self) -> str:
        failed = [r for r in self._results if isinstance(r, Finding)]
        drawn = [r for r in self._results if isinstance(r, AnnotatedTokens)]
        errors = "".join(chip(f, opened=True) for f in failed)
        errors = f'<div class="ft-stat">{errors}</div>' if errors else ""
        titles = [f"template: {c.template}" for c in drawn] if self.compare else []
        strips = view(drawn, titles=titles, beside=True) if drawn else ""
        say = _say(drawn)
        return errors + strips + (f'<p class="ft-say">{escape(say)}</p>' if say else "")


_INPUTS = (
    "messages",
    "mask",
    "response_template",
    "template",
    "compare",
    "system",
    "generation_prompt",
)


def _is_system(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") in _SYSTEM_ROLES


def _failure(code: str, error: Exception, where: str) -> Finding:
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return Finding(code, "error", f"{kind}{error}", where=where)


def _say(drawn: Iterable[AnnotatedTokens]) -> str:
    match list(drawn):
        case [one]:
            return meaning(one)
        case [one, two]:
            return (
                f"The same conversation takes {len(one.tokens)} tokens as {one.template} and "
                f"{len(two.tokens)} as {two.template}; {len(one.trained)} and "
                f"{len(two.trained)} of them carry loss."
            )
        case _:
            return ""
