"""A packed corpus as a picture: blocks with the documents inside, the bill, and what was measured.

The record says which token is whose and what it can see; nothing here packs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ftkit.records.packing import CrossingEffect, Packing, PackingPoint, Segment
from ftkit.views.packing_svg import blocks_svg, hue, sizes_svg
from ftkit.views.style import card, css, stat
from ftkit.views.table import rows_html

TITLE = "Packing: documents one after another, cut into blocks"
_SAY = (
    "No padding, so every position is trained. The price: a block begins in the middle of a "
    "document, the remainder is dropped, and hatched positions see text that does not belong to "
    "theirs."
)
_SHOWN_TEXT = 360  # characters of one piece; the middle of longer ones is left out


@dataclass(frozen=True, slots=True)
class PackingView:
    """What is drawn beside the packing itself.

    Attributes:
        block: Index of the block whose text is shown.
        texts: The text of each segment of that block; empty to show none.
        sweep: The bill of other block sizes of the same corpus; fewer than two draw no curve.
        effects: What was measured on packed blocks.
    """

    block: int = 0
    texts: Sequence[str] = ()
    sweep: Sequence[PackingPoint] = ()
    effects: Sequence[CrossingEffect] = ()


def packing_html(packing: Packing, view: PackingView | None = None) -> str:
    """Return the whole picture as self-contained HTML.

    Args:
        packing: The blocks.
        view: What is chosen, and what is known besides.
    """
    body = f'<div class="ft-pk">{packing_body(packing, view or PackingView())}</div>'
    return css("packing") + card(TITLE, body)


def packing_body(packing: Packing, view: PackingView) -> str:
    """Return what stands inside the card."""
    pictures = blocks_svg(packing, view.block)
    if len(view.sweep) > 1:
        pictures += sizes_svg(packing, view.sweep)
    text = f"<div>{_text(packing, view)}</div>" if view.texts else ""
    return (
        f'{_stats(packing)}{_LEGEND}<div class="halves"><div>{pictures}</div>{text}</div>'
        f"{_measured(packing, view.effects) if view.effects else ''}"
        f'<p class="ft-say">{escape(_SAY)}</p>'
    )


_LEGEND = (
    '<p class="legend"><span class="key d0"></span><span class="key d1"></span> one colour, one '
    'document <span class="key border"></span> a document begins <span class="key cross"></span> '
    "sees an earlier document, too</p>"
)


def _stats(packing: Packing) -> str:
    dropped = f"tokens dropped ({packing.dropped / packing.tokens:.2%})"
    return (
        '<div class="ft-stat">'
        + stat(f"{packing.blocks:,}", f"blocks of {packing.block_size:,} tokens")
        + stat(f"{packing.crossing_share:.1%}", "of the predictions see another document")
        + stat(f"{packing.documents_per_block:.2f}", "documents a block")
        + stat(f"{packing.dropped:,}", dropped)
        + "</div>"
    )


# --- the text of one block -------------------------------------------------------------------


def _text(packing: Packing, view: PackingView) -> str:
    segments = packing.segments(view.block)
    pieces = "".join(map(_piece, segments, view.texts, range(len(segments))))
    heading = f"Block {view.block} as the model reads it"
    return f"<h3>{heading}</h3><div class='text'>{pieces}</div>"


def _piece(segment: Segment, text: str, place: int) -> str:
    sees = "sees the documents above, too" if place else "sees only itself"
    where = f"document {segment.document} · positions {segment.start}–{segment.stop - 1} · {sees}"
    kind = f"piece d{hue(segment.document)}{' cross' if place else ''}"
    return f'<div class="{kind}"><b>{where}</b><p>{escape(_shortened(text))}</p></div>'


def _shortened(text: str) -> str:
    if len(text) <= _SHOWN_TEXT:
        return text
    half = _SHOWN_TEXT // 2
    return f"{text[:half]} […] {text[-half:]}"


# --- what was measured -----------------------------------------------------------------------

_COLUMNS = (
    *("block size (tokens)", "see another document", "loss, packed (nats)"),
    *("loss, each document alone", "gradient norm, packed", "alone", "cosine of the gradients"),
)


def _measured(packing: Packing, effects: Sequence[CrossingEffect]) -> str:
    rows = [
        (e.block_size, f"{e.share:.1%}", float(e.packed.mean()), float(e.alone.mean()),
         e.packed_gradient, e.alone_gradient, e.cosine)
        for e in effects
    ]  # fmt: skip
    here = next((e for e in effects if e.block_size == packing.block_size), None)
    return (
        "<h3>Measured on the model: the same tokens with and without the other documents</h3>"
        f"{rows_html(_COLUMNS, rows)}{_borders(here) if here else ''}"
    )


def _borders(effect: CrossingEffect) -> str:
    bins = effect.after_border()
    if not bins:
        return ""
    rows = [
        (f"{b.low}" if b.low == b.high else f"{b.low}–{b.high}", b.number, b.packed, b.alone,
         b.packed - b.alone)
        for b in bins
    ]  # fmt: skip
    columns = (
        *("tokens seen of the own document", "predictions", "loss, packed (nats)"),
        *("loss, alone", "packed − alone"),
    )
    heading = f"Behind a border, blocks of {effect.block_size} tokens: does it help or harm?"
    return f"<details open><summary>{heading}</summary>{rows_html(columns, rows)}</details>"
