"""Files that are either whole or not there."""

import os
from pathlib import Path


def write(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8 so that no reader ever sees half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
