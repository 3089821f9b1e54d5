"""Make the right weights trainable for one run, and put every one of them back afterwards."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from ftkit.algos.spectrum import singular_values
from ftkit.errors import SettingsError
from ftkit.models import Loaded
from ftkit.stages.adapters import fresh_base, match_compute_dtype
from ftkit.stages.forgetting.strategies import Strategy


@dataclass(frozen=True)
class Prepared:
    """A model ready for one run.

    Attributes:
        model: The base's own model, or a `PeftModel` around it.
        start: Copies of the base's weights that the run may change, by name; empty for LoRA.
    """

    model: Any
    start: Mapping[str, Tensor]

    def trained(self) -> int:
        """How many weights the run may change."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def extra_bytes(self, strategy: Strategy) -> int:
        """What the strategy itself keeps beside the base: adapters, or copies of the start.

        The copies that only serve to put the weights back are the study's, and not counted.
        """
        if strategy.trains == "lora":
            return sum(p.nbytes for p in self.model.parameters() if p.requires_grad)
        anchor = sum(t.nbytes for t in self.start.values()) if strategy.l2 else 0
        copy = sum(p.nbytes for p in self.model.parameters()) if strategy.kl else 0
        return anchor + copy


@contextmanager
def prepared(base: Loaded, strategy: Strategy, seed: int) -> Iterator[Prepared]:
    """Yield what `strategy` trains; afterwards the base is as it was, also after an exception.

    Raises:
        SettingsError: the strategy wants more layers than there are, or trains quantized weights.
    """
    flags = [(p, p.requires_grad) for p in base.model.parameters()]
    start: dict[str, Tensor] = {}
    try:
        if strategy.trains == "lora":
            yield Prepared(_with_adapter(base, strategy.size, seed), start)
        else:
            start |= _chosen(base, strategy)
            yield Prepared(base.model, start)
    finally:
        named = dict(base.model.named_parameters())
        with torch.no_grad():
            for name, old in start.items():
                named[name].copy_(old)
        fresh_base(base.model)
        base.model.eval()
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
            parameter.grad = None


def require_trainable(base: Loaded, strategies: Sequence[Strategy]) -> None:
    """Refuse what `base` cannot train, before the first run begins.

    Raises:
        SettingsError: a strategy trains the base's own weights, and these are quantized or halves;
            or it wants more layers than there are.
    """
    count = len(layers(base.model))
    for strategy in strategies:
        if strategy.trains in ("all", "last") and not _full_precision(base):
            raise SettingsError(
                f"strategy {strategy.name!r} trains the base's own weights, which are "
                f"{base.card.quantization or base.card.compute_dtype} here: load it with "
                "quantization=None and compute_dtype='float32', or use LoRA strategies only"
            )
        if strategy.trains == "last" and strategy.size > count:
            raise SettingsError(
                f"strategy {strategy.name!r} trains {strategy.size} layers; the model has {count}"
            )


def layers(model: nn.Module) -> nn.ModuleList:
    """Return the decoder layers: the longest list of modules in the model."""
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList)]
    if not lists:
        raise SettingsError(f"{type(model).__name__} has no list of layers, so no 'last' ones")
    return max(lists, key=len)


def watched_matrices(model: nn.Module) -> list[str]:
    """Return the names of the first and the last linear layer in the middle decoder layer.

    In Llama-like models these are the attention's query and the MLP's way down.
    """
    block = layers(model)[len(layers(model)) // 2]
    inside = {id(module) for module in block.modules()}
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and id(module) in inside
    ]
    return [names[0], names[-1]]


def spectra(
    model: nn.Module, start: Mapping[str, Tensor], names: Sequence[str]
) -> dict[str, list[float]]:
    """Return the singular values of the change of each matrix that did change.

    Args:
        model: The base's model, with or without LoRA layers in it, after training.
        start: The base's weights before training, by name.
        names: Of linear layers.
    """
    found = {}
    for name in names:
        update = _update(model.get_submodule(name), start.get(f"{name}.weight"))
        if update is not None and update.any() and update.isfinite().all():
            found[name] = singular_values(update).tolist()
    return found


def _update(layer: Any, before: Tensor | None) -> Tensor | None:
    """What training changed in the matrix ``(out, in)``."""
    with torch.no_grad():
        if hasattr(layer, "get_delta_weight"):
            delta: Tensor = layer.get_delta_weight(layer.active_adapters[0])
            return delta
        return None if before is None else layer.weight - before


def _chosen(base: Loaded, strategy: Strategy) -> dict[str, Tensor]:
    """Let only the strategy's weights be trained; return copies of them."""
    model = base.model
    if strategy.trains == "nothing":
        wanted: set[int] = set()
    else:
        parts = [model] if strategy.trains == "all" else list(layers(model))[-strategy.size :]
        wanted = {id(p) for part in parts for p in part.parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in wanted)
    return {n: p.detach().clone() for n, p in model.named_parameters() if id(p) in wanted}


def _with_adapter(base: Loaded, rank: int, seed: int) -> Any:
    torch.manual_seed(seed)
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,  # as Biderman et al. 2024 advise: the same scale at every rank
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(fresh_base(base.model), config)
    match_compute_dtype(model, base)
    return model


def _full_precision(base: Loaded) -> bool:
    return base.card.quantization is None and base.card.compute_dtype == "float32"
