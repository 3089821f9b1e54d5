"""Log-probabilities and entropies from logits, a few positions at a time.

Logits of a small model are its biggest tensor (48 answers × 128 tokens × 49,152 words are 1.2 GB
in float32); their log-softmax would be a second one. In chunks only a slice of it lives at a time.
With gradients autograd keeps every slice, so the saving is for the rollout, not the update.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.linalg import vecdot
from torch.nn.functional import log_softmax

from ftkit.algos.checks import at_least_float32, check_positive, check_sequences


def token_logprobs(
    logits: Tensor, ids: Tensor, mask: Tensor, temperature: float = 1.0, chunk: int = 128
) -> Tensor:
    """Return log softmax(z/τ) at the sampled token of each position.

    Policy detail 1 of "The N Implementation Details of RLHF with PPO" (Huang et al. 2023): the
    temperature that sampled must divide the logits in every log-probability, or the ratio is not
    1 before the first update.

    Args:
        logits: ``(batch, completion, vocab)``; position t predicts ``ids[:, t]`` (shifted already).
        ids: ``(batch, completion)`` sampled tokens; anything at padding.
        mask: Bool ``(batch, completion)``, true at response tokens.
        temperature: τ > 0 of the sampler.
        chunk: Positions of one row whose log-softmax is held at a time.

    Returns:
        ``(batch, completion)`` in nats, at least float32, 0 at padding.

    Raises:
        ValueError: shapes that differ, a mask that is not bool, not 2-D or selects nothing, an id
            outside the vocabulary, a result that is not finite (named with row and token: NaN in
            the logits, or a sampled token that they exclude), or τ or `chunk` not above 0.
    """
    _check_logits("token_logprobs", logits, mask, temperature, chunk)
    check_sequences("token_logprobs", mask, ids=ids)
    wanted = _real_ids(ids, mask, logits.shape[2])
    parts = [
        logp.gather(1, wanted[row, start : start + chunk, None]).squeeze(1)  # (positions,)
        for row, start, logp in _log_softmax(logits, mask, temperature, chunk)
    ]
    return _assemble("token_logprobs", "the log-probability", parts, mask)


def token_entropy(
    logits: Tensor, mask: Tensor, temperature: float = 1.0, chunk: int = 128
) -> Tensor:
    """Return the entropy −Σ_v p_v·log p_v of the next-token distribution of each position.

    How undecided the policy is: from 0 (one token is certain) to log(vocab). Its mean is S in
    equation 9 of Schulman et al. 2017 (PPO). A logit of −∞ counts as probability 0.

    Args:
        logits: ``(batch, completion, vocab)``.
        mask: Bool ``(batch, completion)``, true at response tokens.
        temperature: τ > 0 of the sampler.
        chunk: Positions of one row whose log-softmax is held at a time.

    Returns:
        ``(batch, completion)`` in nats, at least float32, 0 at padding.

    Raises:
        ValueError: as `token_logprobs`, without ids.
    """
    _check_logits("token_entropy", logits, mask, temperature, chunk)
    parts = [
        # 0 · log 0 is 0 by continuity but NaN by arithmetic, and so is its gradient.
        -vecdot(logp.exp(), logp.clamp(min=torch.finfo(logp.dtype).min))  # (positions,)
        for _, _, logp in _log_softmax(logits, mask, temperature, chunk)
    ]
    return _assemble("token_entropy", "the entropy", parts, mask)


def _log_softmax(
    logits: Tensor, mask: Tensor, temperature: float, chunk: int
) -> Iterator[tuple[int, int, Tensor]]:
    """Yield (row, first position, log-softmax ``(positions, vocab)``), padding read as zeros."""
    # One unbind and one split a row: slices would each allocate a gradient of all logits.
    for row, (scores, real) in enumerate(zip(logits.unbind(0), mask.unbind(0), strict=True)):
        for part, (piece, keep) in enumerate(
            zip(scores.split(chunk), real.split(chunk), strict=True)
        ):
            kept = torch.where(keep[:, None], piece, 0.0)  # (positions, vocab)
            yield row, part * chunk, log_softmax(at_least_float32(kept) / temperature, -1)


def _assemble(function: str, what: str, parts: list[Tensor], mask: Tensor) -> Tensor:
    whole = torch.where(mask, torch.cat(parts).view(mask.shape), 0.0)
    check_sequences(function, mask, **{what: whole})
    return whole


def _real_ids(ids: Tensor, mask: Tensor, vocab: int) -> Tensor:
    outside = mask & ((ids < 0) | (ids >= vocab))
    if outside.any():
        row, token = outside.nonzero()[0].tolist()
        raise ValueError(
            f"token_logprobs: id {ids[row, token].item()} at row {row}, token {token} is outside "
            f"the {vocab} ids of the logits"
        )
    return torch.where(mask, ids, 0)


def _check_logits(
    function: str, logits: Tensor, mask: Tensor, temperature: float, chunk: int
) -> None:
    check_positive(function, temperature=temperature, chunk=chunk)
    check_sequences(function, mask)
    if logits.ndim != 3 or logits.shape[:2] != mask.shape:
        raise ValueError(
            f"{function}: logits have shape {tuple(logits.shape)} and the mask "
            f"{tuple(mask.shape)}; they must be (batch, completion, vocab) and (batch, completion)"
        )
