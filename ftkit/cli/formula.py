"""TeX formulas as inline SVG, so that an exported notebook needs neither script nor network.

matplotlib's own TeX parser draws the glyphs. Environments (``\\begin{…}``) are beyond it: those
stay TeX, set as code.
"""

from html import escape

from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.textpath import TextPath

_EM = 100.0
_FONT = FontProperties(family="serif", math_fontfamily="stix")
_LETTERS = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C"}


def to_svg(tex: str) -> str:
    """Return `tex` (without dollar signs) as one line of SVG in the colour of the text around it.

    The size is in ``em`` and the baseline is kept. A formula that cannot be drawn comes back as
    escaped TeX in ``<code>``.
    """
    line = " ".join(tex.split())
    try:
        drawn = TextPath((0, 0), f"${line}$", size=_EM, prop=_FONT)
    except ValueError:
        return f"<code>{escape(tex)}</code>"
    box = drawn.get_extents()
    return (
        f'<svg role="img" aria-label="{escape(line)}" fill="currentColor" style="height:'
        f'{box.height / _EM:.3f}em;vertical-align:{box.y0 / _EM:.3f}em;overflow:visible" '
        f'viewBox="{box.x0:.0f} {-box.y1:.0f} {box.width:.0f} {box.height:.0f}">'
        f'<path d="{_outline(drawn)}"/></svg>'
    )


def _outline(path: Path) -> str:
    steps = []
    for points, code in path.iter_segments():
        pairs = zip(points[::2], points[1::2], strict=True)
        spelled = " ".join(f"{x:.0f} {-y:.0f}" for x, y in pairs)
        steps.append("Z" if code == Path.CLOSEPOLY else f"{_LETTERS[code]}{spelled}")
    return "".join(steps)
