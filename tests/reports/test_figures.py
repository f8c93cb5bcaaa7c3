"""The axes of the figures: epochs as ticks, and nothing beyond what a share can be."""

from __future__ import annotations

import re
from typing import Any

import pytest

from hfpipe.reports.html import figures
from hfpipe.reports.html.drawing import draw


def records(steps: int, per_epoch: int, metric: float = 0.99) -> list[dict[str, Any]]:
    """Of a training with an evaluation after each epoch."""
    found: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        found.append({"type": "step", "step": step, "epoch": step / per_epoch, "loss": 1 / step, "lr": 1e-4})
        if step % per_epoch == 0:
            found.append({**found[-1], "type": "evaluation", "metrics": {"loss": 0.2, "accuracy": metric}})
    return found


def texts(figure: figures.Figure) -> list[str]:
    """What is written in a drawing."""
    return re.findall(r">([^<>]+)</text>", str(figure.svg))


@pytest.mark.parametrize(
    ("steps", "per_epoch", "ticks"),
    [(30, 10, ["1", "2", "3"]), (200, 10, ["3", "6", "9", "12", "15", "18"]), (25, 10, ["1", "2"])],
)
def test_curves_are_ticked_by_epoch(steps: int, per_epoch: int, ticks: list[str]) -> None:
    """Whole epochs, some of many, in every curve; how many steps one has is said once."""
    made = figures.curves(records(steps, per_epoch), None, "accuracy")
    assert len(made) == 3
    for one in made:
        assert texts(one)[: len(ticks) + 1] == [*ticks, "epoch"]
    assert "An epoch has 10 steps." in figures.caption_of_curves(records(steps, per_epoch), None)


def test_less_than_an_epoch_is_ticked_by_step() -> None:
    """Where no epoch is whole, or none is recorded, the axis has steps."""
    for found in (records(8, 10), [{**one, "epoch": None} for one in records(8, 10)]):
        (loss, *_) = figures.curves(found, None, None)
        assert "step" in texts(loss)
        assert "epoch" not in texts(loss)


def test_no_share_has_an_axis_above_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accuracies near 1, the reliability curve and the strip of seeds end at 1; an error has the axis that it needs."""
    tops: list[tuple[str, float, float]] = []

    def looked_at(name: str, description: str, paint: Any, **options: Any) -> Any:
        def painted(panels: Any) -> None:
            paint(panels)
            for panel in panels if isinstance(panels, list) else [panels]:
                tops.append((name, panel.get_xlim()[1], panel.get_ylim()[1]))

        return draw(name, description, painted, **options)

    monkeypatch.setattr(figures, "draw", looked_at)
    figures.curves(records(30, 10, metric=1.0), None, "accuracy")
    bins = [{"count": 5, "confidence": 0.99, "accuracy": 1.0}, {"count": 5, "confidence": 0.6, "accuracy": 0.7}]
    figures.reliability({"bins": bins})
    figures.strip([("accuracy", [0.97, 0.99], [0.95, 1.0], 0.9)])
    figures.seeds_curves({"a": records(20, 10, 1.0), "b": records(20, 10, 0.98)}, "accuracy")
    by_name = {name: (x, y) for name, x, y in tops}
    assert by_name["curve-metrics"][1] == 1
    assert by_name["seeds-metric"][1] == 1
    assert by_name["reliability"] == (1, 1)
    assert by_name["strip"][0] == 1
    tops.clear()
    figures.curves(records(30, 10, metric=12.5), None, "accuracy")
    assert {name: y for name, _, y in tops}["curve-metrics"] > 12.5
