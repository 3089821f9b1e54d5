"""The implementation details of PPO for language models: what ftkit does with each, and where.

The numbering is that of "The N Implementation Details of RLHF with PPO" (Huang et al. 2023): G
general, R reward model, P policy; plus Adam's epsilon. Each is kept, changed or dropped on
purpose, and points to the line of this package where it acts.
"""

from dataclasses import dataclass
from typing import Literal

from ftkit.records.source import SourceLine
from ftkit.records.table import Table


@dataclass(frozen=True, slots=True)
class Detail:
    """One detail.

    Attributes:
        number: E.g. ``"P8"``.
        title: What the original does.
        verdict: What becomes of it here.
        how: In which way, in a few words.
        file: Below the package ``ftkit``; empty for a dropped one.
        code: The line where it acts, as it stands in `file`.
        switches: Fields of `PPOConfig` that change it.
    """

    number: str
    title: str
    verdict: Literal["kept", "changed", "dropped"]
    how: str
    file: str = ""
    code: str = ""
    switches: tuple[str, ...] = ()

    @property
    def line(self) -> SourceLine | None:
        """The line where it acts, with its neighbours; None for a dropped one.

        Raises:
            LookupError: the file does not hold `code` exactly once.
        """
        return SourceLine.find(self.file, self.code) if self.file else None


DETAILS = (
    Detail(
        "G1",
        "reward and value read prompt + completion",
        "kept",
        "what an answer is worth depends on its question; the critic reads every completion "
        "token, the judge the last. No switch: a state that has not seen its prompt does not exist",
        "models/roles.py",
        "values = _read(self.value_head, states) if with_values else None",
    ),
    Detail(
        "G2",
        "prompts padded to one length with a token of its own, longer ones cut",
        "changed",
        "padded so, by an unused token that ftkit.load chooses, else nobody can tell where an "
        "answer ends; a prompt that is too long is refused, since a cut one asks something else",
        "stages/ppo/rollout.py",
        "if (too_long := lengths > longest).any():",
        ("max_prompt_tokens",),
    ),
    Detail(
        "G3",
        "position ids corrected for left padding",
        "kept",
        "count real tokens only, so that a row means the same with and without padding; rotary "
        "positions would not notice",
        "models/heads.py",
        "counted = torch.ones_like(mask) if count_padding else mask",
        ("count_padding",),
    ),
    Detail(
        "G4",
        "completions of a fixed length, all trained on, cut for the judge alone",
        "changed",
        "no compute for tokens behind the end: sampling stops there, and the mask says where",
        "models/generation.py",
        "done = done | torch.isin(drawn[:, 0], stop_ids)",
        ("stop_at_eos", "max_new_tokens"),
    ),
    Detail(
        "G5",
        "learning rate annealed to zero",
        "kept",
        "late steps are small, so the run ends near its best; linear over the run",
        "stages/ppo/trainer.py",
        "left = 1.0 - self.progress.round / self.config.iterations",
        ("lr_schedule",),
    ),
    Detail(
        "G6",
        "one seed a process",
        "kept",
        "one process here; sampling and shuffling have a generator each, so a resumed run draws "
        "the same",
        "stages/ppo/trainer.py",
        '"sampling": torch.Generator(device).manual_seed(self.config.seed),',
        ("seed",),
    ),
    Detail(
        "R1",
        "the score is read at the last token only",
        "kept",
        "only that token has seen all; found by the mask. It is paid there, too, unless switched "
        "to the last column",
        "models/roles.py",
        "ends = last_real(mask)",
        ("score_at_last_real",),
    ),
    Detail(
        "R2",
        "reward head starts as N(0, 1/√(d+1))",
        "changed",
        "a tenth of that in stages.reward, so that a judge is not sure of noise before its "
        "training; without a bias, which cancels in every preference",
        "models/classifier.py",
        "model.score.weight.mul_(_SHRINK)",
    ),
    Detail(
        "R3",
        "reward model normalised before and after training",
        "dropped",
        "center the loss instead (RewardRecipe.centering), give a reward in a sensible unit",
    ),
    Detail(
        "P1",
        "logits divided by the sampling temperature",
        "kept",
        "in every log-probability, the reference's too: else the first ratio is not 1",
        "models/heads.py",
        "return logits if temperature == 1.0 else logits / temperature",
        ("temperature",),
    ),
    Detail(
        "P2",
        "value head starts at zero",
        "kept",
        "an untrained critic adds no noise",
        "models/heads.py",
        "nn.init.zeros_(head.weight)",
        ("value_head_std",),
    ),
    Detail(
        "P3",
        "prompts cut to end at a sentence",
        "dropped",
        "the chat template delimits prompts",
    ),
    Detail(
        "P4",
        "no dropout",
        "kept",
        "the base is in eval mode, and the first ratio of every round is checked. No switch: it "
        "would fail that check",
        "models/roles.py",
        "strip_adapters(causal).eval()",
    ),
    Detail(
        "P5",
        "a fixed score of −1 for completions without EOS",
        "changed",
        "a penalty, off by default",
        "stages/ppo/scoring.py",
        "paid = scores - config.missing_eos_penalty * (~rollout.ended).to(scores.dtype)",
        ("missing_eos_penalty",),
    ),
    Detail(
        "P6",
        "discount 1",
        "kept",
        "no token is worth less for coming late",
        "stages/ppo/trainer.py",
        "estimate = gae(scored.rewards, rollout.values, rollout.mask, config.gamma, config.lam)",
        ("gamma", "lam"),
    ),
    Detail(
        "P7",
        "batch, minibatches, gradient accumulation",
        "kept",
        "less memory for the same step: micro-batches weigh by their real tokens, so their sum "
        "is the minibatch's mean",
        "stages/ppo/update.py",
        "share = float(rollout.mask[micro].sum() / total)",
        ("batch_size", "epochs", "minibatches", "micro_batch"),
    ),
    Detail(
        "P8",
        "each token pays for its KL",
        "kept",
        "the leash pulls where the policy strays; completion tokens only, estimator by choice",
        "stages/ppo/scoring.py",
        "tokens = token_rewards(paid, kl, rollout.mask, kl_coef)",
        ("kl_coef", "kl_estimator"),
    ),
    Detail(
        "P9",
        "whitening: rewards without shift, advantages with, in each minibatch",
        "changed",
        "one scale for all steps of a round instead of one a minibatch; over real tokens only, "
        "the rewards' off by default",
        "stages/ppo/trainer.py",
        "advantages = whiten(advantages, rollout.mask)",
        ("whiten_rewards", "whiten_advantages"),
    ),
    Detail(
        "P10",
        "value loss clipped around the old values",
        "kept",
        "holds the critic near what the advantages were computed with; None switches it off",
        "algos/ppo.py",
        "loss = 0.5 * masked_mean(torch.maximum(free, bounded), mask)",
        ("clip_range_value", "value_coef"),
    ),
    Detail(
        "P11",
        "adaptive KL coefficient",
        "kept",
        "off by default: a β that moves hides what a change of the reward did",
        "stages/ppo/trainer.py",
        "self.progress.kl_coef = self.controller.next_coef(",
        ("kl_target", "kl_horizon"),
    ),
    Detail(
        "Adam",
        "TensorFlow's Adam, whose ε of 1e-5 stands beside the uncorrected √v",
        "changed",
        "PyTorch's Adam at the same 1e-5: beside the corrected √v it counts less in early steps, "
        "which are larger",
        "stages/ppo/trainer.py",
        "eps=self.config.adam_epsilon,",
        ("adam_epsilon",),
    ),
    Detail(
        "clip",
        "gradient norm clipped (in later implementations)",
        "kept",
        "one odd batch cannot throw the policy off; L2 norm over adapter and value head",
        "stages/ppo/update.py",
        'norm = torch.nn.utils.clip_grad_norm_(list(roles.trainable("policy")), '
        "config.max_grad_norm)",
        ("max_grad_norm",),
    ),
)


def details() -> Table:
    """Return every detail with its verdict, its switches and the line where it acts."""
    rows = [
        (
            detail.number,
            detail.title,
            f"{detail.verdict}: {detail.how}",
            ", ".join(detail.switches) or "–",
            detail.line or "–",
        )
        for detail in DETAILS
    ]
    return Table(
        "The implementation details of PPO, one by one",
        ["detail", "the original", "here", "PPOConfig", "line in ftkit/"],
        rows,
        "Open a line to see the code where it acts. Stricter than the original throughout: padding "
        "enters no mean, variance or ratio.",
    )
