"""Checks of numbers that every recipe has: counts, rates and weights, named in the error."""

from typing import Any


def at_least_one(recipe: Any, *names: str) -> None:
    """Refuse a field below 1.

    Raises:
        ValueError: names the recipe, the field and its value.
    """
    for name in names:
        if getattr(recipe, name) < 1:
            raise _error(recipe, name, "must be at least 1")


def not_negative(recipe: Any, *names: str) -> None:
    """Refuse a field below 0, or NaN.

    Raises:
        ValueError: names the recipe, the field and its value.
    """
    for name in names:
        if not getattr(recipe, name) >= 0:
            raise _error(recipe, name, "must not be negative")


def positive(recipe: Any, *names: str) -> None:
    """Refuse a field that is 0, below, or NaN.

    Raises:
        ValueError: names the recipe, the field and its value.
    """
    for name in names:
        if not getattr(recipe, name) > 0:
            raise _error(recipe, name, "must be positive")


def _error(recipe: Any, name: str, rule: str) -> ValueError:
    return ValueError(f"{type(recipe).__name__}: {name}={getattr(recipe, name)} {rule}")
