"""`packing`: a decoder called in a trainer's way gives what it gave, from fewer tokens."""

import pytest
import torch
from test_packed_rows import batch
from torch import nn

from ftkit.models.packed_passes import packing

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture
def decoder(tiny_base):
    return tiny_base.model.get_decoder()


@pytest.fixture
def tokens_read(decoder, monkeypatch):
    """Shapes of the batches that the first layer gets; not by a hook, which would be respected."""
    layer, seen = decoder.layers[0], []
    plain = layer.forward
    monkeypatch.setattr(
        layer, "forward", lambda states, **rest: seen.append(states.shape) or plain(states, **rest)
    )
    return seen


def rows_on_the_right():
    ids, mask = batch(8, [4, 2, 4], [0, 0, 0])
    return {"input_ids": ids, "attention_mask": mask.long()}


PLAIN, PACKED = (3, 12, 64), (1, 8 + 4 + 2 + 4, 64)


def passes(decoder, inputs, tokens_read, **options):
    """The pass outside and inside the block; and the last batch that the layer got there."""
    outside = decoder(**inputs, **options)
    with packing(decoder):
        inside = decoder(**inputs, **options)
    return outside, inside, tuple(tokens_read[-1])


def test_states_and_gradients_are_the_plain_ones(decoder, tokens_read) -> None:
    inputs = rows_on_the_right()
    real = inputs["attention_mask"].bool()
    outside, inside, read = passes(decoder, inputs, tokens_read, use_cache=False)
    assert read == PACKED
    mine, theirs = (out.last_hidden_state[real] for out in (inside, outside))
    torch.testing.assert_close(mine, theirs, **CLOSE)
    weights = torch.randn(mine.shape, generator=torch.Generator().manual_seed(0))
    slopes = [
        torch.autograd.grad((states * weights).sum(), list(decoder.parameters()))
        for states in (mine, theirs)
    ]
    for ours, expected in zip(*slopes, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_ids_may_come_by_their_place(decoder, tokens_read) -> None:
    inputs = rows_on_the_right()
    ids = inputs.pop("input_ids")
    with packing(decoder):
        decoder(ids, **inputs, use_cache=False)
    assert tuple(tokens_read[-1]) == PACKED


@pytest.mark.parametrize(
    "asked",
    [
        {"use_cache": True},
        {"output_hidden_states": True, "use_cache": False},
        {"position_ids": torch.arange(12).expand(3, 12), "use_cache": False},
    ],
)
@torch.no_grad()
def test_who_asks_for_more_gets_the_plain_pass(decoder, tokens_read, asked) -> None:
    outside, inside, read = passes(decoder, rows_on_the_right(), tokens_read, **asked)
    assert read == PLAIN
    assert inside.keys() == outside.keys()
    torch.testing.assert_close(inside.last_hidden_state, outside.last_hidden_state)


@torch.no_grad()
def test_padding_on_the_left_is_left_alone(decoder, tokens_read) -> None:
    """Its positions count the padding, unless the caller says otherwise."""
    ids, mask = batch(8, [4, 2, 4], [0, 2, 0])
    inputs = {"input_ids": ids, "attention_mask": mask.long()}
    assert passes(decoder, inputs, tokens_read, use_cache=False)[2] == PLAIN


@pytest.mark.parametrize("watched", ["the decoder", "a layer"])
@torch.no_grad()
def test_hooks_see_the_batch_and_once(decoder, tokens_read, watched) -> None:
    seen = []
    module = decoder if watched == "the decoder" else decoder.layers[1]
    module.register_forward_hook(
        lambda _, __, out: seen.append(tuple(getattr(out, "last_hidden_state", out).shape))
    )
    assert passes(decoder, rows_on_the_right(), tokens_read, use_cache=False)[2] == PLAIN
    assert seen == [PLAIN, PLAIN]


@pytest.mark.parametrize(
    "register",
    [
        lambda decoder, hook: decoder.layers[1].register_full_backward_hook(hook),
        lambda decoder, hook: decoder.layers[1].register_full_backward_pre_hook(hook),
        lambda decoder, hook: decoder.layers[1].register_forward_pre_hook(hook),
        lambda _, hook: nn.modules.module.register_module_forward_hook(hook),
        lambda _, hook: nn.modules.module.register_module_full_backward_hook(hook),
    ],
)
def test_hooks_of_every_kind_are_respected(decoder, tokens_read, register) -> None:
    handle = register(decoder, lambda *_: None)
    try:
        assert passes(decoder, rows_on_the_right(), tokens_read, use_cache=False)[2] == PLAIN
    finally:
        handle.remove()
    assert passes(decoder, rows_on_the_right(), tokens_read, use_cache=False)[2] == PACKED


@torch.no_grad()
def test_who_once_asked_for_hidden_states_does_not_slow_the_passes_after(
    decoder, tokens_read
) -> None:
    decoder(**rows_on_the_right(), output_hidden_states=True)
    assert any(layer._forward_hooks for layer in decoder.modules())  # transformers leaves them
    assert passes(decoder, rows_on_the_right(), tokens_read, use_cache=False)[2] == PACKED


@torch.no_grad()
def test_dropout_is_drawn_for_every_place(decoder, tokens_read) -> None:
    decoder.layers[0].mlp.act_fn = nn.Sequential(nn.SiLU(), nn.Dropout(0.5))
    assert passes(decoder.train(), rows_on_the_right(), tokens_read, use_cache=False)[2] == PLAIN
    assert passes(decoder.eval(), rows_on_the_right(), tokens_read, use_cache=False)[2] == PACKED


@pytest.mark.parametrize("name", ["attention_dropout", "dropout", "resid_pdrop", "router_jitter"])
@torch.no_grad()
def test_dropout_that_only_the_config_shows_is_drawn_for_every_place(
    decoder, tokens_read, name
) -> None:
    """OPT's layers call a function, so no module says that they draw."""
    setattr(decoder.config, name, 0.1)
    assert passes(decoder.train(), rows_on_the_right(), tokens_read, use_cache=False)[2] == PLAIN
    assert passes(decoder.eval(), rows_on_the_right(), tokens_read, use_cache=False)[2] == PACKED


def test_nothing_is_left_after_an_interrupt(decoder) -> None:
    with pytest.raises(KeyboardInterrupt), packing(decoder):
        raise KeyboardInterrupt
    assert "forward" not in decoder.__dict__
