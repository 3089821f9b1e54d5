"""Rules on curves: a healthy run is left alone, each fault is told once."""

import math
import warnings
from types import SimpleNamespace

import pytest
from patients import QUIET, chats, family_tokenizer, llama
from transformers import TrainerControl, TrainerState
from trl import SFTConfig, SFTTrainer

from ftkit import PPOConfig
from ftkit.chat import templates
from ftkit.diagnosis import TrainingWarning, Watch, judge
from ftkit.records import RunHistory


def history(**curves: list[float]) -> RunHistory:
    made = RunHistory()
    names = {name: name.replace("__", "/") for name in curves}
    for step in range(max(map(len, curves.values()))):
        logs = {names[k]: v[step] for k, v in curves.items() if step < len(v)}
        made.append(step + 1, logs)
    return made


def line(first: float, last: float, points: int = 12) -> list[float]:
    noise = [0.02 * abs(last - first) * math.sin(7 * i) for i in range(points)]
    return [first + (last - first) * i / (points - 1) + noise[i] for i in range(points)]


FLAT = [1.0, 1.02, 0.99, 1.01, 0.98, 1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0]
UP = line(0.1, 0.9)
SICK = {
    "loss-nan": [history(loss=[2.0, 1.9, math.nan]), history(loss=[2.0], grad_norm=[math.inf])],
    "loss-zero": [history(loss=[2.0, 0.0, 0.0])],
    "no-gradient": [history(loss=[2.0] * 3, grad_norm=[0.0] * 3)],
    "kl-negative": [
        history(objective__kl=[0.0, -2.0, -3.0, -5.0]),
        history(kl=[0.01, -0.2, -0.3, -0.2]),
    ],
    "kl-exploding": [history(objective__kl=[1.0, 70.0, 90.0, 130.0])],
    "zero-variance-groups": [history(loss=[0.0] * 3, frac_reward_zero_std=[0.9, 1.0, 0.95])],
    "reward-hacking": [
        history(objective__scores=UP, rewards__gold__mean=line(0.5, 0.1)),
        history(objective__scores=UP, objective__length=line(20, 4)),
        history(reward=UP, completions__mean_length=line(100, 400)),
        history(reward=UP, entropy=line(2.0, 0.2)),
    ],
    "chosen-falls": [
        history(rewards__chosen=line(0.0, -3.0), rewards__margins=line(0.0, 2.0), loss=FLAT)
    ],
}
CLEAN = {
    "a falling loss": history(loss=line(3.0, 1.5), grad_norm=line(2.0, 1.0), entropy=FLAT),
    "a policy loss that is 0 by construction": history(
        loss=[0.0] * 4, grad_norm=[0.3] * 4, reward=FLAT[:4], frac_reward_zero_std=[0.1] * 4
    ),
    "equal groups explain a gradient of 0": history(
        loss=[0.0] * 2, grad_norm=[0.0] * 2, reward=[1.0] * 2, frac_reward_zero_std=[1.0] * 2
    ),
    "one NaN that fp16 scaling skipped": history(loss=[2.0, math.nan, 1.9]),
    "a KL that dips by noise": history(objective__kl=[0.0, -0.3, 0.2, 0.5, 1.0]),
    "a reward that rises honestly": history(
        objective__scores=UP, rewards__gold__mean=line(0.2, 0.6), objective__length=line(20, 16),
        objective__entropy=line(2.0, 1.5), objective__kl=line(0.1, 4.0),
    ),
    "a gold score that wobbles": history(reward=UP, rewards__gold__mean=FLAT),
    "collapse without reward": history(reward=FLAT, completions__mean_length=line(100, 10)),
    "a DPO run": history(
        loss=line(0.69, 0.4), rewards__chosen=line(0.0, 0.5), rewards__margins=line(0.0, 1.0)
    ),
}  # fmt: skip


@pytest.mark.parametrize(("code", "run"), [(c, r) for c, runs in SICK.items() for r in runs])
def test_a_sick_run_is_named(code: str, run: RunHistory) -> None:
    found = {f.code: f for f in judge(run)}
    assert list(found) == [code]
    assert found[code].fix


@pytest.mark.parametrize("name", CLEAN)
def test_a_healthy_run_is_left_alone(name: str) -> None:
    assert judge(CLEAN[name]) == []


def test_the_gold_score_can_be_named() -> None:
    run = history(reward=UP, rewards__judge__mean=line(0.5, 0.1))
    assert judge(run) == []
    assert [f.code for f in judge(run, gold="rewards/judge/mean")] == ["reward-hacking"]


def played(run: RunHistory, watch: Watch, args: object) -> TrainerControl:
    state = TrainerState(max_steps=len(run.rows))
    control = TrainerControl()
    watch.on_train_begin(args, state, control)
    for row in run.rows:
        state.global_step = row.step
        watch.on_log(args, state, control, logs=dict(row.values))
    watch.on_train_end(args, state, control)
    return control


def test_each_fault_is_told_once_and_stays_on_record() -> None:
    watch = Watch(stop=True)
    run = history(loss=[2.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    with pytest.warns(TrainingWarning) as told:
        control = played(run, watch, SimpleNamespace())
    assert len(told) == 1
    assert [f.code for f in watch.findings] == ["loss-zero"]
    assert control.should_training_stop
    assert watch.history.outcome == "finished"
    assert "6 logs" in str(watch.report)
    assert "loss is exactly 0" in watch.report.to_html()


def test_the_calls_of_our_ppo_trainer_are_understood() -> None:
    with pytest.warns(TrainingWarning, match="kl-negative"):
        played(history(objective__kl=[0.0, -2.0, -3.0, -5.0]), Watch(), PPOConfig())


def a_trainer(folder, steps: int, watch: Watch) -> SFTTrainer:
    tokenizer = family_tokenizer(templates.get("qwen2_5"), "<|im_end|>")
    args = SFTConfig(output_dir=str(folder), **{**QUIET, "max_steps": steps})
    return SFTTrainer(
        model=llama(tokenizer),
        args=args,
        train_dataset=chats(8),
        processing_class=tokenizer,
        callbacks=[watch],
    )


def test_a_real_run_without_gradient_is_caught(tmp_path) -> None:
    trainer = a_trainer(tmp_path, 4, Watch())
    for parameter in trainer.model.parameters():
        parameter.register_hook(lambda gradient: gradient * 0)
    with pytest.warns(TrainingWarning, match="no-gradient"):
        trainer.train()
    assert trainer.args.logging_nan_inf_filter is False


def test_a_healthy_real_run_raises_no_warning(tmp_path) -> None:
    watch = Watch()
    trainer = a_trainer(tmp_path, 3, watch)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TrainingWarning)
        trainer.train()
    assert watch.findings == ()
    assert {"loss", "grad_norm"} <= set(watch.history.curves())
