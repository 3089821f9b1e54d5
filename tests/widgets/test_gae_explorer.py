"""The explorer without a browser: its state, its table, what it leaves in a notebook."""

import re

import pytest
from ipywidgets import Widget
from traitlets import TraitError

from ftkit.widgets import GAEExplorer, viewer

TOKENS, REWARDS, VALUES = ["a", "b", "c"], [0.0, 0.0, 1.0], [0.5, 0.25, 0.0]


def explorer(**options) -> GAEExplorer:
    return GAEExplorer(TOKENS, REWARDS, VALUES, **options)


def test_it_opens_where_the_recursion_begins_and_every_control_redraws() -> None:
    opened = explorer()
    assert opened.at == 2
    assert "= <b>1</b>" in opened._html
    seen = {opened._html}
    for name, value in (("at", 1), ("lam", 0.5), ("gamma", 0.9)):
        setattr(opened, name, value)
        assert opened._html not in seen
        seen.add(opened._html)


def test_static_html_shows_the_same_picture_as_the_widget() -> None:
    opened = explorer(at=0, lam=0.5)
    assert opened._html in opened.to_html()
    assert "<script" not in opened.to_html()


def test_the_table_is_the_text_twin_and_knows_every_token() -> None:
    table = explorer(lam=1.0).to_pandas()
    assert table["advantage"].tolist() == pytest.approx([0.5, 0.75, 1.0])
    assert table["return"].tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert "λ = 1" in str(explorer(lam=1.0))


@pytest.mark.parametrize("wrong", [{"lam": 1.1}, {"gamma": -0.1}, {"at": 3}, {"at": -1}])
def test_numbers_out_of_range_are_refused(wrong) -> None:
    with pytest.raises(TraitError, match=next(iter(wrong))):
        explorer(**wrong)


def test_lists_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="one entry a token"):
        GAEExplorer(TOKENS, [1.0], VALUES)


def test_in_static_mode_no_widget_state_is_left_behind(monkeypatch) -> None:
    monkeypatch.setenv("FTKIT_STATIC", "1")
    before = set(Widget.widgets)
    assert set(explorer()._repr_mimebundle_()) == {"text/html", "text/plain"}
    assert set(Widget.widgets) == before


def test_the_script_names_traits_that_exist() -> None:
    own = viewer.script("gae_explorer")
    named = set(re.findall(r'get\("(\w+)"\)', own)) | set(re.findall(r'name: "(\w+)"', own))
    assert {"lam", "gamma", "at", "_count"} <= named <= set(GAEExplorer.class_traits(sync=True))
