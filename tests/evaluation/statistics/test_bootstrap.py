"""Bootstrap intervals: around the metric that is reported, of the right width, and none where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from hfpipe.errors import DataError
from hfpipe.evaluation.statistics import bootstrap
from hfpipe.evaluation.statistics.bootstrap import bootstrap_intervals
from hfpipe.parts.metrics.load import load_metric
from hfpipe.parts.metrics.scores import compute_all
from hfpipe.recipe.catalog import METRICS

RNG = np.random.default_rng(0)
ROWS = 200
CLASSES = RNG.integers(0, 2, ROWS)
PREDICTED = np.where(RNG.random(ROWS) < 0.75, CLASSES, 1 - CLASSES)
NUMBERS = RNG.normal(size=ROWS)
GUESSED = NUMBERS + RNG.normal(size=ROWS)
LOSSES = RNG.exponential(size=ROWS)
ONES = np.ones(ROWS)
OF_NUMBERS = ("pearson", "spearmanr", "mse", "mae", "glue/stsb")
OF_OTHER_SHAPES = {"multi_label", "seqeval", "squad"}  # not one number a row: their intervals are tested beside them


def data_of(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and references that fit a metric."""
    return (GUESSED, NUMBERS) if name in OF_NUMBERS else (PREDICTED, CLASSES)


@pytest.mark.parametrize("name", sorted(set(METRICS) - OF_OTHER_SHAPES))
def test_an_interval_holds_the_value(name: str) -> None:
    """Every metric of the catalog gets an interval of its own around its value, not much wider than it."""
    pair = [(name, load_metric(name))]
    predictions, references = data_of(name)
    values = compute_all(pair, predictions, references)
    found = bootstrap_intervals(pair, predictions, references, LOSSES, ONES, seed=1)
    assert set(found) == {"loss", *values}
    for key, value in {**values, "loss": LOSSES.mean()}.items():
        low, high = found[key]
        assert low < value < high
        assert high - low < 0.8 * abs(value)


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


@pytest.mark.parametrize("arguments", [{"average": "macro"}, {"average": "weighted"}, {"pos_label": 0}])
def test_an_interval_heeds_the_arguments_of_its_metric(arguments: dict) -> None:
    """The interval of a macro average or of another positive class is not that of plain F1."""
    predicted = np.where(
        RNG.random(ROWS) < 0.9, 1, CLASSES
    )  # nearly always class 1, so that the averages lie far apart
    pair = [("f1", load_metric("f1", **arguments))]
    ((name, value),) = compute_all(pair, predicted, CLASSES).items()
    low, high = bootstrap_intervals(pair, predicted, CLASSES, LOSSES, ONES, seed=1)[name]
    assert low < value < high
    plain = bootstrap_intervals([("f1", load_metric("f1"))], predicted, CLASSES, LOSSES, ONES, seed=1)["f1"]
    assert abs(low - plain[0]) > 0.02


def test_the_width_is_that_of_the_normal_approximation() -> None:
    """For an accuracy the interval is within a tenth of ±1.96 √(p(1-p)/n)."""
    low, high = bootstrap_intervals([("accuracy", load_metric("accuracy"))], PREDICTED, CLASSES, LOSSES, ONES, seed=1)[
        "accuracy"
    ]
    share = (PREDICTED == CLASSES).mean()
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(share * (1 - share) / ROWS), rel=0.1)


def test_the_loss_is_weighted() -> None:
    """The interval of the loss is that of Σℓ / Σw."""
    weights = np.full(ROWS, 4.0)
    low, high = bootstrap_intervals([], PREDICTED, CLASSES, LOSSES * 4, weights, seed=1)["loss"]
    assert [low, high] == pytest.approx(
        bootstrap_intervals([], PREDICTED, CLASSES, LOSSES, ONES, seed=1)["loss"], rel=1e-12
    )


def test_the_same_seed_gives_the_same_interval() -> None:
    """An interval is reproducible, and another seed gives a slightly different one."""
    pair = [("accuracy", load_metric("accuracy"))]
    first, again, other = (bootstrap_intervals(pair, PREDICTED, CLASSES, LOSSES, ONES, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_examples_have_no_interval(rows: int) -> None:
    """One example says nothing about how far a metric could be off."""
    pair = [("accuracy", load_metric("accuracy")), ("f1", load_metric("f1", average="macro"))]
    found = bootstrap_intervals(pair, PREDICTED[:rows], CLASSES[:rows], LOSSES[:rows], ONES[:rows], seed=1)
    assert all(interval is None for interval in found.values())


def test_an_undefined_metric_has_no_interval() -> None:
    """F1 without a positive, and a correlation with a constant, have none; accuracy has."""
    zeros = np.zeros(ROWS, int)
    pairs = [(name, load_metric(name)) for name in ("accuracy", "f1", "matthews_correlation")]
    found = bootstrap_intervals(pairs, zeros, zeros, LOSSES, ONES, seed=1)
    assert found["accuracy"] == [1.0, 1.0]
    assert found["f1"] is None
    assert found["matthews_correlation"] is None
    numbers = [("pearson", load_metric("pearson"))]
    assert bootstrap_intervals(numbers, np.ones(ROWS), NUMBERS, LOSSES, ONES, seed=1)["pearson"] is None


def test_a_large_split_is_resampled_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit on numbers held at once changes no value."""
    pair = [("accuracy", load_metric("accuracy"))]
    whole = bootstrap_intervals(pair, PREDICTED, CLASSES, LOSSES, ONES, seed=1)["accuracy"]
    monkeypatch.setattr(bootstrap, "_MOST_NUMBERS", 1_000)
    assert bootstrap_intervals(pair, PREDICTED, CLASSES, LOSSES, ONES, seed=1)["accuracy"] == pytest.approx(
        whole, abs=0.01
    )


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
