"""The figure of a comparison: the losses of the variants, and how far each is from the baseline."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from hfpipe.experiments.compare.traces import Trace

# Okabe and Ito's colours, told apart with any colour vision; line styles tell them apart in print.
_COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00")
_STYLES = ("-", "--", ":", "-.")


def losses_svg(title: str, traces: Sequence[Trace], twins: Mapping[str, str]) -> str:
    """Draw the loss curves as SVG, the same text for the same numbers.

    Args:
        title: of the figure.
        traces: the variants, the baseline first.
        twins: variant to the earlier variant that it equals; it is drawn by that one's line.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    base = traces[0]
    drawn = [trace for trace in traces if trace.name not in twins and trace.steps]
    settings: Any = {"svg.hashsalt": "hfpipe", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9.0}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(8.0, 6.4), layout="constrained")
        FigureCanvasSVG(figure)
        above, below = figure.subplots(2, 1, sharex=True)
        for index, trace in enumerate(drawn):
            look: dict[str, Any] = {
                "color": _COLOURS[index % len(_COLOURS)],
                "linestyle": _STYLES[index // len(_COLOURS) % len(_STYLES)],
                "marker": "x" if trace.failure else "o",
                "markersize": 3.0,
                "label": _label(trace, twins),
            }
            steps = sorted(trace.losses)
            above.plot(steps, [trace.losses[step] for step in steps], **look)
            gaps = {step: abs(trace.losses[step] - base.losses[step]) for step in steps if step in base.losses}
            if trace is not base:  # equal losses have no place on a logarithmic axis
                below.plot(list(gaps), [gap or float("nan") for gap in gaps.values()], **look)
        above.set(title=title, ylabel="training loss, mean per item")
        below.set(xlabel="step (update of the weights)", ylabel=f"distance from\n{base.name}")
        below.set_yscale("log")
        below.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in (above, below):
            axes.grid(visible=True, linewidth=0.3)
            axes.spines[["top", "right"]].set_visible(False)
        figure.legend(
            *above.get_legend_handles_labels(), loc="outside lower left", ncols=2, frameon=False, fontsize=8.0
        )
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Title": title})
    return text.getvalue()


def _label(trace: Trace, twins: Mapping[str, str]) -> str:
    alike = sum(other == trace.name for other in twins.values())
    return trace.name + (f" and {alike} the same" if alike else "") + (", diverged" if trace.failure else "")
