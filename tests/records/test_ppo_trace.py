"""A PPO trace keeps what it was given, stays within its bounds, and survives its files."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from ppo_traces import ANSWERS, full_size_trace, iteration, trace

from ftkit.errors import RecordError
from ftkit.records import PPOTrace, PPOTraceConfig, Start, ppo_store
from ftkit.records.ppo_trace import OPTIONAL_FLOATS, TOKEN_FLOATS

DRAFT = f".{ppo_store.TEXTS}.draft"


def assert_same(one: PPOTrace, two: PPOTrace) -> None:
    assert (one.config, one.title, one.say, one.start, one.stride) == (
        (two.config, two.title, two.say, two.start, two.stride)
    )
    assert [i.number for i in one.iterations] == [i.number for i in two.iterations]
    for a, b in zip(one.iterations, two.iterations, strict=True):
        for name in (*TOKEN_FLOATS, *OPTIONAL_FLOATS, "token_ids", "scores", "paid_scores"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
        assert (a.tokens, a.prompts, a.prompt_ids) == (b.tokens, b.prompts, b.prompt_ids)
        assert repr(a.metrics) == repr(b.metrics)
        assert (a.kl_coef, a.advantage_std) == (b.kl_coef, b.advantage_std)
        for u, v in zip(a.updates, b.updates, strict=True):
            np.testing.assert_array_equal(u.ratio, v.ratio)
            np.testing.assert_array_equal(u.clipped, v.clipped)
            assert (u.epoch, u.minibatch, u.rows) == (v.epoch, v.minibatch, v.rows)
            assert repr(u.policy_loss) == repr(v.policy_loss)


def test_files_give_back_every_number_and_every_character(tmp_path):
    made = trace()
    made.title, made.say, made.start = "T", "look", Start(2, 1, "gae")
    made.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [ppo_store.TEXTS, ppo_store.ARRAYS]
    assert_same(PPOTrace.load(tmp_path), made)


def test_a_failed_run_with_nan_and_infinities_can_be_kept(tmp_path):
    made = trace(1)
    one = made.iterations[0]
    kl = one.kl.copy()
    kl[0, 1] = np.inf
    worse = replace(one.updates[0], policy_loss=float("nan"))
    made.add(replace(one, kl=kl, metrics={"x": float("-inf")}, updates=[worse]))
    made.save(tmp_path)
    assert "NaN" not in (tmp_path / ppo_store.TEXTS).read_text()
    assert_same(PPOTrace.load(tmp_path), made)


def test_padding_is_emptied_and_cut_to_the_longest_answer():
    wide = np.full((2, 99), 7.0)
    one = replace(iteration(1, rows=2), values=wide, tokens=[["a", "b"], ["c"]], updates=[])
    np.testing.assert_array_equal(one.values, [[7, 7], [7, 0]])
    np.testing.assert_array_equal(one.mask, [[True, True], [True, False]])
    assert one.lengths == [2, 1]
    assert np.isfinite(one.logprobs).all()


def test_tensors_of_the_trainer_are_taken_as_they_are():
    torch = pytest.importorskip("torch")
    one = replace(iteration(1, rows=1), values=torch.ones(1, 20), updates=[])
    np.testing.assert_array_equal(one.values, np.ones((1, len(ANSWERS[0])), np.float32))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"values": np.zeros((4, 3))}, r"values has shape \(4, 3\)"),
        ({"scores": np.zeros(3)}, r"scores has shape \(3,\) for 4 rows"),
        ({"tokens": [["a"], ["b"], [], ["c"]]}, "row 2 has no response token"),
        ({"prompts": ["only one"]}, "one entry a row"),
        ({"tokens": [], "prompts": [], "prompt_ids": []}, "at least one row"),
    ],
)
def test_arrays_that_do_not_fit_the_tokens_are_named(change, says):
    with pytest.raises(ValueError, match=says):
        replace(iteration(1), **change)


@pytest.mark.parametrize("rows", [[4], [0, 0], [-1]])
def test_an_update_of_unknown_rows_is_an_error(rows):
    one = iteration(1)
    with pytest.raises(ValueError, match="4 recorded rows"):
        replace(one, updates=[replace(one.updates[0], rows=rows)])


def test_more_rows_than_configured_are_cut_in_the_updates_too():
    made = PPOTrace(PPOTraceConfig(rows=2))
    whole = iteration(1)
    made.add(whole)
    kept = made.iterations[0]
    assert len(kept.tokens) == len(kept.scores) == len(kept.values) == 2
    assert [u.rows for u in whole.updates] == [(0, 2), (1, 3), (0, 2), (1, 3)]
    assert [u.rows for u in kept.updates] == [(0,), (1,), (0,), (1,)]
    np.testing.assert_array_equal(kept.updates[1].ratio[0], whole.updates[1].ratio[0][:8])


def test_iterations_stay_bounded_with_the_first_and_the_latest():
    made = PPOTrace(PPOTraceConfig(max_iterations=4))
    for number in range(1, 24):
        made.add(iteration(number, rows=1, updates=0))
        numbers = [i.number for i in made.iterations]
        assert len(numbers) <= 4
        assert {1, number} <= set(numbers)
    assert numbers == [1, 9, 17, 23]


def test_bounds_that_keep_nothing_are_refused():
    with pytest.raises(ValueError, match="at least 1 row and 2 iterations"):
        PPOTraceConfig(max_iterations=1)


def test_a_resumed_run_overwrites_what_it_runs_again():
    made = trace(4)
    made.add(iteration(3, updates=0))
    assert [i.number for i in made.iterations] == [1, 2, 3]
    assert made.at(3).updates == ()


def test_the_table_has_one_row_a_token_and_only_updates_that_saw_the_row():
    made = trace()
    table = made.to_pandas(2, row=1)
    assert list(table["token"]) == ANSWERS[1]
    np.testing.assert_array_equal(table["advantage"], made.at(2).advantages[1, :5])
    assert [c for c in table if c.startswith("ratio")] == ["ratio 1.2", "ratio 2.2"]
    assert table["clipped 2.2"].dtype == bool


def test_what_is_not_there_is_named():
    with pytest.raises(ValueError, match="iteration 7 is not in this trace; it holds 1, 2, 3"):
        trace().to_pandas(7)
    with pytest.raises(ValueError, match="rows 0 to 3"):
        trace().to_pandas(1, row=4)


def test_a_folder_without_a_trace_is_said_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no PPO trace"):
        PPOTrace.load(tmp_path)


def edit(folder, **changes):
    path = folder / ppo_store.TEXTS
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": 2}, "version 2; ftkit here reads 1"),
        ({"format": "other"}, "holds 'other', not a PPO trace"),
        ({"sha256": "0"}, "do not belong together"),
        ({"config": {}}, "damaged"),
        ({"iterations": [{}]}, "damaged"),
        ({"start": {"iteration": 1, "row": 0, "phase": "?"}}, "unknown phase"),
    ],
)
def test_damaged_or_unknown_texts_are_refused(tmp_path, changes, says):
    trace().save(tmp_path)
    edit(tmp_path, **changes)
    with pytest.raises(RecordError, match=says):
        PPOTrace.load(tmp_path)


@pytest.mark.parametrize("name", [ppo_store.ARRAYS, ppo_store.TEXTS])
@pytest.mark.parametrize("keep", [0, 100, -10])
def test_truncated_files_are_refused(tmp_path, name, keep):
    trace().save(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RecordError):
        PPOTrace.load(tmp_path)


def test_a_save_killed_at_any_point_leaves_the_old_or_the_new_trace(tmp_path, monkeypatch):
    old, new = trace(1), trace(2)
    saved = 0
    for kill_at in range(8):
        folder = tmp_path / str(kill_at)
        old.save(folder)
        with monkeypatch.context() as patch:
            count_down(patch, kill_at)
            try:
                new.save(folder)
                saved += 1
            except KeyboardInterrupt:
                pass
        assert len(PPOTrace.load(folder).iterations) in (1, 2)
    assert saved, "no save ran to its end: the test kills too early"
    assert DRAFT not in [p.name for p in folder.iterdir()]


def count_down(patch, kill_at):
    """Die at the `kill_at`-th touch of the disk, in the middle of a write."""
    left = [kill_at]

    def tick(action):
        def run(*args):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return action(*args)

        return run

    patch.setattr(ppo_store.os, "fsync", tick(ppo_store.os.fsync))
    patch.setattr(ppo_store.Path, "replace", tick(ppo_store.Path.replace))


def test_a_trace_of_default_size_stays_small(tmp_path):
    made = full_size_trace()
    made.save(tmp_path)
    size = sum(p.stat().st_size for p in tmp_path.iterdir())
    assert size < 1_000_000
    assert made.nbytes < size


def test_loading_needs_no_torch(tmp_path):
    trace().save(tmp_path)
    code = (
        "import sys; from ftkit.records import PPOTrace; "
        f"t = PPOTrace.load({str(tmp_path)!r}); assert len(t.iterations) == 3; "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_presets_are_listed_loaded_and_unknown_ones_named(tmp_path, monkeypatch):
    monkeypatch.setattr(ppo_store, "presets_folder", lambda: tmp_path / "none-yet")
    assert ppo_store.preset_names() == ()
    monkeypatch.setattr(ppo_store, "presets_folder", lambda: tmp_path)
    trace().save(tmp_path / "kl-explosion")
    assert ppo_store.preset_names() == ("kl-explosion",)
    assert len(ppo_store.load_preset("kl-explosion").iterations) == 3
    with pytest.raises(ValueError, match="shipped with ftkit: kl-explosion"):
        ppo_store.load_preset("other")


def test_the_text_twin_says_how_much_there_is():
    assert str(trace()).startswith("PPO trace, 3 iterations up to 3, 4 rows")
    assert "nothing recorded yet" in str(PPOTrace())
