"""Which notebooks make the course, and how a reader names them."""

from pathlib import Path

import pytest

from ftkit.cli import course
from ftkit.errors import SettingsError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("10_costs.ipynb", "02_sft.ipynb", "00_map.ipynb", "scratch.ipynb", "02_sft.html"):
        (tmp_path / name).touch()
    return tmp_path


def test_stages_come_in_course_order_and_nothing_else_counts(folder: Path) -> None:
    assert [stage.name for stage in course.stages(folder)] == ["00_map", "02_sft", "10_costs"]


@pytest.mark.parametrize("name", ["02", "2", "sft", "SFT", "02_sft", " sft "])
def test_a_stage_answers_to_number_topic_and_both(folder: Path, name: str) -> None:
    assert [stage.topic for stage in course.choose(course.stages(folder), [name])] == ["sft"]


def test_by_default_the_chain_from_sft_to_ppo_runs_as_far_as_it_is_there(folder: Path) -> None:
    assert [stage.number for stage in course.default(course.stages(folder))] == ["02"]
    for name in ("04_reward_model.ipynb", "06_ppo.ipynb"):
        (folder / name).touch()
    assert [stage.number for stage in course.default(course.stages(folder))] == ["02", "04", "06"]


def test_chosen_stages_keep_course_order_and_come_once(folder: Path) -> None:
    chosen = course.choose(course.stages(folder), ["costs", "2", "sft", "0"])
    assert [stage.number for stage in chosen] == ["00", "02", "10"]


@pytest.mark.parametrize("name", ["", "1", "sf", "2_sft.ipynb"])
def test_an_unknown_name_lists_the_known_ones(folder: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="the stages are: 00 map, 02 sft, 10 costs"):
        course.choose(course.stages(folder), [name])


def test_the_clones_own_notebooks_come_first() -> None:
    assert course.home() == Path(__file__).parents[2] / "notebooks"
