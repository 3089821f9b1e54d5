"""Keys and values with room for the tokens to come.

transformers' growing cache copies all of itself at every token, so decoding n tokens copies n²/2 of
them. Here a new token is written behind the others.
"""

from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


def reserve(cache: DynamicCache, tokens: int) -> None:
    """Give the plain layers of a filled `cache` room for so many more tokens; others stay."""
    cache.layers = [
        _Reserved(layer, tokens) if type(layer) is DynamicLayer and layer.is_initialized else layer
        for layer in cache.layers
    ]


class _Reserved(DynamicLayer):
    """``keys`` and ``values`` ``(batch, heads, seen, size)`` are views of larger tensors."""

    def __init__(self, layer: DynamicLayer, tokens: int) -> None:
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self._stores = _larger(layer.keys, tokens), _larger(layer.values, tokens)
        self._show(layer.keys.shape[2])

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write the new tokens behind the others; return all."""
        seen, stop = self.keys.shape[2], self.keys.shape[2] + key_states.shape[2]
        for store, new in zip(self._stores, (key_states, value_states), strict=True):
            store[:, :, seen:stop] = new
        self._show(stop)
        return self.keys, self.values

    def _show(self, tokens: int) -> None:
        self.keys, self.values = (store[:, :, :tokens] for store in self._stores)


def _larger(states: Tensor, tokens: int) -> Tensor:
    batch, heads, seen, size = states.shape
    store = states.new_empty(batch, heads, seen + tokens, size)
    store[:, :, :seen] = states
    return store
