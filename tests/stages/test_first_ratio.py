"""The first update must see the distribution that sampled: ratio 1, up to the dtype's rounding."""

from dataclasses import replace

import pytest
import torch

from ftkit.stages.ppo import PPOConfig, PPOTrainer, trainer
from ftkit.stages.ppo.rollout import Rollout
from ftkit.stages.ppo.update import Update, check_first_ratio

ROWS, TOKENS = 4, 50


def first_update(gap: torch.Tensor) -> tuple[Update, Rollout]:
    """An update whose scorer gives `gap` nats more than the sampler did."""
    mask = torch.ones(ROWS, TOKENS, dtype=torch.bool)
    mask[1, 30:] = False
    rollout = Rollout(
        prompts=[], completions=[], prompt_ids=mask, prompt_mask=mask, completion_ids=mask,
        mask=mask, ended=mask[:, 0], logprobs=torch.full((ROWS, TOKENS), -2.0),
        values=torch.zeros(ROWS, TOKENS), entropy=torch.zeros(ROWS, TOKENS),
    )  # fmt: skip
    update = Update(
        epoch=1, minibatch=1, rows=torch.tensor([2, 0, 3, 1])[:ROWS], mask=mask,
        ratio=gap.exp(), clipped=mask, policy_loss=0.0, value_loss=0.0, entropy=0.0,
        clip_fraction=0.0, value_clip_fraction=0.0, approx_kl=0.0, grad_norm=0.0,
    )  # fmt: skip
    return update, rollout


def noise(size: float) -> torch.Tensor:
    return torch.randn(ROWS, TOKENS, generator=torch.Generator().manual_seed(0)) * size


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_rounding_of_the_dtype_is_let_pass(dtype, size) -> None:
    check_first_ratio(*first_update(noise(size)), dtype)


def test_one_token_off_in_float32_is_refused_by_name() -> None:
    gap = torch.zeros(ROWS, TOKENS)
    gap[0, 7] = 0.5
    with pytest.raises(
        RuntimeError, match=r"token 7 of completion 2 .* -2\.000 but is scored -1\.5"
    ):
        check_first_ratio(*first_update(gap), torch.float32)


def test_a_systematic_difference_in_16_bits_is_refused() -> None:
    with pytest.raises(RuntimeError, match="the sampler is not the scorer"):
        check_first_ratio(*first_update(noise(0.1) + 0.08), torch.bfloat16)


def test_padding_does_not_count() -> None:
    gap = torch.zeros(ROWS, TOKENS)
    gap[1, 40] = 3.0
    check_first_ratio(*first_update(gap), torch.float32)


def test_a_sampler_at_another_temperature_stops_the_run(tiny_base, tmp_path, monkeypatch) -> None:
    honest = trainer.collect

    def hotter(roles, tokenizer, batch, config, generator):
        return honest(roles, tokenizer, batch, replace(config, temperature=1.3), generator)

    monkeypatch.setattr(trainer, "collect", hotter)
    config = PPOConfig(iterations=1, batch_size=4, micro_batch=2, max_new_tokens=6)
    run = PPOTrainer(
        tiny_base, ["One.", "Two.", "Three.", "Four."], config=config, output_dir=tmp_path,
        reward=lambda prompts, completions: [0.0] * len(completions),
    )  # fmt: skip
    with torch.no_grad():  # logits of a fresh tiny model are nearly flat: any temperature fits
        run.roles.model.get_base_model().lm_head.weight.mul_(5)
    with pytest.raises(RuntimeError, match="the sampler is not the scorer"):
        run.train()
