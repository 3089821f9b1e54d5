"""`Roles.generate`: the sampler is the scorer, and an answer ends at its first stop token."""

import pytest
import torch
from transformers import GPT2Config, GPT2Model

from ftkit.models import Roles
from ftkit.models.generation import draw, sample

STOP = 7


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def roles(tiny_base):
    """A policy whose adapter does something; token 7 ends its answers."""
    roles = Roles(tiny_base)
    noise = seeded(0)
    with torch.no_grad():
        for parameter in roles.trainable("policy"):
            parameter.add_(torch.randn(parameter.shape, generator=noise) * 0.02)
    roles.facts.stop_ids.fill_(STOP)
    return roles


@pytest.fixture
def prompts():
    ids = torch.tensor([[0, 0, 21, 22], [31, 32, 33, 34], [0, 41, 42, 43]])
    return ids, torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]])


def bias_towards(roles, words: list[int], monkeypatch) -> None:
    """Make `words` so likely that hardly any other is sampled."""
    head = roles.model.get_base_model().lm_head
    bias = torch.zeros(len(head.weight)).index_fill(0, torch.tensor(words), 30.0)
    monkeypatch.setattr(head, "bias", torch.nn.Parameter(bias, requires_grad=False))


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_samplers_logprobs_are_the_scorers(roles, prompts, monkeypatch, temperature) -> None:
    bias_towards(roles, [STOP, 50, 51], monkeypatch)
    drawn = roles.generate(*prompts, max_new_tokens=8, temperature=temperature, generator=seeded(0))
    assert drawn.ended.any(), "no answer ended, so the test would not see padding"
    ids = torch.cat([prompts[0], drawn.ids], 1)
    mask = torch.cat([prompts[1], drawn.mask], 1)
    with torch.no_grad():
        scored = roles.logprobs_and_values(ids, mask, 4, temperature)
    torch.testing.assert_close(scored.logprobs, drawn.logprobs, rtol=1e-5, atol=1e-5)
    assert torch.equal(scored.mask, drawn.mask)


@pytest.mark.parametrize("count_padding", [False, True])
def test_positions_are_counted_as_asked_by_a_model_that_learned_them(
    prompts, count_padding
) -> None:
    """GPT-2's positions are absolute, so a count of the padding changes what it says."""
    torch.manual_seed(0)
    decoder = GPT2Model(GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=2)).eval()

    def logits_of(states):
        return states @ decoder.wte.weight.t() * 20

    ids, mask = prompts[0], prompts[1].bool()
    drawn = sample(
        decoder, logits_of, lambda states: states[:, 0], ids, mask, max_new_tokens=5,
        temperature=1.0, stop_ids=torch.tensor([], dtype=torch.long), pad_id=0,
        generator=seeded(0), count_padding=count_padding,
    )  # fmt: skip
    assert drawn.mask.all()
    whole = torch.cat([ids, drawn.ids], 1)
    seen = torch.cat([mask, drawn.mask], 1).long()
    real = (seen.cumsum(1) - 1).clamp(min=0)
    columns = torch.arange(whole.shape[1]).expand_as(whole)

    def scored(positions):
        with torch.no_grad():
            states = decoder(whole, attention_mask=seen, position_ids=positions).last_hidden_state
        logits = logits_of(states[:, 3:-1]).log_softmax(-1)
        return logits.gather(2, drawn.ids[..., None])[..., 0]

    right, wrong = (columns, real) if count_padding else (real, columns)
    torch.testing.assert_close(drawn.logprobs, scored(right), rtol=1e-4, atol=1e-4)
    off = (drawn.logprobs - scored(wrong)).abs().amax(1)
    assert (off[mask.all(1)] < 1e-4).all()
    assert (off[~mask.all(1)] > 0.1).all()


def test_rotary_positions_do_not_notice_counted_padding(roles, prompts) -> None:
    drawn = roles.generate(*prompts, max_new_tokens=6, generator=seeded(0))
    with roles.counting_padding():
        again = roles.generate(*prompts, max_new_tokens=6, generator=seeded(0))
    assert torch.equal(drawn.ids, again.ids)
    torch.testing.assert_close(drawn.logprobs, again.logprobs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("run", ["generate", "logprobs_and_values", "scores"])
def test_all_passes_of_the_roles_count_as_asked(roles, prompts, monkeypatch, run) -> None:
    given = {"generate": {"max_new_tokens": 2}, "logprobs_and_values": {"response_start": 3}}
    decoder, seen = roles.model.get_base_model().get_decoder(), []
    plain = decoder.forward
    monkeypatch.setattr(
        decoder,
        "forward",
        lambda *args, **inputs: seen.append(inputs.get("position_ids")) or plain(*args, **inputs),
    )
    roles.add_reward()

    def columns_are_counted() -> bool:
        """In the last pass over whole rows."""
        getattr(roles, run)(*prompts, **given.get(run, {}))
        positions = [ids for ids in seen if ids is not None and ids.shape[1] > 1][-1]
        return torch.equal(positions, torch.arange(positions.shape[1]).expand_as(positions))

    assert not columns_are_counted()
    with roles.counting_padding():
        assert columns_are_counted()
        with roles.counting_padding(False):
            assert not columns_are_counted()
    assert not columns_are_counted()


def test_without_a_stop_a_stop_token_is_one_like_others(roles, prompts, monkeypatch) -> None:
    bias_towards(roles, [STOP, 50], monkeypatch)
    drawn = roles.generate(*prompts, max_new_tokens=8, generator=seeded(0), stop=False)
    assert drawn.mask.all()
    assert not drawn.ended.any()
    assert (drawn.ids[:, :-1] == STOP).any()


def test_behind_the_first_stop_token_there_is_only_padding(roles, prompts, monkeypatch) -> None:
    bias_towards(roles, [STOP, 50, 51], monkeypatch)
    many = [t.repeat(8, 1) for t in prompts]
    drawn = roles.generate(*many, max_new_tokens=6, generator=seeded(0))
    for ids, real, logprobs, ended in zip(
        drawn.ids, drawn.mask, drawn.logprobs, drawn.ended, strict=True
    ):
        length = int(real.sum())
        assert real.tolist() == [True] * length + [False] * (len(real) - length)
        assert (ids[:length] == STOP).sum() == ended
        assert not ended or ids[length - 1] == STOP
        assert (ids[length:] == roles.facts.pad_id).all()
        assert not logprobs[length:].any()
    assert 0 < drawn.ended.sum() < len(drawn.ended)


def test_sampling_stops_when_every_answer_has_ended(roles, prompts, monkeypatch) -> None:
    bias_towards(roles, [STOP], monkeypatch)
    drawn = roles.generate(*prompts, max_new_tokens=50, temperature=0.1)
    assert drawn.ids.tolist() == [[STOP]] * 3
    assert drawn.ended.all()


def test_a_generator_makes_answers_repeatable(roles, prompts) -> None:
    def draw(seed: int):
        return roles.generate(*prompts, max_new_tokens=5, generator=seeded(seed)).ids

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_frequencies_follow_the_whole_tempered_distribution(roles) -> None:
    """No top-k, no nucleus, no penalty of the model's files: 600 draws of one token."""
    roles.model.generation_config.top_k = 1
    roles.model.generation_config.repetition_penalty = 9.0
    ids = torch.tensor([[21, 22]])
    with torch.no_grad():
        expected = torch.softmax(roles.model(ids).logits[0, -1] / 0.05, -1)
    many = ids.expand(600, 2)
    drawn = roles.generate(
        many, torch.ones_like(many), max_new_tokens=1, temperature=0.05,
        generator=seeded(0),
    )  # fmt: skip
    counted = torch.bincount(drawn.ids[:, 0], minlength=len(expected)) / 600
    groups = expected.argsort(descending=True).split(len(expected) // 8)
    for group in groups:
        share = expected[group].sum()
        error = 4 * (share * (1 - share) / 600).sqrt() + 1e-3
        assert abs(counted[group].sum() - share) < error


def test_sampling_plays_the_policy_and_leaves_role_and_mode_alone(roles, prompts) -> None:
    def draw():
        return roles.generate(*prompts, max_new_tokens=4, generator=seeded(1)).logprobs

    alone = draw()
    roles.model.train()
    with roles.as_reference():
        torch.testing.assert_close(draw(), alone)
        assert roles.active == "reference"
    assert roles.model.training


def test_draws_follow_the_probabilities_and_never_take_a_zero() -> None:
    shares = torch.tensor([0.0, 0.5, 0.0, 0.2, 1e-9, 0.3, 0.0])
    generator = torch.Generator().manual_seed(0)
    drawn = draw(shares.expand(20_000, -1), generator)
    assert drawn.shape == (20_000, 1)
    counts = drawn.flatten().bincount(minlength=len(shares)) / 20_000
    torch.testing.assert_close(counts, shares, rtol=0, atol=0.015)  # over 4 standard deviations
    assert not counts[shares == 0].any()


@pytest.mark.parametrize("uniform", [0.0, 1.0 - 2.0**-53])
def test_the_ends_of_the_uniform_number_stay_within_the_vocabulary(monkeypatch, uniform) -> None:
    monkeypatch.setattr(
        torch, "rand", lambda shape, **_: torch.full(shape, uniform, dtype=torch.float64)
    )
    inner = torch.zeros(1, 50_000)
    inner[0, 7:40_000] = 0.1 / 4  # a sum far from 1 that float32 rounds
    assert draw(inner).item() == (39_999 if uniform == 0 else 7)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0])
def test_a_row_that_is_no_distribution_is_named(bad) -> None:
    rows = torch.full((3, 4), 0.25)
    rows[1] = bad
    with pytest.raises(ValueError, match="row 1 holds no distribution"):
        draw(rows)
