"""`score`: the log-probability that a model gives each token of an annotated conversation."""

from typing import Any

from ftkit.chat.annotated import AnnotatedTokens


def score(model: Any, chat: AnnotatedTokens) -> AnnotatedTokens:
    """Return `chat` with ``logprob`` (and so ``loss``) of each token under `model`.

    One forward pass in eval mode over the kept tokens, so the mean over trained tokens is the
    loss that the model itself would report for these labels. The model's mode is restored.

    Raises:
        ValueError: a token id outside the model's vocabulary (a tokenizer of another model).
    """
    import torch

    from ftkit.algos import token_losses

    size = model.get_input_embeddings().weight.shape[0]
    outside = [t for t in chat.kept if t.id >= size]
    if outside:
        raise ValueError(
            f"token {outside[0].text!r} has id {outside[0].id}, but the model knows {size} ids: "
            "score with the model that this tokenizer belongs to"
        )
    ids = torch.tensor([chat.input_ids], device=model.device)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            losses = token_losses(model(input_ids=ids, use_cache=False).logits, ids)[0]
    finally:
        model.train(was_training)
    return chat.with_logprobs([None, *(-losses).tolist()])
