"""A linter for preference data: what a reward model would learn in place of what was meant.

Pairs of the same text teach nothing. Where the better answer is mostly the longer one, length is
what is learned (Singhal et al. 2023, "A Long Way to Go"). Left out: whether the labels are right,
apart from scores in the data that contradict them.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from math import sqrt
from statistics import fmean, pvariance
from typing import Any

from ftkit.chat.labels import Labelled, label_findings
from ftkit.data.preferences import prompt_key
from ftkit.diagnosis.case import Case
from ftkit.diagnosis.data import examine_chats
from ftkit.diagnosis.pairs import Pair, read_pair, said
from ftkit.diagnosis.rows import Row, shown
from ftkit.findings import Finding

MEDIUM, LARGE = 0.5, 0.8
"""Cohen's d from which the length bias is a warning and an error (Cohen 1988: medium, large)."""
NEAR = 0.95
"""Share of common words from which two answers are nearly the same."""
_FEW = 8
_SURE = 2.6  # Student's t of d, d·√(n/2): beyond it by chance in 1 of 100 sets without any bias
_LEAK_WORDS = 8
_RARE = 0.1


def examine_pairs(case: Case) -> Iterator[Finding]:
    """Every check of ``chosen`` and ``rejected``."""
    limit = case.max_length
    pairs = [
        read_pair(case, i, row)
        for i, row in shown(case.rows.items, "reading pairs", progress=case.progress)
    ]
    unit = "tokens" if case.tokenizer is not None else "words"
    yield from _alike(pairs)
    yield from _length_bias(pairs, unit)
    yield from _leaks(pairs)
    yield from _contradictions(pairs)
    yield from _flipped(pairs)
    if "chosen_ids" in case.rows.first and case.tokenizer is not None:
        yield from _tokens(case)
        yield from _cut(case, pairs, limit) if limit is not None else ()


def examine_sides(case: Case) -> list[Finding]:
    """Conversations without a trainer: the longer side of each pair, rendered and tokenized."""
    rows = [(i, {"messages": _longer(row)}) for i, row in case.rows.items]
    if not all(isinstance(row["messages"], list) for _, row in rows):
        return []
    side = replace(case, rows=replace(case.rows, items=rows), mask="last_assistant")
    return examine_chats(side)  # whose lengths are this case's, too: replace keeps the list


def _longer(row: Row) -> Any:
    side = max((row.get("chosen"), row.get("rejected")), key=lambda side: len(said(side)))
    prompt = row.get("prompt") or []
    return [*prompt, *side] if isinstance(side, list) and isinstance(prompt, list) else side


def examine_ratings(case: Case) -> Iterator[Finding]:
    """``completion`` with a ``label``: whether both kinds are there in numbers."""
    labels = [bool(row["label"]) for _, row in case.rows.items]
    good = sum(labels) / len(labels)
    if _RARE <= good <= 1 - _RARE:
        yield Finding("labels-balanced", "ok", f"{good:.0%} of the rows are labelled good")
        return
    rare = "bad" if good > 0.5 else "good"
    weights = max(good, 1 - good) / max(min(good, 1 - good), 1 / len(labels))
    name = "undesirable_weight" if rare == "bad" else "desirable_weight"
    yield Finding(
        "label-imbalance",
        "error" if good in (0, 1) else "warning",
        f"{good:.1%} of {len(labels):,} rows are labelled good: the model sees next to nothing of "
        f"the {rare} ones",
        f"add {rare} rows, or weigh them: KTOConfig({name}={weights:.3g})",
    )


def cohens_d(a: Sequence[float], b: Sequence[float]) -> float:
    """Return Cohen's d of two samples: difference of means over the pooled standard deviation.

    d = (ā − b̄) / √((s²_a + s²_b) / 2) for samples of one size (Cohen 1988, p. 20 and 67), with
    unbiased variances; 0 where nothing varies.
    """
    n = len(a)
    if n < 2:
        return 0.0
    pooled = (pvariance(a) + pvariance(b)) / 2 * n / (n - 1)
    difference = fmean(a) - fmean(b)
    return difference / sqrt(pooled) if pooled > 0 else 0.0


def _alike(pairs: list[Pair]) -> Iterator[Finding]:
    same = [p for p in pairs if _identical(p)]
    if same:
        yield Finding(
            "pairs-identical",
            "error" if len(same) == len(pairs) else "warning",
            f"{len(same)} of {len(pairs)} pairs have the same answer on both sides: they teach "
            "nothing, and their accuracy is a coin toss",
            "remove them",
            rows=_rows(same),
        )
    near = [p for p in pairs if not _identical(p) and _similar(p.chosen, p.rejected)]
    if near:
        yield Finding(
            "pairs-near-duplicate",
            "warning",
            f"{len(near)} of {len(pairs)} pairs share {NEAR:.0%} of their words or more: the "
            "margin rests on a few tokens, or on a slip",
            "look at them, and remove what differs by accident",
            rows=_rows(near),
            evidence=_difference(near[0]),
        )
    if not same and not near:
        yield Finding("pairs-differ", "ok", f"the sides of all {len(pairs)} pairs differ")


def _identical(pair: Pair) -> bool:
    if pair.chosen or pair.rejected:
        return pair.chosen.strip() == pair.rejected.strip()
    return bool(pair.row.get("chosen_ids") == pair.row.get("rejected_ids"))


def _similar(a: str, b: str) -> bool:
    left, right = a.split(), b.split()
    if min(len(left), len(right)) < 2 * _FEW:  # in a short answer one word is a real difference
        return False
    match = SequenceMatcher(None, left, right, autojunk=False)
    bounds = (match.real_quick_ratio, match.quick_ratio, match.ratio)  # ever dearer, ever tighter
    return all(bound() >= NEAR for bound in bounds)


def _difference(pair: Pair) -> str:
    left, right = pair.chosen.split(), pair.rejected.split()
    match = SequenceMatcher(None, left, right, autojunk=False)
    lines = [f"row {pair.index}"]
    for kind, a, b, c, d in match.get_opcodes():
        if kind != "equal":
            lines.append(f"  chosen …{' '.join(left[a:b])!r}  rejected …{' '.join(right[c:d])!r}")
    return "\n".join(lines[:6])


def _length_bias(pairs: list[Pair], unit: str) -> Iterator[Finding]:
    if len(pairs) < _FEW:
        return
    chosen, rejected = ([p.lengths[side] for p in pairs] for side in (0, 1))
    d = cohens_d(chosen, rejected)
    longer = sum(a > b for a, b in zip(chosen, rejected, strict=True)) / len(pairs)
    seen = (
        f"chosen answers have {fmean(chosen):.1f} {unit} on average, rejected ones "
        f"{fmean(rejected):.1f}; chosen is longer in {longer:.0%} of pairs (Cohen's d = {d:+.2f})"
    ).replace("-", "−")
    if abs(d) < MEDIUM or abs(d) * sqrt(len(pairs) / 2) < _SURE:
        yield Finding("length-balanced", "ok", seen)
        return
    yield Finding(
        "length-bias",
        "error" if abs(d) >= LARGE else "warning",
        f"{seen}: a reward model can win by counting, and a policy by writing "
        + ("more" if d > 0 else "less"),
        "balance the pairs by length, add a length penalty, or watch length beside reward",
    )


def _leaks(pairs: list[Pair]) -> Iterator[Finding]:
    leaky = [p for p in pairs if any(_leaked(p.prompt, side) for side in (p.chosen, p.rejected))]
    if leaky:
        yield Finding(
            "prompt-in-answer",
            "warning",
            f"{len(leaky)} of {len(pairs)} pairs repeat the prompt inside an answer: the model "
            "learns to write the question again",
            "cut the prompt off the answers, or leave column 'prompt' out where the answers begin "
            "with it",
            rows=_rows(leaky),
            evidence=f"row {leaky[0].index}\n  prompt {leaky[0].prompt[:80]!r}\n"
            f"  chosen {leaky[0].chosen[:80]!r}",
        )


def _leaked(prompt: str, answer: str) -> bool:
    words = _words(prompt)
    return len(words) >= _LEAK_WORDS and " ".join(words) in " ".join(_words(answer))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _contradictions(pairs: list[Pair]) -> Iterator[Finding]:
    """The same two answers to one prompt, judged both ways."""
    seen: dict[tuple[str, str, str], int] = {}
    odd: list[int] = []
    for pair in pairs:
        if not (pair.chosen and pair.rejected):
            continue
        key = prompt_key(pair.row) if "prompt" in pair.row else pair.prompt
        opposite = seen.get((key, pair.rejected, pair.chosen))
        if opposite is not None and pair.chosen != pair.rejected:
            odd += [opposite, pair.index]
        seen[key, pair.chosen, pair.rejected] = pair.index
    if odd:
        yield Finding(
            "pairs-contradict",
            "warning",
            f"{len(odd) // 2} pairs are also there the other way round: one prompt, the same two "
            "answers, the opposite choice",
            "decide for one of them, or remove both",
            rows=tuple(sorted(set(odd))),
        )


def _flipped(pairs: list[Pair]) -> Iterator[Finding]:
    for better, worse in (("score_chosen", "score_rejected"), ("gold_chosen", "gold_rejected")):
        scored = [
            p for p in pairs if p.row.get(better) is not None and p.row.get(worse) is not None
        ]
        wrong = [p for p in scored if p.row[better] < p.row[worse]]
        if wrong:
            yield Finding(
                "labels-flipped",
                "error" if 2 * len(wrong) > len(scored) else "warning",
                f"in {len(wrong)} of {len(scored)} pairs {better} is below {worse}: the data "
                "contradict their own choice",
                "swap the sides of these rows, or remove them",
                rows=_rows(wrong),
            )


def _cut(case: Case, pairs: list[Pair], limit: int) -> Iterator[Finding]:
    """What `max_length` does, where the trainer keeps both sides' tokens."""
    totals = [(p, _longer_side(p.row)) for p in pairs if "chosen_ids" in p.row]
    case.lengths += [(n, "cut" if n > limit else "whole") for _, n in totals]
    cut = [p for p, n in totals if n > limit]
    if cut:
        yield Finding(
            "answer-cut",
            "warning",
            f"{len(cut)} of {len(pairs)} pairs are longer than max_length={limit}: their answers "
            "are cut, maybe to the same text",
            f"raise max_length (the longest has {max(n for _, n in totals)} tokens)",
            rows=_rows(cut),
        )


def _tokens(case: Case) -> Iterator[Finding]:
    """The trainer's own ids: do the answers end, and does the text begin once?"""
    for side in ("chosen_ids", "rejected_ids"):
        rows = [
            Labelled(i, ids := [*row.get("prompt_ids", ()), *row[side]], ids)
            for i, row in case.rows.items
        ]
        for finding in label_findings(case.tokenizer, rows):
            if finding.code in ("ends-without-stop", "double-bos"):
                yield replace(finding, where=side)


def _longer_side(row: Row) -> int:
    prompt = len(row.get("prompt_ids", ()))
    return prompt + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def _rows(pairs: Sequence[Pair]) -> tuple[int, ...]:
    return tuple(p.index for p in pairs)
