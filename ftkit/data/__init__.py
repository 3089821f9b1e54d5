"""Named datasets with source and licence, in the standard formats; nothing here tokenizes."""

from typing import TYPE_CHECKING

from ftkit.late import late

_HOMES = {
    "HELP_DESK": "chatterbot",
    "arithmetic": "arithmetic",
    "chatterbot": "chatterbot",
    "chitchat": "chitchat",
    "preferences": "preferences",
    "prose": "prose",
    "quiz": "quiz",
    "require_preferences": "preferences",
    "right_answer": "arithmetic",
    "sentiment": "sentiment",
    "sentiment_pairs": "sentiment",
    "sentiment_prompts": "sentiment",
    "shakespeare": "shakespeare",
    "solution": "arithmetic",
    "split_by_prompt": "preferences",
    "split_by_question": "chatterbot",
    "topics": "chatterbot",
}

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

if TYPE_CHECKING:
    from ftkit.data.arithmetic import arithmetic, right_answer, solution
    from ftkit.data.chatterbot import HELP_DESK, chatterbot, split_by_question, topics
    from ftkit.data.chitchat import chitchat
    from ftkit.data.preferences import preferences, require_preferences, split_by_prompt
    from ftkit.data.prose import prose
    from ftkit.data.quiz import quiz
    from ftkit.data.sentiment import sentiment, sentiment_pairs, sentiment_prompts
    from ftkit.data.shakespeare import shakespeare

late(__name__, _HOMES)
