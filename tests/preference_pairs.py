"""Preference pairs that a tiny model can tell apart: friendly answers against sad ones."""

from datasets import Dataset

GOOD, BAD = ("great", "lovely", "fine", "happy"), ("awful", "bad", "sad", "poor")


def pairs(rows: int = 16) -> Dataset:
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": f"How was day {i}?"}],
                "chosen": [{"role": "assistant", "content": f"It was {GOOD[i % 4]}."}],
                "rejected": [{"role": "assistant", "content": f"It was {BAD[i % 4]} {i}."}],
                "gold_chosen": 0.5,
                "gold_rejected": -0.25,
            }
            for i in range(rows)
        ]
    )
