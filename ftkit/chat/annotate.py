"""`annotate`: a conversation, its tokens, and for each token whether it trains and why."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ftkit.chat import checks, masks
from ftkit.chat.annotated import IGNORE_INDEX, AnnotatedTokens, MaskName, Part, Token
from ftkit.chat.render import Messages, Renderer, check_messages
from ftkit.chat.spans import Encoded, encode
from ftkit.chat.templates import family_of
from ftkit.chat.turns import Turn, common_length, find_turns
from ftkit.errors import ChatError


def annotate(
    tokenizer: Any,
    messages: Messages,
    *,
    mask: MaskName = "assistant",
    response_template: str | None = None,
    chat_template: str | None = None,
    tools: Sequence[Any] | None = None,
    add_generation_prompt: bool = False,
    max_length: int | None = None,
) -> AnnotatedTokens:
    """Render `messages` as the trainer would, and say of every token whether it carries loss.

    Args:
        tokenizer: A transformers tokenizer.
        messages: ``[{"role": "user", "content": "…"}, …]``.
        mask: ``"assistant"`` trains every answer with its stop token: by the template's own
            `{% generation %}` markers where it has them, else derived (see `ftkit.chat.turns`).
            ``"last_assistant"`` trains only the last answer, ``"completion"`` all that follows
            the last `response_template`, ``"full"`` every token.
        response_template: Text that opens the answer, for ``mask="completion"``; by default the
            role header of the last answer. It is looked up in the text, not in token ids.
        chat_template: Jinja source, or None for the tokenizer's own.
        tools: Tool schemas (or functions) handed to the template.
        add_generation_prompt: Append the open assistant header, as at inference.
        max_length: Truncate to this many tokens, as the trainer would (the start is kept).

    Returns:
        The annotated tokens; they show themselves in Jupyter.

    Raises:
        ChatError: a conversation or a template that cannot be rendered, naming the message.
    """
    if max_length is not None and max_length < 1:
        raise ChatError(f"max_length={max_length}: keep at least one token")
    renderer = Renderer.of(tokenizer, chat_template, tools)
    check_messages(messages, renderer.template)
    text = renderer.render(messages, generation_prompt=add_generation_prompt)
    turns = find_turns(renderer, messages)
    body = common_length(text, renderer.render(messages))
    chosen = [
        replace(region, end=min(region.end, body))
        for region in masks.regions(mask, renderer, messages, text[:body], turns, response_template)
    ]
    encoded = encode(tokenizer, text)
    tokens = _tokens(tokenizer, encoded, text, turns, body, chosen, max_length)
    chat = AnnotatedTokens(
        text=text,
        tokens=tokens,
        mask=mask,
        template=(family_of(chat_template) or "custom") if chat_template else "own",
        max_length=max_length,
    )
    return checks.checked(
        chat,
        tokenizer,
        messages,
        turns,
        response_template,
        lost=encoded.lost,
        unused=renderer.unused_fields(messages),
    )


def _tokens(
    tokenizer: Any,
    encoded: Encoded,
    text: str,
    turns: list[Turn],
    body: int,
    regions: list[masks.Region],
    max_length: int | None,
) -> tuple[Token, ...]:
    special = set(tokenizer.get_added_vocab().values()) | set(tokenizer.all_special_ids)
    locate = Locator(turns, body)
    tokens = []
    claimed = 0
    for i, (token_id, span, piece) in enumerate(
        zip(encoded.ids, encoded.spans, encoded.pieces, strict=True)
    ):
        # The later pieces of a character own no text; they share the fate of the first.
        claimed = span[0] if span[1] > span[0] else claimed
        reach = (claimed, max(span[1], claimed + 1))
        region = next((r for r in regions if r.overlaps(reach)), None)
        turn, part = locate(reach)
        role = turn.role if turn else None
        cut = max_length is not None and i >= max_length
        trained = region is not None and not cut
        tokens.append(
            Token(
                index=i,
                id=token_id,
                text=text[slice(*span)],
                span=span,
                role="assistant" if part == "generation_prompt" else role,
                turn=turn.index if turn else None,
                part=part,
                special=token_id in special,
                label=token_id if trained else IGNORE_INDEX,
                reason=f"cut off by max_length={max_length}"
                if cut
                else masks.reason(part, role, region),
                piece=piece,
                cut=cut,
            )
        )
    return tuple(tokens)


class Locator:
    """Says to which turn, and to which part of it, a stretch of text belongs."""

    def __init__(self, turns: list[Turn], body: int) -> None:
        self.turns = sorted((t for t in turns if t.rendered), key=lambda t: t.start)
        self.starts = [t.start for t in self.turns]
        self.body = body

    def __call__(self, span: tuple[int, int]) -> tuple[Turn | None, Part]:
        """Return the turn that `span` lies in (None for text of the template) and its part."""
        start = span[0]
        if start >= self.body:
            return None, "generation_prompt"
        k = bisect_right(self.starts, start) - 1
        if k < 0 or start >= self.turns[k].end:
            return None, "template"
        turn = self.turns[k]
        # A token may begin in the header and end in the answer: it then is part of the answer.
        if span[1] <= turn.answer:
            return turn, "header"
        if start < turn.content_end:
            return turn, "content"
        return turn, "stop" if start < turn.stop_end else "after"
