"""What merging an adapter into the weights costs: nothing but rounding, which 4 bits have a lot of.

LoRA's W + (alpha/r)·B·A can be added into W once, and taken off again. In float32 both are exact to
rounding. In NF4 the sum is rounded to 16 levels a block again, and most of a small update falls
between two levels. PEFT merges; here it is only measured, and the base is put back bit for bit.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ftkit.errors import SettingsError
from ftkit.models.lora import tuner_layers


@dataclass(frozen=True, slots=True)
class MergeErrors:
    """Differences between the logits of one batch, as root mean squares unless named otherwise.

    Attributes:
        effect: Adapter on against adapter off: what was learned.
        merged: Merged against adapter beside the weights.
        unmerged: Merged and taken off again against the base that never had an adapter.
        merged_max: The largest difference behind `merged`.
        largest: The largest logit, for scale.
    """

    effect: float
    merged: float
    unmerged: float
    merged_max: float
    largest: float

    @property
    def relative(self) -> float:
        """`merged_max` as a share of the largest logit."""
        return self.merged_max / self.largest

    @property
    def lost(self) -> float:
        """`merged` as a share of `effect`: how much of what was learned the merge blurs."""
        return self.merged / self.effect


def merge_errors(model: Any, input_ids: Tensor) -> MergeErrors:
    """Merge the active adapter, take it off again, and compare the logits of each state.

    Args:
        model: A `PeftModel` with one LoRA adapter, trained (a new one changes nothing). All
            weights are as before at the end.
        input_ids: ``(batch, time)`` without padding.

    Raises:
        SettingsError: no LoRA layers, an adapter that is merged already, or one that does nothing.
    """
    found = list(tuner_layers(model))
    if not found or any(layer.merged for layer in found):
        raise SettingsError(
            "merge_errors needs a PeftModel whose adapter is not merged; call "
            "model.unmerge_adapter(), or train one first"
        )
    beside = _logits(model, input_ids)
    with model.disable_adapter():
        bare = _logits(model, input_ids)
    if torch.equal(beside, bare):
        raise SettingsError("the adapter changes no logit, so there is nothing to merge: train it")
    with _weights_kept(found), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*rounding errors")  # they are what we measure
        model.merge_adapter()
        merged = _logits(model, input_ids)
        model.unmerge_adapter()
        with model.disable_adapter():
            unmerged = _logits(model, input_ids)
    return MergeErrors(
        effect=_rms(beside - bare),
        merged=_rms(merged - beside),
        unmerged=_rms(unmerged - bare),
        merged_max=float((merged - beside).abs().max()),
        largest=float(beside.abs().max()),
    )


@contextmanager
def _weights_kept(found: list[Any]) -> Iterator[None]:
    """Put back every weight below the LoRA layers, with what bitsandbytes hangs on it."""
    bases = [layer.get_base_layer() for layer in found]
    weights = [(base, base.weight, base.weight.data.clone(), vars(base.weight).copy())
               for base in bases]  # fmt: skip
    try:
        yield
    finally:
        for layer in found:
            layer.merged_adapters.clear()
        for base, weight, data, attributes in weights:
            weight.data = data
            vars(weight).update(attributes)
            base.weight = weight
            if "quant_state" in attributes:
                base.quant_state = weight.quant_state


def _logits(model: Any, input_ids: Tensor) -> Tensor:
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits: Tensor = model(input_ids=input_ids, use_cache=False).logits
    finally:
        model.train(was_training)
    return logits.float()


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
