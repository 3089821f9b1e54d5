"""`without_gates`: the same gradients to the last bit, one tensor of a gated layer less."""

import gc
import weakref

import torch
from torch import nn

from ftkit.models.remade import without_gates


class Gated(nn.Module):
    """The feed-forward layer of Llama, which remembers what it made."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(6, 11), nn.Linear(6, 11), nn.Linear(11, 6)
        self.made = {}

    def forward(self, states):
        gate, up = self.gate(states), self.up(states)
        gated = nn.functional.silu(gate)
        self.made = {name: weakref.ref(t) for name, t in (("up", up), ("gated", gated))}
        return self.down(gated * up)


def gradients(layer: Gated, states: torch.Tensor):
    loss = layer(layer(states)).pow(2).sum()
    gc.collect()
    waiting = [name for name, made in layer.made.items() if made() is not None]
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
