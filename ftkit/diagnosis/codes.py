"""What each code of the doctor means: read from ``codes.md`` beside this module."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType

from ftkit.errors import SettingsError

_PARTS = re.compile(r"^\*\*(What|Why|Fix|Source)\.\*\* (.*?)(?=^\*\*\w+\.\*\* |\Z)", re.M | re.S)
_LINK = re.compile(r"\[([^\]]+)\]\((https://[^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Explanation:
    """One entry of the guide.

    Attributes:
        code: The finding's code.
        title: A few plain words.
        what: What is checked, on which data.
        why: What it does to a run.
        fix: What to do.
        sources: ``(name, address)`` where it was reported or is explained; maybe none.
    """

    code: str
    title: str
    what: str
    why: str
    fix: str
    sources: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        read = "".join(f"\n  {name}: {address}" for name, address in self.sources)
        return (
            f"{self.code}: {self.title}\n\nWhat. {self.what}\n\nWhy. {self.why}\n\nFix. {self.fix}"
            + (f"\n\nRead{read}" if read else "")
        )


def explain(code: str) -> Explanation:
    """Return what the guide says about `code`.

    Raises:
        SettingsError: an unknown code; names the nearest ones.

    Example:
        >>> explain("double-bos").title
        'Two beginning-of-sequence tokens'
    """
    code = PASSES.get(code, code)
    if code not in CODES:
        near = difflib.get_close_matches(code, CODES, n=3, cutoff=0.4)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise SettingsError(f"the doctor has no code {code!r}{hint}")
    return CODES[code]


def _read() -> Mapping[str, Explanation]:
    text = (files("ftkit.diagnosis") / "codes.md").read_text(encoding="utf-8")
    entries = re.split(r"^### ", text, flags=re.M)[1:]
    return MappingProxyType({e.code: e for e in map(_entry, entries)})


def _entry(text: str) -> Explanation:
    head, _, body = text.partition("\n")
    body = re.split(r"^## ", body, flags=re.M)[0]
    title, _, rest = body.strip().partition("\n")
    parts = {name: " ".join(said.split()) for name, said in _PARTS.findall(rest.strip() + "\n")}
    sources = tuple(_LINK.findall(parts.get("Source", "")))
    return Explanation(
        head.strip(), title.strip("* ."), parts["What"], parts["Why"], parts["Fix"], sources
    )


def _passes() -> Mapping[str, str]:
    pairs = [(re.findall(r"Passes as `([a-z-]+)`", e.what), code) for code, e in CODES.items()]
    return {name: code for names, code in pairs for name in names}


CODES: Mapping[str, Explanation] = _read()
"""Code to explanation, in the order of the guide."""
PASSES: Mapping[str, str] = _passes()
"""Name of a passed check to the code that it would have had."""
