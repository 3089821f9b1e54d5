"""Sample the answers of `data.sentiment_pairs` and store them, once.

``python -m ftkit.stages.make_sentiment_pairs [FILE]`` writes the file that ships with ftkit anew:
12 answers of at most 24 tokens to each prompt, by the embedded model at temperature 1, paired by
VADER's sentiment. About 5 minutes on 2 CPU cores. It stands in this room, not in `data`, because
it samples a model.

The answers will be others than those that ship, from the same distribution: those were drawn by
`torch.multinomial`, and `ftkit.models.generation.draw` reads the seeded numbers another way.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from ftkit import data
from ftkit.chat.render import Renderer
from ftkit.data.sentiment import PAIRS_FILE, paired_from_both_ends
from ftkit.models import Loaded, Roles, load

ANSWERS = 12
NEW_TOKENS = 24
PROMPTS_A_BATCH = 8


def sampled(base: Loaded, prompts: list[str], *, seed: int = 0) -> Iterator[tuple[str, list[str]]]:
    """Yield each prompt with `ANSWERS` answers of the model, from the whole softmax at τ = 1.

    Args:
        base: The model that answers.
        prompts: One user message each.
        seed: Of the sampling.
    """
    roles = Roles(base, start="new")
    generator = torch.Generator(device=base.model.device).manual_seed(seed)
    renderer = Renderer.of(base.tokenizer)
    for start in range(0, len(prompts), PROMPTS_A_BATCH):
        chunk = prompts[start : start + PROMPTS_A_BATCH]
        texts = [renderer.render([_user(p)], generation_prompt=True) for p in chunk]
        batch = base.tokenizer(
            [text for text in texts for _ in range(ANSWERS)],
            padding=True, padding_side="left", add_special_tokens=False, return_tensors="pt",
        ).to(base.model.device)  # fmt: skip
        drawn = roles.generate(
            batch["input_ids"], batch["attention_mask"],
            max_new_tokens=NEW_TOKENS, generator=generator,
        )  # fmt: skip
        answers = base.tokenizer.batch_decode(drawn.ids, skip_special_tokens=True)
        for i, prompt in enumerate(chunk):
            yield prompt, list(answers[i * ANSWERS : (i + 1) * ANSWERS])


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def main(target: Path) -> None:
    """Write `target`, one pair a line, and say what is in it."""
    base = load(device="cpu")  # the same numbers for everyone
    lines = [
        json.dumps(pair, ensure_ascii=False)
        for prompt, answers in sampled(base, data.sentiment_prompts())
        for pair in paired_from_both_ends(prompt, answers)
    ]
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} pairs, {target.stat().st_size / 1e3:.0f} kB in {target}")


if __name__ == "__main__":
    given = sys.argv[1:]
    main(Path(given[0]) if given else Path(data.__file__).with_name(PAIRS_FILE))
