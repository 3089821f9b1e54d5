"""The doctor's card: gravest first, escaped, readable without script, calm when clean."""

import re

from ftkit.findings import Finding
from ftkit.records.report import DoctorReport, Lengths
from ftkit.views import to_html

EVIL = "<script>alert(1)</script>"


def report(*findings: Finding, **more) -> DoctorReport:
    return DoctorReport("SFTTrainer", findings, "12 rows", 0.4, **more)


def test_everything_is_escaped_and_nothing_is_loaded() -> None:
    evil = Finding("pad-is-eos", "error", EVIL, EVIL, EVIL, (1,), EVIL)
    made = report(evil, template=EVIL + "{% generation %}", template_places=(EVIL,))
    html = made.to_page()
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 6
    assert "<mark>{% generation %}</mark>" in html
    assert not re.search(r"(src|@import|url\()", html.split("</style>", 2)[-1])


def test_errors_come_first_and_show_fix_evidence_and_reason() -> None:
    html = to_html(
        report(
            Finding("double-bos", "error", "two", "one", "", tuple(range(40)), "row 0"),
            Finding("pad-is-eos", "warning", "same", "another"),
            Finding("packed-rows", "info", "packs"),
            Finding("stop-token-trained", "ok", "yes"),
        )
    )
    order = [html.index(t) for t in ("Two beginning", "Pad token and stop", "packed rows")]
    assert order == sorted(order)
    assert "<details open><summary>evidence" in html
    assert "and 16 more" in html
    assert 'href="https://github.com/huggingface/trl/issues/1400"' in html
    assert "1<small>error</small>" in html


def test_a_clean_report_is_calm() -> None:
    html = to_html(report(Finding("stop-token-trained", "ok", "yes")))
    assert "Nothing found that fails silently." in html
    assert "0<small>errors</small>" in html
    assert 'class="ft-dx' not in html


def test_the_histogram_has_labelled_axes_and_the_cut_line() -> None:
    rows = [(n, "whole" if n <= 50 else "cut") for n in range(1, 101)]
    html = to_html(report(lengths=Lengths.of(rows, 50)))
    assert "Length of 100 rows: 50 kept whole, 50 cut" in html
    assert "✂ max_length=50" in html
    assert "length in tokens" in html
    assert 'class="beyond"' in html
    far = to_html(report(lengths=Lengths.of([(10, "whole")], 1024)))
    assert "max_length" not in far.split("</style>")[-1]
