"""Operations against torch's own counter, hours against what Meta published."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from ftkit.errors import SettingsError
from ftkit.stages import costs
from ftkit.stages.costs import HARDWARE, MemoryPlan, ModelShape, Work

H100 = HARDWARE["H100 SXM"]
CONFIG = LlamaConfig(
    vocab_size=300,
    hidden_size=64,
    intermediate_size=160,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    attn_implementation="eager",  # its products are ordinary ones, which the counter sees
)
ROWS, LENGTH = 2, 32


def counted(method: str, checkpointing: bool) -> int:
    model = LlamaForCausalLM(CONFIG)
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    if method == "lora":
        lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, lora)
    ids = torch.zeros(ROWS, LENGTH, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model.train()(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_training_step_is_counted_as_torch_counts_it(method, checkpointing) -> None:
    weights = "float32" if method == "full" else "nf4"
    plan = MemoryPlan(
        method=method, weights=weights, length=LENGTH, lora_r=4, checkpointing=checkpointing
    )
    own = costs.training_flops(ModelShape.of(CONFIG), plan) * ROWS * LENGTH
    assert own == pytest.approx(counted(method, checkpointing), rel=0.03)


def test_a_forward_pass_is_counted_as_torch_counts_it() -> None:
    ids = torch.zeros(ROWS, LENGTH, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        LlamaForCausalLM(CONFIG)(input_ids=ids)
    own = costs.forward_flops(ModelShape.of(CONFIG), LENGTH) * ROWS * LENGTH
    assert own == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_full_training_of_a_large_model_is_nearly_6nd() -> None:
    plan = MemoryPlan("pretrain", method="full", weights="bfloat16", length=8192)
    shape = ModelShape.of("llama-3.1-405b")
    own = sum(costs.stage_flops(shape, plan, Work(15.6e12 / 8192)).values())
    assert own == pytest.approx(costs.rule_of_thumb(shape.parameters, 15.6e12), rel=0.08)
    assert own == pytest.approx(3.8e25, rel=0.1)  # the paper's number


def test_lora_saves_a_third_of_the_operations() -> None:
    shape = ModelShape.of("llama-3.1-8b")
    full = costs.training_flops(shape, MemoryPlan(method="full", weights="bfloat16"))
    lora = costs.training_flops(shape, MemoryPlan())
    assert lora / full == pytest.approx(2 / 3, abs=0.02)


def test_llama_hours_are_off_as_published() -> None:
    table = costs.check_published(0.4).to_pandas().set_index("model")
    ratio = table["published / 6ND"]
    assert ratio["llama-3.1-8b"] == pytest.approx(2.88, abs=0.02)
    assert ratio["llama-3.1-70b"] == pytest.approx(1.57, abs=0.02)
    assert ratio["llama-3.1-405b"] == pytest.approx(1.16, abs=0.01)
    assert list(table["implied utilization"]) == ["13.9%", "25.5%", "34.6%"]


def test_utilization_turns_around() -> None:
    hours = costs.gpu_hours(1e22, H100, 0.25)
    assert costs.implied_mfu(1e22, H100, hours) == pytest.approx(0.25)
    assert costs.gpu_hours(989e12 * 3600, H100, 1.0) == pytest.approx(1.0)


def test_what_a_stage_adds() -> None:
    work, plan = Work(1000), MemoryPlan("ppo", length=256, new_tokens=128)
    shared = costs.stage_flops("llama-3.2-1b", plan, work)
    assert set(shared) == {"rollout", "training", "reference", "reward model"}
    copies = MemoryPlan("ppo", weights="bfloat16", layout="copies", length=256, new_tokens=128)
    assert set(costs.stage_flops("llama-3.2-1b", copies, work)) == {*shared, "critic"}
    twice = costs.stage_flops("llama-3.2-1b", plan, Work(1000, update_epochs=2))
    assert twice["training"] == 2 * shared["training"]
    assert twice["rollout"] == shared["rollout"]
    sft = costs.stage_flops("llama-3.2-1b", MemoryPlan(length=256), work)
    assert costs.stage_flops("llama-3.2-1b", MemoryPlan("dpo", length=256), work)[
        "training"
    ] == pytest.approx(2 * sft["training"])


def test_decoding_one_token_reads_every_weight() -> None:
    plan = MemoryPlan("generate", weights="bfloat16", batch=1, length=2, new_tokens=1)
    seconds = costs.decode_seconds("llama-3.1-8b", plan, H100, rows=1)
    assert seconds == pytest.approx(2 * 8.03e9 / 3.35e12, rel=0.01)


@pytest.mark.parametrize("mfu", [0, -0.1, 1.01, float("nan")])
def test_impossible_utilizations_are_refused(mfu) -> None:
    with pytest.raises(SettingsError, match="share of the peak"):
        costs.gpu_hours(1e20, H100, mfu)


def test_no_hours_and_no_work_are_refused() -> None:
    with pytest.raises(SettingsError, match="must be above 0"):
        costs.implied_mfu(1e20, H100, 0)
    with pytest.raises(ValueError, match="sequences=0"):
        Work(0)
    with pytest.raises(SettingsError, match="hardware 'H900' is unknown"):
        costs.Compute(hardware="H900")
