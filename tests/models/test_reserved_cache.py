"""`reserve`: the same keys and values as the cache that grows, in place."""

import torch
from transformers import DynamicCache

from ftkit.models.reserved_cache import reserve


def test_tokens_are_written_behind_the_others_and_nothing_moves() -> None:
    torch.manual_seed(0)
    prompt, *tokens = (torch.randn(2, 3, n, 4) for n in (5, 1, 2, 1))
    grown, reserved = DynamicCache(), DynamicCache()
    for cache in (grown, reserved):
        cache.update(prompt, -prompt, 0)
    reserve(reserved, 4)
    place = reserved.layers[0].keys.data_ptr()
    for token in tokens:
        theirs = grown.update(token, -token, 0)
        ours = reserved.update(token, -token, 0)
        assert all(map(torch.equal, ours, theirs))
        assert reserved.get_seq_length() == grown.get_seq_length()
    assert reserved.layers[0].keys.data_ptr() == place
    assert torch.equal(reserved.layers[0].values, grown.layers[0].values)


def test_layers_that_hold_nothing_yet_stay_as_they_are() -> None:
    cache = DynamicCache()
    cache.update(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1), 1)
    before = list(cache.layers)
    reserve(cache, 3)
    assert cache.layers[0] is before[0]
    assert cache.layers[1] is not before[1]
