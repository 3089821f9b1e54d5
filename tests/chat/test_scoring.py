"""`score` gives the model's own numbers and leaves the model as it was."""

from dataclasses import replace

import pytest
import torch

from ftkit.chat import annotate, score

CHAT = [
    {"role": "user", "content": "My laptop gets hot, 怎么办?"},
    {"role": "assistant", "content": "Clean the vents."},
]


def test_mean_over_trained_tokens_is_the_models_loss(tiny_base) -> None:
    chat = score(tiny_base.model, annotate(tiny_base.tokenizer, CHAT))
    out = tiny_base.model(
        input_ids=torch.tensor([chat.input_ids]), labels=torch.tensor([chat.labels])
    )
    assert chat.loss() == pytest.approx(out.loss.item(), abs=1e-5)
    logprobs = out.logits.log_softmax(-1)[0]
    by_hand = [float(logprobs[i - 1, t.id].detach()) for i, t in enumerate(chat.tokens) if i]
    assert [t.logprob for t in chat.tokens[1:]] == pytest.approx(by_hand, abs=1e-4)
    assert chat.tokens[0].logprob is None


def test_the_models_mode_is_restored(tiny_model, tokenizer) -> None:
    tiny_model.train()
    score(tiny_model, annotate(tokenizer, CHAT))
    assert tiny_model.training


def test_tokens_that_truncation_cut_get_no_logprob(tiny_base) -> None:
    chat = score(tiny_base.model, annotate(tiny_base.tokenizer, CHAT, max_length=20))
    assert [t.logprob is None for t in chat.tokens] == [t.cut or not t.index for t in chat.tokens]


def test_a_tokenizer_of_another_model_is_an_error(tiny_model, fresh_tokenizer) -> None:
    fresh_tokenizer.add_special_tokens({"additional_special_tokens": ["<|new|>"]})
    messages = [{"role": "user", "content": "<|new|>"}]
    with pytest.raises(ValueError, match="the model knows 49152 ids"):
        score(tiny_model, annotate(fresh_tokenizer, messages))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_no_number(tiny_base, side) -> None:
    alone = annotate(tiny_base.tokenizer, CHAT)
    pad = replace(alone.tokens[0], id=tiny_base.tokenizer.pad_token_id, part="pad", label=-100)
    tokens = (pad, pad, *alone.tokens) if side == "left" else (*alone.tokens, pad, pad)
    padded = score(tiny_base.model, replace(alone, tokens=tokens))
    found = [t.logprob for t in padded.tokens if t.part != "pad"]
    assert found == [t.logprob for t in score(tiny_base.model, alone).tokens]
    assert [t.logprob for t in padded.tokens if t.part == "pad"] == [None, None]


def test_a_row_of_padding_alone_has_no_logprobs(tiny_base) -> None:
    alone = annotate(tiny_base.tokenizer, CHAT)
    pads = tuple(replace(t, part="pad") for t in alone.tokens[:2])
    assert score(tiny_base.model, replace(alone, tokens=pads)).loss(over="all") is None
