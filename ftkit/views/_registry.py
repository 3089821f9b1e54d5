"""One entry for drawing anything: `to_html(record)`; each view registers the type it draws."""

from functools import singledispatch


@singledispatch
def to_html(record: object) -> str:
    """Return self-contained HTML of `record`.

    Raises:
        TypeError: no view draws this type.
    """
    raise TypeError(f"ftkit has no view for {type(record).__name__}")
