"""A tokenizer with one token a byte, made in code: for exact boundaries and tiny vocabularies."""

import re

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


def byte_tokenizer(template: str) -> PreTrainedTokenizerFast:
    """One token a byte, and one for each marker of `template`: no token crosses a boundary."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    markers = set(re.findall(r"<[|｜/]?[A-Za-z_][\w▁｜|]*[|｜]?>", template))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<BOS>", eos_token="<EOS>", pad_token="<PAD>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": sorted(markers)})
    tokenizer.chat_template = template
    return tokenizer
