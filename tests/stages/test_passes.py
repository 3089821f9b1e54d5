"""`shorten`: TRL's losses, metrics and gradients, with less work."""

from contextlib import contextmanager

import pytest
import torch
from preference_pairs import pairs
from trl import SFTConfig

from ftkit import data, stages
from ftkit.models.lora import adapter_parameters
from ftkit.stages import passes

SIZES = {"steps": 1, "batch_size": 4, "eval_every": 0}


def sft(base, **options):
    recipe = stages.SFTRecipe(max_length=96, **SIZES, **options)
    return stages.sft(base, data.chatterbot("tech_support"), recipe=recipe)


def reward(base):
    return stages.reward(base, pairs(), recipe=stages.RewardRecipe(**SIZES))


def dpo(base, **options):
    return stages.dpo(base, pairs(), recipe=stages.DPORecipe(**SIZES, **options))


def stir(trainer) -> None:
    """Adapters begin with B = 0, where A has no gradient."""
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in adapter_parameters(trainer.model, "default"):
            parameter.add_(torch.randn(parameter.shape, generator=noise) * 0.05)


def first_batch(trainer):
    torch.manual_seed(0)
    return trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))


@pytest.fixture
def tokens_read(tiny_base, monkeypatch):
    layer, seen = tiny_base.model.get_decoder().layers[0], []
    plain = layer.forward
    monkeypatch.setattr(
        layer, "forward", lambda states, **rest: seen.append(states.shape) or plain(states, **rest)
    )
    return seen


@pytest.fixture
def scored(monkeypatch):
    """How many states TRL sends through the LM head, each time."""
    from trl.trainer import utils

    seen, theirs = [], utils._ChunkedLogProbFunction.apply
    monkeypatch.setattr(
        utils._ChunkedLogProbFunction,
        "apply",
        lambda states, *rest: seen.append(len(states)) or theirs(states, *rest),
    )
    return seen


def measured(trainer, batch, context):
    """Loss, gradients and metrics of one batch."""
    trainer.model.train()
    trainer.model.zero_grad()
    trainer._metrics["train"].clear()
    with context():
        loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    metrics = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    metrics.pop("num_tokens")  # counts up
    slopes = {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}
    return loss.item(), slopes, metrics


def same_as_trl(trainer) -> None:
    """Compare with the trainer's class, which knows nothing of ftkit."""
    batch = first_batch(trainer)
    theirs = measured(trainer, batch, type(trainer).compute_loss_context_manager.__get__(trainer))
    ours = measured(trainer, batch, trainer.compute_loss_context_manager)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
    assert ours[2] == pytest.approx(theirs[2], rel=1e-4, abs=1e-5)
    assert ours[1].keys() == theirs[1].keys()
    assert any(slope.any() for slope in theirs[1].values())
    for name, slope in theirs[1].items():
        torch.testing.assert_close(ours[1][name], slope, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("stage", [sft, reward, dpo])
def test_losses_metrics_and_gradients_are_trls(tiny_base, tokens_read, stage) -> None:
    trainer = stage(tiny_base)
    stir(trainer)
    same_as_trl(trainer)
    assert tokens_read[0][0] > 1  # TRL's own pass, over a batch
    assert tokens_read[-1][0] == 1  # ours, over one row
    assert tokens_read[-1][1] < tokens_read[0][:2].numel()


def test_the_extra_loss_of_dpo_is_trls(tiny_base) -> None:
    trainer = dpo(tiny_base, sft_weight=0.5)
    stir(trainer)
    same_as_trl(trainer)


def test_label_smoothing_reads_all_logits_in_trls_own_pass(
    tiny_base, tokens_read, tmp_path
) -> None:
    args = SFTConfig(
        output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", max_length=96,
        gradient_checkpointing=False, label_smoothing_factor=0.1,
    )  # fmt: skip
    trainer = stages.sft(tiny_base, data.chatterbot("tech_support"), args=args)
    stir(trainer)
    same_as_trl(trainer)
    # TRL reads a batch twice, for the loss and for its metrics; ours is short for the metrics only.
    assert tokens_read.count(tokens_read[0]) == 2 + 1
    assert tokens_read[-1][0] == 1


def test_predicted_logits_are_the_models_own_at_padding_too(tiny_base) -> None:
    trainer = sft(tiny_base)
    stir(trainer)
    batch = {name: first_batch(trainer)[name] for name in ("input_ids", "attention_mask")}
    assert not batch["attention_mask"].all()
    trainer.model.eval()
    with torch.no_grad():
        expected = trainer.model(**batch).logits
        with trainer.compute_loss_context_manager():
            inside = trainer.model(**batch).logits
    torch.testing.assert_close(inside, expected)


def test_only_what_has_a_label_passes_the_lm_head(tiny_base, scored) -> None:
    trainer = sft(tiny_base)
    batch = first_batch(trainer)
    with trainer.compute_loss_context_manager():
        trainer.compute_loss(trainer.model, dict(batch))
    assert scored == [int((batch["labels"] != -100).sum())]


def test_a_hook_on_the_decoder_sees_what_trl_would_show_it(tiny_base, scored) -> None:
    trainer = sft(tiny_base)
    batch, seen = first_batch(trainer), []
    decoder = tiny_base.model.get_decoder()
    decoder.register_forward_hook(lambda _, __, out: seen.append(out.last_hidden_state.shape))
    with trainer.compute_loss_context_manager():
        trainer.compute_loss(trainer.model, dict(batch))
    assert [shape[:2] for shape in seen] == [batch["labels"].shape]
    assert scored[0] > int((batch["labels"] != -100).sum())


def test_a_batch_without_labels_has_loss_and_gradient_0(tiny_base) -> None:
    trainer = sft(tiny_base)
    batch = first_batch(trainer)
    batch["labels"] = torch.full_like(batch["labels"], -100)
    loss, slopes, _ = measured(trainer, batch, trainer.compute_loss_context_manager)
    assert loss == 0.0
    assert not any(slope.any() for slope in slopes.values())


def test_the_noise_of_neftune_is_drawn_for_every_place(tiny_base, tokens_read) -> None:
    trainer = sft(tiny_base, neftune_alpha=5.0)
    trainer.train()
    assert all(shape[0] == SIZES["batch_size"] for shape in tokens_read)


def test_training_and_evaluation_go_the_short_way(tiny_base, tokens_read, scored) -> None:
    rows = data.chatterbot("tech_support")
    recipe = stages.SFTRecipe(**SIZES | {"eval_every": 1}, max_length=96)
    trainer = stages.sft(tiny_base, rows, eval_dataset=rows.select(range(4)), recipe=recipe)
    trainer.train()
    packed = [shape for shape in tokens_read if shape[0] == 1]
    assert len(packed) >= len(scored) == 3  # before, the step, behind it
    labels = sum(label != -100 for row in trainer.eval_dataset["labels"] for label in row)
    assert scored[0] == scored[-1] == labels


def test_recomputed_layers_stay_trls(tiny_base, tokens_read) -> None:
    """A pass that is made again in the backward pass would be made another way there."""
    trainer = sft(tiny_base)
    tiny_base.model.activation_checkpointing_enable()
    with trainer.compute_loss_context_manager():
        trainer.compute_loss(trainer.model, dict(first_batch(trainer)))
    assert tokens_read[-1][0] == SIZES["batch_size"]


def test_an_interrupt_leaves_nothing_behind(tiny_base, monkeypatch) -> None:
    trainer = sft(tiny_base)
    decoder, before = tiny_base.model.get_decoder(), tiny_base.model.forward

    @contextmanager
    def interrupted(_decoder):
        yield
        raise KeyboardInterrupt

    monkeypatch.setattr(passes, "packing", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert tiny_base.model.forward == before
    assert "forward" not in decoder.__dict__
    assert not any("forward" in layer.__dict__ for layer in decoder.modules())
