"""Small trainers and rows for the doctor: healthy ones, to be made sick one fault at a time."""

from pathlib import Path
from typing import Any

import torch
from byte_level import byte_tokenizer
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification
from trl import SFTConfig, SFTTrainer

QUIET = {
    "bf16": False, "use_cpu": True, "report_to": "none", "max_steps": 1, "logging_steps": 1,
    "save_strategy": "no", "dataloader_pin_memory": False,
}  # fmt: skip
"""A CPU without bf16 instructions would be a true finding; all else is TRL's default."""


def chats(count: int = 6) -> Dataset:
    return Dataset.from_list(
        [
            {
                "messages": [
                    {"role": "user", "content": f"Question number {i}, 怎么办?"},
                    {"role": "assistant", "content": f"The answer is {i * 7} and no more."},
                ]
            }
            for i in range(count)
        ]
    )


def pairs(count: int = 12) -> Dataset:
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": f"How was day {i}?"}],
                "chosen": [{"role": "assistant", "content": f"It was great{'!' * (i % 3)}"}],
                "rejected": [{"role": "assistant", "content": f"It was awful{'?' * (i % 4)}"}],
            }
            for i in range(count)
        ]
    )


def ratings(count: int = 12) -> Dataset:
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": f"How was day {i}?"}],
                "completion": [{"role": "assistant", "content": f"It was day {i}."}],
                "label": i % 2 == 0,
            }
            for i in range(count)
        ]
    )


def llama(tokenizer: Any, *, classifier: bool = False) -> Any:
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=16384,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, num_labels=1 if classifier else 2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return (LlamaForSequenceClassification if classifier else LlamaForCausalLM)(config)


def family_tokenizer(template: str, stop: str) -> Any:
    """A tokenizer whose eos token is the family's stop token, as the families ship it."""
    tokenizer = byte_tokenizer(template)
    known = [token for token in tokenizer.get_added_vocab() if stop.endswith(token)]
    if known:
        tokenizer.eos_token = max(known, key=len)
    return tokenizer


def saved(tokenizer: Any, folder: Path, *, classifier: bool = False) -> str:
    """A model's folder, as trainers that build their own reference want it."""
    llama(tokenizer, classifier=classifier).save_pretrained(folder)
    return str(folder)


def sft_trainer(base: Any, rows: Dataset, folder: Path, **options: Any) -> SFTTrainer:
    """TRL's own trainer on a `Loaded` base."""
    collator = options.pop("data_collator", None)
    peft_config = options.pop("peft_config", None)
    return SFTTrainer(
        model=base.model,
        args=SFTConfig(output_dir=str(folder), **{**QUIET, **options}),
        train_dataset=rows,
        processing_class=base.tokenizer,
        data_collator=collator,
        peft_config=peft_config,
    )


def severities(report: Any) -> dict[str, str]:
    return {f.code: f.severity for f in report.findings}


def alarms(report: Any) -> dict[str, str]:
    return {f.code: str(f) for f in (*report.errors, *report.warnings)}
