"""The PPO stepper without a browser: its state, what it leaves in a notebook, its own page."""

import json
import re

import pytest
from bs4 import BeautifulSoup
from ipywidgets import Widget
from ipywidgets.widgets.widget import _instances
from ppo_traces import trace

import ftkit
from ftkit.records import PPOTrace, Start, ppo_store
from ftkit.views.ppo_stepper import TITLES
from ftkit.widgets import PPOStepper
from ftkit.widgets import ppo_stepper as module

VIEW_MIME = "application/vnd.jupyter.widget-view+json"
SCRIPT = (module._HERE / "ppo_stepper.js").read_text(encoding="utf-8")


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """One recorded trace, as if ftkit shipped it."""
    monkeypatch.setattr(ppo_store, "presets_folder", lambda: tmp_path)
    made = trace(2)
    made.title, made.say, made.start = "KL explosion", "Look at the KL.", Start(2, 1, "kl", 3)
    made.look, made.cure = "In the KL.", "A leash."
    made.save(tmp_path / "kl-explosion")


def test_it_opens_at_the_first_iteration_or_where_it_is_told():
    stepper = PPOStepper(trace())
    assert (stepper.iteration, stepper.row, stepper.phase, stepper.step) == (1, 0, "rollout", 0)
    assert PPOStepper(trace(), iteration=3, row=2).row == 2
    made = trace()
    made.start = Start(2, 1, "gae")
    stepper = PPOStepper(made)
    assert (stepper.iteration, stepper.row, stepper.phase) == (2, 1, "gae")


@pytest.mark.parametrize(
    ("made", "options", "says"),
    [
        (PPOTrace(), {}, "the trace is empty"),
        (trace(), {"iteration": 9}, "it holds 1, 2, 3"),
        (trace(), {"row": 4}, "rows 0 to 3, not 4"),
    ],
)
def test_what_cannot_be_shown_is_named(made, options, says):
    with pytest.raises(ValueError, match=says):
        PPOStepper(made, **options)


def test_picture_and_table_follow_the_place():
    made = trace()
    stepper = PPOStepper(made)
    stepper.iteration, stepper.row = 3, 1
    assert "iteration <b>3</b>" in stepper.to_html()
    assert stepper.to_pandas().equals(made.to_pandas(3, 1))
    stepper.iteration = 99
    assert "iteration <b>3</b>" in stepper.to_html(), "the nearest, as in the browser"


def test_without_presets_nothing_is_offered():
    stepper = PPOStepper(trace(), presets=False)
    assert json.loads(stepper._presets) == {}
    assert "recorded runs" not in stepper.to_html()


@pytest.mark.usefixtures("shipped")
def test_presets_are_offered_and_open_where_they_say():
    assert PPOStepper.presets() == ("kl-explosion",)
    stepper = PPOStepper(trace(3))
    assert json.loads(stepper._presets)["kl-explosion"]["start"] == [2, 1, "kl", 3]
    stepper.preset = "kl-explosion"
    assert "PPO stepper: KL explosion" in stepper.to_html()
    opened = PPOStepper.from_preset("kl-explosion")
    assert (opened.phase, opened.step) == ("kl", 3)


@pytest.mark.usefixtures("shipped")
def test_the_still_picture_tells_the_recorded_runs_below():
    stepper = PPOStepper(trace(3))
    soup = BeautifulSoup(stepper.to_html(), "html.parser")
    (told,) = soup.select(".ft-others details")
    assert told.summary.get_text() == "✗ KL explosion"
    assert [dd.get_text() for dd in told.select("dd")] == [
        "Look at the KL.",
        "In the KL.",
        "A leash.",
    ]
    assert told.select(".ft-spark")
    stepper.preset = "kl-explosion"
    assert "✗ KL explosion" not in stepper.to_html(), "it is the one that is shown"


def test_static_mode_leaves_no_widget_behind(monkeypatch):
    monkeypatch.setenv("FTKIT_STATIC", "1")
    before = dict(_instances)
    bundle = PPOStepper(trace())._repr_mimebundle_()
    assert sorted(bundle) == ["text/html", "text/plain"]
    assert "<script" not in bundle["text/html"]
    assert _instances == before


def test_live_mode_brings_the_view_and_both_fallbacks():
    ftkit.display("widget")
    try:
        data, _ = PPOStepper(trace())._repr_mimebundle_()
    finally:
        ftkit.display("auto")
        Widget.close_all()
    assert sorted(data) == sorted([VIEW_MIME, "text/html", "text/plain"])
    assert "iteration 1, row 0" in data["text/plain"]


def test_the_page_of_its_own_is_whole_offline_and_safe(tmp_path):
    made = trace()
    made.title = "</script><script>alert(1)</script>"
    path = PPOStepper(made).save_html(tmp_path / "new" / "page.html")
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=|url\(|@import|https?://(?!www\.w3\.org/2000/svg)""", text)
    soup = BeautifulSoup(text, "html.parser")
    assert [s.get("type") for s in soup.find_all("script")] == ["application/json", "module"]
    state = json.loads(soup.find(id="state").string)
    assert json.loads(state["_data"])["title"] == made.title
    assert soup.noscript.select(".ft-trace")


def test_the_script_uses_only_traits_that_exist_and_never_html():
    shared = json.loads(re.search(r"const SHARED = (\[.*\]);", SCRIPT).group(1))
    used = {*shared, *re.findall(r'model\.get\("(\w+)"\)', SCRIPT)}
    assert {"_data", "_presets"} <= used
    assert used <= set(PPOStepper.class_traits(sync=True))
    assert not re.search(r"innerHTML|insertAdjacentHTML|outerHTML|import |eval\(", SCRIPT)
    assert "</script" not in SCRIPT


def test_script_and_python_name_the_same_phases():
    keys = re.findall(r'key: "(\w+)", title: "([^"]+)"', SCRIPT)
    assert dict(keys) == TITLES
