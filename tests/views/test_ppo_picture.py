"""The still picture of a PPO trace: its arithmetic, its honesty, its escaping; and the payload."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from bs4 import BeautifulSoup
from ppo_traces import ANSWERS, full_size_trace, iteration, trace

from ftkit.records import PPOTrace, Start
from ftkit.views import ppo_payload
from ftkit.views.plot import number
from ftkit.views.ppo_arithmetic import gae_steps, signed
from ftkit.views.ppo_stepper import stepper_html, token


def page(made: PPOTrace, number: int = 2, row: int = 0) -> BeautifulSoup:
    return BeautifulSoup(stepper_html(made, number, row), "html.parser")


def line(soup: BeautifulSoup, label: str) -> list[str]:
    rows = soup.select(".ft-trace tbody tr")
    (found,) = [r for r in rows if r.th.get_text().startswith(label)]
    return [td.get_text() for td in found.select("td")]


def test_the_steps_run_backwards_and_agree_with_what_was_recorded():
    one = iteration(2)
    steps = gae_steps(one, 0, trace().config)
    assert [s.t for s in steps] == [7, 6, 5, 4, 3, 2, 1, 0]
    assert steps[0].last
    assert steps[0].delta == pytest.approx(one.rewards[0, 7] - one.values[0, 7])
    assert all(s.agrees for s in steps)
    assert [s.advantage for s in reversed(steps)] == pytest.approx(
        list(one.advantages[0]), abs=1e-5
    )


def test_the_table_shows_the_recorded_numbers():
    made = trace()
    soup, one = page(made, row=1), made.at(2)
    for label, array in (("log πold", one.logprobs), ("value V", one.values), ("KL", one.kl)):
        assert line(soup, label) == [signed(x) for x in array[1, :5]]
    assert line(soup, "advantage") == [signed(x) for x in one.advantages[1, :5]]
    heads = [code.get_text() for code in soup.select(".ft-trace thead code")]
    assert heads == ["<b>", "Hi", "</b>", "⏎", "<|im_end|>"]


def test_every_token_has_its_arithmetic_in_numbers():
    made = trace()
    one = made.at(2)
    details = page(made).select_one("details.ft-more")
    sums = [p.get_text() for p in details.select(".ft-tally")]
    assert len(sums) == len(ANSWERS[0])
    assert sums[0].startswith("δ7 = r7 + γ·0 − V7 = ")
    assert sums[4].startswith("δ3 = r3 + γ·V4 − V3 = ")
    assert (
        f"Â3 = δ3 + γλ·Â4 = {signed(gae_steps(one, 0, made.config)[4].delta, 4).strip('+')}"
        in (sums[4])
    )
    assert f"✓ recorded {signed(one.advantages[0, 3], 4)}" in sums[4]


def test_a_record_that_disagrees_with_the_recursion_is_not_glossed_over():
    made = trace()
    wrong = made.at(2).advantages.copy()
    wrong[0, 3] += 0.1
    made.iterations[1] = replace(made.at(2), advantages=wrong)
    text = page(made).select_one("details.ft-more").get_text()
    assert text.count("✗ recorded") == 2, "the step itself, and the one that builds on it"


def test_whitened_rewards_are_what_the_arithmetic_uses():
    made = trace()
    made.iterations[1] = replace(made.at(2), whitened_rewards=made.at(2).rewards * 2)
    steps = gae_steps(made.at(2), 0, made.config)
    assert steps[0].reward == pytest.approx(2 * made.at(2).rewards[0, 7])
    assert line(page(made), "reward r, whitened")


def test_untrusted_text_is_escaped_and_no_script_is_needed():
    made = trace()
    evil = "</script><img src=x onerror=alert(1)>"
    made.title, made.say = evil, evil
    made.config = replace(made.config, base=evil, reward=evil)
    one = made.at(2)
    made.iterations[1] = replace(
        one, prompts=[evil] * 4, tokens=[[evil] * n for n in one.lengths], metrics={evil: 1.0}
    )
    html = stepper_html(made, 2)
    assert "<script" not in html
    assert "<img" not in html
    assert "&lt;img src=x" in html


def test_the_story_and_the_watched_curves_stand_above():
    made = trace(4)
    made.say, made.look, made.cure = "It <b>breaks</b>.", "At the end.", "Less."
    made.watch = ("objective/kl", "not/logged")
    soup = page(made, 3)
    assert [dt.get_text() for dt in soup.select(".ft-story dt")] == [
        *("What happens", "Where to look", "The cure")
    ]
    assert soup.select_one(".ft-story dd").get_text() == "It <b>breaks</b>."
    (spark,) = soup.select(".ft-spark")
    values = [it.metrics["objective/kl"] for it in made.iterations]
    assert spark.b.get_text() == number(values[2])
    ends = f"{number(values[0])} → {number(values[3])}"
    assert spark.svg["aria-label"] == f"objective/kl over iterations: {ends}"
    points = re.findall(r"[\d.]+ ([\d.]+)", spark.select_one("path.run")["d"])
    heights = [float(y) for y in points]
    assert sorted(range(4), key=heights.__getitem__) == sorted(range(4), key=lambda i: -values[i])
    assert float(spark.circle["cy"]) == heights[2]


def test_an_ordinary_run_has_no_story_and_a_single_iteration_no_curves():
    soup = page(trace(1), 1)
    assert not soup.select(".ft-story, .ft-sparks")


def test_a_metric_that_is_no_number_leaves_a_gap():
    made = trace(3)
    made.iterations[1] = replace(made.at(2), metrics={"objective/kl": np.nan})
    (spark,) = page(made).select('.ft-spark:has(svg[aria-label^="objective/kl"])')
    assert spark.b.get_text() == "NaN"
    assert spark.circle is None
    assert spark.select_one("path.run")["d"].count("L") == 1


def test_whitening_that_is_not_over_the_real_tokens_is_told():
    made = trace()
    assert "✓" in page(made).get_text().split("Â′0")[1].split("they differ")[0]
    one = made.at(2)
    mask = one.mask
    white = np.where(mask, one.advantages, 0)
    naive = (white - white.mean()) / white.std()
    made.iterations[1] = replace(one, whitened_advantages=naive)
    said = page(made).get_text().split("Â′0")[1]
    assert f"✗ recorded {signed(naive[0, 0], 4)}: they differ" in said
    made.iterations[1] = replace(one, whitened_advantages=None, advantage_mean=None)
    assert "Â′" not in page(made).get_text()


def test_ratios_off_one_before_any_training_are_told():
    made = trace()
    assert "first minibatch" not in page(made).get_text()
    one = made.at(2)
    first = replace(one.updates[0], ratio=one.updates[0].ratio * 1.5)
    made.iterations[1] = replace(one, updates=[first, *one.updates[1:]])
    assert "✗ ratios of the first minibatch lie between 1.5" in page(made).get_text()


def test_a_run_that_blew_up_is_drawn():
    made = trace()
    one = made.at(2)
    values, advantages = one.values.copy(), one.advantages.copy()
    values[0, 2], advantages[0, :3] = np.nan, np.inf
    made.iterations[1] = replace(one, values=values, advantages=advantages)
    soup = page(made)
    assert line(soup, "value V")[2] == "NaN"
    assert line(soup, "advantage")[1] == "∞"
    ppo_payload.to_json(made)


def test_a_trace_shows_where_it_starts_or_its_latest_iteration():
    made = trace()
    assert "iteration <b>3</b> of 3" in made.to_html()
    made.start = Start(2, 1, "gae")
    assert "iteration <b>2</b> of 3" in made.to_html()
    assert "sample <b>#1</b>" in made.to_html()
    assert "Nothing is recorded yet" in PPOTrace().to_html()


def test_unknown_places_are_named():
    with pytest.raises(ValueError, match="rows 0 to 3"):
        stepper_html(trace(), 1, 4)


@pytest.mark.parametrize(
    ("text", "shown"), [(" day", "·day"), ("\n", "⏎"), ("", "▫"), ("\x00", "[U+0000]")]
)
def test_tokens_show_what_the_eye_would_miss(text, shown):
    assert token(text) == shown


def test_signs_are_minus_signs_and_zero_has_none_of_its_own():
    assert [signed(x) for x in (0.3127, -0.005, -0.0001, float("-inf"))] == (
        ["+0.313", "−0.005", "+0.000", "−∞"]
    )


def test_the_payload_holds_the_trace_to_six_digits():
    made = trace()
    data = json.loads(ppo_payload.to_json(made))
    assert [it["n"] for it in data["iterations"]] == [1, 2, 3]
    row, one = data["iterations"][1]["rows"][2], made.at(2)
    assert row["tokens"] == ANSWERS[2]
    assert row["a"] == pytest.approx(list(one.advantages[2, :5]), rel=1e-5)
    update = data["iterations"][1]["updates"][2]
    assert list(update["ratio"]) == ["0", "2"]
    assert [c == "1" for c in update["clipped"]["2"]] == list(one.updates[2].clipped[1, :5])


def test_a_trace_of_default_size_is_sent_whole_and_well_under_two_megabytes():
    text = ppo_payload.to_json(full_size_trace())
    assert json.loads(text)["left_out"] == 0
    assert len(text.encode()) < 600_000


def test_a_large_trace_is_thinned_with_both_ends_kept_and_says_so():
    made = trace(12, updates=0)
    text = ppo_payload.to_json(made, budget=9_000)
    data = json.loads(text)
    numbers = [it["n"] for it in data["iterations"]]
    assert {1, 12} <= set(numbers)
    assert data["left_out"] == 12 - len(numbers) > 0
    assert len(text) < 12_000


def test_the_payload_is_json_that_a_browser_reads():
    made = trace(1)
    one = made.iterations[0]
    made.iterations[0] = replace(one, kl=np.full_like(one.kl, np.nan), metrics={"x": np.inf})
    text = ppo_payload.to_json(made)
    assert not re.search(r"(?<!\")\bNaN\b(?!\")|(?<!\")Infinity", text)
    assert json.loads(text)["iterations"][0]["rows"][0]["kl"][0] == "NaN"


def test_the_total_loss_is_written_with_the_weights_of_the_run() -> None:
    made = trace()
    made.config = replace(made.config, value_coef=0.1, entropy_coef=0.01)
    known = replace(iteration(2).updates[0], policy_loss=-0.2, value_loss=0.4, entropy=1.5)
    made.iterations[1] = replace(made.iterations[1], updates=[known])
    table = next(t for t in page(made).select("table") if "total loss" in t.text)
    columns = [th.text for th in table.select("thead th")]
    cells = [td.text for td in table.select("tbody td")]
    assert dict(zip(columns, cells, strict=True))["total loss"] == "−0.175"
