"""`score`: the log-probability that a model gives each token of an annotated conversation."""

from typing import Any

from ftkit.chat.annotated import AnnotatedTokens


def score(model: Any, chat: AnnotatedTokens) -> AnnotatedTokens:
    """Return `chat` with ``logprob`` (and so ``loss``) of each token under `model`.

    One forward pass in eval mode over the kept tokens, so the mean over trained tokens is the
    loss that the model itself would report for these labels. The model's mode is restored.
    Padding is left out: it gets no ``logprob`` and changes no other, on whichever side it is.

    Raises:
        ValueError: a token id outside the model's vocabulary (a tokenizer of another model).
    """
    import torch

    from ftkit.algos import token_losses

    size = model.get_input_embeddings().weight.shape[0]
    real = [t for t in chat.kept if t.part != "pad"]
    outside = [t for t in real if t.id >= size]
    if outside:
        raise ValueError(
            f"token {outside[0].text!r} has id {outside[0].id}, but the model knows {size} ids: "
            "score with the model that this tokenizer belongs to"
        )
    if not real:
        return chat
    ids = torch.tensor([[t.id for t in real]], device=model.device)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            losses = token_losses(model(input_ids=ids, use_cache=False).logits, ids)[0]
    finally:
        model.train(was_training)
    found = iter([None, *(-losses).tolist()])
    return chat.with_logprobs([None if t.part == "pad" else next(found) for t in chat.kept])
