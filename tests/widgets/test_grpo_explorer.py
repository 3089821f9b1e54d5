"""The explorer without a browser: its state, its table, what it leaves in a notebook."""

import pytest
from ipywidgets import Widget
from traitlets import TraitError

import ftkit
from ftkit.widgets import GRPOExplorer, viewer

VIEW_MIME = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def live(monkeypatch):
    """The mode of a live notebook, without a browser to talk to."""
    monkeypatch.setattr(viewer, "is_static", lambda: False)


def test_moving_anything_redraws(live) -> None:
    explorer = GRPOExplorer([1, 0, 0, 0], [10, 20, 5, 5])
    assert "= <b>+1.50</b>" in explorer._html
    explorer.scale = "none"
    assert "= <b>+0.75</b>" in explorer._html
    explorer.rewards = [1, 1, 1, 1]
    assert "no signal" in explorer._html
    explorer.loss_type, explorer.picked = "dr_grpo", 2
    assert "answer #3" in explorer._html
    assert "1/(4·64)" in explorer._html
    explorer.lengths = [1, 2, 3, 4]
    assert "each of its 3 tokens" in explorer._html


def test_static_html_shows_the_same_picture_as_the_widget() -> None:
    explorer = GRPOExplorer(loss_type="grpo")
    assert explorer._html in explorer.to_html()
    assert "<script" not in explorer.to_html()


def test_the_table_is_the_text_twin() -> None:
    table = GRPOExplorer([1, 0], [4, 16], loss_type="grpo").to_pandas()
    assert table["advantage"].round(3).tolist() == [0.707, -0.707]
    assert table["RLOO advantage"].tolist() == [1.0, -1.0]
    assert table["token weight, grpo"].tolist() == [1 / 8, 1 / 32]
    assert table["token weight, dapo"].tolist() == [1 / 20, 1 / 20]
    text = "GRPO group of 2, divided by group, loss dapo: no signal, advantages +0.00, +0.00"
    assert str(GRPOExplorer([1, 1], [4, 16])) == text


def test_it_opens_on_a_real_group_of_any_size() -> None:
    explorer = GRPOExplorer([0.2, 0.1, 0.4], max_tokens=20)
    assert explorer.lengths == [16, 16, 16]
    assert GRPOExplorer([0, 1], [5, 100]).max_tokens == 100


def test_in_static_mode_no_widget_state_is_left_behind() -> None:
    before = set(Widget.widgets)
    bundle = GRPOExplorer()._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    assert set(Widget.widgets) == before


def test_live_it_brings_the_static_picture_along(live) -> None:
    data, _ = GRPOExplorer()._repr_mimebundle_()
    assert {VIEW_MIME, "text/html", "text/plain"} <= set(data)


def test_what_is_no_group_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 answers"):
        GRPOExplorer([1.0])
    with pytest.raises(TraitError):
        GRPOExplorer(scale="std")
    explorer = GRPOExplorer()
    with pytest.raises(TraitError, match="open a new explorer"):
        explorer.rewards = [1.0, 0.0]
    assert len(explorer.rewards) == 6


def test_it_is_a_public_name() -> None:
    assert ftkit.widgets.GRPOExplorer is GRPOExplorer
