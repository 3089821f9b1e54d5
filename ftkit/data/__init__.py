"""Named datasets with source and licence, in the standard formats; nothing here tokenizes."""

from ftkit.data.chatterbot import HELP_DESK, chatterbot, split_by_question, topics
from ftkit.data.chitchat import chitchat
from ftkit.data.preferences import preferences, require_preferences, split_by_prompt
from ftkit.data.sentiment import sentiment, sentiment_pairs, sentiment_prompts

__all__ = [
    "HELP_DESK",
    "chatterbot",
    "chitchat",
    "preferences",
    "require_preferences",
    "sentiment",
    "sentiment_pairs",
    "sentiment_prompts",
    "split_by_prompt",
    "split_by_question",
    "topics",
]
