"""The errors ftkit raises on purpose.

Every message says what is wrong, where (row, message, token, argument, file) and what to do.
Built-in bases let callers catch them as they would expect (`ValueError`, `OSError`, …).
"""


class FtkitError(Exception):
    """Base of every error that ftkit raises on purpose."""


class ChatError(FtkitError, ValueError):
    """A conversation or a chat template that cannot be rendered or masked."""


class SourceError(FtkitError, OSError):
    """Files that cannot be fetched, verified or stored."""


class ModelSourceError(SourceError):
    """Weights that cannot be found, fetched, verified or stored."""


class DataError(FtkitError, ValueError):
    """A dataset that a stage cannot train on."""


class SettingsError(FtkitError, ValueError):
    """An unknown profile, display mode or option."""


class RecordError(FtkitError, ValueError):
    """A saved record that is damaged, or of a format that this ftkit does not know."""
