"""`lean`: numbers and gradients of PEFT's own layers; and PEFT's way where they are not plain."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from ftkit.models import lean_lora
from ftkit.models.lean_lora import lean
from ftkit.models.unpacking import folded

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def adapted(**options) -> nn.Module:
    """Two layers with adapters that do something."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4))
    config = LoraConfig(r=3, lora_alpha=12, target_modules=["0", "2"], **options)
    model = get_peft_model(plain, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.5)
    return model


def seen(model, inside) -> tuple[list[torch.Tensor], int]:
    """Output, the input's gradient and those of A and B; and how often the lean node was run."""
    states = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
    calls, plain = [], lean_lora._Added.apply
    with pytest.MonkeyPatch.context() as patch, inside:
        patch.setattr(lean_lora._Added, "apply", lambda *args: calls.append(args) or plain(*args))
        torch.manual_seed(2)  # of dropout
        out = model(states)
    trained = [p for n, p in model.named_parameters() if "lora_" in n and p.requires_grad]
    found = torch.autograd.grad(out.pow(2).sum(), [states, *trained], allow_unused=True)
    return [out, *(g for g in found if g is not None)], len(calls)


def same_with_and_without(model) -> int:
    """Assert that; return how many layers went the lean way."""
    theirs, _ = seen(model, torch.enable_grad())
    ours, calls = seen(model, lean(model))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, **CLOSE)
    return calls


def test_output_and_gradients_are_those_of_peft() -> None:
    assert same_with_and_without(adapted()) == 2


def test_a_frozen_adapter_passes_the_gradient_on() -> None:
    model = adapted()
    model.requires_grad_(False)
    assert same_with_and_without(model) == 2


@pytest.mark.parametrize(
    "options", [{"lora_dropout": 0.5}, {"use_dora": True}, {"lora_bias": True}]
)
def test_what_is_not_plain_goes_the_way_of_peft(options) -> None:
    assert same_with_and_without(adapted(**options)) == 0


@pytest.mark.parametrize("half", ["lora_A", "lora_B"])
def test_hooks_on_a_half_are_called(half) -> None:
    model = adapted()
    part = getattr(model.base_model.model[0], half)["default"]
    part.register_forward_hook(lambda _, __, out: out * 2)
    assert same_with_and_without(model) == 1


def test_dropout_that_is_off_is_plain() -> None:
    assert same_with_and_without(adapted(lora_dropout=0.5).eval()) == 2


def test_several_adapters_or_none_go_the_way_of_peft() -> None:
    model = adapted()
    model.add_adapter("other", LoraConfig(r=2, target_modules=["0", "2"]))
    model.base_model.set_adapter(["default", "other"])
    assert same_with_and_without(model) == 0
    with model.disable_adapter():
        assert same_with_and_without(model) == 0
    model.base_model.set_adapter(["other"])
    assert same_with_and_without(model) == 2
    model.merge_adapter()
    assert same_with_and_without(model) == 0


def test_layers_are_as_before_behind_the_block() -> None:
    model = adapted()
    with pytest.raises(KeyError), lean(model):
        raise KeyError
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_an_adapter_in_the_weights_is_not_added_again() -> None:
    model = adapted().eval()
    states = torch.ones(1, 6)
    with torch.no_grad():
        expected = model(states)
        with folded(model, share=1.0), lean(model):
            torch.testing.assert_close(model(states), expected, **CLOSE)
