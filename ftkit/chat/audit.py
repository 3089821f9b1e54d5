"""`audit`: what a tokenizer's chat template trains, held against what the model must produce."""

from dataclasses import dataclass
from os.path import commonprefix
from typing import Any

from ftkit.chat import templates
from ftkit.chat.annotate import annotate
from ftkit.chat.annotated import AnnotatedTokens
from ftkit.chat.render import Messages, Renderer
from ftkit.chat.turns import Turn, find_turns
from ftkit.findings import Finding
from ftkit.showing import Showable

SAMPLE: Messages = (
    {"role": "user", "content": "Which colour is the sky?"},
    {"role": "assistant", "content": "Blue."},
    {"role": "user", "content": "And at night?"},
    {"role": "assistant", "content": "Black, with stars."},
)


@dataclass(frozen=True, slots=True)
class MaskDifference:
    """How the markers of a template treat one answer, against the definition of an answer.

    Attributes:
        turn: Index of the message.
        kind: ``"also trains before"``, ``"also trains after"``, ``"leaves out"`` or
            ``"renders other text"``.
        text: The characters concerned.
        why: The reason, in a few words.
    """

    turn: int
    kind: str
    text: str
    why: str


@dataclass(frozen=True)
class TemplateAudit(Showable):
    """The status of one chat template on one tokenizer.

    Attributes:
        template: Name of the family in TRL, ``"own"`` when TRL does not know it.
        findings: Every check with its outcome, good ones included.
        marked_by: Whose `{% generation %}` markers were compared: ``"its own markers"``,
            ``"TRL's training twin"``, or None when there are none.
        differences: Where those markers and the definition of an answer part.
        chat: The sample conversation, annotated as ftkit would train it.
    """

    template: str
    findings: tuple[Finding, ...]
    marked_by: str | None
    differences: tuple[MaskDifference, ...]
    chat: AnnotatedTokens

    def __str__(self) -> str:
        lines = [f"template {self.template}"]
        lines += [str(f) for f in self.findings]
        if self.marked_by:
            lines.append(f"compared with {self.marked_by}: {len(self.differences)} differences")
        lines += [f"  turn {d.turn} {d.kind} {d.text!r}: {d.why}" for d in self.differences]
        return "\n".join(lines)


def audit(
    tokenizer: Any, *, chat_template: str | None = None, messages: Messages = SAMPLE
) -> TemplateAudit:
    """Check a chat template: markers, stop token, prefix stability, generation prompt, pad token.

    Args:
        tokenizer: A transformers tokenizer.
        chat_template: Jinja source, or None for the tokenizer's own.
        messages: The conversation to try; the default has two plain turns.

    Raises:
        ChatError: the template cannot render `messages`.
    """
    renderer = Renderer.of(tokenizer, chat_template)
    chat = annotate(tokenizer, messages, chat_template=renderer.template)
    family = templates.family_of(renderer.template)
    marked, marked_by = _marked(renderer, family)
    return TemplateAudit(
        template=family or "own",
        findings=(
            generation_markers(renderer),
            prefix_stability(renderer, messages),
            *chat.findings,
        ),
        marked_by=marked_by,
        differences=tuple(differences(renderer, marked, messages)) if marked else (),
        chat=chat,
    )


def _marked(renderer: Renderer, family: str | None) -> tuple[Renderer | None, str | None]:
    """The template whose markers a TRL trainer would use, and how to call them."""
    if renderer.has_generation_markers:
        return renderer, "its own markers"
    twin = templates.twin(family) if family else None
    return (renderer.with_template(twin), "TRL's training twin") if twin else (None, None)


def differences(
    plain: Renderer, marked: Renderer, messages: Messages = SAMPLE
) -> list[MaskDifference]:
    """Compare the answers that `marked` marks with the answers by definition under `plain`.

    Raises:
        ChatError: one of the templates cannot render `messages`.
    """
    text = plain.render(messages)
    by_markers = _marked_text(marked, messages)
    return [
        MaskDifference(turn.index, kind, piece, why)
        for turn in find_turns(plain, messages)
        if turn.role == "assistant" and turn.rendered
        for kind, piece, why in _compare(text, turn, by_markers.get(turn.index, ""))
        if piece
    ]


def _marked_text(marked: Renderer, messages: Messages) -> dict[int, str]:
    """What the markers enclose of each turn. A turn's header may be marked, so turns are whole."""
    text = marked.render(messages)
    spans = marked.generation_spans(messages)
    return {
        turn.index: "".join(
            text[max(a, turn.start) : min(b, turn.end)]
            for a, b in spans
            if a < turn.end and turn.start < b
        )
        for turn in find_turns(marked, messages)
    }


def _compare(text: str, turn: Turn, marked: str) -> list[tuple[str, str, str]]:
    defined = text[turn.answer : turn.stop_end]
    if not marked:
        return [("leaves out", defined, "the markers leave this whole answer out")]
    if marked in defined:
        before, _, after = defined.partition(marked)
        return [
            ("leaves out", before, "the model must produce it after the generation prompt"),
            ("leaves out", after, "the model must produce it to end its turn"),
        ]
    if defined in marked:
        before, _, after = marked.partition(defined)
        return [
            ("also trains before", before, _why_before(text[turn.start : turn.answer], before)),
            ("also trains after", after, _why_after(turn, after)),
        ]
    return [("renders other text", marked, f"the plain template renders {defined!r}")]


def _why_before(header: str, extra: str) -> str:
    if header.endswith(extra):
        return "part of the role header, which the generation prompt gives"
    return "the plain template renders no such text here"


def _why_after(turn: Turn, extra: str) -> str:
    if not turn.has_stop:
        return "taken as the stop token; the plain template closes the answer with none"
    if not extra.strip():
        return "blank that the template puts behind the stop token"
    return "stands behind the stop token"


def generation_markers(renderer: Renderer) -> Finding:
    """Whether a template marks its answers, or TRL knows a twin of it that does."""
    _, marked_by = _marked(renderer, templates.family_of(renderer.template))
    if renderer.has_generation_markers:
        return Finding("generation-markers", "ok", "the template marks its answers itself")
    if marked_by:
        return Finding(
            "generation-markers",
            "info",
            "the template has no {% generation %} markers; TRL swaps in its training twin for "
            "assistant_only_loss, ftkit derives the mask",
        )
    return Finding(
        "generation-markers",
        "warning",
        "the template has no {% generation %} markers and TRL knows no twin of it: TRL's "
        "assistant_only_loss refuses it, other trainers train nothing",
        "let ftkit derive the mask: ftkit.stages.sft(…, mask='assistant')",
    )


def prefix_stability(renderer: Renderer, messages: Messages) -> Finding:
    """Whether a conversation grows by appending: each shorter rendering opens the longer one."""
    text = renderer.render(messages)
    ends = [i + 1 for i, m in enumerate(messages[:-1]) if m["role"] == "assistant"]
    for end in ends:
        short = renderer.try_render(messages[:end])
        if short and not text.startswith(short):
            return _unstable(text, short, end)
    return Finding("prefix-stable", "ok", "each turn extends the rendering before it")


def _unstable(text: str, short: str, end: int) -> Finding:
    at = len(commonprefix([text, short]))
    part = slice(max(0, at - 20), at + 40)
    return Finding(
        "prefix-unstable",
        "warning",
        f"the rendering of the first {end} messages is not how the whole conversation "
        "begins: earlier turns change when a later one is added, so a multi-turn row trains "
        "another text than the model saw turn by turn",
        "train such conversations turn by turn (mask='last_assistant' on each prefix)",
        evidence=f"first {end} messages  …{short[part]!r}\nall messages      …{text[part]!r}",
    )
