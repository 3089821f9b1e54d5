"""`unpacked`: decoding on unpacked 4-bit weights gives the same numbers, then all is as before."""

import pytest
import torch

from ftkit.models import Roles, load
from ftkit.models.quantize import unpacked

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
