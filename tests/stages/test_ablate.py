"""`ftkit.ablate`: every trial runs once, whatever is killed, raised, shared or added later."""

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import optuna
import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from transformers import TrainerCallback
from transformers.integrations import integration_utils

import ftkit
from ftkit.errors import RecordError, SettingsError
from ftkit.records import AblationProgress, AblationResult, AblationTrial
from ftkit.stages.ablation import AblationInterrupted, retry_failures, runners, screen, store
from ftkit.stages.ablation.child import measure
from ftkit.stages.ablation.clock import Clock
from ftkit.stages.ablation.design import planned

GRID: dict[str, list[Any]] = {"rank": [4, 16], "alpha": [0, 5]}
FORK = multiprocessing.get_context("fork")  # a fresh Python would import torch for each test
PATIENCE = 20.0  # seconds until a test that waits for another process gives up


def quiet(run: Callable[..., Any], grid: Any = None, **options: Any) -> AblationResult:
    return ftkit.ablate(run, grid or GRID, **{"progress": False, **options})


def loss(rank: int, alpha: int, seed: int) -> float:
    return rank + alpha / 10 + seed / 100


class Logged:
    """A function that leaves a line in a file for each call, so that other processes' calls count.

    `before` runs between the line and the answer.
    """

    def __init__(self, path: Path, before: Callable[[int, int, int], None] | None = None) -> None:
        self.path, self._before = path, before

    def __call__(self, rank: int, alpha: int, seed: int) -> float:
        with self.path.open("a") as file:
            file.write(json.dumps([rank, alpha, seed]) + "\n")
        if self._before:
            self._before(rank, alpha, seed)
        return loss(rank, alpha, seed)

    def calls(self) -> list[tuple[int, ...]]:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [tuple(json.loads(line)) for line in lines]


def in_fork(target: Callable[[], object]) -> Any:
    """Start `target` in a forked process; it ends without running pytest's own cleanup."""

    def body() -> None:
        target()
        os._exit(0)

    process = FORK.Process(target=body)
    process.start()
    return process


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "the other process did not get there"
        time.sleep(0.01)


def kill_self(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


EVERY = [(rank, alpha, seed) for seed in range(3) for rank in (4, 16) for alpha in (0, 5)]

# --- which trials ------------------------------------------------------------------------------


def test_every_setting_runs_with_every_seed_seed_by_seed(tmp_path: Path) -> None:
    run = Logged(tmp_path / "calls")
    result = quiet(run)
    assert run.calls() == EVERY
    assert [(t.setting["rank"], t.setting["alpha"], t.seed) for t in result.trials] == EVERY
    assert {t.state for t in result.trials} == {"done"}
    assert [t.metrics["value"] for t in result.trials] == [loss(*call) for call in EVERY]


FACTORS = st.dictionaries(
    st.sampled_from("abcde"),
    st.lists(
        st.integers(0, 9) | st.text(max_size=3) | st.none(), min_size=1, max_size=4, unique=True
    ),
    min_size=1,
    max_size=4,
)


@given(FACTORS, st.integers(1, 4))
def test_a_full_grid_is_the_product(grid: dict[str, list[Any]], seeds: int) -> None:
    plan = planned(grid, seeds=seeds, design="full", baseline=None)
    wanted = {(tuple(values), seed) for values in product(*grid.values()) for seed in range(seeds)}
    found = [(tuple(setting[name] for name in grid), seed) for setting, seed in plan.pairs]
    assert len(found) == len(wanted)
    assert set(found) == wanted


@given(FACTORS, st.data())
def test_one_factor_differs_from_the_baseline_in_one_place(
    grid: dict[str, list[Any]], data: st.DataObject
) -> None:
    base = {name: data.draw(st.sampled_from(values)) for name, values in grid.items()}
    plan = planned(grid, seeds=1, design="one-factor", baseline=base)
    apart = [{n for n in grid if s[n] != base[n]} for s in plan.settings]
    assert plan.settings[0] == base
    assert apart[0] == set()
    assert all(len(names) == 1 for names in apart[1:])
    tried = Counter(next(iter(names)) for names in apart[1:])
    assert tried == Counter({n: len(v) - 1 for n, v in grid.items() if len(v) > 1})


def test_the_baseline_is_what_the_caller_says() -> None:
    result = quiet(loss, baseline={"rank": 16, "alpha": 5}, seeds=2)
    first = result.summary()[0]
    assert first.difference is not None
    assert first.difference.mean == pytest.approx(-12.5)
    assert [s.is_baseline for s in result.summary()] == [False, False, False, True]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"run": 3}, "not callable"),
        ({"run": lambda rank, seed: 0.0}, "must take rank, alpha, seed by name"),
        ({"run": lambda rank, alpha, seed, more: 0.0}, "nothing else without a default"),
        ({"run": lambda rank, alpha: 0.0}, "must take rank, alpha, seed"),
        ({"grid": {}}, "give a dict of factor to values"),
        ({"grid": [4, 16]}, "give a dict of factor to values"),
        ({"grid": {"rank": []}}, "rank has no values"),
        ({"grid": {"rank": 4}}, r"must be a list of values, e.g. \[4\]"),
        ({"grid": {"rank": "abc"}}, "must be a list of values"),
        ({"grid": {"rank": [4, 16, 4]}}, "the value 4 twice"),
        ({"grid": {"rank": [1, True]}}, "the value True twice"),
        ({"grid": {"rank": [[4], [16]]}}, "of type list"),
        ({"grid": {"rank": [float("nan")]}}, "must be finite"),
        ({"grid": {"seed": [1]}}, "give seeds=… instead"),
        ({"grid": {3: [1]}}, "must be named by a string"),
        ({"baseline": {"rank": 4}}, "each factor of the grid"),
        ({"baseline": {"rank": 4, "alpha": 0, "lr": 1}}, "each factor of the grid"),
        ({"baseline": {"rank": 5, "alpha": 0}}, r"rank=5 is not in the grid: \[4, 16\]"),
        ({"design": "random"}, "use one of full, one-factor"),
        ({"seeds": 0}, "1 or more"),
        ({"seeds": []}, "different whole numbers"),
        ({"seeds": [1, 1]}, "different whole numbers"),
        ({"seeds": [0.5]}, "different whole numbers"),
        ({"seeds": True}, "different whole numbers"),
        ({"seeds": [-1]}, "whole numbers from 0"),
        ({"workers": 0}, "whole number from 1"),
        ({"workers": 2}, "needs isolate=True"),
        ({"report_to": "paper"}, "report_to='paper'"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_runs(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    run = Logged(tmp_path / "calls")
    arguments = {"run": run, "grid": GRID, "storage": tmp_path / "store", **change}
    with pytest.raises(SettingsError, match=words):
        ftkit.ablate(**arguments)
    assert run.calls() == []
    assert not (tmp_path / "store").exists()


# --- what comes back ---------------------------------------------------------------------------


def moody(rank: int, alpha: int, seed: int) -> Any:
    answers: dict[tuple[int, int], Callable[[], Any]] = {
        (4, 0): lambda: {"loss": 1.0 + seed, "acc": True},
        (4, 5): lambda: {"loss": float("nan"), "acc": 0.5},
        (16, 0): lambda: "0.5",
        (16, 5): lambda: 1 / 0,
    }
    return answers[rank, alpha]()


def test_failures_are_recorded_and_stop_nothing() -> None:
    result = quiet(moody, seeds=2)
    errors = [t.failure.error for t in result.failures if t.failure]
    assert result.count("done") == 2
    assert Counter(errors) == {
        "ValueError: metric 'loss' of run is nan": 2,
        "TypeError: run is a str (not a number); it must be one number": 2,
        "ZeroDivisionError: division by zero": 2,
    }
    trace = next(
        t.failure.traceback for t in result.failures if t.failure and "Zero" in t.failure.error
    )
    assert "1 / 0" in trace
    assert "child.py" not in trace


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, "run is a NoneType"),
        ([1.0], "run is a list"),
        ({}, "no metrics"),
        ({1: 2.0}, "names must be strings"),
        ({"loss": None}, "metric 'loss' of run is a NoneType"),
        ({"loss": float("inf")}, "metric 'loss' of run is inf"),
        (-float("inf"), "run is -inf"),
    ],
)
def test_what_is_no_finite_number_is_a_failure(returned: Any, words: str) -> None:
    assert words in measure(lambda seed: returned, {}, 0)["error"]


def test_numbers_of_numpy_and_torch_are_numbers() -> None:
    import numpy as np
    import torch

    returned = {"a": np.float32(0.5), "b": torch.tensor([2.0]), "c": 3}
    assert measure(lambda seed: returned, {}, 0)["metrics"] == {"a": 0.5, "b": 2.0, "c": 3.0}
    assert "Tensor" in measure(lambda seed: torch.ones(2), {}, 0)["error"]


def test_leaving_the_program_is_a_failure_of_the_trial() -> None:
    result = quiet(lambda rank, seed: sys.exit(3), {"rank": [4]}, seeds=1)
    assert [t.failure.error for t in result.failures if t.failure] == ["SystemExit: 3"]


# --- resuming ----------------------------------------------------------------------------------


def test_a_second_call_runs_nothing_and_returns_the_same(tmp_path: Path) -> None:
    run = Logged(tmp_path / "calls")
    first = quiet(run, storage=tmp_path / "store")
    again = quiet(run, storage=tmp_path / "store")
    assert len(run.calls()) == 12
    assert again == first


def test_more_values_and_seeds_add_and_fewer_narrow(tmp_path: Path) -> None:
    run, folder = Logged(tmp_path / "calls"), tmp_path / "store"
    quiet(run, {"rank": [4], "alpha": [0, 5]}, seeds=2, storage=folder)
    wide = quiet(run, {"alpha": [5, 0, 10], "rank": [16, 4]}, seeds=[1, 2], storage=folder)
    assert Counter(run.calls()).most_common(1)[0][1] == 1
    assert len(run.calls()) == 4 + 12 - 2
    assert wide.count("done") == 12
    narrow = quiet(run, {"rank": [16], "alpha": [10]}, seeds=[2], storage=folder)
    assert len(run.calls()) == 14
    assert [t.metrics["value"] for t in narrow.trials] == [loss(16, 10, 2)]


def test_failures_are_kept_until_they_are_freed(tmp_path: Path) -> None:
    broken, folder = [True], tmp_path / "store"
    calls: list[int] = []

    def run(rank: int, seed: int) -> float:
        calls.append(rank)
        if rank == 16 and broken[0]:
            raise RuntimeError("broken")
        return rank

    for _ in range(2):
        assert len(quiet(run, {"rank": [4, 16]}, seeds=2, storage=folder).failures) == 2
    assert calls == [4, 16, 4, 16]
    broken[0] = False
    assert retry_failures(folder) == 2
    assert retry_failures(folder) == 0
    assert quiet(run, {"rank": [4, 16]}, seeds=2, storage=folder).failures == ()
    assert calls == [4, 16, 4, 16, 16, 16]


def test_there_is_nothing_to_retry_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no ablation"):
        retry_failures(tmp_path)


def test_other_factors_are_refused_and_another_function_is_told(tmp_path: Path) -> None:
    quiet(loss, storage=tmp_path, seeds=1)
    with pytest.raises(RecordError, match="holds an ablation of alpha, rank; this one is of rank"):
        quiet(lambda rank, seed: 0.0, {"rank": [4]}, storage=tmp_path)
    with pytest.warns(UserWarning, match=r"are of .*\.loss, these of .*Logged"):
        quiet(Logged(tmp_path / "calls"), storage=tmp_path, seeds=1)


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    quiet(loss, storage=tmp_path, seeds=1)
    journal = tmp_path / "journal.log"
    journal.write_text("rubbish\n" + journal.read_text())
    with pytest.raises(RecordError, match=r"journal.log is damaged"):
        quiet(loss, storage=tmp_path)


def test_half_a_line_of_a_killed_writer_hurts_nothing(tmp_path: Path) -> None:
    run, journal = Logged(tmp_path / "calls"), tmp_path / "store" / "journal.log"
    quiet(run, storage=tmp_path / "store", seeds=1)
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole.splitlines()[-1][:40])
    assert quiet(run, storage=tmp_path / "store", seeds=2).count("done") == 8
    assert quiet(run, storage=tmp_path / "store", seeds=2).count("done") == 8
    assert len(run.calls()) == 8
    assert journal.read_bytes().startswith(whole)


def test_optunas_own_tools_read_the_journal(tmp_path: Path) -> None:
    quiet(moody, storage=tmp_path, seeds=1)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    study = optuna.load_study(study_name="ablation", storage=storage)
    assert [t.state.name for t in study.trials] == ["COMPLETE", "FAIL", "FAIL", "FAIL"]
    assert study.trials[0].params == {"rank": 4, "alpha": 0, "seed": 0}
    assert study.trials[0].value == 1.0


# --- killed, interrupted, shared -----------------------------------------------------------------


def test_a_run_that_is_killed_again_and_again_gets_there(tmp_path: Path) -> None:
    """Each process kills itself with ``kill -9`` within its third trial."""
    folder, files = tmp_path / "store", []

    def process(path: Path) -> None:
        def before(*_: int) -> None:
            if len(run.calls()) == 3:
                kill_self()

        run = Logged(path, before)
        quiet(run, storage=folder)

    while len(files) < 10:
        files.append(tmp_path / f"calls{len(files)}")
        child = in_fork(lambda: process(files[-1]))
        child.join()
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
    calls = Counter(call for path in files for call in Logged(path).calls())
    killed = Counter(Logged(path).calls()[2] for path in files[:-1])
    assert len(files) == 6
    assert calls == Counter(EVERY) + killed  # two of three ended each time, the third ran again
    last = Logged(tmp_path / "none")
    with pytest.warns(UserWarning, match="are of"):
        result = quiet(loss, storage=folder)
    assert last.calls() == []
    assert [t.metrics["value"] for t in result.trials] == [loss(*call) for call in EVERY]


@pytest.mark.parametrize("point", ["before the line", "half the line", "after the line"])
def test_killed_while_an_outcome_is_stored(tmp_path: Path, point: str) -> None:
    run, folder = Logged(tmp_path / "calls"), tmp_path / "store"

    def process() -> None:
        append, written = JournalFileBackend.append_logs, []

        def deadly(self: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
            outcome = "user_attrs" in logs[0]
            written.append(outcome)
            if sum(written) < 3 or not outcome:
                return append(self, logs)
            if point == "half the line":
                os.write(os.open(self._file_path, os.O_WRONLY | os.O_APPEND), b'{"op_code":4,"wor')
            elif point == "after the line":
                append(self, logs)
            return kill_self()

        JournalFileBackend.append_logs = deadly
        quiet(run, storage=folder)

    child = in_fork(process)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    result = quiet(run, storage=folder)
    again = [call for call, times in Counter(run.calls()).items() if times > 1]
    assert again == ([] if point == "after the line" else [EVERY[2]])
    assert result.count("done") == 12


def test_two_processes_share_the_trials_and_both_get_all(tmp_path: Path) -> None:
    folder = tmp_path / "store"

    def process(name: str) -> None:
        run = Logged(tmp_path / name, lambda *_: time.sleep(0.03))
        quiet(run, storage=folder).save(tmp_path / f"{name}-result")

    both = [in_fork(lambda name=name: process(name)) for name in ("a", "b")]
    for child in both:
        child.join(PATIENCE)
        assert child.exitcode == 0
    calls = [Logged(tmp_path / name).calls() for name in ("a", "b")]
    assert sorted(calls[0] + calls[1]) == sorted(EVERY)
    assert all(calls)
    results = [AblationResult.load(tmp_path / f"{name}-result") for name in ("a", "b")]
    assert [r.count("done") for r in results] == [12, 12]


def test_what_a_killed_process_ran_is_taken_over_but_not_before(tmp_path: Path) -> None:
    """One process hangs in its first trial; we run the rest and wait, then take it when it dies."""
    folder, theirs = tmp_path / "store", Logged(tmp_path / "theirs", lambda *_: time.sleep(300))
    child = in_fork(lambda: quiet(theirs, storage=folder, seeds=1))
    wait_for(theirs.calls)

    def last_one(rank: int, alpha: int, seed: int) -> None:
        if len(ours.calls()) == 3:  # all but the one that hangs
            assert EVERY[0] not in ours.calls()
            child.kill()

    ours = Logged(tmp_path / "ours", last_one)
    result = quiet(ours, storage=folder, seeds=1)
    child.join()
    assert ours.calls() == [*EVERY[1:4], EVERY[0]]
    assert result.count("done") == 4


def test_a_trial_that_ended_while_we_looked_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another call runs everything between our look at the outcomes and our first lock."""
    run, others = Logged(tmp_path / "calls"), []

    def locked(path: object) -> FileLock:
        if "running" in str(path) and not others:
            others.append(path)
            quiet(run, storage=tmp_path / "store", seeds=1)
        return FileLock(str(path))

    monkeypatch.setattr(store, "FileLock", locked)
    assert quiet(run, storage=tmp_path / "store", seeds=1).count("done") == 4
    assert others
    assert run.calls() == EVERY[:4]


def test_an_interrupt_keeps_what_ended_and_the_next_call_goes_on(tmp_path: Path) -> None:
    interrupted = [True]

    def before(rank: int, alpha: int, seed: int) -> None:
        if interrupted[0] and (rank, alpha) == (16, 0):
            raise KeyboardInterrupt

    run = Logged(tmp_path / "calls", before)
    with pytest.raises(AblationInterrupted, match="2 of 4 trials ended: call ablate again") as told:
        quiet(run, storage=tmp_path / "store", seeds=1)
    assert isinstance(told.value, KeyboardInterrupt)
    assert [t.state for t in told.value.result.trials] == ["done", "done", "waiting", "waiting"]
    interrupted[0] = False
    assert quiet(run, storage=tmp_path / "store", seeds=1).count("done") == 4
    assert run.calls() == [*EVERY[:3], *EVERY[2:4]]


def test_a_full_disk_stops_the_call_but_blocks_no_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Logged(tmp_path / "calls")

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store.Store, "put", full)
        with pytest.raises(OSError, match="no space left") as kept:  # its traceback lives on
            quiet(run, storage=tmp_path / "store", seeds=1)
    assert quiet(run, storage=tmp_path / "store", seeds=1).count("done") == 4
    assert run.calls() == [EVERY[0], *EVERY[:4]]
    assert kept.tb is not None


def test_an_interrupt_without_storage_says_what_to_do() -> None:
    def run(rank: int, seed: int) -> float:
        raise KeyboardInterrupt

    with pytest.raises(AblationInterrupted, match=r"0 of 3 trials ended: give a storage=…"):
        quiet(run, {"rank": [4]})


# --- processes of their own ----------------------------------------------------------------------


def as_in_a_notebook(source: str) -> Callable[..., Any]:
    """Return the function ``run`` as a notebook's cell would define it: in ``__main__``."""
    module = types.ModuleType("__main__")
    exec(source, module.__dict__)
    run: Callable[..., Any] = module.run  # type: ignore[attr-defined]
    return run


def test_a_function_of_a_notebook_runs_in_a_fresh_python() -> None:
    run = as_in_a_notebook(
        "import os, sys\nscale = 10\n"
        "def run(rank, seed):\n"
        "    return {'value': rank * scale + seed, 'pid': os.getpid(), "
        "'torch': 'torch' in sys.modules}"
    )
    result = quiet(run, {"rank": [4, 16]}, seeds=2, isolate=True)
    assert [t.metrics["value"] for t in result.trials] == [40, 160, 41, 161]
    assert len({t.metrics["pid"] for t in result.trials} | {os.getpid()}) == 5
    assert {t.metrics["torch"] for t in result.trials} == {0.0}


def test_the_death_of_a_trial_is_a_failure_like_others() -> None:
    run = as_in_a_notebook(
        "import os, signal, sys\n"
        "def run(how, seed):\n"
        "    print('loading', how)\n"
        "    print('last words', file=sys.stderr)\n"
        "    if how == 'killed': os.kill(os.getpid(), 9)\n"
        "    if how == 'crashed': os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    if how == 'left': os._exit(7)\n"
        "    if how == 'raised': raise ValueError('no')\n"
        "    return 1.0"
    )
    ways = {
        "killed": "the process was killed by SIGKILL; the system does so when memory runs out",
        "crashed": "the process was killed by SIGSEGV",
        "left": "the process ended with exit code 7 before it answered",
        "raised": "ValueError: no",
    }
    result = quiet(run, {"how": [*ways, "fine"]}, seeds=1, isolate=True, workers=3)
    told = {t.setting["how"]: t.failure for t in result.failures}
    assert {how: failure.error for how, failure in told.items() if failure} == ways
    assert all(f and f"loading {how}\nlast words" in f.traceback for how, f in told.items())
    assert "in run" in str(told["raised"])
    assert result.count("done") == 1


def test_several_trials_run_at_once(tmp_path: Path) -> None:
    """Each waits until the other has begun, so that one alone would never end."""
    folder = str(tmp_path)

    def run(rank: int, seed: int) -> float:
        import pathlib
        import time

        here = pathlib.Path(folder)
        (here / str(rank)).touch()
        end = time.monotonic() + 20
        while not ((here / "4").exists() and (here / "16").exists()):
            if time.monotonic() > end:
                raise TimeoutError
            time.sleep(0.01)
        return rank

    result = quiet(run, {"rank": [4, 16]}, seeds=1, isolate=True, workers=2)
    assert result.failures == ()


def test_what_cannot_be_pickled_is_refused_with_the_reason(tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as file:

        def run(rank: int, seed: int) -> float:
            return float(file.fileno())

        with pytest.raises(SettingsError, match=r"run cannot be sent .*load or make inside"):
            quiet(run, {"rank": [4]}, isolate=True)


def pid_of(path: Path) -> int:
    return int(path.read_text() or 0) if path.exists() else 0


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


SLEEPER = (
    "import os, pathlib, time\n"
    "def run(path, seed):\n"
    "    pathlib.Path(path).write_text(str(os.getpid()))\n"
    "    time.sleep(300)\n"
)


def test_a_trial_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    path, run = tmp_path / "pid", as_in_a_notebook(SLEEPER)
    parent = in_fork(lambda: quiet(run, {"path": [str(path)]}, seeds=1, isolate=True))
    wait_for(lambda: pid_of(path))
    assert is_running(pid_of(path))
    parent.kill()
    parent.join()
    wait_for(lambda: not is_running(pid_of(path)))


PARENT = (
    "import pathlib, subprocess, sys, time\n"
    "def run(path, seed):\n"
    "    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\n"
    "    pathlib.Path(path).write_text(str(child.pid))\n"
    "    time.sleep(300)\n"
)


@pytest.mark.parametrize("script", [SLEEPER, PARENT], ids=["trial", "what it started"])
def test_an_interrupt_ends_the_trials_in_their_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    path, sleep = tmp_path / "pid", time.sleep

    def interrupted(seconds: float) -> None:
        if pid_of(path):
            raise KeyboardInterrupt
        sleep(seconds)

    monkeypatch.setattr("ftkit.stages.ablation.loop.time.sleep", interrupted)
    with pytest.raises(AblationInterrupted, match="0 of 1 trials ended"):
        quiet(as_in_a_notebook(script), {"path": [str(path)]}, seeds=1, isolate=True)
    monkeypatch.undo()
    wait_for(lambda: not is_running(pid_of(path)))


# --- what is seen --------------------------------------------------------------------------------


def test_a_terminal_gets_a_line_a_trial(capsys: pytest.CaptureFixture[str]) -> None:
    ftkit.ablate(loss, GRID, seeds=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "0 of 4"
    assert lines[1].startswith("1 of 4 · rank=4, alpha=0, seed 0 · value 4 (0.0 s)")
    assert len(lines) == 5


def test_without_progress_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    quiet(loss, seeds=1)
    assert capsys.readouterr() == ("", "")


def test_a_notebook_gets_one_table_that_is_rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Mapping[str, str]] = []

    class Handle:
        def update(self, bundle: Mapping[str, str], raw: bool) -> None:
            shown.append(bundle)

    def display(bundle: Mapping[str, str], raw: bool, display_id: bool) -> Handle:
        assert shown == []
        shown.append(bundle)
        return Handle()

    monkeypatch.setattr(screen, "in_kernel", lambda: True)
    monkeypatch.setattr("IPython.display.display", display)
    ftkit.ablate(loss, GRID, seeds=1)
    states = [bundle["text/plain"].split(" · ")[0] for bundle in shown]
    assert states[0] == "0 of 4"
    assert states[-1] == "4 of 4"
    assert "<b>▶ 1</b> running" in shown[1]["text/html"]
    assert "<b>✓ 4</b> done" in shown[-1]["text/html"]


def test_the_estimate_is_the_range_of_what_was_measured() -> None:
    a, b = {"rank": 4}, {"rank": 16}
    done = [AblationTrial(a, 0, "done", {}, 2.0), AblationTrial(b, 0, "done", {}, 10.0)]
    failed = AblationTrial(b, 1, "failed", {}, 0.1)
    rest = [AblationTrial(a, 2), AblationTrial({"rank": 64}, 2, "running")]
    assert Clock(1).left(done) is None
    assert Clock(1).left(rest) is None
    assert Clock(1).left([*done, failed, *rest]) == (2.0 + 2.0, 2.0 + 10.0)
    assert Clock(8).left([*done, failed, *rest]) == (2.0, 6.0 + 10.0 / 2)


def test_the_progress_of_a_stopped_call_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    def run(rank: int, seed: int) -> float:
        raise KeyboardInterrupt

    with pytest.raises(AblationInterrupted):
        ftkit.ablate(run, {"rank": [4]}, seeds=1)
    assert capsys.readouterr().out.splitlines() == ["0 of 1", "0 of 1 · stopped"]
    assert isinstance(AblationProgress(quiet(loss, seeds=1), 1.0).to_html(), str)


# --- trackers ------------------------------------------------------------------------------------


class Recorder(TrainerCallback):
    """A tracker that keeps what transformers' trackers read."""

    seen: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = []  # noqa: RUF012

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        json.loads(kwargs["model"].config.to_json_string())
        assert state.is_hyper_param_search

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        config = kwargs["model"].config.to_dict()["ablation"]
        self.seen.append((args.run_name, state.trial_name, config, kwargs["logs"]))


def test_each_trial_is_a_run_of_the_tracker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "recorder", Recorder)
    monkeypatch.setattr(Recorder, "seen", [])
    quiet(moody, seeds=1, report_to="recorder", storage=tmp_path)
    ((name, trial, config, logs),) = Recorder.seen  # the others failed
    assert name == trial == "rank=4, alpha=0, seed=0"
    assert config == {"rank": 4, "alpha": 0, "seed": 0}
    assert logs == {"loss": 1.0, "acc": 1.0, "seconds": logs["seconds"]}


def test_a_tracker_that_fails_costs_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            raise ConnectionError("no network")

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "broken", Broken)
    with pytest.warns(UserWarning, match=r"was not reported \(ConnectionError: no network\)"):
        result = quiet(loss, {"rank": [4], "alpha": [0]}, seeds=1, report_to="broken")
    assert result.count("done") == 1


def test_a_tracker_that_is_not_installed_is_told_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integration_utils, "is_trackio_available", lambda: False)
    with pytest.raises(SettingsError, match="pip install trackio"):
        quiet(loss, report_to="trackio")


def noted(seed: int) -> float:
    error = ValueError("bad rate")
    error.add_note("in config x")
    raise error


def test_a_failure_names_its_exception_and_not_its_note() -> None:
    (trial,) = quiet(lambda a, seed: noted(seed), {"a": [0]}, seeds=1).trials
    assert trial.failure.error == "ValueError: bad rate"
    assert "in config x" in trial.failure.traceback


def reads_stdin(a: int, seed: int) -> float:
    return float(len(sys.stdin.read()))


def test_a_process_that_reads_its_input_finds_it_empty() -> None:
    (trial,) = quiet(reads_stdin, {"a": [0]}, seeds=1, isolate=True).trials
    assert trial.metrics == {"value": 0.0}


def test_locks_of_different_values_have_different_names() -> None:
    same = {store._fingerprint({"a": value}, 0) for value in (1, 1.0, True)}
    different = {store._fingerprint({"a": value}, 0) for value in (-1, -2, 0.5, "1", None, 10**400)}
    assert len(same) == 1
    assert len(different | same) == 7


@pytest.mark.parametrize("name", ["state", "seconds", "error"])
def test_a_factor_cannot_hide_a_column_of_the_result(name: str) -> None:
    with pytest.raises(SettingsError, match="names a column"):
        quiet(lambda **_: 1.0, {name: [1, 2]}, seeds=1)


def leaves_a_thread(a: int, seed: int) -> float:
    threading.Thread(target=time.sleep, args=(3600,)).start()
    return 1.0


def test_a_thread_that_stays_behind_does_not_hold_the_trial() -> None:
    (trial,) = quiet(leaves_a_thread, {"a": [0]}, seeds=1, isolate=True).trials
    assert trial.metrics == {"value": 1.0}


def test_a_trial_that_had_ended_when_the_interrupt_came_is_kept(tmp_path, monkeypatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runners, "_LONG", -1.0)
    monkeypatch.setattr(runners.gc, "collect", interrupted)
    with pytest.raises(AblationInterrupted) as stopped:
        quiet(loss, seeds=1, storage=tmp_path)
    assert stopped.value.result.count("done") == 1
    monkeypatch.undo()
    assert quiet(loss, seeds=1, storage=tmp_path).count("done") == 4


def test_dollars_in_a_setting_are_no_formula() -> None:
    result = quiet(
        lambda text, seed: float(seed), {"text": ["Pay $5", "cost $\\frac$ now"]}, seeds=2
    )
    result.plot()._repr_png_()
