"""The card as text, table and HTML."""

import pytest

from ftkit.records.model_card import ModelCard, TokenRef


@pytest.fixture
def card() -> ModelCard:
    return ModelCard(
        name="a <b>model</b>",
        source="hub",
        location="owner/name@0123",
        licence="mit & more",
        sha256="ab" * 32,
        parameters=1_234_567_890,
        quantization="nf4",
        compute_dtype="bfloat16",
        device="cuda:0",
        memory_mb=1234.56,
        pad=None,
        eos=TokenRef("</s>", 2),
        bos=TokenRef("<s>", 1),
        notes=("the note <i>",),
    )


def test_text_and_table_say_the_same(card):
    table = card.to_pandas()
    text = str(card)
    for field, value in table.itertuples(index=False):
        assert field in text
        assert value in text
    assert dict(zip(table.field, table.value, strict=True))["eos token"] == "</s> (id 2)"


def test_the_text_holds_every_promised_field(card):
    text = str(card)
    for value in ("owner/name@0123", "ab" * 32, "1,234,567,890", "1234.6 MB", "</s> (id 2)"):
        assert value in text


def test_html_shows_numbers_and_escapes_everything(card):
    from ftkit.views.model_card import model_card_html

    html = model_card_html(card)
    assert "1.23 B" in html
    assert "a &lt;b&gt;model&lt;/b&gt;" in html
    assert "mit &amp; more" in html
    assert "&lt;/s&gt; (id 2)" in html
    assert "The note &lt;i&gt;." in html
    assert "<script" not in html


def test_what_is_loaded_shows_itself_as_its_card(tiny_base):
    import ftkit.views.model_card  # noqa: F401 - registers the view

    bundle = tiny_base._repr_mimebundle_()
    assert bundle["text/plain"] == str(tiny_base.card) == repr(tiny_base)
    assert "in memory" in bundle["text/html"]
