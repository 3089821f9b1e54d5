"""Peak memory of a training step, by part and moment, from a model's config alone.

A step has moments, and the peak is the highest of them, not the sum of everything: activations
are largest before the first gradient exists, gradients when the last activation is gone. Not
counted: the CUDA context, the workspaces of its libraries, and the allocator's fragments.
"""

from dataclasses import dataclass
from typing import Any

from ftkit.models.shape import ModelShape
from ftkit.records.costs import MemoryEstimate, Moment
from ftkit.stages.costs import activations as act
from ftkit.stages.costs.plan import MemoryPlan

NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
"""4 bits, 8 a block of 64 for its scale, 32 a block of 256 scales (QLoRA, section 3)."""
_NF4_TABLES = (16 + 256) * 4 + 4  # bytes a layer: codebook, codebook of the scales, their mean
_ADAM_8BIT = 1 + 4 / 256  # bytes a state: the number, and a float32 scale a block of 256


def weight_bytes(shape: ModelShape, plan: MemoryPlan, *, head: bool = True) -> float:
    """Return the bytes of one copy of the base's weights.

    Args:
        shape: The model.
        plan: Says how weights are stored.
        head: Whether the copy has an output layer of its own; a model that scores has none.
    """
    dense = shape.parameters - (0 if head else shape.lm_head)
    if not plan.quantized:
        return act.width(plan.weights) * dense
    unquantized = act.width(plan.compute) * (dense - shape.linear)
    if plan.weights == "nf4":
        return shape.linear * NF4_BITS / 8 + shape.linears * _NF4_TABLES + unquantized
    scales = act.FLOAT32 * shape.lora_width / 2  # one an output row; about half the width
    return shape.linear + scales + unquantized


def adapter_parameters(shape: ModelShape, plan: MemoryPlan) -> int:
    """Return the weights of one LoRA adapter of `plan`; 0 for full fine-tuning."""
    if plan.method == "full":
        return 0
    all_linear = plan.targets == "all-linear"
    return plan.lora_r * (shape.lora_width if all_linear else shape.attention_lora_width)


def estimate(source: Any, plan: MemoryPlan | None = None) -> MemoryEstimate:
    """Return the memory of one step of `plan` on a model, without loading it.

    It is a later step than the first, so the optimizer's states are there.

    Args:
        source: What `ModelShape.of` takes: a known name, a config, a ``config.json``, a model.
        plan: The choices; by default `MemoryPlan`'s defaults.

    Raises:
        SettingsError: no shape can be read from `source`.
    """
    shape, plan = ModelShape.of(source), plan or MemoryPlan()
    return MemoryEstimate(
        model=shape.name,
        parameters=shape.parameters,
        plan=str(plan),
        moments=tuple(_moments(_Ledger(shape, plan))),
        notes=tuple(_notes(shape, plan)),
    )


@dataclass(frozen=True, slots=True)
class _Ledger:
    """What the moments are made of."""

    shape: ModelShape
    plan: MemoryPlan

    @property
    def separate(self) -> bool:
        return self.plan.layout == "copies" or self.plan.method == "full"

    @property
    def two(self) -> bool:
        """Whether two models are trained: PPO's policy and a critic of its own."""
        return self.plan.stage == "ppo" and self.separate

    @property
    def weights(self) -> float:
        """Bytes of the models that are trained, or carry what is trained."""
        policy = weight_bytes(self.shape, self.plan, head=self.plan.stage != "reward")
        return policy + self.two * weight_bytes(self.shape, self.plan, head=False)

    @property
    def frozen(self) -> float:
        """Bytes of what only scores: the reference, and PPO's reward model."""
        plan = self.plan
        compares = plan.reference and plan.stage in ("ppo", "dpo", "grpo")
        judges = plan.stage == "ppo"
        if self.separate:
            reference = weight_bytes(self.shape, plan)
            return compares * reference + judges * weight_bytes(self.shape, plan, head=False)
        return judges * (1 + compares) * self.trained_width * self.adapter  # DPO: switched off

    @property
    def trained_width(self) -> int:
        plan = self.plan
        pure = plan.method == "full" or plan.autocast
        return act.width(plan.weights if pure and not plan.quantized else plan.compute)

    @property
    def adapter(self) -> int:
        """Weights of one adapter."""
        return adapter_parameters(self.shape, self.plan) if self.plan.trains else 0

    @property
    def trained(self) -> int:
        """How many weights are trained, of both models where there are two."""
        if not self.plan.trains:
            return 0
        if self.plan.method == "lora":
            return self.adapter * (1 + self.two)
        headless = self.shape.parameters - self.shape.lm_head
        policy = headless if self.plan.stage == "reward" else self.shape.parameters
        return policy + self.two * headless

    @property
    def gradients(self) -> float:
        return self.trained_width * self.trained

    @property
    def states(self) -> float:
        one = {"adamw": self.trained_width, "adamw_8bit": _ADAM_8BIT, "sgd": 0.0}
        return 2 * one[self.plan.optimizer] * self.trained

    @property
    def head_gradient(self) -> float:
        """Gradient of the output layer: the first weight gradient of a backward pass."""
        if self.plan.method == "lora" or self.plan.stage == "reward":
            return 0.0
        return self.trained_width * self.shape.vocab * self.shape.hidden

    @property
    def casts(self) -> float:
        """16-bit copies of float32 weights: autocast keeps them for the backward pass."""
        return 2.0 * self.shape.linear * (1 + self.two) if self.plan.autocast else 0.0

    @property
    def unpacked(self) -> float:
        """The one quantized layer that is unpacked right now."""
        return self.shape.largest_linear * act.width(self.plan.compute) * self.plan.quantized

    def lasting(self) -> dict[str, float]:
        """Return what lies there at every moment."""
        return {
            "weights": self.weights,
            "frozen models": self.frozen,
            "adapters": self.trained_width * self.adapter * (1 + self.two),
            "optimizer": self.states,
        }


def _moments(ledger: _Ledger) -> list[Moment]:
    plan, lasting = ledger.plan, ledger.lasting()
    moments = []
    if plan.samples:
        moments.append(_rollout(ledger, lasting))
    if plan.stage in ("ppo", "grpo") or (plan.stage == "dpo" and plan.reference):
        moments.append(_scoring(ledger, lasting))
    if plan.trains:
        older = ledger.gradients if plan.accumulation > 1 else 0.0
        moments += [_loss(ledger, lasting, older), _backward(ledger, lasting, older)]
    return moments


def _rollout(ledger: _Ledger, lasting: dict[str, float]) -> Moment:
    shape, plan = ledger.shape, ledger.plan
    rows, prompt = plan.batch * plan.accumulation, plan.length - plan.new_tokens
    cache, draw = act.cache_bytes(shape, plan, rows), act.sampling_bytes(shape, rows)
    # While the prompt passes, the cache is not full yet, and there are no probabilities.
    early, passing = cache * prompt / plan.length, act.forward_bytes(shape, plan, rows * prompt)
    parts = {"activations": 0.0, "logits": draw, "KV cache": cache}
    if early + passing > cache + draw:
        parts = {"activations": passing, "logits": 0.0, "KV cache": early}
    return Moment("rollout", {**lasting, **parts, "unpacked or cast": ledger.unpacked})


def _scoring(ledger: _Ledger, lasting: dict[str, float]) -> Moment:
    """Passes without gradient; in DPO the policy's own pass waits for them."""
    shape, plan = ledger.shape, ledger.plan
    waits = plan.stage == "dpo"
    parts = {
        "activations": act.forward_bytes(shape, plan, plan.tokens)
        + waits * act.kept_bytes(shape, plan),
        "logits": act.loss_bytes(shape, plan, copies=2 + waits),
        "unpacked or cast": ledger.unpacked,
    }
    return Moment("scoring", {**lasting, **parts})


def _loss(ledger: _Ledger, lasting: dict[str, float], older: float) -> Moment:
    """The start of the backward pass: every activation, the logits, no new gradient yet."""
    shape, plan = ledger.shape, ledger.plan
    parts = {
        "gradients": older,
        "activations": (1 + ledger.two) * act.kept_bytes(shape, plan),
        "logits": act.loss_bytes(shape, plan),
        "unpacked or cast": ledger.casts,
    }
    return Moment("loss", {**lasting, **parts})


def _backward(ledger: _Ledger, lasting: dict[str, float], older: float) -> Moment:
    """The highest point between the last block and the embedding."""
    shape, plan = ledger.shape, ledger.plan
    gradients, kept = max(_points(ledger, older), key=sum)
    # Recomputed blocks cast their weights again, one block at a time.
    casts = ledger.casts / (shape.layers if plan.checkpointing else 1)
    parts = {
        "gradients": gradients,
        "activations": kept,
        "unpacked or cast": casts + ledger.unpacked,
    }
    return Moment("backward", {**lasting, **parts})


def _points(ledger: _Ledger, older: float) -> list[tuple[float, float]]:
    """Gradients and activations at three points of the backward pass.

    With older gradients, new ones are added to them one after the other; only the output layer's
    waits, where it is tied, for the embedding's.
    """
    points = [_last_block(ledger), _first_block(ledger), _embedding(ledger)]
    if not older:
        return points
    head = ledger.head_gradient
    waits = head if ledger.shape.tied else 0.0
    new = (head, waits, 3 * waits or head)
    return [(older + more, kept) for more, (_, kept) in zip(new, points, strict=True)]


def _last_block(ledger: _Ledger) -> tuple[float, float]:
    """Gradients and activations where the backward pass enters the blocks."""
    shape, plan = ledger.shape, ledger.plan
    inside = act.recomputed_bytes(shape, plan) + act.backward_bytes(shape, plan)
    return ledger.head_gradient, (1 + ledger.two) * act.kept_bytes(shape, plan) + inside


def _first_block(ledger: _Ledger) -> tuple[float, float]:
    """Gradients and activations where it leaves them; an untied embedding's are missing."""
    shape, plan = ledger.shape, ledger.plan
    full = plan.method == "full"
    missing = 0 if shape.tied or not full else ledger.trained_width * shape.embedding
    inside = act.block_bytes(shape, plan) + act.backward_bytes(shape, plan)
    return ledger.gradients - missing, inside


def _embedding(ledger: _Ledger) -> tuple[float, float]:
    """The end: every gradient, and of a tied embedding the two halves and their sum."""
    doubled = 2 * ledger.head_gradient if ledger.shape.tied else 0.0
    return ledger.gradients + doubled, 0.0


def _notes(shape: ModelShape, plan: MemoryPlan) -> list[str]:
    notes = []
    if shape.experts:
        notes.append(
            "a mixture of experts: its expert weights are counted unquantized and without "
            "adapters, and activations as if tokens were spread evenly"
        )
    if not shape.gated:
        notes.append("an MLP without gate: activations are counted by a simpler rule")
    if plan.device == "cuda":
        notes.append("without the CUDA context and the allocator's fragments: keep 1 GB free")
    return notes
