"""The chat templates that TRL ships, by name: families to try on one's own tokenizer.

TRL keeps each family as ``name.jinja`` and, for many, a ``name_training.jinja`` twin that carries
`{% generation %}` markers. Both are read from the installed TRL; ftkit keeps no copies.
"""

import difflib
import importlib.util
from functools import cache
from pathlib import Path

from ftkit.errors import ChatError

TWIN_SUFFIX = "_training"


@cache
def _folder() -> Path:
    spec = importlib.util.find_spec("trl")
    if spec is None or spec.origin is None:
        raise ChatError(
            "TRL is not installed, so its chat templates cannot be read: pip install trl"
        )
    return Path(spec.origin).parent / "chat_templates"


@cache
def names() -> tuple[str, ...]:
    """Return the names of TRL's plain (not ``_training``) templates, sorted."""
    stems = sorted(path.stem for path in _folder().glob("*.jinja"))
    return tuple(s for s in stems if not s.endswith(TWIN_SUFFIX))


@cache
def get(name: str) -> str:
    """Return the Jinja source of the template `name`, e.g. ``"qwen3"`` or ``"qwen3_training"``.

    Raises:
        ChatError: TRL ships no template of that name.
    """
    path = _folder() / f"{name}.jinja"
    if name not in {p.stem for p in _folder().glob("*.jinja")}:
        close = difflib.get_close_matches(name, names(), n=3) or names()
        raise ChatError(f"no chat template {name!r} in TRL; try one of {', '.join(close)}")
    return path.read_text(encoding="utf-8")


def twin(name: str) -> str | None:
    """Return the Jinja source of TRL's training twin of `name`, None where there is none."""
    path = _folder() / f"{name}{TWIN_SUFFIX}.jinja"
    return path.read_text(encoding="utf-8") if path.is_file() else None


def family_of(template: str) -> str | None:
    """Return the name of TRL's template that equals `template` byte for byte, if any."""
    return next((n for n in names() if get(n) == template), None)
