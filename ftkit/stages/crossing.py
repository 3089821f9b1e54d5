"""Measure what context of other documents does in packed blocks: to the loss, to the gradient.

The same tokens go through the same model twice. Once as pre-training sees them: a position may
look at everything before it in its block. Once with ``position_ids`` that begin anew with each
document, by which transformers confines attention to it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ftkit.algos import Packed, document_positions, sees_other_document, token_losses
from ftkit.errors import SettingsError
from ftkit.records import CrossingEffect


def crossing_effect(model: Any, packed: Packed, *, batch_size: int = 4) -> CrossingEffect:
    """Return losses and gradients of `packed` with and without context across documents.

    Args:
        model: A causal language model, e.g. ``trainer.model``; its trainable parameters are those
            whose gradient is taken. It is left as it was, ``.grad`` included.
        packed: The blocks to measure on, from `ftkit.algos.group_text`.
        batch_size: Blocks a forward pass; changes memory only.

    Raises:
        SettingsError: the model has no trainable parameter.
    """
    if not any(p.requires_grad for p in model.parameters()):
        raise SettingsError(
            "the model has no trainable parameter to take the gradient of: give trainer.model, "
            "with its adapter"
        )
    plain = torch.arange(packed.input_ids.shape[1]).expand_as(packed.input_ids)
    was_training = model.training
    model.eval()  # no dropout: nothing but the context differs
    try:
        losses, gradient = _measure(model, packed.input_ids, plain, batch_size)
        positions = document_positions(packed.document_ids)
        alone, alone_gradient = _measure(model, packed.input_ids, positions, batch_size)
    finally:
        model.train(was_training)
    return CrossingEffect(
        positions=positions.numpy(),
        crossing=sees_other_document(packed.document_ids).numpy(),
        packed=losses.numpy(),
        alone=alone.numpy(),
        packed_gradient=gradient.norm().item(),
        alone_gradient=alone_gradient.norm().item(),
        difference=(gradient - alone_gradient).norm().item(),
        cosine=torch.cosine_similarity(gradient, alone_gradient, dim=0).item(),
    )


def _measure(
    model: nn.Module, input_ids: Tensor, position_ids: Tensor, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Losses ``(blocks, block_size - 1)``, and the gradient of their mean in one vector."""
    device = next(model.parameters()).device
    parameters = [p for p in model.parameters() if p.requires_grad]
    found, total = [], [torch.zeros_like(p, dtype=torch.float32) for p in parameters]
    predictions = input_ids.shape[0] * (input_ids.shape[1] - 1)
    batches = zip(input_ids.split(batch_size), position_ids.split(batch_size), strict=True)
    for ids, places in ((ids.to(device), places.to(device)) for ids, places in batches):
        logits = model(input_ids=ids, position_ids=places, use_cache=False).logits
        losses = token_losses(logits, ids)
        parts = torch.autograd.grad(losses.sum() / predictions, parameters)
        for kept, part in zip(total, parts, strict=True):
            kept += part
        found.append(losses.detach().cpu())
    # Millions of small squares are added below, too many for float32.
    return torch.cat(found), torch.cat([part.flatten().double().cpu() for part in total])
