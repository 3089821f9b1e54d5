"""A chat template as text with places: its tags, its output expressions, and what they add up.

Jinja's own tree has line numbers only and cannot be written back, so templates are edited as
text. Nothing is evaluated here. Left out: ``{% raw %}``, which no chat template known uses.
"""

import re
from dataclasses import dataclass
from typing import Literal

from jinja2 import Environment, TemplateError

Kind = Literal["data", "output", "block", "comment"]

_OPENERS: dict[str, tuple[Kind, str]] = {
    "{{": ("output", "}}"),
    "{%": ("block", "%}"),
    "{#": ("comment", "#}"),
}
_OPENER = re.compile(r"\{[{%#]")
_STRING = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.S)
_INSIDE = re.compile(r"^(\{[{%])([-+]?)(.*?)([-+]?)([%}]\})$", re.S)
_OPENING = {"for", "if", "macro", "call", "filter", "generation", "block", "with"}
_SPLITS_NOT = {"if", "else", "and", "or", "not", "in", "is", "==", "!=", "<", ">", "<=", ">="}


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the source.

    Attributes:
        kind: ``"data"`` (plain text), ``"output"`` (``{{ … }}``), ``"block"`` or ``"comment"``.
        start: Its first character.
        source: Its text.
    """

    kind: Kind
    start: int
    source: str

    @property
    def signs(self) -> tuple[str, str]:
        """The whitespace signs ``-`` or ``+`` at both ends of a tag."""
        match = _INSIDE.match(self.source)
        return (match[2], match[4]) if match else ("", "")

    @property
    def inside(self) -> str:
        """What stands between the delimiters of a tag."""
        match = _INSIDE.match(self.source)
        return match[3].strip() if match else self.source

    @property
    def depth(self) -> int:
        """1 where a block opens, -1 where one closes, else 0."""
        if self.kind != "block":
            return 0
        name = self.inside.split(maxsplit=1)[0] if self.inside else ""
        if name == "set":
            return 0 if "=" in self.inside else 1
        return -1 if name.startswith("end") else int(name in _OPENING)


def segments(source: str) -> list[Segment]:
    """Split a template; the sources of all segments, joined, are `source`."""
    found: list[Segment] = []
    at = 0
    while match := _OPENER.search(source, at):
        if match.start() > at:
            found.append(Segment("data", at, source[at : match.start()]))
        kind, closer = _OPENERS[match.group()]
        end = _closing(source, match.end(), closer, quoted=kind != "comment")
        found.append(Segment(kind, match.start(), source[match.start() : end]))
        at = end
    return [*found, Segment("data", at, source[at:])] if at < len(source) else found


def _closing(source: str, at: int, closer: str, *, quoted: bool) -> int:
    while at < len(source):
        if source.startswith(closer, at):
            return at + len(closer)
        string = _STRING.match(source, at) if quoted else None
        at = string.end() if string else at + 1
    return len(source)


def pieces(expression: str) -> list[str]:
    """Split ``a + b + 'c'`` (or ``a ~ b``) into what is added; one piece where that is not safe."""
    try:
        tokens = [(kind, raw) for _, kind, raw in Environment().lex("{{" + expression + "}}")][1:-1]  # noqa: S701
    except TemplateError:
        return [expression]
    depth, parts, used = 0, [""], set[str]()
    for kind, raw in tokens:
        if kind == "operator":
            depth += (raw in "([{") - (raw in ")]}")
        if depth == 0 and (raw in _SPLITS_NOT or raw in ("+", "~", "-")):
            used.add(raw)
        if depth == 0 and kind == "operator" and raw in ("+", "~"):
            parts.append("")
        else:
            parts[-1] += raw
    safe = used in ({"+"}, {"~"})
    return [part.strip() for part in parts] if safe else [expression.strip()]


def literal(piece: str) -> str | None:
    """Return the value of a piece that is one string literal, else None."""
    if not _STRING.fullmatch(piece):
        return None
    return piece[1:-1].encode("ascii", "backslashreplace").decode("unicode-escape")


def quoted(value: str) -> str:
    """Return `value` as a Jinja string literal."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def position(source: str, at: int) -> tuple[int, int]:
    """Return line and column, both from 1, of character `at`."""
    return source.count("\n", 0, at) + 1, at - source.rfind("\n", 0, at)
