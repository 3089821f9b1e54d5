"""One SHA-256 for a set of weight files."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from ftkit.fetching.hashing import sha256_file

HASH_LIMIT_BYTES = 8_000_000_000
"""Weights above this size are not hashed at every load (about 0.6 s a GB)."""


def weights_sha256(files: Sequence[Path]) -> str:
    """Return one hash for a checkpoint's weight files.

    One file gives its own SHA-256; several give the hash of their sorted ``name:hash`` lines.
    Empty when the files hold more than `HASH_LIMIT_BYTES` and their hashes are not known already.
    """
    known = {file: _blob_name(file) for file in files}
    unknown = [file for file, name in known.items() if name is None]
    if sum(file.stat().st_size for file in unknown) > HASH_LIMIT_BYTES:
        return ""
    hashes = {file.name: known[file] or sha256_file(file) for file in files}
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    lines = "\n".join(f"{name}:{digest}" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _blob_name(file: Path) -> str | None:
    """The hub cache names large blobs by their SHA-256 and links to them."""
    target = file.resolve().name
    return target if file.is_symlink() and re.fullmatch("[0-9a-f]{64}", target) else None
