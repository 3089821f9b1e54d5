"""Print the shell command that README.md marks with `<!-- NAME -->`.

The mark stands on a line of its own, with only blank lines between it and a fenced code block; the
block's lines are the command. Usage: ``python3 .ci/readme_command.py NAME [README]``.
"""

import re
import sys
from pathlib import Path


def command(readme: str, name: str) -> str:
    """Return the fenced block of `readme` that follows the mark `name`.

    Raises:
        ValueError: the mark, or the block behind it, is missing, empty or there twice.
    """
    mark = rf"^<!-- {re.escape(name)} -->[ \t]*\n(?:[ \t]*\n)*"
    fence = r"(?P<fence>`{3,})(?:bash|sh|shell|console)?[ \t]*\n(?P<body>.*?)^(?P=fence)[ \t]*$"
    found = list(re.finditer(mark + fence, readme, re.MULTILINE | re.DOTALL))
    if len(found) != 1 or not found[0]["body"].strip():
        raise ValueError(
            f"README.md needs exactly one '<!-- {name} -->' line right before a fenced code block "
            f"with a command; found {len(found)}"
        )
    return found[0]["body"].strip()


def main() -> None:
    """Print the command, or say what is missing and exit 1."""
    path = Path(sys.argv[2] if len(sys.argv) > 2 else "README.md")
    try:
        print(command(path.read_text(encoding="utf-8"), sys.argv[1]))
    except (OSError, ValueError) as error:
        sys.exit(f"{path}: {error}")


if __name__ == "__main__":
    main()
