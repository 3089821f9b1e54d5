"""The explorer without a browser: its state, its table, what it leaves in a notebook."""

import math

import pytest
import traitlets
from ipywidgets import Widget

import ftkit
from ftkit.records import DPOPair
from ftkit.widgets import DPOExplorer, viewer

VIEW_MIME = "application/vnd.jupyter.widget-view+json"
PAIRS = [
    DPOPair("Hi?", "good", "bad", -11.0, -15.0, -10.0, -12.0),
    DPOPair("Hi?", "fine <i>", "worse", -9.0, -11.0, -10.0, -12.0),
    DPOPair("Hi?", "lost", "worse", math.nan, -11.0, -10.0, -12.0),
]


@pytest.fixture
def live(monkeypatch):
    """The mode of a live notebook, without a browser to talk to."""
    monkeypatch.setattr(viewer, "is_static", lambda: False)


def test_beta_and_the_place_redraw(live) -> None:
    explorer = DPOExplorer(PAIRS)
    assert "<b>0.437</b> nats" in explorer._html
    explorer.beta = 0.5
    assert "<b>0.049</b> nats" in explorer._html
    explorer.chosen = explorer.rejected = 0.0
    assert "<b>0.693</b> nats" in explorer._html


def test_a_picked_pair_moves_the_place_and_moving_on_unpicks_it(live) -> None:
    explorer = DPOExplorer(PAIRS, pair=1)
    assert (explorer.pair, explorer.chosen, explorer.rejected) == (1, -1.0, -3.0)
    assert "Pair 1: Hi?" in explorer._html
    explorer.pair = 2
    assert (explorer.pair, explorer.chosen, explorer.rejected) == (2, 1.0, 1.0)
    explorer.chosen = 0.0
    assert explorer.pair == 0
    assert "Pair 2" not in explorer._html


@pytest.mark.parametrize("number", [3, 4])
def test_pairs_that_are_not_there_or_not_finite_cannot_be_picked(number) -> None:
    with pytest.raises(traitlets.TraitError, match=f"pair={number}: there are pairs 1 to 3"):
        DPOExplorer(PAIRS).pair = number


def test_the_browser_may_set_place_and_pair_at_once(live) -> None:
    explorer = DPOExplorer(PAIRS, pair=1)
    explorer.set_state({"chosen": 3.0, "rejected": -3.0, "pair": 0})
    assert (explorer.pair, explorer.chosen, explorer.rejected) == (0, 3.0, -3.0)
    explorer.set_state({"pair": 2})
    assert (explorer.pair, explorer.chosen, explorer.rejected) == (2, 1.0, 1.0)


def test_static_html_shows_the_same_picture_as_the_widget() -> None:
    explorer = DPOExplorer(PAIRS, pair=2)
    assert explorer._html in explorer.to_html()
    assert "<script" not in explorer.to_html()
    assert "fine &lt;i&gt;" in explorer.to_html()


def test_the_table_is_the_text_twin() -> None:
    table = DPOExplorer(PAIRS, beta=0.5).to_pandas()
    assert table["lead"].tolist()[:2] == [2.0, 0.0]
    assert table["loss"].round(3).tolist()[:2] == [0.313, 0.693]
    assert table["weight"].round(3).tolist()[:2] == [0.134, 0.25]
    assert DPOExplorer().to_pandas().empty
    assert "loss 0.437 nats, weight 0.0354; 3 pairs" in str(DPOExplorer(PAIRS))


def test_in_static_mode_no_widget_state_is_left_behind() -> None:
    before = set(Widget.widgets)
    bundle = DPOExplorer(PAIRS)._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    assert set(Widget.widgets) == before


def test_live_it_brings_the_static_picture_along(live) -> None:
    data, _ = DPOExplorer(PAIRS)._repr_mimebundle_()
    assert {VIEW_MIME, "text/html", "text/plain"} <= set(data)


def test_what_is_no_pair_is_refused() -> None:
    with pytest.raises(TypeError, match=r"pairs hold a float: give ftkit\.records\.DPOPair"):
        DPOExplorer([0.3])
    with pytest.raises(traitlets.TraitError):
        DPOExplorer(beta=0.0)


def test_it_is_a_public_name() -> None:
    assert ftkit.widgets.DPOExplorer is DPOExplorer
