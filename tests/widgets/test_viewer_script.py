"""Explorers share one script: what they call is there, once, and keys stay in the card."""

import re
from importlib.resources import files

import pytest

from ftkit.views.style import sheet
from ftkit.widgets import PPOLossExplorer, RewardLossExplorer
from ftkit.widgets.viewer import script

EXPLORERS = {"ppo_loss_explorer": PPOLossExplorer, "reward_loss_explorer": RewardLossExplorer}

OTHERS = (
    *("cost_planner", "dpo_explorer", "grpo_explorer", "memory_planner"),
    *("neftune_explorer", "packing_explorer"),
)


@pytest.mark.parametrize("name", EXPLORERS)
def test_a_script_is_one_module_without_a_name_declared_twice(name) -> None:
    text = script(name)
    names = re.findall(r"^(?:async )?(?:function|const|let|class) (\w+)", text, re.MULTILINE)
    assert len(names) == len(set(names))
    assert {"element", "slider", "picture", "explorer", "render"} <= set(names)
    assert text.count("export default") == 1
    assert text.count("lmSuppressShortcuts") == 1
    assert text.count("innerHTML") == 1, "only what the view has escaped"
    assert str(EXPLORERS[name]._esm) == text


@pytest.mark.parametrize("name", OTHERS)
def test_no_explorer_declares_a_shared_name_again(name) -> None:
    names = re.findall(
        r"^(?:async )?(?:function|const|let|class) (\w+)", script(name), re.MULTILINE
    )
    assert len(names) == len(set(names))
    assert script(name).count("export default") == 1
    assert script(name).count("lmSuppressShortcuts") == 1


@pytest.mark.parametrize("name", EXPLORERS)
def test_the_picture_has_the_class_that_its_sheet_styles(name) -> None:
    (used,) = re.findall(r'picture\(model, "([\w-]+)"', script(name).split("export default")[0])
    assert f".ftkit .{used} " in sheet(name.removesuffix("_explorer"))
    explorer = EXPLORERS[name]()
    assert f'class="{used}"' in explorer.to_html()


def test_what_is_shared_stands_alone() -> None:
    shared = (files("ftkit.widgets") / "explorer.js").read_text(encoding="utf-8")
    assert "export" not in shared
    assert "import " not in shared


@pytest.mark.parametrize("name", EXPLORERS)
def test_a_script_asks_only_for_traits_that_exist(name) -> None:
    asked = {*re.findall(r'model\.get\("(\w+)"\)', script(name))}
    asked |= set(re.findall(r'name: "(\w+)"', script(name)))
    assert "_html" in asked
    assert asked <= set(EXPLORERS[name].class_traits(sync=True))
