"""Names by which a function is known again, in storages and messages."""

from collections.abc import Callable
from typing import Any


def name_of(run: Callable[..., Any] | object) -> str:
    """Return the qualified name of a function, of a partial's function, or of an object's class."""
    inner: Any = run
    while hasattr(inner, "func"):
        inner = inner.func
    named = inner if hasattr(inner, "__qualname__") else type(inner)
    return f"{named.__module__}.{named.__qualname__}"
