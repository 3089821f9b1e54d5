"""What reads a token's hidden state: LM head (logits), value and score heads.

The LM head is the base's own. The other two live outside the base, in float32, so that the base
keeps its weights and its file format.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from ftkit.errors import SettingsError
from ftkit.models.unpacking import dense_weight, product


def value_head(hidden: int, device: torch.device) -> nn.Linear:
    """Return the critic's head, ``(n, hidden) -> (n, 1)``, zero at the start.

    Policy detail 2 of "The N Implementation Details of RLHF with PPO": a critic that starts at 0
    adds no noise to the first advantages.
    """
    head = skip_init(nn.Linear, hidden, 1, device=device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def score_head(hidden: int, device: torch.device, seed: int) -> nn.Linear:
    """Return the reward model's head, ``(n, hidden) -> (n, 1)``, weights N(0, 1/√(hidden+1)).

    Reward detail 2 of the same. No bias: a constant cancels in every preference.
    """
    head = skip_init(nn.Linear, hidden, 1, bias=False)
    generator = torch.Generator().manual_seed(seed)
    nn.init.normal_(head.weight, std=1 / math.sqrt(hidden + 1), generator=generator)
    return head.to(device)


def position_ids(mask: Tensor, count_padding: bool = False) -> Tensor:
    """Return ``(batch, time)`` positions that count real tokens only, whatever the padding side.

    General detail 3: without them a left-padded row is read at shifted positions.

    Args:
        mask: Bool ``(batch, time)``, true at real tokens.
        count_padding: Make that mistake.
    """
    counted = torch.ones_like(mask) if count_padding else mask
    return (counted.long().cumsum(1) - 1).clamp(min=0)


def last_real(mask: Tensor) -> Tensor:
    """Return the column ``(batch,)`` of each row's last real token.

    The mask decides, not the ids, so a pad token that equals the stop token does no harm.

    Raises:
        ValueError: a row without any real token.
    """
    empty = ~mask.any(1)
    if empty.any():
        raise ValueError(f"row {int(empty.nonzero()[0])} has no real token, so nothing to score")
    columns = torch.arange(mask.shape[1], device=mask.device)
    return (mask * columns).argmax(1)


@dataclass(frozen=True, slots=True)
class LogitHead:
    """The base's LM head with what its architecture does to logits afterwards.

    Attributes:
        head: ``(n, hidden) -> (n, vocab)``.
        scale: Factor on the logits (Cohere, Granite).
        cap: Logits z become cap·tanh(z/cap) (Gemma); None for none.
    """

    head: nn.Linear
    scale: float = 1.0
    cap: float | None = None

    @classmethod
    def of(cls, model: Any) -> "LogitHead":
        """Return the head of a causal language model.

        Raises:
            SettingsError: the model has none, or one with an adapter, or one in 8 bits.
        """
        head = model.get_output_embeddings()
        if not isinstance(head, nn.Linear):
            raise SettingsError(
                f"the LM head of {type(model).__name__} is {type(head).__name__}, not a plain "
                "linear layer; use a causal language model, and leave its head out of "
                "target_modules"
            )
        if not dense_weight(head).is_floating_point():
            raise SettingsError(
                f"the LM head is quantized to {head.weight.dtype}, which is too coarse for "
                "log-probabilities; name it in llm_int8_skip_modules when the model is loaded"
            )
        config = model.config.get_text_config()
        scale = (getattr(config, "logit_scale", None) or 1.0) / (
            getattr(config, "logits_scaling", None) or 1.0
        )
        return cls(head, scale, getattr(config, "final_logit_softcapping", None))

    def __call__(self, states: Tensor) -> Tensor:
        """Return the logits of hidden states ``(n, hidden)`` as ``(n, vocab)``, at least float32.

        Halves are too coarse for log-probabilities of a ratio near 1.
        """
        weight, bias = self.matrix()
        return self.adjusted(product(states.to(weight.dtype), weight, bias))

    def matrix(self) -> tuple[Tensor, Tensor | None]:
        """Return the plain weight ``(vocab, hidden)`` and the bias ``(vocab,)`` or None."""
        return dense_weight(self.head), self.head.bias

    def adjusted(self, raw: Tensor) -> Tensor:
        """Return the logits, at least float32, that the architecture makes of a product."""
        logits = raw.to(torch.promote_types(raw.dtype, torch.float32))
        if self.scale != 1.0:  # a pass over all logits that most models need not pay for
            logits = logits * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)

    def steepness(self, logits: Tensor) -> Tensor | None:
        """Return how fast adjusted logits grow with the scaled product; None where both are one."""
        return None if self.cap is None else 1.0 - (logits / self.cap) ** 2


def tempered(logits: Tensor, temperature: float) -> Tensor:
    """Return z/τ."""
    return logits if temperature == 1.0 else logits / temperature
