"""Log-probabilities and entropies in chunks against torch.distributions on the whole."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ragged import pad
from torch.distributions import Categorical

from ftkit.algos import token_entropy, token_logprobs

MASK = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1], [1, 0, 0, 0, 1]]).bool()


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(3, 5, 11, dtype=torch.float64, generator=generator)
    return logits, torch.randint(0, 11, (3, 5), generator=generator)


@given(st.integers(1, 7), st.sampled_from([0.5, 1.0, 2.0]))
def test_any_chunk_size_gives_the_numbers_of_torch_distributions(chunk, temperature) -> None:
    logits, ids = _batch()
    exact = Categorical(logits=logits / temperature)
    torch.testing.assert_close(
        token_entropy(logits, MASK, temperature, chunk), torch.where(MASK, exact.entropy(), 0)
    )
    torch.testing.assert_close(
        token_logprobs(logits, ids, MASK, temperature, chunk),
        torch.where(MASK, exact.log_prob(ids), 0),
    )


@given(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2))
def test_padding_changes_nothing(left, right, rows) -> None:
    logits, ids = _batch()
    around = (left, right, rows)
    wide, wide_mask = pad(logits, *around, math.nan), pad(MASK, *around, False)
    torch.testing.assert_close(
        token_entropy(wide, wide_mask, chunk=2), pad(token_entropy(logits, MASK), *around, 0)
    )
    torch.testing.assert_close(
        token_logprobs(wide, pad(ids, *around, -100), wide_mask, chunk=2),
        pad(token_logprobs(logits, ids, MASK), *around, 0),
    )


def test_entropy_spans_zero_to_log_vocab() -> None:
    mask = torch.ones(1, 1, dtype=torch.bool)
    assert token_entropy(torch.zeros(1, 1, 9), mask).item() == pytest.approx(math.log(9))
    certain = torch.full((1, 1, 9), -math.inf)
    certain[..., 4] = 0.0
    assert token_entropy(certain, mask).item() == 0.0


def test_excluded_words_leave_entropy_and_gradient_finite() -> None:
    logits = torch.zeros(1, 1, 4, dtype=torch.float64)
    logits[..., 0] = -math.inf
    logits.requires_grad_()
    entropy = token_entropy(logits, torch.ones(1, 1, dtype=torch.bool))
    assert entropy.item() == pytest.approx(math.log(3))
    entropy.sum().backward()
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits))


def test_huge_logits_are_stable_and_halves_are_computed_in_float32() -> None:
    logits = torch.tensor([[[6e4, 6e4 - 32, -6e4]]], dtype=torch.float16)
    mask = torch.ones(1, 1, dtype=torch.bool)
    logprob = token_logprobs(logits, torch.ones(1, 1, dtype=torch.long), mask)
    assert logprob.dtype == torch.float32
    assert logprob.item() == pytest.approx(-32)
    assert token_entropy(logits, mask).item() == pytest.approx(0, abs=1e-6)


def test_gradients_match_finite_differences_and_padded_logits_get_none() -> None:
    logits, ids = _batch()
    logits = logits[:, :, :4].contiguous().requires_grad_()
    ids = ids % 4
    assert torch.autograd.gradcheck(lambda z: token_entropy(z, MASK, 1.3, 2), (logits,))
    assert torch.autograd.gradcheck(lambda z: token_logprobs(z, ids, MASK, 1.3, 2), (logits,))
    poisoned = torch.where(MASK[..., None], logits.detach(), math.nan).requires_grad_()
    (token_logprobs(poisoned, ids, MASK) + token_entropy(poisoned, MASK)).sum().backward()
    assert (poisoned.grad[~MASK] == 0).all()
    assert torch.isfinite(poisoned.grad).all()
