"""Batches of answers of unequal length for the tests of `ftkit.algos`, and ways to pad them."""

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from torch import Tensor


@dataclass(frozen=True)
class Ragged:
    """Float64 tensors ``(batch, time)`` under a mask that may have gaps anywhere."""

    mask: Tensor
    tensors: tuple[Tensor, ...]


@st.composite
def ragged(draw: st.DrawFn, count: int, size: float = 3.0) -> Ragged:
    """Draw `count` tensors with entries in [-size, size] and a mask with a real token a row."""
    batch, time = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    mask = draw(npst.arrays(np.bool_, (batch, time)))
    mask[
        np.arange(batch), draw(npst.arrays(np.int64, batch, elements=st.integers(0, time - 1)))
    ] = True
    numbers = st.floats(-size, size, width=32)
    arrays = [draw(npst.arrays(np.float64, (batch, time), elements=numbers)) for _ in range(count)]
    return Ragged(torch.from_numpy(mask), tuple(torch.from_numpy(array) for array in arrays))


def pad(tensor: Tensor, left: int, right: int, rows: int, fill: float | bool) -> Tensor:
    """Surround ``(batch, time, …)`` with `left` and `right` columns and `rows` rows of `fill`."""
    batch, time, *rest = tensor.shape
    padded = torch.full((batch + rows, left + time + right, *rest), fill, dtype=tensor.dtype)
    padded[:batch, left : left + time] = tensor
    return padded


def fill_padding(tensor: Tensor, mask: Tensor, fill: float) -> Tensor:
    """Return `tensor` with `fill` wherever `mask` is false."""
    return torch.where(mask, tensor, fill)


def real_rows(tensor: Tensor, mask: Tensor) -> list[list[float]]:
    """Return each row's real values as a list, for brute force in plain Python."""
    return [row[real].tolist() for row, real in zip(tensor, mask, strict=True)]
