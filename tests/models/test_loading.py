"""What `ftkit.load` gives: weights as asked, ready to train, with a true card."""

import re
from pathlib import Path

import pytest
import torch

import ftkit
from ftkit.errors import SettingsError
from ftkit.models import memory_mb


def last_logits(model, ids):
    with torch.no_grad():
        return model(input_ids=ids).logits[0, -1].float()


@pytest.fixture
def ids(tokenizer):
    return torch.tensor([tokenizer("The capital of France is").input_ids])


def test_plain_weights_are_the_folders_weights(tiny_folder, tiny_base):
    from transformers import AutoModelForCausalLM

    expected = AutoModelForCausalLM.from_pretrained(tiny_folder).state_dict()
    for name, tensor in tiny_base.model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert not tiny_base.model.training


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantized_weights_answer_nearly_as_plain_ones(tiny_folder, tiny_base, ids, quantization):
    quantized = ftkit.load(str(tiny_folder), quantization=quantization, device="cpu")
    assert quantized.card.quantization == quantization
    plain, packed = last_logits(tiny_base.model, ids), last_logits(quantized.model, ids)
    assert not torch.equal(plain, packed)
    assert torch.nn.functional.cosine_similarity(plain, packed, dim=0) > 0.95


@pytest.mark.parametrize("quantization", ["nf4", "int8", None])
def test_parameters_are_counted_before_packing(tiny_folder, tiny_base, quantization):
    card = ftkit.load(str(tiny_folder), quantization=quantization, device="cpu").card
    assert card.parameters == sum(p.numel() for p in tiny_base.model.parameters())


def test_nf4_uses_double_quantization_and_the_compute_dtype(tiny_folder):
    loaded = ftkit.load(str(tiny_folder), device="cpu", compute_dtype="bfloat16")
    layer = loaded.model.model.layers[0].mlp.up_proj
    assert layer.weight.quant_state.nested
    assert layer.weight.quant_state.quant_type == "nf4"
    assert layer.compute_dtype == torch.bfloat16
    assert loaded.card.compute_dtype == "bfloat16"


def gradients(model, ids):
    """Gradient norms of LoRA's B matrices for one training step."""
    model.train()
    model.zero_grad()
    model(input_ids=ids, labels=ids).loss.backward()
    named = {n: p.grad for n, p in model.named_parameters() if "lora_B" in n}
    return {name: None if grad is None else grad.clone() for name, grad in named.items()}


def test_an_evaluation_before_training_does_not_cut_gradients(tiny_folder, ids):
    from peft import LoraConfig, get_peft_model

    base = ftkit.load(str(tiny_folder), quantization="nf4", device="cpu")
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(base.model, lora)
    before = gradients(model, ids)
    model.eval()
    evaluated = last_logits(model, ids)
    after = gradients(model, ids)
    assert all(grad.abs().sum() > 0 for grad in before.values())
    for name, grad in before.items():
        assert torch.equal(grad, after[name]), f"{name} changed after a forward pass in eval mode"
    model.train()
    assert torch.equal(evaluated, last_logits(model, ids)), "train and eval mode must agree"


def test_the_pad_id_agrees_everywhere(tiny_base):
    pad = tiny_base.tokenizer.pad_token_id
    model = tiny_base.model
    assert pad != tiny_base.tokenizer.eos_token_id
    assert model.config.pad_token_id == model.generation_config.pad_token_id == pad
    assert model.get_input_embeddings().padding_idx == pad


def test_a_seed_makes_what_follows_reproducible(tiny_folder):
    def draw(seed):
        ftkit.load(str(tiny_folder), quantization=None, device="cpu", seed=seed)
        return torch.rand(3).tolist()

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


def test_without_a_seed_the_random_state_is_left_alone(tiny_folder):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    ftkit.load(str(tiny_folder), quantization=None, device="cpu", seed=None)
    assert torch.equal(torch.rand(3), expected)


def test_memory_counts_shared_storage_once_and_constants_too():
    linear = torch.nn.Linear(10, 10, bias=False)
    linear.register_buffer("view", linear.weight.data[:5])
    assert memory_mb(linear) == 400 / 1e6


def test_memory_of_nf4_is_measured_with_its_constants(tiny_folder):
    from bitsandbytes.nn import Linear4bit

    model = ftkit.load(str(tiny_folder), quantization="nf4", device="cpu").model
    packed = sum(p.nbytes for p in model.parameters()) + sum(b.nbytes for b in model.buffers())
    layers = [m for m in model.modules() if isinstance(m, Linear4bit)]
    scales = sum(layer.weight.quant_state.absmax.nbytes for layer in layers)
    assert memory_mb(model) * 1e6 >= packed + scales
    assert memory_mb(model) * 1e6 < packed + scales + 3000 * len(layers)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"quantization": "int4"}, "quantization 'int4' is unknown; use one of 'nf4', 'int8'"),
        ({"device": "gpu"}, "device 'gpu' cannot be used here"),
        ({"compute_dtype": "float64"}, "compute dtype 'float64' is unknown"),
        ({"pad": "yes"}, "pad='yes' is unknown"),
        ({"quantization": "nf4", "device": "meta"}, "runs on CUDA and CPU, not on 'meta'"),
    ],
)
def test_an_impossible_option_says_what_is_possible(tiny_folder, option, says):
    with pytest.raises(SettingsError, match=re.escape(says)):
        ftkit.load(str(tiny_folder), **option)


def test_a_first_answer_shows_no_progress_bars(tiny_folder, capfd):
    ftkit.load(str(tiny_folder), quantization="nf4", device="cpu")
    assert capfd.readouterr() == ("", "")


def test_int8_does_not_repeat_itself(tiny_folder, ids, caplog):
    last_logits(ftkit.load(str(tiny_folder), quantization="int8", device="cpu").model, ids)
    assert not [r for r in caplog.records if r.name.startswith("bitsandbytes")]


def test_the_real_model_answers(base):
    tokenizer, model = base.tokenizer, base.model
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**prompt, max_new_tokens=8, do_sample=False)[0]
    answer = tokenizer.decode(output[prompt["input_ids"].shape[1] :])
    assert "Paris" in answer


def test_the_real_models_card_is_true(base):
    card = base.card
    assert card.parameters == 134_515_008
    assert card.quantization == "nf4"
    assert card.licence == "Apache-2.0"
    assert re.fullmatch("[0-9a-f]{64}", card.sha256)
    assert 150 < card.memory_mb < 180
    assert str(card.pad) == "<empty_output> (id 16)"
    assert str(card.eos) == "<|im_end|> (id 2)"
    assert str(card.bos) == "<|im_start|> (id 1)"
    assert "<|im_end|> (id 2) also ends an answer" in card.notes[0]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads Linux's list of mappings")
def test_a_quantized_model_lets_go_of_its_weight_file(tiny_folder):
    base = ftkit.load(str(tiny_folder), quantization="nf4", device="cpu")
    assert base.model.get_input_embeddings().weight.abs().sum() > 0
    assert str(tiny_folder / "model.safetensors") not in Path("/proc/self/maps").read_text()
