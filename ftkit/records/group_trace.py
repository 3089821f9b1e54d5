"""What a group trainer really used: prompts, answers, rewards and advantages of chosen steps.

Plain numbers and texts, so that a run can be read without its model. Left out: token by token
log-probabilities, which the loss sees and nobody reads, and who records
(`ftkit.stages.GroupRecorder`).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ftkit.errors import RecordError
from ftkit.records import files
from ftkit.showing import Showable

if TYPE_CHECKING:
    import pandas as pd

FILE = "groups.json"
_FORMAT, _VERSION = "ftkit.group-trace", 1
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True, slots=True)
class Answer:
    """One sampled completion.

    Attributes:
        text: Without special tokens.
        rewards: Score of each reward function by its name, before weights.
        advantage: What every token of it was multiplied by.
        tokens: Its length, the stop token included.
        ended: Whether it ended with a stop token; else the limit cut it.
    """

    text: str
    rewards: Mapping[str, float]
    advantage: float
    tokens: int
    ended: bool


@dataclass(frozen=True, slots=True)
class Group:
    """The answers to one prompt, each other's baseline.

    Attributes:
        prompt: Its last message, in words.
        answers: In the order in which they were sampled.
    """

    prompt: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class GroupStep:
    """What was sampled for one optimizer step.

    Attributes:
        step: Number of the step, from 1.
        groups: The recorded ones, the first of those that were sampled.
        sampled: How many groups were sampled.
    """

    step: int
    groups: tuple[Group, ...]
    sampled: int


@dataclass(frozen=True)
class GroupTrace(Showable):
    """Groups of a run of GRPO or RLOO; shows itself as groups with rewards and advantages.

    Attributes:
        method: ``"grpo"`` or ``"rloo"``.
        group_size: Answers a prompt.
        weights: Weight of each reward function by its name.
        scale: What divides GRPO's advantages: ``"group"``, ``"batch"`` or ``"none"``.
        loss_type: What a token weighs in GRPO's loss; ``"sequence"`` for RLOO.
        beta: Weight of the KL: in the loss for GRPO, in the reward for RLOO.
        max_new_tokens: Longest answer.
        steps: In order.
    """

    method: Literal["grpo", "rloo"]
    group_size: int
    weights: Mapping[str, float]
    scale: str = "group"
    loss_type: str = "dapo"
    beta: float = 0.0
    max_new_tokens: int = 0
    steps: list[GroupStep] = field(default_factory=list)

    def reward(self, answer: Answer) -> float:
        """Return the weighted sum of an answer's scores."""
        return sum(self.weights[name] * score for name, score in answer.rewards.items())

    def silent(self, group: Group) -> bool:
        """Whether all answers of `group` were scored the same, so that it teaches nothing.

        With RLOO and β > 0 the KL still tells them apart.
        """
        rewards = [self.reward(answer) for answer in group.answers]
        return max(rewards) - min(rewards) < 1e-8

    def answers(self) -> Iterator[tuple[int, Group, Answer]]:
        """Yield every answer with its step number and group."""
        for step in self.steps:
            for group in step.groups:
                for answer in group.answers:
                    yield step.step, group, answer

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row an answer."""
        import pandas as pd

        rows = [
            {
                "step": step,
                "prompt": group.prompt,
                "completion": answer.text,
                **{f"reward {name}": score for name, score in answer.rewards.items()},
                "reward": self.reward(answer),
                "advantage": answer.advantage,
                "tokens": answer.tokens,
                "ended": answer.ended,
                "zero variance": self.silent(group),
            }
            for step, group, answer in self.answers()
        ]
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        groups = [group for step in self.steps for group in step.groups]
        silent = sum(self.silent(group) for group in groups)
        steps = ", ".join(str(step.step) for step in self.steps) or "none"
        return (
            f"{self.method.upper()}, {len(groups)} groups of {self.group_size} answers, steps "
            f"{steps}; {silent} groups without signal (all rewards the same)"
        )

    def save(self, folder: str | Path) -> Path:
        """Write ``groups.json`` into `folder`, whole or not at all; return its path."""
        data = {"format": _FORMAT, "version": _VERSION, **asdict(self)}
        return files.write(Path(folder) / FILE, json.dumps(data, allow_nan=False))

    @classmethod
    def load(cls, folder: str | Path) -> "GroupTrace":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: no trace in `folder`.
            RecordError: a file that is damaged or of an unknown format.
        """
        path = Path(folder) / FILE
        text = path.read_text(encoding="utf-8")
        try:
            data = json.loads(text)
            found = (data.pop("format"), data.pop("version"))
            if found != (_FORMAT, _VERSION):
                raise RecordError(
                    f"{path} is {found[0]} version {found[1]}; this ftkit reads {_FORMAT} version "
                    f"{_VERSION}: record the run again"
                )
            steps = [_step(step) for step in data.pop("steps")]
            return _checked(cls(**data, steps=steps))
        except RecordError:
            raise
        except _DAMAGE as error:
            raise RecordError(f"{path} is damaged ({error}); record the run again") from error


def _step(data: dict[str, Any]) -> GroupStep:
    groups = tuple(
        Group(str(group["prompt"]), tuple(map(_answer, group["answers"])))
        for group in data["groups"]
    )
    return GroupStep(int(data["step"]), groups, int(data["sampled"]))


def _answer(data: dict[str, Any]) -> Answer:
    return Answer(
        text=str(data["text"]),
        rewards={name: float(score) for name, score in data["rewards"].items()},
        advantage=float(data["advantage"]),
        tokens=int(data["tokens"]),
        ended=bool(data["ended"]),
    )


def _checked(trace: GroupTrace) -> GroupTrace:
    for step in trace.steps:
        for group in step.groups:
            _check_group(trace, step.step, group.answers)
    return trace


def _check_group(trace: GroupTrace, step: int, answers: Sequence[Answer]) -> None:
    if len(answers) != trace.group_size:
        raise ValueError(
            f"step {step} has a group of {len(answers)} answers instead of {trace.group_size}"
        )
    for answer in answers:
        if set(answer.rewards) != set(trace.weights):
            raise ValueError(f"step {step}: rewards {sorted(answer.rewards)} have other names")
