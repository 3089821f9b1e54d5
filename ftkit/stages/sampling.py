"""Answers of a model to whole conversations, for a look before and after training."""

from collections.abc import Sequence
from typing import Any

import torch

from ftkit.chat.render import Messages, Renderer
from ftkit.models.unpacking import folded, unpacked


def answer(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Messages],
    *,
    max_new_tokens: int = 64,
    chat_template: str | None = None,
    skip_special_tokens: bool = True,
) -> list[str]:
    """Return the model's greedy answer to each conversation, in one batch.

    Greedy, so that a difference between two calls comes from the weights alone. An answer ends
    with the tokenizer's EOS or any stop token of the model's generation settings.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        conversations: Each ends with a user's message; the generation prompt is added.
        max_new_tokens: Longest answer in tokens; a longer one is cut.
        chat_template: Jinja source, None for the tokenizer's own.
        skip_special_tokens: Leave out the stop token and other special tokens.
    """
    if not conversations:
        return []
    renderer = Renderer.of(tokenizer, chat_template)
    prompts = [renderer.render(c, generation_prompt=True) for c in conversations]
    # Left padding, so that every row's answer begins right behind its prompt.
    batch = tokenizer(
        prompts, padding=True, padding_side="left", add_special_tokens=False, return_tensors="pt"
    ).to(model.device)
    was_training = model.training
    model.eval()
    try:
        with unpacked(model), folded(model), torch.inference_mode():
            out = model.generate(
                **batch,
                do_sample=False,
                max_new_tokens=max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=_stops(model, tokenizer),
            )
    finally:
        model.train(was_training)
    completions = out[:, batch["input_ids"].shape[1] :]
    return list(tokenizer.batch_decode(completions, skip_special_tokens=skip_special_tokens))


def _stops(model: Any, tokenizer: Any) -> list[int] | None:
    """Ids that end an answer; chat models often have more of them than the tokenizer's EOS."""
    own = model.generation_config.eos_token_id
    ids = {tokenizer.eos_token_id, *(own if isinstance(own, list | tuple) else [own])}
    return sorted(ids - {None}) or None
