"""The choices of a comparison, each with its unit and why."""

from dataclasses import dataclass

from ftkit.stages import limits

_COUNTS = (
    *("tokens", "looks", "batch_size", "group_size", "micro_batch", "max_prompt_tokens"),
    *("max_new_tokens", "dpo_batch", "dpo_epochs", "eval_prompts", "eval_samples"),
    *("lora_r", "lora_alpha"),
)
_POSITIVE = (
    *("seconds", "temperature", "ppo_rate", "grpo_rate", "rloo_rate", "dpo_rate", "dpo_beta"),
)


@dataclass(frozen=True, slots=True)
class CompareRecipe:
    """Budget, sizes and rates of every run; the defaults are for 2 CPU cores.

    Learning rates are constant in a run, so that any point of it could have been its end.

    Attributes:
        tokens: Budget of sampled completion tokens, counted up to and with each stop token.
        seconds: Budget of wall time of sampling and training. PPO, GRPO and RLOO go on until both
            budgets are spent, for at most `tokens` steps; DPO until it has seen its pairs
            `dpo_epochs` times.
        patience: A run ends after so many times `seconds` at the latest, whatever it has sampled;
            best-of-n alone answers as often as `best_of` asks.
        looks: Parts into which evaluations cut `tokens` (of DPO `seconds`); besides, every run is
            evaluated at its start and at the last step within each budget, so far as its slowest
            step before foretold it.
        batch_size: Completions that PPO, GRPO, RLOO sample for an update, and DPO at a time.
        group_size: Answers to one prompt in GRPO, RLOO and for a pair of DPO; must divide
            `batch_size`.
        micro_batch: Rows a forward and backward pass of PPO, GRPO and RLOO.
        max_prompt_tokens: Longest prompt; a longer one is refused.
        max_new_tokens: Longest completion, in training and in evaluation.
        temperature: Of all sampling, in training and in evaluation.
        kl_coef: Price of a nat: off the token rewards in PPO, off the reward in RLOO, in the loss
            in GRPO, whose advantages have variance 1 in a group.
        ppo_rate: Learning rate of PPO; the rates were chosen by one short trial each.
        grpo_rate: Learning rate of GRPO.
        rloo_rate: Learning rate of RLOO.
        dpo_rate: Learning rate of DPO.
        dpo_beta: Reward units a nat of log-ratio in DPO.
        dpo_batch: Pairs a step of DPO, in one pass of twice as many rows.
        dpo_epochs: Passes over the pairs.
        best_of: Values of n, at least 2; n = 1 is the start.
        eval_prompts: Prompts that are held out, for evaluation alone.
        eval_samples: Answers to each at every evaluation.
        lora_r: Rank of a new adapter, on all linear layers; one to start from keeps its own.
        lora_alpha: Its scale.
    """

    tokens: int = 1792
    seconds: float = 45.0
    patience: float = 3.0
    looks: int = 2
    batch_size: int = 16
    group_size: int = 4
    micro_batch: int = 8
    max_prompt_tokens: int = 256
    max_new_tokens: int = 16
    temperature: float = 1.0
    kl_coef: float = 0.02
    ppo_rate: float = 1e-3
    grpo_rate: float = 1e-3
    rloo_rate: float = 1e-3
    dpo_rate: float = 8e-4
    dpo_beta: float = 0.1
    dpo_batch: int = 4
    dpo_epochs: int = 2
    best_of: tuple[int, ...] = (2, 4, 8)
    eval_prompts: int = 30
    eval_samples: int = 1
    lora_r: int = 16
    lora_alpha: int = 32

    def __post_init__(self) -> None:
        limits.at_least_one(self, *_COUNTS)
        limits.positive(self, *_POSITIVE)
        limits.not_negative(self, "kl_coef")
        self._check_groups()
        if not self.patience >= 1:
            raise ValueError(f"CompareRecipe: patience={self.patience} must be at least 1")
        if not self.best_of or min(self.best_of) < 2 or len(set(self.best_of)) < len(self.best_of):
            raise ValueError(
                f"CompareRecipe: best_of={self.best_of}: give different numbers of at least 2 "
                "(n = 1 is the start itself)"
            )
        if self.tokens < self.step_tokens:
            raise ValueError(
                f"CompareRecipe: tokens={self.tokens} is too small for one step of batch_size="
                f"{self.batch_size} completions of {self.max_new_tokens} tokens: "
                f"{self.step_tokens} at least"
            )

    def _check_groups(self) -> None:
        if self.group_size < 2 or self.batch_size % self.group_size:
            raise ValueError(
                f"CompareRecipe: group_size={self.group_size} must be at least 2 and divide "
                f"batch_size={self.batch_size}"
            )
        if self.batch_size % 2:
            raise ValueError(
                f"CompareRecipe: batch_size={self.batch_size} must be even: PPO halves it"
            )
        if self.batch_size % self.micro_batch:
            raise ValueError(
                f"CompareRecipe: micro_batch={self.micro_batch} must divide batch_size="
                f"{self.batch_size}"
            )

    @property
    def step_tokens(self) -> int:
        """Most tokens that one update samples."""
        return self.batch_size * self.max_new_tokens
