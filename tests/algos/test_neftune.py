"""NEFTune's noise against transformers' own hook, its closed forms, and brute force."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.integrations.neftune import neftune_post_forward_hook

from ftkit.algos import (
    critical_magnitudes,
    neftune_noise,
    noise_magnitude,
    sequence_noise_l2,
    token_noise_l2,
)

ALPHA = st.floats(0.01, 1000)
COUNT = st.integers(1, 5000)


def hook_noise(time: int, hidden: int, alpha: float, batch: int = 1) -> torch.Tensor:
    """Return what transformers' hook adds, through a real embedding in train mode."""
    embedding = torch.nn.Embedding(7, hidden)
    embedding.neftune_noise_alpha = alpha
    embedding.register_forward_hook(neftune_post_forward_hook)
    ids = torch.zeros(batch, time, dtype=torch.long)
    with torch.no_grad():
        return embedding.train()(ids) - embedding.eval()(ids)


def test_the_same_seed_gives_the_noise_of_the_hook() -> None:
    torch.manual_seed(3)
    theirs = hook_noise(12, 40, 5.0, batch=3)
    torch.manual_seed(3)
    torch.nn.Embedding(7, 40)  # takes its share of the random numbers, as above
    ours = neftune_noise(torch.zeros(3, 12, 40), 5.0)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_the_noise_is_spread_evenly_between_minus_m_and_m_like_that_of_the_hook() -> None:
    """Kolmogorov-Smirnov distance to the uniform law; 1.95/√n is passed once in a thousand."""
    m = noise_magnitude(5.0, 64, 96)
    torch.manual_seed(0)
    for noise in (neftune_noise(torch.zeros(1, 64, 96), 5.0), hook_noise(64, 96, 5.0)):
        values = noise.flatten().sort().values
        n = len(values)
        law = (values / m + 1) / 2
        steps = torch.arange(1, n + 1) / n
        assert (law - steps).abs().max() < 1.95 / math.sqrt(n)
        assert values.abs().max() <= m * (1 + 1e-5)


def test_measured_norms_of_the_hook_are_the_closed_forms() -> None:
    torch.manual_seed(0)
    for time in (16, 256, 1024):
        noise = hook_noise(time, 576, 5.0)
        assert noise.norm(dim=2).mean().item() == pytest.approx(token_noise_l2(5.0, time), rel=0.02)
        assert noise.norm().item() == pytest.approx(sequence_noise_l2(5.0), rel=0.02)
    assert sequence_noise_l2(5.0) == pytest.approx(2.887, abs=1e-3)


@given(ALPHA, COUNT, COUNT)
def test_the_norms_are_those_of_uniform_components(alpha: float, length: int, hidden: int) -> None:
    variance = noise_magnitude(alpha, length, hidden) ** 2 / 3  # of U(−m, m)
    assert token_noise_l2(alpha, length) == pytest.approx(math.sqrt(hidden * variance))
    assert sequence_noise_l2(alpha) == pytest.approx(math.sqrt(length * hidden * variance))
    assert sequence_noise_l2(alpha) == pytest.approx(alpha / math.sqrt(3))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 20), st.integers(0, 99))
def test_with_a_mask_padding_changes_nothing_but_gets_nothing(lengths, more, seed) -> None:
    time, hidden = max(lengths) + more, 64
    mask = torch.arange(time) < torch.tensor(lengths)[:, None]
    generator = torch.Generator().manual_seed(seed)
    noise = neftune_noise(torch.zeros(len(lengths), time, hidden), 5.0, mask, generator)
    assert not noise[~mask].any()
    for row, length in zip(noise, lengths, strict=True):
        bound = noise_magnitude(5.0, length, hidden)
        assert row.abs().max() <= bound * (1 + 1e-6)
        assert row.abs().max() > 0.8 * bound  # 64 values or more, all below: 1 in a million


def test_without_a_mask_padding_takes_noise_away() -> None:
    generator = torch.Generator().manual_seed(0)
    short, long = (
        neftune_noise(torch.zeros(1, time, 576), 5.0, generator=generator)[0, :32].norm().item()
        for time in (32, 512)
    )
    assert short / long == pytest.approx(4.0, rel=0.03)  # √(512/32)


def test_no_alpha_no_noise_and_no_gradient() -> None:
    embeddings = torch.ones(1, 2, 3, dtype=torch.float64, requires_grad=True)
    assert not neftune_noise(embeddings, 0.0).any()
    noise = neftune_noise(embeddings, 1.0)
    assert noise.dtype == torch.float64
    assert not noise.requires_grad


def nearest_changed(matrix, ids, directions, magnitude) -> torch.Tensor:
    """Brute force: whether another row is the nearest to the noised vector."""
    noised = matrix[ids] + magnitude * directions
    return torch.cdist(noised, matrix).argmin(1) != ids


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 4.0))
def test_a_token_changes_exactly_above_its_critical_magnitude(seed: int, magnitude: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(60, 5, generator=generator, dtype=torch.float64)
    ids = torch.randint(60, (130,), generator=generator)
    directions = torch.rand(130, 5, generator=generator, dtype=torch.float64) * 2 - 1
    critical = critical_magnitudes(matrix, ids, directions)
    clear = (critical - magnitude).abs() > 1e-9
    changed = nearest_changed(matrix, ids, directions, magnitude)
    assert torch.equal((critical < magnitude)[clear], changed[clear])


def test_twins_are_one_token_and_a_direction_without_others_never_changes() -> None:
    matrix = torch.tensor([[0.0, 1.0], [0.0, 1.0], [2.0, 1.0]])
    directions = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    critical = critical_magnitudes(matrix, torch.tensor([0, 1]), directions)
    assert critical.tolist() == [1.0, math.inf]  # half way to the third row; nobody on the left
    assert (
        critical_magnitudes(matrix, torch.tensor([], dtype=torch.long), directions[:0]).numel() == 0
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noise_magnitude(-1, 4, 4), r"alpha is -1; it must be finite and not below 0"),
        (lambda: noise_magnitude(math.nan, 4, 4), "alpha is nan"),
        (lambda: noise_magnitude(5, 0, 4), "length is 0; it must be at least 1"),
        (lambda: token_noise_l2(5, -3), "length is -3"),
        (lambda: sequence_noise_l2(math.inf), "alpha is inf"),
        (lambda: neftune_noise(torch.zeros(2, 3), 5), r"shape \(2, 3\); they must be \(batch"),
        (lambda: neftune_noise(torch.zeros(1, 2, 3), -5), "alpha is -5"),
        (
            lambda: neftune_noise(torch.zeros(2, 2, 3), 5, torch.tensor([[True] * 2, [False] * 2])),
            "row 1 has no real token",
        ),
        (
            lambda: neftune_noise(torch.zeros(1, 2, 3), 5, torch.ones(1, 2)),
            r"the mask is torch.float32 of shape \(1, 2\); it must be bool",
        ),
        (
            lambda: critical_magnitudes(torch.ones(4, 3), torch.tensor([0]), torch.ones(1, 2)),
            r"must be \(vocab, hidden\)",
        ),
        (
            lambda: critical_magnitudes(torch.ones(4, 3), torch.tensor([4]), torch.ones(1, 3)),
            "ids run from 4 to 4, but the vocabulary has 4 rows",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
