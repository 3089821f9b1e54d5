"""`unpacked`, `folded`: the weights read otherwise give the same numbers, then all is as before."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from ftkit.models import Roles, load
from ftkit.models.unpacking import folded, unpacked

IDS = torch.tensor([[11, 12, 13, 14, 15, 16]])


def nudge(roles: Roles) -> None:
    """Let the adapter do something, as after training."""
    with torch.no_grad():
        for parameter in roles.trainable("policy"):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))


def dense_layers(model: torch.nn.Module) -> int:
    return sum("forward" in module.__dict__ for module in model.modules())


@pytest.fixture
def roles(tiny_folder):
    roles = Roles(load(str(tiny_folder), quantization="nf4", device="cpu"))
    nudge(roles)
    return roles


@torch.no_grad()
def test_the_numbers_are_the_same_to_the_last_bit_adapter_included(roles) -> None:
    packed = roles.model(IDS).logits
    with unpacked(roles.model, share=1.0):
        assert dense_layers(roles.model) > 0
        assert torch.equal(roles.model(IDS).logits, packed)
    with roles.as_reference():
        assert not torch.equal(roles.model(IDS).logits, packed), "the adapter did nothing"


def test_everything_is_as_before_also_after_an_error(roles) -> None:
    before = dense_layers(roles.model)
    with pytest.raises(KeyError), unpacked(roles.model, share=1.0):
        raise KeyError
    assert dense_layers(roles.model) == before


def test_weights_that_would_not_fit_stay_packed(roles) -> None:
    before = dense_layers(roles.model)
    with unpacked(roles.model, share=0.0):
        assert dense_layers(roles.model) == before


def test_a_block_within_a_block_unpacks_nothing_twice(roles) -> None:
    before = dense_layers(roles.model)
    with unpacked(roles.model, share=1.0):
        kept = [module.__dict__.get("forward") for module in roles.model.modules()]
        with unpacked(roles.model, share=1.0):
            assert [m.__dict__.get("forward") for m in roles.model.modules()] == kept
        assert [m.__dict__.get("forward") for m in roles.model.modules()] == kept
    assert dense_layers(roles.model) == before


@pytest.mark.parametrize("quantization", ["nf4", None])
@torch.no_grad()
def test_a_folded_adapter_gives_the_same_numbers_up_to_rounding(tiny_folder, quantization) -> None:
    roles = Roles(load(str(tiny_folder), quantization=quantization, device="cpu"))
    nudge(roles)
    beside = roles.model(IDS).logits
    layer = next(m for m in roles.model.modules() if hasattr(m, "lora_A"))
    calls = []
    layer.lora_A["policy"].register_forward_hook(lambda *_: calls.append(1))
    before = dense_layers(roles.model)
    with unpacked(roles.model, share=1.0), folded(roles.model, share=1.0):
        torch.testing.assert_close(roles.model(IDS).logits, beside, rtol=1e-4, atol=1e-4)
        assert not calls, "the adapter was read beside the weights"
    assert dense_layers(roles.model) == before
    assert torch.equal(roles.model(IDS).logits, beside)
    assert calls
    with roles.as_reference(), folded(roles.model, share=1.0):
        assert dense_layers(roles.model) == before, "no adapter is active, so there is none to fold"


def odd(name: str, tiny_folder):
    """A base and an adapter on it that cannot be folded exactly."""
    dtype = "bfloat16" if name == "16 bits" else "float32"
    base = load(str(tiny_folder), quantization=None, compute_dtype=dtype, device="cpu")
    more = {"use_dora": True} if name == "DoRA" else {"lora_bias": True} if name == "bias" else {}
    return get_peft_model(base.model, LoraConfig(target_modules=["q_proj"], **more)).eval()


@pytest.mark.parametrize("name", ["16 bits", "DoRA", "bias"])
def test_what_cannot_be_folded_exactly_is_left_alone(tiny_folder, name) -> None:
    model = odd(name, tiny_folder)
    before = dense_layers(model)
    with folded(model, share=1.0):
        assert dense_layers(model) == before


def test_an_adapter_beside_packed_weights_stays_there(roles) -> None:
    before = dense_layers(roles.model)
    with folded(roles.model, share=1.0):
        assert dense_layers(roles.model) == before
    with unpacked(roles.model, share=1.0):
        kept = dense_layers(roles.model)
        with folded(roles.model, share=0.0):
            assert dense_layers(roles.model) == kept
