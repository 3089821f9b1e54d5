"""`stages.forgetting` on a tiny random model: the losses, the anchors, what is put back, resuming.

What the strategies do to a real model is measured in notebook 09.
"""

from importlib import import_module

import pytest
import torch
from datasets import Dataset, DatasetDict
from peft import LoraConfig
from torch.distributions import Categorical, kl_divergence

from ftkit import data, stages
from ftkit.algos.spectrum import rank_for_energy
from ftkit.errors import DataError, RecordError, SettingsError
from ftkit.models import load
from ftkit.records import ForgettingResult
from ftkit.stages import ForgettingRecipe, Strategy
from ftkit.stages.forgetting.anchored import AnchoredTrainer, exact_kl, half_squared_distance
from ftkit.stages.forgetting.measure import Row, mean_loss, quiz_score
from ftkit.stages.forgetting.progress import Clock
from ftkit.stages.forgetting.rows import schedule, tokenized
from ftkit.stages.forgetting.strategies import named
from ftkit.stages.forgetting.weights import prepared

RECIPE = ForgettingRecipe(steps=2, batch_size=2, max_length=40)
PLACES = ("north", "south", "east", "west")
PROSE = Dataset.from_dict({"text": [f"The {p} wind blows over the old town." for p in PLACES]})
REPLAY = Dataset.from_dict({"text": [f"A walk to the {p} takes an hour." for p in PLACES]})


def talk(question: str, answer: str) -> dict:
    said = [("system", "Talk."), ("user", question), ("assistant", answer)]
    return {"messages": [{"role": role, "content": content} for role, content in said]}


DOMAIN = DatasetDict(
    train=Dataset.from_list([talk(f"What is {i}?", f"It is {i} and more.") for i in range(6)]),
    test=Dataset.from_list([talk(f"What is {i}?", f"It is {i} and more.") for i in (7, 8)]),
)


def study(base, strategies=("none", "full"), **changed) -> ForgettingResult:
    options = {
        "domain": DOMAIN,
        "general": PROSE,
        "replay": REPLAY,
        "recipe": RECIPE,
        "progress": None,
    }
    return stages.forgetting(base, strategies=strategies, **{**options, **changed})


def weights(base) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in base.model.named_parameters()}


def rows_of(base, *texts: str) -> list[Row]:
    ids = [base.tokenizer(text).input_ids for text in texts]
    return [Row(row, row) for row in ids]


@pytest.fixture(scope="module")
def tiny_base(tiny_folder):
    """One tiny Llama for all: every run must leave it as it was."""
    return load(str(tiny_folder), quantization=None, device="cpu")


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    """Names of the strategies that were really trained."""
    names = []
    train = AnchoredTrainer.train
    monkeypatch.setattr(
        AnchoredTrainer, "train", lambda self: names.append(self.strategy.name) or train(self)
    )
    return names


# --- the measures ----------------------------------------------------------------------------


def test_the_mean_loss_of_one_row_is_the_models_own(tiny_base) -> None:
    (row,) = rows_of(tiny_base, "The north wind blows.")
    ids = torch.tensor([row.input_ids])
    with torch.no_grad():
        expected = tiny_base.model(input_ids=ids, labels=ids).loss.item()
    found = mean_loss(tiny_base.model, [row], tiny_base.tokenizer.pad_token_id)
    assert found == pytest.approx(expected, rel=1e-5)


def test_padding_and_batching_do_not_change_the_mean_loss(tiny_base) -> None:
    rows = rows_of(tiny_base, "One.", "A much longer row of words than the first.", "Two or three.")
    pad = tiny_base.tokenizer.pad_token_id
    alone = [mean_loss(tiny_base.model, [row], pad) * (len(row.labels) - 1) for row in rows]
    expected = sum(alone) / sum(len(row.labels) - 1 for row in rows)
    for size in (1, 2, 3):
        found = mean_loss(tiny_base.model, rows, pad, batch_size=size)
        assert found == pytest.approx(expected, rel=1e-5)


def test_the_quiz_goes_by_the_mean_logprob_of_each_option(tiny_base) -> None:
    quiz, right, shares = data.quiz(8), [], []
    for row in quiz:
        scores = []
        for option in row["options"]:
            head = tiny_base.tokenizer(f"Question: {row['question']}\nAnswer:").input_ids
            ids = torch.tensor([[*head, *tiny_base.tokenizer(f" {option}").input_ids]])
            labels = ids.clone()
            labels[0, : len(head)] = -100
            with torch.no_grad():
                scores.append(-tiny_base.model(input_ids=ids, labels=labels).loss)
        odds = torch.stack(scores).softmax(0)
        right.append(int(odds.argmax()) == row["answer"])
        shares.append(odds[row["answer"]].item())
    found = quiz_score(tiny_base.model, tiny_base.tokenizer, quiz, batch_size=5)
    assert found.accuracy == sum(right) / 8
    assert found.confidence == pytest.approx(sum(shares) / 8, rel=1e-4)


# --- the anchors -----------------------------------------------------------------------------


def test_the_exact_kl_is_torchs_and_skips_padding() -> None:
    generator = torch.Generator().manual_seed(0)
    start, now = (torch.randn(2, 3, 9, generator=generator) for _ in range(2))
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    expected = kl_divergence(Categorical(logits=start), Categorical(logits=now))[mask].mean()
    assert exact_kl(start, now, mask).item() == pytest.approx(expected.item(), rel=1e-5)
    assert exact_kl(start, start, mask).item() == pytest.approx(0, abs=1e-7)


def test_the_distance_is_half_the_squared_norm() -> None:
    now = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([1.0]), "free": torch.ones(9)}
    start = {"a": torch.zeros(2), "b": torch.zeros(1)}
    assert half_squared_distance(now, start).item() == pytest.approx((9 + 1) / 2)


@pytest.mark.parametrize("trains", ["all", "lora"])
def test_the_kl_anchor_compares_with_the_model_before_training(tiny_base, trains) -> None:
    strategy = Strategy("x", trains, 4 if trains == "lora" else 0, kl=3.0)
    rows = tokenized(tiny_base, DOMAIN["train"], "domain", 40)[:2]
    batch = {k: torch.tensor([getattr(rows[0], k)]) for k in Row._fields}
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    with torch.no_grad():
        before = tiny_base.model(**batch)
    with prepared(tiny_base, strategy, 0) as ready:
        plan = schedule(rows, [], steps=1, batch=1, replay=0, seed=0)
        trainer = AnchoredTrainer(
            tiny_base, ready.model, plan, strategy, ready.start, steps=1, batch_size=1, seed=0
        )
        at_start = trainer.compute_loss(ready.model, dict(batch)).item()
        with torch.no_grad():
            for parameter in ready.model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.03)
            now = ready.model(**batch)
            moved = trainer.compute_loss(ready.model, dict(batch)).item()
    kl = kl_divergence(Categorical(logits=before.logits), Categorical(logits=now.logits)).mean()
    assert at_start == pytest.approx(before.loss.item(), abs=1e-4)
    assert kl > 1e-3
    assert moved == pytest.approx((now.loss + 3.0 * kl).item(), rel=1e-4)


def test_a_strong_l2_anchor_keeps_the_weights_nearer(tiny_base) -> None:
    moved = {}
    for strategy in (Strategy("free"), Strategy("held", l2=1e4)):
        with prepared(tiny_base, strategy, 0) as ready:
            plan = schedule(rows_of(tiny_base, "A b c d."), [], steps=8, batch=1, replay=0, seed=0)
            AnchoredTrainer(
                tiny_base, ready.model, plan, strategy, ready.start, steps=8, batch_size=1, seed=0
            ).train()
            named_now = dict(ready.model.named_parameters())
            moved[strategy.name] = float(half_squared_distance(named_now, ready.start).detach())
    assert moved["held"] < 0.7 * moved["free"]


# --- the rows --------------------------------------------------------------------------------


def test_each_batch_is_domain_rows_with_the_replayed_ones_behind_them() -> None:
    news, olds = ([Row([kind, i], [kind, i]) for i in range(5)] for kind in (1, 2))
    plain = schedule(news, [], steps=4, batch=2, replay=0, seed=3)
    mixed = schedule(news, olds, steps=4, batch=2, replay=1, seed=3)
    assert [ids[0] for ids in mixed["input_ids"]] == [1, 1, 2] * 4
    assert [ids for ids in mixed["input_ids"] if ids[0] == 1] == plain["input_ids"]
    assert sorted(ids[1] for ids in plain["input_ids"][:5]) == [0, 1, 2, 3, 4]
    other = schedule(news, [], steps=4, batch=2, replay=0, seed=4)
    assert other["input_ids"] != plain["input_ids"]


def test_domain_rows_train_the_answers_and_text_is_counted_whole(tiny_base) -> None:
    answer = tokenized(tiny_base, DOMAIN["train"], "domain", 40)[0]
    kept = [label for label in answer.labels if label != -100]
    assert tiny_base.tokenizer.decode(kept).startswith("It is 0 and more.")
    text = tokenized(tiny_base, PROSE, "general", 40)[0]
    assert text.labels == text.input_ids


# --- the study -------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_every_named_strategy_runs_and_the_base_comes_back_bit_for_bit(tiny_base) -> None:
    before = weights(tiny_base)
    result = study(tiny_base, strategies=list(stages.STRATEGIES), quiz=data.quiz(4))
    after = weights(tiny_base)
    assert [run.strategy for run in result.runs] == list(stages.STRATEGIES)
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(p.requires_grad and p.grad is None for p in tiny_base.model.parameters())
    assert result.runs[0].scores == result.start
    changed = {run.strategy for run in result.runs if run.scores != result.start}
    assert changed == set(stages.STRATEGIES) - {"none"}


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_is_counted_is_what_the_run_held(tiny_base) -> None:
    result = study(tiny_base, strategies=["full", "lora-4", "kl"])
    full, lora, kl = result.runs
    size = tiny_base.model.num_parameters()
    assert full.trained == result.weights == size
    assert full.gradients_mb == pytest.approx(4 * size / 1e6)
    assert full.optimizer_mb == pytest.approx(8 * size / 1e6, rel=1e-3)  # Adam: two moments
    assert (full.extra_mb, kl.extra_mb) == (0, pytest.approx(4 * size / 1e6))
    linear = [m for m in tiny_base.model.model.modules() if isinstance(m, torch.nn.Linear)]
    assert lora.trained == sum(4 * (m.in_features + m.out_features) for m in linear)
    assert lora.gradients_mb == lora.extra_mb == pytest.approx(4 * lora.trained / 1e6)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_lora_update_has_no_more_directions_than_its_rank(tiny_base) -> None:
    full, lora, last = study(tiny_base, strategies=["full", "lora-4", "last-1"]).runs
    assert list(full.spectra) == list(lora.spectra) == list(last.spectra)
    assert [name.rsplit(".", 1)[1] for name in full.spectra] == ["q_proj", "down_proj"]
    for name, values in lora.spectra.items():
        assert max(values[4:]) < 1e-4 * values[0]
        assert rank_for_energy(torch.tensor(full.spectra[name]), 0.99) > 4


def test_the_last_layers_alone_are_trained(tiny_base) -> None:
    with prepared(tiny_base, named("last-1"), 0) as ready:
        wanted = {n for n, p in tiny_base.model.named_parameters() if p.requires_grad}
        assert wanted == set(ready.start)
        assert {name.split(".")[2] for name in wanted} == {"1"}


@pytest.mark.parametrize(("error", "name"), [(KeyboardInterrupt, "full"), (RuntimeError, "lora-4")])
def test_the_base_comes_back_after_an_interrupt(tiny_base, monkeypatch, error, name) -> None:
    before, train = weights(tiny_base), AnchoredTrainer.train

    def interrupted(self) -> None:
        train(self)
        raise error

    monkeypatch.setattr(AnchoredTrainer, "train", interrupted)
    with pytest.raises(error):
        study(tiny_base, strategies=[name])
    after = weights(tiny_base)
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_run_does_not_depend_on_the_runs_before_it(tiny_base) -> None:
    alone = study(tiny_base, strategies=["full"]).runs[0]
    after = study(tiny_base, strategies=["replay", "full"]).runs[1]
    assert after.scores == alone.scores


def test_what_is_finished_is_kept_and_only_the_rest_is_run(tiny_base, tmp_path, trained) -> None:
    first = study(tiny_base, folder=tmp_path)
    assert trained == ["full"]
    lines = []
    more = study(
        tiny_base,
        strategies=["full", "last-1"],
        seeds=(0, 1),
        folder=tmp_path,
        progress=lines.append,
    )
    assert trained == ["full", "last-1", "full", "last-1"]
    assert more.run("full", 0) == first.run("full", 0)
    assert ForgettingResult.load(tmp_path) == more
    kept = ["kept from before" in str(line) for line in lines]
    assert kept == [True, False, False, False]


def test_an_interrupted_study_goes_on_where_it_stopped(tiny_base, tmp_path, trained) -> None:
    def stop(_) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study(tiny_base, strategies=["full", "last-1"], folder=tmp_path, progress=stop)
    result = study(tiny_base, strategies=["full", "last-1"], folder=tmp_path)
    assert trained == ["full", "last-1"]
    assert len(result.runs) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"recipe": ForgettingRecipe(steps=4, batch_size=2, max_length=40)}, "another steps"),
        ({"general": PROSE.select([0])}, "another general data"),
        ({"quiz": data.quiz(1)}, "another quiz"),
    ],
)
def test_results_of_other_settings_are_not_mixed(tiny_base, tmp_path, change, says) -> None:
    study(tiny_base, strategies=["none"], folder=tmp_path)
    with pytest.raises(RecordError, match=says):
        study(tiny_base, strategies=["none"], folder=tmp_path, **change)


def test_a_strategy_of_the_same_name_but_other_settings_is_not_taken_for_the_old_one(
    tiny_base, tmp_path
) -> None:
    study(tiny_base, strategies=[Strategy("mine", l2=1.0)], folder=tmp_path)
    with pytest.raises(RecordError, match="'mine' with other settings"):
        study(tiny_base, strategies=[Strategy("mine", l2=2.0)], folder=tmp_path)


def test_the_estimate_is_for_what_is_left_from_what_was_timed(monkeypatch) -> None:
    times = iter([0.0, 10.0, 30.0])
    module = import_module("ftkit.stages.forgetting.progress")
    monkeypatch.setattr(module, "perf_counter", lambda: next(times))
    run = type("Run", (), {"trained": 5, "strategy": "full", "seed": 0})()
    clock = Clock(total=5)
    clock.ran(run)
    assert clock.progress(run, rest=4).left == (40, 40)
    clock.ran(run)
    assert str(clock.progress(run, rest=3)) == "2 of 5: full, seed 0, 20 s, 30 to 60 s left"
    assert clock.progress(run, rest=0).left is None


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategies", "says"),
    [
        (["fulll"], "'fulll' is unknown; use 'none', 'full'"),
        (["lora-0"], "the rank must be at least 1"),
        (["last-0"], "number of layers must be at least 1"),
        (["last-3"], "trains 3 layers; the model has 2"),
        (["full", "full"], "given twice"),
        ([], "no strategy"),
        ("full", r"give a list: \['full'\]"),
    ],
)
def test_strategies_that_cannot_run_are_refused_before_any_run(tiny_base, strategies, says) -> None:
    with pytest.raises(SettingsError, match=says):
        study(tiny_base, strategies=strategies)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"trains": "lora"}, "the rank is 0"),
        ({"trains": "last", "size": -1}, "number of layers is -1"),
        ({"trains": "everything"}, "'everything' is unknown"),
        ({"size": 4}, "size=4 says nothing"),
        ({"kl": -1.0}, "kl=-1.0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"trains": "nothing", "replay": 2}, "nothing to pull back"),
        ({"trains": "lora", "size": 4, "l2": 1.0}, "l2 anchors"),
    ],
)
def test_strategies_that_make_no_sense_are_refused(fields, says) -> None:
    with pytest.raises(ValueError, match=says):
        Strategy("x", **fields)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"general": PROSE.select([])}, "general data is empty"),
        ({"general": Dataset.from_dict({"words": ["a"]})}, "needs conversations"),
        ({"domain": DOMAIN["train"]}, "parts 'train' and 'test'"),
        ({"replay": None, "strategies": ["replay"]}, "replay="),
        ({"quiz": data.quiz(4).remove_columns("answer")}, "no column 'answer'"),
        ({"quiz": data.quiz(4).select([])}, "no questions"),
        ({"seeds": 2}, "seeds=2"),
        ({"seeds": (1, 1)}, "different"),
    ],
)
def test_data_and_seeds_that_cannot_be_used_are_refused(tiny_base, change, says) -> None:
    with pytest.raises((DataError, SettingsError), match=says):
        study(tiny_base, **{"strategies": ["none"], **change})


def test_an_answer_out_of_range_is_named_with_its_row(tiny_base) -> None:
    rows = [*data.quiz(2).to_list(), {"question": "?", "options": ["a", "b"], "answer": 2}]
    with pytest.raises(DataError, match="quiz row 2"):
        study(tiny_base, quiz=Dataset.from_list(rows))


@pytest.mark.parametrize("field", ["steps", "batch_size", "max_length"])
def test_sizes_of_zero_are_refused(field) -> None:
    with pytest.raises(ValueError, match=f"{field}=0"):
        ForgettingRecipe(**{field: 0})


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_quantized_base_takes_lora_only_and_comes_back(tiny_folder) -> None:
    base = load(str(tiny_folder), quantization="nf4", device="cpu")
    with pytest.raises(SettingsError, match="'full' trains the base's own weights, which are nf4"):
        study(base)
    before = weights(base)
    (run,) = study(base, strategies=["lora-4"]).runs
    assert run.scores.domain_loss > 0
    after = weights(base)
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_trained_adapter_on_the_base_is_removed_with_a_warning(tiny_base) -> None:
    from peft import get_peft_model

    model = get_peft_model(tiny_base.model, LoraConfig(r=2, target_modules="all-linear"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.1)
    with pytest.warns(UserWarning, match="trained adapter of an earlier trainer"):
        study(tiny_base, strategies=["none"])
