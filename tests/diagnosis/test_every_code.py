"""Every code of the doctor, on a patient that has the fault and on the same one without it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from byte_level import byte_tokenizer
from datasets import Dataset
from patients import QUIET, chats, llama, ratings
from patients import pairs as good_pairs
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
)

from ftkit import doctor
from ftkit.diagnosis import CODES, hardware
from ftkit.records.report import DoctorReport

Case = Callable[[bool, Path, pytest.MonkeyPatch], DoctorReport]
CASES: dict[str, Case] = {}

BODY = "{{ '<|im_start|>' + m.role + '\n' + (m.content or '') + '<|im_end|>' + '\n' }}"
PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
PLAIN = "{% for m in messages %}" + BODY + "{% endfor %}" + PROMPT
MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{ (m.content or '') + '<|im_end|>' }}{% endgeneration %}{% else %}"
    "{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}" + PROMPT
)
USER = {"role": "user", "content": "How is the weather?"}
FINE = {"role": "assistant", "content": "It is fine."}


def case(code: str) -> Callable[[Case], Case]:
    def keep(function: Case) -> Case:
        CASES[code] = function
        return function

    return keep


def tok(template: str = MARKED, **tokens: Any) -> Any:
    tokenizer = byte_tokenizer(template)
    tokenizer.eos_token = "<|im_end|>"
    for name, value in tokens.items():
        setattr(tokenizer, name, value)
    return tokenizer


def read(tokenizer: Any, *rows: list[dict[str, Any]], **options: Any) -> DoctorReport:
    return doctor(tokenizer=tokenizer, dataset=[{"messages": row} for row in rows], **options)


def sft(folder: Path, rows: Any = None, **options: Any) -> SFTTrainer:
    tokenizer = options.pop("tokenizer", None) or tok()
    made = options.pop("model", None) or llama(tokenizer)
    kept = {k: options.pop(k) for k in ("data_collator", "peft_config") if k in options}
    return SFTTrainer(
        model=made,
        args=SFTConfig(output_dir=str(folder), **{**QUIET, **options}),
        train_dataset=rows if rows is not None else chats(),
        processing_class=tokenizer,
        **kept,
    )


def given(sick: bool, **options: Any) -> Any:
    """A trainer whose rows bring ids and labels."""
    ids = [5, 6, 7, 8, tok().eos_token_id]
    return Dataset.from_list([{"input_ids": ids, "labels": options["bad"] if sick else ids}] * 3)


# --- tokenizer and template -------------------------------------------------------------------


@case("pad-is-eos")
def _(sick, folder, patch):
    return doctor(tokenizer=tok(pad_token="<|im_end|>") if sick else tok())


@case("stop-token-untrained")
def _(sick, folder, patch):
    """transformers' collator masks by token id; TRL's by position."""
    tokenizer = tok(pad_token="<|im_end|>" if sick else "<PAD>")
    rows = [tokenizer(f"Text {i}.<|im_end|>")["input_ids"] for i in range(4)]
    trainer = Trainer(
        model=llama(tokenizer),
        args=TrainingArguments(str(folder), **QUIET),
        train_dataset=Dataset.from_dict({"input_ids": rows}),
        processing_class=tokenizer,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    )
    return doctor(trainer)


@case("no-stop-token")
def _(sick, folder, patch):
    bare = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}{% endfor %}"
    return read(tok(bare + PROMPT if sick else MARKED), [USER, FINE])


@case("stop-not-special")
def _(sick, folder, patch):
    tokenizer = tok()
    if sick:
        tokenizer.chat_template = MARKED.replace("<|im_end|>", "[end]")
    return read(tokenizer, [USER, FINE])


@case("stop-not-eos")
def _(sick, folder, patch):
    return read(tok(eos_token="<EOS>") if sick else tok(), [USER, FINE])


@case("stop-not-in-generation-config")
def _(sick, folder, patch):
    trainer = sft(folder)
    if sick:
        trainer.model.generation_config.eos_token_id = 3
    return doctor(trainer)


@case("generation-markers")
def _(sick, folder, patch):
    return doctor(tokenizer=tok(PLAIN if sick else MARKED))


@case("no-template")
def _(sick, folder, patch):
    return doctor(tokenizer=tok(chat_template=None) if sick else tok())


@case("prefix-unstable")
def _(sick, folder, patch):
    last = "{% if loop.last %}{{ '!' }}{% endif %}{% endfor %}"
    changing = PLAIN.replace("{% endfor %}", last)
    return read(tok(changing if sick else PLAIN), [USER, FINE, USER, FINE])


@case("prompt-mismatch")
def _(sick, folder, patch):
    opened = PLAIN.replace("assistant\n'", "assistant\n<think>'")
    return read(tok(opened if sick else PLAIN), [USER, FINE])


@case("no-generation-prompt")
def _(sick, folder, patch):
    return read(tok(PLAIN.replace(PROMPT, "") if sick else PLAIN), [USER, FINE])


@case("token-across-header")
def _(sick, folder, patch):
    from ftkit.models import load_tokenizer

    answer = "\n\nFine." if sick else "Fine."
    return read(load_tokenizer(), [USER, {"role": "assistant", "content": answer}])


@case("header-trained")
def _(sick, folder, patch):
    inside = MARKED.replace("{{ '<|im_start|>' + m.role + '\n' }}", "").replace(
        "{% generation %}{{", "{% generation %}{{ '<|im_start|>assistant\n' +"
    )
    return read(tok(inside if sick else MARKED), [USER, FINE])


@case("after-trained")
def _(sick, folder, patch):
    behind = MARKED.replace(
        "{{ (m.content or '') + '<|im_end|>' }}", "{{ m.content + '<|im_end|>' + '\n' }}"
    ).replace("{% endif %}{{ '\n' }}", "{% endif %}")
    return read(tok(behind if sick else MARKED), [USER, FINE])


@case("response-template-context")
def _(sick, folder, patch):
    from ftkit.models import load_tokenizer

    messages = [{"role": "user", "content": "Sum? Answer: 4."}, FINE]
    words = "Answer:" if sick else "<|im_start|>assistant\n"
    return read(load_tokenizer(), messages, response_template=words)


@case("only-last-turn-trained")
def _(sick, folder, patch):
    messages = [USER, FINE] * (2 if sick else 1)
    return read(tok(), messages, response_template="<|im_start|>assistant\n")


# --- rows and labels ----------------------------------------------------------------------------


@case("nothing-trained")
def _(sick, folder, patch):
    masked = [-100] * 5
    return doctor(tokenizer=tok(), dataset=given(sick, bad=masked))


@case("share-trained")
def _(sick, folder, patch):
    return doctor(tokenizer=tok(), dataset=given(sick, bad=[-100] * 5))


@case("prompts-trained")
def _(sick, folder, patch):
    return doctor(sft(folder, assistant_only_loss=not sick))


@case("labels-not-ids")
def _(sick, folder, patch):
    shifted = [6, 7, 8, tok().eos_token_id, -100]
    return doctor(tokenizer=tok(), dataset=given(sick, bad=shifted))


@case("labels-uneven")
def _(sick, folder, patch):
    return doctor(tokenizer=tok(), dataset=given(sick, bad=[5, 6]))


@case("double-bos")
def _(sick, folder, patch):
    bos = tok().bos_token_id
    rows = [{"input_ids": [bos] * (1 + sick) + [7, 8, tok().eos_token_id]}] * 2
    return doctor(tokenizer=tok(), dataset=rows)


@case("ends-without-stop")
def _(sick, folder, patch):
    end = 9 if sick else tok().eos_token_id
    rows = [{"input_ids": [*[7, 8, 9][:n], end]} for n in (1, 2, 3)]
    return doctor(tokenizer=tok(), dataset=rows)


@case("answer-cut")
def _(sick, folder, patch):
    return doctor(sft(folder, assistant_only_loss=True, max_length=60 if sick else 200))


@case("answer-gone")
def _(sick, folder, patch):
    return read(tok(), [USER, FINE], max_length=20 if sick else 100)


@case("rows-dropped")
def _(sick, folder, patch):
    rows = chats()
    long = {"messages": [{"role": "user", "content": "x" * 300}, FINE]}
    rows = Dataset.from_list([*rows, long]) if sick else rows
    trainer = sft(folder, rows, assistant_only_loss=True, max_length=200)
    return doctor(trainer, dataset=rows)


@case("row-unreadable")
def _(sick, folder, patch):
    return read(tok(), [USER, {"role": "wizard" if sick else "assistant", "content": "Hex."}])


@case("empty-answer")
def _(sick, folder, patch):
    return read(tok(), [USER, {"role": "assistant", "content": "" if sick else "Yes."}])


@case("content-not-rendered")
def _(sick, folder, patch):
    skips = PLAIN.replace(BODY, "{% if m.role != 'system' %}" + BODY + "{% endif %}")
    system = {"role": "system", "content": "Be kind."}
    return read(tok(skips if sick else PLAIN), [system, USER, FINE])


@case("content-outside-turn")
def _(sick, folder, patch):
    from ftkit.chat import templates

    call = {"type": "function", "function": {"name": "weather", "arguments": {"at": "Rome"}}}
    calling = {"role": "assistant", "content": "Let me see." if sick else "", "tool_calls": [call]}
    result = {"role": "tool", "content": "sunshine", "name": "weather"}
    tokenizer = byte_tokenizer(templates.get("gemma4"))
    return read(tokenizer, [USER, calling, result, FINE], max_length=None)


@case("field-not-rendered")
def _(sick, folder, patch):
    thought = {"reasoning_content": "Clouds?"} if sick else {}
    return read(tok(), [USER, {**FINE, **thought}])


@case("text-lost")
def _(sick, folder, patch):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(set(PLAIN) | set("How is the weather? It is fine. assistant user"))
    core = Tokenizer(models.BPE({c: i for i, c in enumerate(letters)}, []))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<PAD>")
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>"})
    tokenizer.chat_template = PLAIN
    said = "It is 怎." if sick else "It is fine."
    return read(tokenizer, [USER, {"role": "assistant", "content": said}])


@case("packed-rows")
def _(sick, folder, patch):
    return doctor(sft(folder, packing=sick, max_length=256))


@case("collator-fails")
def _(sick, folder, patch):
    def broken(_: Any) -> Any:
        raise KeyError("label")

    return doctor(sft(folder, **({"data_collator": broken} if sick else {})))


# --- model and hardware ---------------------------------------------------------------------------


@case("token-out-of-range")
def _(sick, folder, patch):
    tokenizer = tok()
    made = llama(tokenizer)
    if sick:
        tokenizer.add_tokens(["<new>"])
    return doctor(sft(folder, tokenizer=tokenizer, model=made))


@case("markers-untrained")
def _(sick, folder, patch):
    tokenizer = tok()
    made = llama(tokenizer)
    marker = tokenizer.convert_tokens_to_ids("<|im_start|>")
    if sick:
        made.get_input_embeddings().weight.data[marker] = 1e-9
    return doctor(sft(folder, tokenizer=tokenizer, model=made, peft_config=LoraConfig()))


@case("context-exceeded")
def _(sick, folder, patch):
    made = llama(tok())
    made.config.max_position_embeddings = 32 if sick else 4096
    return doctor(sft(folder, model=made))


@case("score-head-not-saved")
def _(sick, folder, patch):
    return doctor(reward(folder, modules=None if sick else ["score"]))


def reward(folder: Path, *, modules: Any = None, tokenizer: Any = None, pad: Any = None) -> Any:
    tokenizer = tokenizer or tok()
    made = llama(tokenizer, classifier=True)
    trainer = RewardTrainer(
        model=get_peft_model(made, LoraConfig(target_modules=["q_proj"], modules_to_save=modules)),
        args=RewardConfig(output_dir=str(folder), **QUIET),
        train_dataset=good_pairs(),
        processing_class=tokenizer,
    )
    if pad is not None:
        trainer.model.config.pad_token_id = pad
    return trainer


@case("score-before-stop")
def _(sick, folder, patch):
    """Where the answer's stop token is the very end of the row."""
    tokenizer = tok(MARKED.replace("{{ '\n' }}{% endfor %}", "{% endfor %}"))
    pad = tokenizer.eos_token_id if sick else None
    return doctor(reward(folder, modules=["score"], tokenizer=tokenizer, pad=pad))


@case("nothing-trainable")
def _(sick, folder, patch):
    trainer = sft(folder)
    trainer.model.requires_grad_(not sick)
    return doctor(trainer)


@case("dtype-slow")
def _(sick, folder, patch):
    patch.setattr(hardware, "cpu_has_bf16", lambda: not sick)
    return doctor(sft(folder, bf16=True))


@case("dtype-overflow")
def _(sick, folder, patch):
    trainer = sft(folder)
    trainer.model.config.dtype = torch.bfloat16
    trainer.args.fp16 = sick
    return doctor(trainer)


@case("dtype-half-weights")
def _(sick, folder, patch):
    trainer = sft(folder)
    return doctor(trainer) if not sick else _halved(trainer)


def _halved(trainer: Any) -> DoctorReport:
    trainer.model.half()
    return doctor(trainer)


@case("does-not-fit")
def _(sick, folder, patch):
    patch.setattr(hardware, "free_bytes", lambda _: 1000 if sick else 10**12)
    return doctor(sft(folder))


@case("second-copy")
def _(sick, folder, patch):
    tokenizer = tok()
    trainer = DPOTrainer(
        model=llama(tokenizer),
        args=DPOConfig(output_dir=str(folder), **QUIET),
        train_dataset=good_pairs(),
        processing_class=tokenizer,
        peft_config=LoraConfig(target_modules=["q_proj"]),
    )
    trainer.ref_model = llama(tokenizer) if sick else None
    return doctor(trainer)


# --- settings -------------------------------------------------------------------------------------


@case("neftune-packed")
def _(sick, folder, patch):
    return doctor(sft(folder, packing=sick, max_length=256, neftune_noise_alpha=5.0))


def grpo(folder: Path, **options: Any) -> Any:
    tokenizer = tok()
    return GRPOTrainer(
        model=llama(tokenizer),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=GRPOConfig(output_dir=str(folder), **QUIET, **options),
        train_dataset=good_pairs().select_columns(["prompt"]),
        processing_class=tokenizer,
    )


@case("sampler-not-scorer")
def _(sick, folder, patch):
    return doctor(grpo(folder, top_k=20) if sick else grpo(folder))


@case("groups-alike")
def _(sick, folder, patch):
    return doctor(grpo(folder, temperature=0.01 if sick else 1.0))


@case("prompt-too-long")
def _(sick, folder, patch):
    from ftkit import PPOConfig, PPOTrainer
    from ftkit.models import Loaded
    from ftkit.records.model_card import ModelCard, TokenRef

    tokenizer = tok()
    card = ModelCard(**_card(tokenizer, ModelCard, TokenRef))
    base = Loaded(llama(tokenizer), tokenizer, card)
    config = PPOConfig(batch_size=2, minibatches=1, lora_r=2, max_prompt_tokens=20 if sick else 99)
    trainer = PPOTrainer(
        base, [[USER], [USER]], reward=lambda p, c: [0.0] * len(p), config=config, output_dir=folder
    )
    return doctor(trainer)


def _card(tokenizer: Any, card: Any, ref: Any) -> dict[str, Any]:
    from dataclasses import fields

    known = {
        "compute_dtype": "float32", "device": "cpu", "quantization": None, "parameters": 1000,
        "memory_mb": 1.0, "notes": (), "eos": ref("<|im_end|>", tokenizer.eos_token_id),
        "pad": ref("<PAD>", tokenizer.pad_token_id), "bos": None,
    }  # fmt: skip
    return {f.name: known.get(f.name, "tiny") for f in fields(card)}


@case("stale-api")
def _(sick, folder, patch):
    path = folder / "train.py"
    name = "max_seq_length" if sick else "max_length"
    path.write_text(f"from trl import SFTConfig\nSFTConfig('out', {name}=512)\n")
    return doctor(scripts=[path])


# --- preferences ----------------------------------------------------------------------------------


def texts(count: int, chosen: str, rejected: str, **columns: Any) -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"Question {i}?",
            "chosen": chosen.format(i=i) + " ok" * (i % 3),
            "rejected": rejected.format(i=i) + " no" * (i % 3),
            **columns,
        }
        for i in range(count)
    ]


@case("length-bias")
def _(sick, folder, patch):
    long = "Yes, and here is a long story about {i} and more of it" if sick else "Yes {i}"
    return doctor(dataset=texts(20, long, "Not {i}"))


@case("pairs-identical")
def _(sick, folder, patch):
    rows = texts(10, "Yes {i}", "Not {i}")
    rows[3]["rejected"] = rows[3]["chosen"] if sick else "Other"
    return doctor(dataset=rows)


@case("pairs-near-duplicate")
def _(sick, folder, patch):
    words = " ".join(f"w{i}" for i in range(40))
    other = words.replace("w20", "different") if sick else words[::-1]
    rows = [*texts(9, "Yes {i}", "Not {i}"), {"prompt": "?", "chosen": words, "rejected": other}]
    return doctor(dataset=rows)


@case("pairs-contradict")
def _(sick, folder, patch):
    rows = [
        {"prompt": "A?", "chosen": "x y", "rejected": "z w"},
        {"prompt": "A?" if sick else "B?", "chosen": "z w", "rejected": "x y"},
    ]
    return doctor(dataset=rows)


@case("labels-flipped")
def _(sick, folder, patch):
    scores = {"score_chosen": 1.0 if sick else 9.0, "score_rejected": 5.0}
    return doctor(dataset=texts(4, "Yes {i}", "Not {i}", **scores))


@case("prompt-in-answer")
def _(sick, folder, patch):
    prompt = "Please tell me how to bake a good rye bread"
    answer = f"{prompt if sick else ''} Take flour."
    return doctor(dataset=[{"prompt": prompt, "chosen": answer, "rejected": "No idea."}])


@case("label-imbalance")
def _(sick, folder, patch):
    rows = ratings(20)
    labels = [i == 0 if sick else i % 2 == 0 for i in range(20)]
    return doctor(dataset=rows.remove_columns("label").add_column("label", labels))


# --- the table itself -----------------------------------------------------------------------------

IN_TRAINING = {
    *("loss-nan", "loss-zero", "no-gradient", "kl-negative", "kl-exploding", "reward-hacking"),
    *("zero-variance-groups", "chosen-falls"),
}
"""Tested on curves, in test_watch.py."""


def test_every_code_of_the_guide_has_a_patient() -> None:
    assert set(CASES) | IN_TRAINING == set(CODES)


@pytest.mark.parametrize("code", CASES)
def test_the_fault_is_found_and_its_absence_is_not(code, tmp_path, monkeypatch) -> None:
    sick = {f.code: f for f in CASES[code](True, tmp_path, monkeypatch).findings}
    assert sick[code].severity != "ok", sick
    assert sick[code].message
    assert sick[code].fix or sick[code].severity == "info" or code == "share-trained"
    monkeypatch.undo()
    clean = {f.code: f for f in CASES[code](False, tmp_path, monkeypatch).findings}
    assert clean.get(code) is None or clean[code].severity == "ok", clean[code]
