"""What is seen of an ablation while it runs: a live table in a notebook, lines elsewhere."""

from collections.abc import Callable
from time import monotonic
from typing import Any

from ftkit.records.ablation_progress import AblationProgress
from ftkit.showing import in_kernel

_EVERY = 1.0  # seconds between two pictures, unless something happened
_SHARE = 10  # drawing may take one part in so many of the time


class Screen:
    """Shows the progress: in place in a notebook; a line for each trial that ends elsewhere."""

    def __init__(self, wanted: bool) -> None:
        """Show nothing unless `wanted`."""
        self._wanted = wanted
        self._notebook = wanted and in_kernel()
        self._handle: Any = None
        self._next = float("-inf")

    def show(self, progress: Callable[[], AblationProgress], *, line: bool, now: bool) -> None:
        """Draw or print, if it is time.

        Args:
            progress: Makes what to show.
            line: Whether it is worth a line where there is no notebook.
            now: Draw even if the last picture is not old.
        """
        if self._notebook:
            if now or monotonic() >= self._next:
                self._draw(progress())
        elif self._wanted and line:
            print(progress(), flush=True)

    def _draw(self, progress: AblationProgress) -> None:
        from IPython.display import display

        began = monotonic()
        bundle = progress._repr_mimebundle_()
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)
        ended = monotonic()
        self._next = ended + max(_EVERY, _SHARE * (ended - began))
