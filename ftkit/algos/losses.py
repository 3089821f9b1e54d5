"""Cross entropy of next-token prediction, token by token.

Left out: label smoothing and class weights, which no stage of ftkit uses.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ftkit.algos.masked import masked_mean


def token_losses(logits: Tensor, input_ids: Tensor) -> Tensor:
    """Return the cross entropy of each token given the tokens before it.

    The output at position t predicts the token at t + 1 (shift by one), so the last output is
    dropped and the first token has no loss.

    Args:
        logits: ``(batch, time, vocab)``, any floating dtype; computed in float32.
        input_ids: ``(batch, time)``.

    Returns:
        ``(batch, time - 1)`` in nats; entry t belongs to ``input_ids[:, t + 1]``.
    """
    predicted = logits[:, :-1].float().flatten(0, 1)  # (batch · (time-1), vocab)
    losses = cross_entropy(predicted, input_ids[:, 1:].flatten(), reduction="none")
    return losses.view(input_ids.shape[0], -1)


def causal_lm_loss(logits: Tensor, input_ids: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of a causal language model: the mean over labels other than -100.

    Args:
        logits: ``(batch, time, vocab)``.
        input_ids: ``(batch, time)``.
        labels: ``(batch, time)``, ``input_ids`` where trained and -100 elsewhere, not shifted.

    Raises:
        ValueError: no label is trained.
    """
    return masked_mean(token_losses(logits, input_ids), (labels[:, 1:] != -100).to(torch.bool))
