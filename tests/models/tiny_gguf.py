"""A tiny random Llama as a GGUF inside a wheel: all that the embedded model is, in 100 kB."""

import hashlib
import zipfile
from pathlib import Path

import gguf
import numpy as np

from ftkit.models.catalog import EmbeddedModel

HIDDEN, FEED_FORWARD, HEADS, LAYERS = 32, 64, 4, 1
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<spare>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_gguf(path: Path) -> None:
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    tokens = _add_tokenizer(writer)
    writer.add_vocab_size(len(tokens))
    _add_weights(writer, len(tokens))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter) -> list[str]:
    # GPT-2's printable stand-ins for the 256 bytes.
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in kept]
    letters = [chr(byte) for byte in kept] + [chr(256 + i) for i in range(len(rest))]
    tokens = [*SPECIALS, *letters, "he", "ĠĠ"]
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([control] * len(SPECIALS) + [normal] * (len(tokens) - len(SPECIALS)))
    writer.add_token_merges(["h e", "Ġ Ġ"])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    return tokens


def _add_weights(writer: gguf.GGUFWriter, vocabulary: int) -> None:
    rng = np.random.default_rng(0)
    shapes = {"token_embd": (vocabulary, HIDDEN), "output_norm": (HIDDEN,)}
    for block in (f"blk.{layer}" for layer in range(LAYERS)):
        shapes |= {f"{block}.attn_{part}": (HIDDEN, HIDDEN) for part in ("q", "k", "v", "output")}
        shapes |= {f"{block}.ffn_{part}": (FEED_FORWARD, HIDDEN) for part in ("gate", "up")}
        shapes |= {f"{block}.ffn_down": (HIDDEN, FEED_FORWARD)}
        shapes |= {f"{block}.{norm}": (HIDDEN,) for norm in ("attn_norm", "ffn_norm")}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", rng.normal(0, 0.1, shape).astype(np.float32))


def write_wheel(folder: Path, gguf_file: Path) -> EmbeddedModel:
    """Pack `gguf_file` into a wheel that pip accepts, and return its pinned catalogue entry."""
    wheel = folder / "tiny_gguf_model-0.1-py3-none-any.whl"
    info = "tiny_gguf_model-0.1.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(gguf_file, "tiny_gguf_model/tiny.gguf")
        archive.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: tiny-gguf-model\nVersion: 0.1\n"
            "Requires-Dist: a-dependency-that-does-not-exist\n",
        )
        archive.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{info}/RECORD", "")
    return EmbeddedModel(
        name="tiny",
        requirement="tiny-gguf-model==0.1",
        wheel_sha256=_sha256(wheel),
        wheel_bytes=wheel.stat().st_size,
        member="tiny_gguf_model/tiny.gguf",
        gguf_sha256=_sha256(gguf_file),
        gguf_bytes=gguf_file.stat().st_size,
        converted_bytes=1_000_000,
        hub_id="ftkit-tests/tiny",
        licence="Apache-2.0",
        context_length=256,
        splits_digits=True,
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
