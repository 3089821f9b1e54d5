"""`ftkit.PPOTrainer`: its prompts, its model, and what it has logged."""

from collections.abc import Iterator
from typing import Any

from ftkit.chat.checks import special_tokens
from ftkit.chat.render import Renderer
from ftkit.diagnosis.case import Case
from ftkit.diagnosis.curves import judge
from ftkit.diagnosis.model import examine_model
from ftkit.diagnosis.rows import take
from ftkit.findings import Finding
from ftkit.records import RunHistory


class _Shown:
    """The trainer with the names of a TRL trainer."""

    def __init__(self, trainer: Any) -> None:
        self.args = trainer.config
        self.data_collator = None
        self.own = trainer


def ppo_case(trainer: Any, rows: int, progress: bool) -> Case:
    """Return the trainer as a case."""
    prompts = [{"prompt": list(messages)} for messages in trainer.prompts]
    return Case(
        subject="PPOTrainer",
        rows=take(prompts, rows),
        tokenizer=trainer.base.tokenizer,
        model=trainer.roles.model,
        trainer=_Shown(trainer),
        max_length=trainer.config.max_prompt_tokens,
        progress=progress,
    )


def examine_ppo(case: Case) -> Iterator[Finding]:
    """Every check of a PPO trainer."""
    trainer = case.trainer.own
    yield from special_tokens(case.tokenizer)
    yield from _prompts(case)
    yield from (f for f in examine_model(case) if not f.code.startswith("score-head"))
    history = RunHistory("ppo")
    for number, logged in enumerate(trainer.history, start=1):
        history.append(number, logged)
    yield from judge(history)


def _prompts(case: Case) -> Iterator[Finding]:
    renderer = Renderer.of(case.tokenizer)
    texts = [renderer.render(row["prompt"], generation_prompt=True) for _, row in case.rows.items]
    encoded = case.tokenizer(texts, add_special_tokens=False)["input_ids"]
    limit = case.max_length or 0
    case.lengths += [(len(ids), "gone" if len(ids) > limit else "whole") for ids in encoded]
    items = zip(case.rows.items, encoded, strict=True)
    long = tuple(index for (index, _), ids in items if len(ids) > limit)
    if not long:
        yield Finding("prompts-fit", "ok", f"every prompt is within max_prompt_tokens={limit}")
        return
    yield Finding(
        "prompt-too-long",
        "error",
        f"{len(long)} of {len(texts)} prompts are longer than max_prompt_tokens={limit} (the "
        f"longest has {max(map(len, encoded))} tokens): the run ends when it comes to one",
        "shorten or remove them, or raise PPOConfig(max_prompt_tokens=)",
        rows=long,
    )
