"""The card and the figure of an ablation: states, escaping, marks and scales."""

import re
from dataclasses import replace

import pytest

from ftkit.records import AblationProgress, AblationResult, AblationTrial, Failure
from ftkit.records.intervals import Interval, interval
from ftkit.views import to_html
from ftkit.views.ablation_svg import WIDTH, row, scale_of


def result(seeds: int = 3, *, effect: float = 1.0, spread: float = 0.1) -> AblationResult:
    trials = tuple(
        AblationTrial(
            {"alpha": alpha, "mask": "all"},
            seed,
            "done",
            {"loss": 2 + seed + effect * alpha + spread * seed * alpha, "acc": 0.5 + seed / 10},
            1.5,
        )
        for seed in range(seeds)
        for alpha in (0, 1)
    )
    return AblationResult({"alpha": (0, 1), "mask": ("all",)}, trials[0].setting, trials, "m.run")


def with_trials(record: AblationResult, **changes: AblationTrial) -> AblationResult:
    trials = list(record.trials)
    for place, trial in changes.items():
        trials[int(place[1:])] = trial
    return replace(record, trials=tuple(trials))


def text_of(html: str) -> str:
    return re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", html, flags=re.S))


def test_each_state_has_its_own_mark_and_word() -> None:
    base = result()
    record = with_trials(
        base,
        t1=AblationTrial(base.trials[1].setting, 0, "failed", failure=Failure("E: x")),
        t2=AblationTrial(base.trials[2].setting, 1, "running"),
        t3=AblationTrial(base.trials[3].setting, 1, "waiting"),
    )
    html = to_html(record)
    for mark, state in (("✓ 3", "done"), ("✗ 1", "failed"), ("▶ 1", "running"), ("· 1", "waiting")):
        assert f"<b>{mark}</b> {state}" in html
    assert 'title="seed 0: failed, E: x"' in html
    assert 'title="seed 1: running"' in html
    assert 'title="seed 0: loss 2, acc 0.5 (1.5 s)"' in html


def test_everything_that_users_name_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    trials = (
        AblationTrial({evil: evil}, 0, "done", {evil: 1.0}, 1.0),
        AblationTrial({evil: evil + "2"}, 0, "failed", {}, 1.0, Failure(evil, evil)),
    )
    record = AblationResult({evil: (evil, evil + "2")}, {evil: evil}, trials, evil)
    for html in (to_html(record), to_html(AblationProgress(record, 1.0))):
        assert "<script" not in html
        assert "&lt;script&gt;" in html


def test_a_clear_difference_is_marked_by_shape_and_sign() -> None:
    clear, doubtful = to_html(result(effect=1.0)), to_html(result(effect=-0.1))
    assert "+1.10 ± 0.25 ▲" in clear
    assert 'class="mark clear"' in clear
    assert "1 of 1 differences have a 95% interval without 0" in clear
    assert "▲</b>" not in doubtful
    assert 'class="mark open"' in doubtful
    assert "−1.90 ± 0.25 ▼" in to_html(result(effect=-2.0))


def test_one_seed_shows_no_interval_and_says_why() -> None:
    html = to_html(result(seeds=1))
    assert "±" not in text_of(html).replace("± 95%", "")
    assert 'class="bar"' not in html
    assert "One seed a setting so far" in html


def test_a_function_that_ignores_its_seed_is_noticed() -> None:
    same = tuple(
        AblationTrial({"a": a}, s, "done", {"loss": 1.0 + a}, 1.0) for s in (0, 1) for a in (0, 1)
    )
    html = to_html(AblationResult({"a": (0, 1)}, {"a": 0}, same))
    assert "does the function use its seed?" in html
    assert "does the function use its seed?" not in to_html(result())


def test_other_metrics_are_one_click_away() -> None:
    html = to_html(result())
    assert "loss: mean ± 95%" in html
    assert "<details><summary>acc</summary>" in html
    assert "acc: mean ± 95%" in html


def test_equal_errors_are_told_once_with_how_to_retry() -> None:
    base = result()
    failed = {
        f"t{i}": replace(
            base.trials[i], state="failed", metrics={}, failure=Failure("E: x", "at y")
        )
        for i in (1, 3)
    }
    html = to_html(with_trials(base, **failed))
    assert html.count("<b>✗ 2 failed</b> E: x") == 1
    assert "alpha=1, seed 0; alpha=1, seed 1" in html
    assert "<pre>at y</pre>" in html
    assert "retry_failures(storage)" in html
    assert "retry_failures" not in to_html(base)


def test_the_live_table_says_how_far_and_how_long() -> None:
    base = result()
    record = with_trials(base, t5=AblationTrial(base.trials[5].setting, 2, "running"))
    html = to_html(AblationProgress(record, 61.0, (30.0, 40.0)))
    assert 'aria-valuenow="83"' in html
    for words in ("5 of 6", "1 min 1 s", "30 to 40 s left"):
        assert words in text_of(html)
    assert "measuring the pace" in to_html(AblationProgress(record, 1.0))
    assert "call again to go on" in to_html(AblationProgress(record, 1.0, stopped=True))
    assert "left" not in text_of(to_html(AblationProgress(base, 61.0))).replace("left_off", "")


def test_nothing_done_yet_is_a_table_too() -> None:
    base = result()
    waiting = tuple(AblationTrial(t.setting, t.seed) for t in base.trials)
    html = to_html(replace(base, trials=waiting))
    assert "Nothing is done yet." in html
    assert "<svg" not in html


def test_the_scale_holds_every_seed_and_cuts_wide_intervals() -> None:
    values, wide = [1.0, 1.1, 2.0], interval([1.0, 1.1])
    scale = scale_of(values, [wide, Interval(1.5, 50.0, 2)])
    assert scale.low < 1.0
    assert scale.high > 2.0
    assert scale.high - scale.low < 5.0
    places = [scale.px(v) for v in (*values, -100.0, 100.0)]
    assert all(0 <= x <= WIDTH for x in places)
    assert places[0] < places[1] < places[2]
    cut = row(values, Interval(1.5, 50.0, 2), scale, line=None, kind="clear", spoken="x")
    kept = row(values, Interval(1.5, 0.1, 2), scale, line=None, kind="clear", spoken="x")
    assert cut.count("l-4 4l4 4") == cut.count("l4 4l-4 4") == 1
    assert kept.count("v8") == 2


@pytest.mark.parametrize("values", [[0.0], [5.0], [-2.0, -2.0]])
def test_a_scale_of_equal_numbers_has_width(values: list[float]) -> None:
    scale = scale_of(values, [interval(values)])
    assert scale.low < min(values) <= max(values) < scale.high


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_figure_has_a_row_a_setting_with_labelled_axes(theme: str) -> None:
    left, right = result().plot("loss", theme=theme).axes
    assert [t.get_text() for t in left.get_yticklabels()] == ["alpha=0\nbaseline", "alpha=1"]
    assert left.get_xlabel() == "loss: mean and 95% interval over seeds"
    assert right.get_xlabel().startswith("loss minus baseline, same seed")


def marks(axes: object, marker: str) -> list[tuple[float, object]]:
    lines = axes.get_lines()  # type: ignore[attr-defined]
    large = [x for x in lines if x.get_marker() == marker and x.get_markersize() == 7]
    return [(float(x.get_xdata()[0]), x.get_markerfacecolor()) for x in large]


def test_the_figure_draws_the_summary_s_numbers() -> None:
    record = result()
    base, other = record.summary("loss")
    left, right = record.plot("loss").axes
    assert base.mean is not None
    assert other.mean is not None
    assert other.difference is not None
    assert [x for x, _ in marks(left, "s")] == [pytest.approx(base.mean.mean)]
    assert [x for x, _ in marks(left, "o")] == [pytest.approx(other.mean.mean)]
    ((x, clear_face),) = marks(right, "o")
    assert x == pytest.approx(other.difference.mean)
    ((_, open_face),) = marks(result(effect=-0.1).plot("loss").axes[1], "o")
    assert clear_face != open_face


def test_a_figure_of_one_seed_says_that_there_is_no_interval() -> None:
    left, _ = result(seeds=1).plot().axes
    assert left.get_xlabel() == "loss: one seed, so no interval"


def test_a_figure_of_nothing_is_refused() -> None:
    base = result()
    waiting = replace(base, trials=tuple(AblationTrial(t.setting, t.seed) for t in base.trials))
    with pytest.raises(ValueError, match="no trial is done"):
        waiting.plot()
