"""Generation settings under which sampled tokens no longer come from softmax(z/τ).

Log-probabilities, ratios and KL are those of the whole softmax at one temperature. A setting of
transformers' `GenerationConfig` that draws from another distribution makes the ratio of the first
update differ from 1 and can turn the KL estimate negative.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of the sampler.

    Attributes:
        neutral: Values that leave the distribution as it is; None is always one.
        effect: What any other value does.
        instead: What to use for the same purpose.
    """

    neutral: tuple[Any, ...]
    effect: str
    instead: str


_LIKELIEST = "draws from the likelier tokens only", "a lower temperature"
_REPEATS = "makes tokens that were there before less likely", "a reward that pays for variety"
_SHORTEST = "forbids the stop token at first", "a reward that pays for length"
_FORBIDS = "makes chosen tokens less likely or impossible", "a reward that punishes them"

SETTINGS = {
    "do_sample": Setting(
        (True,), "takes the likeliest token instead of drawing (greedy)", "a lower temperature"
    ),
    "num_beams": Setting((1,), "searches instead of drawing", "more completions a round"),
    "top_k": Setting((0,), *_LIKELIEST),
    "top_p": Setting((1,), *_LIKELIEST),
    "min_p": Setting((0,), *_LIKELIEST),
    "typical_p": Setting((1,), *_LIKELIEST),
    "epsilon_cutoff": Setting((0,), *_LIKELIEST),
    "eta_cutoff": Setting((0,), *_LIKELIEST),
    "top_h": Setting((), *_LIKELIEST),
    "repetition_penalty": Setting((1,), *_REPEATS),
    "encoder_repetition_penalty": Setting((1,), *_REPEATS),
    "no_repeat_ngram_size": Setting((0,), *_REPEATS),
    "min_length": Setting((0,), *_SHORTEST),
    "min_new_tokens": Setting((0,), *_SHORTEST),
    "suppress_tokens": Setting(([],), *_FORBIDS),
    "begin_suppress_tokens": Setting(([],), *_FORBIDS),
    "bad_words_ids": Setting(([],), *_FORBIDS),
    "sequence_bias": Setting(({}, []), *_FORBIDS),
    "forced_bos_token_id": Setting((), *_FORBIDS),
    "forced_eos_token_id": Setting((), *_FORBIDS),
    "watermarking_config": Setting((), *_FORBIDS),
    "exponential_decay_length_penalty": Setting(
        (), "makes the stop token likelier with time", "a reward that pays for short answers"
    ),
    "guidance_scale": Setting((1,), "mixes in another prompt's logits", "that prompt"),
}


def off_the_softmax(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of `settings` that make the sampler draw from something else than softmax(z/τ).

    Args:
        settings: Names and values of transformers' `GenerationConfig`; unknown names are passed
            over, and so is the temperature.
    """
    return {
        name: settings[name]
        for name, setting in SETTINGS.items()
        if settings.get(name) is not None and settings[name] not in setting.neutral
    }
