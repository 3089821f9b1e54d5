"""`role_map` against every tensor counted by hand, and against the cost planner's arithmetic."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from ftkit.errors import SettingsError
from ftkit.models import Roles, load, role_map
from ftkit.stages.costs import MemoryPlan, ModelShape, weight_bytes


def by_hand(tensors) -> int:
    """Bytes of distinct storages."""
    return sum({t.data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def weights(model) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@pytest.fixture
def roles(tiny_base):
    roles = Roles(tiny_base, start="new", lora_r=4)
    roles.add_reward()
    return roles


def test_parts_are_the_bytes_of_the_real_tensors(roles) -> None:
    named = dict(roles.model.named_parameters())
    expected = {
        name: by_hand(t for key, t in named.items() if f".{name}." in key)
        for name in ("policy", "reward")
    }
    bare = [t for key, t in named.items() if ".lora_" not in key]
    expected["base"] = by_hand([*bare, *roles.model.buffers()])
    expected["value head"] = by_hand(roles.value_head.parameters())
    expected["score head"] = by_hand([roles.score_head.weight])
    assert {part.name: part.size for part in role_map(roles).parts} == expected


def test_parts_sum_to_the_whole(tiny_base, roles) -> None:
    found = role_map(roles)
    assert sum(part.size for part in found.parts) == found.whole
    heads = [*roles.value_head.parameters(), roles.score_head.weight]
    tensors = [*roles.model.parameters(), *roles.model.buffers(), *heads]
    assert found.whole == by_hand(tensors)


def test_a_loaded_base_gets_all_roles_and_is_left_as_it_was(tiny_base) -> None:
    model = tiny_base.model.train()
    model.lm_head.weight.requires_grad_(False)
    before, flags = weights(model), [p.requires_grad for p in model.parameters()]
    modules = [type(m) for m in model.modules()]
    found = role_map(tiny_base, lora_r=4)
    assert [part.name for part in found.parts] == [
        *("base", "policy", "reference", "reward", "value head", "score head"),
    ]
    after = weights(model)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert [type(m) for m in model.modules()] == modules
    assert [p.requires_grad for p in model.parameters()] == flags
    assert model.training
    assert not hasattr(model, "peft_config")


def test_it_can_be_measured_again_with_the_same_result(tiny_base) -> None:
    assert role_map(tiny_base, lora_r=4) == role_map(tiny_base, lora_r=4)


def test_rank_and_targets_change_the_adapters_alone(tiny_base) -> None:
    small, large = role_map(tiny_base, lora_r=4), role_map(tiny_base, lora_r=8)
    wide = role_map(tiny_base, lora_r=4, target_modules="all-linear")
    assert large.part("policy").size == 2 * small.part("policy").size
    assert wide.part("policy").size > small.part("policy").size
    assert small.part("base") == large.part("base") == wide.part("base")
    width = ModelShape.of(tiny_base).lora_width
    assert wide.part("policy").size == 4 * 4 * width


def test_a_full_copy_is_the_unquantized_model(tiny_base) -> None:
    found = role_map(tiny_base)
    assert found.copies["LM head"] == by_hand(tiny_base.model.parameters())
    hidden = tiny_base.model.config.hidden_size
    assert found.copies["score head"] - found.copies["LM head"] == 4 * hidden  # tied: no LM head
    assert found.copy_dtype == "float32"


def test_full_copies_are_those_of_the_cost_planner(tiny_base) -> None:
    plan = MemoryPlan(stage="ppo", weights="float32", compute="float32", layout="copies")
    shape = ModelShape.of(tiny_base)
    planned = 2 * weight_bytes(shape, plan) + 2 * weight_bytes(shape, plan, head=False)
    heads = 4 * (2 * shape.hidden + 1)
    assert role_map(tiny_base).copied_size("PPO") == planned + heads


def test_an_untied_lm_head_is_left_out_where_another_head_judges(tmp_path, tiny_folder) -> None:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = LlamaConfig(vocab_size=len(tokenizer), **sizes, **heads, tie_word_embeddings=False)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = role_map(load(str(tmp_path), quantization=None, device="cpu"))
    lm_head = 4 * len(tokenizer) * 16
    assert found.copies["LM head"] - found.copies["value head"] == lm_head - 4 * 17


def test_roles_with_a_reference_of_their_own_show_it(tiny_base, roles) -> None:
    from ftkit.models import read_adapter

    again = Roles(tiny_base, start=read_adapter(roles.model, "policy"))
    again.add_reward()
    assert role_map(again).part("reference").size == role_map(again).part("policy").size
    assert again.model.active_adapters == ["policy"], "measuring must not switch roles"


def test_bad_inputs_say_what_to_do(tiny_base) -> None:
    with pytest.raises(SettingsError, match=r"call add_reward\(\) first"):
        role_map(Roles(tiny_base, start="new"))
    with pytest.raises(SettingsError, match="carries the adapter 'policy'"):
        role_map(tiny_base)


def test_a_trainers_adapter_is_never_taken_off(tiny_base) -> None:
    get_peft_model(tiny_base.model, LoraConfig(r=2, target_modules=["q_proj"]))
    before = weights(tiny_base.model)
    with pytest.raises(SettingsError, match="which measuring would remove"):
        role_map(tiny_base)
    assert weights(tiny_base.model).keys() == before.keys()
