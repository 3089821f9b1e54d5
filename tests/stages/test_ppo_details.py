"""The table of implementation details points to lines and switches that exist."""

from collections import Counter
from dataclasses import fields

import pytest

from ftkit.stages.ppo import PPOConfig
from ftkit.stages.ppo.details import DETAILS, details
from ftkit.views import to_html


@pytest.mark.parametrize("detail", DETAILS, ids=lambda detail: detail.number)
def test_a_detail_names_a_line_that_stands_once_in_its_file(detail) -> None:
    assert (detail.line is None) == (detail.verdict == "dropped")


def test_all_details_of_the_paper_are_there() -> None:
    kinds = Counter(detail.number[0] for detail in DETAILS if detail.number[1:].isdigit())
    assert kinds == {"G": 6, "R": 3, "P": 11}


def test_switches_are_fields_of_the_config() -> None:
    known = {field.name for field in fields(PPOConfig)}
    assert {name for detail in DETAILS for name in detail.switches} <= known


def test_what_is_kept_has_a_switch_or_says_why_there_is_none() -> None:
    for detail in DETAILS:
        if detail.verdict == "kept":
            assert bool(detail.switches) != ("No switch:" in detail.how), detail.number


def test_a_line_opens_to_the_code_around_it_with_the_line_marked() -> None:
    html = to_html(details())
    detail = next(d for d in DETAILS if d.number == "P8")
    _, found, code = html.partition(f"<summary><code>{detail.line}</code></summary>")
    assert found
    shown = code.partition("</pre>")[0]
    marked = shown.partition("<mark>")[2].partition("</mark>")[0]
    assert marked.split(maxsplit=2) == ["▸", str(detail.line.number), detail.code]
    assert shown.count("\n") == 13
    assert html.count("<details") == sum(d.line is not None for d in DETAILS)


def test_the_table_shows_file_and_line() -> None:
    table = details().to_pandas().set_index("detail")
    assert table.loc["P8", "line in ftkit/"].startswith("stages/ppo/scoring.py:")
    assert table.loc["R3", "line in ftkit/"] == "–"
