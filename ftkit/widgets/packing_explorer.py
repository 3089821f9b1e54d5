"""`PackingExplorer`: move the block size over your own documents and see what it costs.

`ftkit.algos.cut` packs anew at every move, the function that `ftkit.stages.pretrain` uses, and the
kernel draws with the view of the static page. Left out: other ways to pack.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import traitlets as t

from ftkit.records import CrossingEffect, Packing, PackingPoint
from ftkit.views.packing import TITLE, PackingView, packing_body, packing_html
from ftkit.views.style import rules
from ftkit.widgets.viewer import Viewer, script

if TYPE_CHECKING:
    import pandas as pd

_SIZES = tuple(size for power in range(3, 13) for size in (2**power, 3 * 2 ** (power - 1)))


class PackingExplorer(Viewer):
    """A corpus in blocks of movable size.

    Assigning to an attribute redraws; the controls in the browser set the same attributes.

    Attributes:
        block_size: Tokens a block, any number from 2 to the length of the corpus.
        block: Index of the block whose text is shown.
    """

    _esm = script("packing_explorer")
    _css = rules("packing")

    block_size = t.Int(128).tag(sync=True)
    block = t.Int(0, min=0).tag(sync=True)

    _sizes = t.List(t.Int()).tag(sync=True)
    _blocks = t.Int(1).tag(sync=True)
    _title = t.Unicode(TITLE).tag(sync=True)
    _html = t.Unicode("").tag(sync=True)

    def __init__(
        self,
        documents: Sequence[Sequence[int]],
        *,
        tokenizer: Any = None,
        block_size: int = 128,
        block: int = 0,
        effects: Sequence[CrossingEffect] = (),
    ) -> None:
        """Open the explorer.

        Args:
            documents: Token ids of each document, e.g. ``stages.tokenize(tokenizer, texts)``.
            tokenizer: Shows the text of a block; None shows none.
            block_size: See the class.
            block: See the class.
            effects: What `ftkit.stages.crossing_effect` measured, one for each block size.

        Raises:
            TypeError: the documents are texts.
            ValueError: no token at all, or as `ftkit.algos.cut`.
        """
        from ftkit.algos import concatenate  # loads torch

        if any(isinstance(document, str) for document in documents):
            raise TypeError(
                "the documents are texts: give token ids, ftkit.stages.tokenize(tokenizer, texts)"
            )
        self._stream = concatenate(documents)
        self._documents = len(documents)
        self._tokenizer = tokenizer
        self._effects = tuple(effects)
        self._sweep = self._all_sizes()
        self.packing = self._pack(block_size)
        super().__init__(
            block_size=block_size, block=block, _sizes=[point.block_size for point in self._sweep]
        )
        self._draw()
        self.observe(self._draw, names=["block_size", "block"])

    def to_html(self) -> str:
        """Return the picture as self-contained HTML without controls."""
        return packing_html(self.packing, self._view())

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a block size: blocks, dropped tokens, and what sees other documents."""
        import pandas as pd

        sizes = sorted({*(point.block_size for point in self._sweep), self.block_size})
        return pd.DataFrame([_row(self._pack(size)) for size in sizes])

    def __str__(self) -> str:
        packing = self.packing
        return (
            f"{packing.documents} documents, {packing.tokens:,} tokens in {packing.blocks:,} "
            f"blocks of {packing.block_size}: {packing.crossing_share:.1%} of the predictions see "
            f"another document, {packing.dropped} tokens dropped"
        )

    @t.validate("block_size")
    def _packable(self, proposal: Any) -> int:
        self.packing = self._pack(proposal["value"])
        return int(proposal["value"])

    @t.validate("block")
    def _there(self, proposal: Any) -> int:
        return min(int(proposal["value"]), self.packing.blocks - 1)

    def _all_sizes(self) -> tuple[PackingPoint, ...]:
        tokens = len(self._stream.input_ids)
        packings = [self._pack(size) for size in _SIZES if size <= tokens]
        return tuple(
            PackingPoint(p.block_size, p.crossing_share, p.dropped / p.tokens) for p in packings
        )

    def _pack(self, block_size: int) -> Packing:
        from ftkit.algos import cut, sees_other_document

        packed = cut(self._stream, block_size)
        return Packing(
            input_ids=packed.input_ids.numpy(),
            document_ids=packed.document_ids.numpy(),
            crossing=sees_other_document(packed.document_ids).numpy(),
            dropped=packed.dropped,
            documents=self._documents,
        )

    def _view(self) -> PackingView:
        return PackingView(self.block, self._texts(), self._sweep, self._effects)

    def _texts(self) -> list[str]:
        if self._tokenizer is None:
            return []
        ids = self.packing.input_ids[self.block]
        runs = self.packing.segments(self.block)
        return [self._tokenizer.decode(ids[run.start : run.stop].tolist()) for run in runs]

    def _draw(self, *_: Any) -> None:
        self.block = min(self.block, self.packing.blocks - 1)
        self._blocks = self.packing.blocks
        self._html = packing_body(self.packing, self._view())


def _row(packing: Packing) -> dict[str, float]:
    return {
        "block_size": packing.block_size,
        "blocks": packing.blocks,
        "dropped": packing.dropped,
        "crossing_share": packing.crossing_share,
        "documents_per_block": packing.documents_per_block,
    }
