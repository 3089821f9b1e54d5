"""What an annotated conversation is: tokens that know where they come from and whether they train.

Plain data; `render`, `masks` and `batch` fill it, `views` draws it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ftkit.findings import Finding
from ftkit.showing import Showable

if TYPE_CHECKING:
    import pandas as pd

IGNORE_INDEX = -100
"""The label that PyTorch's and TRL's cross entropy leave out of the mean."""

MaskName = Literal["full", "completion", "assistant", "last_assistant", "trainer"]
Part = Literal["template", "header", "content", "stop", "after", "generation_prompt", "pad"]


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a rendered conversation.

    Attributes:
        index: Position in the sequence, from 0.
        id: Vocabulary id.
        text: The characters of the rendered text that this token owns: ``chat.text[start:end]``.
            Empty for the 2nd, 3rd, … token of a character that takes several tokens.
        span: ``(start, end)`` in characters of the rendered text. Spans are adjacent, so the
            texts of all tokens, concatenated, give back the rendered text.
        role: Role of the message this token belongs to; None for text of the template alone.
        turn: Index of that message in the conversation; None for text of the template alone.
        part: What the token is in its turn: ``header`` (role marker), ``content``, ``stop`` (the
            end-of-turn token), ``after`` (what the template puts behind the stop token),
            ``generation_prompt`` (an open assistant header at the end), ``template`` (belongs to
            no turn, e.g. BOS) or ``pad``.
        special: Whether the tokenizer lists the token as special.
        label: The id to be predicted, or -100 when the position carries no loss.
        reason: Why it is or is not trained, in a few words.
        piece: ``(k, n)`` when one character is spread over n tokens and this is the k-th.
        cut: True when truncation removes the token, so that the trainer never sees it.
        logprob: log p(token | tokens before it) in nats under a model, when one was given.
    """

    index: int
    id: int
    text: str
    span: tuple[int, int]
    role: str | None
    turn: int | None
    part: Part
    special: bool
    label: int
    reason: str
    piece: tuple[int, int] | None = None
    cut: bool = False
    logprob: float | None = None

    @property
    def trained(self) -> bool:
        """Whether this token carries loss."""
        return self.label != IGNORE_INDEX

    @property
    def loss(self) -> float | None:
        """Cross entropy of this token in nats, whether or not it is trained; None without model."""
        return None if self.logprob is None else -self.logprob


@dataclass(frozen=True)
class AnnotatedTokens(Showable):
    """A conversation as the trainer sees it, with each token's role, label and reason.

    Attributes:
        text: The rendered conversation.
        tokens: Every token in order, those cut by `max_length` included (``cut=True``).
        mask: Name of the mask strategy that set the labels; ``"trainer"`` when a trainer set them.
        template: Name of the chat template, for display.
        findings: What the checks noticed, good and bad.
        max_length: Truncation limit in tokens; None when nothing was cut.
    """

    text: str
    tokens: tuple[Token, ...]
    mask: MaskName
    template: str = "own"
    findings: tuple[Finding, ...] = ()
    max_length: int | None = None

    @property
    def kept(self) -> tuple[Token, ...]:
        """The tokens that the trainer sees: all but the cut ones."""
        return tuple(t for t in self.tokens if not t.cut)

    @property
    def input_ids(self) -> list[int]:
        """Ids of the kept tokens."""
        return [t.id for t in self.kept]

    @property
    def labels(self) -> list[int]:
        """Labels of the kept tokens, not shifted (the model shifts by one inside)."""
        return [t.label for t in self.kept]

    @property
    def trained(self) -> tuple[Token, ...]:
        """The tokens that carry loss."""
        return tuple(t for t in self.kept if t.trained)

    def loss(self, *, over: Literal["trained", "all"] = "trained") -> float | None:
        """Mean cross entropy in nats over trained or all kept tokens; None without logprobs.

        The first token has no prefix and so no loss, as in the model's own shift by one.
        """
        chosen = self.trained if over == "trained" else self.kept
        losses = [t.loss for t in chosen if t.loss is not None]
        return sum(losses) / len(losses) if losses else None

    def turns(self) -> list[dict[str, Any]]:
        """One row a turn: ``turn``, ``role``, ``tokens``, ``trained``, ``cut``."""
        rows: dict[int, dict[str, Any]] = {}
        for t in self.tokens:
            if t.turn is None:
                continue
            row = rows.setdefault(
                t.turn, {"turn": t.turn, "role": t.role, "tokens": 0, "trained": 0, "cut": 0}
            )
            row["tokens"] += 1
            row["trained"] += t.trained
            row["cut"] += t.cut
        return [rows[k] for k in sorted(rows)]

    def with_logprobs(self, logprobs: Sequence[float | None]) -> "AnnotatedTokens":
        """Return a copy whose kept tokens carry `logprobs` (one a kept token, None for the first).

        Raises:
            ValueError: the lengths differ.
        """
        if len(logprobs) != len(self.kept):
            raise ValueError(f"{len(logprobs)} logprobs for {len(self.kept)} kept tokens")
        values = iter(logprobs)
        tokens = tuple(t if t.cut else replace(t, logprob=next(values)) for t in self.tokens)
        return replace(self, tokens=tokens)

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a token: the text twin of the strip."""
        import pandas as pd

        columns = "index id text span role turn part special label trained reason piece cut"
        names = [*columns.split(), "logprob", "loss"]
        return pd.DataFrame([{n: getattr(t, n) for n in names} for t in self.tokens], columns=names)

    def __str__(self) -> str:
        lines = [
            f"{len(self.trained)}/{len(self.kept)} tokens trained, mask={self.mask!r}, "
            f"template={self.template!r}"
        ]
        lines += [
            f"  turn {r['turn']} {r['role']}: {r['trained']}/{r['tokens']} trained"
            + (f", {r['cut']} cut" if r["cut"] else "")
            for r in self.turns()
        ]
        return "\n".join(lines + [f"  {f}" for f in self.findings if f.severity != "ok"])


@dataclass(frozen=True)
class AnnotatedBatch(Showable):
    """Rows of one collated batch, as a trainer feeds them to the model.

    Attributes:
        rows: One `AnnotatedTokens` a row; padding is included with ``part="pad"``.
        findings: What the checks noticed about the dataset and the batch as a whole.
    """

    rows: tuple[AnnotatedTokens, ...]
    findings: tuple[Finding, ...] = ()

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a token, with the batch row in column ``row``."""
        import pandas as pd

        frames = [row.to_pandas().assign(row=i) for i, row in enumerate(self.rows)]
        return pd.concat(frames, ignore_index=True)

    def __str__(self) -> str:
        parts = [f"row {i}: {row}" for i, row in enumerate(self.rows)]
        return "\n".join(parts + [f"{f}" for f in self.findings if f.severity != "ok"])
