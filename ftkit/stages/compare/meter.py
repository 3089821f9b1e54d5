"""What a run has cost: tokens, seconds, and the highest memory while the clock ran."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Self

import psutil
import torch

from ftkit.models.memory import give_back

_EVERY = 0.01
"""Seconds between two looks at the resident size."""


class Meter:
    """A stop-watch that also counts tokens and watches memory; use it in a ``with`` block.

    Attributes:
        tokens: Completion tokens sampled so far; whoever samples adds to it.
    """

    def __init__(self, device: torch.device) -> None:
        """Prepare for a run on `device`; the clock stands still until the block begins."""
        self.tokens = 0
        self._device = device
        self._seconds = 0.0
        self._since: float | None = None
        self._peak = 0
        self._watch: _Resident | None = None

    def __enter__(self) -> Self:
        if self._device.type != "cuda":
            self._watch = _Resident()
            self._watch.start()
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        if self._watch is not None:
            self._watch.end()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count neither time nor memory in the block."""
        self._stop()
        try:
            yield
        finally:
            self._start()

    @property
    def seconds(self) -> float:
        """Time so far, pauses excluded."""
        running = 0.0 if self._since is None else perf_counter() - self._since
        return self._seconds + running

    @property
    def memory_mb(self) -> float:
        """Highest memory so far, pauses excluded, in MB (1e6 bytes)."""
        return max(self._peak, self._now()) / 1e6

    def _start(self) -> None:
        if self._watch is None:
            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            give_back()  # or what an evaluation has freed would count
            self._watch.begin()
        self._since = perf_counter()

    def _stop(self) -> None:
        if self._watch is None:
            torch.cuda.synchronize(self._device)
        self._seconds, self._since = self.seconds, None
        self._peak = max(self._peak, self._now())
        if self._watch is not None:
            self._watch.pause()

    def _now(self) -> int:
        if self._watch is not None:
            return self._watch.peak
        return torch.cuda.max_memory_allocated(self._device)


class _Resident(threading.Thread):
    """Keeps the largest resident size of this process since `begin`.

    The system's own high-water mark would hold the evaluation and the loading of the model, too.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._process = psutil.Process()
        self._on, self._over = threading.Event(), threading.Event()

    def run(self) -> None:
        while not self._over.wait(_EVERY):
            if self._on.is_set():
                self._look()

    def begin(self) -> None:
        self.peak = 0
        self._look()
        self._on.set()

    def pause(self) -> None:
        self._on.clear()

    def end(self) -> None:
        self._over.set()
        self.join()

    def _look(self) -> None:
        self.peak = max(self.peak, self._process.memory_info().rss)
