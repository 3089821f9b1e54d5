"""ftkit's folder in the user's cache: locked, written atomically, checked when read.

Left out on purpose: eviction. The folder holds one converted model and a few MB of text, and is
safe to delete.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from ftkit.errors import SourceError
from ftkit.fetching.hashing import sha256_file

Progress = Callable[[str, float], None]
"""Hook ``(step, fraction)``: the step's name and how much of it is done, 0 to 1."""

LOCK_TIMEOUT_S = 1800.0
MANIFEST = "ftkit-manifest.json"


def silent(step: str, fraction: float) -> None:
    """Report nothing: the default `Progress`."""


def cache_dir() -> Path:
    """Return the folder of models and texts: ``FTKIT_CACHE``, else the user's cache folder."""
    chosen = os.environ.get("FTKIT_CACHE")
    return Path(chosen or platformdirs.user_cache_dir("ftkit")).expanduser().absolute()


@contextmanager
def exclusive(target: Path) -> Iterator[None]:
    """Hold the lock of `target` across processes; wait for another holder to finish.

    Raises:
        SourceError: another process held the lock for `LOCK_TIMEOUT_S` seconds.
    """
    lock = target.with_name(f"{target.name}.lock")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            held = FileLock(lock).acquire(timeout=LOCK_TIMEOUT_S)
        except Timeout as error:
            raise SourceError(
                f"another process has been preparing {target.name} for over "
                f"{LOCK_TIMEOUT_S / 60:.0f} minutes. Stop it, then try again (lock: {lock})"
            ) from error
    with held:
        yield


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target` that becomes `target` when the block succeeds.

    Hold `exclusive(target)` around it. When the block fails, or the process was killed in an
    earlier run, the half-written folder is removed; `target` is never seen half-written.
    """
    _sweep(target)
    partial = target.with_name(f".partial-{target.name}-{os.getpid()}")
    try:
        with disk_errors(target):
            partial.mkdir()
            yield partial
            write_manifest(partial)
            _sync(partial)
            _swap(partial, target)
    finally:
        _sweep(target)


def _sweep(target: Path) -> None:
    for leftover in target.parent.glob(f".partial-{target.name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _swap(partial: Path, target: Path) -> None:
    if target.exists():
        target.rename(target.with_name(f".partial-{target.name}-old"))
    partial.rename(target)
    sync_one(target.parent)


def _sync(folder: Path) -> None:
    for file in folder.iterdir():
        sync_one(file)
    sync_one(folder)


def sync_one(path: Path) -> None:
    """Have the disk really hold `path`, a file or a folder's listing."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open a folder to sync it
        return
    handle = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def require_space(folder: Path, needed: int) -> None:
    """Check that the disk of `folder` can take `needed` bytes.

    Raises:
        SourceError: it cannot.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise SourceError(
            f"the disk of {folder} has {free / 1e6:.0f} MB free, what is to be stored takes "
            f"{needed / 1e6:.0f} MB. Free some space, or set FTKIT_CACHE to a folder on a "
            "larger disk"
        )


@contextmanager
def disk_errors(target: Path, setting: str = "FTKIT_CACHE") -> Iterator[None]:
    """Turn "no space left" and "may not write" into a `SourceError` that says what to do.

    safetensors reports a full disk as its own exception, so the message decides, not the type.

    Args:
        target: What is being written, for the message.
        setting: The environment variable that moves it to another disk.
    """
    try:
        yield
    except SourceError:
        raise
    except Exception as error:
        code = getattr(error, "errno", None)
        if code in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error):
            problem = "the disk is full"
        elif code in (errno.EACCES, errno.EPERM, errno.EROFS):
            problem = "the folder may not be written"
        else:
            raise
        raise SourceError(
            f"cannot write {target}: {problem}. Nothing half-written was kept. Make room there, "
            f"or set {setting} to a folder that can take it, then try again"
        ) from error


def write_manifest(folder: Path) -> None:
    """Write the size and SHA-256 of every file of `folder` into its manifest."""
    files = {
        file.name: {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
        for file in sorted(folder.iterdir())
    }
    (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")


def verify(folder: Path, *, weights: bool = True) -> dict[str, str]:
    """Check `folder` against its manifest and return each checked file's SHA-256.

    Args:
        folder: A folder that `staged` published.
        weights: Whether to hash the weights too (0.3 s for 540 MB); sizes are always checked.

    Raises:
        SourceError: a file is missing, changed or not listed, or the manifest is unreadable.
    """
    listed = _read_manifest(folder)
    present = {file.name for file in folder.iterdir()} - {MANIFEST}
    if present != set(listed):
        odd = ", ".join(sorted(present ^ set(listed)))
        raise _tampered(folder, f"files are missing or were added: {odd}")
    hashes = {}
    for name, entry in listed.items():
        file = folder / name
        if file.stat().st_size != entry["bytes"]:
            raise _tampered(folder, f"{name} has {file.stat().st_size} bytes, not {entry['bytes']}")
        if weights or file.suffix != ".safetensors":
            hashes[name] = sha256_file(file)
            if hashes[name] != entry["sha256"]:
                raise _tampered(folder, f"the content of {name} changed")
    return hashes


def _read_manifest(folder: Path) -> dict[str, dict]:
    try:
        return dict(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _tampered(folder, f"{MANIFEST} is missing or unreadable") from error


def _tampered(folder: Path, what: str) -> SourceError:
    return SourceError(
        f"the content of {folder} is not what ftkit wrote: {what}. Delete that folder and try again"
    )
