"""The planners without a browser: their state, their tables, what they leave in a notebook."""

import re

import pytest
from ipywidgets import Widget
from traitlets import TraitError
from transformers import LlamaConfig

from ftkit.errors import SettingsError
from ftkit.stages import costs
from ftkit.stages.costs import MemoryPlan
from ftkit.widgets import CostPlanner, MemoryPlanner, viewer

VIEW_MIME = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def memory() -> MemoryPlanner:
    return MemoryPlanner()


def test_every_choice_redraws(memory) -> None:
    seen = [memory._html]
    for name, value in {
        "model": "llama-3.2-1b",
        "stage": "ppo",
        "batch": 2,
        "length": 1024,
        "new_tokens": 512,
        "lora_r": 64,
        "checkpointing": True,
        "head": "fused",
        "optimizer": "adamw_8bit",
        "roles": "copies",
        "weights": "bfloat16",
    }.items():
        setattr(memory, name, value)
        assert memory._html not in seen, name
        seen.append(memory._html)


def test_full_fine_tuning_takes_weights_that_can_be_trained(memory) -> None:
    memory.stage, memory.method = "ppo", "full"
    assert (memory.weights, memory.compute, memory.roles) == ("bfloat16", "bfloat16", "copies")
    assert "four models" in memory._html


def test_choices_that_exclude_each_other_are_explained(memory) -> None:
    memory.stage, memory.new_tokens = "grpo", 512
    assert 'role="alert"' in memory._html
    assert "must be below length=512" in memory._html
    memory.length = 1024
    assert 'role="alert"' not in memory._html


def test_the_picture_is_the_estimate(memory) -> None:
    assert memory._html in memory.to_html()
    assert "<script" not in memory.to_html()
    expected = costs.fit("llama-3.1-8b", MemoryPlan())
    assert memory.estimate == expected
    assert str(memory) == str(expected)
    assert memory.to_pandas().equals(expected.to_pandas())


def test_your_own_config_joins_the_known_models() -> None:
    own = LlamaConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=1, vocab_size=99)
    planner = MemoryPlanner(own, MemoryPlan(batch=1), cards=[0.001])
    assert planner.model == "llama"
    assert "llama" in planner._models
    assert planner.estimate.parameters == costs.ModelShape.of(own).parameters
    planner.model = "gpt2"
    planner.model = "llama"
    assert len(planner.estimate.cards) == 1


def test_bad_choices_are_refused(memory) -> None:
    with pytest.raises(TraitError, match="model 'gpt-9' is unknown"):
        memory.model = "gpt-9"
    with pytest.raises(TraitError, match="stage"):
        memory.stage = "rlhf"
    with pytest.raises(SettingsError, match="known model"):
        MemoryPlanner("no/such/model")
    with pytest.raises(SettingsError, match="size above 0"):
        MemoryPlanner(cards=[-1])


def test_ranges_move_the_bill_and_stop_being_examples() -> None:
    planner = CostPlanner()
    assert planner.estimate == costs.simulate(costs.example_bill())
    names = [label["name"] for label in planner._labels]
    at = names.index("price of a label")
    assert "price of a label" in planner.estimate.notes[0]
    ranges = [list(ends) for ends in planner.ranges]
    ranges[at] = [0.3, 0.31]
    planner.ranges = ranges
    assert planner.estimate.most_uncertain.factor != "price of a label"
    assert "price of a label" not in planner.estimate.notes[0]
    assert planner._html in planner.to_html()


def test_an_impossible_range_is_explained_in_the_picture() -> None:
    planner = CostPlanner()
    planner.ranges = [planner.ranges[0], [0.5, 0.2], *planner.ranges[2:]]
    assert "utilization: Range: low=0.5 must not be negative, nor above high=0.2" in planner._html
    with pytest.raises(TraitError, match="pairs of a low and a high end"):
        planner.ranges = planner.ranges[1:]


def test_another_accelerator_takes_other_hours() -> None:
    planner = CostPlanner()
    before = planner.ranges[0][0]
    planner.hardware = "A100 SXM 80GB"
    assert planner.ranges[0][0] == pytest.approx(before * 989 / 312)
    assert planner._labels[0]["unit"] == "A100 SXM 80GB hours"


def test_a_bill_of_your_own() -> None:
    bill = {"rent": [costs.Factor("months", costs.Range.exactly(12)),
                     costs.Factor("price", costs.Range(100, 400))]}  # fmt: skip
    planner = CostPlanner(bill, title="Room", currency="EUR")
    assert planner._cards == []
    assert str(planner).startswith("Room: 1,2")
    assert list(planner.to_pandas()["term"]) == ["rent", "total"]
    planner.ranges = [[6, 6], [100, 400]]
    assert planner.estimate.median == pytest.approx(1200, rel=0.02)
    with pytest.raises(SettingsError, match="empty"):
        CostPlanner({})
    with pytest.raises(ValueError, match="not both"):
        CostPlanner(bill, compute=costs.Compute())


@pytest.mark.parametrize("planner", [MemoryPlanner, CostPlanner])
def test_in_static_mode_no_widget_state_is_left_behind(planner, monkeypatch) -> None:
    monkeypatch.setenv("FTKIT_STATIC", "1")
    before = set(Widget.widgets)
    assert set(planner()._repr_mimebundle_()) == {"text/html", "text/plain"}
    assert set(Widget.widgets) == before


@pytest.mark.parametrize("planner", [MemoryPlanner, CostPlanner])
def test_live_it_brings_the_static_picture_along(planner, monkeypatch) -> None:
    monkeypatch.setattr(viewer, "is_static", lambda: False)
    data, _ = planner()._repr_mimebundle_()
    assert sorted(data) == sorted([VIEW_MIME, "text/html", "text/plain"])
    Widget.close_all()


@pytest.mark.parametrize(
    ("planner", "name"), [(MemoryPlanner, "memory_planner"), (CostPlanner, "cost_planner")]
)
def test_the_scripts_use_only_traits_that_exist(planner, name) -> None:
    text = viewer.script(name)
    used = set(re.findall(r'model\.get\("(\w+)"\)', text)) | set(
        re.findall(r'^  \["(\w+)", "', text, re.MULTILINE)
    )
    assert used <= set(planner.class_traits(sync=True))
    assert "_html" in used
    assert text.count("innerHTML") == 1, "only what the view has escaped"


@pytest.mark.parametrize("planner", [MemoryPlanner, CostPlanner])
def test_no_trait_hides_one_that_every_widget_has(planner) -> None:
    assert planner.layout is viewer.Viewer.layout
    assert set(vars(planner)) & set(viewer.Viewer.class_traits(sync=True)) <= {"_esm", "_css"}
