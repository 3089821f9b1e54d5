"""NEFTune's noise, read from transformers' own hook: around a few passes, or all through a run.

One forward hook before it keeps the clean embeddings, one behind it what the model gets; the
noise is their difference. Left out: drawing noise here. All of it is `neftune_post_forward_hook`'s.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite, nan, sqrt
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.integrations.neftune import (
    activate_neftune,
    deactivate_neftune,
    neftune_post_forward_hook,
)

from ftkit.algos.neftune import critical_magnitudes
from ftkit.errors import DataError, SettingsError
from ftkit.models import Loaded
from ftkit.records.noise import NoiseMap, NoisePass, NoiseProof, NoiseStep
from ftkit.records.table import Table

WORDS = (
    *(" king", " queen", " man", " woman", " dog", " cat", " Paris", " London"),
    *(" Monday", " Tuesday", " good", " bad", " printer", " computer"),
)
"""Words of one token each in most English vocabularies, some of them alike."""

_ROW = 64  # tokens embedded at once, to draw the hook's noise for a map


@dataclass(frozen=True, slots=True)
class _Tap:
    """One pass through the embedding: before the hooks, and what the model got."""

    training: bool
    clean: Tensor
    seen: Tensor

    @property
    def noise(self) -> Tensor:
        return self.seen.float() - self.clean.float()


def _tap(model: Any, note: Callable[[_Tap], None]) -> list[Any]:
    """Call `note` after each pass through the model's embedding; return the hooks' handles."""
    embedding = model.get_input_embeddings()
    clean: list[Tensor] = []

    def before(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        clean[:] = [output.detach().clone()]

    def behind(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        note(_Tap(module.training, clean[0], output.detach()))

    return [
        embedding.register_forward_hook(before, prepend=True),
        embedding.register_forward_hook(behind),
    ]


@contextmanager
def _hooked(model: Any, alpha: float | None, accelerator: Any = None) -> Iterator[list[_Tap]]:
    """Put transformers' hook onto the embedding as its trainer does, and note every pass.

    A hook that is there already (a run is on, or was interrupted) is used, with `alpha`.
    """
    embedding = model.get_input_embeddings()
    there = neftune_post_forward_hook in embedding._forward_hooks.values()
    usual = getattr(embedding, "neftune_noise_alpha", None)
    handle = None
    if alpha is not None and there:
        embedding.neftune_noise_alpha = alpha
    elif alpha is not None:
        handle = activate_neftune(model, alpha, accelerator)
    taps: list[_Tap] = []
    listeners = _tap(model, taps.append)
    try:
        yield taps
    finally:
        for listener in listeners:
            listener.remove()
        if handle is not None:
            deactivate_neftune(model, handle, accelerator)
        elif there:
            embedding.neftune_noise_alpha = usual


@contextmanager
def _mode_and_chance_kept(model: Any) -> Iterator[None]:
    """Leave train or eval mode and the random state of torch as they were."""
    was_training = model.training
    with torch.random.fork_rng(), torch.no_grad():
        try:
            yield
        finally:
            model.train(was_training)


def hook_noise(model: Any, input_ids: Tensor, alpha: float) -> Tensor:
    """Return the noise that transformers' hook adds to the embeddings of `input_ids`.

    Only the embedding runs, in train mode. The random state goes on, so that two calls differ.

    Args:
        model: A causal language model.
        input_ids: ``(batch, time)``, padding and all; ``time`` is the L of the hook.
        alpha: α ≥ 0.

    Returns:
        ``(batch, time, hidden)`` in float32, on the model's device.

    Raises:
        ValueError: α below 0 or not finite, or ids of another shape.
    """
    _check_alpha(alpha)
    if input_ids.ndim != 2 or not input_ids.numel():
        raise ValueError(
            f"hook_noise: input_ids have shape {tuple(input_ids.shape)}; they must be (batch, "
            "time), and not empty"
        )
    embedding = model.get_input_embeddings()
    was_training = embedding.training
    try:
        with _hooked(model, alpha) as taps, torch.no_grad():
            embedding.train()(input_ids.to(embedding.weight.device))
    finally:
        embedding.train(was_training)
    return taps[0].noise


def noise_proof(trainer: Any, rows: int = 4) -> NoiseProof:
    """Show whether NEFTune is on in `trainer`: two train and two eval passes of one batch.

    The batch is the first `rows` rows of the training set through the trainer's own collator, as
    in `ftkit.chat.annotate_batch`; the hook and its α are what ``trainer.train()`` puts on the
    model. Weights, mode and random state stay as they are.

    Args:
        trainer: A built trainer of transformers or TRL with tokenized rows, e.g. of `sft`.
        rows: How many rows of the dataset to collate together.

    Raises:
        DataError: fewer than 1 row, or a trainer without tokenized training rows.
        SettingsError: the trainer's α is below 0 or not finite.
    """
    inputs = trainer._prepare_inputs(trainer.data_collator(_examples(trainer, rows)))
    model, alpha = trainer.model, trainer.neftune_noise_alpha
    if alpha is not None and not (alpha >= 0 and isfinite(alpha)):
        raise SettingsError(
            f"the trainer's neftune_noise_alpha is {alpha}; it must be None, or at least 0"
        )
    losses = []
    with _mode_and_chance_kept(model), _hooked(model, alpha, trainer.accelerator) as taps:
        for training in (True, True, False, False):
            loss = model.train(training)(**inputs).loss
            losses.append(nan if loss is None else loss.item())
    passes = [
        NoisePass(tap.training, tap.noise.cpu().numpy(), loss)
        for tap, loss in zip(taps, losses, strict=True)
    ]
    ids, real = inputs["input_ids"], inputs.get("attention_mask")
    decode = trainer.processing_class.decode
    return NoiseProof(
        alpha=alpha,
        tokens=[[decode([token]) for token in row] for row in ids.tolist()],
        real=(torch.ones_like(ids) if real is None else real).bool().cpu().numpy(),
        clean_l2=taps[0].clean.float().norm(dim=2).cpu().numpy(),
        passes=passes,
    )


def _examples(trainer: Any, rows: int) -> list[dict[str, Any]]:
    dataset = getattr(trainer, "train_dataset", None)
    columns = getattr(dataset, "column_names", None) or []
    if rows < 1 or "input_ids" not in columns or not dataset:
        raise DataError(
            f"noise_proof(rows={rows}) needs at least one row of a trainer whose training set has "
            f"input_ids; this one has columns {list(columns)}"
        )
    kept = ("input_ids", "labels", "attention_mask")
    found = [dataset[i] for i in range(min(rows, len(dataset)))]
    return [{name: row[name] for name in kept if name in row} for row in found]


class NoiseRecorder(TrainerCallback):
    """Watches a run: the noise on the embeddings in each of its passes, held-out ones included.

    Give it to a trainer as a callback. It reads what the model gets and changes nothing.

    Attributes:
        steps: One `NoiseStep` a pass, in order.
    """

    def __init__(self) -> None:
        self.steps: list[NoiseStep] = []
        self._listeners: list[Any] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Listen at the embedding; by now transformers has put its hook there."""
        self._leave()
        self.steps = steps = []
        self._listeners = _tap(
            kwargs["model"], lambda tap: steps.append(_step(state.global_step, tap))
        )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop listening."""
        self._leave()

    def table(self) -> Table:
        """Return the passes of the run, one row each."""
        rows = [
            (s.step, "train" if s.training else "eval", s.rows, s.length, s.token_l2, s.row_l2)
            for s in self.steps
        ]
        columns = ("step", "mode", "rows", "L", "noise of a token (L2)", "noise of a row (L2)")
        say = "L is the longest row of each batch: it sets how much noise every row of it gets."
        return Table("The noise of a run, pass by pass", columns, rows, say)

    def _leave(self) -> None:
        for listener in self._listeners:
            listener.remove()
        self._listeners = []


def _step(step: int, tap: _Tap) -> NoiseStep:
    noise = tap.noise
    return NoiseStep(
        step=step,
        training=tap.training,
        rows=noise.shape[0],
        length=noise.shape[1],
        largest=noise.abs().max().item(),
        token_l2=noise.norm(dim=2).mean().item(),
        row_l2=noise.flatten(1).norm(dim=1).mean().item(),
    )


# --- words against noise ----------------------------------------------------------------------


def noise_map(
    base: Loaded,
    words: Sequence[str] = WORDS,
    *,
    texts: Sequence[str] = (),
    tokens: int = 400,
    draws: int = 24,
    seed: int = 0,
) -> NoiseMap:
    """Measure on the real embedding matrix how much noise turns a token into another one.

    The noise is drawn by transformers' hook. Everything is measured in all d dimensions; the
    plane of the picture holds the two main directions of the words.

    Args:
        base: From `ftkit.load`.
        words: At least 3 different words of one token each; mind the leading space.
        texts: Their tokens are sampled for the share that changes; by default `words`.
        tokens: How many tokens to sample, with repetition as in the texts.
        draws: Draws of the noise shown around each word.
        seed: Of the sample and the noise.

    Raises:
        DataError: fewer than 3 words, a word twice, or one that is several tokens (named).
        ValueError: `tokens` or `draws` below 1.
    """
    if tokens < 1 or draws < 1:
        raise ValueError(f"noise_map: tokens={tokens} and draws={draws} must be at least 1")
    device = base.model.get_input_embeddings().weight.device
    matrix = base.model.get_input_embeddings().weight.detach().float()  # (vocab, hidden)
    ids = torch.tensor(_word_ids(base.tokenizer, words), device=device)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sample = _sample(base.tokenizer, texts, tokens).to(device) if texts else ids
        directions = _unit_noise(base.model, sample)
        unit = _unit_noise(base.model, ids.repeat_interleave(draws))
    xy, kept, plane = _plane(matrix[ids])
    return NoiseMap(
        words=tuple(words),
        xy=tuple(map(tuple, xy.tolist())),
        kept=kept,
        distances=torch.cdist(matrix[ids], matrix[ids]).tolist(),
        neighbours=_neighbours(base.tokenizer, matrix, ids),
        shadows=(unit @ plane).unflatten(0, (len(ids), draws)).tolist(),
        critical=critical_magnitudes(matrix, sample, directions).sort().values.tolist(),
        hidden=matrix.shape[1],
        vocab=len(base.tokenizer),
        mean_l2=matrix[sample].norm(dim=1).mean().item(),
        source=f"{len(sample)} tokens of the texts" if texts else "the words on the map",
    )


def _word_ids(tokenizer: Any, words: Sequence[str]) -> list[int]:
    if len(words) < 3 or len(set(words)) < len(words):
        raise DataError(f"a map needs at least 3 different words, not {list(words)}")
    ids = []
    for word in words:
        pieces = tokenizer(word, add_special_tokens=False)["input_ids"]
        if len(pieces) != 1:
            shown = [tokenizer.decode([piece]) for piece in pieces]
            raise DataError(
                f"the word {word!r} is {len(pieces)} tokens for this tokenizer: {shown}. Choose "
                "words of one token; most have a leading space"
            )
        ids.append(pieces[0])
    return ids


def _sample(tokenizer: Any, texts: Sequence[str], count: int) -> Tensor:
    """Return token ids drawn from `texts`, without repetition of places, ``(tokens,)``."""
    rows = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    ids = torch.tensor([token for row in rows for token in row], dtype=torch.long)
    if not len(ids):
        raise DataError("the texts hold no token to sample")
    return ids[torch.randperm(len(ids))[:count]]


def _unit_noise(model: Any, ids: Tensor) -> Tensor:
    """Return the hook's noise for each of ``(tokens,)`` at m = 1, ``(tokens, hidden)``."""
    hidden = model.get_input_embeddings().weight.shape[1]
    rows = [hook_noise(model, row[None], sqrt(len(row) * hidden))[0] for row in ids.split(_ROW)]
    return torch.cat(rows)


def _plane(vectors: Tensor) -> tuple[Tensor, float, Tensor]:
    """Return places on the plane of the two main directions, its share, and the directions."""
    centred = vectors - vectors.mean(0)
    _, sizes, right = torch.linalg.svd(centred, full_matrices=False)
    plane = right[:2].T  # (hidden, 2)
    signs = plane.gather(0, plane.abs().argmax(0, keepdim=True)).sign()  # the same on all machines
    plane = plane * signs
    share = sizes[:2].square().sum() / sizes.square().sum()
    return centred @ plane, share.item(), plane


def _neighbours(tokenizer: Any, matrix: Tensor, ids: Tensor) -> list[tuple[str, float]]:
    """Return the nearest other token of each word; rows that no token uses do not count."""
    distances = torch.cdist(matrix[ids], matrix[: len(tokenizer)])  # (words, vocab)
    distances.scatter_(1, ids[:, None], torch.inf)
    near = distances.min(1)
    texts = [tokenizer.decode([index]) for index in near.indices.tolist()]
    return list(zip(texts, near.values.tolist(), strict=True))


def _check_alpha(alpha: float) -> None:
    if not (alpha >= 0 and isfinite(alpha)):
        raise ValueError(f"α is {alpha}; it must be finite and at least 0")
