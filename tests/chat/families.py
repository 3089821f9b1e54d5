"""What each of TRL's template families must train, written down by hand from its format.

This is the independent statement that the derived mask is held against: for each family the
text that the model must produce around an answer's content, and which blanks of the content the
template trims. Nothing here is computed by ftkit.
"""

from collections.abc import Callable
from dataclasses import dataclass

IM_END = "<|im_end|>"
TURN = "<turn|>"
EMPTY_THINK = "<think>\n\n</think>\n\n"


@dataclass(frozen=True)
class Family:
    """What stands around the content of an answer, within what the model must produce."""

    stop: str
    before: str = ""
    trim: Callable[[str], str] = str
    # In a turn that is not the last one, where that differs:
    earlier_stop: str | None = None
    earlier_before: str | None = None

    def expected(self, answers: list[str]) -> list[str]:
        """The trained text of each answer of a conversation."""
        last = len(answers) - 1
        return [self._one(answer, i == last) for i, answer in enumerate(answers)]

    def _one(self, answer: str, is_last: bool) -> str:
        before, stop = self.before, self.stop
        if not is_last:
            before = before if self.earlier_before is None else self.earlier_before
            stop = stop if self.earlier_stop is None else self.earlier_stop
        return before + self.trim(answer) + stop


CHATML = Family(IM_END)
LLAMA = Family("<|eot_id|>", trim=str.strip)
GEMMA4 = Family(TURN, trim=str.strip)
NEMOTRON = Family(IM_END, before="</think>", trim=str.rstrip)

FAMILIES: dict[str, Family] = {
    "cohere": Family("<|END_OF_TURN_TOKEN|>", trim=str.strip),
    "cohere2": Family("<|END_RESPONSE|><|END_OF_TURN_TOKEN|>"),
    "deepseek_r1_distill": Family("<｜end▁of▁sentence｜>"),
    "deepseekv3": Family("<｜end▁of▁sentence｜>"),
    "diffusion_gemma": GEMMA4,
    "gemma": Family("<end_of_turn>", trim=str.strip),
    "gemma3": Family("<end_of_turn>", trim=str.strip),
    "gemma4": GEMMA4,
    "gemma4_v2": GEMMA4,
    "gemma4_v3": GEMMA4,
    "gemma4_v4": GEMMA4,
    "gemma4_v5": GEMMA4,
    # No stop token: the family stops by emitting the next role marker.
    "glm4moe": Family("", before="\n<think></think>\n", trim=str.strip),
    "gptoss": Family("<|return|>", before="<|channel|>final<|message|>", earlier_stop="<|end|>"),
    "lfm2": CHATML,
    "lfm2_2_5": CHATML,
    "lfm2_2_5_v2": CHATML,
    "lfm2_2_5_vl": CHATML,
    "lfm2_v2": CHATML,
    "llama3": LLAMA,
    "llama3_1": LLAMA,
    "llama3_2": LLAMA,
    "muse_glimmer": Family("<|eot|>", before=" to=user<|message|>"),
    "nemotron_3_5_lightning": NEMOTRON,
    "nemotron_3_nano": NEMOTRON,
    "nemotron_3_super": NEMOTRON,
    "nemotron_3_ultra": NEMOTRON,
    "phi3": Family("<|end|>"),
    "phi3_5": Family("<|end|>"),
    "qwen2_5": CHATML,
    "qwen2_5_vl": CHATML,
    "qwen3": Family(IM_END, before=EMPTY_THINK, earlier_before=""),
    "qwen3_5_nothink": Family(IM_END, trim=str.strip),
    "qwen3_5_think": Family(IM_END, before="\n</think>\n\n", earlier_before="", trim=str.strip),
    "qwen3_6": Family(IM_END, before="\n</think>\n\n", earlier_before="", trim=str.strip),
    "qwen3_8": Family(IM_END, before="\n</think>\n\n", trim=str.strip),
    "qwen3_instruct_2507": CHATML,
    "qwen3_vl": CHATML,
}

# These expect image-style content, a list of parts, and leave a plain string out.
PARTS_ONLY = {"idefics3", "llava_next", "smolvlm"}
NO_SYSTEM = {"gemma"}
# Their own markers, not the derivation, decide.
OWN_MARKERS = {"lfm2_2_5", "lfm2_2_5_v2", "lfm2_2_5_vl"}
