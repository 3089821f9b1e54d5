"""The course and its glossary agree with the notebooks that exist."""

import json
import re
from pathlib import Path

import pytest

from ftkit.records import course, glossary

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
OF_THE_NOTES = {
    *("预训练", "微调", "监督微调", "对话模板", "损失掩码", "只针对回答的微调", "噪声嵌入微调"),
    *("奖励模型", "近端策略优化", "优势", "广义优势估计", "KL 散度", "裁剪", "全量微调"),
    *("灾难性遗忘", "成本分析", "量化", "消融", "强化学习"),
}


def test_every_notebook_is_on_the_course_under_its_own_name() -> None:
    files = {notebook.file for notebook in course().notebooks}
    assert {path.name for path in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")} - files == set()
    assert all(n.file.startswith(f"{n.number}_") for n in course().notebooks)


def test_every_link_leads_to_a_notebook() -> None:
    missing = [n.file for n in course().notebooks if not (NOTEBOOKS / n.file).is_file()]
    assert missing == []


def test_the_map_links_every_other_notebook_and_nothing_that_is_not_there() -> None:
    cells = json.loads((NOTEBOOKS / "00_map.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    assert set(re.findall(r"\]\(([^)]+)\)", text)) == {n.file for n in course().notebooks[1:]}


def test_notebooks_are_numbered_without_gaps() -> None:
    numbers = [notebook.number for notebook in course().notebooks]
    assert numbers == [f"{k:02}" for k in range(len(numbers))]
    assert course()["02"].title == "SFT"
    with pytest.raises(KeyError, match="no notebook '99'"):
        course()["99"]


def test_every_step_but_the_map_is_drawn_once() -> None:
    steps = ("map", "pre-training", "SFT", "alignment", "every stage")
    placed = [n.number for step in steps for n in course().at(step)]
    assert sorted(placed) == [n.number for n in course().notebooks]
    assert all(n.lane for n in course().at("alignment"))


def test_the_terms_of_the_notes_are_in_the_glossary_once() -> None:
    terms = glossary().terms
    chinese = [term.chinese for term in terms]
    assert OF_THE_NOTES - set(chinese) == set()
    english = [term.english for term in terms]
    assert len(set(english)) == len(english)
    assert len(set(chinese)) == len(chinese)


def test_each_term_has_one_plain_sentence_and_a_notebook() -> None:
    for term in glossary().terms:
        assert term.meaning[0].isupper()
        assert term.meaning.endswith(".")
        assert ". " not in term.meaning, f"{term.english}: one sentence"
        assert term.seen, f"{term.english}: seen nowhere"


def test_the_glossary_finds_terms_in_both_languages() -> None:
    assert [t.english for t in glossary("广义").terms] == [
        "GAE, Generalized Advantage Estimation",
    ]
    assert glossary("lora").terms[0].english == "LoRA"
    assert len(glossary("优势").to_pandas()) == 2
    with pytest.raises(KeyError, match="nothing with 'quux'"):
        glossary("quux")


def test_dpo_has_the_name_that_its_paper_gives_it() -> None:
    assert "Direct Preference Optimization" in str(glossary("DPO"))
    assert "Dynamic" not in str(glossary())
