"""DPO's loss, rewards and weights: closed forms, invariants, and TRL's own `DPOTrainer`."""

import math

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from trl import DPOConfig, DPOTrainer

from ftkit.algos import dpo_loss, dpo_losses, dpo_weights, implicit_rewards, pairwise_losses

LOGPS = st.lists(
    st.tuples(*[st.floats(-80, 0)] * 4), min_size=1, max_size=5
).map(lambda rows: torch.tensor(rows, dtype=torch.float64).unbind(1))  # fmt: skip
BETA = st.floats(0.01, 2.0)
SMOOTHING = st.floats(0.0, 0.45)


@given(LOGPS, BETA, SMOOTHING)
def test_policy_equal_to_reference_costs_log_2(logps, beta, smoothing) -> None:
    chosen, rejected, *_ = logps
    losses = dpo_losses(chosen, rejected, chosen, rejected, beta, smoothing)
    torch.testing.assert_close(losses, torch.full_like(chosen, math.log(2)))
    weights = dpo_weights(chosen, rejected, chosen, rejected, beta)
    torch.testing.assert_close(weights, torch.full_like(chosen, beta / 2))


@given(LOGPS, BETA)
def test_swapping_the_answers_flips_the_margin(logps, beta) -> None:
    chosen, rejected, ref_chosen, ref_rejected = logps
    swapped = (rejected, chosen, ref_rejected, ref_chosen)
    likelihoods = torch.exp(-dpo_losses(*logps, beta)) + torch.exp(-dpo_losses(*swapped, beta))
    torch.testing.assert_close(likelihoods, torch.ones_like(chosen))
    margins = dpo_losses(*swapped, beta) - dpo_losses(*logps, beta)  # log σ(m) − log σ(−m) = m
    expected = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
    torch.testing.assert_close(margins, expected, atol=1e-9, rtol=1e-9)
    weights = dpo_weights(*logps, beta) + dpo_weights(*swapped, beta)
    torch.testing.assert_close(weights, torch.full_like(chosen, beta))


@given(LOGPS, BETA, st.floats(-30, 30))
def test_only_the_difference_of_the_two_gains_enters(logps, beta, shift) -> None:
    chosen, rejected, ref_chosen, ref_rejected = logps
    moved = (chosen + shift, rejected + shift, ref_chosen, ref_rejected)
    torch.testing.assert_close(
        dpo_losses(*moved, beta), dpo_losses(*logps, beta), atol=1e-9, rtol=1e-9
    )


@given(LOGPS, BETA)
def test_it_is_the_reward_models_loss_on_implicit_rewards(logps, beta) -> None:
    chosen, rejected, ref_chosen, ref_rejected = logps
    rewards = (
        implicit_rewards(chosen, ref_chosen, beta),
        implicit_rewards(rejected, ref_rejected, beta),
    )
    torch.testing.assert_close(dpo_losses(*logps, beta), pairwise_losses(*rewards))


@given(LOGPS, BETA, SMOOTHING)
def test_smoothed_losses_are_right_in_the_mean_over_flipped_labels(logps, beta, smoothing) -> None:
    chosen, rejected, ref_chosen, ref_rejected = logps
    flipped = (rejected, chosen, ref_rejected, ref_chosen)
    mean = (1 - smoothing) * dpo_losses(*logps, beta, smoothing) + smoothing * dpo_losses(
        *flipped, beta, smoothing
    )
    torch.testing.assert_close(mean, dpo_losses(*logps, beta), atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradients_match_finite_differences_and_the_weights(smoothing) -> None:
    torch.manual_seed(0)
    logps = [torch.randn(4, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    assert torch.autograd.gradcheck(lambda *x: dpo_loss(*x, 0.7, smoothing), tuple(logps))
    dpo_losses(*logps, 0.7, smoothing).sum().backward()
    weights = dpo_weights(*logps, 0.7, smoothing)
    assert not weights.requires_grad
    for tensor, sign in zip(logps, (-1, 1, 1, -1), strict=True):
        torch.testing.assert_close(tensor.grad, sign * weights)


def test_far_margins_neither_overflow_nor_vanish() -> None:
    zero, far = torch.zeros(2), torch.tensor([2000.0, -2000.0])
    assert dpo_losses(far, zero, zero, zero, 1.0).tolist() == [0.0, 2000.0]
    assert dpo_weights(far, zero, zero, zero, 1.0).tolist() == [0.0, 1.0]
    half = torch.tensor([-80.1, -3.0], dtype=torch.bfloat16)
    assert implicit_rewards(half, half + 1, 0.1).dtype == torch.float32


def test_bad_input_is_named() -> None:
    two = torch.zeros(2)
    with pytest.raises(ValueError, match="ref_rejected is nan at row 1 "):
        dpo_losses(two, two, two, torch.tensor([0.0, math.nan]))
    with pytest.raises(ValueError, match=r"chosen has shape \(2, 1\)"):
        dpo_losses(two[:, None], two, two, two)
    with pytest.raises(ValueError, match="beta is 0"):
        dpo_losses(two, two, two, two, beta=0.0)
    with pytest.raises(ValueError, match=r"label_smoothing is 0\.5"):
        dpo_loss(two, two, two, two, label_smoothing=0.5)
    with pytest.raises(ValueError, match=r"dpo_weights: label_smoothing is -0\.1"):
        dpo_weights(two, two, two, two, label_smoothing=-0.1)
    with pytest.raises(ValueError, match="nothing to compute"):
        implicit_rewards(two[:0], two[:0], 0.1)


# --- the same numbers as TRL's trainer -------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tiny_folder, tmp_path_factory):
    """Two tiny models: TRL's policy and its reference."""
    from transformers import AutoModelForCausalLM

    moved = AutoModelForCausalLM.from_pretrained(tiny_folder)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    folder = tmp_path_factory.mktemp("moved-llama")
    moved.save_pretrained(folder)
    return folder, tiny_folder


def trainer_of(folders, tokenizer, out, **options) -> DPOTrainer:
    from transformers import AutoModelForCausalLM

    policy, reference = (AutoModelForCausalLM.from_pretrained(folder) for folder in folders)
    rows = [
        {"prompt": f"How was day {i}?", "chosen": f" It was {good}.", "rejected": f" So {bad} {i}"}
        for i, (good, bad) in enumerate([("great", "awful"), ("fine and warm", "bad"), ("ok", "x")])
    ]
    args = DPOConfig(
        output_dir=str(out), use_cpu=True, bf16=False, report_to="none", beta=0.3,
        gradient_checkpointing=False, **options,
    )  # fmt: skip
    return DPOTrainer(
        policy, reference, args=args, train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )  # fmt: skip


def batch_of(trainer: DPOTrainer) -> dict[str, Tensor]:
    names = ["prompt_ids", "chosen_ids", "rejected_ids"]
    return trainer.data_collator(list(trainer.train_dataset.select_columns(names)))


def answer_logps(model, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Log-probabilities of whole answers, straight from the logits: an independent way."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    logps = logits[:, :-1].log_softmax(-1).gather(2, batch["input_ids"][:, 1:, None])[..., 0]
    return (logps * batch["completion_mask"][:, 1:]).sum(1).chunk(2)


@pytest.mark.parametrize(
    ("options", "smoothing"),
    [
        ({"loss_type": ["sigmoid"]}, 0.0),
        ({"loss_type": ["robust"], "label_smoothing": 0.2}, 0.2),
    ],
)
def test_loss_rewards_and_gradient_are_those_of_trls_trainer(
    folders, tokenizer, tmp_path, options, smoothing
) -> None:
    trainer = trainer_of(folders, tokenizer, tmp_path, **options)
    batch = batch_of(trainer)
    trainer.model.train()
    theirs = trainer.compute_loss(trainer.model, batch)
    theirs.backward()
    gradient = {n: p.grad.clone() for n, p in trainer.model.named_parameters()}
    trainer.model.zero_grad()

    policy = answer_logps(trainer.model, batch)
    with torch.no_grad():
        reference = answer_logps(trainer.ref_model, batch)
    assert dpo_loss(*policy, *reference, 0.3, smoothing).item() == pytest.approx(
        theirs.item(), abs=1e-5
    )
    logged = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    for side, now, before in zip(("chosen", "rejected"), policy, reference, strict=True):
        rewards = implicit_rewards(now.detach(), before, 0.3)
        assert abs(rewards).max() > 0.01
        assert rewards.mean().item() == pytest.approx(logged[f"rewards/{side}"], abs=1e-5)

    weights = dpo_weights(*policy, *reference, 0.3, smoothing)
    (weights * (policy[1] - policy[0])).mean().backward()
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradient[name], atol=1e-5, rtol=1e-4)


def test_trls_sigmoid_does_not_look_at_the_label_smoothing(folders, tokenizer, tmp_path) -> None:
    losses = [
        trainer.compute_loss(trainer.model, batch_of(trainer)).item()
        for smoothing in (0.0, 0.3)
        for trainer in [
            trainer_of(folders, tokenizer, tmp_path, loss_type=["sigmoid"],
                       label_smoothing=smoothing)
        ]
    ]  # fmt: skip
    assert losses[0] == losses[1]
