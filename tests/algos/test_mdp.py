"""The tiny language counted by brute force, and PPO's estimators against its exact answers."""

import itertools
import math

import pytest
import torch

from ftkit.algos import estimators, gae, mdp, policy_loss, td_targets


def policy(language: mdp.TokenMDP, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(language.scores.shape, generator=generator, dtype=torch.float64)


@pytest.fixture(params=[0.0, 0.3], ids=["plain", "kl-priced"])
def language(request) -> mdp.TokenMDP:
    """Three words, three tokens, with and without a price on KL to a reference that is skewed."""
    made = mdp.sentiment_mdp(max_tokens=3, kl_coef=request.param)
    made.ref_logits.copy_(policy(made, seed=9))
    return made


def by_hand(language: mdp.TokenMDP, logits: torch.Tensor, prefix: tuple[int, ...]) -> float:
    """Expected rewards after `prefix`, by recursion over words; knows nothing of state numbers."""
    words, end = language.words, len(language.words)
    state = language.prefixes.index(tuple(words[w] for w in prefix))
    mine, ref = (torch.log_softmax(x[state], 0) for x in (logits, language.ref_logits))
    total = 0.0
    for token in range(end + 1):
        answer = prefix if token == end else (*prefix, token)
        done = token == end or len(answer) == language.max_tokens
        text = tuple(words[w] for w in answer)
        later = mdp._sentiment(text, token == end) if done else by_hand(language, logits, answer)
        price = language.kl_coef * (mine[token] - ref[token]).item()
        total += mine[token].exp().item() * (later - price)
    return total


# --- the language ------------------------------------------------------------------------------


def test_every_answer_is_there_once_with_its_score() -> None:
    language = mdp.sentiment_mdp(max_tokens=4)
    answers = mdp.all_answers(language)
    texts = [language.text(t[m]) for t, m in zip(answers.tokens, answers.mask, strict=True)]
    ended = [p for n in range(4) for p in itertools.product(language.words, repeat=n)]
    cut = itertools.product(language.words, repeat=4)
    assert texts == [*(" ".join([*p, "<end>"]) for p in ended), *map(" ".join, cut)]
    scores = dict(zip(texts, answers.scores.tolist(), strict=True))
    assert scores["<end>"] == 0
    assert scores["not bad <end>"] == 0.5
    assert scores["not good <end>"] == -1
    assert scores["good good good <end>"] == 3
    assert scores["good not bad not"] == 0.5, "1 + 0.5, and 1 less for no end"


def test_states_are_numbered_as_documented() -> None:
    language = mdp.sentiment_mdp(max_tokens=3)
    answers = mdp.all_answers(language)
    assert [language.prefixes[level.start] for level in language.levels] == [
        (), ("good",), ("good", "good")
    ]  # fmt: skip
    for states, tokens, mask in zip(answers.states, answers.tokens, answers.mask, strict=True):
        for t in range(int(mask.sum())):
            read = tuple(language.words[int(w)] for w in tokens[:t])
            assert language.prefixes[int(states[t])] == read


@pytest.mark.parametrize(
    ("words", "length", "beta", "says"),
    [
        ((), 2, 0.0, "give different words"),
        (("a", "a"), 2, 0.0, "give different words"),
        (("a", "<end>"), 2, 0.0, "give different words"),
        (("a",), 0, 0.0, "at least 1 token"),
        (("a", "b"), 14, 0.0, "too many to count"),
        (("a",), 2, -1.0, "kl_coef"),
    ],
)
def test_a_language_that_cannot_be_counted_is_refused(words, length, beta, says) -> None:
    with pytest.raises(ValueError, match=says):
        mdp.token_mdp(words, length, lambda words, ended: 0.0, beta)


def test_logits_of_another_language_are_refused() -> None:
    language = mdp.sentiment_mdp(3)
    with pytest.raises(ValueError, match=r"\(13, 4\)"):
        mdp.solve(language, torch.zeros(5, 4))
    with pytest.raises(ValueError, match="NaN"):
        mdp.solve(language, language.zero_logits() / 0)
    with pytest.raises(ValueError, match="at least 1 answer"):
        mdp.sample_answers(language, language.zero_logits(), 0, torch.Generator())


# --- exact values ------------------------------------------------------------------------------


def test_values_are_those_of_recursion_over_words(language) -> None:
    logits = policy(language)
    exact = mdp.solve(language, logits)
    for state, prefix in enumerate(language.prefixes):
        numbers = tuple(language.words.index(word) for word in prefix)
        assert exact.values[state].item() == pytest.approx(by_hand(language, logits, numbers))


def test_values_visits_and_rewards_agree_with_all_answers(language) -> None:
    logits = policy(language)
    exact, answers = mdp.solve(language, logits), mdp.all_answers(language)
    probs = mdp.answer_logprobs(language, answers, logits).sum(1).exp()
    assert probs.sum().item() == pytest.approx(1.0, abs=1e-12)
    paid = mdp.answer_rewards(language, answers, logits).sum(1)
    torch.testing.assert_close(probs @ paid, exact.objective)
    seen = torch.zeros_like(exact.visits)
    for states, mask, p in zip(answers.states, answers.mask, probs, strict=True):
        seen[states[mask]] += p
    torch.testing.assert_close(seen, exact.visits)
    mean = (torch.softmax(logits, 1) * exact.advantages).sum(1)
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-12, rtol=0)


def test_the_gradient_is_the_same_in_closed_form_by_autograd_and_by_differences(language) -> None:
    logits = policy(language).requires_grad_()
    closed = mdp.policy_gradient(language, logits)
    (auto,) = torch.autograd.grad(mdp.solve(language, logits).objective, logits)
    torch.testing.assert_close(closed, auto, atol=1e-10, rtol=0)
    step = 1e-5
    for state, action in [(0, 0), (0, 3), (2, 1), (12, 2)]:
        moved = torch.zeros_like(closed)
        moved[state, action] = step
        up, down = (
            mdp.solve(language, logits.detach() + sign * moved).objective for sign in (1, -1)
        )
        assert closed[state, action].item() == pytest.approx(
            ((up - down) / (2 * step)).item(), abs=1e-9
        )


def test_samples_come_from_the_policy_and_repeat_with_the_seed() -> None:
    language = mdp.sentiment_mdp(3)
    logits = policy(language)
    drawn, again = (
        mdp.sample_answers(language, logits, 20_000, torch.Generator().manual_seed(1))
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(drawn, again, strict=True))
    answers = mdp.all_answers(language)
    probs = mdp.answer_logprobs(language, answers, logits).sum(1).exp()
    for row in range(len(probs)):
        share = (drawn.tokens == answers.tokens[row]).all(1).double().mean().item()
        p = probs[row].item()
        assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / 20_000), "5 standard errors"
    listed = {tuple(row): s for row, s in zip(answers.tokens.tolist(), answers.scores, strict=True)}
    expected = torch.stack([listed[tuple(row)] for row in drawn.tokens.tolist()])
    assert torch.equal(drawn.scores, expected)


# --- estimators --------------------------------------------------------------------------------


class Counted:
    """All answers of the four-token language under one policy, with a noisy critic."""

    def __init__(self) -> None:
        self.language = mdp.sentiment_mdp(4)
        self.logits = 0.5 * policy(self.language)
        self.exact = mdp.solve(self.language, self.logits)
        self.answers = mdp.all_answers(self.language)
        self.logprobs = mdp.answer_logprobs(self.language, self.answers, self.logits)
        self.probs = self.logprobs.sum(1).exp()
        self.rewards = mdp.answer_rewards(self.language, self.answers, self.logits)
        noise = torch.randn(40, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        self.critic = self.exact.values + 0.5 * noise
        self.gradient = mdp.policy_gradient(self.language, self.logits)
        self.advantages = self.exact.advantages[self.answers.states, self.answers.tokens]

    def gae(self, lam: float, values: torch.Tensor | None = None):
        critic = self.critic if values is None else values
        return gae(self.rewards, critic[self.answers.states], self.answers.mask, 1.0, lam)

    def moments(self, estimates: torch.Tensor, truth: torch.Tensor) -> estimators.Moments:
        return estimators.moments(self.answers, self.probs, estimates, truth)

    def gradients(self, advantages: torch.Tensor) -> estimators.Spread:
        each = estimators.answer_gradients(self.answers, self.logits, advantages)
        return estimators.spread(each, self.probs, self.gradient)


@pytest.fixture(scope="module")
def counted() -> Counted:
    """The language of the course, counted once."""
    return Counted()


def test_lambda_1_is_unbiased_whatever_the_critic_says(counted) -> None:
    full = counted.gae(1.0)
    assert counted.moments(full.returns, counted.exact.values).rms_bias < 1e-12
    assert counted.moments(full.returns, counted.exact.q).rms_bias < 1e-12
    assert counted.gradients(full.advantages).bias < 1e-12
    off = counted.moments(full.advantages, counted.exact.advantages).bias
    shift = (counted.exact.values - counted.critic)[:, None].expand_as(off)
    torch.testing.assert_close(off, shift)


def test_with_exact_values_no_lambda_is_biased_and_the_least_has_the_least_variance(counted):
    stds = []
    for lam in (0.0, 0.3, 0.7, 0.95, 1.0):
        found = counted.gae(lam, counted.exact.values)
        assert counted.moments(found.returns, counted.exact.values).rms_bias < 1e-12
        spread = counted.gradients(found.advantages)
        assert spread.bias < 1e-12
        stds.append(spread.std)
    assert stds == sorted(stds)


def test_with_a_noisy_critic_bias_falls_and_variance_grows_with_lambda(counted) -> None:
    found = [counted.gae(lam) for lam in (0.0, 0.3, 0.7, 0.95, 1.0)]
    values = [counted.moments(f.returns, counted.exact.values) for f in found]
    q = [counted.moments(f.returns, counted.exact.q) for f in found]
    for series in (values, q):
        biases, stds = [m.rms_bias for m in series], [m.std for m in series]
        assert biases == sorted(biases, reverse=True)
        assert stds[0] < stds[-1]
    assert [m.std for m in q] == sorted(m.std for m in q)
    assert q[0].std < 1e-12, "after state and token, the TD target is no longer random"
    assert values[0].rms_bias > 0.05


def test_moments_are_means_over_the_answers_that_pass_through(counted) -> None:
    td = td_targets(counted.rewards, counted.critic[counted.answers.states], counted.answers.mask)
    m = counted.moments(td, counted.exact.values)
    state = 3
    through = ((counted.answers.states == state) & counted.answers.mask).nonzero()
    weights = counted.probs[through[:, 0]] / counted.probs[through[:, 0]].sum()
    values = td[through[:, 0], through[:, 1]]
    mean = weights @ values
    assert m.bias[state].item() == pytest.approx((mean - counted.exact.values[state]).item())
    assert m.variance[state].item() == pytest.approx((weights @ (values - mean) ** 2).item())
    assert m.weight.sum().item() == pytest.approx(1.0)
    assert m.rmse == pytest.approx(math.hypot(m.rms_bias, m.std))


def test_sampled_moments_come_to_the_exact_ones(counted) -> None:
    count = 40_000
    batch = mdp.sample_answers(
        counted.language, counted.logits, count, torch.Generator().manual_seed(3)
    )
    paid = mdp.answer_rewards(counted.language, batch, counted.logits)
    found = gae(paid, counted.critic[batch.states], batch.mask, 1.0, 0.5).returns
    sampled = estimators.moments(
        batch, torch.full((count,), 1 / count), found, counted.exact.values
    )
    exact = counted.moments(counted.gae(0.5).returns, counted.exact.values)
    assert sampled.rms_bias == pytest.approx(exact.rms_bias, abs=0.02)
    assert sampled.std == pytest.approx(exact.std, abs=0.02)


def test_unvisited_cells_count_nothing(counted) -> None:
    first = estimators.Answers(*(x[:1] for x in counted.answers))
    truth = torch.ones(40, dtype=torch.float64)
    m = estimators.moments(first, torch.ones(1), torch.full((1, 4), 3.0).double(), truth)
    assert m.bias.nonzero().tolist() == [[0]]
    assert m.rms_bias == 2.0


def test_answer_gradients_are_autograd_of_the_weighted_logprobs(counted) -> None:
    leaf = counted.logits.clone().requires_grad_()
    logprobs = mdp.answer_logprobs(counted.language, counted.answers, leaf)
    each = estimators.answer_gradients(counted.answers, counted.logits, counted.advantages)
    for row in (0, 7, 120):
        kept = counted.answers.mask[row]
        goal = (logprobs[row] * counted.advantages[row])[kept].sum()
        (expected,) = torch.autograd.grad(goal, leaf, retain_graph=True)
        torch.testing.assert_close(each[row], expected)


# --- from the old policy to a new one ----------------------------------------------------------


@pytest.mark.parametrize("distance", [0.1, 0.5, 2.0])
def test_whole_answer_weights_are_exact_at_any_distance(counted, distance) -> None:
    new = counted.logits + distance * counted.exact.advantages
    logprobs = mdp.answer_logprobs(counted.language, counted.answers, new)
    found = estimators.surrogates(
        logprobs, counted.logprobs, counted.advantages, counted.answers.mask
    )
    truth = mdp.solve(counted.language, new).objective - counted.exact.objective
    assert estimators.spread(found.whole, counted.probs, truth).bias < 1e-9
    assert estimators.spread(found.token, counted.probs, truth).bias > 1e-3
    assert (found.clipped <= found.token + 1e-12).all(), "clipping is a lower bound"


def test_the_variance_of_importance_weights_grows_with_the_distance(counted) -> None:
    stds, shares = [], []
    for distance in (0.0, 0.3, 1.0, 2.0):
        new = counted.logits + distance * counted.exact.advantages
        log_weights = (
            mdp.answer_logprobs(counted.language, counted.answers, new) - counted.logprobs
        ).sum(1)
        weights = log_weights.exp()
        stds.append(estimators.spread(weights, counted.probs, torch.tensor(1.0).double()).std)
        shares.append(estimators.effective_share(log_weights, counted.probs))
        assert shares[-1] == pytest.approx(1 / (1 + stds[-1] ** 2))
    assert stds == sorted(stds)
    assert shares[0] == pytest.approx(1.0)


def test_every_surrogate_starts_with_the_exact_gradient(counted) -> None:
    leaf = counted.logits.clone().requires_grad_()
    logprobs = mdp.answer_logprobs(counted.language, counted.answers, leaf)
    mask = counted.answers.mask
    for kind in estimators.surrogates(logprobs, counted.logprobs, counted.advantages, mask):
        (got,) = torch.autograd.grad(counted.probs @ kind, leaf, retain_graph=True)
        torch.testing.assert_close(got, counted.gradient, atol=1e-10, rtol=0)


def test_the_clipped_surrogate_is_minus_the_loss_of_the_trainer(counted) -> None:
    new = counted.logits + counted.exact.advantages
    logprobs = mdp.answer_logprobs(counted.language, counted.answers, new)
    tensors = logprobs, counted.logprobs, counted.advantages, counted.answers.mask
    summed = estimators.surrogates(*tensors, clip_range=0.1).clipped.sum()
    loss = policy_loss(*tensors, clip_range=0.1).loss
    torch.testing.assert_close(summed / counted.answers.mask.sum(), -loss)


def test_weights_that_are_no_distribution_are_refused(counted) -> None:
    twice = 2 * counted.probs
    with pytest.raises(ValueError, match="sums to 2"):
        estimators.moments(counted.answers, twice, counted.rewards, counted.exact.values)
    with pytest.raises(ValueError, match="one weight for each of the 121 answers"):
        estimators.effective_share(counted.probs, counted.probs[:3])
    with pytest.raises(ValueError, match="the truth has"):
        estimators.spread(counted.rewards, counted.probs, torch.zeros(3))
