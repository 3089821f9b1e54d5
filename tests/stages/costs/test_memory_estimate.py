"""Planned memory against what torch really allocates, and against published arithmetic."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
from trl.trainer.utils import add_fused_lm_head

from ftkit.errors import SettingsError
from ftkit.models import memory_mb
from ftkit.stages import costs
from ftkit.stages.costs import MemoryPlan, ModelShape, activations

FLOAT32 = {"weights": "float32", "compute": "float32", "device": "cpu"}
BFLOAT16 = {"weights": "bfloat16", "compute": "bfloat16", "device": "cpu"}
AUTOCAST = {"weights": "float32", "compute": "bfloat16", "device": "cpu"}
FULL = {"method": "full", "layout": "copies"}


def llama(vocab: int = 600, tied: bool = True) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocab,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
    )


def build(config: LlamaConfig, plan: MemoryPlan) -> torch.nn.Module:
    model = LlamaForCausalLM(config).to(getattr(torch, plan.weights))
    model.set_attn_implementation(plan.attention)
    if plan.checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    if plan.method == "lora":
        targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
        lora = LoraConfig(
            r=plan.lora_r,
            target_modules=targets if plan.targets == "attention" else "all-linear",
            task_type="CAUSAL_LM",
        )
        model = get_peft_model(model, lora, autocast_adapter_dtype=False)
    return model.train()


def measured(config: LlamaConfig, plan: MemoryPlan) -> float:
    """Return the peak of the second step of a real model on the CPU, in bytes."""
    model = build(config, plan)
    ids = torch.arange(plan.tokens).view(plan.rows, plan.length) % config.vocab_size
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, fused=True)

    def step() -> None:
        for _ in range(plan.accumulation):
            with torch.autocast("cpu", torch.bfloat16, enabled=plan.autocast):
                loss = model(input_ids=ids, labels=ids, use_cache=False).loss
            loss.backward()
            del loss
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    states = [v for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v)]
    return costs.peak_of(step, model, states).peak


@pytest.mark.parametrize(
    ("choices", "vocab", "tied"),
    [
        ({**FLOAT32, **FULL}, 600, True),
        ({**FLOAT32, **FULL, "length": 8, "batch": 1}, 4000, True),
        ({**FLOAT32, **FULL, "length": 8, "batch": 1}, 4000, False),
        ({**FLOAT32, **FULL, "length": 8, "batch": 1, "accumulation": 2}, 4000, True),
        ({**FLOAT32, **FULL, "checkpointing": True}, 600, True),
        ({**FLOAT32, **FULL, "attention": "eager"}, 600, True),
        (FLOAT32, 4000, False),
        ({**FLOAT32, "checkpointing": True}, 600, True),
        ({**FLOAT32, "targets": "attention"}, 600, True),
        ({**BFLOAT16, **FULL}, 600, True),
        ({**BFLOAT16, "attention": "eager"}, 600, True),
        ({**AUTOCAST, **FULL}, 600, True),
    ],
    ids=str,
)
def test_planned_peak_is_the_allocators_peak(choices, vocab, tied) -> None:
    plan = MemoryPlan(**{"batch": 2, "length": 150, "lora_r": 8, **choices})
    planned = costs.estimate(llama(vocab, tied), plan).peak
    assert planned == pytest.approx(measured(llama(vocab, tied), plan), rel=0.04)


def test_the_fused_head_is_counted_as_trl_runs_it() -> None:
    plan = MemoryPlan(batch=2, length=100, lora_r=8, head="fused", **FLOAT32)
    config = llama(40_000)
    model = build(config, plan)
    add_fused_lm_head(model.get_base_model())
    ids = torch.arange(plan.tokens).view(plan.rows, plan.length)

    def step() -> None:
        model(input_ids=ids, labels=ids, fused_lm_head=True).loss.backward()
        model.zero_grad(set_to_none=True)

    step()
    planned = costs.estimate(config, replace(plan, optimizer="sgd")).peak
    assert planned == pytest.approx(costs.peak_of(step, model).peak, rel=0.03)


def test_activations_are_what_autograd_saves() -> None:
    plan, config = MemoryPlan(batch=2, length=40, **FLOAT32, **FULL), llama()
    saved = [_saved_bytes(layers, plan) for layers in (2, 3)]
    block = activations.block_bytes(ModelShape.of(config), plan)
    assert saved[1] - saved[0] == pytest.approx(block, rel=1e-6)


def _saved_bytes(layers: int, plan: MemoryPlan) -> int:
    """Return what autograd keeps of a forward pass beside the parameters, in bytes."""
    config = llama()
    config.num_hidden_layers = layers
    model = LlamaForCausalLM(config).train()
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        seen.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        kept = model.model(torch.zeros(plan.rows, plan.length, dtype=torch.long), use_cache=False)
    assert kept.last_hidden_state.requires_grad
    return sum(t.untyped_storage().nbytes() for at, t in seen.items() if at not in own)


def test_nf4_weights_are_what_bitsandbytes_holds(base) -> None:
    plan = MemoryPlan(weights="nf4", compute="float32")
    planned = costs.weight_bytes(ModelShape.of(base), plan)
    assert planned / 1e6 == pytest.approx(memory_mb(base.model), rel=0.001)
    assert round(costs.NF4_BITS, 3) == 4.127


def test_textbook_bytes_per_parameter() -> None:
    shape = ModelShape.of("llama-3.1-8b")
    tiny = {"batch": 1, "length": 1, "optimizer": "adamw"}
    for kind, bytes_each in ((FLOAT32, 16), (BFLOAT16, 8)):
        moments = costs.estimate(shape, MemoryPlan(**tiny, **kind, **FULL)).moments
        parts = {m.name: m.parts for m in moments}["backward"]
        held = sum(parts[p] for p in ("weights", "gradients", "optimizer"))
        assert held == pytest.approx(bytes_each * shape.parameters, rel=0.001)


def test_ppo_with_four_copies_is_36_bytes_a_parameter_and_the_shared_base_a_fraction() -> None:
    # 16 for each of two trained models, 2 for each of two frozen ones, at float32 master weights.
    shape, few = ModelShape.of("llama-3.1-8b"), {"batch": 1, "length": 2, "new_tokens": 1}
    copies = costs.estimate(shape, MemoryPlan("ppo", **few, **BFLOAT16, **FULL))
    headless = shape.parameters - shape.lm_head
    policy_and_critic = 8 * (shape.parameters + headless)
    frozen = 2 * (shape.parameters + headless)
    assert copies.peak == pytest.approx(policy_and_critic + frozen, rel=0.01)
    shared = costs.estimate(shape, MemoryPlan("ppo", **few))
    assert shared.peak < copies.peak / 20


def test_a_pair_is_two_rows_and_a_judge_has_no_logits() -> None:
    sft, reward, dpo = (
        {m.name: m.parts for m in costs.estimate("qwen2.5-7b", MemoryPlan(stage)).moments}
        for stage in ("sft", "reward", "dpo")
    )
    assert dpo["loss"]["activations"] == pytest.approx(2 * sft["loss"]["activations"])
    assert reward["loss"]["logits"] == 0
    assert reward["loss"]["weights"] < sft["loss"]["weights"]
    assert dpo["loss"]["frozen models"] == 0  # the reference is the adapter, switched off


def test_grpo_without_kl_needs_no_reference() -> None:
    plan = MemoryPlan("grpo", weights="bfloat16", layout="copies")
    without = costs.estimate("llama-3.2-1b", replace(plan, reference=False))
    saved = costs.estimate("llama-3.2-1b", plan).peak - without.peak
    assert saved == pytest.approx(2 * 1_235_814_400)


def test_the_kv_cache_is_two_vectors_a_layer_and_token() -> None:
    plan = MemoryPlan("generate", weights="bfloat16", batch=16, length=4096, new_tokens=4000)
    (moment,) = costs.estimate("llama-3.1-8b", plan).moments
    # 128 KiB a token: 32 layers x 8 heads x 128 x 2 x 2 bytes; half a layer more while it grows.
    assert moment.parts["KV cache"] == pytest.approx(16 * 4096 * 131_072, rel=0.02)


plans = st.builds(
    MemoryPlan,
    stage=st.sampled_from(["pretrain", "sft", "reward", "dpo", "ppo", "grpo"]),
    weights=st.sampled_from(["bfloat16", "nf4", "int8"]),
    batch=st.sampled_from([1, 2, 8]),
    length=st.sampled_from([512, 1024]),
    optimizer=st.sampled_from(["adamw", "adamw_8bit", "sgd"]),
    layout=st.sampled_from(["shared", "copies"]),
    head=st.sampled_from(["whole", "fused"]),
    checkpointing=st.booleans(),
)


@settings(max_examples=30, deadline=None)
@given(plan=plans, name=st.sampled_from(["smollm2-135m", "llama-3.1-8b", "gpt2"]))
def test_more_of_anything_never_takes_less(plan, name) -> None:
    now = costs.estimate(name, plan)
    assert all(size >= 0 for moment in now.moments for size in moment.parts.values())
    assert now.peak == max(moment.total for moment in now.moments)
    for more in (
        {"batch": 2 * plan.batch},
        {"length": 2 * plan.length},
        {"lora_r": 2 * plan.lora_r},
        {"weights": "bfloat16"},
        {"layout": "copies"},
        {"optimizer": "adamw"},
    ):
        assert costs.estimate(name, replace(plan, **more)).peak >= now.peak * (1 - 1e-9)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"stage": "rlhf"}, "stage='rlhf' is unknown; use one of"),
        ({"weights": "int4"}, "weights='int4' is unknown"),
        ({"batch": 0}, "batch=0 must be a whole number"),
        ({"length": 12.5}, "length=12.5"),
        ({"lora_r": 0}, "lora_r=0"),
        ({"method": "full"}, "quantized weights have no gradient"),
        ({"stage": "ppo", "method": "full", "weights": "bfloat16"}, "needs layout='copies'"),
        ({"stage": "grpo", "new_tokens": 512}, "must be below length=512"),
        ({"weights": "bfloat16", "compute": "float32"}, "compute in bfloat16"),
    ],
)
def test_impossible_plans_are_refused_with_a_reason(wrong, says) -> None:
    with pytest.raises(ValueError, match=says):
        MemoryPlan(**wrong)


def test_measuring_leaves_the_weights_alone_and_agrees(tiny_base) -> None:
    before = {k: v.clone() for k, v in tiny_base.model.state_dict().items()}
    for choices in ({}, FULL, {"stage": "generate", "new_tokens": 12}):
        plan = MemoryPlan(**{"batch": 2, "length": 24, "lora_r": 4, **FLOAT32, **choices})
        found = costs.measure(tiny_base, plan)
        assert costs.estimate(tiny_base, plan).peak == pytest.approx(found.peak, rel=0.1)
    after = tiny_base.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not tiny_base.model.training


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (MemoryPlan(), "loaded with float32 weights"),
        (MemoryPlan("dpo", **FLOAT32), "give your own step to peak_of"),
        (MemoryPlan(head="fused", **FLOAT32), "whole logits"),
    ],
)
def test_what_cannot_be_measured_says_so(tiny_base, plan, says) -> None:
    with pytest.raises(SettingsError, match=says):
        costs.measure(tiny_base, plan)
