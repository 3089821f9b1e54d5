"""Markers put into the very expressions that write an answer, found by asking the template.

Private characters between the pieces of its output expressions show which piece of source wrote
which character; the markers go where an answer begins and ends. Left out: answers that begin in
one branch of the template and end in another.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ftkit.chat import jinja_source as jinja
from ftkit.chat.masks import answers
from ftkit.chat.render import Messages, Renderer
from ftkit.chat.turns import Turn, find_turns

OPEN, CLOSE = "{% generation %}", "{% endgeneration %}"
_FIRST_PROBE = 0xF0000  # a private plane, other than the one that finds the turns


def marked_in_place(plain: Renderer, known: Sequence[Messages]) -> tuple[str, list[str]] | None:
    """Return the template with markers, and where they stand; None where no place fits.

    Args:
        plain: The template without markers.
        known: Conversations whose answers have to be marked; not verified here.
    """
    parts = jinja.segments(plain.template)
    pairs = _Probed(plain, parts).cuts(known)
    edited = _edited(parts, pairs) if pairs else None
    if edited is None:
        return None
    return edited, [place for pair in pairs for place in _places(plain.template, parts, pair)]


# --- which piece of source wrote which character ------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Cut:
    """A place in the source: segment, piece of its expression, character within that piece."""

    segment: int
    piece: int
    offset: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Where an answer begins and ends in the source, and whether other roles pass there, too."""

    start: Cut
    end: Cut
    shared: bool


class _Probed:
    """A template whose output pieces announce themselves."""

    def __init__(self, plain: Renderer, parts: list[jinja.Segment]) -> None:
        self.plain = plain
        self.owners: list[tuple[int, int]] = []
        self.parts = parts
        self.probed = plain.with_template("".join(map(self._probe, range(len(parts)))))

    def _probe(self, k: int) -> str:
        part = self.parts[k]
        if part.kind != "output":
            return part.source
        left, right = part.signs
        marked = []
        for i, piece in enumerate(jinja.pieces(part.inside)):
            marked.append(f"{{{{ {self._sign(k, i)} }}}}{{{{ {piece} }}}}")
        text = "".join(marked) + f"{{{{ {self._sign(k + 1, -1)} }}}}"
        return f"{{{{{left}{text[2:-2]}{right}}}}}"

    def _sign(self, segment: int, piece: int) -> str:
        self.owners.append((segment, piece))
        return f"'{chr(_FIRST_PROBE + len(self.owners) - 1)}'"

    def cuts(self, known: Sequence[Messages]) -> list[Pair]:
        """Every pair of places at which an answer begins and ends; empty where one has none."""
        pairs: dict[tuple[Cut, Cut], bool] = {}
        for messages in known:
            text, owners = self._owners(messages)
            if text is None or text != self.plain.try_render(messages):
                return []
            turns = find_turns(self.plain, messages)
            others = _segments_of(owners, [t for t in turns if t.role != "assistant"])
            for region in answers(turns):
                start = self._cut(owners, region.start)
                end = self._cut(owners, region.end - 1, behind=True)
                if start is None or end is None:
                    return []
                shared = bool(others & set(range(start.segment, end.segment + 1)))
                pairs[start, end] = pairs.get((start, end), False) or shared
        return _united([Pair(start, end, shared) for (start, end), shared in pairs.items()])

    def _owners(self, messages: Messages) -> tuple[str | None, list[Cut]]:
        """The plain text, and for each character where it comes from."""
        text = self.probed.try_render(messages)
        if text is None:
            return None, []
        plain, owners = [], []
        segment, piece, offset = 0, -1, 0
        for ch in text:
            number = ord(ch) - _FIRST_PROBE
            if 0 <= number < len(self.owners):
                (segment, piece), offset = self.owners[number], 0
                continue
            plain.append(ch)
            owners.append(Cut(segment, piece, offset))
            offset += 1
        return "".join(plain), owners

    def _cut(self, owners: list[Cut], at: int, *, behind: bool = False) -> Cut | None:
        """Where in the source to cut before (or behind) character `at`; None where it cannot be."""
        owner = owners[at]
        if owner.piece < 0:
            return self._in_data(owner, owners, at, behind)
        first = owner.offset == 0
        last = at + 1 == len(owners) or owners[at + 1].offset == 0
        if first and not behind:
            return owner
        if last and behind:
            return Cut(owner.segment, owner.piece + 1, 0)
        value = jinja.literal(jinja.pieces(self.parts[owner.segment].inside)[owner.piece])
        return Cut(owner.segment, owner.piece, owner.offset + behind) if value else None

    def _in_data(self, owner: Cut, owners: list[Cut], at: int, behind: bool) -> Cut | None:
        """Plain text follows the tag of its owner; only text that stands there at once is found."""
        k = owner.segment
        if k >= len(self.parts) or self.parts[k].kind != "data":
            return None
        begin = at - owner.offset
        shown = 0
        while begin + shown < len(owners) and owners[begin + shown].segment == k:
            shown += 1
        return Cut(k, -1, owner.offset + behind) if owner.offset < shown else None


def _united(pairs: list[Pair]) -> list[Pair]:
    """One pair where several share a segment: a piece may be empty in some answers only."""
    united: list[Pair] = []
    for pair in sorted(pairs, key=lambda p: p.start):
        last = united[-1] if united else None
        if last and pair.start.segment <= last.end.segment:
            united[-1] = Pair(last.start, max(last.end, pair.end), last.shared or pair.shared)
        else:
            united.append(pair)
    return united


def _segments_of(owners: list[Cut], turns: list[Turn]) -> set[int]:
    return {owners[i].segment for t in turns for i in range(t.start, min(t.end, len(owners)))}


# --- markers in place -----------------------------------------------------------------------


def _edited(parts: list[jinja.Segment], pairs: list[Pair]) -> str | None:
    edited = [part.source for part in parts]
    touched: set[int] = set()
    for pair in pairs:
        span = range(pair.start.segment, pair.end.segment + 1)
        if touched & set(span) or not _balanced(parts[k] for k in span):
            return None
        touched |= set(span)
        marked = "".join(_marked(parts, k, pair) for k in span)
        if pair.shared:
            variable = _loop_variable(parts, span.start)
            if variable is None:
                return None
            plain = "".join(parts[k].source for k in span)
            marked = (
                f"{{%- if {variable}['role'] == 'assistant' %}}{marked}{{%- else %}}{plain}"
                "{%- endif %}"
            )
        edited[span.start] = marked
        for k in span[1:]:
            edited[k] = ""
    return "".join(edited)


def _balanced(span: Iterator[jinja.Segment]) -> bool:
    """Whether the markers would enclose whole blocks only."""
    depth = 0
    for part in span:
        name = part.inside.split(maxsplit=1)[0] if part.kind == "block" and part.inside else ""
        depth += part.depth
        if depth < 0 or (depth == 0 and name in ("else", "elif")):
            return False
    return depth == 0


def _loop_variable(parts: list[jinja.Segment], at: int) -> str | None:
    """Name of the message in the innermost loop around segment `at`."""
    stack: list[str] = []
    for part in parts[:at]:
        if part.depth > 0:
            stack.append(part.inside)
        elif part.depth < 0 and stack:
            stack.pop()
    loops = [inside for inside in stack if inside.startswith("for ")]
    return loops[-1].split()[1].rstrip(",") if loops else None


def _marked(parts: list[jinja.Segment], k: int, pair: Pair) -> str:
    part = parts[k]
    cuts = [(cut, tag) for cut, tag in ((pair.start, OPEN), (pair.end, CLOSE)) if cut.segment == k]
    if not cuts:
        return part.source
    if part.kind == "data":
        return _marked_data(part.source, cuts)
    left, right = part.signs
    groups: list[str] = []
    pieces = jinja.pieces(part.inside)
    begin = (0, 0)
    for cut, _ in cuts:
        groups.append(_joined(pieces, begin, (cut.piece, cut.offset)))
        begin = (cut.piece, cut.offset)
    groups.append(_joined(pieces, begin, (len(pieces), 0)))
    text = f"{{{{ {groups[0]} }}}}" if groups[0] else ""
    for (_, tag), group in zip(cuts, groups[1:], strict=True):
        text += tag + (f"{{{{ {group} }}}}" if group else "")
    if not groups[-1] and not right:
        text += "{{ '' }}"  # a tag would swallow the line break behind it, an output does not
    return text[:2] + left + text[2:-2] + right + text[-2:]


def _joined(pieces: list[str], begin: tuple[int, int], end: tuple[int, int]) -> str:
    """The source between two places of an expression."""
    chosen = []
    for i, piece in enumerate(pieces):
        low = begin[1] if i == begin[0] else 0
        if i < begin[0] or i > end[0] or (i == end[0] and not end[1]):
            continue
        high = end[1] if i == end[0] else None
        value = jinja.literal(piece)
        whole = low == 0 and high is None
        chosen.append(piece if whole or value is None else jinja.quoted(value[low:high]))
    return " ~ ".join(chosen)


def _marked_data(text: str, cuts: list[tuple[Cut, str]]) -> str:
    marked, at = "", 0
    for cut, tag in cuts:
        marked += text[at : cut.offset] + tag
        at = cut.offset
    guard = "{{ '' }}" if text[at:].startswith("\n") else ""
    return marked + guard + text[at:]


def _places(source: str, parts: list[jinja.Segment], pair: Pair) -> Iterator[str]:
    for cut, tag in ((pair.start, OPEN), (pair.end, CLOSE)):
        part = parts[cut.segment]
        line, column = jinja.position(source, part.start)
        pieces = jinja.pieces(part.inside) if part.kind == "output" else [part.source]
        near = pieces[min(max(cut.piece, 0), len(pieces) - 1)]
        side = "behind" if cut.piece >= len(pieces) or (tag == CLOSE and cut.offset) else "before"
        side = "inside" if cut.offset and cut.piece < len(pieces) else side
        yield f"{tag} {side} {near.strip()[:60]!r} at line {line}, column {column}"
