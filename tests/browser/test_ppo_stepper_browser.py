"""The PPO stepper in a real JupyterLab and as a page of its own, walked with the keyboard.

Every number on the screen is held against the recorded trace.
"""

import re

import pytest
from nbformat.v4 import new_code_cell
from playwright.sync_api import Locator, expect
from ppo_traces import BETA, GAMMA, LAM, full_size_trace, trace

from ftkit.records import Start
from ftkit.views.ppo_arithmetic import signed
from ftkit.widgets import PPOStepper

CODE = "from ftkit.records import PPOTrace\nfrom ftkit.widgets import PPOStepper\n"


@pytest.fixture
def made():
    return trace(12)


@pytest.fixture
def notebook(lab, open_notebook, made):
    made.save(lab.folder / "recorded")
    source = CODE + "stepper = PPOStepper(PPOTrace.load('recorded'))\nstepper"
    name = lab.add("ppo.ipynb", [new_code_cell(source), new_code_cell("print('later')")])
    opened = open_notebook(name)
    opened.run_all()
    return opened


def open_page(page, folder, stepper) -> Locator:
    page.goto(stepper.save_html(folder / "stepper.html").as_uri())
    expect(page.locator(".ft-stage")).to_be_visible()
    return page.locator(".ft-ppo")


def here(stepper: Locator, label: str) -> str:
    """Text of the current column in the row that starts with `label`."""
    row = stepper.locator(".ft-trace tbody tr").filter(has=stepper.page.get_by_text(label)).first
    return row.locator("td.cur").inner_text().strip()


def numbers(text: str) -> list[float]:
    return [float(x.replace("−", "-")) for x in re.findall(r"[+−]?\d+\.\d+", text)]


def press(stepper: Locator, key: str, times: int = 1) -> None:
    for _ in range(times):
        stepper.page.keyboard.press(key)


def test_gae_by_keyboard_shows_the_recorded_numbers(notebook, made) -> None:
    stepper = notebook.output(0).locator(".ft-ppo")
    stage = stepper.locator(".ft-stage")
    stage.focus()
    press(stepper, "ArrowDown", 4)
    expect(stepper.locator(".ft-phases [aria-current]")).to_have_text("5GAE")
    one = made.at(1)
    for t in range(7, -1, -1):
        expect(stepper.locator("th.cur .no")).to_have_text(str(t))
        assert here(stepper, "value V") == signed(one.values[0, t])
        assert here(stepper, "advantage") == signed(one.advantages[0, t])
        assert here(stepper, "return R") == signed(one.returns[0, t])
        check_arithmetic(stepper.locator(".ft-tally").inner_text(), one, t)
        expect(stepper.locator(".ft-agree")).to_have_count(2)
        expect(stepper.locator(".ft-agree.off")).to_have_count(0)
        press(stepper, "ArrowRight")
    expect(stepper.locator(".ft-say")).to_contain_text("Whitening")
    press(stepper, "ArrowRight")
    expect(stepper.locator(".ft-phases [aria-current]")).to_have_text("6Update")
    press(stepper, "ArrowLeft")
    expect(stepper.locator(".ft-say")).to_contain_text("Whitening")
    photograph(notebook, stepper)


def check_arithmetic(text: str, one, t: int) -> None:
    """The line says δ = r + γ·V' − V and Â = δ + γλ·Â', with recorded numbers on the right."""
    last = t == 7
    delta, advantage = re.split("R\\d", text)[0].split("Â", 1)
    following = 0.0 if last else float(one.values[0, t + 1])
    later = 0.0 if last else float(one.advantages[0, t + 1])
    reward, value = float(one.rewards[0, t]), float(one.values[0, t])
    expected = reward + GAMMA * following - value
    assert numbers(delta)[-1] == pytest.approx(expected, abs=1e-4)
    assert numbers(delta)[0] == pytest.approx(reward, abs=1e-4)
    assert numbers(advantage)[-2] == pytest.approx(expected + GAMMA * LAM * later, abs=1e-4)
    assert numbers(advantage)[-1] == pytest.approx(float(one.advantages[0, t]), abs=1e-4)


def photograph(notebook, stepper: Locator) -> None:
    for theme in ("light", "dark"):
        notebook.page.evaluate(
            "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})",
            f"JupyterLab {theme.title()}",
        )
        light = "true" if theme == "light" else "false"
        expect(notebook.page.locator("body")).to_have_attribute("data-jp-theme-light", light)
        for width in (1400, 800):
            notebook.resize(width, 1600)
            for phase in ("gae", "update"):
                stepper.locator(".ft-phases button").nth(4 if phase == "gae" else 5).click()
                stepper.locator(".ft-stage").focus()
                press(stepper, "ArrowRight", 4 if phase == "gae" else 2)
                notebook.screenshot(f"ppo-{phase}-{theme}-{width}", of=stepper)


def test_what_the_reader_chose_reaches_python_and_back(lab, open_notebook, made) -> None:
    made.save(lab.folder / "recorded")
    cells = [
        new_code_cell(CODE + "stepper = PPOStepper(PPOTrace.load('recorded'))\nstepper"),
        new_code_cell("stepper.iteration, stepper.row, stepper.phase = 7, 2, 'values'"),
    ]
    notebook = open_notebook(lab.add("place.ipynb", cells))
    notebook.run_all()
    stepper = notebook.output(0).locator(".ft-ppo")
    expect(stepper.locator("output")).to_have_text("7 / 12")
    expect(stepper.locator(".ft-phases [aria-current]")).to_have_text("4Values")
    expect(stepper.get_by_label("sample")).to_have_value("2")


def test_the_page_of_its_own_steps_through_all_phases(page, tmp_path, made) -> None:
    stepper = open_page(page, tmp_path, PPOStepper(made, iteration=3, row=1))
    stepper.locator(".ft-stage").focus()
    one, seen = made.at(3), []
    for _ in range(5 + 1 + 5 + 1 + 6 + 4):
        seen.append(stepper.locator(".ft-phases [aria-current]").inner_text()[0])
        press(stepper, "ArrowRight")
    assert "".join(seen) == "1" * 5 + "2" + "3" * 5 + "4" + "5" * 6 + "6" * 4
    expect(stepper.get_by_label("step forward (→)")).to_be_disabled()
    cells = stepper.locator(".ft-trace tr").filter(has_text="gradient").locator("td")
    flags = [("clipped" in text) for text in cells.all_inner_texts()]
    assert flags == list(one.updates[3].clipped[0, :5])
    assert stepper.locator(".ft-clip .dot").count() == 5
    assert stepper.locator(".ft-clip .dot.cut").count() == sum(flags)


def test_the_roles_that_a_phase_uses_light_up(page, tmp_path, made) -> None:
    """What runs, whose numbers are used and what is trained, by words as well as by colour."""
    stepper = open_page(page, tmp_path, PPOStepper(made))
    expected = [
        {"Actor": "runs"},
        {"Reward": "runs"},
        {"Actor": "its numbers", "Reward": "its numbers", "Reference": "runs"},
        {"Critic": "runs"},
        {"Critic": "its numbers", "Reward": "its numbers"},
        {"Actor": "trained", "Critic": "trained"},
    ]
    roles = stepper.locator(".ft-role")
    for phase, lit in enumerate(expected):
        stepper.locator(".ft-phases button").nth(phase).click()
        expect(roles).to_have_count(4)
        shown = {
            box.locator("b").inner_text(): box.locator("em").inner_text()
            for box in roles.filter(has=page.locator("em")).all()
        }
        assert shown == lit
        plain = roles.filter(has_not=page.locator("em")).first
        for box in roles.filter(has=page.locator("em")).all():
            assert style(box) != style(plain)


def style(box: Locator) -> str:
    return box.evaluate("box => getComputedStyle(box).borderColor + getComputedStyle(box).opacity")


def test_kl_and_reward_are_written_out(page, tmp_path, made) -> None:
    stepper = open_page(page, tmp_path, PPOStepper(made, iteration=2))
    stepper.locator(".ft-phases button").nth(2).click()
    stepper.locator(".ft-stage").focus()
    press(stepper, "End")
    one, text = made.at(2), stepper.locator(".ft-tally").inner_text()
    assert "✗" not in text
    score = float(one.scores[0])
    expected = -BETA * float(one.kl[0, 7]) + score
    assert numbers(text.split("r7")[1])[-1] == pytest.approx(expected, abs=1e-4)
    assert here(stepper, "reward r") == signed(one.rewards[0, 7])


def test_a_number_that_disagrees_is_marked_by_words_too(page, tmp_path, made) -> None:
    made.at(1).advantages[0, 7] += 0.05
    stepper = open_page(page, tmp_path, PPOStepper(made))
    stepper.locator(".ft-phases button").nth(4).click()
    expect(stepper.locator(".ft-agree.off").first).to_contain_text("they differ")


def test_iteration_and_sample_keep_the_phase(page, tmp_path, made) -> None:
    stepper = open_page(page, tmp_path, PPOStepper(made))
    stepper.locator(".ft-phases button").nth(3).click()
    stepper.get_by_role("slider").focus()
    press(stepper, "End")
    expect(stepper.locator("output")).to_have_text("12 / 12")
    stepper.get_by_label("sample").select_option("3")
    expect(stepper.locator(".ft-phases [aria-current]")).to_have_text("4Values")
    shown = stepper.locator(".ft-trace tr").filter(has_text="value V").locator("td")
    assert shown.all_inner_texts() == [signed(x) for x in made.at(12).values[3, :2]]


def test_play_walks_on_by_itself_and_any_step_pauses(page, tmp_path, made) -> None:
    stepper = open_page(page, tmp_path, PPOStepper(made))
    play = stepper.locator(".ft-primary")
    play.click()
    expect(play).to_have_text("❚❚ pause")
    expect(stepper.locator("th.cur .no")).to_have_text("2", timeout=10_000)
    stepper.locator(".ft-stage").focus()
    press(stepper, "Home")
    expect(play).to_have_text("▶ play")
    expect(stepper.locator("th.cur .no")).to_have_text("0")
    press(stepper, "Space")
    expect(play).to_have_text("❚❚ pause")
    press(stepper, "Space")
    expect(play).to_have_text("▶ play")


def test_who_asks_for_less_motion_steps_by_hand(page, tmp_path, made) -> None:
    page.emulate_media(reduced_motion="reduce")
    stepper = open_page(page, tmp_path, PPOStepper(made))
    expect(stepper.locator(".ft-primary")).to_be_disabled()
    stepper.locator(".ft-stage").focus()
    press(stepper, "ArrowRight")
    expect(stepper.locator("th.cur .no")).to_have_text("1")


def test_recorded_text_stays_text(page, tmp_path, made) -> None:
    stepper = open_page(page, tmp_path, PPOStepper(made, row=1))
    stepper.locator(".ft-phases button").nth(1).click()
    assert stepper.locator(".ft-trace thead code").all_inner_texts() == [
        *("<b>", "Hi", "</b>", "⏎", "<|im_end|>")
    ]
    assert stepper.locator(".ft-trace thead b").count() == 0


def test_presets_appear_in_a_picker_and_open_where_they_say(page, tmp_path, made) -> None:
    preset = trace(3)
    preset.title, preset.say, preset.start = "KL explosion", "Look at it.", Start(2, 1, "kl", 2)
    preset.cure = "A leash."
    stepper = PPOStepper(made, presets=False)
    alone = open_page(page, tmp_path, stepper)
    expect(alone.get_by_role("group", name="recorded runs")).to_be_hidden()
    expect(alone.locator(".ft-story")).to_be_hidden()
    stepper._presets = f'{{"kl":{PPOStepper(preset, presets=False)._data}}}'
    shown = open_page(page, tmp_path, stepper)
    shown.get_by_role("button", name="✗ KL explosion").click()
    expect(shown.locator("h2")).to_have_text("PPO stepper: KL explosion")
    expect(shown.locator(".ft-story dd")).to_have_text(["Look at it.", "A leash."])
    expect(shown.locator("output")).to_have_text("2 / 3")
    expect(shown.locator(".ft-phases [aria-current]")).to_have_text("3KL → reward")
    expect(shown.locator("th.cur .no")).to_have_text("2")
    shown.get_by_role("button", name="this run").click()
    expect(shown.locator("output")).to_have_text("1 / 12")


def test_the_curves_of_the_run_lead_to_an_iteration(page, tmp_path, made) -> None:
    stepper = open_page(page, tmp_path, PPOStepper(made, presets=False))
    kl = stepper.locator(".ft-spark").filter(has_text="objective/kl")
    box = kl.locator("svg").bounding_box()
    kl.locator("svg").click(position={"x": box["width"] - 4, "y": box["height"] / 2})
    expect(stepper.locator("output")).to_have_text("12 / 12")
    shown = float(kl.locator("b").inner_text().replace("−", "-"))
    assert shown == pytest.approx(made.at(12).metrics["objective/kl"], rel=5e-3)
    stepper.locator(".ft-stage").focus()
    press(stepper, "ArrowDown")
    expect(stepper.locator(".ft-phases [aria-current]")).to_have_text("2Score")


def test_recorded_failures_show_their_fault_where_they_open(page, tmp_path, made) -> None:
    stepper = open_page(page, tmp_path, PPOStepper(made))
    stepper.get_by_role("button", name="sampler is not the scorer").click()
    expect(stepper.locator(".ft-say")).to_contain_text("is not the one that is scored")
    stepper.get_by_role("button", name="whitening over padding").click()
    expect(stepper.locator(".ft-agree.off")).to_contain_text("they differ")
    expect(stepper.locator(".ft-say")).to_contain_text("not taken over the real tokens alone")


def test_a_long_answer_scrolls_to_the_current_token(page, tmp_path) -> None:
    page.set_viewport_size({"width": 800, "height": 900})
    stepper = open_page(page, tmp_path, PPOStepper(full_size_trace()))
    stepper.locator(".ft-stage").focus()
    press(stepper, "ArrowDown", 4)
    frame = stepper.locator(".ft-scroll").first.bounding_box()
    for t in (23, 0, 1):
        press(stepper, "Home" if t == 23 else "ArrowLeft" if t == 1 else "End")
        if t == 0:
            press(stepper, "ArrowLeft")  # the last step is the whitening, which has no token
        expect(stepper.locator("th.cur .no")).to_have_text(str(t))
        box = stepper.locator("th.cur").bounding_box()
        assert box["x"] >= frame["x"]
        assert box["x"] + box["width"] <= frame["x"] + frame["width"] + 1
