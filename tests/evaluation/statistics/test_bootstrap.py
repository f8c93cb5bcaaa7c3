"""Resamples: to the last bit the metric of the drawn examples, and the same examples for every model."""

from __future__ import annotations

import numpy as np
import pytest

from hfpipe.errors import DataError
from hfpipe.evaluation.statistics import bootstrap
from hfpipe.parts.metrics.load import load_metric
from hfpipe.parts.metrics.scores import compute_all

RNG = np.random.default_rng(0)
ROWS = 200
CLASSES = RNG.integers(0, 2, ROWS)
PREDICTED = np.where(RNG.random(ROWS) < 0.75, CLASSES, 1 - CLASSES)
NUMBERS = RNG.normal(size=ROWS)
GUESSED = NUMBERS + RNG.normal(size=ROWS)
OF_NUMBERS = ("pearson", "spearmanr", "mse", "mae", "glue/stsb")


def data_of(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and references that fit a metric."""
    return (GUESSED, NUMBERS) if name in OF_NUMBERS else (PREDICTED, CLASSES)


VECTORISED = ["matthews_correlation", "glue/cola", "pearson", "spearmanr", "glue/stsb"]


@pytest.mark.parametrize("name", VECTORISED)
def test_the_fast_statistic_is_the_metric(name: str) -> None:
    """What is resampled is the very number that is reported, also where it is undefined."""
    predictions, references = data_of(name)
    cases = [(predictions, references)]
    if name not in OF_NUMBERS:
        cases += [(np.zeros(9, int), np.ones(9, int)), (np.ones(9, int), np.zeros(9, int)), (np.zeros(9, int),) * 2]
        three = RNG.integers(0, 3, (2, 50))
        cases += [(three[0], three[1])]
    metric = load_metric(name)
    for sides in cases:
        expected = metric.compute(predictions=sides[0], references=sides[1])
        with np.errstate(all="ignore"):
            found = {key: float(one.resampled(*sides, axis=-1)) for key, one in metric.statistics.items()}
        assert set(found) == set(expected)
        for key, value in expected.items():
            assert found[key] == pytest.approx(np.nan if value is None else value, abs=1e-12, nan_ok=True)


THREE = RNG.integers(0, 3, (2, 60))
HELD = (RNG.random((2, 60, 4)) < 0.3).astype(int)
OF_SUMS = [
    ("accuracy", {}, *THREE),
    ("f1", {"average": "macro"}, *THREE),
    ("precision", {"average": "weighted"}, *THREE),
    ("recall", {"average": "macro"}, *THREE),
    ("f1", {"average": "micro"}, *THREE),
    ("f1", {"pos_label": 0}, *(THREE > 0).astype(int)),
    ("glue/mrpc", {}, *(THREE > 0).astype(int)),
    ("multi_label", {}, *HELD),
    ("mse", {}, GUESSED, NUMBERS),
    ("mae", {}, GUESSED, NUMBERS),
]


@pytest.mark.parametrize(("name", "arguments", "predictions", "references"), OF_SUMS)
def test_a_resample_of_sums_is_the_metric_of_the_drawn_examples(
    name: str, arguments: dict, predictions: np.ndarray, references: np.ndarray
) -> None:
    """Every resample has, to the last bit, what the metric computes of the examples that the seed draws for it."""
    pair = [(name, load_metric(name, **arguments))]
    found = bootstrap.resampled(pair, predictions, references, seed=5, resamples=50)
    rng = np.random.default_rng(5)
    for number in range(50):
        rows = rng.integers(0, len(references), len(references))
        expected = compute_all(pair, predictions[rows], references[rows])
        assert set(expected) == set(found)
        for key, value in expected.items():
            assert found[key][number] == value or (value is None and np.isnan(found[key][number]))


def test_a_resample_that_fails_keeps_its_place() -> None:
    """A metric that gives up on some resamples of one model is undefined there, so that those of another model match."""

    class Fussy:
        def compute(self, *, predictions=None, references=None):
            if predictions.sum() < 0:
                raise DataError("too low")
            return {"mean": float(references.mean())}

    rows = np.arange(40.0)
    sides = [
        bootstrap.resampled([("own", Fussy())], predicted, rows, seed=3, resamples=200)
        for predicted in (rows, rows - 20)
    ]
    calm, fussy = (side["mean"] for side in sides)
    failed = np.isnan(fussy)
    assert 0 < failed.sum() < 200
    assert (calm[~failed] == fussy[~failed]).all()


def test_a_large_split_is_resampled_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit on numbers held at once changes the resamples of no metric by more than their own scatter."""
    pair = [("f1", load_metric("f1"))]
    whole = bootstrap.resampled(pair, PREDICTED, CLASSES, seed=1)["f1"]
    monkeypatch.setattr(bootstrap, "_MOST_NUMBERS", 1_000)
    pieces = bootstrap.resampled(pair, PREDICTED, CLASSES, seed=1)["f1"]
    assert bootstrap.percentiles(pieces) == pytest.approx(bootstrap.percentiles(whole), abs=0.01)
