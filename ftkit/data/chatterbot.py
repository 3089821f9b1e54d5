"""Question and answer by topic from `chatterbot-corpus` (BSD), as conversations.

Left out: the later utterances of longer threads, which are alternative answers rather than turns.
"""

from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any

from datasets import Dataset, DatasetDict

from ftkit.errors import DataError

SOURCE = "chatterbot-corpus (Python package), BSD licence, by Gunther Cox and contributors"
HELP_DESK = ("tech_support", "computers", "ai", "coding", "science")
"""Topics of the help desk that notebook 02 trains: short answers about machines."""


def topics(language: str = "english") -> list[str]:
    """Return the topics that the corpus has in `language`, sorted."""
    folder = resources.files("chatterbot_corpus") / "data" / language
    if not folder.is_dir():
        raise DataError(f"chatterbot-corpus has no language {language!r}; try 'english'")
    return sorted(f.name.removesuffix(".yml") for f in folder.iterdir() if f.name.endswith(".yml"))


def chatterbot(
    topic: str | Sequence[str] = HELP_DESK,
    *,
    language: str = "english",
    system: str | None = None,
    max_chars: int | None = 200,
    deduplicate: bool = True,
) -> Dataset:
    """Return question and answer pairs as a conversational dataset.

    Args:
        topic: One topic or several, see `topics`.
        language: Folder of the corpus.
        system: System message put before every question; None for none.
        max_chars: Leave out longer answers (whole programs, under ``coding``); None keeps all.
        deduplicate: Keep each question and answer once. The corpus repeats some of them: the
            1,050 rows of ``tech_support`` are 10 pairs, so a split by rows would put every
            held-out row into training, too.

    Returns:
        Columns ``messages`` (conversational format), ``question`` and ``topic``.

    Raises:
        DataError: unknown topic or language, or nothing left.
    """
    chosen = [topic] if isinstance(topic, str) else list(topic)
    known = topics(language)
    unknown = [t for t in chosen if t not in known]
    if unknown:
        raise DataError(f"no topic {unknown[0]!r} in {language}; use some of {', '.join(known)}")
    rows = [
        {"messages": _messages(question, answer, system), "question": question, "topic": name}
        for name in chosen
        for question, answer in _pairs(name, language, deduplicate)
        if max_chars is None or len(answer) <= max_chars
    ]
    if not rows:
        raise DataError(f"no answer of at most {max_chars} characters in {', '.join(chosen)}")
    return Dataset.from_list(rows)


def split_by_question(
    dataset: Dataset, *, held_out: int, seed: int = 0, always: Sequence[str] = ()
) -> DatasetDict:
    """Split so that no question stands on both sides, whatever its answers.

    Args:
        dataset: Has a column ``question``.
        held_out: How many questions go to ``test``.
        seed: Decides which ones.
        always: Questions that must be held out; counted in `held_out`.

    Raises:
        DataError: nothing would be left to train on, or a question of `always` is missing.
    """
    import random

    questions = sorted(set(dataset["question"]))
    missing = [q for q in always if q not in questions]
    if missing:
        raise DataError(f"question {missing[0]!r} is not in the dataset")
    if not len(always) <= held_out < len(questions) or held_out < 1:
        raise DataError(
            f"held_out={held_out}: choose between {max(1, len(always))} and {len(questions) - 1} "
            f"of the {len(questions)} questions"
        )
    rest = [q for q in questions if q not in always]
    # Not for secrets: the split must be the same for everyone who uses the same seed.
    picked = {*always, *random.Random(seed).sample(rest, held_out - len(always))}  # noqa: S311
    test = [q in picked for q in dataset["question"]]
    return DatasetDict(
        train=dataset.select([i for i, t in enumerate(test) if not t]),
        test=dataset.select([i for i, t in enumerate(test) if t]),
    )


def _messages(question: str, answer: str, system: str | None) -> list[dict[str, str]]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return [{"role": "system", "content": system}, *turns] if system else turns


def _pairs(topic: str, language: str, deduplicate: bool) -> Iterator[tuple[str, str]]:
    seen: set[tuple[str, str]] = set()
    for thread in _read(topic, language)["conversations"]:
        if len(thread) < 2:
            continue
        pair = (str(thread[0]).strip(), str(thread[1]).strip())
        if not all(pair) or (deduplicate and pair in seen):
            continue
        seen.add(pair)
        yield pair


def _read(topic: str, language: str) -> dict[str, Any]:
    import yaml

    path = resources.files("chatterbot_corpus") / "data" / language / f"{topic}.yml"
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content
