"""Checks that every function of `ftkit.algos` makes of its input, and how it treats padding.

A wrong shape broadcasts silently and one NaN spreads over a whole batch, so both are refused
here, by name and place. Values at padding may be anything, NaN included: they are never read.
"""

import math

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Return `values` in float32, or float64 if they are that: halves are too coarse to sum."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def keep_real(values: Tensor, mask: Tensor) -> Tensor:
    """Return `values` in at least float32 with 0 at padding, where no gradient flows either."""
    return torch.where(mask, at_least_float32(values), 0.0)


def check_tokens(function: str, mask: Tensor, **tensors: Tensor) -> None:
    """Refuse `tensors` that do not fit `mask` or are not finite where it is true.

    Args:
        function: Name of the caller, for the message.
        mask: Bool, true where a value is real; any shape.
        **tensors: Each of the shape of `mask`, under the name that the message uses.

    Raises:
        ValueError: a mask that is not bool or selects nothing, a shape that differs from the
            mask's, or a real value that is NaN or infinite (named with its row and token).
    """
    if mask.dtype != torch.bool:
        raise ValueError(
            f"{function}: the mask must be bool, not {mask.dtype}; pass mask.bool() "
            "(numbers would be read as indices)"
        )
    for name, tensor in tensors.items():
        if tensor.shape != mask.shape:
            raise ValueError(
                f"{function}: {name} has shape {tuple(tensor.shape)} but the mask has "
                f"{tuple(mask.shape)}; both need the same"
            )
    if not mask.any():
        raise ValueError(f"{function}: the mask selects no value, so there is nothing to compute")
    for name, tensor in tensors.items():
        _check_finite(function, name, tensor, mask)


def check_sequences(function: str, mask: Tensor, **tensors: Tensor) -> None:
    """As `check_tokens`, and `mask` must be ``(batch, time)``.

    Raises:
        ValueError: as `check_tokens`, or a mask without exactly two axes.
    """
    if mask.ndim != 2:
        raise ValueError(
            f"{function}: the mask has shape {tuple(mask.shape)}; it must be (batch, time)"
        )
    check_tokens(function, mask, **tensors)


def check_vector(function: str, **tensors: Tensor) -> None:
    """Refuse tensors that are not all finite and of one shape ``(batch,)``.

    Raises:
        ValueError: more or fewer axes than one, shapes that differ, no entry, or an entry that is
            NaN or infinite (named with its row).
    """
    first = next(iter(tensors.values()))
    if first.ndim != 1:
        name = next(iter(tensors))
        raise ValueError(f"{function}: {name} has shape {tuple(first.shape)}; it must be (batch,)")
    check_tokens(function, torch.ones_like(first, dtype=torch.bool), **tensors)


def check_fraction(function: str, **numbers: float) -> None:
    """Refuse a number outside [0, 1].

    Raises:
        ValueError: with the number's name.
    """
    for name, number in numbers.items():
        if not 0.0 <= number <= 1.0:
            raise ValueError(f"{function}: {name} is {number}; it must lie between 0 and 1")


def check_positive(function: str, **numbers: float) -> None:
    """Refuse a number that is not above 0 and finite.

    Raises:
        ValueError: with the number's name.
    """
    for name, number in numbers.items():
        if not (number > 0.0 and math.isfinite(number)):
            raise ValueError(f"{function}: {name} is {number}; it must be a finite number above 0")


def check_not_negative(function: str, **numbers: float) -> None:
    """Refuse a number that is below 0 or not finite.

    Raises:
        ValueError: with the number's name.
    """
    for name, number in numbers.items():
        if not (number >= 0.0 and math.isfinite(number)):
            raise ValueError(f"{function}: {name} is {number}; it must be finite and not below 0")


def _check_finite(function: str, name: str, tensor: Tensor, mask: Tensor) -> None:
    bad = mask & ~torch.isfinite(tensor)
    if bad.any():
        place = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"{function}: {name} is {tensor[place].item()} at {_describe(place)} "
            f"({int(bad.sum())} of {int(mask.sum())} values are not finite); "
            "find where it first appears before computing on"
        )


def _describe(place: tuple[int, ...]) -> str:
    names = ("row", "token") if len(place) <= 2 else tuple(f"axis {i}" for i in range(len(place)))
    return ", ".join(f"{name} {index}" for name, index in zip(names, place, strict=False))
