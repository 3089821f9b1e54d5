"""A decoder that packs the padded batches it is given, for a trainer that calls it its own way."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from ftkit.models import packed_rows
from ftkit.models.hooks import is_hooked
from ftkit.models.lora import other_forwards

_BATCH = {"input_ids", "attention_mask", "return_dict"}


@contextmanager
def packing(decoder: Any) -> Iterator[None]:
    """Read padded batches as `packed_rows.read` does during the block, where nobody could tell.

    States at real tokens are the same to rounding, forward and backward; those at padding have no
    meaning. A pass is as it was if it asks for more than the last states, is padded on the left
    (its positions would differ), draws random numbers a place (dropout), or is watched or changed
    by hooks on the decoder or inside it, such as NEFTune's.

    Args:
        decoder: The model without its LM head.
    """
    plain = decoder.forward

    def forward(*args: Any, **inputs: Any) -> Any:
        named = {"input_ids": args[0], **inputs} if len(args) == 1 else inputs
        if len(args) > 1 or not (_plain(named) and _unwatched(decoder)):
            return plain(*args, **inputs)
        ids, mask = named["input_ids"], named["attention_mask"].bool()
        with other_forwards([decoder], [plain]):
            states = packed_rows.packed(decoder, ids, mask)
        if states is None:
            return plain(*args, **inputs)
        return BaseModelOutputWithPast(last_hidden_state=states)

    with other_forwards([decoder], [forward]):
        yield


def _plain(inputs: dict[str, Any]) -> bool:
    """Whether the last states of a batch padded on the right are all that is wanted."""
    mask = inputs.get("attention_mask")
    # `is False`: a tensor among the arguments has no truth value.
    others = (value for name, value in inputs.items() if name not in _BATCH)
    return (
        isinstance(inputs.get("input_ids"), Tensor)
        and isinstance(mask, Tensor)
        and mask.dim() == 2
        and inputs.get("return_dict") is not False
        and all(value is None or value is False for value in others)
        and bool((mask[:, 1:] <= mask[:, :-1]).all())
    )


def _unwatched(decoder: Any) -> bool:
    config = decoder.config
    return not (
        getattr(config, "output_router_logits", False)
        or config.output_hidden_states
        or config.output_attentions
        or (decoder.training and _draws(config))
        or any(_is_dropout(part) or is_hooked(part) for part in decoder.modules())
    )


def _draws(config: Any) -> bool:
    """Whether layers may draw random numbers by a function, as OPT's do, which no module shows."""
    named = (value for name, value in vars(config).items() if "drop" in name or "jitter" in name)
    return any(isinstance(value, int | float) and value > 0 for value in named)


def _is_dropout(part: nn.Module) -> bool:
    return part.training and isinstance(part, nn.Dropout) and part.p > 0
