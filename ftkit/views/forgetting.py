"""The forgetting study as one card: learned against forgotten, a mark a strategy, and a table.

A mark is the mean over seeds, the cross through it reaches from the lowest to the highest seed,
and the small dots are the seeds. Left out: runs whose loss is no number; the table names them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import exp, isfinite

from ftkit.records.forgetting import FAMILIES, Family, ForgettingResult, Summary
from ftkit.views._registry import to_html
from ftkit.views.plot import axis_names, levels, number, ticks
from ftkit.views.style import card, css, stat
from ftkit.views.table import rows_html

_WIDTH, _HEIGHT = 760, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 744, 14, 352
_LETTER, _LINE = 6.9, 15  # size of a label's letter and line, in picture units
_SHAPES: dict[Family, str] = {
    "nothing": "M{x:.1f} {y:.1f}m-5 -5l10 10m0 -10l-10 10",
    "full": "M{x:.1f} {y:.1f}m-5.5 0a5.5 5.5 0 1 0 11 0a5.5 5.5 0 1 0 -11 0",
    "held back": "M{x:.1f} {y:.1f}m0 -7l7 7l-7 7l-7 -7z",
    "few layers": "M{x:.1f} {y:.1f}m-5 -5h10v10h-10z",
    "lora": "M{x:.1f} {y:.1f}m0 -7l6.5 11.5h-13z",
}
_SAYS: dict[Family, str] = {
    "nothing": "no training",
    "full": "all weights",
    "held back": "all weights, held back",
    "few layers": "few layers",
    "lora": "LoRA",
}


@to_html.register
def forgetting_html(record: ForgettingResult) -> str:
    """Return the card of a study."""
    shown = [s for s in record.summaries() if _finite(s)]
    body = _stats(record) + (_key(shown) + _svg(record, shown) if shown else "") + _table(record)
    return css("forgetting") + card(
        f"Learned against forgotten: {record.domain}",
        f'<div class="ft-forget">{body}</div>',
        say="The best place is the lower right corner: much learned, nothing forgotten. A nat a "
        "token is a factor of e in perplexity; differences smaller than the crosses are luck.",
    )


def _finite(summary: Summary) -> bool:
    return isfinite(summary.learned.mean) and isfinite(summary.forgotten.mean)


def _stats(record: ForgettingResult) -> str:
    start = record.start
    quiz = ""
    if record.quiz_questions:
        right = round(start.quiz_accuracy * record.quiz_questions)
        quiz = stat(f"{right} of {record.quiz_questions}", "quiz questions right")
    return (
        '<div class="ft-stat">'
        + stat(f"{_perplexity(start.domain_loss)}", f"perplexity before: {record.domain}")
        + stat(f"{_perplexity(start.general_loss)}", record.general)
        + quiz
        + "</div>"
    )


def _perplexity(loss: float) -> str:
    return number(exp(min(loss, 700.0))) if isfinite(loss) else "NaN"


def _key(shown: Sequence[Summary]) -> str:
    """The shapes in words, for those families that are there."""
    there = {s.runs[0].family for s in shown}
    entries = "".join(
        f'<span><svg viewBox="0 0 18 18" aria-hidden="true">{_mark(family, 9, 9)}</svg>'
        f"{escape(_SAYS[family])}</span>"
        for family in FAMILIES
        if family in there
    )
    return f'<div class="ft-forgetkey">{entries}</div>'


# --- the plot --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Scale:
    xs: tuple[float, float]
    ys: tuple[float, float]

    def x(self, learned: float) -> float:
        return _LEFT + (learned - self.xs[0]) / (self.xs[1] - self.xs[0]) * (_RIGHT - _LEFT)

    def y(self, forgotten: float) -> float:
        return _BOTTOM - (forgotten - self.ys[0]) / (self.ys[1] - self.ys[0]) * (_BOTTOM - _TOP)


def _svg(record: ForgettingResult, shown: Sequence[Summary]) -> str:
    scale = _Scale(
        _reach([v for s in shown for v in (s.learned.low, s.learned.high)]),
        _reach([v for s in shown for v in (s.forgotten.low, s.forgotten.high)]),
    )
    points = "".join(_point(record, s, scale) for s in shown)
    spoken = "; ".join(
        f"{s.strategy}: learned {number(s.learned.mean)}, forgotten {number(s.forgotten.mean)}"
        for s in shown
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(spoken)}">'
        f"{_axes(record, scale)}{points}{_labels(shown, scale)}</svg>"
    )


def _reach(values: Sequence[float]) -> tuple[float, float]:
    """The range of an axis: 0 is always in it, and nothing touches the frame."""
    low, high = min([0.0, *values]), max([0.0, *values])
    pad = 0.12 * ((high - low) or 1.0)
    return low - pad, high + pad


def _axes(record: ForgettingResult, scale: _Scale) -> str:
    across = levels(ticks(*scale.ys, 5), scale.y, _LEFT, _RIGHT)
    along = "".join(
        f'<text x="{scale.x(v):.1f}" y="{_BOTTOM + 17}" text-anchor="middle">{number(v)}</text>'
        for v in ticks(*scale.xs, 6)
    )
    names = axis_names(
        f"learned: fall of the loss on {record.domain} (nats a token)",
        f"forgotten: rise on {record.general} (nats a token)",
        (_LEFT, _RIGHT, _TOP, _BOTTOM),
        _HEIGHT - 8,
        15,
    )
    return (
        f'{across}{along}<path class="ax" d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}"/>'
        f'<path class="zero" d="M{_LEFT} {scale.y(0):.1f}H{_RIGHT}M{scale.x(0):.1f} {_TOP}'
        f'V{_BOTTOM}"/><text class="corner" x="{_RIGHT - 8}" y="{_BOTTOM - 9}" '
        f'text-anchor="end">best: much learned, little forgotten ↘</text>{names}'
    )


def _point(record: ForgettingResult, summary: Summary, scale: _Scale) -> str:
    family = summary.runs[0].family
    learned, forgotten = summary.learned, summary.forgotten
    x, y = scale.x(learned.mean), scale.y(forgotten.mean)
    bars = seeds = ""
    if len(summary.runs) > 1:
        bars = (
            f'<path class="bar {_css(family)}" d="M{scale.x(learned.low):.1f} {y:.1f}'
            f"H{scale.x(learned.high):.1f}M{x:.1f} {scale.y(forgotten.low):.1f}"
            f'V{scale.y(forgotten.high):.1f}"/>'
        )
        seeds = "".join(
            f'<circle class="seed {_css(family)}" cx="{scale.x(record.learned(run)):.1f}" '
            f'cy="{scale.y(record.forgotten(run)):.1f}" r="2.4"/>'
            for run in summary.runs
        )
    title = f"{summary.strategy}: learned {learned}, forgotten {forgotten}"
    return f"<g><title>{escape(title)}</title>{bars}{seeds}{_mark(family, x, y)}</g>"


def _mark(family: Family, x: float, y: float) -> str:
    return f'<path class="mark {_css(family)}" d="{_SHAPES[family].format(x=x, y=y)}"/>'


def _css(family: Family) -> str:
    return f"k{FAMILIES.index(family)}"


def _labels(shown: Sequence[Summary], scale: _Scale) -> str:
    """Names beside the marks, each at the first of some places where nothing else stands."""
    centres = [(scale.x(s.learned.mean), scale.y(s.forgotten.mean)) for s in shown]
    taken = [(x - 8, y - 8, x + 8, y + 8) for x, y in centres]
    parts = []
    for summary, (x, y) in zip(shown, centres, strict=True):
        width = _LETTER * len(summary.strategy)
        boxes = [_box(x, y, width, right, rise) for rise in _RISES for right in (True, False)]
        inside = [b for b in boxes if b[0] > _LEFT and b[2] < _RIGHT and _TOP < b[1] < _BOTTOM - 14]
        free = [b for b in inside if not any(_overlap(b, other) for other in taken)]
        box = (free or inside or boxes)[0]
        taken.append(box)
        parts.append(_label(summary, x, y, box))
    return "".join(parts)


_Box = tuple[float, float, float, float]
_RISES = (0, -_LINE, _LINE, -2 * _LINE, 2 * _LINE, -3 * _LINE, 3 * _LINE, -4 * _LINE, 4 * _LINE)


def _box(x: float, y: float, width: float, right: bool, rise: float) -> _Box:
    left = x + 12 if right else x - 12 - width
    return left, y + rise - _LINE / 2, left + width, y + rise + _LINE / 2


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _label(summary: Summary, x: float, y: float, box: _Box) -> str:
    kind = _css(summary.runs[0].family)
    middle = (box[1] + box[3]) / 2
    side = box[0] - 2 if box[0] > x else box[2] + 2
    far = abs(middle - y) > 1
    leader = f'<path class="lead" d="M{x:.1f} {y:.1f}L{side:.1f} {middle:.1f}"/>' if far else ""
    return (
        f'{leader}<text class="label {kind}" x="{box[0]:.1f}" y="{middle + 4:.1f}">'
        f"{escape(summary.strategy)}</text>"
    )


# --- the table -------------------------------------------------------------------------------


def _table(record: ForgettingResult) -> str:
    columns = ["strategy", "seeds", "trained weights", "learned", "forgotten", "perplexity"]
    if record.quiz_questions:
        columns += ["quiz right", "p(right option)"]
    return rows_html(columns, [_cells(record, summary) for summary in record.summaries()])


def _cells(record: ForgettingResult, summary: Summary) -> list[object]:
    runs = summary.runs
    if not _finite(summary):
        blank = [""] * (3 if record.quiz_questions else 1)
        return [summary.strategy, len(runs), runs[0].trained, "diverged: NaN", *blank, ""]
    rise = record.start.general_loss + summary.forgotten.mean
    cells: list[object] = [
        *(summary.strategy, len(runs), runs[0].trained),
        *(str(summary.learned), str(summary.forgotten), _perplexity(rise)),
    ]
    if record.quiz_questions:
        accuracy = record.start.quiz_accuracy + summary.quiz.mean
        right = accuracy * record.quiz_questions
        confidence = record.start.quiz_confidence + summary.confidence.mean
        cells += [f"{number(round(right, 1))} of {record.quiz_questions}", f"{confidence:.3f}"]
    return cells
