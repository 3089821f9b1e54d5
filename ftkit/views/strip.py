"""The token strip: a conversation as its tokens read, each with role, label and reason.

One implementation draws the static page, the batch and the live inspector. It needs no script:
a token's `aria-label` is its full description, and CSS shows it in the detail line on hover or
focus. Token order always runs from left to right, also in right-to-left scripts; each token is
isolated, so that neighbours cannot reorder it. Left out: anything that computes labels or losses.
"""

from collections.abc import Iterable, Sequence
from html import escape
from math import exp

from ftkit.chat.annotated import AnnotatedBatch, AnnotatedTokens, Token
from ftkit.views._registry import to_html
from ftkit.views.findings import chips
from ftkit.views.style import card, css, stat
from ftkit.views.text import token_text, visible

LOSS_CAP = 6.0
"""Loss in nats at which the bar of a token is full (p = 0.25 %)."""

_ROLE_CLASS = {
    "system": "sy",
    "developer": "sy",
    "user": "us",
    "assistant": "as",
    "tool": "to",
    "function": "to",
}
_HEADER_PARTS = ("header", "generation_prompt")
_TAB_STOPS = 300  # beyond it, one Tab stop a token would trap keyboard readers
_HINT = "Point at a token, or focus it, to see its id, span, label and the reason for it."
_SAY = {
    "full": "Every token carries loss: the model also learns to write the questions it is asked.",
    "completion": "Only what follows the response template carries loss.",
    "assistant": "Only what the model must say itself carries loss: its answers and their stop "
    "tokens. Role headers are given to it when it answers.",
    "last_assistant": "Only the last answer and its stop token carry loss; earlier answers are "
    "context.",
    "trainer": "These are the labels of the trainer itself, as it feeds them to the model.",
}


@to_html.register
def chat_card(chat: AnnotatedTokens) -> str:
    """Return a self-contained card of one conversation."""
    aside = f"<span>mask <b>{escape(chat.mask)}</b></span>"
    aside += f"<span>template <b>{escape(chat.template)}</b></span>"
    return css("strip") + card("Chat tokens", view([chat]), aside=aside, say=meaning(chat))


@to_html.register
def batch_card(batch: AnnotatedBatch) -> str:
    """Return a self-contained card of a batch: one strip a row."""
    names = [f"row {i}" for i in range(len(batch.rows))]
    found = f'<div class="ft-stat">{chips(batch.findings)}</div>' if batch.findings else ""
    trained = sum(len(row.trained) for row in batch.rows)
    real = sum(t.part != "pad" for row in batch.rows for t in row.kept)
    aside = f"<span>{trained}/{real} tokens trained in {len(batch.rows)} rows</span>"
    body = found + view(batch.rows, titles=names)
    return css("strip") + card("Batch", body, aside=aside, say=_SAY["trainer"])


def meaning(chat: AnnotatedTokens) -> str:
    """Return one plain sentence that says what the labels of `chat` amount to."""
    if not chat.trained:
        return "No token carries loss: a trainer would learn nothing from this conversation."
    return _SAY[chat.mask]


def view(
    chats: Sequence[AnnotatedTokens], *, titles: Sequence[str] = (), beside: bool = False
) -> str:
    """Return the panels of `chats`, then one legend for all; no styles, no card.

    Args:
        chats: One panel each.
        titles: A heading for each panel, plain text; none when empty.
        beside: Put panels side by side where the page is wide enough for two.
    """
    heads = titles or [""] * len(chats)
    panels = "".join(panel(c, title=t) for c, t in zip(chats, heads, strict=True))
    pair = " pair" if beside and len(chats) > 1 else ""
    return f'<div class="ft-view{pair}"><div class="ft-panels">{panels}</div>{legend(chats)}</div>'


def panel(chat: AnnotatedTokens, *, title: str = "") -> str:
    """Return counts, losses, findings and the strip of one conversation."""
    head = f"<h3>{escape(title)}</h3>" if title else ""
    numbers = "".join(stat(value, label) for value, label in _numbers(chat))
    facts = f'<div class="ft-stat">{numbers}{chips(chat.findings)}</div>'
    return f'<div class="ft-panel">{head}{facts}{strip(chat)}</div>'


def strip(chat: AnnotatedTokens) -> str:
    """Return the tokens and their detail line.

    The text of all ``.t`` elements, concatenated, is ``chat.text``.
    """
    stop = 0 if len(chat.tokens) <= _TAB_STOPS else -1
    label = f"{len(chat.tokens)} tokens, template {chat.template}"
    cuts = _cut_lines(chat)
    blocks = "".join(_block(block, cuts, stop) for block in _blocks(chat.tokens))
    return (
        f'<div class="ft-box"><div class="ft-strip" role="group" aria-label="{escape(label)}">'
        f'{blocks}</div><div class="ft-detail">{_HINT}</div></div>'
    )


def describe(token: Token, *, shared: str = "") -> str:
    """Return everything known of a token in one line.

    Args:
        token: The token.
        shared: The character that this token is a piece of, when another token owns its text.
    """
    text = visible(token.text) or (f"part of {visible(shared)}" if shared else "no text")
    parts = [f"#{token.index} “{text}”", f"id {token.id}", f"span {token.span[0]}–{token.span[1]}"]
    if token.piece:
        parts.append("piece {} of {} of one character".format(*token.piece))
    place = [token.role] if token.role else []
    place += [f"turn {token.turn}"] if token.turn is not None else []
    parts.append(", ".join([*place, token.part.replace("_", " ")]))
    parts.append(_verdict(token))
    if token.loss is not None:
        p = 100 * exp(-token.loss)
        logprob = f"{-token.loss:.2f}".replace("-", "−")
        parts.append(f"logprob {logprob} · loss {token.loss:.2f} nats · p = {p:.3g} %")
    return " · ".join(parts)


def _verdict(token: Token) -> str:
    state = "cut" if token.cut else "trained" if token.trained else "masked"
    return f"{state} (label {token.label}): {token.reason}".replace("-100", "−100")


def _numbers(chat: AnnotatedTokens) -> list[tuple[str, str]]:
    pads = sum(t.part == "pad" for t in chat.kept)
    total, trained = len(chat.kept) - pads, len(chat.trained)
    share = f" ({trained / total:.0%})".replace("%", " %") if total else ""
    rows = [(str(trained), f"/ {total} tokens trained{share}")]
    cut = len(chat.tokens) - len(chat.kept)
    rows += [(str(cut), "cut")] if cut else []
    rows += [(str(pads), "padding")] if pads else []
    losses = (("trained", chat.loss()), ("all", chat.loss(over="all")))
    return rows + [(f"{x:.2f}", f"loss on {name}") for name, x in losses if x is not None]


# --- tokens ----------------------------------------------------------------------------------


def _blocks(tokens: Sequence[Token]) -> list[list[Token]]:
    """Group tokens by turn; a short stretch outside all turns (BOS) joins the turn after it."""
    blocks: list[list[Token]] = []
    for token in tokens:
        if not blocks or _group(token) != _group(blocks[-1][-1]):
            blocks.append([])
        blocks[-1].append(token)
    merged: list[list[Token]] = []
    for block in blocks:
        if merged and _is_short_template(merged[-1]) and block[0].part != "pad":
            merged[-1].extend(block)
        else:
            merged.append(block)
    return merged


def _group(token: Token) -> tuple[int | None, bool, bool]:
    return (token.turn, token.part == "generation_prompt", token.part == "pad")


def _is_short_template(block: list[Token]) -> bool:
    return len(block) <= 2 and all(t.turn is None and t.part == "template" for t in block)


def _block(block: list[Token], cuts: dict[int, str], stop: int) -> str:
    role = _ROLE_CLASS.get(block[-1].role or "", "no")
    html, shared = [], ""
    for token in block:
        html.append(cuts.get(token.index, ""))
        if token.piece is None or token.piece[0] == 1:
            shared = token.text
        html.append(_token(token, role, shared if token.piece else "", stop))
    name = escape(_block_name(block))
    tokens = "".join(html)
    return f'<div class="b {role}" role="list" aria-label="{name}" data-n="{name}">{tokens}</div>'


def _block_name(block: list[Token]) -> str:
    last = block[-1]
    if last.part == "pad":
        return f"padding · {len(block)}"
    if last.part == "generation_prompt":
        return "generation prompt"
    if last.turn is None:
        return "template"
    mine = [t for t in block if t.turn == last.turn]
    trained = sum(t.trained and not t.cut for t in mine)
    return f"turn {last.turn} · {last.role} · {trained}/{len(mine)} trained"


def _cut_lines(chat: AnnotatedTokens) -> dict[int, str]:
    """Return the line to draw in front of each token at which truncation begins or ends."""
    lines, cut = {}, False
    for token in chat.tokens:
        if token.cut != cut:
            cut = token.cut
            where = "cut here" if cut else "cut up to here"
            text = f"✂ {where}: max_length={chat.max_length} · the trainer never sees struck tokens"
            lines[token.index] = (
                f'<i class="cl" role="separator" aria-label="{text}" data-c="{text}"></i>'
            )
    return lines


def _token(token: Token, block_role: str, shared: str, stop: int) -> str:
    text, names = token_text(token.text)
    role = _ROLE_CLASS.get(token.role or "", "no")
    marks = [
        "t",
        role if role != block_role else "",
        "on" if token.trained and not token.cut else "",
        "k" if token.special else "",
        "h" if token.part in _HEADER_PARTS and not token.special else "",
        "pd" if token.part == "pad" else "",
        "ct" if token.cut else "",
        "e" if not token.text else "",
        names,
    ]
    loss = token.loss
    bar = f' style="--l:{min(loss / LOSS_CAP, 1):.2f}"' if loss is not None else ""
    piece = ' data-p="{}⁄{}"'.format(*token.piece) if token.piece else ""
    return (
        f'<span class="{" ".join(filter(None, marks))}" role="listitem" tabindex="{stop}"{bar}'
        f'{piece} aria-label="{escape(describe(token, shared=shared))}">{text}</span>'
    )


# --- legend ----------------------------------------------------------------------------------


def legend(chats: Iterable[AnnotatedTokens]) -> str:
    """Return the legend of what occurs in `chats`, with the switches that need no script."""
    tokens = [t for chat in chats for t in chat.tokens]
    roles = [r for r in ("system", "user", "assistant", "tool") if any(t.role == r for t in tokens)]
    items = [f'<span class="t {_ROLE_CLASS[r]}">{r}</span>' for r in roles]
    items.append('<span class="t as on">trained</span><span class="t as">masked</span>')
    extras = {
        '<span class="t no k">special</span>': any(t.special for t in tokens),
        '<span class="t no h">role header</span>': any(t.part == "header" for t in tokens),
        '<span class="t no" data-p="1⁄3">字</span> a character in pieces': any(
            t.piece for t in tokens
        ),
        '<span class="t no ct">cut</span>': any(t.cut for t in tokens),
        '<span class="t no pd e"></span> padding': any(t.part == "pad" for t in tokens),
    }
    items += [f"<span>{html}</span>" for html, present in extras.items() if present]
    scored = any(t.logprob is not None for t in tokens)
    return f'<div class="ft-legend">{"".join(items)}{_switches(scored=scored)}</div>'


def _switches(*, scored: bool) -> str:
    space = (
        '<label><input type="checkbox" class="ft-ws"> show spaces <span>·</span> and newlines '
        "<span>⏎</span></label>"
    )
    if not scored:
        return f'<span class="ft-switches">{space}</span>'
    steps = "".join(
        f'<span class="t no" style="--l:{nats / LOSS_CAP:.2f}">{nats}</span>'
        for nats in (0, 1, 2, 4)
    )
    scale = f'<span class="ft-scale">{steps}<span class="t no" style="--l:1">≥6</span> nats</span>'
    colour = '<label><input type="checkbox" class="ft-loss"> colour by loss</label>'
    return f'<span class="ft-switches">{scale}{colour}{space}</span>'
