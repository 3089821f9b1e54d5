"""A batch in one row: against every row alone, unpadded, through the plain decoder."""

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_remade import storage
from transformers import (
    BloomConfig,
    BloomModel,
    GemmaConfig,
    GemmaModel,
    GPT2Config,
    GPT2Model,
    GPTNeoConfig,
    GPTNeoModel,
    MistralConfig,
    MistralModel,
)

from ftkit.models import Roles, load, packed_rows, row_attention
from ftkit.models.packed_rows import Packed

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def roles(tiny_folder):
    """A policy whose adapter does something."""
    roles = Roles(load(str(tiny_folder), quantization=None, device="cpu"))
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in roles.trainable("policy"):
            parameter.add_(torch.randn(parameter.shape, generator=noise) * 0.05)
    return roles


def batch(shared: int, rests: list[int], pads: list[int], seed: int = 0):
    """Rows of `shared` equal tokens, then `rests` own ones; `pads` of the padding on the left."""
    draw = torch.Generator().manual_seed(seed)
    start = torch.randint(10, 400, (shared,), generator=draw).tolist()
    longest = max(map(sum, zip(rests, pads, strict=True))) + shared
    ids, mask = [], []
    for row, (rest, left) in enumerate(zip(rests, pads, strict=True)):
        # The first own token differs from row to row, so the beginning is not longer.
        own = [10 + row, *torch.randint(10, 400, (rest - 1,), generator=draw).tolist()]
        right = longest - left - shared - rest
        ids.append([0] * left + start + own + [0] * right)
        mask.append([0] * left + [1] * (shared + rest) + [0] * right)
    return torch.tensor(ids), torch.tensor(mask).bool()


def alone(decoder, ids, mask):
    """States of all real tokens, each row read by itself."""
    rows = zip(ids, mask, strict=True)
    return torch.cat(
        [decoder(input_ids=row[real][None]).last_hidden_state[0] for row, real in rows]
    )


shapes = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3)), min_size=2, max_size=4)


@settings(max_examples=40, deadline=None)
@given(shared=st.integers(3, 12), shape=shapes)
def test_states_and_gradients_are_those_of_each_row_alone(roles, shared, shape) -> None:
    ids, mask = batch(shared, *map(list, zip(*shape, strict=True)))
    decoder, parameters = roles._decoder, list(roles._adapter("policy"))
    states, _ = packed_rows.read(decoder, ids, mask)
    expected = alone(decoder, ids, mask)
    torch.testing.assert_close(states[mask], expected, **CLOSE)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    found = torch.autograd.grad((states[mask] * weights).sum(), parameters)
    wanted = torch.autograd.grad((expected * weights).sum(), parameters)
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_every_token_that_predicts_is_read_once_and_no_other(roles) -> None:
    """Padding predicts nothing, nor does the last token of a row."""
    assert packed_rows._understands(roles._decoder)  # tried before anything is counted
    seen = []
    layer = roles._decoder.layers[0]
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[:2]))
    try:
        with torch.no_grad():
            roles.logprobs_and_values(*batch(8, [4, 2, 4], [0, 2, 0]), 9)
    finally:
        handle.remove()
    assert seen == [(1, 8 + 3 + 1 + 3)]


@torch.no_grad()
def test_equal_rows_are_read_as_one(roles) -> None:
    ids = torch.tensor([[11, 12, 13, 14]] * 3)
    mask = torch.ones_like(ids).bool()
    assert Packed.of(ids, mask).ids.tolist() == [[11, 12, 13, 14]]
    states, _ = packed_rows.read(roles._decoder, ids, mask)
    torch.testing.assert_close(states[mask], alone(roles._decoder, ids, mask), **CLOSE)


def test_gradients_of_equal_rows_are_the_same_every_time(roles) -> None:
    ids = torch.tensor([[11, 12, 13, 14, 15, 16]] * 8)
    mask = torch.ones_like(ids).bool()
    weights = torch.randn(8, 6, 64, generator=torch.Generator().manual_seed(4))
    first, *others = (
        torch.autograd.grad(
            (packed_rows.read(roles._decoder, ids, mask)[0] * weights).sum(),
            list(roles._adapter("policy")),
        )
        for _ in range(10)
    )
    for other in others:
        assert all(map(torch.equal, first, other))


def test_nothing_waits_in_rows_for_the_backward_pass(roles, monkeypatch) -> None:
    """Queries, keys, values and the result: three rows of 16 columns would be 48 tokens, not 18."""
    waiting = []

    class Watched(row_attention._Rows):
        def __init__(self, *args):
            super().__init__(*args)
            waiting.append(self)

    monkeypatch.setattr(row_attention, "_Rows", Watched)
    packed_rows.read(roles._decoder, *batch(8, [4, 2, 4], [0, 2, 0]))
    sums = 3 * 4 * 16  # of the softmax: one a head and query
    matrices = [one.kept.tensor for one in waiting if one.kept.tensor.numel() > sums]
    assert [len(one) for one in matrices] == [18] * 4 * len(roles._decoder.layers)


@pytest.mark.parametrize("fails", [True, False])
def test_a_pass_that_ends_early_or_is_not_followed_leaves_nothing(fails, monkeypatch) -> None:
    """Its result would wait in the node that made it, and hold the whole graph for good."""
    plain, made = torch.nn.functional.scaled_dot_product_attention, []

    def attention(*args, **options):
        result = plain(*args, **options)
        made.append(storage(result))
        if fails:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    packed, leaves, _ = attention_inputs(torch.float32)
    with pytest.raises(KeyboardInterrupt) if fails else nullcontext():
        row_attention._attend(grouped(), *leaves, None, packed=packed)
    assert [one.expired() for one in made] == [True]


def grouped() -> torch.nn.Module:
    """An attention layer with two heads of queries for one of keys, as transformers asks it."""
    module = torch.nn.Module()
    module.is_causal, module.num_key_value_groups = True, 2
    return module


def attention_inputs(dtype: torch.dtype):
    """A packed row of 18 tokens; queries, keys and values that want gradients; a slope."""
    draw = torch.Generator().manual_seed(5)
    packed = Packed.of(*batch(8, [4, 2, 4], [0, 2, 0]))
    states = [torch.randn(1, heads, 18, 16, generator=draw).to(dtype) for heads in (4, 2, 2)]
    slope = torch.randn(1, 18, 4, 16, generator=draw).to(dtype)
    return packed, [part.requires_grad_() for part in states], slope


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_attention_of_halves_has_the_gradients_of_float32(dtype) -> None:
    """The backward pass runs in float32 on a CPU; what goes in and comes out is rounded."""
    packed, leaves, slope = attention_inputs(dtype)
    result, _ = row_attention._attend(grouped(), *leaves, None, packed=packed)
    assert result.dtype is dtype
    rough = torch.autograd.grad(result, leaves, slope)
    wide = [part.detach().float().requires_grad_() for part in leaves]
    exact, _ = row_attention._attend(grouped(), *wide, None, packed=packed)
    fine = torch.autograd.grad(exact, wide, slope.float())
    for mine, theirs in zip([result, *rough], [exact, *fine], strict=True):
        torch.testing.assert_close(mine.float(), theirs, rtol=1e-2, atol=1e-2)
    with torch.no_grad():  # as a frozen reference is read
        alike, _ = row_attention._attend(grouped(), *leaves, None, packed=packed)
    assert torch.equal(alike, result)


def test_dropout_of_attention_weights_is_drawn_once(tiny_folder) -> None:
    """The backward pass must see the weights that the forward pass dropped: along a line, the
    states' change is what the gradient says."""
    decoder = Roles(load(str(tiny_folder), quantization=None, device="cpu"))._decoder.double()
    for layer in decoder.layers:
        layer.self_attn.attention_dropout = 0.3
    ids, mask = batch(8, [4, 2, 4], [0, 2, 0])
    packed, weight = Packed.of(ids, mask), decoder.layers[0].self_attn.v_proj.weight
    weight.requires_grad_()
    decoder.train()

    def value() -> torch.Tensor:
        torch.manual_seed(0)
        return packed.read(decoder)[mask].sin().sum()

    slope = torch.autograd.grad(value(), weight)[0]
    step = 1e-5 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(6)).double()
    with torch.no_grad():
        below = value()
        weight += step
        torch.testing.assert_close(value() - below, (slope * step).sum(), rtol=0.01, atol=1e-9)


@torch.no_grad()
def test_holes_and_rows_that_are_only_the_beginning_are_read(roles) -> None:
    ids, mask = batch(6, [3, 3, 1], [0, 0, 0])
    mask[2, 6:] = False  # nothing of its own
    mask[:, 2] = False  # a hole in the beginning, another in a row
    mask[0, 7] = False
    assert Packed.of(ids, mask) is not None
    states, _ = packed_rows.read(roles._decoder, ids, mask)
    torch.testing.assert_close(states[mask], alone(roles._decoder, ids, mask), **CLOSE)


def test_no_row_attends_to_another(roles, monkeypatch) -> None:
    """Not with a mask over all: what it hides would still be computed, by the square of the row."""
    asked, plain = [], torch.nn.functional.scaled_dot_product_attention

    def spy(query, key, value, **options):
        asked.append((query.shape[0], query.shape[2], key.shape[2], options["attn_mask"]))
        return plain(query, key, value, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    with torch.no_grad():
        packed_rows.read(roles._decoder, *batch(8, [4, 2, 4], [0, 2, 0]))
    assert asked == [(3, 16, 16, None)] * len(roles._decoder.layers)


def test_more_tokens_than_the_model_has_positions_are_not_packed() -> None:
    ids, mask = batch(20, [10, 10, 10], [0, 0, 0])
    assert Packed.of(ids, mask, longest=50) is not None
    assert Packed.of(ids, mask, longest=49) is None


@torch.no_grad()
def test_a_row_without_a_real_token_harms_no_other(roles) -> None:
    ids, mask = batch(6, [2, 2, 2], [0, 0, 0])
    mask[1] = False
    states, _ = packed_rows.read(roles._decoder, ids, mask)
    expected = alone(roles._decoder, ids[[0, 2]], mask[[0, 2]])
    torch.testing.assert_close(states[mask], expected, **CLOSE)


@pytest.mark.parametrize(
    ("ids", "mask"),
    [
        ([[11, 12], [11, 12]], [[0] * 2] * 2),  # only padding
        ([[11, 12, 13, 14, 15, 16]], [[1] * 6]),  # one row: nothing to share
        ([[11, 12, 13], [21, 12, 13]], [[1] * 3] * 2),  # no common beginning
        ([[11, *range(12, 30)], [11, *range(40, 58)]], [[1] * 19] * 2),  # one token of 19
        ([[0, 11, 12, 13, 14], [11, 0, 12, 14, 15]], [[1] * 5, [1, 0, 1, 1, 1]]),  # by columns only
    ],
)
def test_what_does_not_pay_is_not_packed(ids, mask) -> None:
    assert Packed.of(torch.tensor(ids), torch.tensor(mask).bool()) is None


def sliding():
    return MistralModel(
        MistralConfig(
            vocab_size=500, hidden_size=32, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, sliding_window=6,
        )
    )  # fmt: skip


def alibi():
    """Positions as a bias that the model makes from a mask ``(batch, time)``: no packed row."""
    return BloomModel(BloomConfig(vocab_size=500, hidden_size=32, n_layer=2, n_head=2))


def own_window():
    """A window that the layers cut by themselves, which no cache layer tells."""
    return GPTNeoModel(
        GPTNeoConfig(
            vocab_size=500, hidden_size=32, num_layers=2, num_heads=2, window_size=6,
            attention_types=[[["global", "local"], 1]],
        )
    )  # fmt: skip


def learned_positions():
    return GPT2Model(GPT2Config(vocab_size=500, n_embd=32, n_layer=2, n_head=2))


@pytest.mark.parametrize(
    ("make", "packs"),
    [(sliding, False), (alibi, False), (own_window, False), (learned_positions, True)],
)
def test_an_architecture_is_packed_only_if_it_reads_the_same(make, packs) -> None:
    torch.manual_seed(0)
    decoder = make().eval()
    ids, mask = batch(8, [5, 2], [0, 0])
    seen = []
    embedding = decoder.get_input_embeddings()
    with torch.no_grad():
        packed_rows.read(decoder, ids, mask)  # the trial
        embedding.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[0]))
        states, _ = packed_rows.read(decoder, ids, mask)
        assert seen == [1 if packs else 2]
        torch.testing.assert_close(states[mask], alone(decoder, ids, mask), **CLOSE)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_base_is_packed_in_every_compute_dtype(tiny_folder, dtype) -> None:
    """Trained or not, halves attend alike: in 16 bits, rounding otherwise looks like a mistake."""
    base = load(str(tiny_folder), quantization=None, device="cpu", compute_dtype=dtype)
    decoder, (ids, mask) = Roles(base)._decoder, batch(8, [4, 2, 4], [0, 2, 0])
    assert packed_rows._understands(decoder)
    trained = packed_rows.packed(decoder, ids, mask)
    with torch.no_grad():
        assert torch.equal(packed_rows.packed(decoder, ids, mask), trained)


def test_layers_that_are_run_again_are_not_packed(tiny_folder) -> None:
    decoder = Roles(load(str(tiny_folder), quantization=None, device="cpu"))._decoder
    assert packed_rows._understands(decoder)
    decoder.gradient_checkpointing_enable()
    decoder.train()
    assert not packed_rows._understands(decoder)


@torch.no_grad()
def test_a_padding_token_without_a_state_does_not_spoil_the_trial() -> None:
    config = GemmaConfig(
        vocab_size=500, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, pad_token_id=0,
    )  # fmt: skip
    assert packed_rows._understands(GemmaModel(config).eval())


def test_sampling_draws_the_same_tokens_as_without(roles, monkeypatch) -> None:
    ids, mask = batch(8, [3, 2, 1], [0, 1, 2])
    drawn = []
    for worth in (packed_rows._WORTH, 2.0):  # 2: never split
        monkeypatch.setattr(packed_rows, "_WORTH", worth)
        generator = torch.Generator().manual_seed(3)
        drawn.append(roles.generate(ids, mask, max_new_tokens=6, generator=generator))
    assert torch.equal(drawn[0].ids, drawn[1].ids)
    torch.testing.assert_close(drawn[0].logprobs, drawn[1].logprobs, **CLOSE)
    torch.testing.assert_close(drawn[0].values, drawn[1].values, **CLOSE)
