"""The packing explorer without a browser: its state, its table, what it leaves in a notebook."""

import pytest
from ipywidgets import Widget
from traitlets import TraitError

import ftkit
from ftkit.algos import group_text
from ftkit.widgets import PackingExplorer, viewer

VIEW_MIME = "application/vnd.jupyter.widget-view+json"
DOCUMENTS = [[10] * 9, [11] * 4, [12] * 20, [13] * 8]


@pytest.fixture
def live(monkeypatch):
    """The mode of a live notebook, without a browser to talk to."""
    monkeypatch.setattr(viewer, "is_static", lambda: False)


def test_moving_the_block_size_packs_anew(live) -> None:
    explorer = PackingExplorer(DOCUMENTS, block_size=8)
    assert "blocks of 8 tokens" in explorer._html
    explorer.block_size = 12
    assert "blocks of 12 tokens" in explorer._html
    assert explorer._blocks == 3
    expected = group_text(DOCUMENTS, 12)
    assert explorer.packing.input_ids.tolist() == expected.input_ids.tolist()
    assert explorer.packing.document_ids.tolist() == expected.document_ids.tolist()
    assert explorer.packing.dropped == expected.dropped == 5


def test_the_chosen_block_stays_within_the_blocks_there_are(live) -> None:
    explorer = PackingExplorer(DOCUMENTS, block_size=4, block=9)
    assert explorer.block == 9
    explorer.block_size = 16
    assert explorer.block == 1
    explorer.block = 50
    assert explorer.block == 1


def test_the_text_of_a_block_is_the_tokenizers(tokenizer) -> None:
    ids = [tokenizer(text)["input_ids"] for text in ("To be & <b>", " or not to be")]
    explorer = PackingExplorer(ids, tokenizer=tokenizer, block_size=6)
    assert explorer._texts()[0] == tokenizer.decode(ids[0][:6])
    assert "To be &amp; &lt;b&gt;" in explorer.to_html()


def test_block_sizes_double_up_to_the_corpus() -> None:
    assert PackingExplorer(DOCUMENTS, block_size=8)._sizes == [8, 12, 16, 24, 32]


def test_the_table_is_the_text_twin() -> None:
    table = PackingExplorer(DOCUMENTS, block_size=10).to_pandas()
    assert table["block_size"].tolist() == [8, 10, 12, 16, 24, 32]
    assert table["blocks"].tolist() == [5, 4, 3, 2, 1, 1]
    assert table["dropped"].tolist() == [1, 1, 5, 9, 17, 9]
    ids = [group_text(DOCUMENTS, size).document_ids for size in table["block_size"]]
    shares = [(x[:, :-1] != x[:, :1]).float().mean().item() for x in ids]
    assert table["crossing_share"].tolist() == pytest.approx(shares)
    text = str(PackingExplorer(DOCUMENTS, block_size=41))
    assert "4 documents, 41 tokens in 1 blocks of 41" in text
    assert "77.5% of the predictions see another document, 0 tokens dropped" in text


def test_static_html_shows_the_same_picture_as_the_widget() -> None:
    explorer = PackingExplorer(DOCUMENTS, block_size=8)
    assert explorer._html in explorer.to_html()
    assert "<script" not in explorer.to_html()


def test_in_static_mode_no_widget_state_is_left_behind() -> None:
    before = set(Widget.widgets)
    bundle = PackingExplorer(DOCUMENTS, block_size=8)._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    assert set(Widget.widgets) == before


def test_live_it_brings_the_static_picture_along(live) -> None:
    data, _ = PackingExplorer(DOCUMENTS, block_size=8)._repr_mimebundle_()
    assert {VIEW_MIME, "text/html", "text/plain"} <= set(data)


@pytest.mark.parametrize(
    ("documents", "size", "error", "says"),
    [
        (["To be"], 8, TypeError, r"are texts: give token ids, ftkit\.stages\.tokenize"),
        ([[], []], 8, ValueError, "the corpus is empty"),
        (DOCUMENTS, 1, ValueError, "block_size=1 must be at least 2"),
        (DOCUMENTS, 42, ValueError, "longer than the corpus of 41 tokens"),
    ],
)
def test_what_cannot_be_packed_says_why(documents, size, error, says) -> None:
    with pytest.raises(error, match=says):
        PackingExplorer(documents, block_size=size)


def test_a_wrong_size_later_is_refused_and_changes_nothing() -> None:
    explorer = PackingExplorer(DOCUMENTS, block_size=8)
    with pytest.raises(ValueError, match="longer than the corpus"):
        explorer.block_size = 100
    with pytest.raises(TraitError):
        explorer.block_size = "many"
    assert (explorer.block_size, explorer.packing.block_size) == (8, 8)


def test_it_is_a_public_name() -> None:
    assert ftkit.widgets.PackingExplorer is PackingExplorer
