"""What can be seen wrong (or right) in one annotated conversation, as findings with evidence."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ftkit.chat.annotated import AnnotatedTokens, Token
from ftkit.chat.masks import completion_template
from ftkit.chat.render import Messages
from ftkit.chat.turns import Turn
from ftkit.findings import Finding


def checked(
    chat: AnnotatedTokens,
    tokenizer: Any,
    messages: Messages,
    turns: list[Turn],
    response_template: str | None,
    *,
    lost: str = "",
    unused: Sequence[tuple[int, str]] = (),
) -> AnnotatedTokens:
    """Return `chat` with everything that the checks noticed.

    Args:
        chat: Tokens with labels.
        tokenizer: The tokenizer that made them.
        messages: What was rendered.
        turns: Where each message lies.
        response_template: Of ``mask="completion"``, None for the default.
        lost: Characters that the tokenizer dropped.
        unused: ``(message, field)`` of what the template left out.
    """
    findings = [
        *_trained(chat),
        *_turns(messages, turns),
        *_unused(unused),
        *_stop(chat, turns, tokenizer),
        *_edges(chat, turns),
        *_truncation(chat),
        *_lost(lost),
        *special_tokens(tokenizer, chat.input_ids),
    ]
    if chat.mask == "completion":
        findings += _response_template(chat, tokenizer, turns, response_template)
    return replace(chat, findings=tuple(findings))


def special_tokens(tokenizer: Any, input_ids: Sequence[int] = ()) -> Iterator[Finding]:
    """Pad that equals EOS, and a beginning-of-sequence token that stands twice in `input_ids`."""
    eos, pad, bos = tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id
    if pad is not None and pad == eos:
        yield Finding(
            "pad-is-eos",
            "warning",
            f"pad token = eos token ({tokenizer.eos_token!r}, id {eos}): a collator that masks by "
            "token id hides the stop token, and the model never learns to stop",
            "give the tokenizer a distinct pad token, e.g. ftkit.load(...) does",
        )
    if bos is not None and bos != eos and input_ids[:2] == [bos, bos]:
        yield Finding(
            "double-bos",
            "warning",
            f"two BOS tokens ({tokenizer.bos_token!r}) at positions 0 and 1: the template writes "
            "one and the tokenizer adds another",
            "tokenize rendered text with add_special_tokens=False",
        )


def _trained(chat: AnnotatedTokens) -> Iterator[Finding]:
    if not chat.trained:
        yield Finding(
            "nothing-trained",
            "error",
            f"0 of {len(chat.kept)} tokens carry loss with mask={chat.mask!r}: the trainer would "
            "drop this row silently, or report loss 0",
            "check that the conversation has an answer and that max_length leaves room for it",
        )


def _is_empty(content: Any) -> bool:
    """No text to render: nothing, blanks, or parts without text (an image alone)."""
    if isinstance(content, list):
        return not any(isinstance(p, dict) and p.get("text") for p in content)
    return not str(content or "").strip()


def _unused(unused: Sequence[tuple[int, str]]) -> Iterator[Finding]:
    for index, name in unused:
        yield Finding(
            "field-not-rendered",
            "warning",
            f"the template leaves out {name!r}: the model never sees it, nor learns to write it",
            "use a template that renders it, or drop it from the data",
            f"message {index}",
        )


def _lost(lost: str) -> Iterator[Finding]:
    if lost:
        yield Finding(
            "text-lost",
            "warning",
            f"the tokenizer has no token for {sorted(set(lost))} and drops them: the model never "
            "sees these characters",
            "clean them out of the data, or replace them by what they stand for",
        )


def _turns(messages: Messages, turns: list[Turn]) -> Iterator[Finding]:
    contents = [message.get("content") for message in messages]
    empty = [_is_empty(content) for content in contents]
    answers = [t.index for t in turns if t.role == "assistant"]
    hollow = [i for i in answers if empty[i] and not messages[i].get("tool_calls")]
    if hollow:
        yield Finding(
            "empty-answer",
            "warning",
            "the answer is empty: the model learns to stop at once",
            "drop the row, or give the answer",
            _places(hollow),
        )
    missing = [t.index for t in turns if not t.rendered and not empty[t.index]]
    if missing:
        yield Finding(
            "content-not-rendered",
            "error",
            "the template leaves this content out",
            "use a template that knows the role; one for images expects content as a list of "
            "parts, [{'type': 'text', 'text': …}]",
            _places(missing),
        )
    outside = [t.index for t in turns if not t.content_inside and not empty[t.index]]
    if outside:
        yield Finding(
            "content-outside-turn",
            "warning",
            "beside a tool call the template leaves this content out, or writes it behind the "
            "call's result, where it carries no loss",
            "put the text into a message of its own, or leave it out beside tool calls",
            _places(outside),
        )
    unprompted = [t.index for t in turns if not t.has_prompt]
    if unprompted:
        yield Finding(
            "no-generation-prompt",
            "warning",
            "the template writes a header before this answer but ignores add_generation_prompt: "
            "at inference the model would have to write the header itself, so it is trained",
            "add an {% if add_generation_prompt %} branch that writes the header",
            _places(unprompted),
        )
    other = [t.index for t in turns if not t.whole_prompt]
    if other:
        yield Finding(
            "prompt-mismatch",
            "warning",
            "what stands before this answer is not the generation prompt, so the model is trained "
            "on another beginning than it gets at inference",
            "render training and inference with the same template options (e.g. thinking off)",
            _places(other),
        )


def _stop(chat: AnnotatedTokens, turns: list[Turn], tokenizer: Any) -> Iterator[Finding]:
    answers = [t for t in turns if t.role == "assistant" and t.rendered]
    if not answers:
        return
    without = [t.index for t in answers if not t.has_stop]
    if without:
        yield Finding(
            "no-stop-token",
            "error",
            "the template closes the answer with no token that the model could learn to emit",
            "use a template that ends each answer with an end-of-turn token",
            _places(without),
        )
    written = {t.index: chat.text[t.content_end : t.stop_end] for t in answers}
    yield from trained_stops(chat, tokenizer, written)


def trained_stops(
    chat: AnnotatedTokens, tokenizer: Any, written: Mapping[int, str] | None = None
) -> Iterator[Finding]:
    """Whether the trained answers' end-of-turn tokens, as far as they are kept, carry loss.

    Args:
        chat: Tokens with labels.
        tokenizer: The tokenizer that made them.
        written: Stop text of each turn; None takes the text of the stop tokens, which lacks what
            shares a token with the content.
    """
    trained_turns = {t.turn for t in chat.trained if t.role == "assistant"}
    stops: dict[int, list[Token]] = {}
    for token in chat.tokens:
        if token.part == "stop" and token.role == "assistant" and token.turn in trained_turns:
            stops.setdefault(token.turn or 0, []).append(token)
    whole = {i: s for i, s in stops.items() if not any(t.cut for t in s)}
    text = written or {i: "".join(t.text for t in stop) for i, stop in whole.items()}
    untrained = [i for i, stop in whole.items() if not all(t.trained for t in stop)]
    if untrained:
        yield Finding(
            "stop-token-untrained",
            "error",
            f"the end-of-turn token {text[untrained[0]]!r} carries no loss: the model may "
            "never learn to stop, while the loss curve looks healthy",
            "let the mask (or the template's {% generation %}) include the end-of-turn token",
            _places(untrained),
        )
    elif whole:
        index, stop = next(iter(whole.items()))
        yield from _kind_of_stop(text[index], stop[-1], tokenizer)


def _kind_of_stop(text: str, stop: Token, tokenizer: Any) -> Iterator[Finding]:
    """Whether generation would end at a stop text that is trained, whose last token is `stop`."""
    if not stop.special:
        yield Finding(
            "stop-not-special",
            "warning",
            f"the template ends answers with {text!r}, which this tokenizer spells in ordinary "
            "tokens: generation will not end there",
            "use the template that belongs to this tokenizer, or add the token and train it",
        )
        return
    yield Finding("stop-token-trained", "ok", f"the stop token {text!r} is trained")
    if stop.id != tokenizer.eos_token_id:
        yield Finding(
            "stop-not-eos",
            "info",
            f"answers end with {text!r}, but the tokenizer's eos token is "
            f"{tokenizer.eos_token!r}: generation ends there only if the model's "
            "generation_config lists it, too",
        )


def _text(tokens: Sequence[Token]) -> str:
    return "".join(t.text for t in tokens)


def _edges(chat: AnnotatedTokens, turns: list[Turn]) -> Iterator[Finding]:
    """Header and trailing tokens that carry loss, and tokens that straddle the header's end."""
    if chat.mask == "full":
        return
    for part, severity, what in (
        ("header", "warning", "the role header"),
        ("after", "info", "what follows the stop token"),
    ):
        hit = [t for t in chat.trained if t.part == part and t.role == "assistant"]
        if hit:
            yield Finding(
                f"{part}-trained",
                severity,  # type: ignore[arg-type]
                f"{what} ({''.join(t.text for t in hit[:4])!r}) carries loss, although the model "
                "never produces it at inference",
                "harmless in most runs; mask='assistant' without markers leaves it out",
                _places(sorted({t.turn for t in hit if t.turn is not None})),
            )
    edges = {t.answer for t in turns if t.role == "assistant" and t.rendered}
    astride = [t for t in chat.trained if any(t.span[0] < e < t.span[1] for e in edges)]
    if astride:
        yield Finding(
            "token-across-header",
            "warning",
            f"token {astride[0].text!r} (#{astride[0].index}) begins in the role header and ends "
            "in the answer: at inference the prompt is tokenized alone, and differently",
            "usually harmless; if the answer itself begins with blanks or newlines, strip them",
        )


def _truncation(chat: AnnotatedTokens) -> Iterator[Finding]:
    cut = [t for t in chat.tokens if t.cut]
    if not cut:
        return
    answers = {t.turn for t in cut if t.role == "assistant" and t.part in ("content", "stop")}
    reached = {t.turn for t in chat.kept if t.part == "content" and t.role == "assistant"}
    gone = sorted(i for i in answers - reached if i is not None)
    clipped = sorted(i for i in answers & reached if i is not None)
    size = f"{len(cut)} of {len(chat.tokens)} tokens lie behind max_length={chat.max_length}"
    if gone:
        yield Finding(
            "answer-gone",
            "error",
            f"{size}: the whole answer is cut away",
            f"raise max_length to at least {len(chat.tokens)}, or shorten the prompt",
            _places(gone),
        )
    if clipped:
        yield Finding(
            "answer-cut",
            "warning",
            f"{size}: the answer is cut before its stop token, so the model learns not to end",
            f"raise max_length to at least {len(chat.tokens)}, or drop such rows",
            _places(clipped),
        )


def _response_template(
    chat: AnnotatedTokens, tokenizer: Any, turns: list[Turn], response_template: str | None
) -> Iterator[Finding]:
    text = _text([t for t in chat.tokens if t.part != "generation_prompt"])
    template = response_template or completion_template(text, turns)
    times = text.count(template)
    if times > 1:
        yield Finding(
            "only-last-turn-trained",
            "warning",
            f"the response template occurs {times} times and only what follows the last one "
            "carries loss",
            "use mask='assistant' to train every answer",
        )
    at = text.rfind(template)
    alone = list(tokenizer(template, add_special_tokens=False)["input_ids"])
    inside = [t.id for t in chat.tokens if _overlaps(t, at, at + len(template))]
    if alone != inside:
        yield Finding(
            "response-template-context",
            "info",
            f"the response template tokenizes as {alone} alone but as {inside} in this text: a "
            "collator that searches token ids would not find it. ftkit searches the text",
            evidence=f"alone        {named(tokenizer, alone)}\n"
            f"in the text  {named(tokenizer, inside)}",
        )


def named(tokenizer: Any, ids: Sequence[int]) -> str:
    """Return token ids as their texts, quoted; what is no token, such as −100, as a number."""
    shown = [repr(tokenizer.decode([i])) if i >= 0 else str(i).replace("-", "−") for i in ids]
    return " ".join(shown)


def _overlaps(token: Token, start: int, end: int) -> bool:
    return token.span[0] < end and token.span[1] > start


def _places(indices: list[int]) -> str:
    return ("message " if len(indices) == 1 else "messages ") + ", ".join(map(str, indices))
