"""Floating-point operations of a run, and how long they take.

A product of a token with N weights takes 2N operations. A backward pass takes 2N more for the
gradient of the activations and 2N for that of the weights: hence 6ND for D tokens (Kaplan et al.
2020), and 4ND where the weights are frozen (LoRA). Attention adds, per token and block, 4 times
query width times length in the forward pass, counted without the causal half as PaLM's appendix
B does. Norms, softmax and activations are left out.
"""

from dataclasses import dataclass
from math import isfinite
from typing import Any

from ftkit.errors import SettingsError
from ftkit.models.shape import ModelShape
from ftkit.stages.costs.memory import adapter_parameters, weight_bytes
from ftkit.stages.costs.plan import MemoryPlan


@dataclass(frozen=True, slots=True)
class Work:
    """How much is computed.

    Attributes:
        sequences: Rows that pass the model in all: of pre-training and SFT the rows times epochs,
            of reward model and DPO the pairs, of PPO and GRPO the completions.
        update_epochs: Passes over each completion (PPO and GRPO).

    Raises:
        ValueError: a number below 1.
    """

    sequences: float
    update_epochs: int = 1

    def __post_init__(self) -> None:
        for name in ("sequences", "update_epochs"):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 1):
                raise ValueError(f"Work: {name}={value} must be at least 1")


@dataclass(frozen=True, slots=True)
class Hardware:
    """One accelerator, as its data sheet describes it.

    Attributes:
        name: What it is called.
        flops: Peak of dense bfloat16 (or float16) products, operations a second.
        bandwidth: Of its memory, bytes a second.
        memory_gb: Its memory.
        source: The data sheet.
    """

    name: str
    flops: float
    bandwidth: float
    memory_gb: float
    source: str


HARDWARE: dict[str, Hardware] = {
    card.name: card
    for card in (
        Hardware("H100 SXM", 989e12, 3.35e12, 80, "NVIDIA H100 data sheet, without sparsity"),
        Hardware("A100 SXM 80GB", 312e12, 2.039e12, 80, "NVIDIA A100 data sheet"),
        Hardware("RTX 4090", 165.2e12, 1.008e12, 24, "NVIDIA Ada white paper, float32 sums"),
        Hardware("L4", 121e12, 0.3e12, 24, "NVIDIA L4 data sheet, without sparsity"),
        Hardware("T4", 65e12, 0.32e12, 16, "NVIDIA T4 data sheet, float16"),
    )
}


def forward_flops(shape: ModelShape, length: float) -> float:
    """Return the operations of one token's forward pass in a row of `length` tokens."""
    return 2.0 * shape.multiplied + 4.0 * shape.layers * shape.query * length


def training_flops(shape: ModelShape, plan: MemoryPlan) -> float:
    """Return the operations of one token's training step: forward, backward, recomputation."""
    attention = 4.0 * shape.layers * shape.query * plan.length
    products, forward = 2.0 * shape.multiplied, forward_flops(shape, plan.length)
    adapter = adapter_parameters(shape, plan)
    again = forward - 2.0 * shape.vocab * shape.hidden + 2.0 * adapter
    if plan.method == "full":  # stops at the last layer, whose result nothing needs
        again -= 2.0 * shape.layers * shape.inner * shape.hidden
        return 3 * forward + plan.checkpointing * again
    return 2 * products + 3 * attention + 6.0 * adapter + plan.checkpointing * again


def stage_flops(source: Any, plan: MemoryPlan, work: Work) -> dict[str, float]:
    """Return the operations of a whole run by what they are spent on.

    Args:
        source: What `ModelShape.of` takes.
        plan: Stage, method and length of a row.
        work: How many rows.

    Returns:
        ``training``, and where the stage has them ``rollout`` (every token once through the
        policy), ``reference`` and ``reward model`` (forward passes), and ``critic`` (a model of
        its own that is trained, too). ``generate`` has ``rollout`` only.
    """
    shape = ModelShape.of(source)
    tokens = work.sequences * plan.length * (2 if plan.stage in ("reward", "dpo") else 1)
    forward = forward_flops(shape, plan.length) * tokens
    training = training_flops(shape, plan) * tokens * work.update_epochs
    parts = {"rollout": forward} if plan.samples else {}
    if plan.trains:
        parts["training"] = training
    if plan.stage in ("dpo", "ppo", "grpo") and plan.reference:
        parts["reference"] = forward
    if plan.stage == "ppo":
        parts["reward model"] = forward
        if plan.layout == "copies":
            parts["critic"] = forward + training
    return parts


def rule_of_thumb(parameters: float, tokens: float) -> float:
    """Return 6ND: operations of pre-training N parameters on D tokens."""
    return 6.0 * parameters * tokens


def gpu_hours(flops: float, hardware: Hardware, mfu: float) -> float:
    """Return the hours of one accelerator.

    Args:
        flops: Operations.
        hardware: Its peak counts.
        mfu: Model FLOPs utilization: the share of the peak that is reached, above 0, at most 1.

    Raises:
        SettingsError: an impossible share.
    """
    if not 0 < mfu <= 1:
        raise SettingsError(f"mfu={mfu}: the share of the peak must lie above 0 and at most at 1")
    return flops / (hardware.flops * mfu) / 3600


def implied_mfu(flops: float, hardware: Hardware, hours: float) -> float:
    """Return the share of the peak that so many hours of one accelerator mean."""
    if not hours > 0:
        raise SettingsError(f"hours={hours} must be above 0")
    return flops / (hardware.flops * hours * 3600)


def decode_seconds(source: Any, plan: MemoryPlan, hardware: Hardware, rows: int) -> float:
    """Return the least time for one new token in each of `rows` sequences, in seconds.

    Sampling reads every weight and the whole cache for each token, so the memory's bandwidth is
    the limit until the batch is large, and the share of the peak FLOPs is tiny.
    """
    shape = ModelShape.of(source)
    cache = 2 * 2 * shape.key_value * shape.layers * rows * plan.length / 2  # half full
    read = (weight_bytes(shape, plan) + cache) / hardware.bandwidth
    return max(read, forward_flops(shape, plan.length / 2) * rows / hardware.flops)
