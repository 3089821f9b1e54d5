"""The choices that decide how much memory a step needs."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

Stage = Literal["pretrain", "sft", "reward", "dpo", "ppo", "grpo", "generate"]
Method = Literal["full", "lora"]
Weights = Literal["float32", "bfloat16", "int8", "nf4"]
Compute = Literal["float32", "bfloat16"]
Optimizer = Literal["adamw", "adamw_8bit", "sgd"]
Attention = Literal["sdpa", "eager"]
Head = Literal["whole", "fused"]
Layout = Literal["shared", "copies"]
Targets = Literal["all-linear", "attention"]
Device = Literal["cuda", "cpu"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "stage": get_args(Stage),
    "method": get_args(Method),
    "weights": get_args(Weights),
    "compute": get_args(Compute),
    "optimizer": get_args(Optimizer),
    "attention": get_args(Attention),
    "head": get_args(Head),
    "layout": get_args(Layout),
    "targets": get_args(Targets),
    "device": get_args(Device),
}
_COUNTS = ("batch", "accumulation", "length", "lora_r")
_SAMPLING = ("ppo", "grpo", "generate")


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """One training step (or one generation), as far as memory is concerned.

    Attributes:
        stage: What is trained; ``"generate"`` only samples.
        method: Every weight, or a LoRA adapter on frozen weights.
        weights: How the base's weights are stored. ``"nf4"`` and ``"int8"`` count for the linear
            layers of the blocks; embedding, output layer and norms stay in `compute`.
        compute: Dtype of the activations. float32 weights with bfloat16 compute is autocast.
        optimizer: AdamW keeps two numbers a trained weight, in 8 bits one byte each, SGD none.
        batch: Rows of one forward pass. A row of ``"reward"`` and ``"dpo"`` is a pair.
        accumulation: Passes whose gradients are added up before an optimizer step. Rollouts
            sample ``batch * accumulation`` completions at once.
        length: Tokens of a row, prompt and completion together.
        new_tokens: Of these, how many are sampled (PPO, GRPO, generate).
        checkpointing: Keep only each block's input, and compute the rest again in the backward.
        lora_r: Rank of the adapter.
        targets: Which linear layers have one.
        attention: ``"eager"`` keeps the length x length scores; ``"sdpa"`` does not.
        head: ``"whole"`` builds the logits of all tokens; ``"fused"`` goes through them in tiles,
            as TRL's trainers do.
        layout: Where a stage needs more than one model (PPO: policy, critic, reference, reward
            model; DPO and GRPO: reference): ``"copies"``, or ``"shared"``: one base with adapters.
        reference: Whether DPO, PPO and GRPO compare with a reference (GRPO at β = 0 does not).
        device: Tells how large the temporaries of the fused head are.

    Raises:
        ValueError: a choice that is none, a size below 1, or choices that exclude each other.
    """

    stage: Stage = "sft"
    method: Method = "lora"
    weights: Weights = "nf4"
    compute: Compute = "bfloat16"
    optimizer: Optimizer = "adamw"
    batch: int = 8
    accumulation: int = 1
    length: int = 512
    new_tokens: int = 256
    checkpointing: bool = False
    lora_r: int = 16
    targets: Targets = "all-linear"
    attention: Attention = "sdpa"
    head: Head = "whole"
    layout: Layout = "shared"
    reference: bool = True
    device: Device = "cuda"

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            _require_choice(name, getattr(self, name), allowed)
        for name in _COUNTS:
            _require_count(name, getattr(self, name))
        if self.samples:
            _require_count("new_tokens", self.new_tokens)
            if self.new_tokens >= self.length:
                raise ValueError(
                    f"MemoryPlan: new_tokens={self.new_tokens} must be below length={self.length}, "
                    "which counts the prompt, too"
                )
        if self.method == "full" and self.trains:
            self._require_full()
        if self.weights == "bfloat16" and self.compute == "float32":
            raise ValueError("MemoryPlan: bfloat16 weights compute in bfloat16; set compute so")

    def _require_full(self) -> None:
        if self.quantized:
            raise ValueError(
                f"MemoryPlan: weights={self.weights!r} cannot be trained: quantized weights have "
                "no gradient. Use method='lora', or weights='bfloat16'"
            )
        if self.stage == "ppo" and self.layout == "shared":
            raise ValueError(
                "MemoryPlan: layout='shared' keeps the base frozen, so it needs method='lora'; "
                "full fine-tuning needs layout='copies'"
            )

    @property
    def quantized(self) -> bool:
        """Whether the base is stored in 4 or 8 bits."""
        return self.weights in ("nf4", "int8")

    @property
    def trains(self) -> bool:
        """Whether there is a backward pass."""
        return self.stage != "generate"

    @property
    def samples(self) -> bool:
        """Whether completions are sampled."""
        return self.stage in _SAMPLING

    @property
    def autocast(self) -> bool:
        """Whether weights are cast for each product."""
        return self.weights == "float32" and self.compute == "bfloat16"

    @property
    def rows(self) -> int:
        """Sequences of one forward pass: pairs count twice."""
        return self.batch * (2 if self.stage in ("reward", "dpo") else 1)

    @property
    def tokens(self) -> int:
        """Tokens of one forward pass."""
        return self.rows * self.length

    def __str__(self) -> str:
        """Return the choices in one line."""
        how = "full fine-tuning" if self.method == "full" else f"LoRA r={self.lora_r}"
        parts = [self.stage, how] if self.trains else [self.stage]
        parts += [f"{self.weights} weights", f"{self.compute} compute"]
        rows = "pairs" if self.stage in ("reward", "dpo") else "rows"
        parts.append(f"{self.batch} {rows} × {self.length} tokens")
        if self.accumulation > 1:
            parts.append(f"× {self.accumulation} passes")
        if self.trains:
            parts.append(self.optimizer)
            parts += ["checkpointing"] * self.checkpointing
        if self.stage == "ppo":
            parts.append("four models" if self.layout == "copies" else "one shared base")
        return ", ".join(parts)


def _require_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"MemoryPlan: {name}={value!r} is unknown; use one of {allowed}")


def _require_count(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"MemoryPlan: {name}={value!r} must be a whole number of at least 1")
