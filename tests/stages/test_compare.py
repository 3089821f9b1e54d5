"""`stages.compare` on a tiny random model: equal starts, true costs, failures, resuming.

What the algorithms do to a real model is in the record that ftkit ships.
"""

import pickle
import time
from dataclasses import replace
from itertools import combinations
from math import log
from statistics import fmean
from types import SimpleNamespace

import pytest
import torch
from byte_llama import byte_llama
from filelock import FileLock
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import TrainerControl
from trl import GRPOTrainer

from ftkit import data, stages
from ftkit.errors import DataError, RecordError, SettingsError
from ftkit.models import Roles, load, read_adapter
from ftkit.models.lora import adapter_parameters, tuner_layers
from ftkit.records import ComparisonResult
from ftkit.records.comparison_run import ALGORITHMS
from ftkit.stages import CompareRecipe
from ftkit.stages.compare import isolation
from ftkit.stages.compare import meter as meters
from ftkit.stages.compare.best_of_n import expected_best, kl_bound
from ftkit.stages.compare.meter import Meter
from ftkit.stages.compare.pacing import Pacer
from ftkit.stages.compare.pairs import pair_rows, sampled_pairs
from ftkit.stages.compare.probe import Probe, as_reward
from ftkit.stages.compare.runners import Job, run
from ftkit.stages.compare.study import _split
from ftkit.stages.ppo.scoring import RewardError
from ftkit.stages.ppo.trainer import conversations

PROMPTS = [f"Say {i}" for i in range(12)]
RECIPE = CompareRecipe(
    tokens=200,
    seconds=0.01,
    patience=1e9,
    batch_size=4,
    group_size=2,
    micro_batch=4,
    max_new_tokens=16,
    dpo_batch=4,
    dpo_epochs=1,
    best_of=(2, 4),
    eval_prompts=3,
    eval_samples=2,
    lora_r=4,
)


def length(completions):
    return [len(completion) / 10 for completion in completions]


def compared(base, algorithms=ALGORITHMS, seeds=(0,), **changed) -> ComparisonResult:
    options = {"prompts": PROMPTS, "reward": length, "recipe": RECIPE, "progress": None}
    return stages.compare(base, algorithms=algorithms, seeds=seeds, **{**options, **changed})


def job(algorithm: str, **changed) -> Job:
    prompts = conversations(PROMPTS)
    options = {"train": prompts[3:], "held_out": prompts[:3], "reward": as_reward(length)}
    return Job(algorithm, 0, RECIPE, **{**options, **changed})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random Llama over bytes: 1 in 260 tokens is a stop token."""
    return byte_llama(tmp_path_factory.mktemp("bytes"))


@pytest.fixture(scope="module")
def base(folder):
    """One for all: every run must leave it as it was."""
    return load(str(folder), quantization=None, device="cpu")


@pytest.fixture(scope="module")
def everything(base):
    """All algorithms, one seed, and the base's weights before."""
    before = {name: p.detach().clone() for name, p in base.model.named_parameters()}
    return SimpleNamespace(result=compared(base), before=before)


def bent(base, seed: int = 1):
    """An adapter that really changes the base, apart from any model."""
    roles = Roles(base, start="new", lora_r=4, target_modules="all-linear", seed=seed)
    bend(roles.model, seed)
    adapter = read_adapter(roles.model)
    stages.fresh_base(base.model)
    return adapter


def bend(model, seed: int = 1, name: str = "policy") -> None:
    generator = torch.Generator().manual_seed(seed)
    for _, parameter in adapter_parameters(model, name):
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data += 0.05 * noise.to(parameter.dtype)


# --- best of n -------------------------------------------------------------------------------


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=7), st.data())
def test_the_expected_best_is_the_mean_over_all_subsets(rewards, draw) -> None:
    n = draw.draw(st.integers(1, len(rewards)))
    found = expected_best(torch.tensor([rewards], dtype=torch.float64), n)
    assert found.item() == pytest.approx(fmean(map(max, combinations(rewards, n))), abs=1e-9)


def test_a_pool_is_not_stretched() -> None:
    with pytest.raises(ValueError, match="best of 5 from 4"):
        expected_best(torch.zeros(1, 4), 5)


@pytest.mark.parametrize("n", [1, 2, 4, 16])
def test_the_bound_is_the_kl_of_many_equally_likely_answers(n) -> None:
    """Best of n takes the answer of rank k out of K with ((k/K)ⁿ − ((k−1)/K)ⁿ)."""

    def kl(count: int) -> float:
        ranks = torch.arange(count + 1, dtype=torch.float64) / count
        chosen = (ranks**n).diff()
        return (chosen * (chosen * count).log()).sum().item()

    assert kl_bound(n) == pytest.approx(kl(200_000), abs=1e-4)
    assert all(kl(count) <= kl_bound(n) + 1e-12 for count in (1, 2, 5, 50))
    assert kl_bound(2) == pytest.approx(log(2) - 0.5)


# --- the evaluation --------------------------------------------------------------------------


def brute(model, tokenizer, prompt: str, ids: torch.Tensor) -> float:
    """Log-probability of an answer by the model's own full logits, without any padding."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    head = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    whole = torch.cat([head, ids[None]], dim=1)
    with torch.no_grad():
        logp = model(input_ids=whole).logits.log_softmax(-1)
    start = head.shape[1]
    return logp[0, start - 1 : -1].gather(1, ids[:, None]).sum().item()


@pytest.mark.parametrize("from_adapter", [False, True])
def test_the_kl_is_that_of_the_models_own_logits(base, from_adapter) -> None:
    start = bent(base) if from_adapter else None
    prompts = conversations(PROMPTS[:3])
    reward = as_reward(length)
    probe = Probe(base, prompts, reward, RECIPE, start=start, seed=3, samples=2)
    roles = Roles(
        base, start=start or "new", lora_r=4, target_modules="all-linear", reference="off"
    )
    bend(roles.model, seed=5)
    seen = probe.look(roles.model)
    again = probe.sampled(roles.model, torch.Generator().manual_seed(10_003))
    answers = [ids[real] for ids, real in zip(again.ids, again.mask, strict=True)]
    asked = [p for p in PROMPTS[:3] for _ in range(2)]
    now = [brute(roles.model, base.tokenizer, p, a) for p, a in zip(asked, answers, strict=True)]
    before = Roles(base, start=start or "new", lora_r=4, reference="off").model
    then = [brute(before, base.tokenizer, p, a) for p, a in zip(asked, answers, strict=True)]
    expected = torch.tensor(now) - torch.tensor(then)
    assert expected.abs().max() > 0.05
    torch.testing.assert_close(seen.kls, expected, atol=2e-4, rtol=1e-4)
    assert seen.tokens == sum(map(len, answers))
    assert seen.golds.tolist() == pytest.approx([len(text) / 10 for text in seen.texts])
    stages.fresh_base(base.model)


def test_a_look_leaves_mode_gradients_and_the_active_adapter(base) -> None:
    probe = Probe(base, conversations(PROMPTS[:2]), as_reward(length), RECIPE,
                  start=bent(base), seed=0)  # fmt: skip
    roles = Roles(base, start=bent(base), lora_r=4, reference="off")
    roles.model.train()
    flags = {n: p.requires_grad for n, p in roles.model.named_parameters()}
    state = torch.random.get_rng_state()
    probe.look(roles.model)
    after = {n: p.requires_grad for n, p in roles.model.named_parameters() if n in flags}
    assert roles.model.training
    assert after == flags
    assert roles.active == "policy"
    assert torch.equal(torch.random.get_rng_state(), state)
    stages.fresh_base(base.model)


@pytest.mark.parametrize(
    "reward",
    [length, lambda completions, scale=1: length(completions), lambda p, c: length(c)],
)
def test_a_reward_takes_completions_or_both(reward) -> None:
    assert as_reward(reward)(["a", "b"], ["1234567890", ""]) == [1.0, 0.0]


def test_a_reward_that_is_none_is_named() -> None:
    with pytest.raises(TypeError, match="3 arguments"):
        as_reward(lambda a, b, c: [])
    with pytest.raises(TypeError, match="no function"):
        as_reward("model")


# --- a whole comparison ----------------------------------------------------------------------


def test_all_run_and_start_from_the_same(everything) -> None:
    result = everything.result
    assert [r.failed for r in result.runs] == [""] * 5
    starts = {r.points[0].gold for r in result.runs if r.algorithm != "best-of-n"}
    assert len(starts) == 1
    for r in result.runs:
        first, last = r.points[0], r.points[-1]
        assert (first.tokens, first.kl) == (0, pytest.approx(0, abs=1e-5))
        assert first.memory_mb > 50
        assert last.tokens > 0
        assert [p.tokens for p in r.points] == sorted(p.tokens for p in r.points)
        assert len(r.samples) == 3


def test_the_base_is_as_before(base, everything) -> None:
    now = dict(base.model.named_parameters())
    assert now.keys() == everything.before.keys()
    assert all(torch.equal(now[name], old) for name, old in everything.before.items())
    assert not any(True for _ in tuner_layers(base.model))


def test_a_second_call_gives_the_same_policies(base, everything) -> None:
    for name in ("grpo", "ppo"):
        again = compared(base, [name]).runs[0].points[-1]
        before = everything.result.run(name, 0).points[-1]
        assert (again.tokens, again.gold, again.kl) == (before.tokens, before.gold, before.kl)


def test_every_trained_policy_leaves_the_start(everything) -> None:
    for r in everything.result.runs:
        assert abs(r.points[-1].kl) > 1e-4, r.algorithm


def test_ppo_grpo_and_rloo_end_when_no_further_step_fits(everything) -> None:
    for name in ("ppo", "grpo", "rloo"):
        last = everything.result.run(name, 0).points[-1]
        assert last.tokens <= RECIPE.tokens < last.tokens + RECIPE.step_tokens


def test_best_of_n_pays_n_answers_to_each_prompt(everything) -> None:
    one, two, four = everything.result.run("best-of-n", 0).points
    assert (one.step, one.tokens, one.seconds) == (1, 0, 0)
    assert four.tokens <= 4 * 3 * RECIPE.max_new_tokens
    assert two.tokens == pytest.approx(four.tokens / 2, abs=1)
    assert one.gold < two.gold < four.gold
    assert (two.kl, four.kl) == (kl_bound(2), kl_bound(4))


def test_from_an_adapter_all_start_there(base) -> None:
    start = bent(base, seed=2)
    unleashed = replace(RECIPE, kl_coef=0.0)  # TRL keeps no reference then
    names = ["ppo", "dpo", "grpo"]
    result = compared(base, names, adapter=start, recipe=unleashed)
    assert result.failures() == []
    assert result.start == "the given adapter"
    for r in result.runs:
        assert r.points[0].kl == pytest.approx(0, abs=1e-4)
        assert r.points[0].gold == result.runs[0].points[0].gold
        assert abs(r.points[-1].kl) > 1e-4


def test_learning_rates_stay_as_they_are(base, monkeypatch) -> None:
    rates, step = [], Pacer.on_step_end

    def spied(self, *args, **more):
        rates.extend(more["lr_scheduler"].get_last_lr())
        step(self, *args, **more)

    monkeypatch.setattr(Pacer, "on_step_end", spied)
    for name, rate in (("dpo", RECIPE.dpo_rate), ("rloo", RECIPE.rloo_rate)):
        rates.clear()
        run(base, job(name))
        assert len(rates) > 1
        assert set(rates) == {rate}


# --- what is counted -------------------------------------------------------------------------


def up_to_stop(ids: list[int], stops: set[int]) -> int:
    return next((i + 1 for i, token in enumerate(ids) if token in stops), len(ids))


def test_grpo_counts_each_completion_up_to_its_stop_token(base, monkeypatch) -> None:
    seen, stops = [], {base.tokenizer.eos_token_id}
    step = GRPOTrainer._generate_and_score_completions

    def spied(self, inputs):
        batch = step(self, inputs)
        seen.extend(batch["completion_ids"].tolist())
        return batch

    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", spied)
    more = replace(RECIPE, tokens=400)
    last = run(base, replace(job("grpo"), recipe=more)).points[-1]
    counts = [up_to_stop(ids, stops) for ids in seen]
    assert min(counts) < RECIPE.max_new_tokens, "no stop token was ever sampled"
    assert last.tokens == sum(counts)


def test_ppo_and_dpo_count_what_the_roles_sampled(base, monkeypatch) -> None:
    generate, stops = Roles.generate, {base.tokenizer.eos_token_id}
    seen = []

    def spied(self, *args, **options):
        done = generate(self, *args, **options)
        seen.extend(done.ids.tolist())
        return done

    monkeypatch.setattr(Roles, "generate", spied)
    for name in ("ppo", "dpo"):
        seen.clear()
        last = run(base, job(name)).points[-1]
        assert last.tokens == sum(up_to_stop(ids, stops) for ids in seen) > 0


def test_pairs_are_the_best_against_the_worst_as_sampled(base) -> None:
    roles = Roles(base, start="new")
    said = {}

    def reward(prompts, completions):
        said.update(zip(completions, prompts, strict=True))
        return [0.0] * 2 + length(completions[2:])  # each batch's first group is tied

    meter = Meter(torch.device("cpu"))
    prompts = conversations(PROMPTS)
    pairs, tied = sampled_pairs(roles, base.tokenizer, prompts, reward, RECIPE, meter, seed=0)
    assert tied >= len(pairs) > 0
    assert meter.tokens <= RECIPE.tokens < meter.tokens + RECIPE.step_tokens
    for pair, row in zip(pairs, pair_rows(pairs), strict=True):
        assert len(pair.chosen) > len(pair.rejected)
        assert said[pair.chosen] == said[pair.rejected]
        assert base.tokenizer.decode(row["chosen_ids"], skip_special_tokens=True) == pair.chosen
        assert len(row["chosen_ids"]) <= RECIPE.max_new_tokens
    stages.fresh_base(base.model)


def test_a_reward_without_differences_makes_no_pairs(base) -> None:
    result = compared(base, ["dpo", "best-of-n"], reward=lambda texts: [1.0] * len(texts))
    (failed,) = result.failures()
    assert failed.algorithm == "dpo"
    assert "no pairs" in failed.failed
    assert result.run("best-of-n", 0) is not None


def test_the_clock_stands_still_in_a_pause(monkeypatch) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(meters, "perf_counter", lambda: clock.now)
    with Meter(torch.device("cpu")) as meter:
        clock.now += 2
        with meter.paused():
            clock.now += 30
            assert meter.seconds == 2
        clock.now += 3
        assert meter.seconds == 5


def test_memory_is_watched_except_in_a_pause(monkeypatch) -> None:
    held = SimpleNamespace(rss=1_000_000_000)
    process = SimpleNamespace(memory_info=lambda: held)
    monkeypatch.setattr(meters.psutil, "Process", lambda: process)
    with Meter(torch.device("cpu")) as meter:
        with meter.paused():
            held.rss = 5_000_000_000
            time.sleep(0.05)  # five looks, if it looked
            held.rss = 900_000_000
        assert meter.memory_mb == 1000
        held.rss = 2_000_000_000
        deadline = time.monotonic() + 30
        while meter.memory_mb == 1000:
            assert time.monotonic() < deadline, "a higher use was never seen"
            time.sleep(0.01)
        held.rss = 900_000_000
    assert meter.memory_mb == 2000


# --- when to look, when to stop ----------------------------------------------------------------


def ends(pacer: Pacer) -> bool:
    """Whether the pacer ends the run after this step."""
    control = TrainerControl()
    pacer.on_step_end(None, None, control)
    return control.should_training_stop


@example([*[(10, 1.0)] * 32, (20, 1.0), *[(1, 28.0)] * 47])  # the last step is a new slowest
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 64), st.floats(0.1, 30)), min_size=80, max_size=80))
def test_a_run_is_looked_at_last_within_each_budget_and_ends_after_both(steps) -> None:
    meter = SimpleNamespace(tokens=0, seconds=0.0)
    looked = [(0, 0.0)]
    recipe = replace(RECIPE, tokens=400, seconds=60.0, patience=1e9)
    pacer = Pacer(meter, lambda: looked.append((meter.tokens, meter.seconds)), recipe, 64)
    trail, slowest, known = [(0, 0.0)], 0.0, 0.0
    for tokens, seconds in steps:
        meter.tokens, meter.seconds = meter.tokens + tokens, meter.seconds + seconds
        trail.append((meter.tokens, meter.seconds))
        slowest, known = max(slowest, seconds), slowest  # known: before the last step
        if ends(pacer):
            break
    else:
        assert meter.tokens + 64 <= 400 or meter.seconds + slowest <= 60
        return
    assert meter.tokens + 64 > 400
    assert meter.seconds + slowest > 60
    within = [tokens for tokens, _ in trail if tokens + 64 <= 400]
    assert max(t for t, _ in looked if t <= 400) >= max(within)
    assert trail[-1] in looked
    assert len(trail) < 3 or trail[-2][0] + 64 <= 400 or trail[-2][1] + known <= 60


def test_a_run_that_cannot_spend_its_tokens_ends_by_patience() -> None:
    meter = SimpleNamespace(tokens=0, seconds=0.0)
    recipe = replace(RECIPE, seconds=10.0, patience=2.0)
    pacer = Pacer(meter, lambda: None, recipe, 64)
    for _ in range(20):
        meter.seconds += 1.0
        assert not ends(pacer)
    meter.seconds += 1.0
    assert ends(pacer)


# --- failures and resuming -----------------------------------------------------------------------


class Moody:
    """A reward that breaks after some calls."""

    __name__ = "moody"

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __call__(self, completions):
        self.left -= 1
        return length(completions)[: None if self.left >= 0 else 1]


def test_a_run_that_fails_is_recorded_and_the_others_go_on(base, tmp_path) -> None:
    said = []
    result = compared(base, ["grpo", "best-of-n"], reward=Moody(2), folder=tmp_path,
                      progress=said.append)  # fmt: skip
    assert len(result.failures()) == 2
    assert "returned 1 scores" in result.runs[0].failed
    assert "GRPO, seed 0, failed" in said[0]
    assert not any(True for _ in tuner_layers(base.model))
    again = compared(base, ["grpo", "best-of-n"], reward=Moody(999), folder=tmp_path)
    assert again.failures() == []
    assert len(again.runs) == 2


def test_what_is_there_is_not_run_again(base, tmp_path) -> None:
    said = []
    first = compared(base, ["best-of-n"], seeds=(0, 1), folder=tmp_path)
    both = compared(base, ["best-of-n", "ppo"], folder=tmp_path, progress=said.append)
    assert len(said) == 1
    assert both.runs[:2] == first.runs
    assert ComparisonResult.load(tmp_path) == both


def test_other_settings_do_not_mix(base, tmp_path) -> None:
    compared(base, ["best-of-n"], folder=tmp_path)
    with pytest.raises(RecordError, match="another kl_coef"):
        compared(base, ["best-of-n"], folder=tmp_path, recipe=replace(RECIPE, kl_coef=0.5))
    with pytest.raises(RecordError, match="another train prompts"):
        compared(base, ["best-of-n"], folder=tmp_path, prompts=[*PROMPTS, "One more"])
    with pytest.raises(RecordError, match="another reward"):
        compared(base, ["best-of-n"], folder=tmp_path, reward=Moody(99))


def test_one_process_at_a_time_writes_a_folder(base, tmp_path) -> None:
    with (
        FileLock(tmp_path / "comparison.lock"),
        pytest.raises(RecordError, match="another process"),
    ):
        compared(base, ["best-of-n"], folder=tmp_path)
    assert compared(base, ["best-of-n"], folder=tmp_path).failures() == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"algorithms": ["ppo", "reinforce"]}, "'reinforce' is unknown"),
        ({"algorithms": []}, "give a list"),
        ({"algorithms": "ppo"}, "give a list"),
        ({"algorithms": ["ppo", "ppo"]}, "one twice"),
        ({"seeds": ()}, "different whole numbers"),
        ({"seeds": (1, 1)}, "different whole numbers"),
        ({"seeds": "012"}, "different whole numbers"),
        ({"seeds": (0.5,)}, "different whole numbers"),
        ({"isolate": True}, "second copy"),
    ],
)
def test_what_cannot_be_run_is_said_at_once(base, options, says) -> None:
    with pytest.raises(SettingsError, match=says):
        compared(base, **options)


@pytest.mark.parametrize(
    ("prompts", "says"),
    [
        ([], "0 different prompts"),
        (PROMPTS[:6], "give 7 or more"),
        (["x" * 400, *PROMPTS], "more than max_prompt_tokens"),
        ([[{"role": "assistant", "content": "Hi"}]] * 9, "does not end with"),
    ],
)
def test_unusable_prompts_are_said_at_once(base, prompts, says) -> None:
    with pytest.raises(DataError, match=says):
        compared(base, prompts=prompts)


@pytest.mark.parametrize(
    ("reward", "says"),
    [
        (lambda texts: [1.0], "returned 1 scores for 2"),
        (lambda texts: [float("nan")] * len(texts), "finite"),
        (lambda texts: texts[0].missing, "raised AttributeError"),
    ],
)
def test_a_reward_that_fails_is_said_before_any_run(base, reward, says) -> None:
    with pytest.raises(RewardError, match=says):
        compared(base, reward=reward)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"tokens": 63}, "too small for one step"),
        ({"best_of": (1, 2)}, "at least 2"),
        ({"best_of": ()}, "at least 2"),
        ({"group_size": 3}, "divide batch_size"),
        ({"group_size": 1}, "at least 2"),
        ({"micro_batch": 3}, "micro_batch=3 must divide"),
        ({"batch_size": 3, "group_size": 3}, "must be even"),
        ({"patience": 0.5}, "at least 1"),
        ({"seconds": 0.0}, "must be positive"),
        ({"eval_prompts": 0}, "at least 1"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused(changed, says) -> None:
    with pytest.raises(ValueError, match=says):
        replace(RECIPE, **changed)


# --- processes -----------------------------------------------------------------------------------


def test_a_job_can_go_to_another_process() -> None:
    sent = job("ppo", reward=as_reward(data.sentiment))
    assert pickle.loads(pickle.dumps(sent)) == sent
    assert sent.reward.__name__ == "sentiment"


def test_a_reward_of_a_notebook_cannot_go_to_another_process() -> None:
    isolation.require_importable(data.sentiment)
    with pytest.raises(SettingsError, match="cannot import reward"):
        isolation.require_importable(lambda texts: [])


def test_a_child_sends_a_run_or_what_went_wrong(folder) -> None:
    sent = []
    pipe = SimpleNamespace(send=sent.append)
    isolation._child(pipe, str(folder), job("best-of-n"))
    here = run(load(str(folder)), job("best-of-n"))  # 4 bits, as a name is loaded
    assert [p.gold for p in sent[0].points] == pytest.approx([p.gold for p in here.points])
    isolation._child(pipe, str(folder), job("ppo", train=conversations(PROMPTS[:2])))
    assert "DataError: 2 prompts for batch_size=4" in sent[1].text


def test_a_held_out_prompt_is_never_trained() -> None:
    given = [name for name in "abcdefghijkl" for _ in range(5)]
    train, held_out = _split(given, replace(RECIPE, eval_prompts=4, batch_size=4))
    assert len(train) + len(held_out) == 12
    assert not [prompt for prompt in held_out if prompt in train]
