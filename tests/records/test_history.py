"""A run's history keeps every number, survives a round trip, and says what is wrong."""

import json
from math import inf, isnan, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftkit.errors import RecordError
from ftkit.records import RunHistory


def short_run() -> RunHistory:
    history = RunHistory("sft", max_steps=4)
    history.append(1, {"loss": 3.0, "grad_norm": 1.5}, seconds=2.0)
    history.append(2, {"loss": nan, "grad_norm": inf}, seconds=4.0)
    history.append(2, {"eval_loss": 2.5}, seconds=5.0)
    history.append(3, {"loss": -inf, "grad_norm": 0.5}, seconds=7.0)
    return history


def test_curves_keep_steps_order_and_the_numbers_that_are_none():
    curves = short_run().curves()
    assert [step for step, _ in curves["loss"]] == [1, 2, 3]
    assert isnan(curves["loss"][1][1])
    assert curves["grad_norm"][1] == (2, inf)
    assert curves["eval_loss"] == [(2, 2.5)]


def test_none_becomes_a_gap_and_what_is_no_number_is_named():
    history = RunHistory()
    history.append(1, {"rewards/f/mean": None, "note": "hello", "table": [1, 2], "ok": True})
    assert isnan(history.curves()["rewards/f/mean"][0][1])
    assert history.curves()["ok"] == [(1, 1.0)]
    assert history.skipped == {"note": "str", "table": "list"}


def test_tensors_and_numpy_scalars_count_as_numbers():
    import numpy as np
    import torch

    history = RunHistory()
    history.append(1, {"a": torch.tensor(2.5), "b": np.float32(1.5), "c": torch.ones(3)})
    assert history.rows[0].values == {"a": 2.5, "b": 1.5}
    assert history.skipped == {"c": "Tensor"}


def test_logs_without_any_number_add_no_row():
    history = RunHistory()
    history.append(1, {"note": "x"})
    assert history.rows == []
    assert str(history) == "run, waiting: step 0"


def test_wide_table_has_one_row_a_step_and_long_one_a_number():
    wide = short_run().to_pandas()
    assert list(wide.index) == [1, 2, 3]
    assert wide.loc[2, "eval_loss"] == 2.5
    long = short_run().to_pandas("long")
    assert len(long) == 7
    assert list(long.columns) == ["step", "seconds", "key", "value"]


def test_an_empty_history_makes_empty_tables():
    assert RunHistory().to_pandas().empty
    assert RunHistory().to_pandas("long").empty


def test_save_and_load_give_back_the_same_run(tmp_path):
    history = short_run()
    history.outcome = "stopped"
    history.append(4, {"note": "x", "loss": 1.0})
    path = history.save(tmp_path / "run")
    assert "NaN" not in path.read_text().replace('"NaN"', "")
    loaded = RunHistory.load(tmp_path / "run")
    assert repr(loaded) == repr(history)  # repr, because NaN differs from itself


@given(
    st.lists(
        st.dictionaries(st.text(min_size=1), st.floats() | st.integers(-(10**9), 10**9), min_size=1)
    )
)
def test_any_numbers_survive_the_round_trip(tmp_path_factory, logs):
    history = RunHistory("grpo")
    for step, row in enumerate(logs):
        history.append(step, row)
    folder = tmp_path_factory.mktemp("run")
    history.save(folder)
    assert repr(RunHistory.load(folder)) == repr(history)


def test_a_failed_save_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch):
    short_run().save(tmp_path)
    before = (tmp_path / "history.json").read_text()

    def full_disk(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        RunHistory("dpo").save(tmp_path)
    assert (tmp_path / "history.json").read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["history.json"]


def test_loading_says_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run history"):
        RunHistory.load(tmp_path)
    file = short_run().save(tmp_path)
    good = json.loads(file.read_text())
    for change, message in [
        ({"version": 99}, "version 99"),
        ({"format": "other"}, "not a run history"),
        ({"method": "ppo9"}, "unknown method"),
        ({"rows": [{"step": 1}]}, "damaged"),
        ({"rows": [{"step": 1, "seconds": 0, "values": {"a": "abc"}}]}, "damaged"),
    ]:
        file.write_text(json.dumps(good | change))
        with pytest.raises(RecordError, match=message):
            RunHistory.load(tmp_path)
    file.write_text('{"format": "ftkit.ru')
    with pytest.raises(RecordError, match="damaged"):
        RunHistory.load(tmp_path)


def test_findings_name_the_logged_key_and_come_gravest_first():
    history = RunHistory("grpo")
    for step in range(1, 6):
        history.append(step, {"entropy": 0.01, "eval_kl": 9.0, "reward": 0.5})
    found = [(f.code, f.severity) for f in history.findings()]
    assert found == [("eval_kl", "error"), ("entropy", "warning")]


def test_rising_held_out_loss_is_called_overfitting():
    history = RunHistory("sft")
    for step, loss in [(10, 2.0), (20, 1.5), (30, 1.6)]:
        history.append(step, {"eval_loss": loss})
    (finding,) = history.findings()
    assert finding.code == "eval_loss"
    assert "step 20" in finding.message
    assert "overfitting" in finding.fix


def test_text_twin_tells_state_values_and_findings():
    text = str(short_run())
    assert text.startswith("sft, waiting: step 3 of 4")
    assert "  eval_loss 2.5" in text
    assert "Missing, NaN or infinite: 2 of 3" in text


def test_records_load_without_torch_or_transformers():
    import subprocess
    import sys

    code = (
        "import sys, ftkit.records; "
        "sys.exit(bool({'torch', 'transformers', 'ftkit.views'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
