"""A table as one card: numbers to the right with three digits, text wrapped and escaped."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from ftkit.records.table import Table
from ftkit.views._registry import to_html
from ftkit.views.style import card, css


@to_html.register
def table_html(record: Table) -> str:
    """Return the card of a table."""
    body = rows_html(record.columns, record.rows)
    return css() + card(record.title, body, say=record.say)


def rows_html(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return ``<table>`` with a header row; goes into a card."""
    head = "".join(f'<th scope="col">{escape(c)}</th>' for c in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f'<div class="ft-scroll"><table class="ft-table ft-rows"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"<td>{escape(str(value))}</td>"
    shown = f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
    return f'<td class="num">{shown}</td>'
