"""Keep loading quiet: no progress bars and no repeated remarks between a reader and the card."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr

_REMARKS = {
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",
    "bitsandbytes.autograd._functions": "inputs will be cast from",
}


def hush_bitsandbytes() -> None:
    """Drop two known remarks, one an import and one a layer and step, and nothing else.

    Call before bitsandbytes is imported; safe to repeat.
    """
    for name, remark in _REMARKS.items():
        logger = logging.getLogger(name)
        if not any(isinstance(known, _Without) for known in logger.filters):
            logger.addFilter(_Without(remark))


class _Without(logging.Filter):
    def __init__(self, remark: str) -> None:
        super().__init__()
        self._remark = remark

    def filter(self, record: logging.LogRecord) -> bool:
        return self._remark not in str(record.msg)


@contextmanager
def no_progress_bars(*, raw: bool = False) -> Iterator[None]:
    """Switch transformers' progress bars off inside the block, and back as they were after it.

    Args:
        raw: Also drop what is printed to stderr: transformers' GGUF reader draws a bar of its own
            that no setting switches off. Log messages still come through.
    """
    from transformers.utils import logging as bars

    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        with redirect_stderr(io.StringIO()) if raw else nullcontext():
            yield
    finally:
        if shown:
            bars.enable_progress_bar()
