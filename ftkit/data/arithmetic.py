"""Short sums that code can check: a *verifiable* reward, made here, without any data set.

The instruction before each question shows one solved sum: the form that is wanted. The right
answer is not in the rows: the reward reads the question out of the prompt and works it out, so it
needs no key and no model, and cannot be flattered. Left out: partial credit, and anything that
takes more than one step.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from datasets import Dataset, DatasetDict

from ftkit.errors import DataError

Message = dict[str, str]
_QUESTION = re.compile(r"(\d+) ([+×-]) (\d+)")
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class _Task:
    sign: str
    solve: Callable[[int, int], int]
    example: tuple[int, int]


_TASKS = {
    "sum": _Task("+", lambda a, b: a + b, (7, 5)),
    "difference": _Task("-", lambda a, b: a - b, (17, 5)),
    "product": _Task("×", lambda a, b: a * b, (4, 5)),
}
_BY_SIGN = {task.sign: task.solve for task in _TASKS.values()}


def arithmetic(
    task: str = "product",
    *,
    rows: int = 64,
    held_out: int = 24,
    low: int = 2,
    high: int = 12,
    seed: int = 0,
) -> DatasetDict:
    """Return questions with two numbers each; no two numbers meet in both splits.

    Args:
        task: ``"sum"``, ``"difference"`` (never below 0) or ``"product"``.
        rows: Questions in ``train``.
        held_out: Questions in ``test``.
        low: Smallest number, at least 0.
        high: Largest number.
        seed: Decides which questions, and their order.

    Returns:
        ``train`` and ``test``, each with the column ``prompt`` (a conversation: an instruction
        with a solved example, and the question). A split may ask ``3 × 7`` and ``7 × 3``.

    Raises:
        DataError: an unknown task, or numbers that do not make as many different questions.
    """
    if task not in _TASKS:
        raise DataError(f"task {task!r} is unknown; use one of {', '.join(_TASKS)}")
    if rows < 1 or held_out < 1 or low < 0:
        raise DataError(
            f"rows={rows} and held_out={held_out} must be at least 1, low={low} not < 0"
        )
    chosen = _TASKS[task]
    groups = _groups(chosen, low, high, random.Random(seed))  # noqa: S311  # reproducible
    test = _take(groups, held_out)
    train = _take(groups, rows)
    if len(test) < held_out or len(train) < rows:
        raise DataError(
            f"{rows} + {held_out} questions are wanted, but the numbers {low} to {high} make "
            f"{len(train)} + {len(test)}: ask for fewer, or widen the range"
        )
    return DatasetDict(
        train=Dataset.from_list([{"prompt": _conversation(chosen, *pair)} for pair in train]),
        test=Dataset.from_list([{"prompt": _conversation(chosen, *pair)} for pair in test]),
    )


def right_answer(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """Return 1 where the last whole number of a completion is right, and 0 elsewhere.

    A reward in ftkit's signature. The last number counts, as in the usual checks of GSM8K, so the
    completion may say the sum again before it answers.

    Args:
        prompts: Texts; the last ``"a + b"``, ``"a - b"`` or ``"a × b"`` in each is the question.
        completions: Answers, without special tokens.

    Raises:
        DataError: a prompt without a question; names the row.
    """
    said = [_NUMBER.findall(completion)[-1:] for completion in completions]
    return [
        float([str(solution(asked, row))] == [number.lstrip("0") or "0" for number in numbers])
        for row, (asked, numbers) in enumerate(zip(prompts, said, strict=True))
    ]


def solution(prompt: str, row: int = 0) -> int:
    """Return the right answer to the last question in `prompt`.

    Args:
        prompt: Text.
        row: What the error calls it.

    Raises:
        DataError: there is no question.
    """
    found = _QUESTION.findall(prompt)
    if not found:
        raise DataError(
            f"prompt {row} holds no question such as '3 + 4': {prompt[-80:]!r}; make prompts "
            "with ftkit.data.arithmetic()"
        )
    first, sign, second = found[-1]
    return _BY_SIGN[sign](int(first), int(second))


def _groups(task: _Task, low: int, high: int, picker: random.Random) -> list[list[tuple[int, int]]]:
    """Return the questions by the two numbers in them, in random order, without the example."""
    pairs = [(a, b) for a in range(low, high + 1) for b in range(a, high + 1)]
    groups = [sorted({(a, b), (b, a)}) for a, b in pairs if {a, b} != set(task.example)]
    if task.sign == "-":
        groups = [[max(group)] for group in groups]
    for group in groups:
        picker.shuffle(group)
    picker.shuffle(groups)
    return groups


def _take(groups: list[list[tuple[int, int]]], count: int) -> list[tuple[int, int]]:
    """Take whole groups off the end until `count` questions are there; one each comes first."""
    taken: list[list[tuple[int, int]]] = []
    while groups and sum(map(len, taken)) < count:
        taken.append(groups.pop())
    firsts, seconds = ([g[i] for g in taken if len(g) > i] for i in (0, 1))
    return [*firsts, *seconds][:count]


def _conversation(task: _Task, first: int, second: int) -> list[Message]:
    a, b = task.example
    solved = f"{a} {task.sign} {b} = {task.solve(a, b)}"
    return [
        {"role": "system", "content": f"Answer like this: {solved}."},
        {"role": "user", "content": f"{first} {task.sign} {second}"},
    ]
