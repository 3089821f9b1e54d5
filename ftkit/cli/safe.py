"""HTML from a notebook's outputs, made safe to stand in a page of ours.

The page's Content-Security-Policy already forbids scripts and requests. This is the second lock,
and it closes tags that an output left open, so that one picture cannot swallow the next.
"""

from bs4 import BeautifulSoup, Tag

_FORBIDDEN = (
    "script", "iframe", "frame", "object", "embed", "applet",
    "link", "meta", "base", "form", "template",
)  # fmt: skip
_ADDRESSES = {"href", "src", "action", "formaction", "xlink:href", "data", "srcdoc"}


def clean(html: str) -> str:
    """Return `html` balanced, without scripts, event handlers, frames and active addresses."""
    soup = BeautifulSoup(html, "html.parser")
    for tag in soup.find_all(_FORBIDDEN):
        tag.decompose()
    for tag in soup.find_all(True):
        _disarm(tag)
    return str(soup)


def _disarm(tag: Tag) -> None:
    for name in list(tag.attrs):
        address = "".join(str(tag.attrs[name]).split()).lower()
        active = name.lower() in _ADDRESSES and not address.startswith(
            ("#", "http:", "https:", "data:image/", "mailto:")
        )
        if name.lower().startswith("on") or active:
            del tag.attrs[name]
