"""`Roles`: four roles on one base, against full logits computed the naive way.

A tiny random Llama for the numbers; the embedded model in NF4 once.
"""

import hashlib
import weakref
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from ftkit.errors import SettingsError
from ftkit.models import Roles, load, read_adapter, strip_adapters
from ftkit.models import token_statistics as statistics_module
from ftkit.models.lora import tuner_layers

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def base_checksum(model) -> str:
    """SHA-256 of all weights that belong to no adapter, by name."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters(), key=lambda item: item[0]):
        if ".lora_" not in name:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def stir(roles, role: str, seed: int = 1) -> None:
    """Give a role's adapter and head weights that do something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in roles.trainable(role):
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


@pytest.fixture
def roles(tiny_base):
    roles = Roles(tiny_base)
    roles.add_reward()
    stir(roles, "policy", 1)
    stir(roles, "reward", 2)
    return roles


@pytest.fixture
def batch():
    """Three left-padded prompts of up to 4 tokens, responses of 5, 3 and 1 tokens from column 4."""
    ids = torch.randint(10, 400, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1] * 9, [0, 1, 1, 1, 1, 1, 1, 0, 0], [0, 0, 0, 1, 1, 0, 0, 0, 0]])
    return ids, mask


def naive(roles, ids, mask, start, temperature=1.0):
    """Log-probabilities, values and entropies of each row alone, unpadded, from all its logits."""
    rows = []
    for row, keep in zip(ids, mask.bool(), strict=True):
        prompt, tokens = int(keep[:start].sum()), row[keep][None]
        out = roles.model.get_base_model()(tokens, output_hidden_states=True)
        logp = torch.log_softmax(out.logits[0, prompt - 1 : -1] / temperature, -1)
        states = out.hidden_states[-1][0, prompt - 1 : -1]
        picked = logp.gather(1, tokens[0, prompt:, None]).squeeze(1)
        rows.append((picked, roles.value_head(states).squeeze(1), -(logp.exp() * logp).sum(1)))
    return [torch.cat(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_one_pass_equals_full_logits_of_each_row_alone(roles, batch, temperature) -> None:
    ids, mask = batch
    with torch.no_grad():
        out = roles.logprobs_and_values(ids, mask, 4, temperature, with_entropy=True)
        logprobs, values, entropy = naive(roles, ids, mask, 4, temperature)
    assert out.mask.tolist() == mask[:, 4:].bool().tolist()
    torch.testing.assert_close(out.logprobs[out.mask], logprobs, **CLOSE)
    torch.testing.assert_close(out.values[out.mask], values, **CLOSE)
    torch.testing.assert_close(out.entropy[out.mask], entropy, **CLOSE)
    for tensor in (out.logprobs, out.values, out.entropy):
        assert not tensor[~out.mask].any(), "padding holds a number"


def test_values_and_entropies_are_computed_only_on_request(roles, batch) -> None:
    out = roles.logprobs_and_values(*batch, 4, with_values=False)
    assert out.values is None
    assert out.entropy is None


@pytest.mark.parametrize(("rows", "logits"), [(1, 1), (2, 200), (100, 700), (100, 10**6)])
def test_gradients_equal_those_through_full_logits_whatever_is_held_at_a_time(
    roles, batch, rows, logits, monkeypatch
) -> None:
    monkeypatch.setattr(statistics_module, "_ROWS", rows)
    monkeypatch.setattr(statistics_module, "_LOGITS", {"cpu": logits})
    ids, mask = batch
    weights = torch.linspace(-1, 2, 9)

    def gradients(logprobs, values, entropy):
        roles.model.zero_grad()
        roles.value_head.zero_grad()
        (weights @ logprobs + weights.flip(0) @ values.pow(2) + 0.3 * weights @ entropy).backward()
        return [p.grad.clone() for p in roles.trainable("policy")]

    out = roles.logprobs_and_values(ids, mask, 4, 0.7, with_entropy=True)
    ours = gradients(*(t[out.mask] for t in (out.logprobs, out.values, out.entropy)))
    theirs = gradients(*naive(roles, ids, mask, 4, 0.7))
    assert max(g.abs().max() for g in theirs) > 1e-2
    for mine, other in zip(ours, theirs, strict=True):
        # Of the whole tensor: each of the two is 5e-6 off its float64 value, by rounding alone.
        assert (mine - other).norm() < 5e-5 * other.norm()


def test_no_tensor_of_the_size_of_all_logits_is_made_or_kept(roles, batch, monkeypatch) -> None:
    monkeypatch.setattr(statistics_module, "_ROWS", 4)
    monkeypatch.setattr(statistics_module, "_LOGITS", {"cpu": 800})
    read, plain = [], statistics_module._Scan.read

    def spy(scan, first, weight, z, steep):
        read.append((*z.shape, first))
        plain(scan, first, weight, z, steep)

    monkeypatch.setattr(statistics_module._Scan, "read", spy)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(weakref.ref(t)) or t, lambda t: t
    ):
        out = roles.logprobs_and_values(*batch, 4)
    vocab = roles.model.config.vocab_size
    assert sum(rows * width for rows, width, _ in read) == 9 * vocab, "padding or a prompt was read"
    assert all(rows * width <= 800 for rows, width, _ in read)
    waiting = [tuple(t.shape) for t in (ref() for ref in kept) if t is not None]
    assert waiting
    assert not any(vocab in shape for shape in waiting), "logits wait for the backward pass"
    read.clear()
    out.logprobs.sum().backward()
    assert read == [], "the LM head ran again in the backward pass"


def test_left_and_right_padding_give_the_same_numbers(roles) -> None:
    rows = [torch.arange(20, 27), torch.arange(40, 44)]  # prompts of 3 and 2 tokens
    left, right = torch.zeros(2, 2, 7, dtype=torch.long), torch.zeros(2, 2, 7, dtype=torch.long)
    for i, row in enumerate(rows):
        left[:, i, 7 - len(row) :] = torch.stack([row, torch.ones_like(row)])
        right[:, i, : len(row)] = torch.stack([row, torch.ones_like(row)])
    on_left = roles.logprobs_and_values(*left, torch.tensor([3, 5]))
    on_right = roles.logprobs_and_values(*right, torch.tensor([3, 2]))
    torch.testing.assert_close(
        on_left.logprobs[on_left.mask], on_right.logprobs[on_right.mask], **CLOSE
    )
    torch.testing.assert_close(
        on_left.values[on_left.mask], on_right.values[on_right.mask], **CLOSE
    )
    torch.testing.assert_close(roles.scores(*left), roles.scores(*right), **CLOSE)
    wider = [torch.nn.functional.pad(t, (2, 3)) for t in left]
    torch.testing.assert_close(roles.scores(*wider), roles.scores(*left), **CLOSE)


def test_a_score_is_read_at_the_last_real_token_even_when_pad_is_the_stop_token(roles) -> None:
    stop = int(roles.facts.stop_ids[0])
    ids = torch.tensor([[30, 31, stop, stop, stop], [30, 31, 32, 33, stop]])
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    scores = roles.scores(ids, mask)
    with roles.as_reward(), torch.no_grad():
        for row, keep, score in zip(ids, mask.bool(), scores, strict=True):
            out = roles.model.get_base_model()(row[keep][None], output_hidden_states=True)
            expected = out.hidden_states[-1][0, -1] @ roles.score_head.weight[0]
            torch.testing.assert_close(score, expected, **CLOSE)


def test_inputs_that_cannot_be_right_are_refused_with_their_place(roles, batch) -> None:
    ids, mask = batch
    with pytest.raises(ValueError, match="response_start is 0 to 0"):
        roles.logprobs_and_values(ids, mask, 0)
    with pytest.raises(ValueError, match="same \\(batch, time\\)"):
        roles.logprobs_and_values(ids, mask[:, 1:], 4)
    with pytest.raises(ValueError, match="temperature=0"):
        roles.logprobs_and_values(ids, mask, 4, temperature=0)
    gap = mask.clone()
    gap[0, 3] = 0
    with pytest.raises(ValueError, match="row 0: response token 0 follows padding"):
        roles.logprobs_and_values(ids, gap, 4)
    with pytest.raises(ValueError, match="no row has a response token"):
        roles.logprobs_and_values(ids, mask * (torch.arange(9) < 4), 4)
    with pytest.raises(ValueError, match="row 1 has no real token"):
        roles.scores(ids, mask * torch.tensor([[1], [0], [1]]))
    with pytest.raises(ValueError, match="prompt 1 ends with padding"):
        roles.generate(ids, mask, max_new_tokens=1)


# Switching


def logits(roles) -> torch.Tensor:
    with torch.no_grad():
        return roles.model(torch.tensor([[5, 6, 7]])).logits


def flags(roles) -> list[bool]:
    return [p.requires_grad for p in roles.model.parameters()]


def test_each_role_computes_something_else_and_the_reference_is_the_bare_base(tiny_base) -> None:
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        bare = tiny_base.model(ids).logits
    roles = Roles(tiny_base)
    torch.testing.assert_close(logits(roles), bare)
    roles.add_reward()
    stir(roles, "policy", 1)
    stir(roles, "reward", 2)
    assert not torch.allclose(logits(roles), bare, atol=1e-3)
    with roles.as_reference():
        torch.testing.assert_close(logits(roles), bare, rtol=0, atol=0)
    with roles.as_reward():
        assert not torch.allclose(logits(roles), bare, atol=1e-3)


def test_switches_nest_and_restore_role_and_flags_even_after_exceptions(roles) -> None:
    before = flags(roles)
    with roles.as_reward():
        assert roles.active == "reward"
        with roles.as_reference():
            assert roles.active == "reference"
            with roles.as_policy():
                assert roles.active == "policy"
                assert flags(roles) == before
            assert roles.active == "reference"
            assert flags(roles) == before
        assert roles.active == "reward"
    with pytest.raises(RuntimeError, match="stop"), roles.as_reference(), roles.as_reward():
        raise RuntimeError("stop")
    assert roles.active == "policy"
    assert flags(roles) == before


def test_flags_that_the_user_sets_survive_a_switch(roles) -> None:
    frozen = next(roles.trainable("policy"))
    with roles.as_reference():
        frozen.requires_grad_(False)
    assert not frozen.requires_grad


def test_a_switch_reaches_a_layer_that_was_switched_or_merged_by_hand(roles) -> None:
    layer = next(tuner_layers(roles.model))
    layer.set_adapter("reward")
    assert roles.active == "policy"
    with roles.as_policy():
        assert layer.active_adapters == ["policy"]
    layer.merge(adapter_names=["reward"])
    with roles.as_policy():
        assert not layer.merged


def test_a_switch_under_disabled_adapters_would_do_nothing_and_is_refused(roles) -> None:
    with (
        roles.model.disable_adapter(),
        pytest.raises(SettingsError, match="disabled"),
        roles.as_reward(),
    ):
        pass


def test_only_the_trained_role_changes_and_never_the_base(roles, batch) -> None:
    ids, mask = batch
    for role in ("policy", "reward"):
        base = base_checksum(roles.model)
        other = {"policy": "reward", "reward": "policy"}[role]
        others = [p.detach().clone() for p in roles.trainable(other)]
        mine = [p.detach().clone() for p in roles.trainable(role)]
        optimizer = torch.optim.AdamW(roles.trainable(role), lr=1e-2)
        if role == "policy":
            out = roles.logprobs_and_values(ids, mask, 4)
            (out.logprobs.sum() + out.values.sum()).backward()
        else:
            roles.scores(ids, mask).sum().backward()
        optimizer.step()
        roles.model.zero_grad()
        assert base_checksum(roles.model) == base
        assert all(torch.equal(a, b) for a, b in zip(others, roles.trainable(other), strict=True))
        assert all(
            not torch.equal(a, b) for a, b in zip(mine, roles.trainable(role), strict=True)
        ), f"a weight of {role} did not move"


def test_heads_start_as_the_papers_say(tiny_base) -> None:
    roles = Roles(tiny_base)
    assert roles.score_head is None
    roles.add_reward()
    assert not roles.value_head.weight.any()
    assert not roles.value_head.bias.any()
    assert roles.score_head.bias is None
    assert roles.score_head.weight.std().item() == pytest.approx(65**-0.5, rel=0.25)


def test_seeds_decide_the_start_and_leave_the_global_state_alone(tiny_base) -> None:
    def start(seed: int) -> torch.Tensor:
        return next(Roles(tiny_base, seed=seed).trainable("policy")).detach().clone()

    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(start(0), start(0))
    assert not torch.equal(start(0), start(1))
    assert torch.equal(torch.rand(1), expected)


def test_missing_and_doubled_roles_are_refused(tiny_base) -> None:
    roles = Roles(tiny_base)
    with pytest.raises(SettingsError, match="no reward model"):
        roles.scores(torch.ones(1, 2, dtype=torch.long), torch.ones(1, 2))
    for wrong in ("reward", "reference"):
        with pytest.raises(SettingsError, match="not trainable"):
            next(roles.trainable(wrong))
    roles.add_reward()
    with pytest.raises(SettingsError, match="already"):
        roles.add_reward()
    with pytest.raises(SettingsError, match="reference='of'"):
        Roles(tiny_base, reference="of")
    with pytest.raises(SettingsError, match="no policy adapter"):
        Roles(tiny_base, target_modules=("nowhere",))


# Where roles come from


@pytest.fixture
def sft(tiny_base):
    """The tiny model with a trained adapter "default", as an SFT trainer leaves it."""
    config = LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.1, task_type="CAUSAL_LM")
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = get_peft_model(tiny_base.model, config).to(torch.float32)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
    return model.train()


def test_a_model_from_stages_sft_flows_straight_into_roles(tiny_base) -> None:
    from ftkit import data, stages

    recipe = stages.SFTRecipe(
        steps=2, batch_size=2, max_length=64, learning_rate=1e-2, warmup_steps=0, eval_every=0
    )
    trainer = stages.sft(tiny_base, data.chatterbot("tech_support").select(range(4)), recipe=recipe)
    trainer.train()
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        trained = trainer.model.eval()(ids).logits
        with trainer.model.disable_adapter():
            assert not torch.allclose(trainer.model(ids).logits, trained, atol=1e-3)
    roles = Roles(trainer.model)
    torch.testing.assert_close(logits(roles), trained)
    with roles.as_reference():
        torch.testing.assert_close(logits(roles), trained)
    assert roles.facts.stop_ids.tolist() == [tiny_base.tokenizer.eos_token_id]
    assert roles.facts.pad_id == tiny_base.tokenizer.pad_token_id


@pytest.mark.parametrize("give", ["peft model", "loaded"])
def test_policy_and_reference_start_as_copies_of_the_sft_adapter(tiny_base, sft, give) -> None:
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        trained = sft.eval()(ids).logits
        with sft.disable_adapter():
            bare = sft(ids).logits
    sft.train()
    roles = Roles(sft if give == "peft model" else tiny_base)
    torch.testing.assert_close(logits(roles), trained)
    assert not torch.allclose(trained, bare, atol=1e-3)
    stir(roles, "policy")
    assert not torch.allclose(logits(roles), trained, atol=1e-3)
    with roles.as_reference():
        torch.testing.assert_close(logits(roles), trained)
    assert roles.model.peft_config["policy"].r == 4
    assert not any(p.requires_grad for n, p in roles.model.named_parameters() if ".reference." in n)


def test_the_reference_can_be_the_bare_base_of_an_sft_model(sft) -> None:
    with torch.no_grad(), sft.eval().disable_adapter():
        bare = sft(torch.tensor([[5, 6, 7]])).logits
    roles = Roles(sft, reference="off")
    with roles.as_reference():
        torch.testing.assert_close(logits(roles), bare)


def test_the_roles_stay_in_eval_mode_so_that_dropout_cannot_move_the_ratio(sft) -> None:
    roles = Roles(sft)
    assert torch.equal(logits(roles), logits(roles))
    roles.model.train()
    assert torch.equal(logits(roles), logits(roles)), "dropout of the SFT adapter is still there"


def test_building_roles_again_starts_over_from_the_sft_adapter(tiny_base, sft) -> None:
    first = Roles(sft)
    start = logits(first)
    stir(first, "policy")
    torch.testing.assert_close(logits(Roles(tiny_base)), start)
    fresh = Roles(tiny_base, start="new")
    with fresh.as_reference():
        bare = logits(fresh)
    torch.testing.assert_close(logits(fresh), bare)
    assert not torch.allclose(bare, start, atol=1e-3)


def test_the_base_is_given_back_as_it_was(tiny_base) -> None:
    names = [n for n, _ in tiny_base.model.named_parameters()]
    before = base_checksum(tiny_base.model)
    Roles(tiny_base).add_reward()
    strip_adapters(tiny_base.model)
    assert [n for n, _ in tiny_base.model.named_parameters()] == names
    assert base_checksum(tiny_base.model) == before


def reward_trainee(tiny_base):
    """What TRL's RewardTrainer trains: a sequence classifier on the same backbone."""
    from transformers import LlamaForSequenceClassification

    config = tiny_base.model.config
    config.num_labels = 1
    classifier = LlamaForSequenceClassification(config)
    classifier.model = tiny_base.model.model
    lora = LoraConfig(
        r=4, target_modules="all-linear", modules_to_save=["score"], task_type="SEQ_CLS"
    )
    model = get_peft_model(classifier, lora).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def test_a_reward_trainers_model_becomes_the_reward_role_with_its_head(tiny_base, sft) -> None:
    start = read_adapter(sft)
    strip_adapters(tiny_base.model)
    trained = reward_trainee(tiny_base)
    ids = torch.tensor([[30, 31, 32], [40, 41, 42]])
    with torch.no_grad():
        expected = trained(ids).logits[:, 0]
    reward = read_adapter(trained)
    with pytest.raises(SettingsError, match="reward model's adapter"):
        Roles(trained)
    roles = Roles(tiny_base, start=start)
    roles.add_reward(reward)
    torch.testing.assert_close(roles.scores(ids, torch.ones_like(ids)), expected, **CLOSE)
    with pytest.raises(SettingsError, match=r"score head .* comes none"):
        Roles(tiny_base).add_reward(replace(reward, head=None))


def test_adapters_that_change_more_than_their_matrices_are_refused(tiny_base) -> None:
    for wrong, problem in (
        ({"bias": "lora_only"}, "trains biases"),
        ({"modules_to_save": ["embed_tokens"]}, "trains whole modules"),
        ({"target_modules": ["q_proj", "lm_head"]}, "LM head"),
    ):
        config = LoraConfig(**{"target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **wrong})
        model = get_peft_model(tiny_base.model, config)
        with pytest.raises(SettingsError, match=problem):
            Roles(model)
        strip_adapters(tiny_base.model)


@pytest.mark.parametrize(
    ("family", "extra"),
    [
        ("Gemma2", {"head_dim": 16, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 9.0}),
        ("Cohere", {"logit_scale": 0.25}),
        ("Granite", {"logits_scaling": 4.0}),
    ],
)
def test_what_an_architecture_does_to_its_logits_is_part_of_the_log_probabilities(
    family, extra, tiny_base
) -> None:
    import transformers

    config = getattr(transformers, f"{family}Config")(
        vocab_size=97, hidden_size=64, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, pad_token_id=0, eos_token_id=1,
        bos_token_id=2, **extra,
    )  # fmt: skip
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(30)  # far enough from 0 for a cap to bite
    roles = Roles(replace(tiny_base, model=model))
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        out = roles.logprobs_and_values(ids, torch.ones_like(ids), 1)
        expected = torch.log_softmax(model(ids).logits[0, :-1].float(), -1)
    torch.testing.assert_close(out.logprobs[0], expected.gather(1, ids[0, 1:, None])[:, 0], **CLOSE)
    object.__setattr__(roles._logits, "scale", 3.0)
    from ftkit.models.shared_base import require_own_logits

    with pytest.raises(SettingsError, match=f"{family}ForCausalLM changes its logits"):
        require_own_logits(model, model.get_decoder(), roles._logits)


def test_adapters_compute_in_the_dtype_of_the_card_and_heads_in_float32(tiny_base) -> None:
    tiny_base.model.to(torch.bfloat16)
    card = replace(tiny_base.card, compute_dtype="bfloat16")
    roles = Roles(replace(tiny_base, card=card))
    roles.add_reward()
    assert {p.dtype for n, p in roles.model.named_parameters() if "lora_" in n} == {torch.bfloat16}
    assert roles.value_head.weight.dtype == torch.float32
    ids = torch.tensor([[5, 6, 7]])
    out = roles.logprobs_and_values(ids, torch.ones_like(ids), 1)
    assert out.logprobs.dtype == out.values.dtype == torch.float32
    (out.logprobs.sum() + roles.scores(ids, torch.ones_like(ids)).sum()).backward()
    half = Roles(replace(tiny_base, card=replace(card, compute_dtype="float16")))
    assert next(half.trainable("policy")).dtype == torch.float32


def test_the_ledger_adds_up(roles) -> None:
    memory = roles.memory()
    parts = ("base", "policy", "reward", "value head", "score head")
    assert list(memory) == [*parts, "total", "copies while sampling", "four full copies"]
    # Not packed, so only the layers with an adapter: q, o (64 × 64); k, v (64 × 32)
    folded = 2 * (2 * 64 * 64 + 2 * 64 * 32) * 4 / 1e6
    assert memory["copies while sampling"] == pytest.approx(folded)
    assert memory["total"] == pytest.approx(sum(memory[p] for p in parts))
    adapter = 2 * (2 * (64 + 64) + 2 * (64 + 32)) * 16 * 4 / 1e6  # layers · (q,o + k,v) · r · bytes
    assert memory["policy"] == pytest.approx(adapter)
    assert memory["score head"] == pytest.approx(64 * 4 / 1e6)
    parameters = sum(p.numel() for n, p in roles.model.named_parameters() if "lora_" not in n)
    assert memory["four full copies"] == pytest.approx(4 * parameters * 4 / 1e6)
    assert memory["total"] < memory["four full copies"] / 2


# The embedded model


@pytest.fixture
def borrowed_base(base):
    """The shared embedded model, given back without adapters."""
    yield base
    strip_adapters(base.model)


def test_roles_on_the_embedded_model_in_nf4_agree_with_its_own_logits(borrowed_base) -> None:
    before = base_checksum(borrowed_base.model)
    texts = ["The capital of France is Paris.", "Two and two make four, said the child."]
    rows = borrowed_base.tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
    ids, mask = rows["input_ids"], rows["attention_mask"]
    with torch.no_grad():
        roles = Roles(borrowed_base)
        roles.add_reward()
        out = roles.logprobs_and_values(ids, mask, ids.shape[1] - 3)
        scores = roles.scores(ids, mask)
        for row, keep, logprobs, score in zip(ids, mask.bool(), out.logprobs, scores, strict=True):
            with roles.as_reference():  # new adapters change nothing yet
                full = roles.model(row[keep][None], output_hidden_states=True)
            logp = torch.log_softmax(full.logits[0, -4:-1].float(), -1)
            expected = logp.gather(1, row[-3:, None]).squeeze(1)
            torch.testing.assert_close(logprobs, expected, rtol=0, atol=2e-4)
            read = full.hidden_states[-1][0, -1].float() @ roles.score_head.weight[0]
            torch.testing.assert_close(score, read, rtol=0, atol=2e-3)
        assert not out.values.any()
        drawn = roles.generate(ids, mask, max_new_tokens=2)
    assert drawn.ids.shape == (2, 2)
    memory = roles.memory()
    assert memory["total"] < memory["four full copies"] / 10
    layer = 2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536  # q, o; k, v; gate, up, down
    assert memory["copies while sampling"] == pytest.approx(30 * layer * 4 / 1e6)
    copy = load(quantization=None, compute_dtype="float32", device="cpu").card.memory_mb
    assert memory["four full copies"] == pytest.approx(4 * copy, rel=1e-3)
    strip_adapters(borrowed_base.model)
    assert base_checksum(borrowed_base.model) == before


def test_entropies_without_a_slope_are_the_same_numbers_and_leave_the_gradient_alone(
    roles, batch
) -> None:
    def policy_gradient(**options):
        out = roles.logprobs_and_values(*batch, 4, 0.7, **options)
        roles.model.zero_grad()
        out.logprobs.sum().backward()
        gradients = [p.grad.clone() for p in roles.trainable("policy") if p.grad is not None]
        return out, gradients

    plain, without = policy_gradient()
    flat, beside = policy_gradient(with_entropy=True, entropy_slope=False)
    steep, _ = policy_gradient(with_entropy=True)
    assert not flat.entropy.requires_grad
    assert torch.equal(flat.entropy, steep.entropy.detach())
    assert torch.equal(flat.logprobs, plain.logprobs)
    assert all(torch.equal(a, b) for a, b in zip(without, beside, strict=True))
