"""The picture of recorded groups: the record's own numbers, escaped, with flags for silence."""

from bs4 import BeautifulSoup

from ftkit.records import Answer, Group, GroupStep, GroupTrace


def answer(score: float, advantage: float, text: str = "7", *, ended: bool = True) -> Answer:
    return Answer(text, {"right": score}, advantage, tokens=3, ended=ended)


def trace(*steps: GroupStep, **options) -> GroupTrace:
    return GroupTrace("grpo", 2, {"right": 1.0}, steps=list(steps), **options)


MIXED = Group("3 < 4 <b>?", (answer(1, 0.71), answer(-1, -0.71, "<i>no</i>\n", ended=False)))
EQUAL = Group("1 + 1?", (answer(1, 0.0), answer(1, 0.0, "")))


def soup(record: GroupTrace) -> BeautifulSoup:
    return BeautifulSoup(record.to_html(), "html.parser")


def test_answers_carry_reward_advantage_and_length() -> None:
    page = soup(trace(GroupStep(1, (MIXED,), 1)))
    rows = [[cell.text for cell in row.find_all("td")] for row in page.select("tbody tr")]
    assert rows == [
        ["▲ +0.71", "1.00", "7", "3 tok"],
        ["▼ −0.71", "−1.00", "<i>no</i>⏎", "3 tok ✂ cut"],
    ]
    bars = [bar["style"] for bar in page.select("td.bar b")]
    assert bars == ["left:50.0%;width:50.0%", "left:0.0%;width:50.0%"]
    assert page.h3.contents[0] == "3 < 4 <b>?"


def test_groups_without_signal_are_flagged() -> None:
    page = soup(trace(GroupStep(1, (MIXED, EQUAL), 2)))
    (group,) = page.select(".group.silent")
    assert "✗ no signal: every reward is 1.00" in group.text
    assert [cell.text for cell in group.select("td.flat")] == ["● 0.00", "● 0.00"]
    assert "(empty)" in group.text
    assert "50%of them without signal" in page.select_one(".ft-stat").text


def test_the_ends_of_the_run_are_open_and_the_middle_is_folded() -> None:
    page = soup(trace(*(GroupStep(n, (MIXED,), 4) for n in (1, 5, 9))))
    opened = [part.summary.text for part in page.select("details") if part.has_attr("open")]
    assert [text.split(" · ")[0] for text in opened] == ["step 1", "step 9"]
    assert "(4 were sampled)" in opened[0]


def test_the_settings_of_the_run_stand_beside_the_title() -> None:
    page = soup(trace(GroupStep(1, (MIXED,), 1), beta=0.04, scale="none"))
    text = page.select_one(".ft-ctl").text
    assert text == "reward 1 × right · β 0.04 · loss dapo · divided by std: none"
    rloo = GroupTrace("rloo", 2, {"right": 1.0}, beta=0.05, steps=[GroupStep(1, (EQUAL,), 1)])
    assert "takes β · KL off each reward first" in soup(rloo).select_one(".ft-say").text


def test_a_trace_without_steps_says_what_to_do() -> None:
    assert "call trainer.train()" in soup(trace()).text


def test_long_answers_are_shortened() -> None:
    page = soup(trace(GroupStep(1, (Group("?", (answer(0, 0, "a" * 999),) * 2),), 1)))
    assert page.select("tbody td")[2].text == "a" * 400 + "…"


def test_of_a_long_run_some_steps_are_drawn_and_the_ends_among_them() -> None:
    page = soup(trace(*(GroupStep(n, (MIXED,), 1) for n in range(1, 101))))
    steps = [int(part.summary.text.split()[1]) for part in page.select("details")]
    assert (len(steps), steps[0], steps[-1]) == (12, 1, 100)
    assert "88 more steps are recorded" in page.text
