"""The course as a way through boxes, each a link; and the glossary as a table with links."""

from collections.abc import Iterable
from html import escape

from ftkit.records.syllabus import Course, Glossary, Notebook, Term
from ftkit.views._registry import to_html
from ftkit.views.style import card, css

_DATA = {
    "pre-training": "raw text",
    "SFT": "<input, output>",
    "with a judge": "<input, accept, reject>, then prompts",
    "from pairs directly": "<input, accept, reject>",
    "from groups of answers": "prompts and a reward",
}
_SAY = "Each box is a notebook, and a link. Below each step: the data that it eats."


@to_html.register
def course_html(record: Course) -> str:
    """Return the card of the course: two phases, left to right, and what concerns all of them."""
    first = _phase("Phase 1 · pre-trained", "预训练", _step(record, "pre-training"))
    align = "".join(_lane(name, record) for name in _lanes(record))
    aligning = f'<div class="step"><h4>then alignment 对齐, one of</h4>{align}</div>'
    supervised = _step(record, "SFT", "first SFT 监督微调")
    second = _phase("Phase 2 · fine-tuned", "微调", f"{supervised}{_arrow()}{aligning}")
    way = f'<div class="way">{first}{_arrow()}{second}</div>'
    every = "".join(map(_stop, record.at("every stage")))
    around = (
        f'<div class="around"><h4>Concerns every stage</h4><div class="row">{every}</div></div>'
    )
    body = f'<div class="ft-course">{way}{around}</div>'
    return css("course") + card("The way of a model", body, say=_SAY)


@to_html.register
def glossary_html(record: Glossary) -> str:
    """Return the card of the glossary."""
    body = "".join(map(_term, record.terms))
    head = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("English", "中文", "in one sentence", "notebooks")
    )
    table = (
        '<div class="ft-glossary ft-scroll"><table class="ft-table ft-rows"><thead><tr>'
        f"{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
    title = f"Glossary: {record.wanted}" if record.wanted else "Glossary"
    return css("course") + card(title, table, aside=f"{len(record.terms)} terms")


def _phase(name: str, chinese: str, inside: str) -> str:
    head = f'<h3>{name} <span lang="zh">{chinese}</span></h3>'
    return f'<section class="phase">{head}<div class="steps">{inside}</div></section>'


def _step(record: Course, step: str, title: str = "") -> str:
    head = f"<h4>{title}</h4>" if title else ""
    stops = "".join(map(_stop, record.at(step)))
    return f'<div class="step">{head}{stops}<p class="data">{escape(_DATA[step])}</p></div>'


def _lanes(record: Course) -> Iterable[str]:
    return dict.fromkeys(notebook.lane for notebook in record.at("alignment"))


def _lane(name: str, record: Course) -> str:
    stops = _arrow().join(_stop(n) for n in record.at("alignment") if n.lane == name)
    data = f'<p class="data"><b>{escape(name)}</b> {escape(_DATA.get(name, ""))}</p>'
    return f'<div class="lane"><div class="row">{stops}</div>{data}</div>'


def _stop(notebook: Notebook) -> str:
    return (
        f'<a class="stop" href="{escape(notebook.file)}"><b>{escape(notebook.number)} '
        f"{escape(notebook.title)}</b><small>{escape(notebook.shows)}</small></a>"
    )


def _arrow() -> str:
    return '<i class="arrow" aria-hidden="true">→</i>'


def _term(term: Term) -> str:
    links = ", ".join(
        f'<a href="{escape(n.file)}" title="{escape(n.title)}">{escape(n.number)}</a>'
        for n in term.seen
    )
    return (
        f'<tr><th scope="row">{escape(term.english)}</th><td lang="zh">{escape(term.chinese)}</td>'
        f"<td>{escape(term.meaning)}</td><td>{links}</td></tr>"
    )
