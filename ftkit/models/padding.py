"""A pad token of its own.

Many chat models ship with pad == eos. Trainers mask padding in the labels, so with that setting
the token that ends an answer can be masked too, and the model never learns to stop. ftkit picks
a token that the vocabulary already has and that conversations do not use: embeddings are never
resized. In order of preference: one that is named for padding, one that is reserved or unused by
name, the last special token that neither the chat template nor a role (bos, eos, unk, …) uses,
and unk. For SmolLM2 that is ``<empty_output>``, a special token whose embedding was not trained.
"""

import re
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase as Tokenizer

from ftkit.records.model_card import TokenRef

Pad = Literal["distinct", "shipped"]

_NAMED_FOR_IT = re.compile(r"^\W*pad\W*$|finetune_right_pad|pad_token|endofpad", re.IGNORECASE)
_RESERVED = re.compile(r"reserved|unused|extra_\d", re.IGNORECASE)


def separate_pad(tokenizer: Tokenizer, vocab_size: int, stops: set[int], *, change: bool) -> str:
    """Give `tokenizer` a pad token that ends nothing, and return a note on what was found.

    Args:
        tokenizer: Changed in place.
        vocab_size: Rows of the model's embedding; tokens beyond it cannot be padding.
        stops: Ids that end an answer, beside the tokenizer's own eos.
        change: False leaves the tokenizer as it is and only notes the trap.

    Returns:
        One sentence for the model card; empty when the pad token was fine already.
    """
    shipped = token_ref(tokenizer, "pad")
    stops = stops | {tokenizer.eos_token_id}
    if shipped is not None and shipped.id not in stops and shipped.id < vocab_size:
        return ""
    problem = _problem(shipped, vocab_size)
    chosen = _choose(tokenizer, vocab_size, stops) if change else None
    if chosen is None:
        left = "left as shipped" if not change else "no unused token is left to replace it"
        return f"{problem}; {left}"
    tokenizer.pad_token = chosen
    return f"{problem}; padding is now {token_ref(tokenizer, 'pad')}, which nothing else uses"


def token_ref(tokenizer: Tokenizer, role: Literal["pad", "eos", "bos"]) -> TokenRef | None:
    """Return the token that plays `role`, or None when the tokenizer has none."""
    text: str | None = getattr(tokenizer, f"{role}_token")
    return None if text is None else TokenRef(text, getattr(tokenizer, f"{role}_token_id"))


def _problem(shipped: TokenRef | None, vocab_size: int) -> str:
    if shipped is None:
        return "the tokenizer ships without a pad token"
    if shipped.id >= vocab_size:
        return f"the shipped pad token {shipped} has no row in the model's embedding"
    return f"the shipped pad token {shipped} also ends an answer, so masking padding hides the end"


def _choose(tokenizer: Tokenizer, vocab_size: int, stops: set[int]) -> str | None:
    free = _unused(tokenizer, vocab_size, stops)
    for pattern in (_NAMED_FOR_IT, _RESERVED):
        named = [text for text in free if pattern.search(text)]
        if named:
            return named[0]
    if free:
        return free[-1]
    unk = tokenizer.unk_token
    return unk if unk is not None and tokenizer.unk_token_id not in stops else None


def _unused(tokenizer: Tokenizer, vocab_size: int, stops: set[int]) -> list[str]:
    """Special tokens in id order that no role, stop or template uses."""
    roles = set(tokenizer.special_tokens_map.values()) - {tokenizer.pad_token}
    template = str(tokenizer.chat_template or "")
    added: dict[int, Any] = tokenizer.added_tokens_decoder
    return [
        token.content
        for id_, token in sorted(added.items())
        if token.special and id_ < vocab_size and id_ not in stops
        if token.content not in roles and token.content not in template
    ]
