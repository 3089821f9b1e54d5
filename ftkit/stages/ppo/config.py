"""The choices of a PPO run, each with its unit and where it comes from.

Numbers in brackets, [P1] …, refer to the policy details of "The N Implementation Details of RLHF
with PPO" (Huang et al. 2023), [G1] … to its general details.
"""

from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from typing import Any, Literal

from ftkit.algos.kl import KLEstimator
from ftkit.errors import SettingsError
from ftkit.models.sampler_settings import SETTINGS, off_the_softmax
from ftkit.stages import limits


@dataclass(frozen=True, slots=True)
class PPOConfig:
    """Sizes, rates and switches of `PPOTrainer`.

    Attributes:
        iterations: Rollout-then-update rounds.
        batch_size: Prompts, and so completions, a round.
        minibatches: Optimizer steps an epoch; must divide `batch_size`. [P7]
        epochs: Passes over a round's completions.
        micro_batch: Rows a forward and backward pass; gradients are accumulated. [P7]
        keep_unpacked: Hold 4-bit weights unpacked through the run instead of only while sampling
            and scoring, if a quarter of the free memory suffices: every pass of an update unpacks
            all of them twice, about a tenth of the time.
        max_prompt_tokens: Longest prompt; a longer one is refused, never cut.
        max_new_tokens: Longest completion.
        temperature: Divides the logits when sampling *and* in every log-probability. [P1]
        stop_at_eos: End a completion at its stop token. False samples and trains on
            `max_new_tokens` in any case, as the original; but the original's judge reads up to the
            stop token, and here it reads all. No completion counts as one that ends then, so all
            pay `missing_eos_penalty`. [G4]
        count_padding: Count padding in position ids, a common mistake: a prompt is read elsewhere
            beside a longer one. Rotary positions (SmolLM2, Llama, Qwen) only see distances and do
            not notice; learned ones (GPT-2) do. [G3]
        missing_eos_penalty: Taken from the score of a completion that does not end; 0 for none.
            Replaces the fixed score of −1 in the original. [P5]
        score_at_last_real: Pay the score at the last real token [R1]. False pays it at the last
            column, a common mistake: completions that end before it get nothing.
        learning_rate: Of adapter and value head, at the start.
        lr_schedule: ``"linear"`` to 0 over the run [G5], or ``"constant"``.
        adam_epsilon: 1e-5 as in the original; PyTorch's 1e-8 makes early steps larger.
        max_grad_norm: Gradient norm is clipped to this; L2.
        gamma: Discount; 1 for completions. [P6]
        lam: λ of GAE.
        clip_range: ε of the policy loss.
        clip_range_value: ε of the value loss, in score units; None switches clipping off. [P10]
        value_coef: Weight of the value loss.
        value_head_std: Spread of the value head's weights at the start, N(0, σ); 0 starts the
            critic at zero, so that it adds no noise to the first advantages. [P2]
        entropy_coef: Weight of the entropy bonus.
        kl_coef: β, the price of a nat of KL from the reference, in score units. [P8]
        kl_estimator: Per-token KL in the reward: ``"k1"`` (log ratio), ``"k2"`` or ``"k3"``.
        kl_target: Sequence KL in nats that an adaptive β steers to; None keeps β fixed. [P11]
        kl_horizon: Episodes over which the adaptive β reacts. [P11]
        whiten_rewards: Scale token rewards to variance 1, mean unshifted. [P9]
        whiten_advantages: Scale advantages to mean 0 and variance 1 over real tokens. [P9]
        lora_r: Rank of the policy adapter, where the base brings none.
        lora_alpha: Its scale.
        trace_rows: Completions of a round whose every tensor is kept in the trace: how many, the
            first ones; or which, as indices below `batch_size`. 0 or () for no trace.
        trace_iterations: Rounds kept in the trace. One more, and every second one is dropped; the
            first and the latest always stay.
        checkpoint_every: Rounds between checkpoints.
        seed: Of adapter, sampling and shuffling; one a process. [G6]

    The sampler's distribution must be the scorer's, softmax(z/τ), so `temperature` is its only
    setting. ``top_k``, ``top_p``, ``min_p``, ``min_new_tokens``, ``repetition_penalty``,
    ``do_sample`` and ``generation_kwargs`` (others, under transformers' names) are taken only to
    be refused with the reason, unless their value changes nothing; they are not kept.

    Raises:
        SettingsError: a generation setting that would make the ratio of the first update differ
            from 1.
        ValueError: a number out of its range.
    """

    iterations: int = 20
    batch_size: int = 16
    minibatches: int = 2
    epochs: int = 2
    micro_batch: int = 8
    keep_unpacked: bool = False
    max_prompt_tokens: int = 256
    max_new_tokens: int = 24
    temperature: float = 1.0
    stop_at_eos: bool = True
    count_padding: bool = False
    missing_eos_penalty: float = 0.0
    score_at_last_real: bool = True
    learning_rate: float = 3e-4
    lr_schedule: Literal["linear", "constant"] = "linear"
    adam_epsilon: float = 1e-5
    max_grad_norm: float = 1.0
    gamma: float = 1.0
    lam: float = 0.95
    clip_range: float = 0.2
    clip_range_value: float | None = 0.2
    value_coef: float = 0.1
    value_head_std: float = 0.0
    entropy_coef: float = 0.0
    kl_coef: float = 0.05
    kl_estimator: KLEstimator = "k1"
    kl_target: float | None = None
    kl_horizon: int = 10_000
    whiten_rewards: bool = False
    whiten_advantages: bool = True
    lora_r: int = 16
    lora_alpha: int = 32
    trace_rows: int | tuple[int, ...] = 4
    trace_iterations: int = 128
    checkpoint_every: int = 1
    seed: int = 0
    top_k: InitVar[int | None] = None
    top_p: InitVar[float | None] = None
    min_p: InitVar[float | None] = None
    min_new_tokens: InitVar[int | None] = None
    repetition_penalty: InitVar[float | None] = None
    do_sample: InitVar[bool | None] = None
    generation_kwargs: InitVar[Mapping[str, Any] | None] = None

    def __post_init__(
        self,
        top_k: int | None,
        top_p: float | None,
        min_p: float | None,
        min_new_tokens: int | None,
        repetition_penalty: float | None,
        do_sample: bool | None,
        generation_kwargs: Mapping[str, Any] | None,
    ) -> None:
        _require_softmax(generation_kwargs or {})
        _require_softmax(
            {
                "top_k": top_k,
                "top_p": top_p,
                "min_p": min_p,
                "min_new_tokens": min_new_tokens,
                "repetition_penalty": repetition_penalty,
                "do_sample": do_sample,
            }
        )
        limits.at_least_one(self, *_COUNTS)
        if not self.temperature > 0:
            raise ValueError(
                f"PPOConfig: temperature={self.temperature} must be above 0: greedy decoding "
                "draws nothing, so there would be no ratio and nothing to explore"
            )
        limits.positive(self, *_POSITIVE)
        limits.not_negative(self, *_NOT_NEGATIVE)
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"PPOConfig: {name}={getattr(self, name)} must lie in [0, 1]")
        if self.batch_size % self.minibatches:
            raise ValueError(
                f"PPOConfig: minibatches={self.minibatches} must divide batch_size="
                f"{self.batch_size}"
            )
        if self.lr_schedule not in ("linear", "constant"):
            raise ValueError(f"PPOConfig: lr_schedule={self.lr_schedule!r}: linear or constant")
        if self.clip_range_value is not None and not self.clip_range_value > 0:
            raise ValueError("PPOConfig: clip_range_value must be above 0, or None for no clipping")
        if self.trace_iterations < 2:
            raise ValueError(
                f"PPOConfig: trace_iterations={self.trace_iterations} must be at least 2: the "
                "first and the latest round always stay"
            )
        self._require_rows()

    @property
    def traced_rows(self) -> tuple[int, ...]:
        """Indices of the completions of a round that go into the trace."""
        if isinstance(self.trace_rows, int):
            return tuple(range(min(self.trace_rows, self.batch_size)))
        return self.trace_rows

    def _require_rows(self) -> None:
        rows: Any = self.trace_rows
        if isinstance(rows, int) and not isinstance(rows, bool):
            limits.not_negative(self, "trace_rows")
            return
        whole = isinstance(rows, list | tuple) and all(type(row) is int for row in rows)
        if whole and set(rows) <= set(range(self.batch_size)) and len(set(rows)) == len(rows):
            object.__setattr__(self, "trace_rows", tuple(rows))
        else:
            raise ValueError(
                f"PPOConfig: trace_rows={rows!r} must be a number of completions, or a tuple of "
                f"different indices of a round's completions, 0 … {self.batch_size - 1}"
            )


_COUNTS = (
    *("iterations", "batch_size", "minibatches", "epochs", "micro_batch", "max_prompt_tokens"),
    *("max_new_tokens", "kl_horizon", "lora_r", "lora_alpha", "checkpoint_every"),
)
_POSITIVE = ("learning_rate", "adam_epsilon", "max_grad_norm", "clip_range")
_NOT_NEGATIVE = ("missing_eos_penalty", "value_coef", "value_head_std", "entropy_coef", "kl_coef")


def _require_softmax(settings: Mapping[str, Any]) -> None:
    """Refuse what makes sampled tokens come from another distribution than softmax(z/τ)."""
    for name, value in off_the_softmax(settings).items():
        raise SettingsError(
            f"PPOConfig: {name}={value!r} {SETTINGS[name].effect}, but log-probabilities, ratio "
            "and KL are those of the whole softmax(z/τ): the first ratio would not be 1, and the "
            f"KL could turn negative. Leave it out; for the same end use {SETTINGS[name].instead}"
        )
    for name in settings.keys() - SETTINGS.keys():
        raise SettingsError(
            f"PPOConfig: generation_kwargs[{name!r}] is not read by the sampler, which draws from "
            "softmax(z/τ); temperature and max_new_tokens are fields of PPOConfig"
        )
