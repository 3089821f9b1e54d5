"""Human conversations with human ratings from `chitchat-dataset` (MIT), as preference pairs.

From the Chit-Chat Challenge of the BYU Perception, Control & Cognition lab (Myers, Etchart and
Fulda 2020). Two students talked about a given topic, and whole conversations were rated from 1 to
10 as witty, upbeat and interesting.

The ratings compare conversations, not answers to one message, so a pair is two conversations on
the same topic: the higher rated one is chosen. That is weak evidence (raters differ, and the
opening turns say little about the rest): expect held-out accuracy not far above one half, where
`sentiment_pairs` is easy. Left out: forms handed in as they came up (5, 5, 5, a third of all rated
conversations), and what was said later than the turns asked for.
"""

import json
import random
from collections.abc import Iterator
from importlib import resources
from statistics import fmean
from typing import Any, NamedTuple

from datasets import Dataset

from ftkit.errors import DataError

_RATED = ("witty", "upbeat", "interesting")
_UNTOUCHED = 5


class _Talk(NamedTuple):
    topic: str
    rating: float
    turns: tuple[str, ...]


def chitchat(*, turns: int = 4, min_gap: float = 3.0, seed: int = 0) -> Dataset:
    """Return pairs of conversations on one topic; each conversation is in one pair at most.

    Args:
        turns: How many turns of each conversation are kept, an even number, so that the last one
            is the assistant's. Conversations with fewer are left out: all are equally long in
            turns, else length alone would tell chosen from rejected.
        min_gap: Least difference of the mean ratings, in points of the 1 to 10 scale.
        seed: Of the pairing.

    Returns:
        Columns ``prompt`` (the topic, as a system message), ``chosen``, ``rejected`` (the first
        speaker as user, the second as assistant), ``rating_chosen`` and ``rating_rejected``.

    Raises:
        DataError: `turns` is not even and positive, or no pair is left.
    """
    if turns < 2 or turns % 2:
        raise DataError(f"turns={turns} must be even and at least 2, to end with an answer")
    by_topic: dict[str, list[_Talk]] = {}
    for talk in _talks(turns):
        by_topic.setdefault(talk.topic, []).append(talk)
    picker = random.Random(seed)  # noqa: S311  # reproducible, not secret
    rows = [
        _row(chosen, rejected)
        for topic in sorted(by_topic)
        for chosen, rejected in _paired(by_topic[topic], min_gap, picker)
    ]
    if not rows:
        raise DataError(f"no two conversations with {turns} turns differ by {min_gap} points")
    return Dataset.from_list(rows)


def _talks(turns: int) -> Iterator[_Talk]:
    text = (resources.files("chitchat_dataset") / "dataset.json").read_text(encoding="utf-8")
    for conversation in json.loads(text).values():
        ratings, topic = conversation.get("ratings"), conversation.get("prompt")
        if not ratings or not topic or any(name not in ratings for name in _RATED):
            continue
        points = [ratings[name] for name in _RATED]
        said = tuple(" ".join(u["text"] for u in turn) for turn in conversation["messages"])
        if set(points) != {_UNTOUCHED} and len(said) >= turns and all(map(str.strip, said[:turns])):
            yield _Talk(topic, fmean(points), said[:turns])


def _paired(
    talks: list[_Talk], min_gap: float, picker: random.Random
) -> Iterator[tuple[_Talk, _Talk]]:
    """Pair from both ends of the ranking, so that as many as possible differ enough."""
    picker.shuffle(talks)  # ties in random order; the sort keeps it
    ranked = sorted(talks, key=lambda talk: talk.rating, reverse=True)
    for high, low in zip(ranked, reversed(ranked), strict=True):
        if high.rating - low.rating < min_gap or high.rating <= low.rating:
            return
        yield high, low


def _row(chosen: _Talk, rejected: _Talk) -> dict[str, Any]:
    return {
        "prompt": [{"role": "system", "content": f"Small talk. The topic: {chosen.topic}"}],
        "chosen": _messages(chosen.turns),
        "rejected": _messages(rejected.turns),
        "rating_chosen": chosen.rating,
        "rating_rejected": rejected.rating,
    }


def _messages(turns: tuple[str, ...]) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]
