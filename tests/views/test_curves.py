"""Curves are drawn completely, in groups, escaped, with gaps and bands that can be seen."""

import re
import subprocess
import sys
from math import inf, nan
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from ftkit.records import RunHistory
from ftkit.records.metric_guide import METHODS
from ftkit.views import curves, plot, to_html
from ftkit.views.curves_figure import figure
from ftkit.views.plot import Series


def run(method="sft", **keys) -> RunHistory:
    """Return a history with one curve a key, logged at steps 1, 2, 3, …"""
    history = RunHistory(method, max_steps=10)
    for i in range(max(len(v) for v in keys.values())):
        history.append(i + 1, {k: v[i] for k, v in keys.items() if i < len(v)}, seconds=i * 60.0)
    return history


def names(html: str) -> list[str]:
    return re.findall(r"</span><code>([^<]*)</code></header>", html)


def test_every_logged_key_is_in_the_picture():
    keys = {
        "loss": [3.0, 2.0],
        "grad_norm": [1.0, 1.0],
        "clip_ratio/low_min": [0.0, 0.0],
        "rewards/my_func/mean": [0.1, 0.2],
        "something_new": [1.0, 2.0],
        "epoch": [0.1, 0.2],
        "train_runtime": [12.5],
    }
    html = to_html(run("grpo", **keys))
    for key in keys:
        assert f"<code>{key}</code>" in html


def test_loss_comes_first_and_bookkeeping_last_and_folded():
    html = to_html(run(epoch=[0.1, 0.2], entropy=[1.0, 1.0], learning_rate=[1.0, 1.0], loss=[2, 1]))
    assert names(html) == ["loss", "entropy", "learning_rate", "epoch"]
    assert html.index("<details>") > html.index("<code>entropy")
    assert html.index("<details>") < html.index("<code>learning_rate")


def test_held_out_points_share_the_panel_with_another_mark():
    history = run(loss=[3.0, 2.0, 1.0])
    history.append(3, {"eval_loss": 1.7})
    html = to_html(history)
    assert names(html) == ["loss"]
    assert 'class="s1 dm"' in html
    assert "◇ 1.7" in html
    assert "held-out (eval)" in html


def test_a_minor_metric_is_folded_until_it_leaves_its_band():
    calm = {"reward": [1.0] * 3, "clip_ratio/low_min": [0.0] * 3}
    assert "More metrics (1)" in to_html(run("grpo", **calm))
    assert "More metrics" not in to_html(run("grpo", **calm | {"clip_ratio/low_min": [0.9] * 3}))


def test_what_leaves_its_band_is_told_in_words_and_with_a_symbol():
    html = to_html(run("grpo", entropy=[0.01] * 4))
    assert 'class="ft-plot warning"' in html
    assert html.count("! look here") == 2, "once on top and once under the plot"
    assert "exploration ends" in html
    assert "all healthy" in to_html(run("grpo", entropy=[1.0] * 4))


def test_nan_and_infinity_are_marked_gaps():
    html = to_html(run(loss=[3.0, nan, 2.0, inf, 1.0, nan]))
    assert "NaN ×3" in html
    assert "✗ stop" in html
    plotted = html.partition('class="ft-key"')[0]
    (path,) = re.findall(r'class="nx" d="([^"]*)"', plotted)
    assert path.count("l6 6") == 3
    (line,) = re.findall(r'class="ln s0" d="([^"]*)"', plotted)
    assert line.count("M") == 3, "the line is broken at each gap"


def test_a_curve_of_nothing_but_nan_is_drawn():
    html = to_html(run(loss=[nan, nan]))
    assert "NaN ×2" in html


def test_names_from_outside_are_escaped():
    history = run("grpo", **{"rewards/<script>alert(1)</script>/mean": [1.0, 2.0]})
    history.append(3, {"<b>x": "text"})
    html = to_html(history)
    assert "<script>" not in html
    assert "<b>x" not in html
    assert "&lt;b&gt;x (str)" in html


def test_each_svg_is_well_formed_and_speaks():
    html = to_html(run("dpo", loss=[0.69, 0.6, 0.5], **{"rewards/margins": [0.0, 0.1, 0.2]}))
    drawn = re.findall(r'<svg viewBox="0 0 300.*?</svg>', html)
    assert len(drawn) == 2
    for text in drawn:
        root = ElementTree.fromstring(text)
        assert root.get("role") == "img"
        assert "over optimizer steps" in root.findtext("title")
        assert "optimizer step" in [t.text for t in root.iter("text")]


def test_rounds_are_called_rounds():
    history = run("ppo", **{"objective/kl": [0.0, 0.5, 1.0]})
    html = to_html(history)
    axes = ElementTree.fromstring(re.search(r'<svg viewBox="0 0 300.*?</svg>', html).group())
    assert "round" in [t.text for t in axes.iter("text")]
    assert "over rounds" in axes.findtext("title")
    assert "round 3" in html
    assert figure(history).axes[0].get_xlabel() == "round"
    assert "optimizer step" not in html


def test_an_empty_history_says_so():
    assert "Nothing logged yet" in to_html(RunHistory())


def test_long_curves_stay_small_and_keep_their_extremes():
    values = [1.0] * 5000
    values[2345] = 50.0
    svg = plot.svg(
        [Series("train", tuple(enumerate(values)))], unit="u", title="t", band=(0.0, 2.0)
    )
    assert len(svg) < 20_000
    top = plot.scale_of([Series("train", tuple(enumerate(values)))]).py(50.0)
    assert f" {top:.1f}" in svg, "the one spike is still drawn"


def test_one_point_and_a_flat_curve_have_a_scale():
    for points in [((5, 0.0),), ((5, 7.0),), ((1, 2.0), (2, 2.0))]:
        scale = plot.scale_of([Series("train", points)])
        assert scale.x[0] <= points[0][0] <= scale.x[1]
        assert scale.x[0] < scale.x[1]
        assert scale.y[0] < points[0][1] < scale.y[1]


def test_a_near_band_edge_is_brought_into_view_and_a_far_one_is_not():
    near = plot.scale_of([Series("train", ((1, 0.1), (2, 0.3)))], (0.0, 0.35))
    assert near.y[0] < 0.0
    assert near.y[1] > 0.35
    far = plot.scale_of([Series("train", ((1, 0.1), (2, 0.3)))], (0.0, 20.0))
    assert far.y[1] < 1.0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.23456, "1.23"),
        (12345.6, "12,346"),
        (4.2e6, "4.2M"),
        (6.1e13, "61T"),
        (2e-5, "2e−5"),
        (-1.5, "−1.5"),
        (nan, "NaN"),
        (-inf, "−∞"),
    ],
)
def test_numbers_are_short(value, text):
    assert plot.number(value) == text


def test_ticks_are_round_and_inside():
    assert plot.ticks(0.0, 1.0) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert plot.ticks(-3.0, 61.0) == [0, 20, 40, 60]


def test_the_running_mean_leaves_gaps_alone():
    assert plot.running_mean([1.0, 2.0, 3.0], 3) == [1.5, 2.0, 2.5]
    means = plot.running_mean([1.0, nan, 3.0], 3)
    assert means[0] == 1.0
    assert means[1] != means[1]


def test_durations_and_progress_read_as_words():
    assert curves.duration(2.94) == "2.9 s"
    assert curves.duration(125) == "2 min 5 s"
    assert curves.duration(7260) == "2 h 1 min"
    html = curves.progress(["step 2 of <8>", "later"], 0.25)
    assert "width:25.0%" in html
    assert "step 2 of &lt;8&gt;" in html


def test_the_figure_has_one_axes_a_metric_with_units():
    history = run(loss=[3.0, nan, 1.0], entropy=[1.0, 1.0, 1.0], epoch=[0.1, 0.2, 0.3])
    history.append(3, {"eval_loss": 1.7})
    drawn = figure(history, columns=2, theme="dark")
    assert isinstance(drawn, Figure)
    loss, entropy = drawn.axes
    assert loss.get_title(loc="left") == "loss\ntrain 1, eval 1.7"
    assert (loss.get_xlabel(), loss.get_ylabel()) == ("optimizer step", "nats/token")
    assert entropy.get_title(loc="left").startswith("entropy")
    assert any(line.get_marker() == "x" and list(line.get_xdata()) == [2] for line in loss.lines)


def test_the_figure_draws_chosen_keys_or_says_what_there_is():
    history = run(loss=[3.0, 2.0], learning_rate=[1.0, 0.5])
    assert len(figure(history, keys=["learning_rate"], columns=1).axes) == 1
    with pytest.raises(ValueError, match="no metric lr to draw; logged: loss, learning_rate"):
        figure(history, keys=["lr"])
    with pytest.raises(ValueError, match="logged: nothing"):
        figure(RunHistory())


def test_a_band_out_of_view_is_not_drawn():
    drawn = figure(run("grpo", entropy=[90.0, 91.0]))
    assert not drawn.axes[0].patches
    assert "healthy</text>" not in to_html(run("grpo", entropy=[90.0, 91.0]))


@pytest.mark.parametrize("method", METHODS)
def test_every_trainer_has_a_title(method):
    history = RunHistory(method=method)
    history.append(1, {"loss": 1.0}, seconds=1.0)
    assert "<h2>" in to_html(history)


def test_a_figure_shows_itself_without_pyplot() -> None:
    check = (
        "import sys\n"
        "from IPython.core.formatters import DisplayFormatter\n"
        "from ftkit.records import RunHistory\n"
        "from ftkit.views.curves_figure import figure\n"
        "history = RunHistory('sft')\n"
        "history.append(1, {'loss': 2.0})\n"
        "shown, _ = DisplayFormatter().format(figure(history))\n"
        "assert shown['image/png'].startswith(b'\\x89PNG')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
