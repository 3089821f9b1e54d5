"""Where the responses lie in a padded batch, and how numbers of their tokens are laid out."""

import torch
from torch import Tensor

from ftkit.models.heads import last_real


def real_tokens(ids: Tensor, mask: Tensor) -> Tensor:
    """Return `mask` as bool ``(batch, time)``, after checking that it fits `ids`.

    Raises:
        ValueError: shapes that differ, no row, or no column.
    """
    if ids.ndim != 2 or ids.shape != mask.shape or not ids.numel():
        raise ValueError(
            f"token ids have shape {tuple(ids.shape)} and their mask {tuple(mask.shape)}; both "
            "must be the same (batch, time), and not empty"
        )
    return mask.bool()


def response_columns(mask: Tensor, start: int | Tensor) -> tuple[Tensor, Tensor]:
    """Return the column of each response token, and which of them are real.

    Args:
        mask: Bool ``(batch, time)``, true at real tokens.
        start: Column of the first response token, for all rows or ``(batch,)``.

    Returns:
        Columns ``(batch, response)`` and bool ``(batch, response)``; a column is meaningless
        where the second is false.

    Raises:
        ValueError: a `start` outside 1 … time − 1, a response token behind padding, or no
            response token at all.
    """
    batch, time = mask.shape
    starts = torch.as_tensor(start, device=mask.device).expand(batch)
    if starts.min() < 1 or starts.max() >= time:
        raise ValueError(
            f"response_start is {int(starts.min())} to {int(starts.max())}; it must lie in "
            f"1 … {time - 1}, since a response needs a token before it"
        )
    width = time - int(starts.min())
    columns = starts[:, None] + torch.arange(width, device=mask.device)
    inside, columns = columns < time, columns.clamp(max=time - 1)
    real = inside & mask.gather(1, columns)
    orphans = real & ~mask.gather(1, columns - 1)
    if orphans.any():
        row, token = orphans.nonzero()[0].tolist()
        raise ValueError(
            f"row {row}: response token {token} follows padding, so nothing predicts it; pad "
            "prompts on the left, or pass each row's own response_start"
        )
    if not real.any():
        raise ValueError("no row has a response token")
    return columns, real


def predicting(mask: Tensor, real: Tensor) -> Tensor:
    """Return `mask` without the last token of each response, since it predicts none of them.

    Args:
        mask: Bool ``(batch, time)``, true at real tokens.
        real: Bool ``(batch, response)``, as `response_columns` returns it.

    Returns:
        Bool ``(batch, up to time)``; columns behind all tokens are cut off.
    """
    needed = mask.clone()
    rows = real.any(1)
    needed[rows, last_real(mask[rows])] = False
    return needed[:, : int(needed.any(0).nonzero().max()) + 1]


def spread(values: Tensor | None, real: Tensor) -> Tensor | None:
    """Lay ``(tokens,)`` values out as ``(batch, response)`` in reading order, 0 at padding."""
    if values is None:
        return None
    return values.new_zeros(real.shape).masked_scatter(real, values)
