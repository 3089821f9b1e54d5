"""The pictures of NEFTune show the maths of `algos`, measured distances, and escape texts."""

import math
from html import unescape

import numpy as np
import pytest
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st

from ftkit.algos import noise_magnitude, sequence_noise_l2, token_noise_l2
from ftkit.records import NoiseMap, NoisePass, NoiseProof
from ftkit.views import to_html
from ftkit.views.neftune import NoiseSetting, noise_map_html

WORDS = (" a", " <b>", " c")


def make_map(**changes) -> NoiseMap:
    parts = {
        "words": WORDS,
        "xy": ((0.0, 0.0), (2.0, 0.0), (1.0, 1.5)),
        "kept": 0.37,
        "distances": ((0.0, 2.5, 6.0), (2.5, 0.0, 5.0), (6.0, 5.0, 0.0)),
        "neighbours": ((" A", 1.0), (" B", 2.0), (" C", 9.0)),
        "shadows": (((0.5, 0.0), (0.0, 1.0)),) * 3,
        "critical": (0.05, 0.1, 0.1, math.inf),
        "hidden": 48,
        "vocab": 99,
        "mean_l2": 4.0,
    }
    return NoiseMap(**(parts | changes))


def soup(setting=None, **changes) -> BeautifulSoup:
    return BeautifulSoup(noise_map_html(make_map(**changes), setting), "html.parser")


@given(st.floats(0, 500), st.integers(1, 4000), st.integers(0, 4000), st.integers(1, 9000))
def test_the_setting_is_the_maths_of_algos(alpha, length, padding, hidden) -> None:
    setting = NoiseSetting(alpha, length, padding)
    total = length + padding
    assert setting.magnitude(hidden) == pytest.approx(noise_magnitude(alpha, total, hidden))
    assert setting.token_l2 == pytest.approx(token_noise_l2(alpha, total))
    assert setting.row_l2 == pytest.approx(sequence_noise_l2(alpha))
    assert setting.real_l2 == pytest.approx(token_noise_l2(alpha, total) * math.sqrt(length))


def test_the_numbers_that_matter_come_first() -> None:
    page = soup(NoiseSetting(5, 16, 48))
    stats = page.select_one(".ft-stat").text
    assert "0.361noise of a token (L2), 9% of its embedding" in stats
    assert "2.89noise of the row, always α/√3" in stats
    assert "−50%noise for this row, by padding" in stats
    text = page.select_one(".ft-arith").text
    assert "5/√((16 + 48)·48) = 0.0902: each of the 48 numbers" in text
    assert "1.44 falls on its own 16 tokens; alone they would get all 2.89" in text
    assert "1 of 4" not in stats
    assert "25%of 4 tokens turn into another" in stats


def test_circles_are_as_long_as_the_noise_in_the_units_of_the_axes() -> None:
    page = soup(NoiseSetting(5, 16))
    words = page.select("circle.word")
    a, b = (float(w["cx"]) for w in words[:2])
    unit = (b - a) / 2  # picture units an embedding unit: the first two words are 2 apart
    radius = float(page.select_one("circle.ball")["r"])
    assert radius / unit == pytest.approx(token_noise_l2(5, 16), rel=0.01)


def test_draws_land_where_the_noise_projects_to() -> None:
    setting = NoiseSetting(5, 16)
    page = soup(setting)
    x = float(page.select_one("circle.word")["cx"])
    other = float(page.select("circle.word")[1]["cx"])
    first = float(page.select_one("path.draws")["d"].split(" ")[0][1:])
    shift = (first - x) / ((other - x) / 2)
    assert shift == pytest.approx(0.5 * setting.magnitude(48), abs=0.002)


def test_the_mark_stands_at_the_measured_share() -> None:
    low, high = (float(soup(NoiseSetting(a, 16)).select_one("circle.here")["cy"]) for a in (1, 500))
    bottom, top = 330, 44
    assert low == bottom
    assert high == pytest.approx(bottom - 0.75 * (bottom - top), abs=0.1)  # one never turns


def test_words_are_escaped_and_their_distances_exact() -> None:
    page = soup()
    assert not page.select(".ft-nf table b")
    cells = [[td.text for td in row.select("td")] for row in page.select("details")[0].select("tr")]
    assert cells[2][:3] == ["␣<b>", "␣B", "2.00"]
    assert cells[2][4:] == ["␣c", "5.00"]
    assert "␣a and ␣<b> look 2.00 apart and are 2.50" in page.text
    assert "shows 37% of the words’ spread" in page.text


def test_half_way_is_told_in_units_of_the_noise_along_that_line() -> None:
    setting = NoiseSetting(5, 16)
    cell = soup(setting).select("details")[0].select("tr")[1].select("td")[3].text
    assert cell == f"{0.5 / (setting.magnitude(48) / math.sqrt(3)):.0f} σ"
    assert "no noise" in soup(NoiseSetting(0)).select("details")[0].text


def test_the_width_cancels() -> None:
    rows = soup(NoiseSetting(5, 16)).select("details")[1].select("tbody tr")
    cells = [[td.text for td in row.select("td")] for row in rows]
    assert len({row[1] for row in cells}) == len(cells) == 5
    assert {tuple(row[2:]) for row in cells} == {("0.722", "2.89")}
    assert cells[0][0] == "48 (this model)"


def test_axes_are_named() -> None:
    names = [t.text for t in soup().select("text.name")]
    assert names == [
        "main direction 1 (embedding units)", "main direction 2",
        "tokens that turn into another", "noise of a token (L2, log scale)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"alpha": -1.0}, r"alpha is -1\.0; it must be finite and not below 0"),
        ({"alpha": math.nan}, "alpha is nan"),
        ({"length": 0}, "length 0 must be at least 1"),
        ({"padding": -3}, "padding -3 not below 0"),
    ],
)
def test_settings_out_of_range_are_refused(numbers, message) -> None:
    with pytest.raises(ValueError, match=message):
        NoiseSetting(**numbers)


# --- the proof ----------------------------------------------------------------------------------


def proof(alpha: float | None, texts=("a", "<b>", "pad")) -> NoiseProof:
    random = np.random.default_rng(0)
    m = 0.0 if alpha is None else alpha / math.sqrt(3 * 200)
    noises = [random.uniform(-m, m, (1, 3, 200)).astype(np.float32) for _ in range(2)]
    quiet = np.zeros((1, 3, 200), np.float32)
    modes = (True, True, False, False)
    passes = [NoisePass(t, n, 2.0) for t, n in zip(modes, (*noises, quiet, quiet), strict=True)]
    real = np.array([[True, True, False]])
    return NoiseProof(alpha, [texts], real, np.full((1, 3), 4.0, np.float32), passes)


def page_of(alpha: float | None) -> BeautifulSoup:
    return BeautifulSoup(to_html(proof(alpha)), "html.parser")


def test_a_live_hook_is_told_with_its_four_passes() -> None:
    page = page_of(5.0)
    assert page.select_one(".ft-npchip.yes").text == "✓ live"
    cells = [[td.text for td in row.select("td")] for row in page.select("table tbody tr")]
    assert [row[1] for row in cells] == ["train", "train", "eval", "eval"]
    assert [row[4] for row in cells] == ["", "≠ different", "", "= the same"]
    assert cells[0][5] == "2.0000"


def test_the_bars_show_the_values_of_the_pass() -> None:
    page = page_of(5.0)
    bars = page.select("g.bars rect")
    area = sum(float(bar["width"]) * float(bar["height"]) for bar in bars)
    filled = [bar for bar in bars if float(bar["height"]) > 0]
    assert 35 <= len(filled) <= 44  # of 48 bins over ±1.15 m
    assert area > 0
    assert "m = 0.204" in page.select("text.law")[1].text


def test_padding_is_hatched_and_texts_are_escaped() -> None:
    page = page_of(5.0)
    tokens = page.select(".tk")
    assert [t.text for t in tokens] == ["a", "<b>", "pad"]
    assert ["pad" in t["class"] for t in tokens] == [False, False, True]
    share = proof(5.0).passes[0].token_l2[0, 0] / 4
    assert f"--n:{share:.0%}" in tokens[0]["style"]
    assert "row 0: 2 tokens, 1 padding" in unescape(page.text)


def test_an_absent_hook_is_told_without_empty_pictures() -> None:
    page = page_of(None)
    assert page.select_one(".ft-npchip.no").text == "✗ off"
    assert not page.select("svg, .tk")
    assert "not setα" in page.text
