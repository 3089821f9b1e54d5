"""The base under the roles: unwrapped, without adapters, with the facts that the roles need."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from peft import PeftModel
from torch import Tensor

from ftkit.errors import SettingsError
from ftkit.models.heads import LogitHead
from ftkit.models.loading import Loaded
from ftkit.models.lora import LoraAdapter, read_adapter
from ftkit.models.memory import memory_mb
from ftkit.models.roles_io import BaseMark

Start = LoraAdapter | Literal["carried", "new"]

_SAME_LOGPROB = 0.05
"""Nats by which two ways to one log-probability may differ in 16-bit weights."""


def causal_model(base: Loaded | PeftModel) -> Any:
    """Return the causal language model inside `base`, with whatever layers PEFT put into it."""
    model = base.model if isinstance(base, Loaded) else base
    return model.get_base_model() if isinstance(model, PeftModel) else model


def starting_adapter(causal: Any, start: Start) -> LoraAdapter | None:
    """Return the adapter that the policy begins with, None for a new one.

    Raises:
        SettingsError: an unknown `start`, or a carried adapter that is no policy.
    """
    if isinstance(start, LoraAdapter):
        return start
    if start not in ("carried", "new"):
        raise SettingsError(f"start={start!r} is unknown; use 'carried', 'new' or an adapter")
    carried = getattr(causal, "peft_config", {})
    if start == "new" or not carried:
        return None
    if "policy" in carried:  # earlier Roles, trained or not: begin where they began
        return read_adapter(causal, "reference") if "reference" in carried else None
    adapter = read_adapter(causal)
    if adapter.head is not None:
        raise SettingsError(
            "the base carries a reward model's adapter, which is no start for a policy; pass "
            "start=read_adapter(sft_trainer.model), read before, or start='new'"
        )
    return adapter


def mark_of(base: Loaded | PeftModel, causal: Any) -> BaseMark:
    """Return what tells this base from others; a `PeftModel` does not know its file's hash."""
    config = causal.config.get_text_config()
    name, sha256 = (base.card.name, base.card.sha256) if isinstance(base, Loaded) else ("", "")
    return BaseMark(name, sha256, config.hidden_size, config.num_hidden_layers)


def require_base(made_on: BaseMark, base: BaseMark, folder: Any) -> None:
    """Refuse adapters of another base.

    Raises:
        SettingsError: with both bases.
    """
    if not made_on.fits(base):
        raise SettingsError(
            f"the roles in {folder} were made on another base: {made_on}, but this is {base}. "
            "Load that one"
        )


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """What the roles need to know of a base without adapters.

    Attributes:
        mark: What tells it from other bases.
        device: Where it computes.
        compute_dtype: Of activations.
        stop_ids: ``(stops,)`` tokens that end an answer.
        pad_id: Token that fills completions up.
        memory_mb: Bytes of its weights / 1e6.
        full_mb: The same without quantization, in the compute dtype; computed.
    """

    mark: BaseMark
    device: torch.device
    compute_dtype: torch.dtype
    stop_ids: Tensor
    pad_id: int
    memory_mb: float
    full_mb: float

    @property
    def adapter_dtype(self) -> torch.dtype:
        """Of adapters: gradients underflow in float16, so trained weights are float32 there."""
        return torch.float32 if self.compute_dtype is torch.float16 else self.compute_dtype

    @classmethod
    def of(cls, base: Loaded | PeftModel, causal: Any) -> Self:
        """Collect the facts; `causal` is the base's model, stripped of adapters.

        Raises:
            SettingsError: the base names no stop token.
        """
        dtype = _compute_dtype(base, causal)
        stops = _stop_ids(base, causal)
        pad = (
            base.tokenizer.pad_token_id
            if isinstance(base, Loaded)
            else causal.config.get_text_config().pad_token_id
        )
        return cls(
            mark=mark_of(base, causal),
            device=causal.device,
            compute_dtype=dtype,
            stop_ids=torch.tensor(stops, device=causal.device),
            pad_id=stops[0] if pad is None else pad,
            memory_mb=memory_mb(causal),
            full_mb=causal.num_parameters() * dtype.itemsize / 1e6,
        )


def _compute_dtype(base: Loaded | PeftModel, causal: Any) -> torch.dtype:
    if isinstance(base, Loaded):
        return getattr(torch, base.card.compute_dtype)
    # The embedding is never quantized: its dtype is that of all activations.
    return causal.get_input_embeddings().weight.dtype


def _stop_ids(base: Loaded | PeftModel, causal: Any) -> list[int]:
    found = [causal.generation_config.eos_token_id, causal.config.get_text_config().eos_token_id]
    if isinstance(base, Loaded):
        found.insert(0, base.tokenizer.eos_token_id)
    stops = [
        i for ids in found if ids is not None for i in (ids if isinstance(ids, list) else [ids])
    ]
    if not stops:
        raise SettingsError("the model names no stop token; set tokenizer.eos_token")
    return list(dict.fromkeys(stops))


@torch.no_grad()
def require_own_logits(causal: Any, decoder: Any, logits_of: LogitHead) -> None:
    """Check on two tokens that decoder and head give the model's own log-probabilities.

    Raises:
        SettingsError: the architecture does something else to its logits.
    """
    ids = torch.tensor([[0, 1]], device=causal.device)
    theirs = torch.log_softmax(causal(ids, use_cache=False).logits.float(), -1)
    states = decoder(input_ids=ids, use_cache=False).last_hidden_state
    ours = torch.log_softmax(logits_of(states).float(), -1)
    if (theirs - ours).abs().max() > _SAME_LOGPROB:
        raise SettingsError(
            f"{type(causal).__name__} changes its logits in a way that ftkit does not know, so "
            "log-probabilities would be wrong; use another architecture"
        )


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch for the block; the global random state is as before behind it."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
