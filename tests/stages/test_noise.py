"""Reading NEFTune: the noise shown is what transformers' hook gave to the model, and no trace."""

import math

import pytest
import torch
from transformers.integrations.neftune import neftune_post_forward_hook

from ftkit import data, stages
from ftkit.errors import DataError, SettingsError

ALPHA = 5.0


@pytest.fixture(scope="module")
def rows():
    return data.chatterbot("tech_support")


def trainer_on(base, rows, alpha, **options):
    recipe = stages.SFTRecipe(
        steps=2, batch_size=2, max_length=96, log_every=1, eval_every=0, neftune_alpha=alpha
    )
    return stages.sft(base, rows, recipe=recipe, **options)


def hooks(model) -> list:
    return list(model.get_input_embeddings()._forward_hooks.values())


def test_a_live_hook_is_proved_by_its_own_noise(tiny_base, rows) -> None:
    trainer = trainer_on(tiny_base, rows, ALPHA)
    proof = stages.noise_proof(trainer, rows=3)
    assert proof.live
    assert proof.verdict == "live: two train passes of one batch differ, two eval passes do not"
    first, second, third, fourth = proof.passes
    assert first.loss != second.loss
    assert third.loss == fourth.loss
    assert third.largest == fourth.largest == 0.0
    bound = ALPHA / math.sqrt(proof.length * proof.hidden)
    assert 0.95 * bound < first.largest <= bound * 1.001
    assert first.row_l2.mean() == pytest.approx(ALPHA / math.sqrt(3), rel=0.05)


def test_the_noise_shown_is_what_the_first_layer_received(tiny_base, rows) -> None:
    """Listen where the decoder takes its input, an independent place."""
    trainer = trainer_on(tiny_base, rows, ALPHA)
    received: list[torch.Tensor] = []
    layer = tiny_base.model.model.layers[0]
    handle = layer.register_forward_pre_hook(
        lambda _m, args, kwargs: received.append((args or [kwargs["hidden_states"]])[0]),
        with_kwargs=True,
    )
    proof = stages.noise_proof(trainer, rows=2)
    handle.remove()
    noise = (received[0] - received[2]).numpy()  # train minus eval, the same tokens
    assert proof.passes[0].noise == pytest.approx(noise, abs=1e-6)


def test_without_alpha_the_proof_says_off(tiny_base, rows) -> None:
    proof = stages.noise_proof(trainer_on(tiny_base, rows, None))
    assert not proof.live
    assert proof.verdict == "off: no pass adds anything to the embeddings (α is not set)"
    assert "α = 0" not in proof.verdict
    assert len({p.loss for p in proof.passes}) == 1


def test_a_proof_leaves_no_trace(tiny_base, rows) -> None:
    trainer = trainer_on(tiny_base, rows, ALPHA)
    trainer.model.train()
    before, state = hooks(trainer.model), torch.random.get_rng_state()
    stages.noise_proof(trainer)
    stages.hook_noise(trainer.model.eval(), torch.tensor([[1, 2]]), 1.0)
    assert not trainer.model.training
    assert hooks(trainer.model) == before
    assert not hasattr(trainer.model.get_input_embeddings(), "neftune_noise_alpha")
    assert torch.equal(torch.random.get_rng_state(), state) is False  # hook_noise draws on
    torch.random.set_rng_state(state)
    stages.noise_proof(trainer)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_padding_shows_in_the_tokens_and_in_the_table(tiny_base, rows) -> None:
    proof = stages.noise_proof(trainer_on(tiny_base, rows, ALPHA), rows=3)
    table = proof.to_pandas()
    assert len(table) == proof.batch * proof.length
    assert 0 < (~table["real"]).sum() < len(table)
    assert (table["noise L2"] > 0).all()  # padding gets noise, too
    assert table["share"].iloc[0] == pytest.approx(
        table["noise L2"].iloc[0] / table["embedding L2"].iloc[0]
    )


def test_the_recorder_reads_the_run_and_its_held_out_passes(tiny_base, rows) -> None:
    recorder = stages.NoiseRecorder()
    trainer = trainer_on(tiny_base, rows, ALPHA, eval_dataset=rows, callbacks=[recorder])
    trainer.args.eval_strategy = "steps"
    trainer.args.eval_steps = 2
    trainer.train()
    train = [s for s in recorder.steps if s.training]
    held_out = [s for s in recorder.steps if not s.training]
    assert [s.step for s in train] == [0, 1]
    assert {s.step for s in held_out} == {2}
    assert all(s.largest == 0 for s in held_out)
    for s in train:
        assert s.token_l2 == pytest.approx(ALPHA / math.sqrt(3 * s.length), rel=0.05)
        assert s.row_l2 == pytest.approx(ALPHA / math.sqrt(3), rel=0.1)
    assert hooks(trainer.model) == []
    assert len(recorder.table().rows) == len(recorder.steps)


def test_recording_changes_no_weight(tiny_folder, rows) -> None:
    from ftkit.models import load

    def trained(callbacks) -> torch.Tensor:
        base = load(str(tiny_folder), quantization=None, device="cpu")
        trainer = trainer_on(base, rows, ALPHA, callbacks=callbacks)
        if callbacks:
            stages.noise_proof(trainer)
        trainer.train()
        weights = [w.flatten() for n, w in trainer.model.named_parameters() if "lora_B" in n]
        return torch.cat(weights).detach()

    plain, watched = trained([]), trained([stages.NoiseRecorder()])
    assert plain.any()
    assert torch.equal(plain, watched)


def test_the_hook_thins_the_noise_of_a_padded_row(tiny_base) -> None:
    """transformers#34659: L is the width of the batch, so the same tokens get less."""
    ids = torch.arange(1, 33)[None]
    padded = torch.cat([ids, torch.zeros(1, 1024 - 32, dtype=torch.long)], 1)
    alone, among = (stages.hook_noise(tiny_base.model, x, ALPHA)[0, :32] for x in (ids, padded))
    assert (alone.norm() / among.norm()).item() == pytest.approx(math.sqrt(1024 / 32), rel=0.05)


def test_an_interrupted_run_left_its_hook_and_alpha_counts_all_the_same(tiny_base) -> None:
    model = tiny_base.model
    embedding = model.get_input_embeddings()
    embedding.neftune_noise_alpha = 50.0
    embedding.register_forward_hook(neftune_post_forward_hook)
    noise = stages.hook_noise(model, torch.arange(1, 65)[None], ALPHA)
    assert noise.norm().item() == pytest.approx(ALPHA / math.sqrt(3), rel=0.05)
    assert embedding.neftune_noise_alpha == 50.0
    assert hooks(model) == [neftune_post_forward_hook]


def test_the_map_measures_in_all_dimensions(tiny_base) -> None:
    words = (" dog", " cat", " printer", " Monday")
    found = stages.noise_map(tiny_base, words, texts=["My printer is not printing."], draws=5)
    tokenizer, matrix = tiny_base.tokenizer, tiny_base.model.get_input_embeddings().weight.detach()
    ids = [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]
    exact = (matrix[ids[0]] - matrix[ids[3]]).norm().item()
    assert found.distances[0][3] == pytest.approx(exact, rel=1e-4)
    others = (matrix - matrix[ids[1]]).norm(dim=1)
    others[ids[1]] = math.inf
    text, distance = found.neighbours[1]
    assert distance == pytest.approx(others.min().item(), rel=1e-3)
    assert text == tokenizer.decode([int(others.argmin())])
    assert len(found.shadows[2]) == 5
    assert len(found.critical) == len(tokenizer("My printer is not printing.")["input_ids"])
    assert found.moved(0.0) == 0.0
    assert found.moved(found.critical[-1] * 1.01) == 1.0
    drawn = [math.hypot(*end) / math.sqrt(2 / 3) for word in found.shadows for end in word]
    assert 0.5 < sum(drawn) / len(drawn) < 1.5  # two components of U(−1, 1)


def test_what_cannot_be_read_is_refused(tiny_base, rows) -> None:
    trainer = trainer_on(tiny_base, rows, ALPHA)
    with pytest.raises(DataError, match=r"noise_proof\(rows=0\) needs at least one row"):
        stages.noise_proof(trainer, rows=0)
    trainer.neftune_noise_alpha = -1.0
    with pytest.raises(SettingsError, match=r"neftune_noise_alpha is -1\.0"):
        stages.noise_proof(trainer)
    with pytest.raises(ValueError, match="α is -2; it must be finite and at least 0"):
        stages.hook_noise(tiny_base.model, torch.tensor([[1]]), -2)
    with pytest.raises(ValueError, match=r"input_ids have shape \(1,\)"):
        stages.hook_noise(tiny_base.model, torch.tensor([1]), 5)
    with pytest.raises(DataError, match=r"' unfathomably' is \d tokens for this tokenizer"):
        stages.noise_map(tiny_base, (" dog", " cat", " unfathomably"))
    with pytest.raises(DataError, match="at least 3 different words"):
        stages.noise_map(tiny_base, (" dog", " dog", " cat"))
    with pytest.raises(DataError, match="hold no token to sample"):
        stages.noise_map(tiny_base, texts=[""])
    with pytest.raises(ValueError, match="draws=0 must be at least 1"):
        stages.noise_map(tiny_base, draws=0)
