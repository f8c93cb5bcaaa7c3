"""The figures of a report: curves over the steps, reliability, errors of a regression, lengths, and many seeds at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from markupsafe import Markup

from hfpipe.reports.html.drawing import GRID, INK, PAPER, SERIES, draw
from hfpipe.reports.html.thinning import Series, thin
from hfpipe.reports.wording import number

Record = Mapping[str, Any]
_MOST_METRICS = len(SERIES)
_MOST_POINTS = 600  # of a scatter
_MOST_TICKS = 8  # of epochs


@dataclass(frozen=True)
class Figure:
    """A drawing with its heading and caption."""

    title: str
    caption: str
    svg: Markup


def curves(records: Sequence[Record], chosen: int | None, first: str | None) -> list[Figure]:
    """Loss, metrics, learning rate and gradient norm over the steps, as far as there are records of them.

    Args:
        records: of the run.
        chosen: the step whose weights the run ended with, marked where it is not the last.
        first: the figure that comes first.
    """
    steps = [one for one in records if one.get("type") == "step"]
    evaluations = [one for one in records if one.get("type") == "evaluation" and one.get("metrics")]
    last = steps[-1].get("step") if steps else evaluations[-1].get("step") if evaluations else None
    axis = _Steps(last, chosen if steps and chosen != last else None, _epoch_ends([*steps, *evaluations]))
    plain = replace(axis, mark=None)
    made = [
        _curve("loss", "Loss", "Mean loss of an item.", steps, evaluations, axis),
        _evaluated(evaluations, first, axis),
        _curve("lr", "Learning rate", "Of each step.", steps, (), plain),
        _curve("grad_norm", "Gradient norm", "Before clipping.", steps, (), plain),
    ]
    return [one for one in made if one is not None]


def caption_of_curves(records: Sequence[Record], chosen: int | None) -> str:
    """What holds for all curves: how many steps a point stands for, and the step whose weights the run ended with."""
    steps = [one["step"] for one in records if one.get("type") == "step"]
    width = thin(steps, [None] * len(steps)).width if steps else 1
    caption = []
    if width > 1:
        caption.append(
            f"Each point is the mean of {width:,} steps, and the band reaches from their least to their greatest."
        )
    ends = _epoch_ends(one for one in records if one.get("type") == "step")
    if ends:
        (step, number), *_ = ends
        caption.append(f"An epoch has {round(step / number):,} steps.")
    if steps and chosen is not None and chosen != steps[-1]:
        caption.append(f"The dotted line is step {chosen:,}, whose weights the run ended with.")
    return " ".join(caption)


@dataclass(frozen=True)
class _Steps:
    """The horizontal axis that the curves of a page share.

    Attributes:
        last: the step that it ends with.
        mark: a step to mark, or None.
        epochs: step and number of each whole epoch.
    """

    last: int | None
    mark: int | None = None
    epochs: Sequence[tuple[int, int]] = ()


def _epoch_ends(records: Iterable[Record]) -> list[tuple[int, int]]:
    """The step by which each epoch was whole, with the number of that epoch."""
    ends: dict[int, int] = {}
    for one in records:
        epoch, step = one.get("epoch"), one.get("step")
        if isinstance(epoch, int | float) and isinstance(step, int) and epoch + 1e-6 >= 1:
            number = int(epoch + 1e-6)
            ends[number] = min(step, ends.get(number, step))
    return [(step, number) for number, step in sorted(ends.items())]


def _column(records: Iterable[Record], key: str) -> list[float | None]:
    return [value if isinstance(value := one.get(key), int | float) else None for one in records]


def _curve(
    key: str, title: str, caption: str, steps: Sequence[Record], evaluations: Sequence[Record], axis: _Steps
) -> Figure | None:
    values = _column(steps, key)
    known = [value for value in values if value is not None and np.isfinite(value)]
    if not known:
        return None
    series = thin([one["step"] for one in steps], values)
    measured = [(one["step"], one["metrics"].get("loss")) for one in evaluations]
    measured = [(step, value) for step, value in measured if value is not None]
    top = _top([*known, *(value for _, value in measured)])
    from matplotlib.ticker import MaxNLocator

    def paint(panel: Any) -> None:
        _line(panel, series, SERIES[0], "training" if measured else None)
        if measured:
            at, found = zip(*measured, strict=True)
            panel.plot(at, found, color=SERIES[1], marker="o", markersize=3.5, linewidth=1.4, label="evaluation")
        if top is not None:
            panel.set_ylim(top=top)
        if min(known) >= 0:
            panel.set_ylim(bottom=0)
        panel.yaxis.set_major_locator(MaxNLocator(5))
        panel.yaxis.set_major_formatter(lambda value, _: _tick(value))
        _axis(panel, axis)

    if top is not None:
        above = sum(value > top for value in known)
        caption += f" Cut off above {number(top)}, where {above:,} step{'s are' if above > 1 else ' is'}, at most "
        caption += f"{number(max(known))}."
    description = f"{title} over {len(steps):,} steps, from {number(float(known[0]))} to {number(float(known[-1]))}."
    return Figure(title, caption, draw(f"curve-{key.replace('_', '-')}", description, paint))


def _top(values: Sequence[float]) -> float | None:
    """Where to cut the axis so that a few spikes do not press the rest flat, or None where there are none."""
    high = float(np.quantile(values, 0.99))
    return 1.5 * high if 0 < 3 * high < max(values) else None


def _tick(value: float) -> str:
    if value and (abs(value) < 0.001 or abs(value) >= 1e5):
        digits, _, power = f"{value:.2e}".partition("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{value:,.6g}"


def _line(panel: Any, series: Series, colour: str, label: str | None, opacity: float = 1.0) -> None:
    alone = len(series.steps) == 1
    if series.width > 1:
        panel.fill_between(series.steps, series.least, series.greatest, color=colour, alpha=0.22, linewidth=0)
    style = {"marker": "o", "markersize": 3} if alone else {}
    panel.plot(series.steps, series.mean, color=colour, linewidth=1.1, label=label, alpha=opacity, **style)


def _axis(panel: Any, steps: _Steps) -> None:
    """From the first step to the last, so that the panels of a page can be compared; ticked by epoch if one is whole."""
    from matplotlib.ticker import MaxNLocator

    if steps.epochs:
        every = -(-len(steps.epochs) // _MOST_TICKS)
        shown = steps.epochs[every - 1 :: every]
        panel.set_xticks([step for step, _ in shown], [f"{number:,}" for _, number in shown])
        panel.set_xlabel("epoch", fontsize=9)
    else:
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        panel.set_xlabel("step", fontsize=9)
    if steps.last is not None:
        panel.set_xlim(-0.02 * steps.last, 1.02 * steps.last)
    if steps.mark is not None:
        panel.axvline(steps.mark, color=INK, linewidth=0.9, linestyle=":")


def _up_to_one(values: Iterable[float | None], limits: Callable[..., tuple[float, float]]) -> None:
    """End an axis of shares at 0 and 1: there is nothing beyond them. `limits` gets and sets those of the axis."""
    known = [value for value in values if value is not None and np.isfinite(value)]
    if known and min(known) >= 0 and max(known) <= 1:
        low, high = limits()
        limits(max(low, 0.0), min(high, 1.0))


def _names(evaluations: Sequence[Record], first: str | None) -> list[str]:
    """The metrics that have numbers, the first one in front."""
    seen = dict.fromkeys(
        name for one in evaluations for name, value in one["metrics"].items() if name != "loss" and value is not None
    )
    return sorted(seen, key=lambda name: name != first)


def _evaluated(evaluations: Sequence[Record], first: str | None, axis: _Steps) -> Figure | None:
    names = _names(evaluations, first)
    if not names:
        return None
    shown = names[:_MOST_METRICS]

    def paint(panel: Any) -> None:
        for colour, name in zip(SERIES, shown, strict=False):
            series = thin([one["step"] for one in evaluations], [one["metrics"].get(name) for one in evaluations])
            few = {"marker": "o", "markersize": 3.5} if len(series.steps) <= 40 else {}
            panel.plot(series.steps, series.mean, color=colour, linewidth=1.4, label=name, clip_on=False, **few)
        _up_to_one([one["metrics"].get(name) for one in evaluations for name in shown], panel.set_ylim)
        _axis(panel, axis)

    caption = "On the evaluation split."
    if len(names) > len(shown):
        caption += f" The first {len(shown)} of {len(names):,} are drawn."
    description = "; ".join(
        f"{name} ends at {number(float(ends))}"
        for name in shown
        if (ends := evaluations[-1]["metrics"].get(name)) is not None
    )
    return Figure("Metrics", caption, draw("curve-metrics", f"Metrics over the evaluations: {description}.", paint))


def reliability(calibration: Mapping[str, Any] | None) -> Figure | None:
    """How often the model is correct, by its confidence."""
    bins = [one for one in (calibration or {}).get("bins") or [] if one.get("count")]
    bins = [one for one in bins if one.get("confidence") is not None and one.get("accuracy") is not None]
    if not bins:
        return None
    most = max(one["count"] for one in bins)

    def paint(panel: Any) -> None:
        panel.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":")
        confidence, accuracy = [one["confidence"] for one in bins], [one["accuracy"] for one in bins]
        panel.plot(confidence, accuracy, color=SERIES[0], linewidth=1.2, clip_on=False)
        sizes = [12 + 60 * one["count"] / most for one in bins]
        panel.scatter(confidence, accuracy, s=sizes, color=SERIES[0], edgecolors=PAPER, linewidths=0.8, zorder=3,
                      clip_on=False)  # fmt: skip
        panel.set_xlim(0, 1)
        panel.set_ylim(0, 1)
        panel.set_xlabel("confidence", fontsize=9)
        panel.set_ylabel("accuracy", fontsize=9)

    known = [f"{name} {number(value)}" for name, key in (("ECE", "ece"), ("Brier score", "brier"))
             if (value := (calibration or {}).get(key)) is not None]  # fmt: skip
    caption = "On the dotted line accuracy equals confidence; below it the model is overconfident."
    caption += " A larger dot holds more examples."
    description = "; ".join(
        f"confidence {number(float(one['confidence']))}, accuracy {number(float(one['accuracy']))}" for one in bins
    )
    description = f"Reliability curve: {description}."
    return Figure("Reliability", f"{', '.join(known)}. {caption}" if known else caption,
                  draw("reliability", description, paint, height=3.0))  # fmt: skip


def residuals(errors: Mapping[str, Any] | None) -> list[Figure]:
    """The errors of a regression: how large they are, and where."""
    made = []
    histogram = (errors or {}).get("residuals") or {}
    edges, counts = histogram.get("edges") or [], histogram.get("counts") or []
    if counts and len(edges) == len(counts) + 1:

        def bars(panel: Any) -> None:
            panel.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=SERIES[0], edgecolor=PAPER,
                      linewidth=0.6)  # fmt: skip
            panel.axvline(0, color=INK, linewidth=0.9, linestyle=":")
            panel.set_xlabel("prediction minus reference", fontsize=9)
            panel.set_ylabel("examples", fontsize=9)

        description = (
            f"Histogram of {sum(counts):,} errors from {number(float(edges[0]))} to {number(float(edges[-1]))}."
        )
        made.append(Figure("Residuals", "Prediction minus reference.", draw("errors", description, bars, height=3.0)))
    points = [point for point in (errors or {}).get("points") or [] if point and None not in point]
    if points:
        every = -(-len(points) // _MOST_POINTS)
        shown = np.asarray(points[::every], dtype=float)

        def dots(panel: Any) -> None:
            low, high = float(shown.min()), float(shown.max())
            panel.plot([low, high], [low, high], color=INK, linewidth=0.8, linestyle=":")
            panel.scatter(shown[:, 0], shown[:, 1], s=9, color=SERIES[0], alpha=0.45, linewidths=0)
            panel.set_xlabel("reference", fontsize=9)
            panel.set_ylabel("prediction", fontsize=9)

        some = f" One in {every:,} of {len(points):,} examples is drawn." if every > 1 else ""
        description = f"Scatter of predictions against references, {len(shown):,} examples."
        made.append(Figure("Prediction and reference", f"On the dotted line the prediction equals the reference.{some}",
                           draw("prediction-reference", description, dots, height=3.0)))  # fmt: skip
    return made


def lengths(split: str, histogram: Sequence[Sequence[int]]) -> Figure | None:
    """Tokens of a row, as the audit counted them: pairs of (up to so many tokens, rows)."""
    if not histogram:
        return None

    def paint(panel: Any) -> None:
        starts = [0, *(edge for edge, _ in histogram[:-1])]
        widths = [edge - start for start, (edge, _) in zip(starts, histogram, strict=True)]
        panel.bar(starts, [count for _, count in histogram], width=widths, align="edge", color=SERIES[0], edgecolor=PAPER,
                  linewidth=0.6)  # fmt: skip
        _axis(panel, _Steps(histogram[-1][0]))
        panel.set_xlabel("tokens", fontsize=9)
        panel.set_ylabel("rows", fontsize=9)

    description = f"Histogram of the tokens of a row of {split}: " + ", ".join(
        f"up to {edge:,}: {count:,}" for edge, count in histogram
    )
    return Figure("Length of a row", f"{split}, in tokens.", draw("lengths", description, paint, height=2.2))


def seeds_curves(runs: Mapping[str, Sequence[Record]], first: str | None) -> list[Figure]:
    """The curves of several seeds over each other; they differ in nothing but the seed, so they share a colour."""
    steps = {name: [one for one in records if one.get("type") == "step"] for name, records in runs.items()}
    steps = {name: found for name, found in steps.items() if any(value is not None for value in _column(found, "loss"))}
    made = []
    if steps:
        thinned = {
            name: thin([one["step"] for one in found], _column(found, "loss"), 150) for name, found in steps.items()
        }
        width = max(series.width for series in thinned.values())

        top = _top([value for series in thinned.values() for value in series.mean if np.isfinite(value)])

        def losses(panel: Any) -> None:
            for series in thinned.values():
                panel.plot(series.steps, series.mean, color=SERIES[0], linewidth=0.9, alpha=0.6)
            if top is not None:
                panel.set_ylim(top=top)
            _axis(panel, _steps_of(steps.values()))

        caption = f" Each point is the mean of {width:,} steps." if width > 1 else ""
        caption += f" Cut off above {number(top)}." if top is not None else ""
        description = f"Training loss of {len(steps)} seeds."
        made.append(
            Figure("Loss", f"Of the training, a line a seed.{caption}", draw("seeds-loss", description, losses))
        )
    evaluated = {
        name: found
        for name, records in runs.items()
        if (found := [one for one in records if one.get("type") == "evaluation" and one.get("metrics")])
    }
    name = next((names[0] for found in evaluated.values() if (names := _names(found, first))), None)
    if name is not None:

        def metric(panel: Any) -> None:
            for found in evaluated.values():
                at = [one["step"] for one in found]
                series = thin(at, [one["metrics"].get(name) for one in found], 150)
                panel.plot(
                    series.steps,
                    series.mean,
                    color=SERIES[0],
                    marker="o",
                    markersize=3,
                    linewidth=0.9,
                    alpha=0.6,
                    clip_on=False,
                )
            _up_to_one([one["metrics"].get(name) for found in evaluated.values() for one in found], panel.set_ylim)
            _axis(panel, _steps_of(evaluated.values()))

        description = f"{name} at the evaluations of {len(evaluated)} seeds."
        made.append(Figure(name, "On the evaluation split, a line a seed.", draw("seeds-metric", description, metric)))
    return made


def _steps_of(runs: Iterable[Sequence[Record]]) -> _Steps:
    """The axis of several runs: that of the longest."""
    longest = max(runs, key=lambda records: int(records[-1]["step"]))
    return _Steps(longest[-1]["step"], None, _epoch_ends(longest))


def strip(rows: Sequence[tuple[str, Sequence[float], Sequence[float] | None, float | None]]) -> Figure | None:
    """Every seed's value as a dot, each metric on its own scale.

    Args:
        rows: name, values, interval of the mean or None, and baseline or None.
    """
    rows = [row for row in rows if row[1]][:_MOST_METRICS]
    if not rows:
        return None

    def paint(panels: Any) -> None:
        for panel, (name, values, interval, baseline) in zip(
            panels if isinstance(panels, list) else [panels], rows, strict=True
        ):
            panel.grid(visible=False)
            panel.axhline(0, color=GRID, linewidth=0.6)
            if interval is not None:
                panel.plot(interval, [0, 0], color=SERIES[0], linewidth=7, alpha=0.25, solid_capstyle="butt")
            panel.scatter(values, [0] * len(values), s=30, color=SERIES[0], alpha=0.75, edgecolors=PAPER, linewidths=0.8,
                          zorder=3, clip_on=False)  # fmt: skip
            panel.plot([float(np.mean(values))] * 2, [-0.5, 0.5], color=SERIES[0], linewidth=1.4)
            if baseline is not None:
                panel.plot([baseline] * 2, [-0.5, 0.5], color=SERIES[1], linewidth=1.4, linestyle="--")
            _up_to_one([*values, *(interval or ()), baseline] if name != "loss" else (), panel.set_xlim)
            panel.set_ylim(-1, 1)
            panel.set_yticks([0], [name])
            panel.tick_params(axis="y", length=0)

    description = "; ".join(
        f"{name}: {', '.join(number(float(value)) for value in values)}" for name, values, _, _ in rows
    )
    caption = "A dot a seed; the stroke is their mean, the bar its interval"
    caption += ", the dashed stroke the baseline." if any(row[3] is not None for row in rows) else "."
    height = 0.35 + 0.62 * len(rows)
    svg = draw("strip", f"Metrics by seed. {description}.", paint, height=height, rows=len(rows))
    return Figure("Metrics by seed", caption, svg)
