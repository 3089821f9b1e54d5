"""The one look of every view: palette, card, and the style sheets beside this module.

Hues are Okabe-Ito's, darkened or lightened until text in them reaches a contrast of 4.5:1 on the
card. Colour never speaks alone: each view adds a second mark (fill, underline, hatch, symbol).
"""

from functools import cache
from html import escape
from importlib.resources import files

LIGHT: dict[str, str] = {
    "bg": "#ffffff",
    "fg": "#1c2128",
    "mut": "#5b6470",
    "line": "#d9dee5",
    "card": "#ffffff",
    "soft": "#f4f6f9",
    "user": "#0072b2",
    "sys": "#7a5195",
    "asst": "#d55e00",
    "tool": "#00795a",
    "pos": "#009e73",
    "neg": "#d55e00",
    "acc": "#0072b2",
    "warn": "#8a5d00",
    "ok": "#0b7a5b",
}
DARK: dict[str, str] = {
    "bg": "#111418",
    "fg": "#e6e9ee",
    "mut": "#9aa4b2",
    "line": "#303742",
    "card": "#181c22",
    "soft": "#20262e",
    "user": "#56b4e9",
    "sys": "#c39bd3",
    "asst": "#f0a35e",
    "tool": "#3fc59a",
    "pos": "#3fc59a",
    "neg": "#f0a35e",
    "acc": "#56b4e9",
    "warn": "#e3b341",
    "ok": "#3fc59a",
}

# A host that says light or dark wins over the operating system's preference.
_LIGHT_HOSTS = 'body[data-jp-theme-light="true"] .ftkit,body.vscode-light .ftkit'
_DARK_HOSTS = (
    'body[data-jp-theme-light="false"] .ftkit,body.vscode-dark .ftkit,html[theme="dark"] .ftkit'
)


def palette_css() -> str:
    """Return the CSS variables ``--ft-*`` of class ``.ftkit``, light and dark."""
    light, dark = _block("light", LIGHT), _block("dark", DARK)
    return (
        f".ftkit{{{light}}}\n@media (prefers-color-scheme:dark){{.ftkit{{{dark}}}}}\n"
        f"{_LIGHT_HOSTS}{{{light}}}\n{_DARK_HOSTS}{{{dark}}}\n"
    )


def css(*sheets: str) -> str:
    """Return one ``<style>`` block: palette, shared rules, then each of `sheets` in order.

    Args:
        *sheets: Names of style sheets beside this module, without ``.css``, e.g. ``"strip"``.
    """
    return f"<style>{rules(*sheets)}</style>"


def rules(*sheets: str) -> str:
    """Return what `css` wraps, as plain CSS: for widgets, which bring their own ``<style>``."""
    return palette_css() + "".join(sheet(name) for name in ("style", *sheets))


@cache
def sheet(name: str) -> str:
    """Return the text of the style sheet ``<name>.css`` beside this module."""
    return (files("ftkit.views") / f"{name}.css").read_text(encoding="utf-8")


def card(title: str, body: str, *, aside: str = "", say: str = "") -> str:
    """Return one card, without styles; put `css` once in front of it.

    Args:
        title: Plain text; escaped here.
        body: HTML, already escaped where it carries data.
        aside: HTML at the right of the title: controls, or a short remark.
        say: One plain sentence below the body that says what it means; escaped here.
    """
    side = f'<div class="ft-ctl">{aside}</div>' if aside else ""
    foot = f'<p class="ft-say">{escape(say)}</p>' if say else ""
    return (
        f'<div class="ftkit"><section class="ft-card" aria-label="{escape(title)}">'
        f"<header><h2>{escape(title)}</h2>{side}</header>{body}{foot}</section></div>"
    )


def stat(value: str, label: str) -> str:
    """Return one big number with its small label, both plain text; goes into ``.ft-stat``."""
    return f'<span class="ft-big">{escape(value)}<small>{escape(label)}</small></span>'


def _block(scheme: str, colours: dict[str, str]) -> str:
    variables = "".join(f"--ft-{name}:{value};" for name, value in colours.items())
    return f"color-scheme:{scheme};{variables}"
