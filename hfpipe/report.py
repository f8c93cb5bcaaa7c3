"""`report.html`: a run as one static page, without script or network, for people."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hfpipe.recipe.source import to_yaml
from hfpipe.runs.store import Run

_TEMPLATES = Path(__file__).parent / "templates"
_INK = "#5b6570"  # readable on a light and on a dark page


def write_report(run: Run) -> None:
    """Write `report.html` from what the run folder holds.

    Raises:
        OSError: the page can't be written.
    """
    from jinja2 import Environment, FileSystemLoader

    page = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True).get_template("report.html")
    about, records = run.about, run.records
    run.write_text(
        "report.html",
        page.render(
            run=run,
            about=about,
            summary=run.read_json("metrics.json"),
            metrics=run.metrics,
            notices=[record["text"] for record in records if record["type"] == "notice"],
            curves=_curves(records),
            recipe=to_yaml(run.recipe),
            facts=list(
                _flat("", {key: about.get(key) for key in ("identity", "rows", "versions", "machine", "commit")})
            ),
        ),
    )


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(f"{path} {key}".strip(), part)
    elif value is not None:
        yield path, value


def _curves(records: list[dict[str, Any]]) -> str:
    """Loss, figures, gradient norm and learning rate over the steps, as an SVG element."""
    import matplotlib
    from matplotlib.figure import Figure

    steps = [record for record in records if record["type"] == "step"]
    evaluations = [record for record in records if record["type"] == "evaluation"]
    with matplotlib.rc_context({"svg.hashsalt": "hfpipe", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(9, 5.6), layout="constrained")
        figure.patch.set_alpha(0)
        panels = figure.subplots(2, 2).flatten()
        x = [record["step"] for record in steps]
        for panel, key, title in zip(panels, ("loss", "", "grad_norm", "lr"), _TITLES, strict=True):
            if key:
                panel.plot(x, [record[key] for record in steps], linewidth=1, label="training", color="#3b7dd8")
            panel.set_title(title, color=_INK, fontsize=10)
            panel.set_xlabel("step", color=_INK)
            panel.patch.set_alpha(0)
            panel.tick_params(colors=_INK)
            for spine in panel.spines.values():
                spine.set_color(_INK)
        at = [record["step"] for record in evaluations]
        for name in list(evaluations[0]["metrics"])[: 1 + _MOST_FIGURES] if evaluations else ():
            values = [record["metrics"].get(name) for record in evaluations]
            found = [value if value is not None else float("nan") for value in values]
            panels[0 if name == "loss" else 1].plot(
                at, found, marker="o", markersize=3, label="evaluation" if name == "loss" else name
            )
        for panel in panels[:2]:
            if panel.get_legend_handles_labels()[0]:
                panel.legend(frameon=False, labelcolor=_INK)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)


_MOST_FIGURES = 8  # drawn; the first ones are over all classes, and those of each class come after them
_TITLES = ("loss (mean per item)", "figures on the evaluation split", "gradient norm before clipping", "learning rate")
