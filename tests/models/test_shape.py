"""Sizes read from a config alone equal those of transformers' own model."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from ftkit.errors import SettingsError
from ftkit.models.known_shapes import KNOWN
from ftkit.models.shape import ModelShape

# As published, on the model cards or in the papers.
PUBLISHED = {
    "smollm2-135m": 134_515_008,
    "gpt2": 124_439_808,
    "qwen3-0.6b": 596_049_920,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "mistral-7b": 7_241_732_096,
    "qwen2.5-7b": 7_615_616_512,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_models_have_the_published_number_of_parameters(name) -> None:
    shape = ModelShape.of(name)
    assert shape.parameters == PUBLISHED[name]
    assert KNOWN[name].source


@settings(max_examples=12, deadline=None)
@given(
    layers=st.integers(1, 3),
    heads=st.sampled_from([(4, 4), (4, 2), (6, 3)]),
    width=st.sampled_from([8, 16]),
    inner=st.sampled_from([24, 40]),
    tied=st.booleans(),
    bias=st.booleans(),
)
def test_any_llama_is_counted_as_its_real_model(layers, heads, width, inner, tied, bias) -> None:
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=heads[0] * width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads[0],
        num_key_value_heads=heads[1],
        tie_word_embeddings=tied,
        attention_bias=bias,
    )
    shape, model = ModelShape.of(config), LlamaForCausalLM(config)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    linears = [m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "l" in n]
    inside = [m for m in linears if m is not model.lm_head]
    assert (shape.linears, shape.linear) == (len(inside), sum(m.weight.numel() for m in inside))
    assert shape.lora_width == sum(m.in_features + m.out_features for m in inside)
    assert shape.key_value == model.model.layers[0].self_attn.k_proj.out_features
    assert shape.attention_linears == 4 * layers
    assert shape.tied is tied


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "gemma2", "phi3", "gpt_neox", "falcon"])
def test_other_architectures_are_counted_on_the_meta_device(kind) -> None:
    config = AutoConfig.for_model(kind)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shape = ModelShape.of(config)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert shape.multiplied < shape.parameters + shape.vocab * shape.hidden


def test_experts_are_kept_apart() -> None:
    shape = ModelShape.of(AutoConfig.for_model("mixtral"))
    assert shape.parameters == 46_702_792_704  # Mixtral 8x7B
    assert shape.active_experts * 4 == shape.experts  # 2 of 8
    assert shape.multiplied / 1e9 == pytest.approx(12.9, abs=0.2)  # "12.9B active"


def test_a_config_file_a_folder_and_a_model_say_the_same(tiny_folder, tiny_base) -> None:
    shapes = [ModelShape.of(s) for s in (tiny_folder, tiny_folder / "config.json", tiny_base)]
    assert len({shape.parameters for shape in shapes}) == 1
    assert shapes[0].parameters == sum(p.numel() for p in tiny_base.model.parameters())
    assert ModelShape.of(shapes[0]) is shapes[0]


def test_a_quantized_config_is_counted_before_quantization(tmp_path) -> None:
    plain = LlamaConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=1, vocab_size=99)
    quantized = {**plain.to_dict(), "quantization_config": {"load_in_4bit": True}}
    (tmp_path / "config.json").write_text(json.dumps(quantized))
    assert ModelShape.of(tmp_path).parameters == ModelShape.of(plain).parameters


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("llama-4-maybe", "neither a known model .*llama-3.1-8b"),
        (3.5, "no model shape can be read from a float"),
        (AutoConfig.for_model("mamba"), "no num_attention_heads"),
        (AutoConfig.for_model("t5"), "encoder-decoder"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_a_reason(source, says) -> None:
    with pytest.raises(SettingsError, match=says):
        ModelShape.of(source)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"model_type": "no-such"}'])
def test_a_broken_config_file_is_refused(tmp_path, text) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(SettingsError, match=r"config\.json"):
        ModelShape.of(tmp_path)
