"""When a run is looked at, and when it ends: a callback that PPO and TRL's trainers call alike."""

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl

from ftkit.stages.compare.meter import Meter
from ftkit.stages.compare.recipe import CompareRecipe


class Pacer(TrainerCallback):
    """Calls `look` on the way and at the last step within each budget, then ends the run.

    Attributes:
        steps: Optimizer steps, of PPO rounds, done so far.
    """

    def __init__(
        self, meter: Meter, look: Callable[[], None], recipe: CompareRecipe, step_tokens: int
    ) -> None:
        """Watch a run.

        Args:
            meter: Of the run.
            look: Evaluates the policy; the clock is stopped by the caller.
            recipe: The budgets.
            step_tokens: Most tokens that a step samples; 0 where steps sample none, so that the
                tokens never end the run.
        """
        self.steps = 0
        self._meter, self._look, self._recipe, self._step_tokens = meter, look, recipe, step_tokens
        self._marks = [i / recipe.looks for i in range(1, recipe.looks)]
        self._slowest = self._since = 0.0
        self._full = {"tokens": False, "seconds": False}

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Time the first step from here."""
        self._since = self._meter.seconds

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **_: Any) -> None:
        """Look if it is time, and end the run where nothing more fits."""
        self.steps += 1
        now = self._meter.seconds
        self._slowest = max(self._slowest, now - self._since)
        if self._last_within_a_budget(now) | self._passed_a_mark(now):
            self._look()
        self._since = self._meter.seconds
        if all(self._full.values()) or now > self._recipe.patience * self._recipe.seconds:
            control.should_training_stop = True

    def _last_within_a_budget(self, now: float) -> bool:
        """Whether one more step would leave a budget, for the first time."""
        tokens, recipe = self._meter.tokens, self._recipe
        full = {
            "tokens": bool(self._step_tokens) and tokens + self._step_tokens > recipe.tokens,
            "seconds": now + self._slowest > recipe.seconds,
        }
        new = any(full[name] and not self._full[name] for name in full)
        self._full = {name: full[name] or self._full[name] for name in full}
        return new

    def _passed_a_mark(self, now: float) -> bool:
        recipe, sampling = self._recipe, self._step_tokens > 0
        done = self._meter.tokens / recipe.tokens if sampling else now / recipe.seconds
        passed = [mark for mark in self._marks if mark <= done]
        self._marks = self._marks[len(passed) :]
        return bool(passed)


class PPOPacer(Pacer):
    """The same for `PPOTrainer`, whose log of a round tells how many tokens it sampled."""

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Wait for the log, which comes right after."""

    def on_log(
        self,
        args: Any,
        state: Any,
        control: TrainerControl,
        *,
        logs: dict[str, float],
        **_: Any,
    ) -> None:
        """Count the round's tokens, then go on as after any step."""
        self._meter.tokens += round(logs["objective/length"] * self._recipe.batch_size)
        super().on_step_end(args, state, control)
