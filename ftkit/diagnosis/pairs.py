"""One row of preference data as prompt and two answers, whatever its columns."""

from dataclasses import dataclass
from os.path import commonprefix
from typing import Any

from ftkit.diagnosis.case import Case
from ftkit.diagnosis.rows import Row


@dataclass(frozen=True, slots=True)
class Pair:
    """A pair in words.

    Attributes:
        index: Number of the row.
        prompt: The last message before the answers, or the text before them.
        chosen: The better answer; empty where there are only ids.
        rejected: The worse one.
        lengths: Of chosen and rejected, in tokens or words.
        row: All columns.
    """

    index: int
    prompt: str
    chosen: str
    rejected: str
    lengths: tuple[int, int]
    row: Row


def read_pair(case: Case, index: int, row: Row) -> Pair:
    """Return row `index` as a pair, lengths in tokens where there is a tokenizer, else in words."""
    chosen, rejected = said(row.get("chosen")), said(row.get("rejected"))
    asked = row.get("prompt")
    prompt = said(asked[-1:] if isinstance(asked, list) else asked)
    if not asked and chosen and rejected:
        prompt, chosen, rejected = _split(row, chosen, rejected)
    return Pair(index, prompt, chosen, rejected, _sizes(case, row, chosen, rejected), row)


def said(value: Any) -> str:
    """Return text, or the texts of a conversation one below the other."""
    if isinstance(value, list):
        return "\n".join(
            str(m.get("content") or "") if isinstance(m, dict) else str(m) for m in value
        )
    return str(value or "")


def _split(row: Row, chosen: str, rejected: str) -> tuple[str, str, str]:
    """Take the common beginning off: whole messages, or in texts whole words."""
    if isinstance(row["chosen"], list) and isinstance(row["rejected"], list):
        pairs = zip(row["chosen"], row["rejected"], strict=False)
        shorter = min(len(row["chosen"]), len(row["rejected"]))
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), shorter)
        asked = row["chosen"][:same][-1:]
        return said(asked), said(row["chosen"][same:]), said(row["rejected"][same:])
    same = len(commonprefix([chosen, rejected]))
    same = max(chosen.rfind(sign, 0, same) + 1 for sign in (" ", "\n"))
    return chosen[:same], chosen[same:], rejected[same:]


def _sizes(case: Case, row: Row, chosen: str, rejected: str) -> tuple[int, int]:
    """Lengths of both answers; from the trainer's own ids where there are some."""
    if "chosen_ids" in row:
        both = row["chosen_ids"], row["rejected_ids"]
        same = 0 if "prompt_ids" in row else len(commonprefix(both))
        return len(both[0]) - same, len(both[1]) - same
    if case.tokenizer is None:
        return len(chosen.split()), len(rejected.split())
    encoded = case.tokenizer([chosen, rejected], add_special_tokens=False)["input_ids"]
    return len(encoded[0]), len(encoded[1])
