"""The group picture shows the numbers of `algos`, every bar in its place."""

import pytest
import torch
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st

from ftkit import algos
from ftkit.views.grpo import LOSS_TYPES, SCALES, GroupSetting, grpo_html

GROUPS = st.integers(2, 8).flatmap(
    lambda size: st.tuples(
        st.lists(st.floats(-3, 3), min_size=size, max_size=size),
        st.lists(st.integers(1, 40), min_size=size, max_size=size),
    )
)


def soup(**options) -> BeautifulSoup:
    return BeautifulSoup(grpo_html(GroupSetting(**options)), "html.parser")


@given(GROUPS)
def test_advantages_are_those_of_the_algos(group) -> None:
    rewards = torch.tensor(group[0], dtype=torch.float64)
    if algos.without_signal(rewards, len(rewards)) and rewards.max() > rewards.min():
        return  # a spread on the edge of what counts as none
    for scale in ("group", "none"):
        setting = GroupSetting(tuple(group[0]), tuple(group[1]), scale)
        ours = algos.group_advantages(rewards, len(rewards), scale).tolist()
        assert setting.advantages == pytest.approx(ours, abs=1e-9)
    others = algos.leave_one_out_advantages(rewards, len(rewards)).tolist()
    assert setting.leave_one_out == pytest.approx(others, abs=1e-9)


def test_the_batch_spread_counts_the_other_groups() -> None:
    setting = GroupSetting((1.0, 0.0), (3, 3), "batch", others=(4.0, 2.0))
    ours = algos.group_advantages(torch.tensor([1.0, 0.0, 4.0, 2.0]), 2, "batch")[:2].tolist()
    assert setting.advantages == pytest.approx(ours, abs=1e-6)


@given(GROUPS)
def test_token_weights_are_those_of_the_algos(group) -> None:
    lengths = tuple(group[1])
    setting = GroupSetting(tuple(group[0]), lengths)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    for kind in LOSS_TYPES:
        ours = algos.token_weights(mask, kind, max_tokens=64)[:, 0].tolist()
        assert setting.token_weights(kind) == pytest.approx(ours, rel=1e-5)


def test_signs_are_shown_by_colour_and_by_symbol() -> None:
    page = soup(rewards=(1.0, 0.0, 0.5), lengths=(2, 2, 2), scale="none")
    assert (len(page.select("rect.up")), len(page.select("rect.down"))) == (1, 1)
    texts = [text.text for text in page.select("svg text.v")]
    assert {"▲ +0.50", "▼ −0.50", "● 0"} <= set(texts)


def test_a_group_without_signal_says_so() -> None:
    page = soup(rewards=(0.3,) * 3, lengths=(4, 4, 9))
    assert "no signal, gradient 0" in page.select_one("text.none").text
    assert "✗ none" in page.select_one(".ft-stat").text
    assert "frac_reward_zero_std" in page.select_one(".ft-arith").text
    assert not soup().select("text.none")


def test_a_tiny_spread_is_called_out() -> None:
    page = soup(rewards=(0.5, 0.51, 0.5), lengths=(4, 4, 4))
    assert "noise of the reward becomes a full-sized push" in page.select_one(".ft-arith").text


def test_the_arithmetic_is_written_out_for_the_picked_answer() -> None:
    page = soup(rewards=(1.0, 0.0, 0.0, 0.0), lengths=(10, 20, 5, 5), loss_type="grpo", picked=1)
    text = page.select_one(".ft-arith").text
    assert "answer #2: A = (0.00 − 0.25) / (0.50 + 0.0001) = −0.50" in text
    assert "RLOO: 0.00 − mean of the others = −0.33" in text
    assert "each of its 20 tokens weighs 1/(4·20) = 12.50 ‰" in text
    assert "−6.25 ‰; the whole answer with −0.12" in text


def test_the_chosen_loss_type_is_marked_and_the_table_compares_all() -> None:
    page = soup(loss_type="dr_grpo", lengths=(1, 2, 3, 4, 5, 64))
    assert page.select_one("g.on text.kind").text == "▸ dr_grpo"
    rows = [[cell.text for cell in row.find_all("td")] for row in page.select("tbody tr")]
    assert [row[0] for row in rows] == ["grpo", "dapo", "bnpo", "▸ dr_grpo"]
    assert rows[0][2:] == ["166.67", "2.60", "16.7%", "16.7%"]
    assert rows[3][2] == rows[3][3] == "2.60"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rewards": (1.0,), "lengths": (1,)}, "at least 2 answers"),
        ({"rewards": (1.0, 0.0), "lengths": (1,)}, "2 rewards and 1 lengths"),
        ({"rewards": (1.0, float("nan")), "lengths": (1, 1)}, "must be finite"),
        ({"lengths": (0, 8, 48, 16, 24, 20)}, "between 1 and max_tokens=64"),
        ({"scale": "std"}, "scale is 'std'"),
        ({"loss_type": "mean"}, "loss_type is 'mean'"),
        ({"picked": 6}, "picked=6 is none of the 6 answers"),
    ],
)
def test_what_is_no_group_is_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        GroupSetting(**options)


def test_every_scale_and_type_draws() -> None:
    for scale in SCALES:
        for kind in LOSS_TYPES:
            page = soup(scale=scale, loss_type=kind)
            assert "nan" not in str(page.svg).lower()
            assert [t.text for t in page.select("svg text.name")][:2] == ["reward", "advantage"]
