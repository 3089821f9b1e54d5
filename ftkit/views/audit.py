"""The audit of a chat template: its checks, then where markers and definition part."""

from ftkit.chat.audit import MaskDifference, TemplateAudit
from ftkit.views._registry import to_html
from ftkit.views.findings import chips
from ftkit.views.strip import view
from ftkit.views.style import card, css
from ftkit.views.table import rows_html


@to_html.register
def audit_html(record: TemplateAudit) -> str:
    """Return the audit as one card, with the sample conversation as its strip."""
    facts = f'<div class="ft-stat">{chips(record.findings)}</div>'
    say = f'<p class="ft-say">{_meaning(record)}</p>'
    body = facts + _differences(record) + say + view([record.chat])
    return css("strip") + card(f"Template audit: {record.template}", body)


def _differences(record: TemplateAudit) -> str:
    if not record.differences:
        return ""
    columns = ("message", f"{record.marked_by} …", "text", "why")
    return rows_html(columns, map(_row, record.differences))


def _row(difference: MaskDifference) -> tuple[str, str, str, str]:
    return (str(difference.turn), difference.kind, repr(difference.text), difference.why)


def _meaning(record: TemplateAudit) -> str:
    if record.marked_by is None:
        return "There are no markers to compare with; below is what ftkit would train."
    if not record.differences:
        return "The markers mark exactly what the model must produce."
    return "The strip below shows what the model must produce at inference, and so should train."
