"""An executed notebook as one HTML file that works offline, in light and in dark, without scripts.

nbconvert's own page loads require.js, MathJax and Mermaid from a content network. This one loads
nothing: formulas are drawn here, and a policy in the page forbids every script and every request.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import pass_context
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

from ftkit.cli import formula

POLICY = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:\">"
)

_TEMPLATE = (
    """
{% extends 'lab/index.html.j2' %}
{% block html_head_js %}"""
    + POLICY
    + """{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block html_head_css %}
<style>
@media (prefers-color-scheme: dark) { {% include 'static/theme-dark.css' %} }
:root { color-scheme: light dark }
body.jp-Notebook { max-width: 1180px; margin: 0 auto; padding: 16px clamp(8px, 3vw, 40px) 64px }
.ft-home { font: 14px/1.6 system-ui, sans-serif; display: inline-block; margin: 4px 0 12px;
  color: var(--jp-content-link-color) }
.jp-Cell { padding: 4px 0 }
.jp-OutputArea-output, .jp-InputArea-editor { overflow-x: auto }
.ft-formula { text-align: center; margin: 1em 0; overflow-x: auto; font-size: 1.35em }
@media (max-width: 700px) { .jp-InputPrompt, .jp-OutputPrompt { display: none } }
</style>
{% endblock %}
{% block body_header %}
<body class="jp-Notebook">
<a class="ft-home" href="index.html">← all notebooks of this tour</a>
<main>
{% endblock %}
"""
)


def to_html(notebook: NotebookNode, title: str) -> str:
    """Return `notebook` with its outputs as one self-contained page, named `title`."""
    resources = {"metadata": {"name": title}}
    html, _ = _exporter().from_notebook_node(notebook, resources=resources)
    return str(html)


def markdown(source: str, attachments: Mapping[str, dict[str, str]] | None = None) -> str:
    """Return Markdown `source` as HTML, formulas drawn; HTML inside it is kept as it is."""
    renderer = _Renderer(
        escape=False, attachments=dict(attachments or {}), exclude_anchor_links=True
    )
    return str(MarkdownWithMath(renderer=renderer).render(source))


@cache
def _exporter() -> HTMLExporter:
    return _Exporter(raw_template=_TEMPLATE)


class _Renderer(IPythonRenderer):
    """Markdown whose formulas are drawings."""

    def block_math(self, body: str) -> str:
        return f'<div class="ft-formula">{formula.to_svg(body)}</div>'

    def inline_math(self, body: str) -> str:
        return formula.to_svg(body)

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")


class _Exporter(HTMLExporter):
    """nbconvert's page with our Markdown."""

    def default_filters(self) -> Any:
        yield from super().default_filters()
        yield "markdown2html", _markdown_of_cell


@pass_context
def _markdown_of_cell(context: Any, source: str) -> str:
    return markdown(source, context.get("cell", {}).get("attachments"))
