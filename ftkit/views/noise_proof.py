"""Is NEFTune on? Four passes of one batch, what each added, and where it fell."""

from html import escape
from math import isnan, sqrt

import numpy as np

from ftkit.records.noise import NoisePass, NoiseProof
from ftkit.views._registry import to_html
from ftkit.views.plot import axis_names, number, ticks
from ftkit.views.style import card, css, stat
from ftkit.views.table import rows_html
from ftkit.views.text import token_text

_WIDTH, _HEIGHT = 720, 168
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 712, 14, 126
_BINS = 48
_ROWS, _TOKENS = 3, 90  # drawn; a longer strip teaches no more


@to_html.register
def noise_proof_html(record: NoiseProof) -> str:
    """Return the card: verdict, the four passes, the values of the noise, and its tokens."""
    body = _stats(record) + _passes(record) + _histogram(record) + _strips(record)
    return css("neftune") + card(
        "The noise on the embeddings, read around the hook",
        f'<div class="ft-np">{body}</div>',
        aside=_chip(record),
        say="The noise is what the embedding gave to the model minus what it had looked up. "
        "Padding gets as much of it as the tokens that count.",
    )


def _chip(record: NoiseProof) -> str:
    word, _, why = record.verdict.partition(": ")
    kind, mark = ("yes", "✓") if record.live else ("no", "✗")
    return f'<span class="ft-npchip {kind}">{mark} {escape(word)}</span><span>{escape(why)}</span>'


def _stats(record: NoiseProof) -> str:
    first = record.of_mode(True)[0]
    alpha = "not set" if record.alpha is None else f"{record.alpha:g}"
    expected = (
        f", α/√(3L) is {number(record.alpha / sqrt(3 * record.length))}" if record.alpha else ""
    )
    whole = f", α/√3 is {number(record.alpha / sqrt(3))}" if record.alpha else ""
    return (
        '<div class="ft-stat">'
        + stat(alpha, "α")
        + stat(f"{record.batch} × {record.length}", "rows × L, padding included")
        + stat(number(float(first.token_l2.mean())), f"noise of a token (L2){expected}")
        + stat(number(float(first.row_l2.mean())), f"noise of a row{whole}")
        + "</div>"
    )


def _passes(record: NoiseProof) -> str:
    rows = []
    last: dict[bool, NoisePass] = {}
    for index, one in enumerate(record.passes, 1):
        before = last.get(one.training)
        same = before is not None and np.array_equal(before.noise, one.noise)
        verdict = "" if before is None else "= the same" if same else "≠ different"
        loss = "no labels" if isnan(one.loss) else f"{one.loss:.4f}"
        mode = "train" if one.training else "eval"
        size = number(one.largest)
        rows.append((str(index), mode, size, f"{one.token_l2.mean():.4f}", verdict, loss))
        last[one.training] = one
    columns = ("pass", "mode", "largest noise", "noise of a token (L2)", "against the one before",
               "loss, nats")  # fmt: skip
    return rows_html(columns, rows)


# --- the values -------------------------------------------------------------------------------


def _histogram(record: NoiseProof) -> str:
    """Values of the first train pass: flat between −m and m if it is uniform noise."""
    first = record.of_mode(True)[0]
    if not first.largest:
        return ""
    reach = first.largest * 1.15
    counts, edges = np.histogram(first.noise, bins=_BINS, range=(-reach, reach))
    density = counts / counts.sum() / (edges[1] - edges[0])
    top = float(density.max()) * 1.1
    bars = "".join(
        f'<rect x="{_x(a, reach) + 0.5:.1f}" y="{_y(v, top):.1f}" '
        f'width="{_x(b, reach) - _x(a, reach) - 1:.1f}" height="{_BOTTOM - _y(v, top):.1f}"/>'
        for a, b, v in zip(edges[:-1], edges[1:], density, strict=True)
    )
    says = f"Histogram of {first.noise.size} noise values between ±{number(first.largest)}"
    return (
        f'<svg class="pic" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{says}">'
        f'<g class="bars">{bars}</g>{_bounds(record, reach, top)}{_axes(reach, top)}</svg>'
    )


def _x(value: float, reach: float) -> float:
    return _LEFT + (value + reach) / (2 * reach) * (_RIGHT - _LEFT)


def _y(density: float, top: float) -> float:
    return _BOTTOM - density / top * (_BOTTOM - _TOP)


def _bounds(record: NoiseProof, reach: float, top: float) -> str:
    """The uniform law that NEFTune asks for: a box from −m to m of height 1/(2m)."""
    if not record.alpha:
        return ""
    m = record.alpha / sqrt(record.length * record.hidden)
    left, right, high = _x(-m, reach), _x(m, reach), _y(min(1 / (2 * m), top), top)
    return (
        f'<path class="law" d="M{left:.1f} {_BOTTOM}V{high:.1f}H{right:.1f}V{_BOTTOM}"/>'
        f'<text class="law" x="{left + 5:.1f}" y="{high + 15:.1f}">−m</text>'
        f'<text class="law" x="{right - 5:.1f}" y="{high + 15:.1f}" text-anchor="end">'
        f"m = {number(m)}</text>"
    )


def _axes(reach: float, top: float) -> str:
    along = "".join(
        f'<text x="{_x(v, reach):.1f}" y="{_BOTTOM + 15}" text-anchor="middle">{number(v)}</text>'
        for v in ticks(-reach, reach, 6)
    )
    up = "".join(
        f'<text x="{_LEFT - 6}" y="{_y(v, top) + 4:.1f}" text-anchor="end">{number(v)}</text>'
        for v in ticks(0, top, 3)
    )
    says = "noise on one number of an embedding (bars: pass 1; line: uniform)"
    names = axis_names(says, "density", (_LEFT, _RIGHT, _TOP, _BOTTOM), _HEIGHT - 8, 14)
    return f'<path class="ax" d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}"/>{along}{up}{names}'


# --- the tokens -------------------------------------------------------------------------------


def _strips(record: NoiseProof) -> str:
    """Each token with a bar: how long its noise is against its own embedding."""
    if not record.of_mode(True)[0].largest:
        return ""
    order = sorted(range(record.batch), key=lambda row: int(record.real[row].sum()))
    chosen = sorted({order[0], *order[: _ROWS - 1], order[-1]})
    rows = "".join(_strip(record, row) for row in chosen)
    return (
        '<p class="key">Rows of the batch; the bar below a token is the length of its noise, full '
        f"width being the length of its embedding. Hatched: padding.</p>{rows}"
    )


def _strip(record: NoiseProof, row: int) -> str:
    share = record.of_mode(True)[0].token_l2[row] / np.maximum(record.clean_l2[row], 1e-9)
    end = min(record.length, _TOKENS)
    tokens = "".join(_token(record, row, at, float(share[at])) for at in range(end))
    rest = f"<small>… {record.length - end} more</small>" if record.length > end else ""
    real = int(record.real[row].sum())
    return (
        f'<p class="row"><small>row {row}: {real} tokens, {record.length - real} padding</small>'
        f"{tokens}{rest}</p>"
    )


def _token(record: NoiseProof, row: int, at: int, share: float) -> str:
    text, names = token_text(record.tokens[row][at])
    real = bool(record.real[row, at])
    kind = f"tk {names}".strip() if real else "tk pad"
    shown = text if real else "pad"
    return (
        f'<span class="{kind}" style="--n:{min(share, 1):.0%}" '
        f'title="noise {share:.0%} of the embedding">{shown}</span>'
    )
