"""`import ftkit` is light, and its public names are there."""

import copy
import json
import subprocess
import sys

import pytest

import ftkit

HEAVY = (
    *("torch", "transformers", "trl", "peft", "datasets", "bitsandbytes", "numpy", "pandas"),
    *("matplotlib", "IPython", "ipywidgets", "anywidget", "typer", "nbclient"),
)


def loaded_by(statement: str) -> set[str]:
    """Return the top-level packages that a fresh interpreter holds after `statement`."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_importing_ftkit_loads_nothing_heavy() -> None:
    assert loaded_by("import ftkit") & set(HEAVY) == set()


def test_settings_and_display_need_nothing_heavy_either() -> None:
    used = "import ftkit; ftkit.settings('smoke'); ftkit.display('html'); ftkit.display()"
    assert loaded_by(used) & set(HEAVY) == set()


def test_ppo_leaves_out_what_only_other_stages_need() -> None:
    used = "import ftkit; ftkit.PPOTrainer; ftkit.data.sentiment_prompts()"
    assert loaded_by(used) & {"trl", "datasets", "pandas", "pyarrow"} == set()


@pytest.mark.parametrize("order", ["ftkit.stages.dpo, ftkit.stages", "ftkit.stages"])
def test_a_function_comes_before_the_module_of_its_name(order) -> None:
    loaded_by(f"import {order}\nfrom ftkit.stages import dpo\nassert callable(dpo)")


def test_submodules_are_there_without_an_import_of_their_own() -> None:
    loaded_by("import ftkit; ftkit.stages.ppo.details; ftkit.stages.costs; ftkit.chat.render")


def test_a_room_can_be_pickled_as_functions_that_use_it_are() -> None:
    assert copy.copy(ftkit.stages) is ftkit.stages


@pytest.mark.parametrize("name", ftkit.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(ftkit, name) is not None
    assert name in dir(ftkit)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        ftkit.lode  # noqa: B018
