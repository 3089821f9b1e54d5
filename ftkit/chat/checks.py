"""What can be seen wrong (or right) in one annotated conversation, as findings with evidence."""

from collections.abc import Iterator
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
) -> AnnotatedTokens:
    """Return `chat` with everything that the checks noticed."""
    findings = [
        *_trained(chat),
        *_turns(messages, turns),
        *_stop(chat, turns),
        *_edges(chat, turns),
        *_truncation(chat),
        *_lost(lost),
        *special_tokens(tokenizer, chat.input_ids),
    ]
    if chat.mask == "completion":
        findings += _response_template(chat, tokenizer, turns, response_template)
    return replace(chat, findings=tuple(findings))


def special_tokens(tokenizer: Any, input_ids: list[int]) -> Iterator[Finding]:
    """Pad that equals EOS, and a beginning-of-sequence token that stands twice."""
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
    empty = [isinstance(c, str) and not c.strip() for c in contents]
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


def _stop(chat: AnnotatedTokens, turns: list[Turn]) -> Iterator[Finding]:
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
    trained_turns = {t.turn for t in chat.trained if t.role == "assistant"}
    stops = {t.turn: t for t in chat.kept if t.part == "stop" and t.role == "assistant"}
    untrained = [
        i for i, t in stops.items() if i is not None and i in trained_turns and not t.trained
    ]
    if untrained:
        yield Finding(
            "stop-token-untrained",
            "error",
            f"the end-of-turn token {stops[untrained[0]].text!r} carries no loss: the model may "
            "never learn to stop, while the loss curve looks healthy",
            "let the mask (or the template's {% generation %}) include the end-of-turn token",
            _places(untrained),
        )
    if any(t.trained for t in stops.values()) and not untrained:
        stop = next(t for t in stops.values() if t.trained)
        yield Finding("stop-token-trained", "ok", f"the stop token {stop.text!r} is trained")


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
    template = response_template or completion_template(chat.text, turns)
    times = chat.text.count(template)
    if times > 1:
        yield Finding(
            "only-last-turn-trained",
            "warning",
            f"the response template occurs {times} times and only what follows the last one "
            "carries loss",
            "use mask='assistant' to train every answer",
        )
    at = chat.text.rfind(template)
    alone = list(tokenizer(template, add_special_tokens=False)["input_ids"])
    inside = [t.id for t in chat.tokens if _overlaps(t, at, at + len(template))]
    if alone != inside:
        yield Finding(
            "response-template-context",
            "info",
            f"the response template tokenizes as {alone} alone but as {inside} in this text: a "
            "collator that searches token ids would not find it. ftkit searches the text",
        )


def _overlaps(token: Token, start: int, end: int) -> bool:
    return token.span[0] < end and token.span[1] > start


def _places(indices: list[int]) -> str:
    return ("message " if len(indices) == 1 else "messages ") + ", ".join(map(str, indices))
