"""`compare`: the runs one after the other, kept as they finish, failures kept beside them."""

import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from time import perf_counter
from typing import Any

from filelock import FileLock, Timeout

from ftkit import data
from ftkit.chat.render import Messages
from ftkit.errors import DataError, RecordError, SettingsError
from ftkit.models import Loaded, load, load_tokenizer
from ftkit.models.hardware import pick_device
from ftkit.models.loading import DEFAULT
from ftkit.records import files
from ftkit.records.comparison import FILE_NAME, ComparisonResult
from ftkit.records.comparison_run import ALGORITHMS, NAMES, Algorithm, ComparisonRun
from ftkit.records.comparison_words import signed
from ftkit.stages.compare.isolation import require_importable, run_apart
from ftkit.stages.compare.probe import as_reward
from ftkit.stages.compare.recipe import CompareRecipe
from ftkit.stages.compare.runners import Job, run
from ftkit.stages.forgetting.rows import fingerprint
from ftkit.stages.naming import name_of
from ftkit.stages.ppo.rollout import encode_prompts
from ftkit.stages.ppo.scoring import RewardFunction, checked_scores
from ftkit.stages.ppo.trainer import conversations
from ftkit.stages.starting import Start, take_start


def compare(
    base: Loaded | str = DEFAULT,
    *,
    algorithms: Sequence[str] = ALGORITHMS,
    seeds: Sequence[int] = (0, 1, 2),
    recipe: CompareRecipe | None = None,
    prompts: Any = None,
    reward: Callable[..., Sequence[float]] = data.sentiment,
    adapter: Start | None = None,
    isolate: bool = False,
    folder: str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] | None = print,
) -> ComparisonResult:
    """Run every algorithm with every seed from one start, at a budget of tokens and of seconds.

    The evaluation is the same for all: answers to the same held-out prompts, their mean reward,
    and KL(policy ‖ start) on them. With a folder the results are written after each run, and a
    second call does what is missing or failed. The base's weights are as before at the end, and
    no adapter is left on it.

    Args:
        base: From `ftkit.load`, or a name to load in 4 bits. One base is in memory at a time.
        algorithms: Of ``"ppo", "dpo", "grpo", "rloo", "best-of-n"``.
        seeds: Each decides a new adapter's start, the order of prompts and the sampling.
        recipe: Budget and sizes.
        prompts: As the other stages take them; None for `ftkit.data.sentiment_prompts`. Some are
            held out for evaluation, the same for every run.
        reward: The gold: of completions, or of prompts and completions; one finite number each.
        adapter: Where every policy starts, e.g. an SFT adapter; None for a new one on the base.
        isolate: Give each run a process of its own, so that its memory holds nothing of the runs
            before. `base` must be a name, and `reward` a function that a module holds; a script
            needs ``if __name__ == "__main__":``. Otherwise resident memory on a CPU is that of
            the whole process, with what earlier runs left to the allocator.
        folder: Where ``comparison.json`` is kept, for one process at a time; None keeps nothing.
            A reward is known by its name: give changed code another folder.
        progress: Called with a line after each run; None for silence.

    Raises:
        SettingsError: an unknown algorithm, no or doubled algorithms or seeds, or a base, adapter
            or reward that cannot be used so.
        DataError: prompts that are empty, too few, too long or no conversations.
        RewardError: the reward fails on a trial, before any run.
        RecordError: the folder holds results of other settings, device or isolation included, or
            another process is at work there.
    """
    recipe = recipe or CompareRecipe()
    wanted = [(name, seed) for seed in _checked_seeds(seeds) for name in _checked(algorithms)]
    gold = as_reward(reward)
    if isolate:
        _require_portable(base, reward)
    train, held_out = _split(prompts, recipe)
    loaded = load(base) if isinstance(base, str) and (adapter or not isolate) else base
    tokenizer = load_tokenizer(loaded) if isinstance(loaded, str) else loaded.tokenizer
    _try(tokenizer, gold, train, held_out, recipe)
    start = None if isinstance(loaded, str) else take_start(loaded, adapter)
    jobs = [Job(name, seed, recipe, train, held_out, gold, start) for name, seed in wanted]
    where = str(base) if isolate else loaded
    del loaded  # no second base beside those of the runs' own processes
    with _held(folder):
        result = _begun(where, jobs[0], folder)
        _run_all(where, jobs, result, folder, progress)
    return result


def _run_all(
    base: Loaded | str,
    jobs: Sequence[Job],
    result: ComparisonResult,
    folder: str | os.PathLike[str] | None,
    progress: Callable[[str], None] | None,
) -> None:
    """Do the jobs that `result` does not hold yet; it and the folder grow run by run."""
    missing = [job for job in jobs if result.run(job.algorithm, job.seed) is None]
    began = perf_counter()
    for count, job in enumerate(missing, start=1):
        done = _guarded(base, job)
        result.put(done)
        if folder is not None:
            result.save(folder)
        if progress is not None:
            left = (perf_counter() - began) / count * (len(missing) - count) / 60
            rest = f"; about {left:.1f} min left" if count < len(missing) else ""
            progress(f"{count} of {len(missing)}: {_line(done)}{rest}")


def _guarded(base: Loaded | str, job: Job) -> ComparisonRun:
    """Do a job; what goes wrong becomes part of the result."""
    try:
        if isinstance(base, str):
            return run_apart(base, job)
        return run(base, job)
    except Exception as error:
        name = "" if type(error) is RuntimeError else f"{type(error).__name__}: "
        return ComparisonRun(job.algorithm, job.seed, (), failed=f"{name}{error}")


def _line(done: ComparisonRun) -> str:
    head = f"{NAMES[done.algorithm]}, seed {done.seed}"
    if done.failed:
        return f"{head}, failed: {done.failed}"
    first, last = done.points[0], done.points[-1]
    return (
        f"{head}: gold {signed(first.gold)} → {signed(last.gold)}, KL {last.kl:.1f} nats, "
        f"{last.tokens:,} tokens, {last.seconds:.0f} s"
    )


# --- what is checked before hours are spent -----------------------------------------------------


def _checked(algorithms: Sequence[str]) -> list[Algorithm]:
    if isinstance(algorithms, str) or not len(algorithms):
        raise SettingsError(f"algorithms={algorithms!r}: give a list of {', '.join(ALGORITHMS)}")
    known: dict[str, Algorithm] = {name: name for name in ALGORITHMS}
    for name in algorithms:
        if name not in known:
            raise SettingsError(f"algorithm {name!r} is unknown; there are {', '.join(ALGORITHMS)}")
    if len(set(algorithms)) < len(algorithms):
        raise SettingsError(f"algorithms={algorithms!r} names one twice")
    return [known[name] for name in algorithms]


def _checked_seeds(seeds: Sequence[int]) -> list[int]:
    plain = not isinstance(seeds, int | str) and all(type(s) is int and s >= 0 for s in seeds)
    if not plain or not len(seeds) or len(set(seeds)) < len(seeds):
        raise SettingsError(f"seeds={seeds!r}: give one or more different whole numbers in a list")
    return list(seeds)


def _require_portable(base: Loaded | str, reward: Callable[..., Any]) -> None:
    if not isinstance(base, str):
        raise SettingsError(
            "isolate=True loads the base in each run's own process, so a second copy would lie in "
            "memory: give its name instead, e.g. base='smollm2-135m', or use isolate=False"
        )
    require_importable(reward)


def _split(prompts: Any, recipe: CompareRecipe) -> tuple[list[Messages], list[Messages]]:
    """Return prompts to train on and to evaluate with; drawn by the prompts alone."""
    given = conversations(data.sentiment_prompts() if prompts is None else prompts)
    # One row a prompt: a copy of a held-out prompt must not be trained on.
    found = list({json.dumps(prompt, sort_keys=True): prompt for prompt in given}.values())
    needed = recipe.eval_prompts + recipe.batch_size
    if len(found) < needed:
        raise DataError(
            f"{len(found)} different prompts, but {recipe.eval_prompts} are held out for "
            f"evaluation and a step takes up to {recipe.batch_size}: give {needed} or more, or a "
            "recipe with a smaller eval_prompts or batch_size"
        )
    order = random.Random(0).sample(range(len(found)), len(found))  # noqa: S311  # reproducible
    held_out = set(order[: recipe.eval_prompts])
    train = [prompt for i, prompt in enumerate(found) if i not in held_out]
    return train, [found[i] for i in sorted(held_out)]


def _try(
    tokenizer: Any,
    reward: RewardFunction,
    train: list[Messages],
    held_out: list[Messages],
    recipe: CompareRecipe,
) -> None:
    """Tokenize every prompt, and ask the reward about two answers."""
    encode_prompts(tokenizer, train, recipe.max_prompt_tokens)
    texts, _, _ = encode_prompts(tokenizer, held_out, recipe.max_prompt_tokens)
    trial = ["I am happy.", "I am not."]
    asked = [texts[0], texts[-1]]
    checked_scores(getattr(reward, "__name__", "reward"), reward, asked, trial)


# --- results that are there already ---------------------------------------------------------------


@contextmanager
def _held(folder: str | os.PathLike[str] | None) -> Iterator[None]:
    """Keep other processes out of the folder: each writes all runs that it knows of.

    Raises:
        RecordError: one is at work there.
    """
    if folder is None:
        yield
        return
    os.makedirs(folder, exist_ok=True)
    try:
        with FileLock(os.path.join(folder, "comparison.lock"), blocking=False):
            yield
    except Timeout:
        raise RecordError(
            f"another process compares into {folder}: wait for it, or choose another folder"
        ) from None


def _begun(base: Loaded | str, job: Job, folder: str | os.PathLike[str] | None) -> ComparisonResult:
    """Return the comparison as the folder holds it, or a new one."""
    settings = _settings(base, job)
    if folder is not None and os.path.exists(os.path.join(folder, FILE_NAME)):
        kept = ComparisonResult.load(folder)
        files.check_same(kept.settings, settings, folder)
        return kept
    return ComparisonResult(
        model=base if isinstance(base, str) else base.card.name,
        start="a new adapter" if job.start is None else "the given adapter",
        reward=getattr(job.reward, "__name__", "reward"),
        tokens=job.recipe.tokens,
        seconds=job.recipe.seconds,
        device=_device(base),
        isolated=isinstance(base, str),
        settings=settings,
    )


def _settings(base: Loaded | str, job: Job) -> dict[str, Any]:
    """What must be equal for results to be comparable; JSON types only."""
    settings = {
        "model": base if isinstance(base, str) else base.card.weights,
        "start": "new" if job.start is None else job.start.digest,
        "train prompts": fingerprint(job.train),
        "evaluation prompts": fingerprint(job.held_out),
        "reward": name_of(job.reward),
        "device": _device(base),
        "isolate": isinstance(base, str),
        **asdict(job.recipe),
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def _device(base: Loaded | str) -> str:
    return str(pick_device() if isinstance(base, str) else base.model.device)
