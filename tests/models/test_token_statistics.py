"""`token_statistics` against all logits at once, in float64 and through autograd."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ftkit.errors import SettingsError
from ftkit.models import token_statistics as module
from ftkit.models.generation import _next
from ftkit.models.heads import LogitHead
from ftkit.models.token_statistics import token_statistics


def a_head(hidden: int, vocab: int, *, bias: bool = False, size: float = 1.0) -> nn.Linear:
    head = nn.Linear(hidden, vocab, bias=bias).requires_grad_(False)
    head.weight.mul_(size)
    return head


def at_once(head, states, ids, temperature):
    """Log-probabilities and entropies from all logits."""
    logp = torch.log_softmax(head(states) / temperature, -1)
    return logp.gather(1, ids[:, None])[:, 0], -(logp.exp() * logp).sum(1)


@given(
    rows=st.integers(1, 7),
    held=st.integers(1, 300),
    cap=st.none() | st.floats(0.5, 30.0),
    scale=st.floats(0.1, 4.0),
    bias=st.booleans(),
    temperature=st.floats(0.2, 3.0),
    size=st.sampled_from([0.0, 1.0, 30.0]),
    seed=st.integers(0, 1000),
)
def test_numbers_and_slopes_are_those_of_autograd_through_all_logits(
    rows, held, cap, scale, bias, temperature, size, seed
) -> None:
    torch.manual_seed(seed)
    linear = a_head(5, 41, bias=bias, size=size).double()
    head = LogitHead(linear, scale, cap)
    states = torch.randn(rows, 5, dtype=torch.float64, requires_grad=True)
    ids, weights = torch.randint(0, 41, (rows,)), torch.randn(2, rows, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_LOGITS", {"cpu": held})
        patch.setattr(module, "_ROWS", 3)
        options = {"temperature": temperature, "with_entropy": True}
        ours = token_statistics(head, states, ids, **options)
        flat = token_statistics(head, states, ids, entropy_slope=False, **options)
    theirs = at_once(head, states, ids, temperature)
    exactly = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(ours, theirs, **exactly)

    def slope(pair, factors):
        loss = sum(f @ number for f, number in zip(factors, pair, strict=True))
        return torch.autograd.grad(loss, states, retain_graph=True)[0]

    torch.testing.assert_close(slope(ours, weights), slope(theirs, weights), **exactly)
    assert not flat[1].requires_grad
    no_bonus = torch.stack([weights[0], torch.zeros(rows, dtype=torch.float64)])
    torch.testing.assert_close(slope(flat, no_bonus), slope(theirs, no_bonus), **exactly)


def test_the_tail_of_a_large_vocabulary_is_not_lost() -> None:
    """A few likely tokens and 49,000 rare ones, as a model's: float32 sums must keep them all."""
    torch.manual_seed(0)
    linear = a_head(64, 49_152, size=8.0)
    states, ids = torch.randn(32, 64), torch.arange(32)
    exact, exact_entropy = at_once(linear.double(), states.double(), ids, 1.0)
    linear.float()
    logprobs, entropy = token_statistics(
        LogitHead(linear), states, ids, temperature=1.0, with_entropy=True
    )
    assert abs((logprobs - exact).mean()) < 1e-6
    assert abs((entropy - exact_entropy).mean()) < 1e-6
    torch.testing.assert_close(logprobs.double(), exact, rtol=0, atol=1e-5)


def test_the_sampler_says_of_its_tokens_what_the_scorer_says() -> None:
    torch.manual_seed(0)
    head, states = LogitHead(a_head(64, 49_152, size=8.0)), torch.randn(32, 64)
    drawn, logprobs, entropy = _next(head(states) / 0.7, torch.Generator().manual_seed(1))
    scored = token_statistics(head, states, drawn[:, 0], temperature=0.7, with_entropy=True)
    torch.testing.assert_close((logprobs, entropy), scored, rtol=0, atol=5e-5)
    assert abs((logprobs - scored[0]).mean()) < 2e-6


def test_halves_are_read_as_float32() -> None:
    torch.manual_seed(0)
    linear = a_head(16, 300).bfloat16()
    states = torch.randn(4, 16, dtype=torch.bfloat16, requires_grad=True)
    logprobs, entropy = token_statistics(
        LogitHead(linear), states, torch.arange(4), temperature=1.0, with_entropy=True
    )
    assert logprobs.dtype == entropy.dtype == torch.float32
    (logprobs.sum() + entropy.sum()).backward()
    slope, states.grad = states.grad, None
    assert slope.dtype == torch.bfloat16
    logp = torch.log_softmax(linear(states).float(), -1)
    (logp[torch.arange(4), torch.arange(4)].sum() - (logp.exp() * logp).sum()).backward()
    torch.testing.assert_close(slope, states.grad, rtol=0.02, atol=0.02)


def test_a_head_in_8_bits_is_refused() -> None:
    head = a_head(4, 9)
    head.weight = nn.Parameter(torch.zeros(9, 4, dtype=torch.int8), requires_grad=False)
    model = SimpleNamespace(get_output_embeddings=lambda: head)
    with pytest.raises(SettingsError, match=r"quantized to torch.int8.*llm_int8_skip_modules"):
        LogitHead.of(model)


def test_no_tokens_give_no_numbers_and_an_unknown_token_is_refused() -> None:
    head, options = LogitHead(a_head(4, 9)), {"temperature": 1.0, "with_entropy": True}
    none = token_statistics(head, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), **options)
    assert [number.shape for number in none] == [(0,), (0,)]
    for wrong in (-100, 9):
        with pytest.raises(ValueError, match="ids must be 0 to 8"):
            token_statistics(head, torch.zeros(1, 4), torch.tensor([wrong]), **options)
