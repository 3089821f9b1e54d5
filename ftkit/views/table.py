"""A table as one card: numbers to the right with three digits, text wrapped and escaped.

Words stay whole, so a wide table scrolls; only words that no column could hold are broken.
"""

from collections.abc import Iterable, Sequence
from html import escape
from math import isnan
from numbers import Integral, Real
from textwrap import dedent
from typing import Any

from ftkit.records.source import SourceLine
from ftkit.records.table import Table
from ftkit.views._registry import to_html
from ftkit.views.style import card, css

_NUM, _LONG = ' class="num"', ' class="long"'
_LONGEST_WORD = 32


@to_html.register
def table_html(record: Table) -> str:
    """Return the card of a table."""
    body = rows_html(record.columns, record.rows)
    return css() + card(record.title, body, say=record.say)


def rows_html(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return ``<table>`` with a header row; goes into a card."""
    cells = list(rows)
    numeric = [_is_numeric([row[k] for row in cells]) for k in range(len(columns))]
    head = "".join(
        f'<th scope="col"{_NUM if num else ""}>{escape(c)}</th>'
        for c, num in zip(columns, numeric, strict=True)
    )
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in cells)
    return (
        f'<div class="ft-scroll"><table class="ft-table ft-rows"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _is_numeric(column: list[Any]) -> bool:
    """Whether a column holds numbers, apart from empty cells."""
    filled = [value for value in column if value is not None and str(value)]
    return bool(filled) and all(map(_is_number, filled))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _cell(value: Any) -> str:
    if isinstance(value, SourceLine):
        return f"<td>{_code(value)}</td>"
    if not _is_number(value):
        text = str(value)
        long = any(len(word) > _LONGEST_WORD for word in text.split())
        return f"<td{_LONG if long else ''}>{escape(text)}</td>"
    if isinstance(value, Integral):
        shown = f"{int(value):,}"
    else:
        shown = "NaN" if isnan(value) else f"{float(value):.3f}"
    return f"<td{_NUM}>{shown.replace('-', '−')}</td>"


def _code(line: SourceLine) -> str:
    """The place, which opens to the code around it."""
    rows = "".join(
        f"{'<mark>' if here else ''}{'▸' if here else ' '}{number:>4}  {escape(text)}"
        f"{'</mark>' if here else ''}\n"
        for number, text in enumerate(dedent("\n".join(line.lines)).split("\n"), line.first)
        for here in (number == line.number,)
    )
    return (
        f'<details class="ft-code"><summary><code>{escape(str(line))}</code></summary>'
        f"<pre>{rows}</pre></details>"
    )
