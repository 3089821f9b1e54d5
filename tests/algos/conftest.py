"""No deadline for Hypothesis: on a busy machine it would fail tests for being slow."""

from hypothesis import settings

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
