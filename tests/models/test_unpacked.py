"""`unpacked`, `folded`: the weights read otherwise give the same numbers, then all is as before."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from ftkit.models import Roles, load
from ftkit.models.unpacking import _dense, folded, product, unpacked

IDS = torch.arange(11, 31)[None]  # more tokens than `product` takes for few


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


@torch.no_grad()
def test_unpacked_weights_take_the_adapter_in_place_and_are_then_as_before(roles) -> None:
    packed = roles.model(IDS).logits
    with unpacked(roles.model, share=1.0):
        base = roles.model.get_base_model().model.layers[0].self_attn.q_proj.get_base_layer()
        weight, before = _dense(base), _dense(base).clone()
        with folded(roles.model, share=0.0):  # which takes no memory
            assert _dense(base) is weight
            assert not torch.equal(weight, before)
        assert torch.equal(weight, before)
        with pytest.raises(KeyError), folded(roles.model):
            raise KeyError
        assert torch.equal(weight, before)
        assert torch.equal(roles.model(IDS).logits, packed)


def test_weights_of_the_model_are_copied_never_written(tiny_folder) -> None:
    roles = Roles(load(str(tiny_folder), quantization=None, device="cpu"))
    nudge(roles)
    before = dense_layers(roles.model)
    with folded(roles.model, share=0.0):
        assert dense_layers(roles.model) == before, "copies that do not fit"
    weights = {name: p.clone() for name, p in roles.model.named_parameters()}
    with folded(roles.model, share=1.0):
        assert dense_layers(roles.model) > before
    assert all(torch.equal(p, weights[name]) for name, p in roles.model.named_parameters())


@pytest.mark.parametrize("shape", [(1, 8), (4, 1, 8), (2, 3, 8), (30, 8)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_product_of_few_rows_is_the_layers_own(shape, bias) -> None:
    layer = torch.nn.Linear(8, 5, bias=bias)
    states = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = product(states, layer.weight, layer.bias)
    torch.testing.assert_close(found, layer(states), rtol=1e-5, atol=1e-6)
    assert found.is_contiguous()
    leaf = states.requires_grad_()
    (slope,) = torch.autograd.grad(product(leaf, layer.weight, layer.bias).sum(), leaf)
    torch.testing.assert_close(slope, layer.weight.sum(0).expand(shape))
