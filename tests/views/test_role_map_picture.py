"""The diagram of who holds what, and the way through the course: complete, escaped, to scale."""

import re
from html import unescape

import pytest

from ftkit.records import Course, Glossary, Part, RoleMap, course, glossary
from ftkit.records.algorithm_roles import ALGORITHMS, Algorithm, Seat
from ftkit.records.syllabus import Notebook, Term
from ftkit.views import to_html
from ftkit.views.role_map import role_map_html, size_text

EVIL = "<b>x</b>"
PARTS = (
    Part("base", "base", 100_000_000),
    Part("policy", "adapter", 10_000_000),
    Part("reference", "adapter", 10_000_000),
    Part("reward", "adapter", 20_000_000),
    Part("value head", "head", 2308),
    Part("score head", "head", 2304),
)
COPIES = {"LM head": 400_000_000, "value head": 400_000_000, "score head": 400_000_000}
MAP = RoleMap("tiny", "nf4", PARTS, 140_004_612, "float32", COPIES)


def pictures(html: str) -> dict[str, str]:
    """The SVG of each algorithm and layout, by its label."""
    return dict(re.findall(r'<svg [^>]*aria-label="([^"]*)">(.*?)</svg>', html, re.S))


def words(svg: str) -> list[str]:
    return [unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]


def test_each_algorithm_is_drawn_in_both_layouts() -> None:
    found = pictures(role_map_html(MAP))
    assert set(found) == {
        f"{a.name}, {layout}" for a in ALGORITHMS for layout in ("full copies, float32",
                                                                 "one nf4 base")
    }  # fmt: skip


def test_ppo_has_four_bodies_as_copies_and_one_base_with_three_adapters() -> None:
    found = pictures(role_map_html(MAP))
    copies, one = words(found["PPO, full copies, float32"]), words(found["PPO, one nf4 base"])
    assert copies.count("a full copy") == 4
    assert copies.count("400 MB") == 4
    assert one.count("one nf4 base") == 1
    adapters = ["policy adapter", "reward adapter", "reference adapter"]
    assert [w for w in one if w.endswith("adapter")] == adapters
    assert {"actor", "critic", "reward", "reference"} <= set(one) & set(copies)
    assert "value head 2.3 kB" in one


def test_trained_frozen_and_conditions_are_words_and_not_only_colours() -> None:
    found = pictures(role_map_html(MAP))
    dpo, grpo = words(found["DPO, one nf4 base"]), words(found["GRPO, RLOO, one nf4 base"])
    assert (dpo.count("trained"), dpo.count("frozen")) == (1, 1)
    assert {"trained", "frozen, if a model", "frozen, if β > 0"} <= set(grpo)
    assert " o" in re.search(r'<g class="(rew[^"]*)"', found["GRPO, RLOO, one nf4 base"])[1]


def test_each_algorithm_links_the_notebooks_that_show_it() -> None:
    html = role_map_html(MAP)
    assert '<a href="05_ppo_theory.ipynb" title="PPO, the theory">→ 05</a>' in html
    linked = re.findall(r'<a href="(\d\d)_', html)
    assert linked == [number for a in ALGORITHMS for number in a.notebooks]


def test_the_base_lends_its_lm_head_frozen() -> None:
    found = pictures(role_map_html(MAP))
    kinds = re.findall(r'<g class="(\w+ \w)">', found["DPO, one nf4 base"])
    assert kinds == ["pol f", "ref f", "pol t", "ref f"]  # two heads, then two adapters
    assert words(found["DPO, one nf4 base"]).count("the base's LM head") == 2
    assert "pol t" in found["DPO, full copies, float32"]


def test_bars_are_to_one_scale() -> None:
    found = pictures(role_map_html(MAP))
    width = {
        label: float(re.search(r'class="bar"[^>]* width="([\d.]+)"', svg)[1])
        for label, svg in found.items()
    }
    ppo = width["PPO, full copies, float32"]
    assert width["DPO, full copies, float32"] / ppo == pytest.approx(0.5, abs=0.01)
    assert width["DPO, one nf4 base"] / ppo == pytest.approx(120 / 1600, abs=0.01)


def test_optional_models_lengthen_the_bar_and_are_said() -> None:
    svg = pictures(role_map_html(MAP))["GRPO, RLOO, one nf4 base"]
    assert "110 MB, at most 140 MB" in words(svg)
    more, bar = (float(re.search(rf'class="{c}"[^>]* width="([\d.]+)"', svg)[1])
                 for c in ("more", "bar"))  # fmt: skip
    assert more > bar


def test_the_factor_stands_on_top_with_its_two_reasons() -> None:
    html = role_map_html(MAP)
    smaller, sharing = MAP.reasons("PPO")
    assert f"{MAP.factor('PPO'):.1f} ×" in html
    assert f"{smaller:.1f} by smaller weights × {sharing:.1f} by sharing" in html


def test_a_reference_without_adapter_is_the_bare_base() -> None:
    bare = RoleMap("tiny", "", PARTS[:2] + PARTS[3:], 130_004_612, "float32", COPIES)
    assert "no adapter" in words(pictures(role_map_html(bare))["DPO, one base"])


@pytest.mark.parametrize(
    ("size", "text"),
    [(12, "12 B"), (2304, "2.3 kB"), (7_372_800, "7.4 MB"), (2_152_244_740, "2,152 MB"),
     (16_060_000_000, "16.1 GB"), (0, "0 B")],
)  # fmt: skip
def test_sizes_come_in_readable_units(size: int, text: str) -> None:
    assert size_text(size) == text


def test_every_string_of_a_map_is_escaped() -> None:
    evil = Algorithm(EVIL, EVIL, (), (Seat(EVIL, "policy", "LM head", True, EVIL),))
    html = to_html(RoleMap(EVIL, EVIL, PARTS, 1, EVIL, COPIES, (ALGORITHMS[2], evil)))
    assert EVIL not in html
    assert "&lt;b&gt;" in html


def test_the_course_links_every_notebook_but_the_map_once() -> None:
    links = re.findall(r'class="stop" href="([^"]+)"', course().to_html())
    assert sorted(links) == [n.file for n in course().notebooks if n.step != "map"]


def test_the_course_goes_through_both_phases_with_their_data() -> None:
    html = course().to_html()
    places = [html.index(word) for word in ("Phase 1", "raw text", "Phase 2", "&lt;input, output")]
    assert places == sorted(places)
    assert "&lt;input, accept, reject&gt;" in html


def test_the_glossary_has_a_row_a_term_and_relative_links() -> None:
    html = glossary().to_html()
    assert html.count('<th scope="row">') == len(glossary().terms)
    assert '<a href="02_sft.ipynb"' in html
    assert not re.search(r'href="(?:https?:|/)', html)


def test_course_and_glossary_escape() -> None:
    evil = Notebook("01", f'"{EVIL}', EVIL, EVIL, "alignment", EVIL, EVIL)
    term = Term(EVIL, EVIL, EVIL, (evil,))
    assert EVIL not in to_html(Course((evil,)))
    assert EVIL not in to_html(Glossary([term], EVIL))
