"""Drawings of matplotlib as SVG elements that stand in a page and take its colours, light or dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from html import escape
from typing import Any

from markupsafe import Markup

# Colours that no reader sees: each is replaced by a variable of the page's style sheet.
INK, GRID, PAPER = "#010101", "#010102", "#010103"
SERIES = ("#010201", "#010202", "#010203", "#010204", "#010205", "#010206")
_VARIABLES = {INK: "var(--soft)", GRID: "var(--line)", PAPER: "var(--paper)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, start=1)
}
WIDTH, HEIGHT = 4.4, 2.5  # inches of 72 units; a phone shows the text of it at its own size


def draw(
    name: str,
    description: str,
    paint: Callable[[Any], None],
    *,
    width: float = WIDTH,
    height: float = HEIGHT,
    rows: int = 1,
) -> Markup:
    """Paint axes and return them as one SVG element.

    Args:
        name: unlike that of any other drawing of the page, since ids of a page are shared.
        description: what is to be seen, for those who can't see it.
        paint: is given the axes; of several rows, the list of them.
        width: inches.
        height: inches.
        rows: axes below each other.
    """
    import matplotlib
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.hashsalt": f"hfpipe {name}",
        "svg.fonttype": "none",
        "text.parse_math": False,  # a dollar in the name of a class is a dollar
        "axes.formatter.use_mathtext": False,
        "font.size": 9,
        "path.simplify": True,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # The reader's browser draws the letters, so what matplotlib's own font lacks is no loss.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure = Figure(figsize=(width, height), layout="constrained")
        figure.patch.set_visible(False)
        panels = list(figure.subplots(rows, 1, squeeze=False)[:, 0])
        for panel in panels:
            _plain(panel)
        paint(panels[0] if rows == 1 else panels)
        for panel in panels:
            if panel.get_legend_handles_labels()[0]:
                panel.legend(frameon=False, labelcolor=INK, fontsize=9, handlelength=1.4)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return Markup(_inline(text.getvalue(), name, description))  # matplotlib escapes its texts, `escape` the rest


def _plain(panel: Any) -> None:
    panel.patch.set_visible(False)
    panel.tick_params(colors=INK, length=3, width=0.6, labelsize=9)
    panel.xaxis.label.set_color(INK)
    panel.yaxis.label.set_color(INK)
    panel.xaxis.get_offset_text().set_color(INK)
    panel.yaxis.get_offset_text().set_color(INK)
    panel.grid(axis="y", color=GRID, linewidth=0.6)
    panel.set_axisbelow(True)
    for side, spine in panel.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(INK)
        spine.set_linewidth(0.6)


def _inline(svg: str, name: str, description: str) -> str:
    """The element alone: without what belongs to a file, ids that nobody asks for, and digits that nobody sees."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", svg, flags=re.DOTALL)
    asked = set(re.findall(r"(?:url\(#|xlink:href=\"#)([^)\"]+)", svg))
    for one in asked:
        svg = svg.replace(f'id="{one}"', f'id="{name}-{one}"')
        svg = svg.replace(f"url(#{one})", f"url(#{name}-{one})").replace(f'href="#{one}"', f'href="#{name}-{one}"')
    svg = re.sub(rf' id="(?!{re.escape(name)}-)[^"]*"', "", svg)
    svg = re.sub(r"(?<=[ \"(LMQCz])(-?\d+\.\d\d)\d+", r"\1", svg)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r" font-family: [^;\"]*;?|(?<=\") transform=\"rotate\(-0 [^\"]*\"", "", svg)
    svg = re.sub(r"\s*\n\s*", "\n", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert size is not None
    head = f'<svg viewBox="0 0 {size[1]} {size[2]}" role="img" aria-label="{escape(description)}">'
    return head + svg[svg.index(">") + 1 :]
