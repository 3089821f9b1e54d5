"""The explorer without a browser: its state, its table, what it leaves in a notebook."""

import pytest
from ipywidgets import Widget
from traitlets import TraitError

import ftkit
from ftkit.records import NoiseMap
from ftkit.widgets import NEFTuneExplorer, viewer

VIEW_MIME = "application/vnd.jupyter.widget-view+json"
MAP = NoiseMap(
    words=(" a", " b", " <i>"),
    xy=((0.0, 0.0), (2.0, 0.0), (1.0, 1.5)),
    kept=0.5,
    distances=((0.0, 2.5, 6.0), (2.5, 0.0, 5.0), (6.0, 5.0, 0.0)),
    neighbours=((" A", 1.0), (" B", 2.0), (" C", 9.0)),
    shadows=(((0.5, 0.0),),) * 3,
    critical=(0.05, 0.1),
    hidden=48,
    vocab=99,
    mean_l2=4.0,
)


@pytest.fixture
def live(monkeypatch):
    """The mode of a live notebook, without a browser to talk to."""
    monkeypatch.setattr(viewer, "is_static", lambda: False)


def test_every_control_redraws(live) -> None:
    explorer = NEFTuneExplorer(MAP)
    assert "5/√(64·48)" in explorer._html
    explorer.alpha = 10.0
    assert "10/√(64·48)" in explorer._html
    explorer.length, explorer.padding = 16, 48
    assert "10/√((16 + 48)·48)" in explorer._html
    assert ">50%<" in explorer._html.replace("−", "")


def test_static_html_shows_the_same_picture_as_the_widget() -> None:
    explorer = NEFTuneExplorer(MAP, alpha=7, length=32)
    assert explorer._html in explorer.to_html()
    assert "<script" not in explorer.to_html()
    assert "<i>" not in explorer.to_html()


def test_the_table_is_the_text_twin() -> None:
    explorer = NEFTuneExplorer(MAP, alpha=5, length=16)
    table = explorer.to_pandas()
    assert table["distance"].tolist() == [1.0, 2.0, 9.0]
    assert table["noise of a token"].round(3).unique().tolist() == [0.722]
    assert table["share of tokens turned"].unique().tolist() == [1.0]
    assert "0.722 a token, 2.887 the row (L2); 100% of 2 tokens" in str(explorer)


def test_in_static_mode_no_widget_state_is_left_behind() -> None:
    before = set(Widget.widgets)
    bundle = NEFTuneExplorer(MAP)._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    assert set(Widget.widgets) == before


def test_live_it_brings_the_static_picture_along(live) -> None:
    data, _ = NEFTuneExplorer(MAP)._repr_mimebundle_()
    assert {VIEW_MIME, "text/html", "text/plain"} <= set(data)


@pytest.mark.parametrize("wrong", [{"alpha": -5.0}, {"length": 0}, {"padding": -1}])
def test_numbers_out_of_range_are_refused(wrong) -> None:
    with pytest.raises(TraitError, match=f"{next(iter(wrong))}"):
        NEFTuneExplorer(MAP, **wrong)


def test_what_is_no_map_is_refused() -> None:
    with pytest.raises(TypeError, match=r"noise_map is a str: give ftkit\.records\.NoiseMap"):
        NEFTuneExplorer("dog")


def test_it_is_a_public_name() -> None:
    assert ftkit.widgets.NEFTuneExplorer is NEFTuneExplorer
