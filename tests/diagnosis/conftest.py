"""The template families are stated beside the chat tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "chat"))
