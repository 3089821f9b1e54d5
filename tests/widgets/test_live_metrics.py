"""LiveMetrics on real trainers: complete, in place, honest about failures, harmless elsewhere."""

from math import isnan, nan
from types import SimpleNamespace

import nbformat
import pytest
import torch
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from transformers import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainingArguments,
)
from trl import DPOConfig, GRPOConfig, RewardConfig, RLOOConfig, SFTConfig

import ftkit
from ftkit.records import RunHistory
from ftkit.widgets import LiveMetrics, live_metrics
from ftkit.widgets.live_metrics import method_of

SETUP = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments
import ftkit

class Bomb(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise RuntimeError("boom")

def make(folder, callbacks=()):
    config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=2,
                         num_attention_heads=2, num_key_value_heads=2)
    rows = [{"input_ids": list(range(i, i + 8)), "labels": list(range(i, i + 8))} for i in range(8)]
    args = TrainingArguments(folder, max_steps=5, logging_steps=1, per_device_train_batch_size=2,
                             use_cpu=True, report_to="none", save_strategy="no",
                             eval_strategy="steps", eval_steps=5)
    return Trainer(LlamaForCausalLM(config), args, train_dataset=rows, eval_dataset=rows[:2],
                   callbacks=list(callbacks))
"""


class Bomb(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise RuntimeError("boom")


@pytest.fixture
def trainer(tmp_path):
    scope: dict = {}
    exec(SETUP, scope)
    return scope["make"](str(tmp_path))


@pytest.fixture
def screen(monkeypatch):
    """A notebook front end that remembers what each output showed, in order."""
    shown: list[tuple[int, str]] = []
    handlers: list = []

    class Handle:
        def __init__(self, number):
            self.number = number

        def update(self, bundle, raw):
            shown.append((self.number, bundle["text/html"]))

    def display(bundle, raw, display_id):
        handle = Handle(len({number for number, _ in shown}))
        handle.update(bundle, raw)
        return handle

    events = SimpleNamespace(
        register=lambda name, f: handlers.append(f), unregister=lambda name, f: handlers.remove(f)
    )
    shell = SimpleNamespace(kernel=object(), events=events)
    monkeypatch.setattr(live_metrics, "get_ipython", lambda: shell)
    monkeypatch.setattr(live_metrics, "display", display)
    return SimpleNamespace(shown=shown, handlers=handlers)


def feed(live, logs, *, step=1, args=None):
    state = SimpleNamespace(global_step=step, max_steps=9, is_world_process_zero=True)
    live.on_log(args or object(), state, None, logs=logs)


def test_both_public_names_are_one_class():
    assert ftkit.LiveMetrics is ftkit.widgets.LiveMetrics is LiveMetrics
    with pytest.raises(AttributeError, match="no attribute 'LiveMetric'"):
        ftkit.widgets.LiveMetric  # noqa: B018


def test_a_real_run_is_kept_whole(trainer):
    live = LiveMetrics().attach(trainer)
    trainer.train()
    history = live.history
    assert history.outcome == "finished"
    assert history.max_steps == 5
    assert [step for step, _ in history.curves()["loss"]] == [1, 2, 3, 4, 5]
    logged = {k for row in trainer.state.log_history for k in row} - {"step"}
    assert set(history.curves()) == logged
    assert history.to_pandas().loc[5, "eval_loss"] > 0


def test_attaching_leaves_one_progress_display_and_is_idempotent(trainer):
    live = LiveMetrics()
    assert live.attach(trainer) is live.attach(trainer) is live
    kinds = [type(c) for c in trainer.callback_handler.callbacks]
    assert kinds.count(LiveMetrics) == 1
    assert not {ProgressCallback, PrinterCallback} & set(kinds)


def test_a_terminal_gets_one_line_a_log_when_attached_and_none_otherwise(capsys):
    live = LiveMetrics()
    feed(live, {"loss": 2.5})
    assert capsys.readouterr().out == ""
    live._attached = True
    feed(live, {"loss": nan, "note": "x"}, step=2)
    assert capsys.readouterr().out == "step 2/9  loss nan\n"


def test_training_is_not_touched(tmp_path):
    def weights(callbacks):
        scope: dict = {}
        exec(SETUP, scope)
        torch.manual_seed(0)
        made = scope["make"](str(tmp_path), callbacks)
        made.train()
        return made.model.state_dict()

    plain, watched = weights([]), weights([LiveMetrics()])
    assert all(torch.equal(plain[k], watched[k]) for k in plain)


def test_odd_logs_do_no_harm():
    live = LiveMetrics()
    for logs in (None, {}, {"text": "x", "list": [1], "none": None, "loss": torch.tensor(1.5)}):
        feed(live, logs)
    assert live.history.curves()["loss"] == [(1, 1.5)]
    assert isnan(live.history.curves()["none"][0][1])
    assert live.history.skipped == {"text": "str", "list": "list"}


def test_a_nan_loss_is_logged_as_nan(trainer):
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(nan)
    live = LiveMetrics().attach(trainer)
    trainer.train()
    assert isnan(live.history.curves()["loss"][0][1])
    assert live.history.findings()[0].severity == "error"


def test_pictures_are_throttled_but_the_last_one_is_complete(trainer, screen):
    live = LiveMetrics(every=3600).attach(trainer)
    trainer.train()
    progress = [html for number, html in screen.shown if number == 0]
    pictures = [html for number, html in screen.shown if number == 1]
    assert len(progress) == len(pictures) == 2, "the first and the last"
    assert "finished: 5 of 5 steps" in progress[-1]
    assert "<code>train_runtime</code>" in pictures[-1]
    assert screen.handlers == []
    assert live.history.outcome == "finished"


def test_what_the_throttle_held_back_is_drawn_at_a_later_step(trainer, screen, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(live_metrics.time, "monotonic", lambda: now[0])
    live = LiveMetrics()
    state = SimpleNamespace(global_step=1, max_steps=9, is_world_process_zero=True)
    live.on_train_begin(trainer.args, SimpleNamespace(**vars(state) | {"global_step": 0}), None)
    live.on_log(trainer.args, state, None, logs={"loss": 2.0})
    live.on_log(trainer.args, state, None, logs={"eval_loss": 1.75})
    assert "1.75" not in screen.shown[-1][1]
    now[0] = 10.0
    live.on_step_end(trainer.args, state, None)
    assert "1.75" in screen.shown[-1][1]


def test_a_failing_run_leaves_its_picture_and_says_so(trainer, screen):
    live = LiveMetrics(every=0.0).attach(trainer)
    trainer.add_callback(Bomb)
    with pytest.raises(RuntimeError, match="boom"):
        trainer.train()
    assert live.history.outcome == "running"
    screen.handlers[0](SimpleNamespace())  # IPython calls it when the cell ends
    assert live.history.outcome == "stopped"
    assert "stopped: 3 of 5 steps" in screen.shown[-2][1]
    assert "stopped early" in screen.shown[-1][1]
    assert screen.handlers == []


def test_a_second_run_starts_a_new_history(trainer):
    live = LiveMetrics().attach(trainer)
    trainer.train()
    first = live.history
    trainer.train()
    assert live.history is not first
    assert len(live.history.curves()["loss"]) == len(first.curves()["loss"]) == 5


def test_resuming_a_checkpoint_goes_on_and_drops_what_is_done_again(trainer):
    live = LiveMetrics()
    live.history = RunHistory(max_steps=5, outcome="stopped")
    for step in (1, 2, 3, 4):
        live.history.append(step, {"loss": 1.0}, seconds=step)
    state = SimpleNamespace(global_step=2, max_steps=5, is_world_process_zero=True)
    live.on_train_begin(trainer.args, state, None)
    assert live.history.last_step == 2
    assert live.history.outcome == "running"


def test_an_evaluation_before_training_is_the_first_point(trainer):
    live = LiveMetrics().attach(trainer)
    trainer.evaluate()
    trainer.train()
    assert [step for step, _ in live.history.curves()["eval_loss"]] == [0, 5]


@pytest.mark.parametrize(
    ("config", "method"),
    [
        (SFTConfig, "sft"),
        (RewardConfig, "reward"),
        (DPOConfig, "dpo"),
        (GRPOConfig, "grpo"),
        (RLOOConfig, "rloo"),
        (type("MyConfig", (DPOConfig,), {}), "dpo"),
        (TrainingArguments, ""),
    ],
)
def test_the_trainer_is_known_by_its_arguments(config, method):
    assert method_of(object.__new__(config)) == method


def test_remaining_time_follows_the_pace_and_ignores_the_first_step(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(live_metrics.time, "monotonic", lambda: now[0])
    clock = live_metrics._Clock()
    clock.tick(0)
    now[0] = 60.0  # a slow first step
    clock.tick(1)
    assert clock.pace() is None
    assert "measuring the pace" in clock.text(1, 10, "step", "")
    for step in (2, 3, 4):
        now[0] += 2.0
        clock.tick(step)
    assert clock.pace() == 2.0
    assert "about 12 s left (2 s a step)" in clock.text(4, 10, "step", "")


def test_an_executed_notebook_keeps_pictures_and_no_widget_state(tmp_path):
    cells = [
        SETUP,
        f"live = ftkit.LiveMetrics()\ntrainer = make({str(tmp_path)!r}, [live])\n"
        "live.attach(trainer).history.outcome",
        "_ = trainer.train()",
        f"trainer = make({str(tmp_path)!r})\nlive = ftkit.LiveMetrics().attach(trainer)\n"
        "trainer.add_callback(Bomb)\ntrainer.train()",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    with pytest.raises(CellExecutionError, match="boom"):
        NotebookClient(notebook, timeout=240).execute()

    def html(cell):
        return [o.data["text/html"] for o in cell.outputs if "text/html" in o.get("data", {})]

    progress, picture = html(notebook.cells[2])
    assert "finished: 5 of 5 steps" in progress
    assert "<svg" in picture
    assert "<code>loss</code>" in picture
    progress, picture = html(notebook.cells[3])
    assert "stopped: 3 of 5 steps" in progress
    assert "stopped early" in picture
    assert "widgets" not in notebook.metadata
    assert "widget-view" not in nbformat.writes(notebook)
