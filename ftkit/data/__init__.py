"""Named datasets with source and licence, in the standard formats; nothing here tokenizes."""

from ftkit.data.arithmetic import arithmetic, right_answer, solution
from ftkit.data.chatterbot import HELP_DESK, chatterbot, split_by_question, topics
from ftkit.data.chitchat import chitchat
from ftkit.data.preferences import preferences, require_preferences, split_by_prompt
from ftkit.data.prose import prose
from ftkit.data.quiz import quiz
from ftkit.data.sentiment import sentiment, sentiment_pairs, sentiment_prompts
from ftkit.data.shakespeare import shakespeare

__all__ = [
    "HELP_DESK",
    "arithmetic",
    "chatterbot",
    "chitchat",
    "preferences",
    "prose",
    "quiz",
    "require_preferences",
    "right_answer",
    "sentiment",
    "sentiment_pairs",
    "sentiment_prompts",
    "shakespeare",
    "solution",
    "split_by_prompt",
    "split_by_question",
    "topics",
]
