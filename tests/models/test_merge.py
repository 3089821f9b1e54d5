"""Merging an adapter: exact to rounding on plain weights, lossy on NF4, and never left behind."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from ftkit.errors import SettingsError
from ftkit.models import load, memory_mb, merge_errors, strip_adapters

IDS = torch.arange(40, 64).view(2, 12)


def with_adapter(base, scale: float = 0.02):
    """A LoRA adapter whose B is not zero, as after training."""
    torch.manual_seed(0)
    model = get_peft_model(base.model, LoraConfig(r=4, target_modules="all-linear"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=scale)
    return model


def weights(model) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if "lora" not in n}


def test_merged_equals_unmerged_on_plain_weights(tiny_base) -> None:
    model = with_adapter(tiny_base)
    found = merge_errors(model, IDS)
    assert found.effect > 1e-3
    assert found.relative < 1e-5
    assert found.merged < 1e-5
    assert found.unmerged < 1e-5


def test_the_merged_logits_are_those_of_w_plus_ba_by_hand(tiny_base) -> None:
    model = with_adapter(tiny_base)
    with torch.no_grad():
        beside = model(input_ids=IDS).logits
        for module in model.modules():
            if hasattr(module, "lora_A"):
                a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
                module.get_base_layer().weight += module.scaling["default"] * b @ a
        by_hand = strip_adapters(tiny_base.model)(input_ids=IDS).logits
    assert torch.allclose(by_hand, beside, atol=1e-5)


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_the_base_comes_back_bit_for_bit(tiny_folder, quantization) -> None:
    base = load(str(tiny_folder), quantization=quantization, device="cpu")
    model = with_adapter(base)
    before, size = weights(base.model), memory_mb(base.model)
    with torch.no_grad():
        logits = model(input_ids=IDS).logits
    merge_errors(model, IDS)
    after = weights(base.model)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert memory_mb(base.model) == size
    with torch.no_grad():
        assert torch.equal(model(input_ids=IDS).logits, logits)
    strip_adapters(base.model)  # would refuse an adapter that is still merged


def test_nf4_blurs_what_plain_weights_keep(tiny_folder) -> None:
    plain = merge_errors(with_adapter(load(str(tiny_folder), quantization=None)), IDS)
    packed = merge_errors(with_adapter(load(str(tiny_folder), quantization="nf4")), IDS)
    assert packed.lost > 100 * plain.lost
    assert packed.lost > 0.05


def test_an_adapter_that_does_nothing_is_refused(tiny_base) -> None:
    model = get_peft_model(tiny_base.model, LoraConfig(r=4, target_modules="all-linear"))
    with pytest.raises(SettingsError, match="changes no logit"):
        merge_errors(model, IDS)


def test_a_model_without_adapter_and_a_merged_one_are_refused(tiny_base) -> None:
    with pytest.raises(SettingsError, match="not merged"):
        merge_errors(tiny_base.model, IDS)
    model = with_adapter(tiny_base)
    model.merge_adapter()
    with pytest.raises(SettingsError, match="unmerge_adapter"):
        merge_errors(model, IDS)
