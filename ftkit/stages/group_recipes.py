"""The choices of a run of GRPO or RLOO, each with its unit and where it comes from."""

from dataclasses import dataclass
from typing import get_args

from ftkit.algos.grpo import LossType, Scale
from ftkit.stages import limits

_COUNTS = (
    *("steps", "batch_size", "max_prompt_tokens", "max_new_tokens", "epochs"),
    *("lora_r", "lora_alpha", "log_every"),
)


@dataclass(frozen=True, slots=True)
class GroupRecipe:
    """What GRPO and RLOO have in common.

    Attributes:
        steps: Optimizer steps.
        batch_size: Completions a step; `group_size` must divide it.
        group_size: G, completions a prompt, at least 2.
        micro_batch: Completions a forward and backward pass, gradients are accumulated; must
            divide `batch_size`. None for all at once.
        epochs: Updates with each set of completions, μ in the paper. With 1 the ratio is 1 and
            clipping never acts; with 2, every second step samples nothing new.
        max_prompt_tokens: Longest prompt; a longer one is refused, never cut.
        max_new_tokens: Longest completion.
        temperature: Divides the logits when sampling and in every log-probability.
        learning_rate: Peak, after warm-up, decaying linearly to 0.
        warmup_steps: Steps of linear warm-up.
        clip_range: ε.
        beta: Weight of the KL to the reference; 0 needs no reference.
        lora_r: Rank of a new adapter; one to start from keeps its own.
        lora_alpha: Scale of a new adapter; the update is multiplied by ``lora_alpha / lora_r``.
        log_every: Steps between logged metrics.
        seed: Of a new adapter's start, the order of the prompts and the sampling.
    """

    steps: int = 60
    batch_size: int = 16
    group_size: int = 8
    micro_batch: int | None = None
    epochs: int = 1
    max_prompt_tokens: int = 256
    max_new_tokens: int = 64
    temperature: float = 1.0
    learning_rate: float = 1e-4
    warmup_steps: int = 0
    clip_range: float = 0.2
    beta: float = 0.0
    lora_r: int = 16
    lora_alpha: int = 32
    log_every: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        name = type(self).__name__
        limits.at_least_one(self, *_COUNTS)
        limits.positive(self, "temperature", "learning_rate", "clip_range")
        limits.not_negative(self, "warmup_steps", "beta")
        if self.group_size < 2:
            raise ValueError(
                f"{name}: group_size={self.group_size} must be at least 2: an answer is compared "
                "with the others of its group"
            )
        for key in ("group_size", "micro_batch"):
            if self.batch_size % (getattr(self, key) or 1):
                raise ValueError(
                    f"{name}: {key}={getattr(self, key)} must divide batch_size={self.batch_size}"
                )

    @property
    def max_length(self) -> int:
        """Longest prompt with completion, in tokens."""
        return self.max_prompt_tokens + self.max_new_tokens


@dataclass(frozen=True, slots=True)
class GRPORecipe(GroupRecipe):
    """The choices of a GRPO run; the others are those of `GroupRecipe`.

    Attributes:
        loss_type: What a token weighs, see `ftkit.algos.token_weights`. ``"dapo"`` is TRL's
            default, ``"grpo"`` the paper's.
        scale_rewards: What divides the advantages, see `ftkit.algos.group_advantages`.
        clip_range_high: ε of the upper side (DAPO: 0.28); None for the same as `clip_range`.
    """

    loss_type: LossType = "dapo"
    scale_rewards: Scale = "group"
    clip_range_high: float | None = None

    def __post_init__(self) -> None:
        GroupRecipe.__post_init__(self)  # super() knows another class once slots are made
        for key, kinds in (("loss_type", LossType), ("scale_rewards", Scale)):
            if getattr(self, key) not in get_args(kinds):
                raise ValueError(
                    f"GRPORecipe: {key}={getattr(self, key)!r} is none of "
                    f"{', '.join(get_args(kinds))}"
                )
        if self.clip_range_high is not None and self.clip_range_high < self.clip_range:
            raise ValueError("GRPORecipe: clip_range_high must not be below clip_range")


@dataclass(frozen=True, slots=True)
class RLOORecipe(GroupRecipe):
    """The choices of an RLOO run; the others are those of `GroupRecipe`.

    Attributes:
        beta: Reward units a nat of KL to the reference, taken off the reward of each answer.
            0.05 is TRL's default.
        normalize_advantages: Bring the advantages of a batch to mean 0 and variance 1.
    """

    beta: float = 0.05
    normalize_advantages: bool = False
