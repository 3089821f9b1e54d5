"""Preference pairs whose gold reward is known: sampled answers, labelled by their sentiment.

The set-up of Gao et al. 2022 ("Scaling laws for reward model overoptimization"): a *gold* reward
that can always be asked plays the human, a reward model (the proxy) learns from its choices, and
one sees how far they part. The gold here is VADER's sentiment (Hutto & Gilbert 2014), a word list
with rules: deterministic, free and fast, and easy to fool, which is the point.

The answers are SmolLM2-135M-Instruct's own (Apache-2.0), sampled once by
``python -m ftkit.stages.make_sentiment_pairs`` and kept beside this module. Left out: pairs that
the gold cannot tell apart.
"""

import json
import random
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from ftkit.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

PAIRS_FILE = "sentiment_pairs.jsonl"
MIN_GAP = 0.3
"""Least difference between the gold rewards of a pair; a single mild word makes 0.2."""


def sentiment(texts: Sequence[str]) -> list[float]:
    """Return VADER's compound sentiment of each text: −1 (negative) to 1; 0 for no mood at all."""
    analyzer = _analyzer()
    return [float(analyzer.polarity_scores(text)["compound"]) for text in texts]


def sentiment_prompts() -> list[str]:
    """Return the 100 short everyday prompts whose answers were sampled; for PPO, too."""
    text = (resources.files("ftkit.data") / "sentiment_prompts.txt").read_text(encoding="utf-8")
    return text.splitlines()


def sentiment_pairs(noise: float = 0.0, seed: int = 0) -> "Dataset":
    """Return pairs of answers to one prompt; the more positive one is chosen.

    Args:
        noise: Share of the pairs whose label is flipped, 0 to 1: careless raters. The gold
            columns stay true to the texts, so ``gold_chosen < gold_rejected`` marks a flip.
        seed: Decides which ones; the order of the rows never changes.

    Returns:
        Columns ``prompt``, ``chosen``, ``rejected`` (conversations) and ``gold_chosen``,
        ``gold_rejected`` (VADER compound, −1 to 1).

    Raises:
        DataError: `noise` is no share.
    """
    from datasets import Dataset

    if not 0.0 <= noise <= 1.0:
        raise DataError(f"noise={noise} must be a share between 0 and 1")
    stored = _stored()
    picker = random.Random(seed)  # noqa: S311  # reproducible, not secret
    flipped = set(picker.sample(range(len(stored)), round(noise * len(stored))))
    rows = [_flip(row) if i in flipped else row for i, row in enumerate(stored)]
    return Dataset.from_list([_conversation(row) for row in rows])


def paired_from_both_ends(prompt: str, answers: Sequence[str]) -> list[dict[str, Any]]:
    """Pair the best answer with the worst, the second best with the second worst, and so on.

    Every answer is in one pair at most: a reward model remembers texts that it sees often, and
    then looks better in training than it is.

    Args:
        prompt: What was asked.
        answers: Sampled answers; empty ones and repetitions are left out.

    Returns:
        One dict a pair with a gold gap above `MIN_GAP`, as a line of the stored file, the widest
        gap first.
    """
    unique = sorted({answer.strip() for answer in answers} - {""})
    ranked = sorted(zip(sentiment(unique), unique, strict=True), reverse=True)
    return [
        {
            "prompt": prompt,
            "chosen": chosen,
            "rejected": rejected,
            "gold_chosen": gold_chosen,
            "gold_rejected": gold_rejected,
        }
        for (gold_chosen, chosen), (gold_rejected, rejected) in zip(
            ranked, reversed(ranked), strict=True
        )
        if gold_chosen - gold_rejected > MIN_GAP
    ]


@cache
def _analyzer() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def _stored() -> list[dict[str, Any]]:
    text = (resources.files("ftkit.data") / PAIRS_FILE).read_text(encoding="utf-8")
    # Not splitlines(): JSON leaves U+2028 in a text, which it would take for a line's end.
    return [json.loads(line) for line in text.split("\n") if line]


def _flip(row: dict[str, Any]) -> dict[str, Any]:
    swap = {"chosen": "rejected", "rejected": "chosen"}
    swap |= {f"gold_{name}": f"gold_{other}" for name, other in swap.items()}
    return {name: row[swap.get(name, name)] for name in row}


def _conversation(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": row["prompt"]}],
        "chosen": [{"role": "assistant", "content": row["chosen"]}],
        "rejected": [{"role": "assistant", "content": row["rejected"]}],
        "gold_chosen": row["gold_chosen"],
        "gold_rejected": row["gold_rejected"],
    }
