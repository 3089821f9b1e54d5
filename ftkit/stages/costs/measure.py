"""The peak of a real step, measured, for comparison with what was planned.

On CUDA it is the allocator's own peak. On a CPU it is counted by torch's profiler, which sees
every allocation and release of the CPU allocator, temporaries inside kernels included. The
resident size of the process is the same number with noise: over a full fine-tuning step of
SmolLM2-135M it rose by 769 MB where the profiler counted 765 MB, but only with glibc told to
return every block at once (MALLOC_MMAP_THRESHOLD_), which a running notebook cannot do any more.
"""

import gc
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from ftkit.errors import SettingsError
from ftkit.models import Loaded, memory_mb
from ftkit.models.quantize import method_of
from ftkit.stages.adapters import (
    fresh_base,
    match_compute_dtype,
    warn_of_trained_adapter,
)
from ftkit.stages.costs.plan import MemoryPlan


@dataclass(frozen=True, slots=True)
class Measured:
    """What a step held, in bytes.

    Attributes:
        before: Weights, adapters and optimizer states that were there before the step.
        rise: How much more there was at the highest moment.
    """

    before: float
    rise: float

    @property
    def peak(self) -> float:
        """The most that was held at any moment."""
        return self.before + self.rise


def peak_of(step: Callable[[], Any], model: nn.Module, others: Iterable[Tensor] = ()) -> Measured:
    """Run `step` once and return its peak.

    Args:
        step: Called without arguments. Run it once before, so that lasting tensors are there.
        model: Whose weights count as held before.
        others: More tensors that are there before, such as optimizer states.
    """
    before = 1e6 * memory_mb(model) + sum(t.numel() * t.element_size() for t in others)
    gc.collect()
    device = next(model.parameters()).device
    if device.type == "cuda":
        return Measured(before, _cuda_rise(step, device))
    return Measured(before, _cpu_rise(step))


def _cuda_rise(step: Callable[[], Any], device: torch.device) -> float:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    start = torch.cuda.memory_allocated(device)
    step()
    torch.cuda.synchronize(device)
    return float(torch.cuda.max_memory_allocated(device) - start)


def _cpu_rise(step: Callable[[], Any]) -> float:
    from torch.profiler import ProfilerActivity, profile

    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else two lines a run in the notebook
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = profiler.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    held = peak = 0
    for _, size in changes:
        held += size
        peak = max(peak, held)
    return float(peak)


def measure(base: Loaded, plan: MemoryPlan) -> Measured:
    """Do what `plan` says on a loaded model and return the peak of its second step.

    The learning rate is 0 and the adapter is taken out again, so the base's weights stay as they
    are. An adapter that is there already is taken out first, with a warning if it is trained.

    Args:
        base: Loaded as `plan` says: its weights' format and compute dtype.
        plan: Of stage ``"pretrain"``, ``"sft"`` or ``"generate"``, with one pass a step and the
            whole logits.

    Raises:
        SettingsError: `base` was loaded otherwise, or the plan is of another kind.
    """
    _require_measurable(base, plan)
    ids = (
        torch.arange(plan.batch * plan.length, device=base.model.device)
        % base.model.config.vocab_size
    )
    ids = ids.view(plan.batch, plan.length)
    if plan.stage == "generate":
        return _measured_sampling(base, plan, ids)
    model = _prepared(base, plan)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, fused=True)

    def step() -> None:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    try:
        step()
        states = [v for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v)]
        return peak_of(step, model, states)
    finally:
        optimizer.zero_grad(set_to_none=True)
        fresh_base(base.model).eval()


def _require_measurable(base: Loaded, plan: MemoryPlan) -> None:
    held = method_of(base.model) or base.card.compute_dtype
    if (held, base.card.compute_dtype) != (plan.weights, plan.compute):
        raise SettingsError(
            f"the plan has {plan.weights} weights and computes in {plan.compute}, but the model "
            f"was loaded with {held} weights and computes in {base.card.compute_dtype}"
        )
    unusual = (plan.accumulation, plan.head, plan.optimizer, plan.attention, plan.targets)
    if plan.stage not in ("pretrain", "sft", "generate") or unusual != _USUAL:
        raise SettingsError(
            "measure runs one pass of pretrain, sft or generate with whole logits, AdamW, sdpa and "
            "all linear layers; for anything else give your own step to peak_of"
        )


_USUAL = (1, "whole", "adamw", "sdpa", "all-linear")


def _prepared(base: Loaded, plan: MemoryPlan) -> Any:
    warn_of_trained_adapter(base.model)
    model = fresh_base(base.model)
    if plan.checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    if plan.method == "full":
        return model.requires_grad_(True).train()
    if plan.checkpointing:
        model.enable_input_require_grads()
    config = LoraConfig(r=plan.lora_r, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config).train()
    match_compute_dtype(adapted, base)
    return adapted


def _measured_sampling(base: Loaded, plan: MemoryPlan, ids: Tensor) -> Measured:
    prompt = ids[:, : plan.length - plan.new_tokens]

    @torch.no_grad()
    def sample() -> None:
        base.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=plan.new_tokens,
            min_new_tokens=plan.new_tokens,
            do_sample=True,
            top_k=0,
            pad_token_id=base.tokenizer.pad_token_id,
        )

    return peak_of(sample, base.model)
