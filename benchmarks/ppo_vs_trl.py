"""PPO of ftkit against the last PPO of TRL: seconds a step, peak memory, and equal losses.

    python benchmarks/ppo_vs_trl.py            # about 4 minutes on 2 idle cores
    python benchmarks/ppo_vs_trl.py --keep-unpacked --repeats 3
    python benchmarks/ppo_vs_trl.py --micro-batch 4 --compute-dtype bfloat16

TRL 1.12.0 was the last release with `trl.experimental.ppo`. It runs from a side environment that
lies over the present one (same torch, transformers and peft), in a process of its own; so does
ftkit, in turn, on the same weights, prompts and sizes. On a machine that others load, let them take
more turns and compare the medians of all. Both have a LoRA policy of rank 16 on the
attention and a reward model that is the base with a score head. What differs is what the layouts
force: TRL's critic is a second full backbone and all of its models are float32; ftkit reads one
NF4 base in four roles.

ftkit's trades can be asked for: a smaller micro-batch for less memory and more time, weights kept
unpacked for the reverse, and bfloat16 activations, which only CPUs with AMX or AVX512-BF16 compute
fast. TRL stays as it is; ``--trl-dtype bfloat16`` rounds all of its models, also the critic that it
trains (its own ``bf16=True`` gains nothing on a CPU). TRL records nothing, so ftkit's trace is off
here; ``--trace-rows 4`` is ftkit's default.

Seen with ``--keep-unpacked`` on 2 cores, seconds a step and peak GB; first row two turns of each
side, the others one. TRL took 26.5 to 30.8 seconds in float32 on the same cores:

| cores | ftkit | TRL | times faster | less memory |
|---|---|---|---|---|
| AVX2 | float32: 15.1, 1.64 | float32: 49.3, 6.95 | 3.26 | 4.25 |
| AVX-512 with AMX | float32: 11.8, 1.68 | float32: 30.8, 7.06 | 2.61 | 4.21 |
| the same | bfloat16: 8.0, 1.37 | float32: 26.5, 6.93 | 3.29 | 5.06 |
| the same | bfloat16: 8.3, 1.30 | bfloat16: 28.0, 4.74 | 3.39 | 3.64 |

Faster products of float32 help TRL more: it computes more of them, and larger ones, while ftkit's
sampling waits for memory, which is no faster there.

The losses are compared on TRL's own first minibatch: its tensors go through `ftkit.algos`, and
its tokens through ftkit's scorer (float32 weights, as TRL has them unless it is asked for others).
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftkit.threads import wait_briefly

TRL = "trl==1.12.0"
BATCH, NEW_TOKENS, EPOCHS, MINIBATCHES = 16, 24, 2, 2
RATE, KL_COEF, CLIP, VALUE_COEF, LAM = 3e-4, 0.05, 0.2, 0.1, 0.95
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


def main() -> None:
    """Run both in turn and print the comparison; exit code 1 if the losses disagree."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="PPO steps; the first is not timed")
    parser.add_argument("--repeats", type=int, default=1, help="turns of each side")
    parser.add_argument("--micro-batch", type=int, default=8, help="rows ftkit holds at once")
    parser.add_argument("--compute-dtype", default="float32", help="of ftkit's activations")
    parser.add_argument("--trl-dtype", default="float32", help="of all of TRL's models")
    parser.add_argument("--trace-rows", type=int, default=0, help="completions ftkit records")
    parser.add_argument("--keep-unpacked", action="store_true", help="faster, more memory")
    parser.add_argument("--side", choices=["ftkit", "trl"], help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds must be at least 2")
    if options.side:
        report = {"ftkit": run_ftkit, "trl": run_trl}[options.side](options)
        (options.out / f"{options.side}.json").write_text(json.dumps(report))
        return
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        turns = [
            (measured(side_environment(), "trl", options, out),
             measured(Path(sys.executable), "ftkit", options, out))
            for _ in range(options.repeats)
        ]  # fmt: skip
        comparable = options.trl_dtype == "float32"
        differences = compare_losses(out / "minibatch.safetensors") if comparable else {}
    trl, ours = map(pooled, zip(*turns, strict=True))
    print_report(ours, trl, differences, options)
    sys.exit(any(gap > 1e-4 for gap in differences.values()))


def side_environment() -> Path:
    """Return the Python of an environment with the old TRL over the present packages."""
    folder = Path(tempfile.gettempdir()) / f"ftkit-{TRL.replace('==', '-')}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=False, clear=True)
        site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site]
        subprocess.run([*map(str, pip), TRL], check=True)  # noqa: S603
        # Searched behind the folder itself, so the old TRL comes first.
        (site / "present.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
        (folder / "complete").touch()
    return python


def measured(python: Path, side: str, options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Run one side in a process of its own; return its report."""
    print(f"{side}: {options.rounds} rounds …", file=sys.stderr, flush=True)
    repository = Path(__file__).resolve().parents[1]
    environment = {**wait_briefly(dict(os.environ)), "PYTHONPATH": str(repository)}
    command = [python, __file__, "--side", side, "--out", out]
    for name in ("rounds", "micro_batch", "compute_dtype", "trl_dtype", "trace_rows"):
        command += [f"--{name.replace('_', '-')}", getattr(options, name)]
    command += ["--keep-unpacked"] * options.keep_unpacked
    subprocess.run(list(map(str, command)), check=True, env=environment)  # noqa: S603
    return json.loads((out / f"{side}.json").read_text())


def pooled(turns: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Return the median seconds a step, without the first of each turn, and the highest peak."""
    seconds = [second for turn in turns for second in turn["seconds"][1:]]
    return statistics.median(seconds), max(turn["peak_gb"] for turn in turns)


def report(seconds: list[float], scores: float) -> dict[str, Any]:
    """Return what a side measured; ``ru_maxrss`` is in kB on Linux, in bytes on macOS."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    return {"seconds": seconds, "peak_gb": peak, "scores": scores}


def run_ftkit(options: argparse.Namespace) -> dict[str, Any]:
    """One NF4 base in four roles."""
    import ftkit
    from ftkit.models import Roles

    base = ftkit.load(quantization="nf4", compute_dtype=options.compute_dtype)
    roles = Roles(base)
    roles.add_reward()
    config = ftkit.PPOConfig(
        iterations=options.rounds,
        batch_size=BATCH,
        micro_batch=options.micro_batch,
        epochs=EPOCHS,
        minibatches=MINIBATCHES,
        max_new_tokens=NEW_TOKENS,
        learning_rate=RATE,
        kl_coef=KL_COEF,
        value_coef=VALUE_COEF,
        trace_rows=options.trace_rows,
        keep_unpacked=options.keep_unpacked,
    )
    prompts = ftkit.data.sentiment_prompts()
    trainer = ftkit.PPOTrainer(
        base, prompts, reward="model", config=config, roles=roles, output_dir=options.out / "ftkit"
    )
    history = trainer.train()
    return report([row["time/round_s"] for row in history], history[-1]["objective/scores"])


def run_trl(options: argparse.Namespace) -> dict[str, Any]:
    """Policy with LoRA, critic and reward model with backbones of their own, all float32."""
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    class Clock(TrainerCallback):
        """When training began and each step ended."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.times = [time.perf_counter()]

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.times.append(time.perf_counter())

    policy, tokenizer, critic, reward = trl_models(options.trl_dtype)
    clock = Clock()
    config = PPOConfig(
        output_dir=str(options.out / "trl"),
        total_episodes=options.rounds * BATCH,
        per_device_train_batch_size=BATCH // MINIBATCHES,
        gradient_accumulation_steps=MINIBATCHES,
        num_mini_batches=MINIBATCHES,
        num_ppo_epochs=EPOCHS,
        local_rollout_forward_batch_size=BATCH,
        response_length=NEW_TOKENS,
        temperature=1.0,
        learning_rate=RATE,
        kl_coef=KL_COEF,
        cliprange=CLIP,
        vf_coef=VALUE_COEF,
        lam=LAM,
        stop_token="eos",  # noqa: S106
        num_sample_generations=0,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    keep_first_minibatch(ppo_trainer, options.out / "minibatch.safetensors")
    lora = LoraConfig(r=16, lora_alpha=32, target_modules=ATTENTION, task_type="CAUSAL_LM")
    trainer = PPOTrainer(
        config, tokenizer, policy, None, reward, prompt_rows(tokenizer), critic,
        callbacks=[clock], peft_config=lora,
    )  # fmt: skip
    trainer.train()
    seconds = [b - a for a, b in zip(clock.times, clock.times[1:], strict=False)]
    return report(seconds, trainer.state.log_history[-1]["objective/scores"])


def trl_models(dtype: str) -> tuple[Any, Any, Any, Any]:
    """Return policy, tokenizer, critic and reward model, the weights read from ftkit's cache."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from ftkit.models import fetch, load_tokenizer

    folder, tokenizer = fetch(), load_tokenizer()
    tokenizer.padding_side = "left"
    policy = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    heads = [
        AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=dtype)
        for _ in range(2)
    ]
    for model in (policy, *heads):
        model.config.pad_token_id = tokenizer.pad_token_id
    return policy, tokenizer, *heads


def prompt_rows(tokenizer: Any) -> Any:
    """Return ftkit's prompts as the rows that TRL takes."""
    from datasets import Dataset

    from ftkit import data
    from ftkit.stages.ppo.rollout import encode_prompts
    from ftkit.stages.ppo.trainer import conversations

    _, ids, mask = encode_prompts(tokenizer, conversations(data.sentiment_prompts()), 256)
    rows = [row[real].tolist() for row, real in zip(ids, mask, strict=True)]
    return Dataset.from_dict({"input_ids": rows})


def keep_first_minibatch(module: Any, file: Path) -> None:
    """Save what TRL's `train` holds at its first policy loss, and that loss, to `file`."""
    from safetensors.torch import save_file

    plain, calls = module.masked_mean, []

    def masked_mean(values: Any, mask: Any, axis: Any = None) -> Any:
        result = plain(values, mask, axis)
        held = sys._getframe(1).f_locals
        if "pg_loss_max" not in held and "vf_loss_max" not in held:
            return result  # of the whitening
        calls.append(result.detach())
        if len(calls) == 3:  # value loss, value clip fraction, policy loss
            rows = held["micro_batch_inds"]
            kept = {
                name: held[name].detach()
                for name in ("mb_query_responses", "mb_responses", "mb_advantage", "mb_return",
                             "mb_values", "mb_logprobs", "new_logprobs", "vpred")
            }  # fmt: skip
            kept["padding"] = held["padding_mask"][rows]
            kept["padding_p1"] = held["padding_mask_p1"][rows]
            kept |= {"value_loss": 0.5 * calls[0], "policy_loss": calls[2]}
            save_file({name: tensor.contiguous() for name, tensor in kept.items()}, file)
        return result

    module.masked_mean = masked_mean


def compare_losses(file: Path) -> dict[str, float]:
    """Return the largest differences between TRL's numbers and ftkit's on its minibatch."""
    import torch
    from safetensors.torch import load_file

    import ftkit
    from ftkit.algos import policy_loss, value_loss
    from ftkit.models import Roles

    held = load_file(file)
    mask, value_mask = ~held["padding"], ~held["padding_p1"]
    policy = policy_loss(
        held["new_logprobs"], held["mb_logprobs"], held["mb_advantage"], mask, CLIP
    )
    value = value_loss(held["vpred"], held["mb_values"], held["mb_return"], value_mask, CLIP)
    base = ftkit.load(quantization=None, compute_dtype="float32")
    ids = held["mb_query_responses"]
    start = ids.shape[1] - mask.shape[1]
    attention = torch.cat([ids[:, :start] != base.tokenizer.pad_token_id, mask], dim=1)
    with torch.no_grad():
        seen = Roles(base, start="new").logprobs_and_values(ids, attention, start)
    gap = (seen.logprobs - held["new_logprobs"]).masked_fill(~mask, 0.0)
    return {
        "policy loss": abs(float(policy.loss - held["policy_loss"])),
        "value loss": abs(float(value.loss - held["value_loss"])),
        "log-probabilities (nats, largest)": float(gap.abs().max()),
    }


def print_report(
    ours: tuple[float, float],
    trl: tuple[float, float],
    differences: dict[str, float],
    options: argparse.Namespace,
) -> None:
    """Print seconds, memory, their ratios, and the differences."""
    sizes = f"{BATCH} prompts x {NEW_TOKENS} tokens, {EPOCHS} epochs x {MINIBATCHES} minibatches"
    print(f"PPO step, SmolLM2-135M, {sizes}, {os.cpu_count()} cores")
    print(
        f"ftkit in {options.compute_dtype}, micro-batches of {options.micro_batch}; "
        f"TRL in {options.trl_dtype}"
    )
    print(f"{'':14}{'ftkit':>10}{TRL:>14}{'ratio':>9}")
    for name, places, mine, theirs in zip(
        ("seconds/step", "peak RSS, GB"), (1, 2), ours, trl, strict=True
    ):
        print(f"{name:14}{mine:10.{places}f}{theirs:14.{places}f}{theirs / mine:9.2f}")
    if differences:
        print("\nTRL's first minibatch through ftkit, absolute differences (to be below 1e-4)")
    for name, gap in differences.items():
        print(f"  {name:36}{gap:.1e}")


if __name__ == "__main__":
    main()
