"""The pieces of the tour's pages: cleaned HTML, formulas, clocks, whole files."""

import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from ftkit.cli import export, formula, page, progress, safe
from ftkit.records import files


@pytest.mark.parametrize(
    "html",
    [
        "<script>evil()</script>",
        "<svg><script>evil()</script></svg>",
        "<img src=x onerror=evil()>",
        "<p OnClick='evil()'>x</p>",
        "<a href='java\nscript:evil()'>x</a>",
        "<a href=' JavaScript:evil()'>x</a>",
        "<svg><a xlink:href='javascript:evil()'>x</a></svg>",
        "<iframe srcdoc='<b onload=evil()>'></iframe>",
        "<object data='data:text/html,evil()'></object>",
        "<embed src='data:text/html,evil()'>",
        "<form action='https://x.example/evil()'><button>x</button></form>",
        "<base href='https://evil()/'>",
        "<meta http-equiv=refresh content='0;url=evil()'>",
    ],
)
def test_nothing_active_survives_cleaning(html: str) -> None:
    assert "evil" not in safe.clean(html)


def test_cleaning_closes_what_was_left_open_and_keeps_views_whole() -> None:
    view = '<style>.a{color:red}</style><div class="ftkit"><svg viewBox="0 0 1 1"></svg></div>'
    assert BeautifulSoup(safe.clean(view), "html.parser").svg is not None
    assert "<style>.a{color:red}</style>" in safe.clean(view)
    assert safe.clean("<section><div>text").endswith("text</div></section>")


def test_a_formula_is_drawn_in_the_colour_of_its_text() -> None:
    svg = formula.to_svg(r"\mathcal{L} = -\frac{1}{|M|}\sum_{t \in M} \log p_\theta(x_t)")
    assert svg.startswith('<svg role="img" aria-label="\\mathcal{L}')
    assert 'fill="currentColor"' in svg
    assert re.search(r'd="M[-0-9 ]+', svg)


def test_a_formula_beyond_the_drawer_stays_readable_and_escaped() -> None:
    assert formula.to_svg(r"\begin{x}a<b") == r"<code>\begin{x}a&lt;b</code>"


def test_an_exported_notebook_names_itself_and_draws_its_formulas() -> None:
    cells = [new_markdown_cell("# T\n\n$$x<y$$"), new_code_cell("a < 1")]
    html = export.to_html(new_notebook(cells=cells), "02_sft")
    assert "<title>02_sft</title>" in html
    assert '<div class="ft-formula"><svg aria-label="x&lt;y"' in html
    assert "prefers-color-scheme: dark" in html
    assert "data-jp-theme-light" not in html.split("<body")[1].split(">")[0]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (3840, "1 h 04 min")],
)
def test_durations_read_as_people_say_them(seconds: float, said: str) -> None:
    assert page.span(seconds) == said


def test_the_clock_tells_a_remaining_time_only_when_it_knows_one() -> None:
    assert progress.clock(65, None) == "1:05"
    assert progress.clock(65, 200) == "1:05, about 2:15 left"
    assert progress.clock(201, 200) == "3:21, over the usual 3:20"


def test_writing_replaces_the_whole_file_and_leaves_no_draft(tmp_path: Path) -> None:
    target = tmp_path / "index.html"
    target.write_text("old")
    files.write(target, "new ✓")
    assert target.read_text(encoding="utf-8") == "new ✓"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch) -> None:
    target = tmp_path / "index.html"
    target.write_text("old")

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        files.write(target, "new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_empty_folder_gives_a_page_without_notebooks(tmp_path: Path) -> None:
    assert "0 of 0 notebooks" in page.write(tmp_path).read_text(encoding="utf-8")
