"""Tables and audits as HTML: whole, escaped, with the numbers readable."""

import pytest

from ftkit.chat import audit, templates
from ftkit.records import Table


def test_a_table_escapes_text_and_rounds_numbers() -> None:
    table = Table("T <b>", ["what", "n", "x"], [("<script>alert(1)</script>", 12345, 0.12345)], "s")
    html = table.to_html()
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "T &lt;b&gt;" in html
    assert '<td class="num">12,345</td>' in html
    assert '<td class="num">0.123</td>' in html
    assert table.to_pandas().shape == (1, 3)


def test_a_row_of_another_length_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="row 1 has 1 cells for 2 columns"):
        Table("T", ["a", "b"], [(1, 2), (3,)])


def test_an_audit_shows_checks_differences_and_the_sample(fresh_tokenizer) -> None:
    fresh_tokenizer.chat_template = templates.get("qwen2_5")
    html = audit(fresh_tokenizer).to_html()
    assert "Template audit: qwen2_5" in html
    assert "also trains after" in html
    words = ("Black", "with", "stars")
    assert all(f">{word}<" in html.replace("> ", ">") for word in words)
