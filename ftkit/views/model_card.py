"""The model card as one calm card: the numbers that matter first, then every field."""

from html import escape

from ftkit.records.model_card import ModelCard
from ftkit.views._registry import to_html
from ftkit.views.style import card, css, stat

_SHORT_HASH = 16


@to_html.register
def model_card_html(record: ModelCard) -> str:
    """Return the card of a loaded model, with its notes below."""
    numbers = "".join(
        (
            stat(_millions(record.parameters), "parameters"),
            stat(f"{record.memory_mb:,.0f} MB", "in memory"),
            stat(record.quantization or "unquantized", f"weights, {record.compute_dtype} compute"),
            stat(record.device, "device"),
        )
    )
    body = f'<div class="ft-stat">{numbers}</div>{_table(record)}'
    return css() + card(record.name, body, aside=escape(record.source), say=_notes(record))


def _millions(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e9 else f"{parameters / 1e6:.1f} M"


def _table(record: ModelCard) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(label)}</th><td>{_value(label, value)}</td></tr>'
        for label, value in record.rows()
        if label not in ("name", "parameters", "quantization", "compute dtype", "device", "memory")
    )
    return f'<table class="ft-table"><tbody>{rows}</tbody></table>'


def _value(label: str, value: str) -> str:
    if label == "sha256" and len(value) > _SHORT_HASH:
        return f'<code title="{escape(value)}">{escape(value[:_SHORT_HASH])}…</code>'
    return f"<code>{escape(value)}</code>" if label.endswith("token") else escape(value)


def _notes(record: ModelCard) -> str:
    return " ".join(f"{note[:1].upper()}{note[1:]}." for note in record.notes)
