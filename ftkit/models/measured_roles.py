"""`role_map`: what every algorithm would hold in memory, measured on the base that is loaded.

One base: the bytes of its own weights, and of real adapters and heads made through `Roles`. Full
copies are not made but counted from the model's shape, in the base's compute dtype. Left out:
gradients, optimizer states and activations; `ftkit.stages.costs` plans those.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn

from ftkit.errors import SettingsError
from ftkit.models.loading import Loaded
from ftkit.models.lora import adapter_parameters, read_adapter, strip_adapters
from ftkit.models.memory import memory_mb
from ftkit.models.quantize import method_of
from ftkit.models.roles import ATTENTION, Roles
from ftkit.models.shape import ModelShape
from ftkit.records.algorithm_roles import Head
from ftkit.records.role_map import Part, RoleMap


def role_map(
    base: Loaded | Roles,
    *,
    lora_r: int = 16,
    target_modules: tuple[str, ...] | Literal["all-linear"] = ATTENTION,
) -> RoleMap:
    """Return which models, heads and adapters each algorithm holds on `base`, and their bytes.

    A `Loaded` base gets a policy, its frozen copy as reference and a reward model for the time of
    the measurement, and is then as it was before: same weights, mode and flags, no adapter.

    Args:
        base: From `ftkit.load`, without adapters; or your own `Roles`, which stay as they are and
            are measured with the adapters that they have.
        lora_r: Rank of the adapters to measure; ignored for `Roles`.
        target_modules: Layers with adapters; ignored for `Roles`.

    Raises:
        SettingsError: a base that carries adapters, roles without a reward model, or an adapter
            that does not fit the base.
    """
    if isinstance(base, Roles):
        return _measure(base)
    carried = getattr(base.model, "peft_config", None)
    if carried:
        raise SettingsError(
            f"the base carries the adapter {min(carried)!r}, which measuring would remove; build "
            "models.Roles(base) with it, add_reward(), and pass those"
        )
    with _left_as_it_was(base.model):
        return _measure(_all_roles(base, lora_r, target_modules))


def _all_roles(
    base: Loaded, lora_r: int, target_modules: tuple[str, ...] | Literal["all-linear"]
) -> Roles:
    """Return policy, reference and reward, as after SFT: the reference is an adapter of its own."""
    first = Roles(base, start="new", lora_r=lora_r, target_modules=target_modules)
    start = read_adapter(first.model, "policy")
    roles = Roles(base, start=start, lora_r=lora_r, target_modules=target_modules)
    roles.add_reward()
    return roles


def _measure(roles: Roles) -> RoleMap:
    if roles.score_head is None:
        raise SettingsError("these roles have no reward model to measure; call add_reward() first")
    causal, facts = roles.model.get_base_model(), roles.facts
    everything = nn.ModuleList([roles.model, roles.value_head, roles.score_head])
    width = facts.compute_dtype.itemsize
    return RoleMap(
        model=facts.mark.name or ModelShape.of(causal).name,
        quantization=method_of(causal) or "",
        parts=tuple(_parts(roles)),
        whole=_bytes(everything),
        copy_dtype=str(facts.compute_dtype).removeprefix("torch."),
        copies={head: width * count for head, count in _copies(ModelShape.of(causal)).items()},
    )


def _parts(roles: Roles) -> Iterator[Part]:
    yield Part("base", "base", round(roles.facts.memory_mb * 1e6))
    for name in ("policy", "reference", "reward"):
        weights = [parameter for _, parameter in adapter_parameters(roles.model, name)]
        if weights:
            yield Part(name, "adapter", _size(weights))
    for name, head in (("value head", roles.value_head), ("score head", roles.score_head)):
        if head is not None:
            yield Part(name, "head", _size(head.parameters()))


def _copies(shape: ModelShape) -> dict[Head, int]:
    """Return the weights of a full copy; one that judges has its head in place of the LM head."""
    body = shape.parameters - shape.lm_head
    return {
        "LM head": shape.parameters,
        "value head": body + shape.hidden + 1,
        "score head": body + shape.hidden,
    }


def _size(weights: Iterable[nn.Parameter]) -> int:
    return sum(weight.numel() * weight.element_size() for weight in weights)


def _bytes(module: nn.Module) -> int:
    return round(memory_mb(module) * 1e6)


@contextmanager
def _left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Take off what the block puts on `model`; restore mode, flags and checkpointing."""
    training = model.training
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    checkpointing = [m for m in model.modules() if getattr(m, "gradient_checkpointing", False)]
    try:
        yield
    finally:
        strip_adapters(model)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        for module in checkpointing:
            module.gradient_checkpointing = True
        model.train(training)
