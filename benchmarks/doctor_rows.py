"""The doctor on 10,000 rows against what TRL needs to tokenize the same rows.

    python benchmarks/doctor_rows.py            # about 2 minutes on 2 cores
    python benchmarks/doctor_rows.py --rows 2000

A look before training may cost about as much as the preparation that every run pays anyway. Both
sides get the same conversations and tokenizer: `ftkit.doctor` reads each row under every check of
data, TRL's `SFTTrainer` renders, tokenizes and truncates it. Reported are seconds and their ratio.
"""

import argparse
import os
import tempfile
import time
from typing import Any

from ftkit.threads import wait_briefly

wait_briefly()  # before torch is imported


def main() -> None:
    """Time both sides in turn and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000)
    rows = parser.parse_args().rows

    import ftkit

    data = conversations(rows)
    tokenizer = ftkit.models.load_tokenizer()
    began = time.perf_counter()
    findings = ftkit.doctor(tokenizer=tokenizer, dataset=data, rows=rows, progress=True)
    ours = time.perf_counter() - began
    theirs = prepared_by_trl(tokenizer, data)
    print(f"{rows:,} conversations, {os.cpu_count()} cores")
    print(f"ftkit.doctor            {ours:7.1f} s  ({len(findings.findings)} findings)")
    print(f"TRL prepares the rows   {theirs:7.1f} s")
    print(f"ratio                   {ours / theirs:7.2f}")


def conversations(rows: int) -> Any:
    """Return that many different two-turn conversations, made from the shipped questions."""
    from datasets import Dataset

    import ftkit

    known = ftkit.data.chatterbot()
    turns = [row["messages"][-2:] for row in known]
    made = [
        {"messages": [*turns[i % len(turns)], *turns[(i * 7 + i // len(turns) + 1) % len(turns)]]}
        for i in range(rows)
    ]
    return Dataset.from_list(made)


def prepared_by_trl(tokenizer: Any, data: Any) -> float:
    """Return the seconds that TRL's trainer takes to prepare `data`, on a model of no size."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(output_dir=folder, max_length=256, report_to="none", use_cpu=True)
        model = LlamaForCausalLM(config)
        began = time.perf_counter()
        SFTTrainer(model, arguments, train_dataset=data, processing_class=tokenizer)
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
