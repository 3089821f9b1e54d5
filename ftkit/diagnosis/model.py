"""Whether model, tokenizer and template fit each other; read from the model itself."""

from collections.abc import Iterator
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from torch import nn

from ftkit.chat.labels import special_ids
from ftkit.diagnosis.case import Case
from ftkit.diagnosis.hardware import examine_hardware
from ftkit.diagnosis.tensors import last_trained
from ftkit.findings import Finding

_HEADS = ("score", "classifier", "v_head")
_FAINT = 0.1


def examine_model(case: Case) -> Iterator[Finding]:
    """Every check of the model."""
    if case.model is None:
        return
    yield from _vocabulary(case)
    yield from _context(case)
    yield from _generation(case)
    if any(p.is_meta for p in case.model.parameters()):  # built from a config alone
        return
    yield from _embeddings(case)
    yield from _head(case.model)
    if case.trainer is not None:
        yield from _trainable(case.model)
        yield from examine_hardware(case)


def _vocabulary(case: Case) -> Iterator[Finding]:
    rows = _embedding(case.model).shape[0]
    used = {i for row in case.labelled for i in row.ids} | special_ids(case.tokenizer)
    beyond = sorted(i for i in used if i >= rows)
    if not beyond:
        yield Finding("vocabulary-fits", "ok", f"every token id is below the {rows:,} embeddings")
        return
    in_data = any(i >= rows for row in case.labelled for i in row.ids)
    named = ", ".join(f"{case.tokenizer.decode([i])!r} ({i})" for i in beyond[:6])
    yield Finding(
        "token-out-of-range",
        "error" if in_data or not case.labelled else "warning",
        f"{len(beyond)} token ids have no row in the model's embedding of {rows:,}: {named}",
        "use the tokenizer that belongs to the model, or model.resize_token_embeddings("
        "len(tokenizer)) and train the new rows",
    )


def _embedding(model: Any) -> torch.Tensor:
    weight: torch.Tensor = model.get_input_embeddings().weight
    return weight


def _context(case: Case) -> Iterator[Finding]:
    config = case.model.config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    longest = max((length for length, _ in case.lengths), default=0)
    longest = min(longest, case.max_length or longest)
    if limit and longest > limit:
        yield Finding(
            "context-exceeded",
            "error",
            f"the longest row keeps {longest:,} tokens, the model was made for {limit:,} positions",
            f"set max_length={limit}, or use a model with a longer context",
        )


def _generation(case: Case) -> Iterator[Finding]:
    """Whether generation ends at the token that the rows end with."""
    ends = last_trained(case)
    config = getattr(case.model, "generation_config", None)
    if not ends or config is None or case.method == "reward":
        return
    listed = config.eos_token_id
    stops = {listed} if isinstance(listed, int) else set(listed or ())
    token, count = ends.most_common(1)[0]
    name = case.tokenizer.decode([token])
    if token in stops:
        yield Finding("stop-in-generation-config", "ok", f"generation ends at {name!r}")
        return
    yield Finding(
        "stop-not-in-generation-config",
        "warning",
        f"{count:,} rows end with {name!r} (id {token}), which the model's generation_config does "
        f"not list (eos_token_id={listed}): generate() would run on behind the answer",
        f"model.generation_config.eos_token_id = [{token}] before saving, or "
        f"SFTConfig(eos_token={name!r})",
    )


def _embeddings(case: Case) -> Iterator[Finding]:
    """Markers that the model has never seen: their rows are (nearly) zero, or all the same."""
    weight = _embedding(case.model)
    used = {i for row in case.labelled for i in row.ids}
    ids = sorted(i for i in special_ids(case.tokenizer) & used if i < weight.shape[0])
    if not ids or weight.requires_grad:
        return
    norms = weight.detach().float().norm(dim=1)
    faint = [i for i in ids if norms[i] < _FAINT * norms.median()]
    if faint:
        named = ", ".join(f"{case.tokenizer.decode([i])!r}" for i in faint[:6])
        yield Finding(
            "markers-untrained",
            "warning",
            f"the embeddings of {named} are nearly zero (norm {norms[faint[0]]:.2g}, median "
            f"{norms.median():.2g}) and frozen: the model was not trained with this template",
            "use the template that belongs to the model, or train these rows: "
            f"LoraConfig(trainable_token_indices={faint[:6]})",
        )


def _head(model: Any) -> Iterator[Finding]:
    """Whether a score head would be in the adapter that is saved."""
    if not isinstance(model, PeftModel):
        return
    heads = [n for n, _ in model.named_parameters() if set(n.split(".")) & set(_HEADS)]
    if not heads:
        return
    saved = [n for n in get_peft_model_state_dict(model) if set(n.split(".")) & set(_HEADS)]
    if saved:
        yield Finding("score-head-saved", "ok", "the adapter's file holds the score head")
        return
    yield Finding(
        "score-head-not-saved",
        "error",
        f"{heads[0]} is not part of what the adapter saves: after a reload the head is random, and "
        "so is every score",
        'LoraConfig(task_type="SEQ_CLS", modules_to_save=["score"])',
    )


def _trainable(model: nn.Module) -> Iterator[Finding]:
    if not any(p.requires_grad for p in model.parameters()):
        yield Finding(
            "nothing-trainable",
            "error",
            "no parameter of the model requires a gradient: the loss stays where it is",
            "give peft_config=LoraConfig(...), or load the adapter with is_trainable=True",
        )
