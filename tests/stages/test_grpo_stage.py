"""`stages.grpo` and `stages.rloo`: real TRL trainers on the shared base, guarded and recorded."""

import hashlib
import warnings

import pytest
import torch
from byte_llama import byte_llama
from datasets import Dataset
from trl import GRPOConfig

from ftkit import stages
from ftkit.errors import DataError, SettingsError
from ftkit.models import load, read_adapter
from ftkit.models.lora import adapter_parameters
from ftkit.records import GroupTrace
from ftkit.stages.ppo import RewardError

PROMPTS = [f"Say {i}" for i in range(8)]
SIZES = {"steps": 3, "batch_size": 8, "group_size": 4, "max_new_tokens": 6}
STAGES = {
    "grpo": (stages.grpo, stages.GRPORecipe),
    "rloo": (stages.rloo, stages.RLOORecipe),
}
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return byte_llama(tmp_path_factory.mktemp("bytes"))


@pytest.fixture
def base(folder):
    return load(str(folder), quantization=None, device="cpu")


def letters(prompts: list[str], completions: list[str]) -> list[float]:
    return [sum(c.isascii() and c.isalpha() for c in text) / 6 for text in completions]


def test_both_learn_a_reward_that_they_can_reach(base) -> None:
    for stage, recipe in STAGES.values():
        sizes = SIZES | {"steps": 12, "batch_size": 32, "group_size": 8, "learning_rate": 2e-2}
        trainer = stage(base, PROMPTS, letters, recipe=recipe(**sizes, lora_r=8, beta=0.0))
        trainer.train()
        rewards = [row["reward"] for row in trainer.state.log_history if "reward" in row]
        assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.1, stage.__name__


def test_the_weights_of_the_base_never_change(base) -> None:
    def checksum(model) -> str:
        digest = hashlib.sha256()
        for name, parameter in sorted(model.named_parameters()):
            if "lora_" not in name:
                digest.update(name.replace(".base_layer", "").encode())
                digest.update(parameter.detach().numpy().tobytes())
        return digest.hexdigest()

    before = checksum(base.model)
    recipe = stages.GRPORecipe(**SIZES, learning_rate=1e-2)
    stages.grpo(base, PROMPTS, letters, recipe=recipe).train()
    assert checksum(base.model) == before


@pytest.fixture
def trained(base):
    """An adapter with weights that bfloat16 cannot hold."""
    trainer = stages.grpo(base, PROMPTS, letters, recipe=stages.GRPORecipe(**SIZES))
    torch.manual_seed(0)
    for _, parameter in adapter_parameters(trainer.model, "default"):
        parameter.data.normal_(std=0.05)
    return read_adapter(trainer.model)


@pytest.mark.parametrize("quantization", [None, "nf4"])
@pytest.mark.parametrize("method", STAGES)
def test_a_trained_start_becomes_policy_and_frozen_reference(
    folder, trained, method, quantization
) -> None:
    stage, recipe = STAGES[method]
    base = load(str(folder), quantization=quantization, device="cpu")
    trainer = stage(
        base, PROMPTS, letters, adapter=trained,
        recipe=recipe(**SIZES, learning_rate=1e-2, beta=0.1),
    )  # fmt: skip
    for name in ("default", "ref"):
        copied = read_adapter(trainer.model, name).tensors
        assert all(torch.equal(copied[key], value) for key, value in trained.tensors.items())
    trainable = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert trainable == {name for name, _ in adapter_parameters(trainer.model, "default")}
    trainer.train()
    first = next(row for row in trainer.state.log_history if "kl" in row)
    assert first["kl"] == pytest.approx(0.0, abs=1e-6)
    moved, kept = read_adapter(trainer.model).tensors, read_adapter(trainer.model, "ref").tensors
    assert all(torch.equal(kept[key], value) for key, value in trained.tensors.items())
    assert any(not torch.equal(moved[key], value) for key, value in trained.tensors.items())


def test_without_beta_there_is_no_reference(base, trained) -> None:
    trainer = stages.grpo(
        base, PROMPTS, letters, adapter=trained, recipe=stages.GRPORecipe(**SIZES)
    )
    assert set(trainer.model.peft_config) == {"default"}


def test_a_saved_adapter_is_a_start_and_a_reward_models_is_not(base, tmp_path, trained) -> None:
    from dataclasses import replace

    trainer = stages.grpo(base, PROMPTS, letters, adapter=trained)
    trainer.save_model(str(tmp_path / "saved"))
    again = stages.grpo(base, PROMPTS, letters, adapter=tmp_path / "saved")
    copied = read_adapter(again.model).tensors
    assert all(torch.equal(copied[key], value) for key, value in trained.tensors.items())
    with pytest.raises(SettingsError, match="does not exist: give the folder"):
        stages.grpo(base, PROMPTS, letters, adapter=tmp_path)
    with pytest.raises(SettingsError, match="a reward model's"):
        stages.grpo(base, PROMPTS, letters, adapter=replace(trained, head=torch.ones(1, 32)))


def test_adapters_train_in_the_compute_dtype_of_a_quantized_base(folder) -> None:
    base = load(str(folder), quantization="nf4", device="cpu")
    trainer = stages.grpo(base, PROMPTS, letters, recipe=stages.GRPORecipe(**SIZES))
    dtypes = {p.dtype for p in trainer.model.parameters() if p.requires_grad}
    assert dtypes == {getattr(torch, base.card.compute_dtype)}
    trainer.train()


# --- what the reward sees and may give -------------------------------------------------------


def test_rewards_see_rendered_prompts_and_completions_as_ppo_gives_them(base) -> None:
    seen = []

    def spy(prompts, completions):
        seen.append((prompts, completions))
        return [0.0] * len(prompts)

    recipe = stages.GRPORecipe(**SIZES | {"steps": 1})
    stages.grpo(base, PROMPTS, spy, recipe=recipe).train()
    prompts, completions = seen[0]
    assert len(prompts) == len(completions) == 8
    assert prompts[0] == prompts[3] != prompts[4]
    assert prompts[0].startswith("<|user|>Say ")
    assert prompts[0].endswith("<|assistant|>")
    assert all(isinstance(text, str) for text in completions)


def test_a_mix_is_summed_by_its_weights(base) -> None:
    def ones(prompts, completions):
        return [1.0] * len(prompts)

    mix = {"letters": (2.0, letters), "ones": (0.5, ones)}
    recorder = stages.GroupRecorder()
    recipe = stages.GRPORecipe(**SIZES | {"steps": 1})
    trainer = stages.grpo(base, PROMPTS, mix, recipe=recipe, callbacks=[recorder])
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["rewards/ones/mean"] == 1.0
    assert log["reward"] == pytest.approx(2 * log["rewards/letters/mean"] + 0.5)
    assert recorder.trace.weights == {"letters": 2.0, "ones": 0.5}
    mean = recorder.trace.to_pandas()["reward"].mean()
    assert mean == pytest.approx(log["reward"])


def row_two(bad):
    """A reward that gives `bad` in row 2, or raises it there."""

    def reward(prompts, completions):
        if isinstance(bad, Exception) and len(prompts) in (1, 8):
            if len(prompts) == 8 or reward.calls == 2:
                raise bad
            reward.calls += 1
        return [bad if row == 2 else 0.0 for row in range(len(prompts))]

    reward.calls = 0
    return reward


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None, "high", KeyError("nothing")])
def test_an_unusable_score_ends_the_run_and_names_its_row(base, bad) -> None:
    trainer = stages.grpo(base, PROMPTS, row_two(bad), recipe=stages.GRPORecipe(**SIZES))
    with pytest.raises(RewardError, match=r"reward 'reward' .*for row 2, prompt ending '"):
        trainer.train()


def test_the_wrong_number_of_scores_ends_the_run(base) -> None:
    trainer = stages.rloo(base, PROMPTS, lambda p, c: [0.0] * 3, recipe=stages.RLOORecipe(**SIZES))
    with pytest.raises(RewardError, match="returned 3 scores for 8 completions"):
        trainer.train()


def test_a_reward_that_fails_on_the_batch_alone_says_so(base) -> None:
    def reward(prompts, completions):
        if len(prompts) > 1:
            raise MemoryError("too many")
        return [0.0]

    trainer = stages.grpo(base, PROMPTS, reward, recipe=stages.GRPORecipe(**SIZES))
    with pytest.raises(RewardError, match=r"too many, on the batch, though on no row alone"):
        trainer.train()


# --- settings and prompts --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"group_size": 1}, "group_size=1 must be at least 2"),
        ({"batch_size": 12, "group_size": 8}, "group_size=8 must divide batch_size=12"),
        ({"micro_batch": 5}, "micro_batch=5 must divide batch_size=16"),
        ({"steps": 0}, "steps=0 must be at least 1"),
        ({"beta": -0.1}, r"beta=-0\.1 must not be negative"),
        ({"temperature": 0.0}, r"temperature=0\.0 must be positive"),
        ({"loss_type": "mean"}, "loss_type='mean' is none of grpo, bnpo, dr_grpo, dapo"),
        ({"scale_rewards": "std"}, "scale_rewards='std' is none of group, batch, none"),
        ({"clip_range_high": 0.1}, "clip_range_high must not be below"),
    ],
)
def test_recipes_refuse_what_cannot_run(sizes, message) -> None:
    with pytest.raises(ValueError, match=message):
        stages.GRPORecipe(**sizes)
    if not set(sizes) & {"loss_type", "scale_rewards", "clip_range_high"}:
        with pytest.raises(ValueError, match=message):
            stages.RLOORecipe(**sizes)


def test_recipes_reach_trls_arguments(base) -> None:
    recipe = stages.GRPORecipe(
        **SIZES, micro_batch=4, epochs=2, temperature=0.7, clip_range=0.1, clip_range_high=0.3,
        beta=0.04, loss_type="dr_grpo", scale_rewards="none",
    )  # fmt: skip
    args = stages.grpo(base, PROMPTS, letters, recipe=recipe).args
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (4, 2)
    assert args.generation_batch_size == 8
    assert (args.num_generations, args.num_iterations, args.max_completion_length) == (4, 2, 6)
    assert (args.temperature, args.epsilon, args.epsilon_high) == (0.7, 0.1, 0.3)
    assert (args.beta, args.loss_type, args.scale_rewards) == (0.04, "dr_grpo", "none")
    args = stages.rloo(base, PROMPTS, letters, recipe=stages.RLOORecipe(**SIZES)).args
    assert (args.beta, args.normalize_advantages) == (0.05, False)


def test_your_own_arguments_are_used_as_they_are(base, tmp_path) -> None:
    args = GRPOConfig(
        str(tmp_path), num_generations=2, per_device_train_batch_size=4, loss_type="cispo",
        max_completion_length=5, max_steps=1, use_cpu=True, bf16=False, report_to="none",
    )  # fmt: skip
    trainer = stages.grpo(base, PROMPTS, {"a": (3.0, letters)}, args=args)
    assert trainer.args.loss_type == "cispo"
    assert trainer.reward_weights.tolist() == [3.0]
    assert args.reward_weights is None
    trainer.train()


def test_prompts_come_as_texts_conversations_or_a_dataset(base) -> None:
    talk = [[{"role": "user", "content": text}] for text in PROMPTS]
    forms = [PROMPTS, talk, Dataset.from_list([{"prompt": row, "answer": "7"} for row in talk])]
    for form in forms:
        rows = stages.grpo(base, form, letters, recipe=stages.GRPORecipe(**SIZES)).train_dataset
        assert [row["prompt"] for row in rows] == talk


def test_prompts_that_cannot_be_sampled_are_named(base) -> None:
    recipe = stages.GRPORecipe(**SIZES, max_prompt_tokens=20)
    with pytest.raises(DataError, match=r"prompt 1 .*max_prompt_tokens=20"):
        stages.grpo(base, ["Hi", "Say something very long"], letters, recipe=recipe)
    with pytest.raises(DataError, match="1 prompts for 2 groups a step"):
        stages.grpo(base, ["Hi"], letters, recipe=recipe)
    with pytest.raises(DataError, match="prompt 0 does not end with a message of the user"):
        stages.grpo(base, [[{"role": "assistant", "content": "Hi"}]], letters, recipe=recipe)
    with pytest.raises(TypeError, match="group trainers take functions"):
        stages.grpo(base, PROMPTS, "model", recipe=recipe)


def test_a_trained_adapter_is_not_thrown_away_silently(base) -> None:
    recipe = stages.GRPORecipe(**SIZES, learning_rate=1e-2)
    first = stages.grpo(base, PROMPTS, letters, recipe=recipe)
    first.train()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        stages.grpo(base, PROMPTS, letters, adapter=first, recipe=recipe)
    first = stages.grpo(base, PROMPTS, letters, adapter=first, recipe=recipe)
    with pytest.warns(UserWarning, match="carries a trained adapter"):
        stages.grpo(base, PROMPTS, letters, recipe=recipe)


# --- the recorder ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", STAGES)
def test_the_trace_holds_what_the_trainer_trained_on(base, method, tmp_path) -> None:
    stage, recipe = STAGES[method]
    recorder = stages.GroupRecorder(steps=[1, 3])
    trainer = stage(
        base, PROMPTS, letters, recipe=recipe(**SIZES, beta=0.0, learning_rate=1e-2),
        callbacks=[recorder],
    )  # fmt: skip
    trainer.train()
    trace = recorder.trace
    assert [step.step for step in trace.steps] == [1, 3]
    assert trace.method == method
    last = trainer._buffered_inputs[0]  # what the last loss was computed from, shuffled
    used = {
        (base.tokenizer.decode(ids[mask.bool()], skip_special_tokens=True), advantage, length)
        for ids, mask, advantage, length in zip(
            last["completion_ids"], last["completion_mask"], last["advantages"].tolist(),
            last["completion_mask"].sum(1).tolist(), strict=True,
        )
    }  # fmt: skip
    kept = [answer for step, _, answer in trace.answers() if step == 3]
    assert {(a.text, a.advantage, a.tokens) for a in kept} == used
    assert [a.rewards["letters"] for a in kept] == pytest.approx(
        letters([], [a.text for a in kept])
    )
    for step, log in zip(trace.steps, trainer.state.log_history[0:3:2], strict=True):
        silent = sum(trace.silent(group) for group in step.groups) / len(step.groups)
        assert silent == log["frac_reward_zero_std"]
        lengths = [a.tokens for group in step.groups for a in group.answers]
        assert sum(lengths) / len(lengths) == log["completions/mean_length"]
        cut = [not a.ended for group in step.groups for a in group.answers]
        assert sum(cut) / len(cut) == log["completions/clipped_ratio"]
    assert GroupTrace.load(trace.save(tmp_path).parent) == trace


def test_held_out_answers_are_scored_but_not_recorded(base) -> None:
    recorder = stages.GroupRecorder(groups=1)
    recipe = stages.GRPORecipe(**SIZES | {"steps": 1})
    trainer = stages.grpo(base, PROMPTS, letters, recipe=recipe, callbacks=[recorder])
    scores = trainer.evaluate(trainer.train_dataset.select(range(4)))
    assert 0 <= scores["eval_reward"] <= 1
    assert recorder.trace.steps == []
    trainer.train()
    (step,) = recorder.trace.steps
    assert (len(step.groups), step.sampled) == (1, 2)


def test_a_recorder_refuses_what_it_cannot_hear() -> None:
    with pytest.raises(ValueError, match="groups=0"):
        stages.GroupRecorder(groups=0)
    with pytest.raises(TypeError, match="a str samples no groups"):
        stages.GroupRecorder().attach("trainer")
