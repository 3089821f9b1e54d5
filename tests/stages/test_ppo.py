"""PPO on one base: it learns, resumes to the same numbers, records what it used."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from byte_llama import byte_llama
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainerCallback

from ftkit.errors import DataError, RecordError, SettingsError
from ftkit.models import load, read_adapter
from ftkit.models.roles import Roles
from ftkit.records.ppo_trace import PPOTrace
from ftkit.stages.ppo import PPOConfig, PPOTrainer, RewardError
from ftkit.stages.ppo.metrics import _distinct_pairs

PROMPTS = [f"Say something about topic {i}." for i in range(6)]
QUICK = PPOConfig(
    iterations=3, batch_size=4, minibatches=2, epochs=2, micro_batch=2, max_new_tokens=6,
    learning_rate=1e-3, kl_coef=0.05, trace_rows=2,
)  # fmt: skip


def length_reward(prompts: list[str], completions: list[str]) -> list[float]:
    return [len(completion) / 10 for completion in completions]


def trainer(base, tmp_path, config=QUICK, reward=length_reward, **options) -> PPOTrainer:
    return PPOTrainer(
        base, PROMPTS, reward=reward, config=config, output_dir=tmp_path / "run", **options
    )


def numbers(history) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in history]


def test_every_round_logs_the_names_readers_know(tiny_base, tmp_path) -> None:
    history = trainer(tiny_base, tmp_path).train()
    assert len(history) == QUICK.iterations
    known = {
        *("objective/kl", "objective/entropy", "objective/non_score_reward", "objective/scores"),
        *("objective/rlhf_reward", "policy/approxkl_avg", "policy/clipfrac_avg"),
        *("loss/policy_avg", "loss/value_avg", "val/clipfrac_avg", "policy/entropy_avg"),
        *("val/ratio", "val/ratio_var", "val/num_eos_tokens", "lr", "episode"),
    }
    assert all(known <= set(row) for row in history)
    # The policy starts as the reference, and the critic at zero.
    assert history[0]["objective/kl"] == pytest.approx(0.0, abs=1e-4)
    assert [row["lr"] for row in history] == pytest.approx([1e-3, 2e-3 / 3, 1e-3 / 3])


@given(st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=1, max_size=5))
def test_distinct_counts_the_different_neighbours_of_real_tokens(rows) -> None:
    width = max(2, *map(len, rows))
    ids = torch.tensor([[*row, *[9] * (width - len(row))] for row in rows])
    mask = torch.tensor([[i < len(row) for i in range(width)] for row in rows])
    pairs = [pair for row in rows for pair in pairwise(row)]
    expected = len(set(pairs)) / len(pairs) if pairs else 0.0
    assert _distinct_pairs(ids, mask) == expected


@pytest.fixture
def byte_base(tmp_path):
    """A random Llama over single bytes, with logits wide enough for 16 completions to move."""
    return load(str(byte_llama(tmp_path / "bytes")), quantization=None, device="cpu")


def test_it_learns_a_reward_that_it_can_reach(byte_base, tmp_path) -> None:
    config = replace(
        QUICK, iterations=20, batch_size=32, micro_batch=32, minibatches=1, epochs=4, kl_coef=0.0,
        learning_rate=1e-2, lora_r=8, lr_schedule="constant",
    )  # fmt: skip

    def letters(prompts, completions):
        return [sum(c.isascii() and c.isalpha() for c in text) / 6 for text in completions]

    run = PPOTrainer(
        byte_base, PROMPTS * 6, reward=letters, config=config, output_dir=tmp_path / "run"
    )
    scores = [row["objective/scores"] for row in run.train()]
    assert np.mean(scores[-3:]) > np.mean(scores[:3]) + 0.3


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_base_weights_and_reference_never_change(tiny_folder, tmp_path, quantization) -> None:
    base = load(str(tiny_folder), quantization=quantization, device="cpu")
    run = trainer(base, tmp_path)

    def checksum() -> str:
        digest = hashlib.sha256()
        for name, parameter in sorted(run.roles.model.named_parameters()):
            if "lora_" not in name:
                digest.update(parameter.detach().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    ids = torch.tensor([[5, 6, 7, 8, 9]])
    mask = torch.ones_like(ids)

    def reference() -> torch.Tensor:
        with torch.no_grad(), run.roles.as_reference():
            return run.roles.logprobs_and_values(ids, mask, 2).logprobs

    before, logprobs = checksum(), reference()
    run.train()
    assert checksum() == before
    torch.testing.assert_close(reference(), logprobs)
    with torch.no_grad(), run.roles.as_policy():
        moved = run.roles.logprobs_and_values(ids, mask, 2).logprobs
    assert not torch.allclose(moved, logprobs)


def change_rollouts(monkeypatch, change) -> None:
    """Let every rollout of a run be what `change` makes of it."""
    from ftkit.stages.ppo import trainer as module

    honest = module.collect
    monkeypatch.setattr(module, "collect", lambda *given: change(honest(*given)))


def cut(rollout, mask):
    """The rollout as if its completions had ended where `mask` does."""
    numbers = {
        name: getattr(rollout, name).masked_fill(~mask, 0.0)
        for name in ("logprobs", "values", "entropy")
    }
    return replace(rollout, mask=mask, **numbers)


def ragged(rollout):
    """Completions of 1, 3, 6 and 2 tokens."""
    lengths = torch.tensor([1, 3, 6, 2])[:, None]
    return cut(rollout, rollout.mask & (torch.arange(rollout.mask.shape[1]) < lengths))


def test_gradient_accumulation_over_ragged_rows_changes_nothing(
    tiny_base, tmp_path, monkeypatch
) -> None:
    change_rollouts(monkeypatch, ragged)
    whole, parts = (
        PPOTrainer(
            tiny_base,
            PROMPTS,
            reward=length_reward,
            output_dir=tmp_path / str(size),
            config=replace(QUICK, iterations=2, micro_batch=size),
        ).train()
        for size in (4, 1)
    )
    # micro_batch is part of the config, everything else must agree.
    for a, b in zip(numbers(whole), numbers(parts), strict=True):
        assert a == pytest.approx(b, abs=2e-4)


def test_what_stands_at_padding_enters_no_number_that_is_logged(
    tiny_base, tmp_path, monkeypatch
) -> None:
    change_rollouts(monkeypatch, ragged)
    clean = trainer(tiny_base, tmp_path / "a").train()

    def dirty(rollout):
        noise = {
            name: torch.where(rollout.mask, getattr(rollout, name), value)
            for name, value in {"logprobs": -9.0, "values": 7.0, "entropy": 5.0}.items()
        }
        return replace(rollout, **noise)

    change_rollouts(monkeypatch, dirty)
    assert numbers(trainer(tiny_base, tmp_path / "b").train()) == numbers(clean)


def test_recorded_tensors_obey_the_equations(tiny_base, tmp_path) -> None:
    run = trainer(tiny_base, tmp_path)
    history = run.train()
    assert [i.number for i in run.trace.iterations] == [1, 2, 3]
    assert run.trace.config.reward == "function length_reward"
    assert run.trace.config.reference == "the bare base, frozen"
    for iteration, logged in zip(run.trace.iterations, history, strict=True):
        assert iteration.metrics == logged
        for row, length in enumerate(iteration.lengths):
            kl = iteration.logprobs[row] - iteration.ref_logprobs[row]
            rewards = -iteration.kl_coef * kl[:length]
            rewards[-1] += iteration.paid[row]
            np.testing.assert_allclose(iteration.rewards[row, :length], rewards, atol=1e-5)
            values = [*iteration.values[row, :length], 0.0]
            deltas = [rewards[t] + QUICK.gamma * values[t + 1] - values[t] for t in range(length)]
            for t in range(length):
                by_sum = sum(
                    (QUICK.gamma * QUICK.lam) ** k * deltas[t + k] for k in range(length - t)
                )
                assert iteration.advantages[row, t] == pytest.approx(by_sum, abs=1e-5)
        first = iteration.updates[0]
        np.testing.assert_allclose(first.ratio[first.ratio > 0], 1.0, atol=1e-3)
        assert len(iteration.updates) == QUICK.epochs * QUICK.minibatches


def test_tokens_of_the_trace_join_to_the_completion(tiny_base, tmp_path) -> None:
    seen: list[str] = []

    def watching(prompts, completions):
        seen.extend(completions[: QUICK.trace_rows])
        return length_reward(prompts, completions)

    run = trainer(tiny_base, tmp_path, reward=watching)
    run.train()
    joined = ["".join(row) for i in run.trace.iterations for row in i.tokens]
    assert [text.replace("<|im_end|>", "") for text in joined] == seen


def test_chosen_rows_are_traced_as_they_were_and_resume(tiny_base, tmp_path) -> None:
    every = trainer(tiny_base, tmp_path / "every", replace(QUICK, trace_rows=QUICK.batch_size))
    every.train()
    config = replace(QUICK, trace_rows=(3, 0), trace_iterations=2)
    chosen = trainer(tiny_base, tmp_path / "chosen", config)
    chosen.train()
    assert [i.number for i in chosen.trace.iterations] == [1, QUICK.iterations]
    again = trainer(tiny_base, tmp_path / "chosen", config)
    again.train()
    for run in (chosen, again):
        for found in run.trace.iterations:
            wanted = every.trace.at(found.number)
            assert list(found.tokens) == [wanted.tokens[3], wanted.tokens[0]]
            width = found.token_ids.shape[1]
            np.testing.assert_array_equal(found.returns, wanted.returns[[3, 0], :width])
            for mine, theirs in zip(found.updates, wanted.updates, strict=True):
                ratio = dict(zip(theirs.rows, theirs.ratio, strict=True))
                for row, values in zip(mine.rows, mine.ratio, strict=True):
                    np.testing.assert_array_equal(values, ratio[(3, 0)[row]][:width])


def test_weights_kept_unpacked_change_no_number(tiny_folder, tmp_path) -> None:
    histories, layers = [], []

    def dense_layers() -> int:
        return sum("forward" in module.__dict__ for module in run.roles.model.modules())

    class Look(TrainerCallback):
        def on_step_end(self, *_, **__) -> None:
            layers.append(dense_layers())

    for keep in (False, True):
        base = load(str(tiny_folder), quantization="nf4", device="cpu")
        config = replace(QUICK, iterations=2, keep_unpacked=keep)
        run = trainer(base, tmp_path / str(keep), config, callbacks=[Look()])
        before = dense_layers()
        histories.append(numbers(run.train()))
        assert dense_layers() == before
    assert histories[0] == histories[1]
    packed, kept = set(layers[:2]), set(layers[2:])
    assert packed == {before}
    assert kept == {before + 2 * 7}  # two layers of q, k, v, o, gate, up, down


def test_an_evaluation_asks_every_prompt_and_trains_nothing(tiny_base, tmp_path) -> None:
    run = trainer(tiny_base, tmp_path / "watched")
    before = run.evaluate()
    assert len(before.completions) == len(before.prompts) == len(PROMPTS)  # not of a whole batch
    assert before.scores.tolist() == pytest.approx(length_reward([], before.completions))
    assert before.scores.equal(before.parts["length_reward"])
    torch.testing.assert_close(before.kl, torch.zeros(len(PROMPTS)), rtol=0, atol=1e-4)
    history = run.train()
    after, again = run.evaluate(), run.evaluate()
    assert after.completions == again.completions
    assert run.evaluate(seed=1).completions != after.completions
    assert after.kl.abs().mean() > 1e-3
    alone = trainer(tiny_base, tmp_path / "alone")
    assert numbers(alone.train()) == numbers(history)
    held_out = run.evaluate(["What is new?"])
    assert held_out.scores.shape == (1,)
    with pytest.raises(DataError, match="one text"):
        run.evaluate("What is new?")
    with pytest.raises(DataError, match="no prompt"):
        run.evaluate([])
    with pytest.raises(DataError, match="prompt 5 has"):
        run.evaluate([*PROMPTS[:5], "word " * 400])


def test_an_evaluation_is_of_its_own_policy_whoever_sits_on_the_base(tiny_base, tmp_path) -> None:
    run = trainer(tiny_base, tmp_path / "first")
    start = run.evaluate()
    run.train()
    after = run.evaluate()
    assert after.completions != start.completions
    other = trainer(tiny_base, tmp_path / "second")
    assert other.evaluate().completions == start.completions
    assert run.evaluate().completions == after.completions  # takes the base back
    reopened = trainer(tiny_base, tmp_path / "first")
    assert reopened.evaluate().completions == after.completions
    torch.testing.assert_close(reopened.evaluate().kl, after.kl, rtol=1e-4, atol=1e-5)
    for late in (other.evaluate, other.train):
        with pytest.raises(SettingsError, match="taken over this base"):
            late()


@pytest.mark.parametrize(
    "rows", [(0, 0), (-1,), (QUICK.batch_size,), -1, True, (True, False), (0.0, 1.0), {0, 1}, None]
)
def test_rows_that_a_round_does_not_have_cannot_be_traced(rows) -> None:
    with pytest.raises(ValueError, match="trace_rows"):
        replace(QUICK, trace_rows=rows)
    with pytest.raises(ValueError, match="trace_iterations"):
        replace(QUICK, trace_iterations=1)


def test_scores_are_a_weighted_mix_and_unended_answers_pay(tiny_base, tmp_path) -> None:
    config = replace(QUICK, iterations=1, missing_eos_penalty=0.5, kl_coef=0.0)
    mix = {"length": (2.0, length_reward), "one": (-1.0, lambda p, c: [1.0] * len(c))}
    run = trainer(tiny_base, tmp_path, config, mix)
    row = run.train()[0]
    assert row["objective/scores"] == pytest.approx(2 * row["rewards/length/mean"] - 1.0, abs=1e-5)
    penalty = 0.5 * (1 - row["objective/eos_rate"])
    assert row["objective/rlhf_reward"] == pytest.approx(
        row["objective/scores"] - penalty, abs=1e-5
    )


def test_the_reward_role_scores_completions(tiny_base, tmp_path) -> None:
    roles = Roles(tiny_base, lora_r=4)
    roles.add_reward()
    run = trainer(tiny_base, tmp_path, reward="model", roles=roles)
    row = run.train()[0]
    assert row["objective/scores"] == pytest.approx(row["rewards/model/mean"])
    iteration = run.trace.at(1)
    ids = [*iteration.prompt_ids[0], *iteration.token_ids[0, : iteration.lengths[0]].tolist()]
    with torch.no_grad():
        alone = roles.scores(torch.tensor([ids]), torch.ones(1, len(ids)))
    assert iteration.scores[0] == pytest.approx(float(alone[0]), abs=1e-4)


def test_an_adaptive_coefficient_follows_the_kl(tiny_base, tmp_path) -> None:
    config = replace(QUICK, kl_target=50.0, kl_horizon=8)
    coefs = [row["objective/kl_coef"] for row in trainer(tiny_base, tmp_path, config).train()]
    assert coefs[0] == QUICK.kl_coef
    assert coefs[0] > coefs[1] > coefs[2]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_run_goes_on_to_the_same_numbers(tiny_base, tmp_path, error) -> None:
    undisturbed = trainer(tiny_base, tmp_path / "a").train()
    calls = []

    def failing(prompts, completions):
        calls.append(1)
        if len(calls) == 2:
            raise error
        return length_reward(prompts, completions)

    failing.__name__ = "length_reward"
    run = trainer(tiny_base, tmp_path / "b", reward=failing)
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else RewardError):
        run.train()
    assert numbers(run.train()) == numbers(undisturbed)
    assert [i.number for i in run.trace.iterations] == [1, 2, 3]


KILLED = {
    "while sampling": ("ftkit.models.roles.Roles.generate", "", 2, ["round-000001"]),
    "while the reward scores": ("ftkit.stages.ppo.trainer.score", "", 3, ["round-000002"]),
    "in the first update": ("ftkit.stages.ppo.update._step", "", 5, ["round-000001"]),
    "in the last update": ("ftkit.stages.ppo.update._step", "", 8, ["round-000001"]),
    "before the trace": ("ftkit.stages.ppo.trainer.traced", "", 2, ["round-000001"]),
    "before the adapters are saved": (
        *("ftkit.models.roles_io.write", "", 3),
        [".draft-000002", "round-000001"],
    ),
    "between adapters and trace": (
        *("ftkit.records.ppo_trace.PPOTrace.save", "", 2),
        [".draft-000001", "round-000000"],
    ),
    "before the optimizer is saved": (
        *("ftkit.stages.ppo.checkpoint.save_file", "", 3),
        [".draft-000002", "round-000001"],
    ),
    "before a checkpoint gets its name": (
        *("pathlib.Path.rename", ".draft-000001", 1),
        [".draft-000001", "round-000000"],
    ),
    "before the old checkpoint is removed": (
        *("pathlib.Path.rename", "round-000000", 1),
        ["round-000000", "round-000001"],
    ),
    "while the old checkpoint is removed": (
        *("shutil.rmtree", ".gone-round-000000", 1),
        [".gone-round-000000", "round-000001"],
    ),
}
"""Where → function, name of the path that it gets, the call of it that is deadly, what is left."""


@pytest.fixture(scope="module")
def killed(tiny_folder, tmp_path_factory) -> Path:
    """A folder with one killed run for each entry of `KILLED`.

    One process imports everything, then forks one child a run, before torch has any threads.
    """
    folder = tmp_path_factory.mktemp("killed")
    script = f"""
        import os, signal, traceback
        from pathlib import Path
        from pkgutil import resolve_name
        from unittest.mock import patch
        import ftkit
        from ftkit.stages.ppo import PPOConfig, PPOTrainer

        def length_reward(prompts, completions):
            return [len(c) / 10 for c in completions]

        def run(place, name, nth, folder):
            honest, calls = resolve_name(place), []
            def deadly(*args, **kwargs):
                if not name or (Path(args[0]).name == name and Path(args[0]).exists()):
                    calls.append(1)
                if len(calls) == nth:
                    os.kill(os.getpid(), signal.SIGKILL)
                return honest(*args, **kwargs)
            base = ftkit.load({str(tiny_folder)!r}, quantization=None, device="cpu")
            with patch(place, deadly):
                PPOTrainer(base, {PROMPTS!r}, reward=length_reward, config={QUICK!r},
                           output_dir=Path(folder) / "run").train()

        for number, (place, name, nth, _) in enumerate({list(KILLED.values())!r}):
            child = os.fork()
            if child == 0:
                try:
                    run(place, name, nth, f"{folder}/{{number}}")
                except BaseException:
                    traceback.print_exc()
                os._exit(0)
            _, status = os.waitpid(child, 0)
            Path(f"{folder}/{{number}}.signal").write_text(str(os.WTERMSIG(status)))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=os.environ, check=True)
    return folder


@pytest.fixture(scope="module")
def undisturbed(tiny_folder, tmp_path_factory) -> list[dict[str, float]]:
    base = load(str(tiny_folder), quantization=None, device="cpu")
    return numbers(trainer(base, tmp_path_factory.mktemp("undisturbed")).train())


@pytest.mark.parametrize("where", KILLED)
def test_a_run_killed_anywhere_goes_on_to_the_same_numbers(
    tiny_base, killed, undisturbed, where
) -> None:
    number = list(KILLED).index(where)
    assert (killed / f"{number}.signal").read_text() == str(int(signal.SIGKILL))
    folder = killed / str(number) / "run"
    assert sorted(path.name for path in folder.iterdir()) == KILLED[where][3]
    run = trainer(tiny_base, killed / str(number))
    resumed = numbers(run.train())
    for a, b in zip(resumed, undisturbed, strict=True):
        assert a == pytest.approx(b, abs=1e-5)
    assert [iteration.number for iteration in run.trace.iterations] == [1, 2, 3]
    assert [path.name for path in folder.iterdir()] == ["round-000003"]


def test_a_callback_can_end_the_run_and_a_second_call_goes_on(tiny_base, tmp_path) -> None:
    class Stop(TrainerCallback):
        def on_log(self, args, state, control, **kwargs) -> None:
            control.should_training_stop = state.global_step == 1

    undisturbed = trainer(tiny_base, tmp_path / "a").train()
    rare = replace(QUICK, checkpoint_every=2)
    run = trainer(tiny_base, tmp_path / "b", config=rare, callbacks=[Stop()])
    assert len(run.train()) == 1
    assert numbers(run.train()) == numbers(undisturbed)


def test_the_last_rounds_are_kept_whatever_the_checkpoints_interval(tiny_base, tmp_path) -> None:
    rare = replace(QUICK, checkpoint_every=2)
    history = trainer(tiny_base, tmp_path, config=rare).train()
    again = trainer(tiny_base, tmp_path, config=rare, reward=lambda *_: pytest.fail("trained"))
    assert again.train() == history


def test_a_checkpoint_of_another_config_is_refused(tiny_base, tmp_path) -> None:
    trainer(tiny_base, tmp_path).train()
    with pytest.raises(RecordError, match="other kl_coef"):
        trainer(tiny_base, tmp_path, replace(QUICK, kl_coef=0.3)).train()


def test_the_trace_of_a_checkpoint_loads_without_a_model(tiny_base, tmp_path) -> None:
    trainer(tiny_base, tmp_path).train()
    (folder,) = (tmp_path / "run").glob("round-*")
    assert len(PPOTrace.load(folder / "trace").iterations) == QUICK.iterations
    assert [path.name for path in (tmp_path / "run").iterdir()] == [folder.name]


def test_saving_a_round_again_never_leaves_the_run_without_a_checkpoint(
    tiny_base, tmp_path, monkeypatch
) -> None:
    run = trainer(tiny_base, tmp_path)
    history = run.train()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda *_: pytest.fail("killed here"))
        with pytest.raises(pytest.fail.Exception):
            run.save()
    again = trainer(tiny_base, tmp_path, reward=lambda *_: pytest.fail("trained"))
    assert again.train() == history
    for _ in range(3):
        assert again.save().exists()
        assert len(list((tmp_path / "run").glob("round-*"))) == 1
        assert numbers(trainer(tiny_base, tmp_path).train()) == numbers(history)


BAD_REWARDS = {
    "not a number": (lambda p, c: [0.0, float("nan"), 0.0, 0.0], "gave nan for row 1"),
    "infinite": (lambda p, c: [0.0, 0.0, 0.0, float("inf")], "gave inf for row 3"),
    "too few": (lambda p, c: [0.0], "returned 1 scores for 4 completions"),
    "nothing": (lambda p, c: [0.0, 0.0, None, 0.0], "gave None for row 2"),
    "raises": (lambda p, c: 1 / 0, "raised ZeroDivisionError: division by zero, for row 0"),
}


@pytest.mark.parametrize("kind", BAD_REWARDS)
def test_bad_rewards_are_errors_that_name_the_row(tiny_base, tmp_path, kind) -> None:
    reward, message = BAD_REWARDS[kind]
    run = trainer(tiny_base, tmp_path, reward=reward)
    with pytest.raises(RewardError, match=message):
        run.train()
    assert list((tmp_path / "run").glob("round-000000")), "the state before the round is saved"


def test_a_row_that_no_reward_can_score_is_traced_back_to_its_prompt(tiny_base, tmp_path) -> None:
    """Rounds draw their prompts in any order, so the row alone tells little."""

    def reward(prompts, completions):
        return [float("nan") if "topic 3" in prompt else 0.0 for prompt in prompts]

    run = trainer(tiny_base, tmp_path, reward=reward)
    names_it = r"for row \d, prompt ending '.*topic 3\..*', completion .* is prompt 3$"
    with pytest.raises(RewardError, match=names_it):
        run.train()
    with pytest.raises(RewardError, match=r"Row 3 here is prompt 3$"):
        run.evaluate()


def test_a_judge_whose_scores_are_not_finite_is_an_error_that_names_the_row(
    tiny_base, tmp_path
) -> None:
    roles = Roles(tiny_base, start="new")
    roles.add_reward()
    with torch.no_grad():
        roles.score_head.weight.fill_(float("inf"))
    run = trainer(tiny_base, tmp_path, reward="model", roles=roles)
    with pytest.raises(RewardError, match=r"reward 'model' gave (inf|-inf|nan) for row 0"):
        run.train()
    assert list((tmp_path / "run").glob("round-000000"))


def test_bad_prompts_and_configs_are_errors(tiny_base, tmp_path) -> None:
    with pytest.raises(DataError, match="6 prompts for batch_size=8"):
        trainer(tiny_base, tmp_path, replace(QUICK, batch_size=8))
    with pytest.raises(DataError, match=r"prompt 0 .* max_prompt_tokens=4"):
        trainer(tiny_base, tmp_path, replace(QUICK, max_prompt_tokens=4)).train()
    long = [*PROMPTS[:5], "long " * 300]
    with pytest.raises(DataError, match=r"prompt 5 has \d+ tokens"):
        PPOTrainer(tiny_base, long, reward=length_reward, config=QUICK).train()
    ends_with_answer = [[{"role": "assistant", "content": "hi"}]] * 6
    with pytest.raises(DataError, match="prompt 0 does not end with a message of the user"):
        PPOTrainer(tiny_base, ends_with_answer, reward=length_reward, config=QUICK)
    with pytest.raises(TypeError, match="give a function or 'model'"):
        trainer(tiny_base, tmp_path, reward={"x": (1.0, "scores")})
    for wrong in ({"minibatches": 3}, {"temperature": 0.0}, {"lam": 1.5}, {"clip_range": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            replace(QUICK, **wrong)


REFUSED = {
    "top_k": ({"top_k": 50}, "top_k=50 draws from the likelier tokens only"),
    "top_p": ({"top_p": 0.9}, "top_p=0.9 draws"),
    "minimal length": ({"min_new_tokens": 5}, "min_new_tokens=5 forbids the stop token"),
    "penalty": ({"repetition_penalty": 1.1}, "repetition_penalty=1.1 makes tokens .* less likely"),
    "greedy": ({"do_sample": False}, "do_sample=False takes the likeliest token"),
    "by transformers' name": (
        {"generation_kwargs": {"no_repeat_ngram_size": 3}},
        "no_repeat_ngram_size=3",
    ),
    "not read": ({"generation_kwargs": {"stop_strings": "."}}, "'stop_strings'.* is not read"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_settings_that_part_sampler_and_scorer_are_refused_with_the_reason(kind) -> None:
    settings, message = REFUSED[kind]
    with pytest.raises(SettingsError, match=message):
        PPOConfig(**settings)


def test_a_temperature_of_0_is_refused_as_greedy() -> None:
    with pytest.raises(ValueError, match=r"temperature=0 .* greedy"):
        PPOConfig(temperature=0)
    with pytest.raises(SettingsError, match="top_k=50"):
        PPOConfig(top_k=50, generation_kwargs={"top_k": 0})


def test_settings_that_change_nothing_are_taken_and_not_kept() -> None:
    config = PPOConfig(top_k=0, top_p=1.0, repetition_penalty=1.0, do_sample=True)
    assert config == PPOConfig() == replace(config, seed=0)


def test_sampling_settings_of_the_models_files_are_left_aside_aloud(tiny_base, tmp_path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*generation_config")
        trainer(tiny_base, tmp_path)
    tiny_base.model.generation_config.top_k = 20
    tiny_base.model.generation_config.temperature = 0.6
    says = "generation_config has top_k=20, temperature=0.6; PPO samples without"
    with pytest.warns(UserWarning, match=says):
        trainer(tiny_base, tmp_path)


def answers(monkeypatch, texts) -> None:
    """Let every rollout have these completions, as text."""
    change_rollouts(monkeypatch, lambda rollout: replace(rollout, completions=list(texts)))


def test_an_empty_completion_is_scored_as_an_empty_text_and_counted(
    tiny_base, tmp_path, monkeypatch
) -> None:
    answers(monkeypatch, ["", "a", "b", "c"])
    seen = []

    def reward(prompts, completions):
        seen.extend(completions)
        return [0.0] * len(completions)

    history = trainer(tiny_base, tmp_path, replace(QUICK, iterations=1), reward=reward).train()
    assert seen == ["", "a", "b", "c"]
    assert history[0]["objective/empty_rate"] == 0.25


def test_a_round_of_empty_completions_ends_the_run_before_it_trains(
    tiny_base, tmp_path, monkeypatch
) -> None:
    answers(monkeypatch, [""] * 4)
    run = trainer(tiny_base, tmp_path)
    with pytest.raises(DataError, match=r"all 4 completions of this round are empty.* row 0"):
        run.train()
    assert run.history == []
    assert list((tmp_path / "run").glob("round-000000")), "the state before the round is saved"


def test_a_reward_that_fails_loses_no_round_between_two_checkpoints(tiny_base, tmp_path) -> None:
    undisturbed = trainer(tiny_base, tmp_path / "a").train()
    calls = []

    def failing(prompts, completions):
        calls.append(1)
        if len(calls) >= 3:
            raise OSError("the judge is away")
        return length_reward(prompts, completions)

    failing.__name__ = "length_reward"
    rare = replace(QUICK, checkpoint_every=50)
    with pytest.raises(RewardError, match="the judge is away"):
        trainer(tiny_base, tmp_path / "b", rare, failing).train()
    assert [p.name for p in (tmp_path / "b" / "run").glob("round-*")] == ["round-000002"]
    resumed = trainer(tiny_base, tmp_path / "b", rare)
    assert numbers(resumed.train()) == numbers(undisturbed)


@pytest.mark.parametrize("right", [True, False])
def test_a_score_at_the_last_column_is_lost_on_completions_that_end_before_it(
    tiny_base, tmp_path, monkeypatch, right
) -> None:
    def first_row_ends_early(rollout):
        mask = rollout.mask.clone()
        mask[0, 2:] = False
        return cut(rollout, mask)

    change_rollouts(monkeypatch, first_row_ends_early)
    config = replace(QUICK, iterations=1, epochs=1, trace_rows=4, score_at_last_real=right)
    run = trainer(tiny_base, tmp_path, config, lambda prompts, completions: [1.0] * 4)
    run.train()
    iteration = run.trace.at(1)
    assert iteration.lengths[0] == 2
    earned = iteration.rewards.sum(axis=1)
    assert earned == pytest.approx([1.0 if right else 0.0, 1.0, 1.0, 1.0], abs=1e-4)


def test_a_critic_that_starts_at_random_has_values_from_the_first_round_on(
    tiny_base, tmp_path
) -> None:
    config = replace(QUICK, iterations=1)
    zero = trainer(tiny_base, tmp_path / "a", config)
    zero.train()
    noisy = trainer(tiny_base, tmp_path / "b", replace(config, value_head_std=1.0))
    noisy.train()
    assert not zero.trace.at(1).values.any()
    assert noisy.trace.at(1).values.std() > 0.1


def test_without_a_stop_every_completion_is_as_long_as_allowed(tiny_base, tmp_path) -> None:
    config = replace(QUICK, stop_at_eos=False, missing_eos_penalty=1.0)
    run = trainer(tiny_base, tmp_path, config)
    run.roles.facts.stop_ids.resize_(500).copy_(torch.arange(500))  # any token would end one
    for row in run.train():
        assert row["objective/length"] == QUICK.max_new_tokens
        assert row["objective/eos_rate"] == 0
    assert (run.trace.at(1).scores - run.trace.at(1).paid == 1.0).all()


@pytest.mark.parametrize("count", [False, True])
def test_padding_is_counted_in_the_run_that_asks_for_it_only(
    tiny_base, tmp_path, monkeypatch, count
) -> None:
    from ftkit.models import packed_rows

    counted, plain = [], packed_rows.read
    monkeypatch.setattr(
        packed_rows,
        "read",
        lambda *args, **options: (
            counted.append(options["count_padding"]) or plain(*args, **options)
        ),
    )
    run = trainer(tiny_base, tmp_path, replace(QUICK, iterations=1, count_padding=count))
    run.train()
    run.evaluate()
    assert set(counted) == {count}
    counted.clear()
    run.roles.generate(torch.ones(1, 3).long(), torch.ones(1, 3), max_new_tokens=1)
    assert counted == [False], "what comes behind the run is not touched"


def test_a_callback_that_fails_loses_no_round_either(tiny_base, tmp_path) -> None:
    class Broken(TrainerCallback):
        def on_log(self, args, state, control, **kwargs) -> None:
            if state.global_step == 2:
                raise OSError("no place to draw")

    undisturbed = trainer(tiny_base, tmp_path / "a").train()
    rare = replace(QUICK, checkpoint_every=50)
    with pytest.raises(OSError, match="no place to draw"):
        trainer(tiny_base, tmp_path / "b", rare, callbacks=[Broken()]).train()
    assert [p.name for p in (tmp_path / "b" / "run").glob("round-*")] == ["round-000002"]
    assert numbers(trainer(tiny_base, tmp_path / "b", rare).train()) == numbers(undisturbed)


def test_a_checkpoint_of_another_start_is_refused(tiny_base, tmp_path) -> None:
    trainer(tiny_base, tmp_path, replace(QUICK, iterations=1)).train()
    roles = Roles(tiny_base, start="new")
    adapter = read_adapter(roles.model, "policy")
    with pytest.raises(RecordError, match="started from another adapter"):
        trainer(tiny_base, tmp_path, replace(QUICK, iterations=1), adapter=adapter).train()


def test_a_checkpoint_from_before_a_switch_was_there_is_of_its_default(tiny_base, tmp_path) -> None:
    config = replace(QUICK, iterations=1)
    history = trainer(tiny_base, tmp_path, config).train()
    path = tmp_path / "run" / "round-000001" / "state.json"
    state = json.loads(path.read_text())
    del state["config"]["score_at_last_real"]
    path.write_text(json.dumps(state))
    assert numbers(trainer(tiny_base, tmp_path, config).train()) == numbers(history)


def test_a_few_completions_may_all_be_empty_by_chance(tiny_base, tmp_path, monkeypatch) -> None:
    answers(monkeypatch, [""] * 2)
    small = replace(QUICK, iterations=1, batch_size=2, minibatches=1)
    assert trainer(tiny_base, tmp_path, small).train()[0]["objective/empty_rate"] == 1
