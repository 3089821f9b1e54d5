"""The explorer without a browser: its state, its table, what it leaves in a notebook."""

import re

import pytest
from ipywidgets import Widget
from traitlets import TraitError

from ftkit.widgets import PPOLossExplorer, viewer

VIEW_MIME = "application/vnd.jupyter.widget-view+json"
SCRIPT = viewer.script("ppo_loss_explorer")


def test_every_control_redraws() -> None:
    explorer = PPOLossExplorer()
    assert "= <b>1.20</b>" in explorer._html
    explorer.ratio = 1.1
    assert "= <b>1.10</b>" in explorer._html
    explorer.clip_range = 0.05
    assert "= <b>1.05</b>" in explorer._html
    explorer.advantage = -2.0
    assert "= <b>−2.20</b>" in explorer._html


def test_static_html_shows_the_same_picture_as_the_widget() -> None:
    explorer = PPOLossExplorer(ratio=0.6, advantage=-1.0)
    assert explorer._html in explorer.to_html()
    assert "<script" not in explorer.to_html()


def test_the_table_is_the_text_twin() -> None:
    table = PPOLossExplorer(ratio=1.4).to_pandas()
    at = table[(table["ratio"] == 1.4)].set_index("advantage")
    assert at["objective"].tolist() == pytest.approx([1.2, -1.4])
    assert at["gradient by the ratio"].tolist() == [0.0, -1.0]
    assert at["clipped"].tolist() == [True, False]
    assert str(PPOLossExplorer()).endswith("1.200, clipped: gradient 0")
    assert str(PPOLossExplorer(ratio=1.0)).endswith("1.000, gradient by the ratio +1.00")


@pytest.mark.parametrize("wrong", [{"ratio": -0.1}, {"clip_range": 0.0}])
def test_numbers_out_of_range_are_refused(wrong) -> None:
    with pytest.raises(TraitError, match=next(iter(wrong))):
        PPOLossExplorer(**wrong)


def test_in_static_mode_no_widget_state_is_left_behind(monkeypatch) -> None:
    monkeypatch.setenv("FTKIT_STATIC", "1")
    before = set(Widget.widgets)
    bundle = PPOLossExplorer()._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    assert set(Widget.widgets) == before


def test_live_it_brings_the_static_picture_along(monkeypatch) -> None:
    monkeypatch.setattr(viewer, "is_static", lambda: False)
    data, _ = PPOLossExplorer()._repr_mimebundle_()
    assert sorted(data) == sorted([VIEW_MIME, "text/html", "text/plain"])
    Widget.close_all()


def test_the_script_uses_only_traits_that_exist() -> None:
    named = {*re.findall(r'name: "(\w+)"', SCRIPT), *re.findall(r'model\.get\("(\w+)"\)', SCRIPT)}
    assert {"ratio", "advantage", "clip_range", "_html", "_title"} == named
    assert named <= set(PPOLossExplorer.class_traits(sync=True))
    assert SCRIPT.count("innerHTML") == 1, "only what the view has escaped"
