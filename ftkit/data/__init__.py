"""Named datasets with source and licence, in the standard formats; nothing here tokenizes."""

from ftkit.data.chatterbot import HELP_DESK, chatterbot, split_by_question, topics

__all__ = ["HELP_DESK", "chatterbot", "split_by_question", "topics"]
