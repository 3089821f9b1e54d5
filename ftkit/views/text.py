"""Token text as HTML that is exact and yet shows what the eye would miss.

The text nodes are the token's own characters, so that copying gives the real text. Marks (⏎, ·,
code points) are CSS generated content on small ``<i>`` elements and are never copied. HTML cannot
hold two kinds of characters, U+0000 and lone surrogates: they become U+FFFD, with their code point
as the mark.
"""

import unicodedata
from html import escape

_JOINERS = "\u200c\u200d"
_RTL = {"R", "AL", "AN", "RLE", "RLO", "RLI"}
_NAMES = {"\t": "⇥", "\r": "CR", "\u00a0": "NBSP", "\u200b": "ZWSP", "\ufeff": "BOM"}


def token_text(text: str) -> tuple[str, str]:
    """Return the HTML of a token's text, and the classes that the token needs for it.

    Classes: ``l`` one leading space (marked by the token's background), ``w`` whitespace alone,
    ``r`` contains right-to-left text and must be isolated.
    """
    if text.isascii() and text.isprintable() and " " not in text[1:] and text != " ":
        return escape(text), "l" if text[:1] == " " else ""
    html = "".join(_run(run) for run in _runs(text))
    names = ["w"] if text and text.isspace() else []
    if any(unicodedata.bidirectional(ch) in _RTL for ch in text):
        names.append("r")
    return html, " ".join(names)


def visible(text: str) -> str:
    """Return `text` in one readable line for tooltips and screen readers: ⏎ and code points."""
    return "".join(
        "⏎" if ch == "\n" else ch if ch.isprintable() or ch in _JOINERS else f"[{_name(ch)}]"
        for ch in text
    )


def _runs(text: str) -> list[str]:
    """Split into runs of equal treatment; each unprintable character is a run of its own."""
    runs: list[str] = []
    for ch in text:
        joinable = runs and _kind(runs[-1][-1], text) == _kind(ch, text) in ("plain", "space")
        if joinable:
            runs[-1] += ch
        else:
            runs.append(ch)
    if runs and unicodedata.category(runs[0][0]).startswith("M"):
        runs[:1] = [runs[0][0], runs[0][1:]]
    return [run for run in runs if run]


def _kind(ch: str, text: str) -> str:
    if ch == " ":
        return "space"
    joins = ch in _JOINERS and len(text) > 1
    return "plain" if ch.isprintable() or joins else "marked"


def _run(run: str) -> str:
    first = run[0]
    if first == "\n":
        return '<i class="n">\n</i>'
    if first == " ":
        return f'<i class="s">{run}</i>'
    if len(run) == 1 and unicodedata.category(first).startswith("M"):
        return f'<i class="m">{run}</i>'
    if first.isprintable() or len(run) > 1:
        return escape(run)
    return f'<i class="c" data-c="{_name(first)}">{_storable(first)}</i>'


def _name(ch: str) -> str:
    return _NAMES.get(ch, f"U+{ord(ch):04X}")


def _storable(ch: str) -> str:
    if ch == "\r":
        return "&#13;"
    return "\ufffd" if ch == "\0" or "\ud800" <= ch <= "\udfff" else ch
