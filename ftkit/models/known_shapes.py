"""Architectures of well-known models, as their authors published them: numbers, no weights.

Each entry is what the model's ``config.json`` says about sizes; the parameter counts that follow
from it are checked in the tests against the published ones.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class KnownShape:
    """Sizes of one published model.

    Attributes:
        model_type: Architecture name of transformers.
        sizes: Arguments of its config.
        source: Where the sizes are published.
    """

    model_type: str
    sizes: dict[str, Any]
    source: str


def _sizes(
    layers: int,
    hidden: int,
    inner: int,
    heads: tuple[int, int],
    vocab: int,
    *,
    tied: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """Name the numbers as the Llama-like configs of transformers do; `heads` is (query, key)."""
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
        **more,
    }


_LLAMA = "Llama 3 (arXiv 2407.21783), table 3; vocabulary of the released config"
_LLAMA_32 = "config.json of the Llama 3.2 release"
_QWEN = "config.json of the release; Qwen2.5 (arXiv 2412.15115), Qwen3 (arXiv 2505.09388)"

KNOWN: dict[str, KnownShape] = {
    "smollm2-135m": KnownShape(
        "llama",
        _sizes(30, 576, 1536, (9, 3), 49152, tied=True),
        "config.json of HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
    "gpt2": KnownShape("gpt2", {}, "Radford et al. 2019, table 2: the smallest model"),
    "qwen3-0.6b": KnownShape(
        "qwen3", _sizes(28, 1024, 3072, (16, 8), 151936, tied=True, head_dim=128), _QWEN
    ),
    "llama-3.2-1b": KnownShape(
        "llama", _sizes(16, 2048, 8192, (32, 8), 128256, tied=True, head_dim=64), _LLAMA_32
    ),
    "llama-3.2-3b": KnownShape(
        "llama", _sizes(28, 3072, 8192, (24, 8), 128256, tied=True, head_dim=128), _LLAMA_32
    ),
    "mistral-7b": KnownShape(
        "mistral",
        _sizes(32, 4096, 14336, (32, 8), 32000),
        "Mistral 7B (arXiv 2310.06825), table 1",
    ),
    "qwen2.5-7b": KnownShape("qwen2", _sizes(28, 3584, 18944, (28, 4), 152064), _QWEN),
    "llama-3.1-8b": KnownShape("llama", _sizes(32, 4096, 14336, (32, 8), 128256), _LLAMA),
    "llama-3.1-70b": KnownShape("llama", _sizes(80, 8192, 28672, (64, 8), 128256), _LLAMA),
    "llama-3.1-405b": KnownShape("llama", _sizes(126, 16384, 53248, (128, 8), 128256), _LLAMA),
}
