"""TRL's own trainers with default settings: healthy runs on every shipped template family."""

import pytest
import torch
from families import FAMILIES, OWN_MARKERS
from patients import (
    QUIET,
    alarms,
    chats,
    family_tokenizer,
    llama,
    pairs,
    ratings,
    saved,
    severities,
)
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
    RLOOConfig,
    RLOOTrainer,
    SFTConfig,
    SFTTrainer,
)

from ftkit import doctor
from ftkit.chat import templates

# True of the family itself, whoever trains it: GLM-4.5 stops by the next turn's role marker.
TRUE = {"glm4moe": {"no-stop-token", "ends-without-stop"}}
# Their generation prompt opens a thought, which a plain answer in the data does not have.
THINKING = (
    *("deepseek_r1_distill", "deepseekv3", "nemotron_3_5_lightning", "nemotron_3_nano"),
    *("nemotron_3_super", "nemotron_3_ultra"),
)
TRUE |= {name: {"prompt-mismatch"} for name in THINKING}


def family(name: str):
    return family_tokenizer(templates.get(name), FAMILIES[name].stop)


@pytest.mark.parametrize("name", THINKING)
def test_what_is_said_of_the_thinking_families_is_true(name: str) -> None:
    tokenizer, messages = family(name), chats()[0]["messages"]
    prompt = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    assert prompt.endswith("<think>\n")
    assert not tokenizer.apply_chat_template(messages, tokenize=False).startswith(prompt)


@pytest.mark.parametrize("name", FAMILIES)
def test_sft_raises_no_alarm(name: str, tmp_path) -> None:
    tokenizer = family(name)
    trainer = SFTTrainer(
        model=llama(tokenizer),
        # One token a byte: the long system texts of some families need more room than usual.
        args=SFTConfig(output_dir=str(tmp_path), max_length=8192, **QUIET),
        train_dataset=chats(),
        processing_class=tokenizer,
    )
    report = doctor(trainer)
    assert set(alarms(report)) == TRUE.get(name, set()), report
    assert severities(report)["share-trained"] == "ok"
    assert ("generation-markers" in severities(report)) is (name not in OWN_MARKERS)


@pytest.mark.parametrize("name", FAMILIES)
def test_dpo_and_reward_and_kto_raise_no_alarm(name: str, tmp_path) -> None:
    for make, config, rows in (
        (DPOTrainer, DPOConfig, pairs()),
        (RewardTrainer, RewardConfig, pairs()),
        (KTOTrainer, KTOConfig, ratings()),
    ):
        tokenizer = family(name)
        trainer = make(
            model=saved(tokenizer, tmp_path / "m", classifier=make is RewardTrainer),
            args=config(output_dir=str(tmp_path), max_length=8192, **QUIET),  # as above
            train_dataset=rows,
            processing_class=tokenizer,
        )
        report = doctor(trainer)
        assert set(alarms(report)) <= TRUE.get(name, set()), report
        assert report.of("ok")


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("make", "config"), [(GRPOTrainer, GRPOConfig), (RLOOTrainer, RLOOConfig)])
def test_trainers_that_sample_raise_no_alarm(make, config, name: str, tmp_path) -> None:
    tokenizer = family(name)
    trainer = make(
        model=saved(tokenizer, tmp_path / "m"),
        reward_funcs=lambda completions, **_: [float(len(str(c))) for c in completions],
        args=config(output_dir=str(tmp_path), **QUIET),
        train_dataset=pairs().select_columns(["prompt"]),
        processing_class=tokenizer,
    )
    report = doctor(trainer)
    assert set(alarms(report)) <= TRUE.get(name, set()), report
    assert severities(report)["sampler-is-scorer"] == "ok"


def test_reading_a_trainer_changes_nothing_of_its_run(tmp_path) -> None:
    def weights(*, examined: bool) -> list[torch.Tensor]:
        tokenizer = family("qwen2_5")
        torch.manual_seed(3)
        trainer = SFTTrainer(
            model=llama(tokenizer),
            args=SFTConfig(output_dir=str(tmp_path), **{**QUIET, "max_steps": 3}),
            train_dataset=chats(24),
            processing_class=tokenizer,
        )
        if examined:
            doctor(trainer)
        trainer.train()
        return list(trainer.model.parameters())

    pairs_of = zip(weights(examined=True), weights(examined=False), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs_of)
