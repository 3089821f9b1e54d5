"""The loop: rollout → score → advantages → updates, over and over.

Reads like the pseudo-code of PPO for language models; each step is one file beside this one. Left
out on purpose: several processes, a critic of its own, and sampling engines.
"""

import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState

from ftkit.algos import AdaptiveKL, FixedKL, KLController, gae, whiten
from ftkit.chat.render import Messages
from ftkit.errors import DataError, SettingsError
from ftkit.models import Loaded
from ftkit.models.memory import give_back
from ftkit.models.roles import Roles
from ftkit.models.sampler_settings import off_the_softmax
from ftkit.models.unpacking import unpacked
from ftkit.records.ppo_trace import PPOTrace
from ftkit.stages.ppo import checkpoint
from ftkit.stages.ppo.config import PPOConfig
from ftkit.stages.ppo.evaluation import Evaluation, evaluate
from ftkit.stages.ppo.metrics import rollout_metrics, update_metrics
from ftkit.stages.ppo.rollout import collect, encode_prompts
from ftkit.stages.ppo.scoring import RewardMix, named_rewards, numbered, require_text, score
from ftkit.stages.ppo.tracing import Round, trace_config, traced
from ftkit.stages.ppo.update import updates
from ftkit.stages.starting import Start, take_start


class PPOTrainer:
    """PPO on one quantized base, with every intermediate tensor on record.

    Attributes:
        roles: Policy, reference and reward model on one base.
        config: The choices of the run.
        trace: A `PPOTrace`: every tensor of a few completions a round.
        history: What was logged, one dict a round.
        output_dir: Where checkpoints go.
    """

    def __init__(
        self,
        base: Loaded,
        prompts: Sequence[Messages] | Any,
        *,
        reward: RewardMix,
        config: PPOConfig | None = None,
        adapter: Start | None = None,
        roles: Roles | None = None,
        output_dir: str | Path | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        """Prepare a run; `train` starts or resumes it.

        Args:
            base: From `ftkit.load`. An adapter that `ftkit.stages.sft` left on it becomes the
                start of the policy and, frozen, the reference.
            prompts: Conversations that end with the user's turn; or a dataset with the column
                ``prompt`` (conversations) or ``messages`` (their last answer is left out).
            reward: ``(prompts, completions) -> scores``, ``"model"`` for the reward role, or a
                mix ``{"name": (weight, reward), …}``.
            config: See `PPOConfig`.
            adapter: Another start than what `base` carries: a folder that ``save_model`` wrote, a
                `LoraAdapter`, or a trainer.
            roles: Roles already on `base`, e.g. with a reward model; built when None.
            output_dir: For checkpoints; a run that finds one there resumes it. A new temporary
                folder when None.
            callbacks: E.g. ``[ftkit.LiveMetrics()]``.

        Raises:
            DataError: fewer prompts than `config.batch_size`.
            TypeError: a reward of another kind.
            SettingsError: the reward ``"model"`` without a reward role, an `adapter` that cannot
                be read or does not fit, or one beside `roles`, which have their start already.
        """
        self.config = config or PPOConfig()
        self.base = base
        self.prompts = conversations(prompts)
        if len(self.prompts) < self.config.batch_size:
            raise DataError(
                f"{len(self.prompts)} prompts for batch_size={self.config.batch_size}: give more "
                "prompts or a smaller batch"
            )
        self.reward = reward
        _warn_of_unused(base.model.generation_config, self.config.temperature)
        if roles and adapter is not None:
            raise SettingsError(
                "roles have a start of their own: give it to Roles(base, start=…), not as adapter"
            )
        start = None if adapter is None else take_start(base, adapter)
        self.roles = roles or Roles(
            base,
            start=start or "carried",
            lora_r=self.config.lora_r,
            lora_alpha=self.config.lora_alpha,
            seed=self.config.seed,
        )
        self._stir_critic()
        parts = {name: part for name, (_, part) in named_rewards(reward).items()}
        if "model" in parts.values():
            with self.roles.as_reward():
                pass
        self.output_dir = Path(output_dir or tempfile.mkdtemp(prefix="ftkit-ppo-"))
        self.callbacks = list(callbacks)
        self.trace = PPOTrace(trace_config(self.config, base, self.roles, parts))
        self.progress = checkpoint.Progress(0, self.config.kl_coef, [], [])
        device = self.roles.model.device
        self.generators = {
            "sampling": torch.Generator(device).manual_seed(self.config.seed),
            "shuffling": torch.Generator().manual_seed(self.config.seed),
        }
        self.optimizer = self._new_optimizer()
        self.controller: KLController = (
            FixedKL()
            if self.config.kl_target is None
            else AdaptiveKL(target=self.config.kl_target, horizon=self.config.kl_horizon)
        )

    @property
    def history(self) -> list[dict[str, float]]:
        """What was logged, one dict a round."""
        return self.progress.history

    def train(self) -> list[dict[str, float]]:
        """Run the rounds that are left, resuming from a checkpoint in `output_dir`.

        Every call starts from the last checkpoint there, the first one from round 0. So an
        interrupted, failed or killed run goes on to the same numbers as one that was left alone.
        What fails while sampling, in a reward or in a callback loses no round that was done,
        whatever `PPOConfig.checkpoint_every` says. A callback that sets
        ``control.should_training_stop`` ends the run behind its round, with a checkpoint.

        Returns:
            The history.

        Raises:
            RewardError: a reward that raised or returned something unusable; names the row.
            DataError: a prompt that is too long, named by its row before any round; or a round
                whose completions are all empty.
            RecordError: a checkpoint in `output_dir` that is damaged, of another config, or of a
                run that started from another adapter.
            SettingsError: another trainer has taken over the base before this one's first round.
        """
        encode_prompts(self.base.tokenizer, self.prompts, self.config.max_prompt_tokens)
        self._resume()
        events = _Events(self.config, self.callbacks, self.progress.round)
        events.begin()
        try:
            keeping = unpacked(self.roles.model) if self.config.keep_unpacked else nullcontext()
            with keeping, self.roles.counting_padding(self.config.count_padding):
                self._rounds(events)
        finally:
            give_back()
            events.end()
        return self.history

    def _rounds(self, events: "_Events") -> None:
        while self.progress.round < self.config.iterations and not events.stop:
            metrics = self._round()
            self.progress.round += 1
            self.history.append(metrics)
            if self.progress.round % self.config.checkpoint_every == 0:
                self.save()
            with self._nothing_lost():
                events.step(metrics)
        if self.progress.round % self.config.checkpoint_every:
            self.save()

    def evaluate(self, prompts: Sequence[Messages] | Any = None, *, seed: int = 0) -> Evaluation:
        """Return what the policy answers now and what that is worth; nothing is trained.

        The policy is that of the last round done, also of a run whose checkpoints are in
        `output_dir`; before any, the start. Two evaluations with one seed draw with the same
        random numbers, so compare them prompt by prompt. The run itself draws from its own.

        Args:
            prompts: As in `PPOTrainer`; None for those of the run.
            seed: Of the sampling.

        Raises:
            DataError: no prompt, one that is no conversation, or one that is too long.
            RewardError: a reward raised or gave something unusable.
            RecordError: as `train`, where there is a checkpoint to read.
            SettingsError: another trainer has taken over the base before this one's first round.
        """
        chosen = self.prompts if prompts is None else conversations(prompts)
        if not chosen:
            raise DataError("there is no prompt to evaluate on; give at least one")
        started = self.history or checkpoint.latest(self.output_dir) is None
        if not (started and self.roles.on_base):
            self._resume()
        try:
            with self.roles.counting_padding(self.config.count_padding):
                return evaluate(
                    self.roles, self.base.tokenizer, chosen, self.reward, self.config, seed
                )
        finally:
            give_back()

    def save(self) -> Path:
        """Write a checkpoint of the state between two rounds; return its folder."""
        return checkpoint.save(
            self.output_dir,
            self.progress,
            self.roles,
            self.optimizer,
            self.generators,
            self.trace,
            self.config,
        )

    def _round(self) -> dict[str, float]:
        began, config = time.monotonic(), self.config
        self._set_learning_rate()
        with self._nothing_lost(), unpacked(self.roles.model):
            drawn = self._next_prompts()
            batch = [self.prompts[i] for i in drawn]
            rollout = collect(
                self.roles, self.base.tokenizer, batch, config, self.generators["sampling"]
            )
            require_text(rollout)
            with numbered(drawn):
                scored = score(self.roles, rollout, self.reward, self.progress.kl_coef, config)
        estimate = gae(scored.rewards, rollout.values, rollout.mask, config.gamma, config.lam)
        advantages = estimate.advantages
        if config.whiten_advantages:
            advantages = whiten(advantages, rollout.mask)
        steps = list(
            updates(
                self.roles,
                self.optimizer,
                rollout,
                advantages,
                estimate.returns,
                config,
                self.generators["shuffling"],
            )
        )
        metrics = {
            **rollout_metrics(rollout, scored, estimate.returns, self.progress.kl_coef),
            **update_metrics(steps),
            "lr": self.optimizer.param_groups[0]["lr"],
            "episode": float((self.progress.round + 1) * config.batch_size),
            "time/round_s": time.monotonic() - began,
        }
        done = Round(self.progress.round + 1, rollout, scored, estimate, advantages, steps, metrics)
        if config.traced_rows:
            self.trace.add(
                traced(done, self.roles, self.base.tokenizer, self.progress.kl_coef, config)
            )
        self.progress.kl_coef = self.controller.next_coef(
            self.progress.kl_coef, metrics["objective/kl"], config.batch_size
        )
        return metrics

    def _stir_critic(self) -> None:
        if self.config.value_head_std:
            head = self.roles.value_head.weight
            generator = torch.Generator(head.device).manual_seed(self.config.seed)
            torch.nn.init.normal_(head, std=self.config.value_head_std, generator=generator)

    @contextmanager
    def _nothing_lost(self) -> Iterator[None]:
        """Save the state at the start of the block, which trains nothing, if it does not end."""
        order = list(self.progress.order)
        states = {name: generator.get_state() for name, generator in self.generators.items()}
        try:
            yield
        except BaseException:
            self.progress.order = order
            for name, state in states.items():
                self.generators[name].set_state(state)
            if self.progress.round % self.config.checkpoint_every:
                self.save()
            raise

    def _new_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            self.roles.trainable("policy"),
            lr=self.config.learning_rate,
            eps=self.config.adam_epsilon,
            fused=True,  # one kernel for all matrices: an adapter has hundreds of small ones
        )

    def _set_learning_rate(self) -> None:
        left = 1.0 - self.progress.round / self.config.iterations
        rate = self.config.learning_rate * (left if self.config.lr_schedule == "linear" else 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _next_prompts(self) -> list[int]:
        """Indices of this round's prompts: each prompt once before any comes again."""
        order = self.progress.order
        while len(order) < self.config.batch_size:
            generator = self.generators["shuffling"]
            order += torch.randperm(len(self.prompts), generator=generator).tolist()
        taken, self.progress.order = (
            order[: self.config.batch_size],
            order[self.config.batch_size :],
        )
        return taken

    def _resume(self) -> None:
        found = checkpoint.latest(self.output_dir)
        if found is None:
            if not self.roles.on_base:
                raise SettingsError(
                    "another trainer or other Roles have taken over this base since, and there is "
                    f"no checkpoint in {self.output_dir} to go on from; build this trainer anew"
                )
            self.save()
            return
        self.progress = checkpoint.read_progress(found, self.config, self.roles)
        self.roles = Roles.load(self.base, found / "roles", seed=self.config.seed)
        self.optimizer = self._new_optimizer()
        checkpoint.restore(found, self.optimizer, self.generators)
        self.trace = PPOTrace.load(found / "trace")


def _warn_of_unused(settings: Any, temperature: float) -> None:
    """Say which sampling settings of the model's files PPO leaves aside."""
    unused = off_the_softmax(settings.to_dict())
    if settings.temperature not in (None, temperature):
        unused["temperature"] = settings.temperature
    if unused:
        listed = ", ".join(f"{name}={value!r}" for name, value in unused.items())
        warnings.warn(
            f"the model's generation_config has {listed}; PPO samples without, from "
            f"softmax(z/{temperature:g}), which is what it scores. Compare answers of before and "
            "after under equal settings",
            stacklevel=3,
        )


def conversations(prompts: Any) -> list[Messages]:
    """Return prompts of any accepted form as conversations that end with the user's turn.

    Raises:
        DataError: a row that is no such conversation; names the row.
    """
    if isinstance(prompts, str):
        raise DataError(f"prompts is one text, {prompts!r:.60}; give a list of them")
    rows = [_conversation(row) for row in prompts]
    for index, row in enumerate(rows):
        if not row or row[-1].get("role") != "user":
            raise DataError(f"prompt {index} does not end with a message of the user: {row!r:.120}")
    return rows


def _conversation(row: Any) -> Messages:
    if isinstance(row, str):
        return [{"role": "user", "content": row}]
    if not isinstance(row, dict):
        return list(row)
    messages = list(row.get("prompt") or row.get("messages") or ())
    return messages[:-1] if messages and messages[-1].get("role") == "assistant" else messages


class _Events:
    """Calls transformers' callbacks, such as `LiveMetrics`, with one step a round."""

    def __init__(self, config: PPOConfig, callbacks: Sequence[TrainerCallback], done: int) -> None:
        self._callbacks = callbacks
        self._args = config
        self._state = TrainerState(global_step=done, max_steps=config.iterations)
        self._control = TrainerControl()

    @property
    def stop(self) -> bool:
        """Whether a callback asked to end the run."""
        return self._control.should_training_stop

    def begin(self) -> None:
        self._call("on_train_begin")

    def step(self, metrics: dict[str, float]) -> None:
        self._state.global_step += 1
        self._call("on_step_end")
        self._call("on_log", logs=dict(metrics))

    def end(self) -> None:
        self._call("on_train_end")

    def _call(self, event: str, **kwargs: Any) -> None:
        for callback in self._callbacks:
            getattr(callback, event)(self._args, self._state, self._control, **kwargs)
