"""Who holds what, drawn twice for each algorithm: as full copies, and on one base.

Heads lie on bodies. In the left picture every model has a body of its own; in the right one the
heads stand on adapters, and the adapters on the one base. Bars below are to one scale.
"""

from collections.abc import Iterator
from dataclasses import replace
from html import escape
from itertools import groupby

from ftkit.records.algorithm_roles import Algorithm, Seat
from ftkit.records.role_map import RoleMap
from ftkit.records.syllabus import course
from ftkit.views._registry import to_html
from ftkit.views.style import card, css, stat

_COLUMN, _GAP, _WIDTH = 116, 4, 476
_HEAD, _ADAPTER, _BASE = (0, 38), (42, 54), (100, 36)  # top, height
_BODY = (42, 94)
_BAR, _HEIGHT = 146, 160
_ROOM = 150  # beside the longest bar, for its label
_KINDS = {"policy": "pol", "actor": "pol", "critic": "cri", "reference": "ref"}


@to_html.register
def role_map_html(record: RoleMap) -> str:
    """Return the card of the map."""
    rows = "".join(_row(record, algorithm) for algorithm in record.algorithms)
    body = f'<div class="ft-rolemap">{_stats(record)}{_legend()}{rows}</div>'
    return css("role_map") + card(f"Who holds what: {record.model}", body, say=_say(record))


def size_text(size: float) -> str:
    """Return bytes in the unit that reads best, powers of 1000: ``2.3 kB``, ``166 MB``."""
    for limit, unit in ((1e10, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= limit:
            scale = 1e9 if unit == "GB" else limit
            value = size / scale
            return f"{value:,.0f} {unit}" if value >= 100 else f"{value:,.1f} {unit}"
    return f"{size:,.0f} B"


def _stats(record: RoleMap) -> str:
    hungry = max(record.algorithms, key=record.copied_size)
    smaller, sharing = record.reasons(hungry)
    count = len(hungry.present())
    why = f"{smaller:.1f} by smaller weights × {sharing:.1f} by sharing them"
    return (
        '<div class="ft-stat">'
        + stat(size_text(record.copied_size(hungry)), f"{hungry.name} as {count} full copies")
        + stat(size_text(record.shared_size(hungry)), f"{hungry.name} on {_base_name(record)}")
        + stat(f"{record.factor(hungry):.1f} ×", f"less: {why}")
        + "</div>"
    )


def _legend() -> str:
    return (
        '<p class="key"><span class="t">filled: trained</span><span class="f">empty: frozen</span>'
        '<span class="o">dashed: only under the condition written in it</span></p>'
    )


def _say(record: RoleMap) -> str:
    return (
        f"Weights only. One base: measured, {size_text(record.whole)} with every adapter and head. "
        f"Full copies: counted from the model's shape, in {record.copy_dtype}, what this machine "
        "computes in. What training adds (gradients, optimizer, activations) is in notebook 10."
    )


def _base_name(record: RoleMap) -> str:
    return f"one {record.quantization} base" if record.quantization else "one base"


def _row(record: RoleMap, algorithm: Algorithm) -> str:
    head = (
        f'<header><h3>{escape(algorithm.name)}</h3><span class="eats">data: '
        f"{escape(algorithm.data)}</span>{_links(algorithm)}"
        f'<span class="less">{record.factor(algorithm):.1f} × less</span></header>'
    )
    one = _figure(_base_name(record), _one_base(record, algorithm), algorithm)
    copies = _figure(f"full copies, {record.copy_dtype}", _copies(record, algorithm), algorithm)
    return f'<section class="algo">{head}<div class="two">{copies}{one}</div></section>'


def _links(algorithm: Algorithm) -> str:
    found = [course()[number] for number in algorithm.notebooks]
    return " ".join(
        f'<a href="{escape(n.file)}" title="{escape(n.title)}">→ {escape(n.number)}</a>'
        for n in found
    )


def _figure(caption: str, inside: str, algorithm: Algorithm) -> str:
    label = f"{algorithm.name}, {caption}"
    return (
        f"<figure><figcaption>{escape(caption)}</figcaption>"
        f'<svg viewBox="-1 -1 {_WIDTH + 2} {_HEIGHT + 2}" role="img" '
        f'aria-label="{escape(label)}">{inside}</svg></figure>'
    )


# --- the two pictures ------------------------------------------------------------------------


def _copies(record: RoleMap, algorithm: Algorithm) -> str:
    bodies = "".join(
        _box(column, 1, _BODY, _class(seat), ["a full copy", size, _state(seat)], strong=1)
        for column, seat in enumerate(algorithm.seats)
        for size in [size_text(record.copies[seat.head])]
    )
    sizes = [record.copied_size(algorithm, optional=optional) for optional in (False, True)]
    return _heads(record, algorithm, own=False) + bodies + _bar(record, sizes)


def _one_base(record: RoleMap, algorithm: Algorithm) -> str:
    base = record.parts[0]
    span = max(2, len(algorithm.seats))
    lines = [_base_name(record), f"{size_text(base.size)}, frozen"]
    slab = _box(0, span, _BASE, "base", lines)
    sizes = [record.shared_size(algorithm, optional=optional) for optional in (False, True)]
    adapters = "".join(_adapters(record, algorithm))
    return _heads(record, algorithm, own=True) + adapters + slab + _bar(record, sizes)


def _heads(record: RoleMap, algorithm: Algorithm, *, own: bool) -> str:
    """The heads; with `own`, those on the one base: its own LM head, frozen, and small new ones."""
    drawn = []
    for column, seat in enumerate(algorithm.seats):
        part, kind, name = record.part(seat.head), _class(seat), str(seat.head)
        if own and part:
            name = f"{seat.head} {size_text(part.size)}"
        elif own:
            name, kind = "the base's LM head", _class(replace(seat, trained=False))
        drawn.append(_box(column, 1, _HEAD, kind, [seat.role, name], strong=0))
    return "".join(drawn)


def _adapters(record: RoleMap, algorithm: Algorithm) -> Iterator[str]:
    """One box an adapter, as wide as the seats that share it."""
    column = 0
    for name, group in groupby(algorithm.seats, key=lambda seat: seat.adapter):
        seats = list(group)
        part = record.part(name)
        lines = (
            [f"{name} adapter", size_text(part.size), _state(seats[0])]
            if part
            else ["no adapter", "0 B", _state(seats[0])]
        )
        yield _box(column, len(seats), _ADAPTER, _class(seats[0]), lines, strong=1)
        column += len(seats)


def _class(seat: Seat) -> str:
    kind = _KINDS.get(seat.role, "rew")
    return f"{kind} {'t' if seat.trained else 'f'}{' o' if seat.when else ''}"


def _state(seat: Seat) -> str:
    state = "trained" if seat.trained else "frozen"
    return f"{state}, {seat.when}" if seat.when else state


def _box(
    column: int,
    span: int,
    layer: tuple[int, int],
    kind: str,
    lines: list[str],
    strong: int | None = None,
) -> str:
    """One box with its lines in the middle; line number `strong` is bold."""
    top, height = layer
    left, width = column * (_COLUMN + _GAP), span * (_COLUMN + _GAP) - _GAP
    first = top + height / 2 - 7.5 * len(lines) + 11.5
    words = "".join(
        f'<text{" class=strong" if i == strong else ""} x="{left + width / 2:g}" '
        f'y="{first + 15 * i:.1f}" text-anchor="middle">{escape(line)}</text>'
        for i, line in enumerate(lines)
    )
    return (
        f'<g class="{kind}"><rect x="{left}" y="{top}" width="{width}" height="{height}" rx="6"/>'
        f"{words}</g>"
    )


def _bar(record: RoleMap, sizes: list[int]) -> str:
    """The total to scale: solid what is always there, dashed what may come on top."""
    longest = max(record.copied_size(a, optional=True) for a in record.algorithms)
    always, all_of_it = (size / longest * (_WIDTH - _ROOM) for size in sizes)
    text, more = size_text(sizes[0]), ""
    if sizes[1] > sizes[0]:
        text += f", at most {size_text(sizes[1])}"
        more = f'<rect class="more" x="0" y="{_BAR}" width="{all_of_it:.1f}" height="10"/>'
    return (
        f'{more}<rect class="bar" x="0" y="{_BAR}" width="{always:.1f}" height="10"/>'
        f'<text class="sum" x="{all_of_it + 7:.1f}" y="{_BAR + 9.5}">{escape(text)}</text>'
    )
