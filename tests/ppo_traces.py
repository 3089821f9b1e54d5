"""Small PPO traces made by hand: every number follows from the others by the textbook formulas."""

import numpy as np

from ftkit.records import PPOIteration, PPOTrace, PPOTraceConfig, PPOUpdate

GAMMA, LAM, BETA, EPS = 0.99, 0.95, 0.1, 0.2
END = "<|im_end|>"
PROMPTS = [
    "Talk about the weather.",
    "Say <b>hello</b> & smile.",
    "天气怎么样?",
    "One word, please.",
]
ANSWERS = [
    ["What", " a", " lovely", " bright", " day", " today", "!", END],
    ["<b>", "Hi", "</b>", "\n", END],
    ["", "好", "!", " 😀", END],
    ["Sun", END],
]


def gae(rewards: list[float], values: list[float]) -> list[float]:
    """The backward recursion, written out for one answer."""
    advantages, following, later = [], 0.0, 0.0
    for reward, value in zip(reversed(rewards), reversed(values), strict=True):
        later = reward + GAMMA * following - value + GAMMA * LAM * later
        following = value
        advantages.insert(0, later)
    return advantages


def iteration(number: int, *, rows: int = 4, tokens: list[list[str]] | None = None, updates=4):
    """One round on `rows` answers; scores rise with `number`, so do the distances."""
    rng = np.random.default_rng(number)
    texts = tokens or ANSWERS[:rows]
    lengths = [len(t) for t in texts]
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    old = -rng.gamma(1.2, 1.0, mask.shape)
    ref = np.minimum(old - rng.normal(0.02 * number, 0.3, mask.shape), -0.01)
    scores = rng.normal(0.1 * number, 0.5, len(texts))
    kl = old - ref
    rewards = -BETA * kl
    rewards[np.arange(len(texts)), np.array(lengths) - 1] += scores
    values = rng.normal(0.3, 0.2, mask.shape)
    advantages = np.zeros(mask.shape)
    for row, n in enumerate(lengths):
        advantages[row, :n] = gae(list(rewards[row, :n]), list(values[row, :n]))
    mean, std = advantages[mask].mean(), advantages[mask].std()
    white = (advantages - mean) / std
    garbage = np.where(mask, 0.0, np.nan)
    return PPOIteration(
        number=number,
        prompts=[PROMPTS[i % 4] for i in range(len(texts))],
        prompt_ids=[[1, 2, 3]] * len(texts),
        tokens=texts,
        token_ids=rng.integers(0, 999, mask.shape),
        logprobs=old + garbage,
        ref_logprobs=ref + garbage,
        kl=kl + garbage,
        values=values + garbage,
        rewards=rewards + garbage,
        advantages=advantages + garbage,
        returns=advantages + values + garbage,
        scores=scores,
        kl_coef=BETA,
        updates=steps(rng, white, updates, mask),
        metrics={"objective/scores": float(scores.mean()), "objective/kl": float(kl[mask].sum())},
        new_logprobs=old + 0.2 * white + garbage,
        whitened_advantages=white + garbage,
        advantage_mean=float(mean),
        advantage_std=float(std),
    )


def steps(rng, white, updates, mask):
    """Two minibatches an epoch; each holds every other row, and moves further."""
    made = []
    for k in range(updates):
        rows = [row for row in range(len(mask)) if row % 2 == k % 2] or [0]
        moved = (0.12 * (k // 2)) * white[rows] + rng.normal(0, 0.02, white[rows].shape) * (k > 0)
        ratio = np.exp(moved)
        up = white[rows] > 0
        clipped = np.where(up, ratio > 1 + EPS, ratio < 1 - EPS) & mask[rows]
        gain = np.minimum(ratio * white[rows], np.clip(ratio, 1 - EPS, 1 + EPS) * white[rows])
        made.append(
            PPOUpdate(
                epoch=k // 2 + 1,
                minibatch=k % 2 + 1,
                rows=rows,
                ratio=ratio,
                clipped=clipped,
                policy_loss=-float(gain[mask[rows]].mean()),
                value_loss=0.2 / (k + 1),
                entropy=1.5 - 0.05 * k,
                clip_fraction=float(clipped[mask[rows]].mean()),
                approx_kl=0.01 * k,
            )
        )
    return made


def trace(iterations: int = 3, **options) -> PPOTrace:
    made = PPOTrace(PPOTraceConfig(gamma=GAMMA, lam=LAM, cliprange=EPS))
    for number in range(1, iterations + 1):
        made.add(iteration(number, **options))
    return made


def full_size_trace() -> PPOTrace:
    """The size of a default run: 30 iterations, 4 rows of 24 tokens, 4 updates."""
    return trace(30, tokens=[[" token"] * 23 + [END]] * 4)
