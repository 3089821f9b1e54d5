"""Two real processes (`accelerate launch`, gloo) train what one process would."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from datasets import Dataset, load_from_disk
from safetensors.torch import load_file

from ftkit import stages
from ftkit.models import read_adapter

STEPS, GLOBAL_BATCH = 3, 4
SCRIPT = """
import importlib, json, sys
import datasets, ftkit
from safetensors.torch import save_file
from ftkit import models, stages

folder = sys.argv[1]
module = importlib.import_module("ftkit.stages.pretrain")
real, tokenized = module.tokenize, []
module.tokenize = lambda tokenizer, texts: tokenized.extend(texts) or real(tokenizer, texts)
base = ftkit.load(folder + "/model", quantization=None, device="cpu")
recipe = stages.PretrainRecipe(**json.loads(sys.argv[2]))
trainer = stages.pretrain(base, datasets.load_from_disk(folder + "/text"), recipe=recipe)
trainer.train()
rank = trainer.args.process_index
report = {
    "world": trainer.args.world_size,
    "backend": trainer.accelerator.state.backend,
    "tokenized": len(tokenized),
    "losses": [row["loss"] for row in trainer.state.log_history if "loss" in row],
}
save_file(models.read_adapter(trainer.model).tensors, f"{folder}/adapter-{rank}.safetensors")
open(f"{folder}/report-{rank}.json", "w").write(json.dumps(report))
"""


@pytest.fixture
def folder(tmp_path, tiny_folder) -> Path:
    """The tiny model, a text of 24 documents on disk, and the script."""
    text = ["When shall we three meet again? " * (1 + i % 3) + str(i) for i in range(24)]
    Dataset.from_dict({"text": text}).save_to_disk(tmp_path / "text")
    (tmp_path / "model").symlink_to(tiny_folder)
    (tmp_path / "train.py").write_text(SCRIPT)
    return tmp_path


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums in the order of the launched processes: Adam makes a last digit of a gradient large."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def recipe(batch_size: int) -> dict[str, int]:
    """The same global batch, however many processes share it."""
    sizes = {"steps": STEPS, "batch_size": batch_size, "block_size": 16}
    return {**sizes, "warmup_steps": 0, "eval_every": 0, "log_every": 1}


def launch(folder: Path, processes: int) -> None:
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"),
        *("--num_processes", str(processes), "--num_machines", "1", "--mixed_precision", "no"),
        *("--dynamo_backend", "no", "--main_process_port", "0", str(folder / "train.py")),
        *(str(folder), json.dumps(recipe(GLOBAL_BATCH // processes))),
    ]
    environment = {
        **os.environ,
        "ACCELERATE_USE_CPU": "true",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.usefixtures("one_thread")
def test_two_processes_give_the_losses_and_the_adapter_of_one(folder, tiny_base) -> None:
    launch(folder, 2)
    reports = [json.loads((folder / f"report-{rank}.json").read_text()) for rank in (0, 1)]
    assert [(r["world"], r["backend"]) for r in reports] == [(2, "gloo")] * 2
    assert [r["tokenized"] for r in reports] == [24, 0], "the second process reads the first's work"

    alone = stages.pretrain(
        tiny_base,
        load_from_disk(folder / "text"),
        recipe=stages.PretrainRecipe(**recipe(GLOBAL_BATCH)),
    )
    alone.train()
    losses = [row["loss"] for row in alone.state.log_history if "loss" in row]
    assert len(losses) == STEPS
    for report in reports:
        assert report["losses"] == pytest.approx(losses, abs=1e-4)

    weights = read_adapter(alone.model).tensors
    moved = max(weight.abs().max() for name, weight in weights.items() if "lora_B" in name)
    assert moved > 1e-4, "the adapter has moved, so agreeing means something"
    for rank in (0, 1):
        theirs = load_file(folder / f"adapter-{rank}.safetensors")
        assert theirs.keys() == weights.keys()
        largest = max((theirs[name] - weights[name]).abs().max() for name in weights)
        assert largest < 1e-5, f"process {rank} ended with another adapter"
