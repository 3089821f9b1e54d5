"""The tour's index: one self-contained page with every notebook's title, state and pictures.

It is drawn from the executed copies in the folder alone, so it also shows notebooks that an earlier
tour left there. No scripts; everything that a notebook printed is cleaned and under a policy.
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from importlib.resources import files as resources
from pathlib import Path

from nbformat import NotebookNode

from ftkit import __version__
from ftkit.cli import course, export, safe, tour
from ftkit.errors import SettingsError
from ftkit.records import files
from ftkit.views.style import DARK, LIGHT

PICTURE_TAG = "picture"
_MARKS = {"ok": "✓ ran through", "failed": "✗ stopped", "interrupted": "‖ interrupted"}


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a notebook: its caption (plain text) and its HTML (cleaned)."""

    caption: str
    html: str


@dataclass(frozen=True, slots=True)
class Entry:
    """What the page says about one notebook; `title` and `intro` are Markdown."""

    name: str
    title: str
    intro: str
    record: tour.Record
    pictures: tuple[Picture, ...]


def write(out: Path) -> Path:
    """Write ``index.html`` over the executed notebooks in `out` and return its path."""
    index = out / "index.html"
    files.write(index, to_html(entries(out)))
    return index


def entries(out: Path) -> list[Entry]:
    """Return an entry for each executed copy in `out`, in course order."""
    try:
        found = course.stages(out)
    except SettingsError:
        return []
    read = ((stage.name, tour.read(stage.path)) for stage in found)
    return [_entry(name, notebook, r) for name, notebook in read if (r := tour.Record.of(notebook))]


def to_html(found: list[Entry]) -> str:
    """Return the whole page for the notebooks `found`."""
    sheet = (resources("ftkit.cli") / "page.css").read_text(encoding="utf-8")
    links = "".join(f'<a href="#{escape(e.name)}">{_inline(e.title)}</a>' for e in found)
    toc = f'<nav aria-label="Notebooks">{links}</nav>' if len(found) > 1 else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{export.POLICY}'
        f"<title>ftkit tour</title><style>{_palette()}{sheet}</style></head><body>"
        f"<header><p class=mark>ftkit</p><h1>What fine-tuning really did</h1>"
        f"<p class=lead>{escape(_summary(found))}</p>{toc}</header>"
        f"<main>{''.join(_section(entry) for entry in found)}</main>"
        "<footer><p><b>Next: change one thing.</b> Run <code>ftkit lab</code>, open the notebook "
        "and try what its last section suggests; the pictures above are what you compare with.</p>"
        f"<p>ftkit {escape(__version__)}</p></footer></body></html>\n"
    )


def span(seconds: float) -> str:
    """Return a duration as people say it: ``"48 s"``, ``"3 min 20 s"``, ``"1 h 04 min"``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _entry(name: str, notebook: NotebookNode, record: tour.Record) -> Entry:
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    blocks = [block.strip() for block in "\n\n".join(prose).split("\n\n") if block.strip()]
    lines = [line for block in blocks for line in block.splitlines()]
    title = next((line[2:].strip() for line in lines if line.startswith("# ")), name)
    bodies = ("\n".join(ln for ln in b.splitlines() if not ln.startswith("# ")) for b in blocks)
    intro = next((body for body in bodies if body and body[0] not in "#|<!"), "")
    return Entry(name, title, intro, record, tuple(_pictures(notebook)))


def _pictures(notebook: NotebookNode) -> Iterator[Picture]:
    for index, cell in enumerate(notebook.cells):
        if PICTURE_TAG in cell.metadata.get("tags", []):
            caption = tour.heading_above(notebook, index)
            for output in cell.get("outputs", []):
                if html := _drawn(output.get("data", {}), caption):
                    yield Picture(caption, html)


def _drawn(data: dict[str, str], caption: str) -> str:
    if "text/html" in data:
        return safe.clean(data["text/html"])
    if "image/svg+xml" in data:
        coded = base64.b64encode(data["image/svg+xml"].encode()).decode()
        return _image("image/svg+xml", coded, caption)
    return _image("image/png", data["image/png"], caption) if "image/png" in data else ""


def _image(kind: str, coded: str, caption: str) -> str:
    source = escape(f"data:{kind};base64,{''.join(coded.split())}")
    return f'<img alt="{escape(caption)}" src="{source}">'


def _section(entry: Entry) -> str:
    name, record = escape(entry.name), entry.record
    stopped = f"<pre class=stop>{escape(str(record.failure))}</pre>" if record.failure else ""
    return (
        f'<article id="{name}"><h2>{_inline(entry.title)}</h2><p class=chips>'
        f'<span class="chip {record.status}">{_MARKS[record.status]}</span>'
        f"<span class=chip>{span(record.seconds)}</span>"
        f"<span class=chip>{record.cells} cells</span>"
        f"<span class=chip>profile {escape(record.profile)}</span></p>"
        f"<div class=intro>{safe.clean(export.markdown(entry.intro))}</div>{stopped}"
        f'<p class=links><a class=open href="{name}.html">Read the executed notebook</a>'
        f'<a href="{name}.ipynb">{name}.ipynb</a></p>{_figures(entry.pictures)}</article>'
    )


def _figures(pictures: tuple[Picture, ...]) -> str:
    html, above = [], None
    for picture in pictures:
        new = picture.caption and picture.caption != above
        caption = f"<figcaption>{_inline(picture.caption)}</figcaption>" if new else ""
        html.append(f"<figure>{caption}<div class=shot>{picture.html}</div></figure>")
        above = picture.caption
    return "".join(html)


def _inline(text: str) -> str:
    """Return one line of Markdown as HTML without the paragraph around it."""
    html = safe.clean(export.markdown(text)).strip()
    return html.removeprefix("<p>").removesuffix("</p>")


def _summary(found: list[Entry]) -> str:
    done = sum(entry.record.status == "ok" for entry in found)
    total = span(sum(entry.record.seconds for entry in found))
    noun = "notebook" if len(found) == 1 else "notebooks"
    return f"{done} of {len(found)} {noun} ran through, in {total}."


def _palette() -> str:
    light, dark = ("".join(f"--{k}:{v};" for k, v in p.items()) for p in (LIGHT, DARK))
    scheme = "color-scheme:light dark;"
    return f":root{{{scheme}{light}}}@media(prefers-color-scheme:dark){{:root{{{dark}}}}}"
