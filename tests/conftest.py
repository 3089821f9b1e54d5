"""Fixtures that every room shares.

`tokenizer` and `tiny_*` are cheap; `base` loads the real embedded model once a session. The first
run on a machine downloads and converts that model into the user's cache.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ftkit.threads import wait_briefly

wait_briefly()  # before torch is imported


@pytest.fixture(scope="session", autouse=True)
def _smoke_profile() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FTKIT_PROFILE", "smoke")
        patch.setenv("FTKIT_STATIC", "1")
        patch.setenv("TOKENIZERS_PARALLELISM", "false")
        yield


@pytest.fixture(scope="session")
def tokenizer():
    """The embedded model's tokenizer, with its distinct pad token; do not change it."""
    from ftkit.models import load_tokenizer

    return load_tokenizer()


@pytest.fixture
def fresh_tokenizer():
    """The same tokenizer, for tests that change it."""
    from ftkit.models import load_tokenizer

    return load_tokenizer()


@pytest.fixture(scope="session")
def base():
    """The real embedded model in NF4 on the CPU; do not train or change it."""
    from ftkit.models import load

    return load(quantization="nf4", device="cpu")


@pytest.fixture(scope="session")
def tiny_folder(tokenizer, tmp_path_factory) -> Path:
    """A folder with a tiny random Llama over the embedded tokenizer's vocabulary."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder = tmp_path_factory.mktemp("tiny-llama")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_base(tiny_folder):
    """A fresh `Loaded` of the tiny random Llama in float32: fast, and yours to train."""
    from ftkit.models import load

    return load(str(tiny_folder), quantization=None, device="cpu")


@pytest.fixture
def tiny_model(tiny_base):
    """The tiny random Llama alone, fresh for each test."""
    return tiny_base.model
