"""Data without a trainer: every row rendered, tokenized and masked as `ftkit.stages.sft` would."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile
from typing import Any

from ftkit.chat import markers
from ftkit.chat.annotate import annotate
from ftkit.chat.annotated import IGNORE_INDEX, AnnotatedTokens
from ftkit.chat.audit import SAMPLE, audit, generation_markers, prefix_stability
from ftkit.chat.checks import special_tokens
from ftkit.chat.labels import Labelled, label_findings
from ftkit.chat.prepare import conversation, tools
from ftkit.chat.render import Messages, Renderer
from ftkit.diagnosis.case import Case
from ftkit.diagnosis.gathering import gather
from ftkit.diagnosis.rows import Row, shown
from ftkit.errors import ChatError
from ftkit.findings import Finding

Told = Iterator[tuple[int, Finding]]
_STABILITY_ROWS = 200


def examine_tokenizer(case: Case) -> Iterator[Finding]:
    """The tokenizer and its template alone."""
    yield from special_tokens(case.tokenizer)
    if not (case.chat_template or getattr(case.tokenizer, "chat_template", None)):
        yield Finding(
            "no-template",
            "info",
            "the tokenizer has no chat template, as usual for a base model: it cannot render "
            "conversations",
            "train on text, or give chat_template=, e.g. ftkit.chat.templates.get('qwen2_5')",
        )
        return
    renderer = Renderer.of(case.tokenizer, case.chat_template)
    if case.kind == "chats":  # its rows say all else
        yield generation_markers(renderer)
        return
    yield from audit(
        case.tokenizer, chat_template=case.chat_template, messages=_sample(renderer)
    ).findings


def _sample(renderer: Renderer) -> Messages:
    """The sample conversation, in parts where the template leaves plain strings out."""
    parts = markers.in_parts(SAMPLE)
    plain = renderer.try_render(SAMPLE) or ""
    return SAMPLE if SAMPLE[1]["content"] in plain or not renderer.try_render(parts) else parts


def examine_chats(case: Case) -> list[Finding]:
    """Conversations: each row annotated, what was seen joined over the rows."""
    rows = shown(case.rows.items, "reading rows", progress=case.progress)
    told = gather((pair for i, row in rows for pair in _chat(case, i, row)), len(case.rows.items))
    return [*(_for_all(case, finding) for finding in told), *stability(case)]


def _for_all(case: Case, finding: Finding) -> Finding:
    """Replace advice for one row by advice for all."""
    if finding.code not in ("answer-cut", "answer-gone"):
        return finding
    longest = max(length for length, _ in case.lengths)
    return replace(
        finding, fix=f"raise max_length (the longest row has {longest:,} tokens), or drop such rows"
    )


def _chat(case: Case, index: int, row: Row) -> Told:
    messages = conversation(row)
    if messages is None:
        yield index, _unreadable(f"no conversation in the columns {sorted(row)}")
        return
    try:
        chat = annotate(
            case.tokenizer,
            messages,
            mask=case.mask,
            response_template=case.response_template,
            chat_template=case.chat_template,
            tools=tools(row),
            max_length=case.max_length,
        )
    except ChatError as error:
        yield index, _unreadable(str(error))
        return
    case.lengths.append((len(chat.tokens), _fate(chat)))
    gone = any(f.code == "answer-gone" for f in chat.findings)  # which says it better
    for finding in chat.findings:
        if not (gone and finding.code == "nothing-trained"):
            yield index, finding


def _fate(chat: AnnotatedTokens) -> str:
    codes = {f.code for f in chat.findings}
    if not chat.trained and len(chat.kept) < len(chat.tokens):
        return "gone"
    return "cut" if codes & {"answer-cut", "answer-gone"} else "whole"


def _unreadable(reason: str) -> Finding:
    return Finding(
        "row-unreadable",
        "error",
        f"the row cannot be rendered: {reason}",
        "repair the row or leave it out: training would end here",
    )


def stability(case: Case) -> list[Finding]:
    """Whether the multi-turn rows grow by appending, on a sample of them."""
    long = [(i, m) for i, row in case.rows.items if len(m := conversation(row) or ()) > 3]
    renderer = Renderer.of(case.tokenizer, case.chat_template)
    step = max(1, len(long) // _STABILITY_ROWS)
    sample = [(i, m) for i, m in long[::step] if renderer.try_render(m) is not None]
    found = [(i, prefix_stability(renderer, m)) for i, m in sample]
    return gather(found, len(sample))


def examine_texts(case: Case) -> list[Finding]:
    """Plain text, or prompts and completions as text, tokenized as TRL does it."""
    rows = [_tokenized(case, i, row) for i, row in case.rows.items]
    case.lengths += [(len(r.ids), _cut(r, case.max_length)) for r in rows]
    kept = [_truncated(r, case.max_length) for r in rows]
    found = label_findings(case.tokenizer, kept, max_length=case.max_length)
    merging = tuple(i for i, row in case.rows.items if _merges(case.tokenizer, row))
    if merging:
        found.append(_boundary(merging, len(rows)))
    return found


def _tokenized(case: Case, index: int, row: Row) -> Labelled:
    """TRL's own way: special tokens by the tokenizer, then eos, then the prompt masked."""
    eos = case.tokenizer.eos_token or ""
    prompt, text = row.get("prompt", ""), row.get("completion", row.get(case.text_field)) or ""
    ids = _ids(case.tokenizer, prompt + text.removesuffix(eos) + eos)
    masked = _common(_ids(case.tokenizer, prompt), ids) if "completion" in row else 0
    return Labelled(index, ids, [IGNORE_INDEX] * masked + ids[masked:])


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text)["input_ids"])


def _common(a: list[int], b: list[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def _merges(tokenizer: Any, row: Row) -> bool:
    """Whether the prompt's last token grows together with the completion's first."""
    if "completion" not in row:
        return False
    prompt = list(tokenizer(row["prompt"], add_special_tokens=False)["input_ids"])
    text = row["prompt"] + row["completion"]
    whole = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return whole[: len(prompt)] != prompt


def _boundary(rows: tuple[int, ...], total: int) -> Finding:
    return Finding(
        "prompt-mismatch",
        "warning",
        f"in {len(rows)} of {total} rows the end of the prompt and the beginning of the answer "
        "become one token: at inference the prompt is tokenized alone, and differently",
        "end prompts without a blank and begin answers with it, or give 'messages'",
        rows=rows,
    )


def _truncated(row: Labelled, limit: int | None) -> Labelled:
    return Labelled(row.index, row.ids[:limit], row.labels[:limit])


def _cut(row: Labelled, limit: int | None) -> str:
    if limit is None or len(row.ids) <= limit:
        return "whole"
    return "cut" if _truncated(row, limit).trained else "gone"


def examine_tokens(case: Case) -> list[Finding]:
    """Check ``input_ids`` and ``labels``; without labels every token would be trained."""
    rows = [
        Labelled(i, row["input_ids"], row["labels"] if "labels" in row else row["input_ids"])
        for i, row in case.rows.items
    ]
    uneven = tuple(r.index for r in rows if len(r.ids) != len(r.labels))
    if uneven:
        return [
            Finding(
                "labels-uneven",
                "error",
                f"{len(uneven)} of {len(rows)} rows have another number of labels than of ids",
                "give one label a token",
                rows=uneven,
            )
        ]
    limit = case.max_length
    case.lengths += [(len(r.ids), "cut" if limit and len(r.ids) > limit else "whole") for r in rows]
    kept = [Labelled(r.index, r.ids[:limit], r.labels[:limit]) for r in rows]
    whole = len({len(r.ids) for r in rows}) > 1 or len(rows) == 1
    return label_findings(case.tokenizer, kept, max_length=limit, whole=whole)
