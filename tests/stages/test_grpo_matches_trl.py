"""The maths of `ftkit.algos` against TRL's own GRPO and RLOO trainers, on one batch of theirs.

The trainers sample and score; then lengths become ragged and the old policy another one, so that
clipping acts. Losses, gradients and advantages must agree.
"""

import warnings

import pytest
import torch
from byte_llama import byte_llama

from ftkit import algos, stages
from ftkit.models import load

PROMPTS = [f"Say {i}" for i in range(4)]
GROUP, LIMIT = 4, 7
SIZES = {"steps": 1, "batch_size": 8, "group_size": GROUP, "max_new_tokens": 6, "beta": 0.04}


def length_reward(prompts: list[str], completions: list[str]) -> list[float]:
    return [len(text) / 10 for text in completions]


def batch_of(trainer) -> dict[str, torch.Tensor]:
    """What the trainer samples and scores, with ragged lengths."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1  # as its training loop sets it
    rows = [trainer.train_dataset[i] for i in (0, 1) for _ in range(GROUP)]
    batch = trainer._generate_and_score_completions(rows)
    lengths = torch.tensor([6, 1, 4, 2, 6, 3, 5, 1])
    mask = torch.arange(batch["completion_ids"].shape[1]) < lengths[:, None]
    batch["completion_mask"] = mask.long()
    batch["num_items_in_batch"] = mask.sum()
    return batch


def logprobs_of(trainer, batch) -> torch.Tensor:
    """The trainer's own log-probabilities of the completions, with gradient."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    return trainer._get_per_token_logps_and_entropies(
        trainer.model, ids, attention, batch["completion_ids"].shape[1]
    )[0]


def build(stage, recipe, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = load(str(folder), quantization=None, device="cpu")
        trainer = stage(base, PROMPTS, length_reward, recipe=recipe)
    torch.manual_seed(3)
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:  # else the policy is the reference, and A gets no gradient
            parameter.data.normal_(std=0.05)
    batch = batch_of(trainer)
    now = logprobs_of(trainer, batch).detach()
    batch["moved"] = now + 0.3 * torch.randn_like(now)
    return trainer, batch


@pytest.fixture(scope="module")
def byte_folder(tmp_path_factory):
    return byte_llama(tmp_path_factory.mktemp("bytes"))


@pytest.fixture(scope="module")
def grpo(byte_folder):
    return build(stages.grpo, stages.GRPORecipe(**SIZES), byte_folder)


@pytest.fixture(scope="module")
def rloo(byte_folder):
    return build(stages.rloo, stages.RLOORecipe(**SIZES), byte_folder)


def gradients(trainer, loss: torch.Tensor) -> torch.Tensor:
    trainer.model.zero_grad()
    loss.backward()
    return torch.cat(
        [p.grad.flatten() for p in trainer.model.parameters() if p.requires_grad]
    ).clone()


def assert_the_same(trainer, theirs: torch.Tensor, ours: torch.Tensor) -> None:
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    expected = gradients(trainer, theirs)
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(gradients(trainer, ours), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "dapo"])
@pytest.mark.parametrize(
    ("beta", "correct", "high"), [(0.0, True, 0.2), (0.04, True, 0.28), (0.5, False, 0.2)]
)
def test_the_grpo_loss_is_trls(grpo, loss_type, beta, correct, high) -> None:
    trainer, batch = grpo
    trainer.loss_type, trainer.beta, trainer.epsilon_high = loss_type, beta, high
    trainer.args.use_bias_correction_kl, trainer.max_completion_length = correct, LIMIT
    inputs = {**batch, "old_per_token_logps": batch["moved"]}
    theirs = trainer.compute_loss(trainer.model, inputs)
    mask = batch["completion_mask"].bool()
    ours = algos.grpo_loss(
        logprobs_of(trainer, batch), batch["moved"], batch["advantages"], mask,
        ref_logprobs=batch["ref_per_token_logps"], beta=beta, correct_kl=correct,
        clip_range=0.2, clip_range_high=high, loss_type=loss_type, max_tokens=LIMIT,
    )  # fmt: skip
    assert ours.clipped.any()
    if beta:
        logged = trainer._metrics["train"]["kl"][-1]
        kl = ours.kl * ours.ratio if correct else ours.kl
        assert kl[mask].mean().item() == pytest.approx(logged, abs=1e-5)
    logged = trainer._metrics["train"]["clip_ratio/region_mean"][-1]
    assert ours.clipped[mask].float().mean().item() == pytest.approx(logged, abs=1e-6)
    assert_the_same(trainer, theirs, ours.loss)


@pytest.mark.parametrize("loss_type", ["bnpo", "dapo"])
def test_parts_of_a_batch_are_divided_as_trl_divides_them(grpo, loss_type) -> None:
    trainer, batch = grpo
    trainer.loss_type, trainer.beta, trainer.epsilon_high = loss_type, 0.0, 0.2
    steps, total = 2, int(batch["num_items_in_batch"])
    trainer.current_gradient_accumulation_steps = trainer.args.steps_per_generation = steps
    theirs, ours = [], []
    for part in (slice(0, 4), slice(4, 8)):
        piece = {k: v[part] if v.ndim else v for k, v in batch.items()}
        piece["old_per_token_logps"] = piece["moved"]
        theirs.append(trainer.compute_loss(trainer.model, piece))
        loss = algos.grpo_loss(
            logprobs_of(trainer, piece), piece["moved"], piece["advantages"],
            piece["completion_mask"].bool(), loss_type=loss_type, total_tokens=total,
        ).loss  # fmt: skip
        ours.append(loss if loss_type == "dapo" else loss / steps)
    trainer.current_gradient_accumulation_steps = trainer.args.steps_per_generation = 1
    assert_the_same(trainer, sum(theirs), sum(ours))


def test_the_rloo_loss_is_trls(rloo) -> None:
    trainer, batch = rloo
    mask = batch["completion_mask"].bool()
    # Every second answer has gone where its advantage asked it to go, so clipping acts there.
    ratio = ((logprobs_of(trainer, batch).detach() - batch["moved"]) * mask).sum(1)
    batch["advantages"] = ratio.sign() * torch.tensor([1.0, -0.7] * GROUP)
    old = (batch["moved"] * mask).sum(1)
    theirs = trainer.compute_loss(trainer.model, {**batch, "old_logps": old})
    ours = algos.rloo_loss(logprobs_of(trainer, batch), batch["moved"], batch["advantages"], mask)
    assert ours.clipped.any()
    assert_the_same(trainer, theirs, ours.loss)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_group_advantages_are_trls(grpo, scale) -> None:
    trainer, _ = grpo
    trainer.scale_rewards, trainer.beta = scale, 0.0
    theirs = batch_of(trainer)["advantages"]
    rewards = torch.tensor(list(trainer._logs["rewards"]["length_reward"])[-8:])
    assert theirs.abs().max() > 0.01
    torch.testing.assert_close(
        algos.group_advantages(rewards, GROUP, scale), theirs, rtol=0, atol=1e-5
    )
    if scale != "batch":  # then TRL asks for the spread of the whole batch
        silent = trainer._metrics["train"]["frac_reward_zero_std"][-1]
        assert algos.without_signal(rewards, GROUP).float().mean().item() == silent


def test_leave_one_out_advantages_are_trls_with_its_kl_in_the_reward(rloo, monkeypatch) -> None:
    trainer, _ = rloo
    seen = []
    measure = trainer._get_per_token_logps_and_entropies

    def watched(*args, **kwargs):
        seen.append(measure(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(trainer, "_get_per_token_logps_and_entropies", watched)
    trainer.beta = 0.5
    trainer.model.train()
    rows = [trainer.train_dataset[i] for i in (2, 3) for _ in range(GROUP)]
    batch = trainer._generate_and_score_completions(rows)
    now, ref = (logprobs for logprobs, *_ in seen)
    rewards = torch.tensor(list(trainer._logs["rewards"]["length_reward"])[-8:])
    mask = batch["completion_mask"].bool()
    after = algos.rewards_after_kl(rewards, now, ref, mask, 0.5)
    assert (after - rewards).abs().max() > 1e-3
    ours = algos.leave_one_out_advantages(after, GROUP)
    torch.testing.assert_close(ours, batch["advantages"], rtol=0, atol=1e-5)
