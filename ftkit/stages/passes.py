"""The passes of a TRL trainer, without the work that reaches neither its loss nor a gradient.

On a CPU TRL sends every position of a batch through the LM head, with a label or without (on a GPU
only those with one): half of the time of SFT on short answers. Padding is read along, and so is,
row by row, the beginning that a chat template gives them all. Here none of that is. Losses, metrics
and gradients are TRL's to rounding; see `tests/stages/test_passes.py`.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from torch import Tensor

from ftkit.models.hooks import is_hooked
from ftkit.models.lean_lora import lean
from ftkit.models.lora import other_forwards
from ftkit.models.packed_passes import packing


def shorten(trainer: Any) -> None:
    """Let `trainer` make its passes so, from now on.

    Nothing is changed outside the passes themselves, so an interrupt leaves nothing behind. Where
    layers are run again in the backward pass (gradient checkpointing), or the model is compiled,
    passes stay as they are.

    Args:
        trainer: A TRL trainer of a causal model or of a sequence classifier, with LoRA or without.
    """
    own = trainer.compute_loss_context_manager
    trainer.compute_loss_context_manager = partial(_short, own, trainer)


@contextmanager
def _short(own: Any, trainer: Any) -> Iterator[None]:
    model = _inner(trainer.model)
    with own():
        if model.is_activation_checkpointing or trainer.args.torch_compile:
            yield
            return
        with lean(model), other_forwards([model], [partial(_forward, model, model.forward)]):
            yield


def _inner(model: Any) -> Any:
    """Return the transformers model in PEFT's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _forward(
    model: Any, plain: Any, *args: Any, labels: Tensor | None = None, **inputs: Any
) -> Any:
    """`plain`, shorter where numbers at padding reach nobody: where TRL asks for losses of tokens,
    or a row gets one score. All logits (for label smoothing, or `predict`) are the model's own."""
    losses = inputs.get("fused_lm_head")
    if not losses and model.get_output_embeddings() is not None:
        return plain(*args, labels=labels, **inputs)
    with packing(model.base_model):
        shifted = inputs.get("shift_labels") is not None
        plainly = losses and not shifted and not is_hooked(model.base_model)
        if plainly and labels is not None and labels.device.type == "cpu":
            return _labelled_only(model, plain, *args, labels=labels, **inputs)
        return plain(*args, labels=labels, **inputs)


def _labelled_only(model: Any, plain: Any, *args: Any, labels: Tensor, **inputs: Any) -> Any:
    """Send only positions with a label through the LM head."""
    labels = labels[:, 1:]
    wanted = labels != -100
    with _keeping(model.base_model, wanted):
        outputs = plain(*args, shift_labels=labels[wanted][None], **inputs)
    return _spread(outputs, wanted)


def _keeping(decoder: Any, wanted: Tensor) -> AbstractContextManager[None]:
    """Let `decoder` return the states ``(1, labelled)`` that predict the `wanted` tokens."""
    plain = decoder.forward

    def forward(*args: Any, **inputs: Any) -> Any:
        with other_forwards([decoder], [plain]):  # what it reads on the way is not the batch
            outputs = plain(*args, **inputs)
        outputs.last_hidden_state = outputs.last_hidden_state[:, :-1][wanted][None]
        return outputs

    return other_forwards([decoder], [forward])


def _spread(outputs: Any, wanted: Tensor) -> Any:
    """Put what TRL found for ``(1, labelled)`` tokens into ``(batch, time − 1)``, 0 elsewhere."""
    for name, value in outputs.items():
        if isinstance(value, Tensor) and value.dim() == 2:
            outputs[name] = value.new_zeros(wanted.shape).masked_scatter(wanted, value)
    return outputs
