"""Token losses against the model's own loss and a count by hand."""

import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ftkit.algos import causal_lm_loss, masked_mean, token_losses


def test_uniform_logits_cost_the_log_of_the_vocabulary() -> None:
    losses = token_losses(torch.zeros(2, 5, 7), torch.randint(0, 7, (2, 5)))
    assert losses.shape == (2, 4)
    torch.testing.assert_close(losses, torch.full((2, 4), math.log(7)))


def test_loss_equals_the_models_own_on_masked_labels() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    ids = torch.randint(0, 50, (3, 9))
    labels = torch.where(torch.rand(3, 9) < 0.5, ids, -100)
    out = model(input_ids=ids, labels=labels)
    torch.testing.assert_close(causal_lm_loss(out.logits, ids, labels), out.loss)


def test_a_mask_that_selects_nothing_is_an_error_not_a_zero() -> None:
    with pytest.raises(ValueError, match="selects no value"):
        masked_mean(torch.ones(3), torch.zeros(3, dtype=torch.bool))
