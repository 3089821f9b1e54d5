"""`forgetting`: train each strategy from the same start, and ask what was learned and what lost.

Left out: choosing the best learning rate for each strategy. They are the field's defaults; a
`Strategy` of your own tries another.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from time import perf_counter

from datasets import Dataset, DatasetDict

from ftkit.errors import DataError, RecordError, SettingsError
from ftkit.models import Loaded, load, memory_mb
from ftkit.models.loading import DEFAULT
from ftkit.records import files
from ftkit.records.forgetting import FILE_NAME, ForgettingResult, ForgettingRun, Scores
from ftkit.stages.adapters import fresh_base, warn_of_trained_adapter
from ftkit.stages.forgetting.anchored import AnchoredTrainer
from ftkit.stages.forgetting.measure import Row, check_quiz, mean_loss, quiz_score
from ftkit.stages.forgetting.progress import Clock, Progress
from ftkit.stages.forgetting.rows import fingerprint, schedule, tokenized
from ftkit.stages.forgetting.strategies import STRATEGIES, Strategy, chosen
from ftkit.stages.forgetting.weights import (
    prepared,
    require_trainable,
    spectra,
    watched_matrices,
)


@dataclass(frozen=True, slots=True)
class ForgettingRecipe:
    """Sizes of every run of a study.

    Attributes:
        steps: Optimizer steps.
        batch_size: Rows of the domain a step; replayed rows come on top.
        max_length: Tokens kept of each row, in training and in scoring.
    """

    steps: int = 24
    batch_size: int = 4
    max_length: int = 64

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch_size", 1), ("max_length", 2)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"ForgettingRecipe: {name}={getattr(self, name)} must be at least {least}"
                )


@dataclass(frozen=True)
class _Material:
    """Everything tokenized."""

    train: list[Row]
    test: list[Row]
    general: list[Row]
    replay: list[Row]
    quiz: Dataset | None


def forgetting(
    base: Loaded | str = DEFAULT,
    *,
    domain: DatasetDict,
    general: Dataset,
    replay: Dataset | None = None,
    quiz: Dataset | None = None,
    strategies: Sequence[str | Strategy] = tuple(STRATEGIES),
    seeds: Sequence[int] = (0,),
    recipe: ForgettingRecipe | None = None,
    names: tuple[str, str] = ("domain", "general text"),
    folder: str | os.PathLike[str] | None = None,
    progress: Callable[[Progress], None] | None = print,
) -> ForgettingResult:
    """Run every strategy with every seed, each from the same start, and score what comes out.

    With a folder the results are written after each run, and a second call runs only what is
    missing: after an interrupt, with more strategies, or with more seeds. The base's weights are
    as before at the end, whatever happens.

    Args:
        base: From `ftkit.load`, or a name to load with plain float32 weights. Strategies other
            than LoRA train the weights themselves and refuse a quantized base.
        domain: ``train`` and ``test`` of the narrow domain, e.g. from `ftkit.data`'s splits:
            conversations or ``text``.
        general: Held-out general text, from another source than everything that is trained.
        replay: General rows for the strategies that replay some; best from a source that is
            neither `general` nor near it, else their score flatters.
        quiz: Multiple choice, e.g. `ftkit.data.quiz`; None for none.
        strategies: Names (`STRATEGIES`, ``"lora-<rank>"``, ``"last-<layers>"``) or `Strategy`.
        seeds: Each decides the order of rows and the start of adapters.
        recipe: Sizes of the runs.
        names: The domain and the general text in words, for the pictures.
        folder: Where ``forgetting.json`` is kept; None keeps nothing.
        progress: Called after each run; None for silence.

    Raises:
        SettingsError: an unknown strategy, rank 0, no seeds, or weights that cannot be trained.
        DataError: empty or unusable data, or no replay data for a strategy that needs some.
        RecordError: the folder holds results of other data, sizes or weights.
    """
    recipe = recipe or ForgettingRecipe()
    wanted = [(strategy, seed) for seed in _checked(seeds) for strategy in chosen(strategies)]
    if isinstance(base, str):
        base = load(base, quantization=None, compute_dtype="float32")
    require_trainable(base, [strategy for strategy, _ in wanted])
    material = _material(base, domain, general, replay, quiz, recipe)
    if not material.replay and any(strategy.replay for strategy, _ in wanted):
        raise DataError("a strategy replays general data: give some as replay=…")
    warn_of_trained_adapter(base.model)
    fresh_base(base.model)
    result = _begun(base, material, recipe, names, folder)
    _remember([strategy for strategy, _ in wanted], result)
    _run_all(base, material, recipe, result, wanted, folder, progress)
    return result


def _run_all(
    base: Loaded,
    material: _Material,
    recipe: ForgettingRecipe,
    result: ForgettingResult,
    wanted: Sequence[tuple[Strategy, int]],
    folder: str | os.PathLike[str] | None,
    progress: Callable[[Progress], None] | None,
) -> None:
    """Run what `result` does not hold yet; it and the folder grow run by run."""
    clock = Clock(total=len(wanted))
    for strategy, seed in wanted:
        known = result.run(strategy.name, seed)
        if known is None:
            known = _run(base, material, recipe, result, strategy, seed)
            result.runs.append(known)
            if folder is not None:
                result.save(folder)
            clock.ran(known)
        else:
            clock.found()
        if progress is not None:
            rest = [s for s, n in wanted if s.trains != "nothing" and not result.run(s.name, n)]
            progress(clock.progress(known, rest=len(rest)))


def _run(
    base: Loaded,
    material: _Material,
    recipe: ForgettingRecipe,
    result: ForgettingResult,
    strategy: Strategy,
    seed: int,
) -> ForgettingRun:
    if strategy.trains == "nothing":
        return ForgettingRun(strategy.name, strategy.family, seed, result.start, trained=0)
    rows = schedule(
        material.train,
        material.replay,
        steps=recipe.steps,
        batch=recipe.batch_size,
        replay=strategy.replay,
        seed=seed,
    )
    watched = watched_matrices(base.model)
    with prepared(base, strategy, seed) as ready:
        trainer = AnchoredTrainer(
            base,
            ready.model,
            rows,
            strategy,
            ready.start,
            steps=recipe.steps,
            batch_size=recipe.batch_size + strategy.replay,
            seed=seed,
        )
        began = perf_counter()
        trainer.train()
        seconds = perf_counter() - began
        return ForgettingRun(
            strategy=strategy.name,
            family=strategy.family,
            seed=seed,
            scores=_scores(base, material),
            trained=ready.trained(),
            gradients_mb=trainer.gradient_bytes / 1e6,
            optimizer_mb=trainer.optimizer_bytes / 1e6,
            extra_mb=ready.extra_bytes(strategy) / 1e6,
            seconds=seconds,
            steps=trainer.state.global_step,
            spectra=spectra(base.model, ready.start, watched),
        )


def _scores(base: Loaded, material: _Material) -> Scores:
    pad = base.tokenizer.pad_token_id
    domain = mean_loss(base.model, material.test, pad)
    general = mean_loss(base.model, material.general, pad)
    if material.quiz is None:
        return Scores(domain, general)
    return Scores(domain, general, *quiz_score(base.model, base.tokenizer, material.quiz))


def _begun(
    base: Loaded,
    material: _Material,
    recipe: ForgettingRecipe,
    names: tuple[str, str],
    folder: str | os.PathLike[str] | None,
) -> ForgettingResult:
    """Return the study as the folder holds it, or a new one with the start's scores."""
    settings = _settings(base, material, recipe)
    if folder is not None and (kept := _kept(folder)) is not None:
        files.check_same(kept.settings, settings, folder)
        return replace(kept, domain=names[0], general=names[1])
    return ForgettingResult(
        domain=names[0],
        general=names[1],
        start=_scores(base, material),
        quiz_questions=0 if material.quiz is None else len(material.quiz),
        weights=base.model.num_parameters(),
        weights_mb=memory_mb(base.model),
        settings=settings,
    )


def _remember(strategies: Sequence[Strategy], result: ForgettingResult) -> None:
    """Keep what each name stands for; refuse a name that stood for something else before."""
    known = result.settings.setdefault("strategies", {})
    for strategy in strategies:
        now = asdict(strategy)
        if known.setdefault(strategy.name, now) != now:
            raise RecordError(
                f"the folder holds runs of {strategy.name!r} with other settings "
                f"({known[strategy.name]}): give this strategy another name"
            )


def _kept(folder: str | os.PathLike[str]) -> ForgettingResult | None:
    exists = os.path.exists(os.path.join(folder, FILE_NAME))
    return ForgettingResult.load(folder) if exists else None


def _settings(base: Loaded, material: _Material, recipe: ForgettingRecipe) -> dict[str, object]:
    """What must be equal for results to be comparable; JSON types only."""
    quiz = [] if material.quiz is None else material.quiz.to_list()
    return {
        "model": base.card.weights,
        **asdict(recipe),
        "domain data": fingerprint(material.train, material.test),
        "general data": fingerprint(material.general),
        "replay data": fingerprint(material.replay),
        "quiz": fingerprint(quiz),
    }


def _material(
    base: Loaded,
    domain: DatasetDict,
    general: Dataset,
    replay: Dataset | None,
    quiz: Dataset | None,
    recipe: ForgettingRecipe,
) -> _Material:
    if not isinstance(domain, dict) or not {"train", "test"} <= set(domain):
        raise DataError(
            "domain must have the parts 'train' and 'test': split it, e.g. with "
            "ftkit.data.split_by_question(dataset, held_out=24)"
        )
    if quiz is not None:
        check_quiz(quiz)
    length = recipe.max_length
    return _Material(
        train=tokenized(base, domain["train"], "domain", length),
        test=tokenized(base, domain["test"], "held-out domain", length),
        general=tokenized(base, general, "general", length),
        replay=[] if replay is None else tokenized(base, replay, "replay", length),
        quiz=quiz,
    )


def _checked(seeds: Sequence[int]) -> list[int]:
    if isinstance(seeds, int) or not len(seeds) or len(set(seeds)) < len(seeds):
        raise SettingsError(f"seeds={seeds!r}: give one or more different whole numbers in a list")
    return list(seeds)
