"""Group advantages and losses against closed forms and brute force.

Against TRL's own trainers they are tested in ``tests/stages/test_grpo_matches_trl.py``.
"""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ftkit import algos

BINARY = st.lists(st.sampled_from([0.0, 1.0]), min_size=4, max_size=4)
REWARDS = st.lists(st.floats(-5, 5, width=32), min_size=8, max_size=8)
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()


def batch(seed: int = 0):
    torch.manual_seed(seed)
    now, old, ref = (-3 * torch.rand(3, 4) for _ in range(3))
    return now, old, ref, torch.tensor([1.0, -0.5, 0.25])


def by_hand(now, old, ref, advantages, weights, *, beta=0.0, low=0.2, high=0.2, correct=True):
    """The loss written with loops and floats, as in the paper."""
    total = 0.0
    for i, row in enumerate(MASK.tolist()):
        for t, real in enumerate(row):
            if real:
                r = math.exp(now[i, t] - old[i, t])
                a = float(advantages[i])
                gain = min(r * a, min(max(r, 1 - low), 1 + high) * a)
                gap = float(ref[i, t] - now[i, t])
                kl = (math.exp(gap) - gap - 1) * (r if correct else 1.0)
                total += weights(i) * (beta * kl - gain)
    return total


def test_one_right_answer_of_four() -> None:
    rewards = torch.tensor([1.0, 0.0, 0.0, 0.0])
    up = 0.75 / (0.5 + 1e-4)
    expected = torch.tensor([up, -up / 3, -up / 3, -up / 3])
    torch.testing.assert_close(algos.group_advantages(rewards, 4), expected)
    plain = algos.group_advantages(rewards, 4, "none")
    torch.testing.assert_close(plain, torch.tensor([0.75, -0.25, -0.25, -0.25]))
    others = algos.leave_one_out_advantages(rewards, 4)
    torch.testing.assert_close(others, torch.tensor([1.0, -1 / 3, -1 / 3, -1 / 3]))


def test_the_batch_divides_by_one_spread_for_all_groups() -> None:
    rewards = torch.tensor([1.0, 0.0, 3.0, 0.0])
    expected = torch.tensor([0.5, -0.5, 1.5, -1.5]) / (rewards.std() + 1e-4)
    torch.testing.assert_close(algos.group_advantages(rewards, 2, "batch"), expected)


@given(REWARDS)
def test_advantages_sum_to_zero_in_each_group(rewards) -> None:
    given_ = torch.tensor(rewards, dtype=torch.float64)
    for scale in ("group", "batch", "none"):
        sums = algos.group_advantages(given_, 4, scale).view(2, 4).sum(1)
        assert sums.abs().max() < 1e-6
    others = algos.leave_one_out_advantages(given_, 4)
    torch.testing.assert_close(others, algos.group_advantages(given_, 4, "none") * 4 / 3)


@given(BINARY)
def test_a_group_of_equal_rewards_has_no_signal(rewards) -> None:
    given_ = torch.tensor(rewards)
    silent = bool(algos.without_signal(given_, 4))
    assert silent == (len(set(rewards)) == 1)
    assert silent == (algos.group_advantages(given_, 4).abs().max() == 0)


@given(st.floats(0.1, 100), st.floats(-10, 10), REWARDS)
def test_the_std_makes_advantages_blind_to_the_rewards_unit(scale, shift, rewards) -> None:
    given_ = torch.tensor(rewards, dtype=torch.float64).round(decimals=1)
    if algos.without_signal(given_, 8).any() or given_.std() < 0.5:
        return
    other = algos.group_advantages(given_ * scale + shift, 8)
    torch.testing.assert_close(other, algos.group_advantages(given_, 8), rtol=5e-3, atol=5e-3)


LENGTHS = {
    "grpo": lambda i: 1 / (3 * [4, 2, 1][i]),
    "bnpo": lambda i: 1 / 7,
    "dapo": lambda i: 1 / 14,
    "dr_grpo": lambda i: 1 / (3 * 5),
}


@pytest.mark.parametrize("loss_type", LENGTHS)
@pytest.mark.parametrize("correct", [True, False])
def test_the_loss_is_the_sum_written_by_hand(loss_type, correct) -> None:
    now, old, ref, advantages = batch()
    ours = algos.grpo_loss(
        now, old, advantages, MASK, ref_logprobs=ref, beta=0.3, correct_kl=correct,
        clip_range=0.1, clip_range_high=0.4, loss_type=loss_type, max_tokens=5, total_tokens=14,
    )  # fmt: skip
    expected = by_hand(
        now, old, ref, advantages, LENGTHS[loss_type],
        beta=0.3, low=0.1, high=0.4, correct=correct,
    )  # fmt: skip
    assert ours.loss.item() == pytest.approx(expected, abs=1e-5)
    assert ours.clipped.any()
    assert (ours.ratio[~MASK] == 1).all()
    assert (ours.kl >= -1e-6).all()


def test_weights_say_what_each_type_holds_equal() -> None:
    per_answer = algos.token_weights(MASK, "grpo").sum(1)
    torch.testing.assert_close(per_answer, torch.full((3,), 1 / 3))
    for loss_type in ("bnpo", "dapo"):
        assert algos.token_weights(MASK, loss_type)[MASK].unique().tolist() == pytest.approx(
            [1 / 7]
        )
    first = algos.token_weights(MASK, "dr_grpo", max_tokens=8)[0, 0]
    assert first == algos.token_weights(MASK[:, :2], "dr_grpo", max_tokens=8)[0, 0]


def test_the_parts_of_a_dapo_batch_add_up_to_the_whole_but_those_of_bnpo_do_not() -> None:
    now, old, _, advantages = batch()

    def loss(rows, loss_type, total):
        return algos.grpo_loss(
            now[rows], old[rows], advantages[rows], MASK[rows],
            loss_type=loss_type, total_tokens=total,
        ).loss.item()  # fmt: skip

    whole = loss(slice(None), "dapo", None)
    assert loss(slice(0, 1), "dapo", 7) + loss(slice(1, 3), "dapo", 7) == pytest.approx(whole)
    halves = (loss(slice(0, 1), "bnpo", None) + loss(slice(1, 3), "bnpo", None)) / 2
    assert abs(halves - whole) > 1e-3


def test_only_the_corrected_kl_has_the_gradient_of_the_kl_to_the_reference() -> None:
    """Exact expectation over a vocabulary of 4, on the policy itself."""
    torch.manual_seed(1)
    logits = torch.randn(4, dtype=torch.float64, requires_grad=True)
    ref = torch.log_softmax(torch.randn(4, dtype=torch.float64), 0)
    policy = torch.log_softmax(logits, 0)
    (exact,) = torch.autograd.grad((policy.exp() * (policy - ref)).sum(), logits)

    def gradient(correct: bool):
        logprobs = torch.log_softmax(logits, 0)
        total = sum(
            p
            * algos.grpo_loss(
                logprobs[k].view(1, 1), logprobs[k].detach().view(1, 1),
                torch.zeros(1), torch.ones(1, 1).bool(),
                ref_logprobs=ref[k].view(1, 1), beta=1.0, correct_kl=correct,
            ).loss
            for k, p in enumerate(policy.exp().detach())
        )  # fmt: skip
        return torch.autograd.grad(total, logits)[0]

    torch.testing.assert_close(gradient(True), exact)
    assert (gradient(False) - exact).abs().max() > 1e-2


def test_without_updates_the_gradient_is_that_of_reinforce() -> None:
    now, _, _, advantages = batch()
    now.requires_grad_(True)
    loss = algos.grpo_loss(now, now, advantages, MASK, loss_type="bnpo").loss
    loss.backward()
    expected = -advantages[:, None] * MASK / 7
    torch.testing.assert_close(now.grad, expected)


def test_rloo_takes_the_whole_answer_as_one_action() -> None:
    now, old, _, advantages = batch()
    ours = algos.rloo_loss(now, old, advantages, MASK)
    rows = [(now[i][m].sum() - old[i][m].sum()).exp().item() for i, m in enumerate(MASK)]
    each = [
        -min(r * a, min(max(r, 0.8), 1.2) * a)
        for r, a in zip(rows, advantages.tolist(), strict=True)
    ]
    assert ours.loss.item() == pytest.approx(sum(each) / 3, abs=1e-6)
    assert ours.ratio.tolist() == pytest.approx(rows)


def test_the_kl_of_a_whole_answer_comes_off_its_reward() -> None:
    now, _, ref, _ = batch()
    rewards = algos.rewards_after_kl(torch.ones(3), now, ref, MASK, 0.5)
    by_rows = [1 - 0.5 * (now[i][m] - ref[i][m]).sum().item() for i, m in enumerate(MASK)]
    assert rewards.tolist() == pytest.approx(by_rows, abs=1e-6)


def test_padding_may_hold_anything_and_gets_no_gradient() -> None:
    now, old, ref, advantages = batch()
    clean = algos.grpo_loss(now, old, advantages, MASK, ref_logprobs=ref, beta=0.1).loss
    dirty = [torch.where(MASK, x, torch.nan) for x in (now, old, ref)]
    dirty[0].requires_grad_(True)
    loss = algos.grpo_loss(
        dirty[0], dirty[1], advantages, MASK, ref_logprobs=dirty[2], beta=0.1
    ).loss
    loss.backward()
    assert loss.item() == pytest.approx(clean.item())
    assert (dirty[0].grad[~MASK] == 0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: algos.group_advantages(torch.ones(4), 1), "group_size is 1"),
        (lambda: algos.group_advantages(torch.ones(5), 2), "5 rewards do not divide"),
        (lambda: algos.group_advantages(torch.ones(4), 2, "std"), "scale is 'std'"),
        (lambda: algos.leave_one_out_advantages(torch.tensor([1.0, math.nan]), 2), "nan at row 1"),
        (lambda: algos.without_signal(torch.ones(2, 2), 2), r"must be \(batch,\)"),
        (lambda: algos.token_weights(MASK, "dr_grpo"), "divides by max_tokens"),
        (lambda: algos.token_weights(MASK, "mean"), "loss_type is 'mean'"),
        (lambda: algos.token_weights(MASK.long()), "must be bool"),
    ],
)
def test_what_cannot_be_computed_is_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_losses_refuse_what_does_not_fit() -> None:
    now, old, ref, advantages = batch()
    with pytest.raises(ValueError, match="2 advantages for 3 answers"):
        algos.grpo_loss(now, old, advantages[:2], MASK)
    with pytest.raises(ValueError, match=r"beta=0\.1 needs ref_logprobs"):
        algos.grpo_loss(now, old, advantages, MASK, beta=0.1)
    with pytest.raises(ValueError, match="clip_range is 0"):
        algos.rloo_loss(now, old, advantages, MASK, clip_range=0.0)
    with pytest.raises(ValueError, match="beta is -1"):
        algos.rewards_after_kl(torch.ones(3), now, ref, MASK, -1.0)
