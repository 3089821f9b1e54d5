"""The noise of NEFTune: uniform, on the embeddings, smaller the longer the row (Jain et al. 2023).

Each component is U(−m, m) with m = α/√(L·d), so its variance is m²/3: a token's noise has the
length √(d·m²/3) = α/√(3L), and a whole row's √(L·d·m²/3) = α/√3, whatever L and d are. Left out:
Gaussian and adversarial noise.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ftkit.algos.checks import at_least_float32, check_not_negative

_SAME = 1e-5
"""Two vectors are one when their squared distance is below this share of their squared norms."""
_ROWS = 64
"""Tokens compared with the whole vocabulary at once: bounds the memory."""


def noise_magnitude(alpha: float, length: int, hidden: int) -> float:
    """Return m = α/√(L·d), the largest size of one component of the noise.

    Args:
        alpha: α ≥ 0; 5, 10 and 15 are the paper's.
        length: L ≥ 1, tokens a row.
        hidden: d ≥ 1, numbers a token.

    Raises:
        ValueError: a number out of range; named.
    """
    check_not_negative("noise_magnitude", alpha=alpha)
    _check_counts("noise_magnitude", length=length, hidden=hidden)
    return alpha / math.sqrt(length * hidden)


def token_noise_l2(alpha: float, length: int) -> float:
    """Return α/√(3L), the root mean square of the L2 norm of one token's noise.

    In hundreds of dimensions every single token is within a few per cent of it.

    Args:
        alpha: α ≥ 0.
        length: L ≥ 1, tokens a row.

    Raises:
        ValueError: a number out of range; named.
    """
    check_not_negative("token_noise_l2", alpha=alpha)
    _check_counts("token_noise_l2", length=length)
    return alpha / math.sqrt(3 * length)


def sequence_noise_l2(alpha: float) -> float:
    """Return α/√3, the root mean square of the L2 norm of a whole row's noise.

    Args:
        alpha: α ≥ 0.

    Raises:
        ValueError: `alpha` below 0 or not finite.
    """
    check_not_negative("sequence_noise_l2", alpha=alpha)
    return alpha / math.sqrt(3)


def neftune_noise(
    embeddings: Tensor,
    alpha: float,
    mask: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the noise that NEFTune adds to `embeddings`; it carries no gradient.

    Without `mask` L is the width of the batch, padding included: the choice of transformers'
    hook, by which one row gets less noise the longer its neighbours are. With `mask` L is each
    row's own number of real tokens, and padding gets no noise.

    Args:
        embeddings: ``(batch, time, hidden)``; only shape, dtype and device are used.
        alpha: α ≥ 0.
        mask: Bool ``(batch, time)``, true at real tokens.
        generator: Source of randomness on the embeddings' device; None for the global one.

    Returns:
        ``(batch, time, hidden)`` in the dtype of `embeddings`.

    Raises:
        ValueError: a shape or mask that does not fit, a row without real tokens, or α below 0.
    """
    if embeddings.ndim != 3 or not embeddings.numel():
        raise ValueError(
            f"neftune_noise: embeddings have shape {tuple(embeddings.shape)}; they must be (batch, "
            "time, hidden), and not empty"
        )
    _, time, hidden = embeddings.shape
    unit = torch.empty_like(embeddings, requires_grad=False).uniform_(-1, 1, generator=generator)
    if mask is None:
        return unit * noise_magnitude(alpha, time, hidden)
    check_not_negative("neftune_noise", alpha=alpha)
    lengths = _real_lengths(embeddings, mask)  # (batch,)
    magnitude = alpha / (lengths * hidden).sqrt()  # (batch,)
    noise = unit * magnitude[:, None, None].to(unit.dtype)
    return noise.masked_fill(~mask[..., None], 0.0)


def critical_magnitudes(matrix: Tensor, ids: Tensor, directions: Tensor) -> Tensor:
    """Return how large the noise must be before another token's embedding is the nearest one.

    For token i with noise m·u, token j is nearer once m·u·(e_j − e_i) > |e_j − e_i|²/2. So there
    is one smallest m for each token and direction, and the share of tokens that change at any m
    is the share of these values below it: one pass over the vocabulary serves every α and L.

    Args:
        matrix: ``(vocab, hidden)`` embeddings.
        ids: ``(tokens,)`` rows of `matrix`.
        directions: ``(tokens, hidden)`` noise at m = 1, e.g. U(−1, 1).

    Returns:
        ``(tokens,)`` in at least float32; infinite where no other embedding lies that way. Rows
        of `matrix` with the same vector count as one token.

    Raises:
        ValueError: shapes that do not fit together, or an id outside the vocabulary.
    """
    if matrix.ndim != 2 or directions.shape != (*ids.shape, matrix.shape[1]) or ids.ndim != 1:
        raise ValueError(
            f"critical_magnitudes: matrix {tuple(matrix.shape)}, ids {tuple(ids.shape)} and "
            f"directions {tuple(directions.shape)}; they must be (vocab, hidden), (tokens,) and "
            "(tokens, hidden)"
        )
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < len(matrix):
        raise ValueError(
            f"critical_magnitudes: ids run from {int(ids.min())} to {int(ids.max())}, but the "
            f"vocabulary has {len(matrix)} rows"
        )
    found = list(_critical(matrix, ids, directions))
    return torch.cat(found) if found else at_least_float32(directions[:, 0])


def _critical(matrix: Tensor, ids: Tensor, directions: Tensor) -> Iterator[Tensor]:
    """Yield the critical magnitudes of `_ROWS` tokens at a time."""
    matrix, directions = at_least_float32(matrix), at_least_float32(directions)
    norms = matrix.square().sum(1)  # (vocab,)
    for some, unit in zip(ids.split(_ROWS), directions.split(_ROWS), strict=True):
        own = matrix[some]  # (tokens, hidden)
        total = norms[some][:, None] + norms  # (tokens, vocab)
        distances = total - 2 * own @ matrix.T  # squared
        along = unit @ matrix.T - (unit * own).sum(1, keepdim=True)  # u·(e_j − e_i)
        reachable = (along > 0) & (distances > _SAME * total)
        yield torch.where(reachable, distances / (2 * along), torch.inf).amin(1)


def _real_lengths(embeddings: Tensor, mask: Tensor) -> Tensor:
    if mask.dtype != torch.bool or mask.shape != embeddings.shape[:2]:
        raise ValueError(
            f"neftune_noise: the mask is {mask.dtype} of shape {tuple(mask.shape)}; it must be "
            f"bool of shape {tuple(embeddings.shape[:2])}"
        )
    lengths = mask.sum(1)
    if not lengths.all():
        row = int((lengths == 0).nonzero()[0])
        raise ValueError(f"neftune_noise: row {row} has no real token, so it has no length")
    return lengths.to(torch.promote_types(embeddings.dtype, torch.float32))


def _check_counts(function: str, **counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{function}: {name} is {count}; it must be at least 1")
