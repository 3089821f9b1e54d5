"""What a model can do: mean loss of rows, and multiple choice by the likelihood of the options.

Left out: generation. Likelihoods need one pass and have no sampling noise.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import nan
from statistics import fmean
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from torch import Tensor

from ftkit.algos import token_losses
from ftkit.errors import DataError

_COLUMNS = {"question", "options", "answer"}


class Row(NamedTuple):
    """A tokenized row; labels are -100 where nothing is counted."""

    input_ids: list[int]
    labels: list[int]


class QuizScore(NamedTuple):
    """Share of right answers, and mean probability of the right option among the options."""

    accuracy: float
    confidence: float


def mean_loss(model: Any, rows: Sequence[Row], pad: int, *, batch_size: int = 8) -> float:
    """Return the mean loss over all counted tokens of `rows`, nats a token.

    Every token counts alike, so the batching does not change the number. Its exponential is the
    perplexity.

    Args:
        model: A causal language model; its mode is restored.
        rows: At least one counted token in all.
        pad: Id to pad with; padding is masked and never counted.
        batch_size: Rows a pass.
    """
    sums = _losses(model, rows, pad, batch_size)
    return float(sums.sum()) / sum(_counted(row) for row in rows)


def quiz_score(model: Any, tokenizer: Any, quiz: Dataset, *, batch_size: int = 16) -> QuizScore:
    """Score each question by its likeliest option.

    The text is ``Question: … Answer: option``; an option's score is the mean log-probability of
    its tokens, so long options are not punished for being long. The probability of an option is
    the softmax of the scores.

    Args:
        model: As for `mean_loss`.
        tokenizer: Its tokenizer.
        quiz: Columns ``question``, ``options`` and ``answer``, as `ftkit.data.quiz` gives.
        batch_size: Options a pass.
    """
    texts = [(row["question"], option) for row in quiz for option in row["options"]]
    rows = [_option(tokenizer, question, option) for question, option in texts]
    counts = torch.tensor([_counted(row) for row in rows])
    scores = -_losses(model, rows, tokenizer.pad_token_id, batch_size) / counts
    if not scores.isfinite().all():
        return QuizScore(nan, nan)
    by_question = scores.split([len(row["options"]) for row in quiz])
    hits = [int(s.argmax()) == row["answer"] for s, row in zip(by_question, quiz, strict=True)]
    shares = [float(s.softmax(0)[row["answer"]]) for s, row in zip(by_question, quiz, strict=True)]
    return QuizScore(fmean(hits), fmean(shares))


def check_quiz(quiz: Dataset) -> None:
    """Refuse a quiz that cannot be scored.

    Raises:
        DataError: no rows, a missing column, fewer than two options, or an answer out of range.
    """
    if missing := _COLUMNS - set(quiz.column_names):
        raise DataError(f"the quiz has no column {min(missing)!r}; it needs {sorted(_COLUMNS)}")
    if not len(quiz):
        raise DataError("the quiz has no questions; pass quiz=None to go without")
    for index, row in enumerate(quiz):
        options, answer = row["options"], row["answer"]
        if len(options) < 2 or not 0 <= answer < len(options) or not all(map(str.strip, options)):
            raise DataError(
                f"quiz row {index}: needs two options or more, none of them empty, and an answer "
                f"that is the index of one; got {len(options)} options and answer {answer}"
            )


def _option(tokenizer: Any, question: str, option: str) -> Row:
    head = tokenizer(f"Question: {question}\nAnswer:", add_special_tokens=False).input_ids
    tail = tokenizer(f" {option}", add_special_tokens=False).input_ids
    return Row([*head, *tail], [-100] * len(head) + tail)


def _counted(row: Row) -> int:
    """How many tokens have a loss; the first has nothing before it and never does."""
    return sum(label != -100 for label in row.labels[1:])


def _losses(model: Any, rows: Sequence[Row], pad: int, batch_size: int) -> Tensor:
    """Return the summed loss of each row ``(rows,)``; alike lengths are run together."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].input_ids))
    sums = torch.empty(len(rows))
    with _evaluating(model):
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            sums[batch] = _batch_losses(model, [rows[i] for i in batch], pad)
    return sums


def _batch_losses(model: Any, rows: Sequence[Row], pad: int) -> Tensor:
    width = max(len(row.input_ids) for row in rows)
    ids, labels, real = (torch.full((len(rows), width), v) for v in (pad, -100, 0))
    for i, row in enumerate(rows):
        length = len(row.input_ids)
        ids[i, :length], labels[i, :length] = torch.tensor(row.input_ids), torch.tensor(row.labels)
        real[i, :length] = 1
    ids, labels, real = (tensor.to(model.device) for tensor in (ids, labels, real))
    logits = model(input_ids=ids, attention_mask=real, use_cache=False).logits
    # Not `masked_row_sums`, which refuses NaN: a run that diverged is a result, too.
    return torch.where(labels[:, 1:] != -100, token_losses(logits, ids), 0.0).sum(1).cpu()


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)
