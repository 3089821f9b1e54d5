"""`without_gates`: the same gradients to the last bit, one tensor of a gated layer less."""

import gc

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from ftkit.models.remade import without_gates


def storage(tensor: torch.Tensor) -> StorageWeakRef:
    """Tells whether the tensor's numbers are still held, by whatever tensor."""
    return StorageWeakRef(tensor.untyped_storage())


class Gated(nn.Module):
    """The feed-forward layer of Llama, which remembers what it made."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(6, 11), nn.Linear(6, 11), nn.Linear(11, 6)
        self.made = {}

    def forward(self, states):
        gate, up = self.gate(states), self.up(states)
        gated = nn.functional.silu(gate)
        self.made = {"up": storage(up), "gated": storage(gated)}
        return self.down(gated * up)


def gradients(layer: Gated, states: torch.Tensor):
    loss = layer(layer(states)).pow(2).sum()
    gc.collect()
    waiting = [name for name, made in layer.made.items() if not made.expired()]
    loss.backward()
    grads = [parameter.grad.clone() for parameter in layer.parameters()]
    layer.zero_grad()
    return grads, waiting


def test_gradients_are_the_same_and_the_gated_tensor_does_not_wait() -> None:
    torch.manual_seed(0)
    layer, states = Gated(), torch.randn(5, 6)
    plain, kept = gradients(layer, states)
    with without_gates():
        lean, fewer = gradients(layer, states)
    assert all(map(torch.equal, plain, lean))
    assert (kept, fewer) == (["up", "gated"], ["up"])


def test_a_pass_without_a_backward_pass_leaves_nothing() -> None:
    """`exp` keeps its own result."""
    with without_gates():
        made = storage(torch.randn(3, requires_grad=True).exp())
    assert made.expired()


def test_a_change_in_place_is_refused_as_autograd_does() -> None:
    states = torch.randn(3, requires_grad=True)
    with without_gates():
        result = states.exp()
        loss = result.sum()
    loss.backward(retain_graph=True)
    with torch.no_grad():
        result.mul_(2)
    with pytest.raises(RuntimeError, match=r"\(3,\) .* changed in place"):
        loss.backward()
