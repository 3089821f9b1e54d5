"""The shipped runs: same seed, same number, whatever ran before; the base is left as it was."""

import cloudpickle
import numpy as np
import pytest
import torch

import ftkit
from ftkit.models.lora import tuner_layers
from ftkit.stages import examples


@pytest.fixture(scope="module")
def shared(tiny_folder):
    """One tiny Llama for all runs, as the shipped ones share one base."""
    from ftkit.models import load

    return load(str(tiny_folder), quantization=None, device="cpu")


@pytest.fixture(autouse=True)
def _on_tiny(monkeypatch, shared) -> None:
    monkeypatch.setattr(examples, "base", lambda: shared)


def numbers(run, **setting) -> dict[str, float]:
    metrics = run(**setting)
    metrics.pop("train_seconds", None)
    return metrics


@pytest.fixture(scope="module")
def usual(shared) -> dict[str, float]:
    """What `sft_run` returns with its defaults."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples, "base", lambda: shared)
        return numbers(examples.sft_run)


def weights(base) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in base.model.named_parameters()}


def hooks(base) -> list:
    return [hook for m in base.model.modules() for hook in m._forward_hooks.values()]


def assert_bare(base, before: dict[str, torch.Tensor]) -> None:
    after = weights(base)
    assert not list(tuner_layers(base.model))
    assert not hooks(base)
    assert not base.model.training
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_a_run_does_not_depend_on_the_runs_before_it(shared, usual) -> None:
    before, ppo = weights(shared), numbers(examples.ppo_run)
    numbers(examples.sft_run, neftune_alpha=50.0, lora_r=3, mask="full", seed=5)
    numbers(examples.ppo_run, kl_coef=1.0, lam=0.0, seed=5)
    assert numbers(examples.sft_run) == usual
    assert numbers(examples.ppo_run) == ppo
    assert_bare(shared, before)


@pytest.mark.parametrize("run", [examples.sft_run, examples.ppo_run])
def test_the_seed_changes_the_numbers(run) -> None:
    assert numbers(run, seed=0) != numbers(run, seed=1)


@pytest.mark.parametrize(
    "changed", [{"mask": "full"}, {"neftune_alpha": 50.0}, {"lora_r": 2}], ids=str
)
def test_each_factor_of_sft_changes_what_is_learned(usual, changed) -> None:
    assert numbers(examples.sft_run, **changed)["answer_loss"] != usual["answer_loss"]


def test_a_run_that_breaks_off_leaves_the_base_bare(monkeypatch, shared) -> None:
    def broken(*_: object) -> float:
        assert list(tuner_layers(shared.model)), "the adapter should still be there"
        raise RuntimeError("scoring broke")

    before = weights(shared)
    monkeypatch.setattr(examples, "mean_loss", broken)
    with pytest.raises(RuntimeError, match="scoring broke"):
        examples.sft_run(neftune_alpha=5.0)
    monkeypatch.setattr(examples, "_gold", broken)
    with pytest.raises(Exception, match="scoring broke"):
        examples.ppo_run()
    assert_bare(shared, before)


def test_every_mask_is_judged_by_the_same_answers(monkeypatch, shared) -> None:
    judged = []
    monkeypatch.setattr(examples, "mean_loss", lambda _m, rows, _p: judged.append(rows) or 0.0)
    for mask in ("full", "assistant"):
        examples.sft_run(mask=mask)
    assert judged[0] == judged[1]
    row = judged[0][0]
    text = shared.tokenizer.decode([t for t in row.labels if t != -100])
    assert text.endswith("<|im_end|>")
    assert "<|im_start|>" not in text


def test_no_row_is_cut_and_no_judged_question_is_trained(shared) -> None:
    train, judged = examples._help_desk()
    said = [shared.tokenizer.apply_chat_template(m)["input_ids"] for m in train["messages"]]
    assert max(map(len, said)) <= examples._MAX_LENGTH
    questions = set(train["question"])
    assert len(judged) >= 10
    texts = [shared.tokenizer.decode(row.input_ids) for row in judged]
    asked = {text.split("<|im_start|>user\n")[1].split("<|im_end|>")[0] for text in texts}
    assert not asked & questions


def test_the_outcome_is_the_sum_of_the_rewards_that_follow(monkeypatch) -> None:
    kept = []
    monkeypatch.setattr(examples, "_ppo_metrics", lambda _h, rounds: kept.extend(rounds) or {})
    examples.ppo_run(lam=1.0, kl_coef=0.3)
    (recorded,) = kept
    rewards, found = recorded.rewards, []
    for row, length in enumerate(recorded.lengths):
        found += [rewards[row, t:length].sum() for t in range(length)]
    assert examples._outcomes(recorded) == pytest.approx(np.array(found), abs=1e-5)
    # With λ = 1 it is also what the critic was taught (Schulman et al. 2016, equation 18).
    assert examples._outcomes(recorded) == pytest.approx(recorded.returns[recorded.mask], abs=1e-4)


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_the_spread_of_the_advantages_is_that_of_the_scores(monkeypatch, lam) -> None:
    """The critic starts at 0: λ = 1 gives each token the score, λ = 0 only the last one."""
    scores, kept = [1.0, -1.0, 0.5, 0.0], []
    monkeypatch.setattr(examples, "_gold", lambda _p, completions: scores[: len(completions)])
    measured = examples._ppo_metrics
    keep = lambda history, rounds: kept.extend(rounds) or measured(history, rounds)  # noqa: E731
    monkeypatch.setattr(examples, "_ppo_metrics", keep)
    found = examples.ppo_run(lam=lam, kl_coef=0.0)
    paid = [
        score if lam or t == length - 1 else 0.0
        for score, length in zip(scores, kept[0].lengths, strict=True)
        for t in range(length)
    ]
    assert found["gold"] == pytest.approx(np.mean(scores))
    assert found["advantage_std"] == pytest.approx(np.std(paid), rel=0.02)


def test_a_setting_that_cannot_run_is_recorded_and_the_rest_goes_on(shared) -> None:
    before = weights(shared)
    grid = {"lora_r": [4, 0, 2]}
    result = ftkit.ablate(examples.sft_run, grid, seeds=1, progress=False)
    assert [t.state for t in result.trials] == ["done", "failed", "done"]
    assert "lora_r=0" in result.failures[0].failure.error
    assert_bare(shared, before)


@pytest.mark.parametrize("run", [examples.sft_run, examples.ppo_run])
def test_a_process_of_its_own_is_sent_the_name_not_the_model(run) -> None:
    assert len(cloudpickle.dumps(run)) < 500
