"""The command line: tour the notebooks, open them, fetch what they need."""

from ftkit.cli.main import main

__all__ = ["main"]
