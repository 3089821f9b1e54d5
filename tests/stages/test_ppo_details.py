"""The table of implementation details points to lines and switches that exist."""

from collections import Counter
from dataclasses import fields

import pytest

from ftkit.stages.ppo import PPOConfig
from ftkit.stages.ppo.details import DETAILS, details


@pytest.mark.parametrize("detail", DETAILS, ids=lambda detail: detail.number)
def test_a_detail_names_a_line_that_stands_once_in_its_file(detail) -> None:
    assert (detail.line is None) == (detail.verdict == "dropped")


def test_all_details_of_the_paper_are_there() -> None:
    kinds = Counter(detail.number[0] for detail in DETAILS if detail.number[1:].isdigit())
    assert kinds == {"G": 6, "R": 3, "P": 11}


def test_switches_are_fields_of_the_config() -> None:
    known = {field.name for field in fields(PPOConfig)}
    assert {name for detail in DETAILS for name in detail.switches} <= known


def test_the_table_shows_file_and_line() -> None:
    table = details().to_pandas().set_index("detail")
    assert table.loc["P8", "line in ftkit/"].startswith("stages/ppo/scoring.py:")
    assert table.loc["R3", "line in ftkit/"] == "–"
