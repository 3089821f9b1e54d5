"""The doctor's report: saved and read back whole, told in every form, exit status for CI."""

import json

import pytest

from ftkit.errors import RecordError
from ftkit.findings import Finding
from ftkit.records.report import DoctorReport, Lengths

ERROR = Finding("nothing-trained", "error", "9 rows <b>", "mend", "", (1, 5), "row 1\n  a")
WARNING = Finding("pad-is-eos", "warning", "pad = eos", "pick another")
NOTE = Finding("packed-rows", "info", "packs")
PASSED = Finding("stop-token-trained", "ok", "trained")
LENGTHS = Lengths.of([(3, "whole"), (90, "cut"), (200, "gone")], 80)
REPORT = DoctorReport(
    "SFTTrainer", (ERROR, WARNING, NOTE, PASSED), "3 rows", 1.5, LENGTHS,
    "{% generation %}x{% endgeneration %}", ("before x",),
)  # fmt: skip


def test_saved_as_json_it_reads_back_whole(tmp_path) -> None:
    path = REPORT.save(tmp_path / "deep" / "report.json")
    assert DoctorReport.load(path) == REPORT
    data = json.loads(path.read_text())
    assert data["counts"] == {"ok": 1, "info": 1, "warning": 1, "error": 1}
    assert data["findings"][0]["explained"] == "ftkit/diagnosis/codes.md#nothing-trained"
    assert data["exit_code"] == 4


def test_damaged_files_are_named(tmp_path) -> None:
    path = tmp_path / "report.json"
    for text in ("{", "{}", '{"format": "other", "version": 1}', "[]"):
        path.write_text(text)
        with pytest.raises(RecordError, match=r"report\.json"):
            DoctorReport.load(path)
    newer = {**json.loads(REPORT.to_json()), "version": 99}
    path.write_text(json.dumps(newer))
    with pytest.raises(RecordError, match="version 99"):
        DoctorReport.load(path)
    with pytest.raises(RecordError, match=r"must end in one of \.json, \.html, \.txt"):
        REPORT.save(tmp_path / "report.pdf")


@pytest.mark.parametrize(
    ("findings", "plain", "strict"),
    [((PASSED, NOTE), 0, 0), ((WARNING,), 0, 3), ((ERROR, WARNING), 4, 4), ((), 0, 0)],
)
def test_the_exit_code_grows_with_the_fault(findings, plain, strict) -> None:
    report = DoctorReport("x", findings)
    assert (report.exit_code(), report.exit_code(strict=True)) == (plain, strict)


def test_text_holds_what_the_picture_holds(tmp_path) -> None:
    text = REPORT.save(tmp_path / "r.txt").read_text()
    for part in ("9 rows <b>", "Fix: mend", "rows: 1, 5", "| row 1", "passed: stop-token-trained"):
        assert part in text
    assert "1 rows whole, 1 cut, 1 gone; longest 200 tokens, cut at 80" in text
    assert REPORT.to_pandas()["code"].tolist() == [f.code for f in REPORT.findings]


def test_every_length_is_in_one_bin() -> None:
    rows = [(n, "whole") for n in (0, 1, 40, 41, 80, 81, 4000)]
    lengths = Lengths.of(rows, None)
    assert lengths is not None
    assert lengths.width == 100
    assert (lengths.bins[0], lengths.bins[-1], sum(lengths.bins)) == (6, 1, 7)
    assert Lengths.of([], 5) is None
