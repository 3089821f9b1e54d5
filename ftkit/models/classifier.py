"""A reward model around the base's own decoder: no second copy of the backbone.

TRL's `RewardTrainer` wants a sequence-classification model. `AutoModelForSequenceClassification`
would load and quantize every weight again; here its shell is built without weights, and the
decoder of the causal model that is already there is put in. Left out: architectures whose shell
does more than decoder → one linear layer → last token.
"""

import copy
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from ftkit.errors import SettingsError
from ftkit.models.heads import score_head

# Larger weights make an untrained judge sure of noise, which a short run has to unlearn first.
_SHRINK = 0.1

# What trainers and PEFT ask to find out how the weights below are quantized and placed.
_QUANTIZER_MARKS = (
    "is_quantized",
    "is_loaded_in_4bit",
    "is_loaded_in_8bit",
    "quantization_method",
    "hf_quantizer",
    "hf_device_map",
)


def score_model(causal: Any, *, seed: int = 0) -> Any:
    """Return a sequence-classification model with one label that shares `causal`'s decoder.

    Both are views of the same weights: layers that PEFT puts into one appear in the other.

    Args:
        causal: A causal language model without adapters.
        seed: Of the score head, ``(1, hidden)`` in the activations' dtype: `score_head`'s weights
            shrunk to a tenth.

    Raises:
        SettingsError: transformers has no such model for this architecture, or one with another
            head than ``score``.
    """
    config = copy.deepcopy(causal.config)
    config.num_labels = 1
    try:
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(
                config, dtype=causal.dtype, trust_remote_code=False
            )
    except ValueError as error:
        raise _unknown(causal, "transformers has no sequence classifier for it") from error
    if not isinstance(getattr(model, "score", None), nn.Linear):
        raise _unknown(causal, "its classifier has no plain linear head named 'score'")
    setattr(model, model.base_model_prefix, causal.get_decoder())
    hidden = config.get_text_config().hidden_size
    model.score = score_head(hidden, causal.device, seed)
    with torch.no_grad():
        model.score.weight.mul_(_SHRINK)
    model.score.to(causal.get_input_embeddings().weight.dtype)
    for name in _QUANTIZER_MARKS:
        if hasattr(causal, name):
            setattr(model, name, getattr(causal, name))
    return model.eval()


def _unknown(causal: Any, what: str) -> SettingsError:
    return SettingsError(
        f"no reward model can be built on {type(causal).__name__}: {what}; use another architecture"
    )
