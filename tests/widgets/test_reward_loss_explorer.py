"""The explorer without a browser: its state, its table, what it leaves in a notebook."""

import pytest
from ipywidgets import Widget

import ftkit
from ftkit.records import ScoredPair
from ftkit.widgets import RewardLossExplorer, viewer

VIEW_MIME = "application/vnd.jupyter.widget-view+json"
PAIRS = [
    ScoredPair("Hi?", "good", "bad", 1.0, 0.0),
    ScoredPair("Hi?", "fine <i>", "worse", -1.0, 1.0),
]


@pytest.fixture
def live(monkeypatch):
    """The mode of a live notebook, without a browser to talk to."""
    monkeypatch.setattr(viewer, "is_static", lambda: False)


def test_moving_the_gap_redraws(live) -> None:
    explorer = RewardLossExplorer(PAIRS, gap=-1.0)
    assert "<b>1.313</b> nats" in explorer._html
    explorer.gap = 2.0
    assert "<b>0.127</b> nats" in explorer._html
    explorer.margin = 2.0
    assert "<b>0.693</b> nats" in explorer._html
    explorer.centering, explorer.level = 0.1, 1.0
    assert "0.693 + 0.400 = <b>1.093</b> nats" in explorer._html


def test_static_html_shows_the_same_picture_as_the_widget() -> None:
    explorer = RewardLossExplorer(PAIRS, gap=0.5)
    assert explorer._html in explorer.to_html()
    assert "<script" not in explorer.to_html()
    assert "fine &lt;i&gt;" in explorer.to_html()


def test_the_table_is_the_text_twin() -> None:
    table = RewardLossExplorer(PAIRS).to_pandas()
    assert table["gap"].tolist() == [-2.0, 1.0]
    assert table["loss"].round(3).tolist() == [2.127, 0.313]
    assert table["slope"].round(3).tolist() == [-0.881, -0.269]
    assert RewardLossExplorer().to_pandas().empty
    assert "1.313 nats, slope -0.731; 2 pairs" in str(RewardLossExplorer(PAIRS))


def test_in_static_mode_no_widget_state_is_left_behind() -> None:
    before = set(Widget.widgets)
    explorer = RewardLossExplorer(PAIRS)
    bundle = explorer._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    assert set(Widget.widgets) == before


def test_live_it_brings_the_static_picture_along(live) -> None:
    data, _ = RewardLossExplorer(PAIRS)._repr_mimebundle_()
    assert {VIEW_MIME, "text/html", "text/plain"} <= set(data)


def test_what_is_no_pair_is_refused() -> None:
    with pytest.raises(TypeError, match=r"pairs hold a float: give ftkit\.records\.ScoredPair"):
        RewardLossExplorer([0.3])


def test_it_is_a_public_name() -> None:
    assert ftkit.widgets.RewardLossExplorer is RewardLossExplorer
