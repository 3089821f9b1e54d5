"""Turn a GGUF file into a checkpoint that transformers loads in a second.

The weights are stored as float32: every value that the GGUF's 4-bit blocks decode to (scale x
level + minimum) is then kept bit for bit. float16 would halve the file and round about half of the
values by up to 0.05 %; bfloat16 would round most of them by up to 0.4 %.
"""

from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from ftkit.models.catalog import EmbeddedModel
from ftkit.models.quiet import no_progress_bars


def convert(gguf: Path, spec: EmbeddedModel, folder: Path) -> None:
    """Write the model and tokenizer of `gguf` into `folder` as safetensors and JSON."""
    with no_progress_bars(raw=True):
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        repair_tokenizer(tokenizer, spec)
        tokenizer.save_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        )
        _forget_gguf(model, spec)
        model.save_pretrained(folder)


def repair_tokenizer(tokenizer: Tokenizer, spec: EmbeddedModel) -> None:
    """Give a tokenizer back what its file format or its loader lost; safe to repeat.

    A GGUF only names the pre-tokenizer, and transformers builds plain GPT-2 splitting for it
    (as it does for the hub's files, which name GPT-2's class): spaces before a number would be
    tokenized as the model never saw them in training.
    """
    tokenizer.model_max_length = min(tokenizer.model_max_length, spec.context_length)
    if spec.splits_digits:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )


def _forget_gguf(model: PreTrainedModel, spec: EmbeddedModel) -> None:
    """Drop the marks of GGUF loading, which make `save_pretrained` refuse plain weights."""
    del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    model.config.name_or_path = spec.hub_id
