"""The size of a model, part by part, from its config alone: no weights are read or allocated.

The parameters are counted on transformers' own model, built on torch's meta device (shapes
without storage), so the count is right for any architecture that transformers knows. Left out:
encoder-decoders, models without attention, and code that comes with a checkpoint.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig
from transformers.pytorch_utils import Conv1D

from ftkit.errors import SettingsError
from ftkit.models.known_shapes import KNOWN


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of one decoder; everything counts parameters unless it says otherwise.

    Attributes:
        name: The known name, or the architecture's.
        layers: Transformer blocks.
        hidden: Width of the residual stream.
        query: Width of all query heads together.
        key_value: Width of all key heads together (the values' is the same).
        heads: Query heads.
        inner: Width inside the MLP, of the active experts together.
        vocab: Entries of the vocabulary.
        gated: Whether the MLP multiplies two branches (SwiGLU), as Llama's does.
        linear: Weights of the linear layers in the blocks: what bitsandbytes quantizes and what
            LoRA's ``"all-linear"`` means.
        linears: How many such layers there are.
        largest_linear: Weights of the largest of them.
        embedding: Token embedding (and learned positions).
        lm_head: Output layer; 0 where it is tied to the embedding.
        experts: Weights of a mixture's experts that are no linear layers; neither quantized nor
            adapted.
        active_experts: Those of them that a token passes.
        other: Norms and biases.
        lora_width: Sum of inputs and outputs over the linear layers; an adapter of rank r has
            ``r * lora_width`` weights.
        attention_linears: How many of the linear layers belong to attention.
        attention_lora_width: Like `lora_width`, for those only.
    """

    name: str
    layers: int
    hidden: int
    query: int
    key_value: int
    heads: int
    inner: int
    vocab: int
    gated: bool
    linear: int
    linears: int
    largest_linear: int
    embedding: int
    lm_head: int
    experts: int
    active_experts: int
    other: int
    lora_width: int
    attention_linears: int
    attention_lora_width: int

    @property
    def parameters(self) -> int:
        """All parameters, a tied embedding once."""
        return self.linear + self.embedding + self.lm_head + self.experts + self.other

    @property
    def tied(self) -> bool:
        """Whether one matrix is both embedding and output layer."""
        return self.lm_head == 0

    @property
    def multiplied(self) -> int:
        """Weights that every token is multiplied with: blocks and output layer, no lookup."""
        return self.linear + self.active_experts + self.vocab * self.hidden

    @classmethod
    def of(cls, source: Any) -> "ModelShape":
        """Return the shape of a model.

        Args:
            source: A known name (`ftkit.models.known_shapes`), a ``config.json`` or the folder
                with one, a transformers config, or anything with ``.config``.

        Raises:
            SettingsError: unknown or unreadable, or an architecture that cannot be planned.
        """
        if isinstance(source, ModelShape):
            return source
        if isinstance(source, str) and source in KNOWN:
            return _known(source)
        if isinstance(source, (str, Path)):
            config = _read(Path(source))
            return _shape(config, Path(source).stem if Path(source).is_dir() else config.model_type)
        config = getattr(getattr(source, "model", source), "config", source)
        if not isinstance(config, PretrainedConfig):
            raise SettingsError(
                f"no model shape can be read from a {type(source).__name__}; give a known name "
                f"({', '.join(KNOWN)}), a config.json, or a transformers config"
            )
        return _shape(config, config.name_or_path.rstrip("/").split("/")[-1] or config.model_type)


@lru_cache(maxsize=32)
def _known(name: str) -> ModelShape:
    entry = KNOWN[name]
    return _shape(AutoConfig.for_model(entry.model_type, **entry.sizes), name)


def _read(path: Path) -> PretrainedConfig:
    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        raise SettingsError(
            f"{str(path)!r} is neither a known model ({', '.join(KNOWN)}) nor a config.json nor a "
            "folder with one"
        )
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        return AutoConfig.for_model(entries.pop("model_type"), **entries)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingsError(
            f"{file} is no config of an architecture that this transformers knows: {error}"
        ) from error


def _shape(config: PretrainedConfig, name: str) -> ModelShape:
    text = _decoder_config(config, name)
    model = meta_model(text)
    parts = _parts(model)
    sizes = _sizes(text, model)
    return ModelShape(name=name, **sizes, **parts, **_experts(text, parts["experts"]))


def _decoder_config(config: PretrainedConfig, name: str) -> PretrainedConfig:
    text = config.get_text_config(decoder=True)
    needed = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    missing = [key for key in needed if not isinstance(getattr(text, key, None), int)]
    if getattr(config, "is_encoder_decoder", False) or missing:
        reason = f"its config has no {missing[0]}" if missing else "it is an encoder-decoder"
        raise SettingsError(f"{name} cannot be planned: {reason}; plan a decoder with attention")
    return text


def meta_model(config: PretrainedConfig) -> nn.Module:
    """Return transformers' model of `config` on the meta device: shapes without storage.

    Raises:
        SettingsError: transformers has no causal language model of this architecture.
    """
    plain = type(config).from_dict(
        {k: v for k, v in config.to_dict().items() if k != "quantization_config"}
    )
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(plain, trust_remote_code=False)
    except ValueError as error:
        raise SettingsError(
            f"transformers has no causal language model of type {config.model_type!r}"
        ) from error


def _parts(model: Any) -> dict[str, Any]:
    """Count the parameters by what quantization, LoRA and optimizers do with them."""
    head = model.get_output_embeddings()
    linears = list(_linears(model, head))
    tables = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
    experts = [p for p in model.parameters() if p.dim() == 3]
    counted = sum(p.numel() for p in model.parameters())
    linear = sum(module.weight.numel() for _, module in linears)
    embedding = sum(weight.numel() for weight in tables)
    tied = any(head.weight is weight for weight in tables)
    in_experts, lm_head = sum(map(torch.numel, experts)), 0 if tied else head.weight.numel()
    attention = [module for name, module in linears if "attn" in name or "attention" in name]
    return {
        "linear": linear,
        "linears": len(linears),
        "largest_linear": max((module.weight.numel() for _, module in linears), default=0),
        "embedding": embedding,
        "lm_head": lm_head,
        "experts": in_experts,
        "other": counted - linear - embedding - lm_head - in_experts,
        "lora_width": sum(sum(module.weight.shape) for _, module in linears),
        "attention_linears": len(attention),
        "attention_lora_width": sum(sum(module.weight.shape) for module in attention),
    }


def _linears(model: nn.Module, head: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, Conv1D)) and module is not head:
            yield name, module


def _sizes(text: PretrainedConfig, model: nn.Module) -> dict[str, Any]:
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    names |= {name.rpartition(".")[2] for name, _ in model.named_parameters()}
    inner = getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None)
    return {
        "layers": text.num_hidden_layers,
        "hidden": text.hidden_size,
        "query": heads * width,
        "key_value": (getattr(text, "num_key_value_heads", None) or heads) * width,
        "heads": heads,
        "inner": _active_inner(text, inner or 4 * text.hidden_size),
        "vocab": text.vocab_size,
        "gated": bool({"gate_proj", "gate_up_proj"} & names),
    }


def _active_inner(text: PretrainedConfig, dense: int) -> int:
    chosen = getattr(text, "num_experts_per_tok", None)
    if not chosen:
        return dense
    return int(chosen) * int(getattr(text, "moe_intermediate_size", None) or dense)


def _experts(text: PretrainedConfig, weights: int) -> dict[str, Any]:
    chosen = getattr(text, "num_experts_per_tok", None)
    count = getattr(text, "num_experts", None) or getattr(text, "num_local_experts", None)
    active = weights * chosen // count if weights and chosen and count else weights
    return {"active_experts": active}
