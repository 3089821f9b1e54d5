"""The guide covers every key that the installed trainers log, and its bands judge sensibly.

The keys are read from the trainers' source, so that an upgrade that adds a metric fails here.
"""

import ast
import inspect
from math import inf, nan

import pytest
import transformers.trainer
import transformers.trainer_utils
import trl.trainer.dpo_trainer
import trl.trainer.grpo_trainer
import trl.trainer.reward_trainer
import trl.trainer.rloo_trainer
import trl.trainer.sft_trainer

import ftkit.stages.ppo.metrics
import ftkit.stages.ppo.trainer
from ftkit.records.metric_guide import (
    METHODS,
    METRICS,
    Metric,
    band_text,
    explain,
    metric_for,
    split_key,
)

TRAINERS = {
    "sft": trl.trainer.sft_trainer,
    "reward": trl.trainer.reward_trainer,
    "dpo": trl.trainer.dpo_trainer,
    "grpo": trl.trainer.grpo_trainer,
    "rloo": trl.trainer.rloo_trainer,
}
STORES = ("_metrics", "logs", "metrics", "result")  # result: of speed_metrics
USER_KEYS = {"name", "key"}  # loops over keys that a reward function or a callback chose


def logged_keys(source: str) -> tuple[set[str], set[str]]:
    """Return the keys written into a metrics store, and the variables used as keys."""
    keys, variables = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            keys |= keys_of_dict(node.targets[0], node.value)
        if not isinstance(node, ast.Subscript):
            continue
        if isinstance(node.slice, ast.Name):
            if store_of(node) in STORES and node.slice.id != "mode":
                variables.add(node.slice.id)
        elif store_of(node) in STORES and (key := text_of(node.slice)):
            keys.add(key)
    return keys - {"train", "eval", ""}, variables


def keys_of_dict(target: ast.expr, value: ast.Dict) -> set[str]:
    """Return the keys of ``metrics = {…}``; of other names only f-string keys count."""
    name, keys = getattr(target, "id", ""), [key for key in value.keys if key]
    if name == "result":
        keys = [key for key in keys if isinstance(key, ast.JoinedStr)]
    return {text_of(key) for key in keys} if name in STORES else set()


def store_of(node: ast.Subscript) -> str:
    value = node.value.value if isinstance(node.value, ast.Subscript) else node.value
    return getattr(value, "attr", None) or getattr(value, "id", "")


def text_of(node: ast.expr) -> str:
    """Return a constant key, or an f-string key with its holes filled."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if not isinstance(node, ast.JoinedStr):
        return ""
    filled = {"split": "train", "metric_key_prefix": "eval", "stage": "train", "t": "alloc"}
    return "".join(
        str(part.value)
        if isinstance(part, ast.Constant)
        else filled.get(ast.unparse(part.value), "my_reward_func")
        for part in node.values
    )


@pytest.mark.parametrize("method", TRAINERS)
def test_every_key_of_the_trl_trainer_is_explained(method):
    keys, variables = logged_keys(inspect.getsource(TRAINERS[method]))
    assert len(keys) >= 4, f"the reader found hardly any key in TRL's {method} trainer: {keys}"
    assert variables <= USER_KEYS, "TRL logs keys in a way that this test cannot read"
    unknown = {k for key in keys for k in (key, f"eval_{key}") if explain(k, method) is None}
    assert not unknown, f"add these keys of TRL's {method} trainer to metric_guide.toml: {unknown}"


def test_every_key_of_transformers_trainer_is_explained():
    keys = set()
    for module in (transformers.trainer, transformers.trainer_utils):
        keys |= logged_keys(inspect.getsource(module))[0]
    keys -= {"objective", "eval_my_reward_func"}  # hyperparameter search; the prefixing itself
    assert {"loss", "grad_norm", "learning_rate", "epoch", "train_runtime", "eval_loss"} <= keys
    unknown = {key for key in keys if explain(key) is None}
    assert not unknown, f"add these keys of transformers' Trainer to metric_guide.toml: {unknown}"
    for speed in ("runtime", "samples_per_second", "steps_per_second"):
        assert explain(f"eval_{speed}")
        assert explain(f"eval_code_{speed}"), "several evaluation sets carry their name"


def ppo_keys() -> set[str]:
    """Return the keys of the dict literals of ftkit's own PPO that look like metric names."""
    keys = set()
    for module in (ftkit.stages.ppo.metrics, ftkit.stages.ppo.trainer):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Dict):
                keys |= {text_of(key) for key in node.keys if key}
    return {k for k in keys if "/" in k or k in ("lr", "episode")}


def test_every_key_of_ftkits_ppo_is_explained():
    keys = ppo_keys()
    assert {"objective/kl", "val/ratio", "lr", "time/round_s"} <= keys
    unknown = {key for key in keys if explain(key, "ppo") is None}
    assert not unknown, f"add these keys of ftkit's PPO to metric_guide.toml: {unknown}"
    rewards = explain("rewards/my_reward_func/mean", "ppo")
    assert rewards


def test_no_entry_explains_a_key_that_nobody_logs():
    logged = ppo_keys()
    for module in (*TRAINERS.values(), transformers.trainer, transformers.trainer_utils):
        logged |= {split_key(k)[1] for k in logged_keys(inspect.getsource(module))[0]}
    logged |= {"runtime", "samples_per_second", "steps_per_second"}
    used = {m.key for key in logged for method in METHODS if (m := explain(key, method))}
    assert {m.key for m in METRICS.values()} == used


@pytest.mark.parametrize("name", METRICS)
def test_each_entry_is_complete_and_consistent(name):
    metric = METRICS[name]
    assert metric.unit
    assert metric.meaning.endswith(".")
    assert metric.expect
    assert name.partition("@")[2] in METHODS
    assert metric.group == "books" or (metric.look and metric.halt)
    if metric.healthy:
        assert metric.healthy[0] < metric.healthy[1]
    if metric.from_start:
        assert metric.healthy is None, "one kind of band"
        assert metric.from_start[0] < 1 < metric.from_start[1]
    if metric.stop:
        assert metric.healthy, "a stop band needs a healthy one inside"
        assert metric.stop[0] <= metric.healthy[0] < metric.healthy[1] <= metric.stop[1]


def test_the_same_key_means_what_the_trainer_means():
    assert "k3" in explain("kl", "grpo").meaning
    assert "k1" in explain("kl", "rloo").meaning
    assert explain("kl", "rloo").healthy[0] < 0, "k1 can dip below 0"
    assert explain("loss", "reward").unit == "nats/pair"
    assert explain("loss").healthy is None, "no scale is known for just any trainer"


def test_reward_functions_and_held_out_splits_resolve():
    assert explain("rewards/len_reward/mean", "grpo").key == "rewards/{func}/mean"
    assert "reward_weights" in explain("rewards/len_reward/mean", "grpo").halt
    assert "reward_weights" not in explain("rewards/len_reward/mean", "ppo").halt
    assert explain("rewards/chosen", "dpo").key == "rewards/chosen"
    assert split_key("eval_rewards/margins") == ("eval", "rewards/margins")
    assert split_key("eval_code_loss") == ("eval_code", "loss")
    assert split_key("train_loss") == ("train", "train_loss")


def test_unknown_keys_are_plain_but_still_watched_for_nan():
    assert explain("my_metric") is None
    plain = metric_for("eval_my_metric")
    assert (plain.key, plain.group, plain.healthy) == ("my_metric", "other", None)
    assert plain.judge([1.0, nan]).severity == "error"
    assert plain.judge([1e9] * 9) is None


METRIC = Metric(
    "x", "policy", "u", "m", healthy=(0.0, 1.0), stop=(0.0, 5.0), look="LOOK", halt="HALT"
)


@pytest.mark.parametrize(
    ("values", "severity", "fix"),
    [
        ([], None, ""),
        ([3.0, 3.0], None, ""),  # too few to judge
        ([0.5, 0.5, 0.5], None, ""),
        ([0.5, 0.5, 0.5, 99.0], None, ""),  # one noisy batch
        ([0.5, 3.0, 3.0, 3.0], "warning", "LOOK"),
        ([0.5, 7.0, 7.0, 7.0], "error", "HALT"),
        ([9.0, 9.0, 0.5, 0.5, 0.5], None, ""),  # recovered
        ([-0.1, -0.1, -0.1], "error", "HALT"),
    ],
)
def test_the_median_of_the_last_three_is_held_against_the_bands(values, severity, fix):
    finding = METRIC.judge(values)
    assert (finding.severity if finding else None) == severity
    assert (finding.fix if finding else "") == fix


def test_a_band_from_the_start_is_held_against_the_curves_own_beginning():
    length = explain("objective/length", "ppo")
    assert length.grounded([20.0, 20.0]).healthy is None, "too few to know the start"
    assert length.grounded([nan, 18.0, 22.0, 20.0, 99.0]).healthy == (10.0, 40.0)
    assert length.judge([20.0, 20.0, 20.0, 35.0, 35.0, 35.0]) is None
    told = length.judge([20.0, 20.0, 20.0, 8.0, 8.0, 8.0])
    assert told.severity == "warning"
    assert "10 to 40" in told.message
    assert length.grounded([0.0, 0.0, 0.0]).healthy is None, "a multiple of nothing is no band"


def test_nan_is_told_at_once_and_remembered_after_recovery():
    assert METRIC.judge([nan]).severity == "error"
    recovered = METRIC.judge([0.5, inf, 0.5, 0.5, 0.5])
    assert recovered.severity == "warning"
    assert "1 of 5" in recovered.message


def test_missing_values_of_a_reward_function_are_a_note_only():
    finding = explain("rewards/f/mean", "grpo").judge([0.1, nan])
    assert finding.severity == "info"
    assert "None" in finding.fix


def test_a_zero_loss_is_not_healthy():
    assert explain("loss", "sft").judge([0.0, 0.0, 0.0]).severity == "error"


def test_bands_read_as_words():
    assert band_text((0.05, 4.0)) == "0.05 to 4"
    assert band_text((0.0, 0.3)) == "at most 0.3"
    assert band_text((2.0, inf)) == "at least 2"
    assert band_text((300.0, 1200.0)) == "300 to 1200"
    assert band_text((-1.0, 1.0)) == "−1 to 1"
    assert band_text((1e-6, 20.0)) == "above 0, at most 20"
