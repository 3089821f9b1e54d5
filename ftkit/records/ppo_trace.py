"""Every number of a PPO run on a few rows, so that it can be watched without the model.

Bounded on purpose: `PPOTraceConfig.rows` answers an iteration, `PPOTraceConfig.max_iterations`
iterations. Left out: the file format (`ftkit.records.ppo_store`), how it is drawn
(`ftkit.views.ppo_stepper`), and the distributions behind the log-probabilities: a vocabulary a
token would be a thousand times the size.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ftkit.showing import Showable

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float32]
Phase = Literal["rollout", "score", "kl", "values", "gae", "update"]
PHASES: tuple[Phase, ...] = ("rollout", "score", "kl", "values", "gae", "update")

TOKEN_FLOATS = ("logprobs", "ref_logprobs", "kl", "values", "rewards", "advantages", "returns")
OPTIONAL_FLOATS = ("new_logprobs", "whitened_rewards", "whitened_advantages")

WATCHED = ("objective/scores", "objective/kl", "objective/entropy", "policy/clipfrac_avg")
"""Metrics that tell the story of an ordinary run."""


@dataclass(frozen=True, slots=True)
class PPOTraceConfig:
    """What holds for the whole run: the constants of the arithmetic, and how much to keep.

    Attributes:
        gamma: γ, discount a token.
        lam: λ of GAE.
        cliprange: ε of the policy loss; ratios count within [1 − ε, 1 + ε].
        cliprange_value: ε of the value loss, in the unit of the rewards; None where it is off.
        value_coef: Weight of the value loss in the total.
        entropy_coef: Weight of the entropy, which the total is lowered by.
        temperature: What the logits were divided by, in sampling and in every log-probability.
        kl_estimator: Which estimate of the KL the reward pays for; ``PPOIteration.kl`` holds it.
        whiten_rewards: Whether GAE saw whitened rewards.
        whiten_advantages: Whether the policy loss saw whitened advantages.
        rows: Answers kept of each iteration, the first ones of those that are added.
        max_iterations: Iterations kept. One more, and every second one is dropped; the first and
            the latest always stay.
        base: What the roles share, in words.
        reward: What the reward role is, in words.
        reference: What the reference role is, in words.

    Raises:
        ValueError: `rows` below 1 or `max_iterations` below 2.
    """

    gamma: float = 1.0
    lam: float = 0.95
    cliprange: float = 0.2
    cliprange_value: float | None = 0.2
    value_coef: float = 0.1
    entropy_coef: float = 0.0
    temperature: float = 1.0
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    whiten_rewards: bool = False
    whiten_advantages: bool = True
    rows: int = 4
    max_iterations: int = 128
    base: str = "one NF4 base"
    reward: str = "reward adapter · score head"
    reference: str = "SFT adapter, frozen"

    def __post_init__(self) -> None:
        if self.rows < 1 or self.max_iterations < 2:
            raise ValueError(
                f"a PPO trace of {self.rows} rows and {self.max_iterations} iterations holds "
                "nothing to step through; keep at least 1 row and 2 iterations"
            )


@dataclass(frozen=True, slots=True)
class Start:
    """Where a reader should look first: iteration number, row, phase, step within the phase."""

    iteration: int
    row: int = 0
    phase: Phase = "rollout"
    step: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class PPOUpdate:
    """One minibatch update, as the loss saw it (before the optimizer's step).

    Attributes:
        epoch: From 1.
        minibatch: From 1, within the epoch.
        rows: Which recorded rows the minibatch held, as indices into the iteration's rows.
        ratio: ``(len(rows), time)``, π/π_old of each sampled token.
        clipped: Bool ``(len(rows), time)``, true where clipping stopped the gradient.
        policy_loss: Of the whole minibatch, not only of the recorded rows; so are the next four.
        value_loss: In the squared unit of the rewards.
        entropy: Nats a token.
        clip_fraction: Share of tokens whose policy gradient was stopped, in [0, 1].
        approx_kl: KL[π_old, π] in nats a token.
    """

    epoch: int
    minibatch: int
    rows: Sequence[int]
    ratio: Floats
    clipped: NDArray[np.bool_]
    policy_loss: float
    value_loss: float
    entropy: float
    clip_fraction: float
    approx_kl: float

    def fitted(self, mask: NDArray[np.bool_]) -> "PPOUpdate":
        """Return the update with arrays cut to `mask` ``(rows, time)``, 0 and False at padding.

        Raises:
            ValueError: a row that the iteration lacks, or an array of another shape.
        """
        rows = tuple(int(row) for row in self.rows)
        if not set(rows) <= set(range(len(mask))) or len(set(rows)) < len(rows):
            raise ValueError(
                f"PPOUpdate: rows are {list(rows)} of an iteration with {len(mask)} recorded rows"
            )
        real = mask[list(rows)]  # (len(rows), time)
        ratio = _fit("PPOUpdate", "ratio", self.ratio, real, np.float32)
        clipped = _fit("PPOUpdate", "clipped", self.clipped, real, np.bool_)
        return replace(self, rows=rows, ratio=ratio, clipped=clipped)

    def keep_rows(self, count: int) -> "PPOUpdate":
        """Return the update with only those of its rows that are below `count`."""
        kept = [i for i, row in enumerate(self.rows) if row < count]
        rows = tuple(self.rows[i] for i in kept)
        return replace(self, rows=rows, ratio=self.ratio[kept], clipped=self.clipped[kept])


@dataclass(frozen=True, slots=True, eq=False)
class PPOIteration:
    """One round of PPO on the recorded rows: rollout, scores, advantages, updates.

    Arrays may be anything numpy can read (float32 tensors on the CPU without gradient, too) and
    wider than the longest answer; they are cut to it, and what pads shorter rows is set to 0. NaN
    and infinities at real tokens stay: a trace must be able to show a failure.

    Attributes:
        number: Iteration, from 1.
        prompts: One text a row.
        prompt_ids: Token ids of each prompt, without padding.
        tokens: Exact text of each response token; each row's length is the number of its tokens,
            end token included, padding not. Joined they give the answer.
        token_ids: Int ``(rows, time)``.
        logprobs: ``(rows, time)`` in nats, of the policy that sampled (π_old).
        ref_logprobs: ``(rows, time)`` in nats, of the reference.
        kl: ``(rows, time)`` in nats, the estimate that the reward pays for.
        values: ``(rows, time)``, the critic's at the rollout, of the state before each token.
        rewards: ``(rows, time)``, −β·KL plus the score at the last token, before whitening.
        advantages: ``(rows, time)``, from GAE, before whitening.
        returns: ``(rows, time)``, advantages + values.
        scores: ``(rows,)``, as the reward role gave them.
        kl_coef: β of this iteration, in score units a nat.
        updates: In the order in which they ran.
        metrics: What the trainer logged, name to number.
        new_logprobs: ``(rows, time)``, of the policy after the last update; None if not measured.
        paid_scores: ``(rows,)``, after penalties and clipping; None where they are the `scores`.
        whitened_rewards: ``(rows, time)``, what GAE saw; None where it saw `rewards`.
        whitened_advantages: ``(rows, time)``, what the loss saw; None where it saw `advantages`.
        advantage_mean: Mean that whitening took off, over the whole batch; None without whitening.
        advantage_std: What whitening divided by, over the whole batch; None without whitening.

    Raises:
        ValueError: no row, a row without a token, or an array of another shape (named).
    """

    number: int
    prompts: Sequence[str]
    prompt_ids: Sequence[Sequence[int]]
    tokens: Sequence[Sequence[str]]
    token_ids: NDArray[np.int64]
    logprobs: Floats
    ref_logprobs: Floats
    kl: Floats
    values: Floats
    rewards: Floats
    advantages: Floats
    returns: Floats
    scores: Floats
    kl_coef: float
    updates: Sequence[PPOUpdate] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    new_logprobs: Floats | None = None
    paid_scores: Floats | None = None
    whitened_rewards: Floats | None = None
    whitened_advantages: Floats | None = None
    advantage_mean: float | None = None
    advantage_std: float | None = None

    def __post_init__(self) -> None:
        for name in ("tokens", "prompt_ids"):
            self._set(name, tuple(tuple(row) for row in getattr(self, name)))
        self._set("prompts", tuple(self.prompts))
        self._check_rows()
        mask = self.mask
        self._set("token_ids", _fit(self._name, "token_ids", self.token_ids, mask, np.int64))
        for name in (*TOKEN_FLOATS, *OPTIONAL_FLOATS):
            if (array := getattr(self, name)) is not None:
                self._set(name, _fit(self._name, name, array, mask, np.float32))
        for name in ("scores", "paid_scores"):
            if (array := getattr(self, name)) is not None:
                self._set(name, _vector(self._name, name, array, len(mask)))
        self._set("updates", tuple(update.fitted(mask) for update in self.updates))
        self._set("metrics", {str(k): float(v) for k, v in self.metrics.items()})

    @property
    def lengths(self) -> list[int]:
        """Number of real response tokens of each row."""
        return [len(row) for row in self.tokens]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Bool ``(rows, time)``, true at response tokens."""
        lengths = np.array(self.lengths)
        return np.arange(lengths.max()) < lengths[:, None]

    @property
    def paid(self) -> Floats:
        """``(rows,)``, the scores as they entered the rewards."""
        return self.scores if self.paid_scores is None else self.paid_scores

    @property
    def gae_rewards(self) -> Floats:
        """``(rows, time)``, the rewards that GAE saw."""
        return self.rewards if self.whitened_rewards is None else self.whitened_rewards

    @property
    def loss_advantages(self) -> Floats:
        """``(rows, time)``, the advantages that the policy loss saw."""
        return self.advantages if self.whitened_advantages is None else self.whitened_advantages

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        own = [getattr(self, name) for name in (*TOKEN_FLOATS, *OPTIONAL_FLOATS, "token_ids")]
        updates = [array for u in self.updates for array in (u.ratio, u.clipped)]
        return sum(array.nbytes for array in [*own, *updates] if array is not None)

    def keep_rows(self, count: int) -> "PPOIteration":
        """Return the iteration with its first `count` rows."""
        if count >= len(self.tokens):
            return self
        names = (*TOKEN_FLOATS, *OPTIONAL_FLOATS, "token_ids", "scores", "paid_scores")
        arrays = {name: getattr(self, name) for name in names}
        cut: dict[str, Any] = {k: v[:count] for k, v in arrays.items() if v is not None}
        for name in ("prompts", "prompt_ids", "tokens"):
            cut[name] = getattr(self, name)[:count]
        return replace(self, updates=[u.keep_rows(count) for u in self.updates], **cut)

    @property
    def _name(self) -> str:
        return f"PPOIteration {self.number}"

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_rows(self) -> None:
        counts = {name: len(getattr(self, name)) for name in ("prompts", "prompt_ids", "tokens")}
        if not self.tokens or len(set(counts.values())) > 1:
            raise ValueError(f"{self._name}: needs one entry a row and at least one row: {counts}")
        for row, tokens in enumerate(self.tokens):
            if not tokens:
                raise ValueError(f"{self._name}: row {row} has no response token; leave it out")


@dataclass
class PPOTrace(Showable):
    """What a PPO run did, iteration by iteration, on a few rows.

    Attributes:
        config: Constants of the arithmetic, and the bounds.
        title: What this run is, in a few words; empty for an ordinary run.
        say: What happens in it, in a sentence or two.
        look: Where to see it.
        cure: What helps against it; empty for a run that is well.
        watch: Metrics that are shown as curves over the run, by the names in `metrics`.
        start: Where to look first; None for the first iteration.
        iterations: Those kept, in order; fill by `add`.
        stride: Every how-many-th iteration is kept by now.
    """

    config: PPOTraceConfig = field(default_factory=PPOTraceConfig)
    title: str = ""
    say: str = ""
    look: str = ""
    cure: str = ""
    watch: tuple[str, ...] = WATCHED
    start: Start | None = None
    iterations: list[PPOIteration] = field(default_factory=list)
    stride: int = 1

    def add(self, iteration: PPOIteration) -> None:
        """Append an iteration, cut to `config.rows` rows; keep within `config.max_iterations`.

        Iterations of the same or a later number are dropped first: a resumed run overwrites what
        it runs again.
        """
        before = [kept for kept in self.iterations if kept.number < iteration.number]
        before = self._thinned(before)
        while len(before) >= self.config.max_iterations:
            self.stride *= 2
            before = self._thinned(before)
        self.iterations = [*before, iteration.keep_rows(self.config.rows)]

    def at(self, number: int) -> PPOIteration:
        """Return the iteration of this number.

        Raises:
            ValueError: it was not recorded; names those that were.
        """
        for iteration in self.iterations:
            if iteration.number == number:
                return iteration
        numbers = ", ".join(str(i.number) for i in self.iterations) or "none"
        raise ValueError(f"iteration {number} is not in this trace; it holds {numbers}")

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(iteration.nbytes for iteration in self.iterations)

    def to_pandas(self, iteration: int, row: int = 0) -> "pd.DataFrame":
        """Return one row a response token.

        Args:
            iteration: Its number.
            row: Which recorded answer, from 0.

        Returns:
            A frame with ``token``, ``id``, one column for each recorded quantity in the order in
            which PPO computes it, and ``ratio e.m`` and ``clipped e.m`` for every update that saw
            the row, e the epoch and m the minibatch.

        Raises:
            ValueError: no such iteration or row.
        """
        import pandas as pd

        found = self.at(iteration)
        if not 0 <= row < len(found.tokens):
            raise ValueError(f"iteration {iteration} has rows 0 to {len(found.tokens) - 1}")
        return pd.DataFrame(dict(_columns(found, row)))

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``trace.safetensors`` and ``trace.json`` into `folder`, both or neither.

        A process that is killed at any moment leaves the trace of before or the new one.

        Returns:
            Path of ``trace.json``.
        """
        from ftkit.records import ppo_store

        return ppo_store.save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "PPOTrace":
        """Read what `save` wrote; needs neither torch nor a model.

        Raises:
            FileNotFoundError: `folder` holds no trace.
            RecordError: the files are damaged, or a newer ftkit wrote them.
        """
        from ftkit.records import ppo_store

        return ppo_store.load(Path(folder))

    def __str__(self) -> str:
        head = f"PPO trace{': ' * bool(self.title)}{self.title}"
        if not self.iterations:
            return f"{head}, nothing recorded yet"
        last = self.iterations[-1]
        scores = ", ".join(f"{score:+.3f}" for score in last.scores)
        return (
            f"{head}, {len(self.iterations)} iterations up to {last.number}, "
            f"{len(last.tokens)} rows, {self.nbytes / 1e6:.1f} MB; latest scores {scores}"
        )

    def _thinned(self, iterations: list[PPOIteration]) -> list[PPOIteration]:
        first = iterations[0].number if iterations else 0
        return [kept for kept in iterations if (kept.number - first) % self.stride == 0]


_COLUMNS = {
    "logprob": "logprobs",
    "ref_logprob": "ref_logprobs",
    "kl": "kl",
    "reward": "rewards",
    "whitened_reward": "whitened_rewards",
    "value": "values",
    "advantage": "advantages",
    "return": "returns",
    "whitened_advantage": "whitened_advantages",
    "new_logprob": "new_logprobs",
}


def _columns(iteration: PPOIteration, row: int) -> Iterable[tuple[str, Any]]:
    length = iteration.lengths[row]
    yield "token", list(iteration.tokens[row])
    yield "id", iteration.token_ids[row, :length]
    for column, name in _COLUMNS.items():
        if (array := getattr(iteration, name)) is not None:
            yield column, array[row, :length]
    for update in iteration.updates:
        if row in update.rows:
            at, name = update.rows.index(row), f"{update.epoch}.{update.minibatch}"
            yield f"ratio {name}", update.ratio[at, :length]
            yield f"clipped {name}", update.clipped[at, :length]


def _fit(owner: str, name: str, array: Any, mask: NDArray[np.bool_], dtype: Any) -> NDArray[Any]:
    """Return `array` cut to the shape of `mask`, in `dtype`, 0 where `mask` is false."""
    given = np.asarray(array)
    rows, time = mask.shape
    if given.ndim != 2 or len(given) != rows or given.shape[1] < time:
        raise ValueError(
            f"{owner}: {name} has shape {given.shape}; the tokens make it ({rows}, {time} or more)"
        )
    return np.where(mask, given[:, :time], 0).astype(dtype)


def _vector(owner: str, name: str, array: Any, rows: int) -> Floats:
    given = np.asarray(array, dtype=np.float32)
    if given.shape != (rows,):
        raise ValueError(f"{owner}: {name} has shape {given.shape} for {rows} rows")
    return given
