"""Tables and audits as HTML: whole, escaped, with the numbers readable."""

import numpy as np
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


def test_numbers_of_numpy_are_numbers_and_a_missing_one_is_named() -> None:
    row = [np.float32(0.12345), np.int64(12345), float("nan"), np.bool_(True)]
    html = Table("T", ["a", "b", "c", "d"], [row]).to_html()
    for shown in ("0.123", "12,345", "NaN"):
        assert f'<td class="num">{shown}</td>' in html
    assert "<td>True</td>" in html


def test_words_stay_whole_unless_no_column_could_hold_them() -> None:
    html = Table("T", ["a", "b", "c"], [("stages/ppo/trainer.py:202", "x" * 40, -0.5)]).to_html()
    assert "<td>stages/ppo/trainer.py:202</td>" in html
    assert f'<td class="long">{"x" * 40}</td>' in html
    assert '<td class="num">−0.500</td>' in html, "a minus sign, not a hyphen"


def test_the_header_over_numbers_stands_where_the_numbers_stand() -> None:
    html = Table("T", ["n", "x", "what"], [(1, None, "a"), (2, 0.5, 3)]).to_html()
    for right in ("n", "x"):
        assert f'<th scope="col" class="num">{right}</th>' in html
    assert '<th scope="col">what</th>' in html


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
