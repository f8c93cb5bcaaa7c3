"""Which interval a metric gets, that it is honest where nothing or everything is right, and what it costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from hfpipe.evaluation.statistics import bootstrap
from hfpipe.evaluation.statistics.intervals import Interval, intervals_of, split_intervals
from hfpipe.evaluation.statistics.proportions import newcombe_auc
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
OF_NUMBERS = ("pearson", "spearmanr", "mse", "mae", "glue/stsb")
OF_OTHER_SHAPES = {"multi_label", "seqeval", "squad"}  # not one number a row: their intervals are tested beside them


def intervals(
    predictions: np.ndarray, references: np.ndarray, *metrics: str, losses: np.ndarray | None = None, **arguments: Any
) -> dict[str, Interval]:
    """The intervals of these metrics and the loss."""
    pairs = [(name, load_metric(name, **arguments)) for name in metrics]
    losses = LOSSES[: len(references)] if losses is None else losses
    return intervals_of(pairs, predictions, references, losses, np.ones(len(losses)), seed=1)


@pytest.mark.parametrize("name", sorted(set(METRICS) - OF_OTHER_SHAPES))
def test_an_interval_holds_the_value(name: str) -> None:
    """Every metric of the catalog gets an interval around its value, not much wider than it, that names its method."""
    predictions, references = (GUESSED, NUMBERS) if name in OF_NUMBERS else (PREDICTED, CLASSES)
    values = compute_all([(name, load_metric(name))], predictions, references)
    found = intervals(predictions, references, name)
    assert set(found) == {"loss", *values}
    for key, value in {**values, "loss": LOSSES.mean()}.items():
        (low, high), method = found[key]
        assert low < value < high
        assert high - low < 0.8 * abs(value)
        assert method


@pytest.mark.parametrize(("wrong", "rows"), [(0, 60), (1, 60), (60, 60), (0, 4), (0, 1), (3, 20), (100, 200)])
def test_an_accuracy_has_the_exact_interval(wrong: int, rows: int) -> None:
    """Clopper and Pearson's, as scipy has it, also where no row or every row is wrong, and of one row."""
    references = np.arange(rows) % 2
    predictions = np.where(np.arange(rows) < wrong, 1 - references, references)
    (low, high), method = intervals(predictions, references, "accuracy")["accuracy"]
    exact = binomtest(rows - wrong, rows).proportion_ci(method="exact")
    assert [low, high] == pytest.approx([exact.low, exact.high], abs=1e-9)
    assert method == "Clopper-Pearson"


@pytest.mark.parametrize("name", ["f1", "precision", "recall"])
@pytest.mark.parametrize("right", [0, 4])
def test_a_class_of_four_that_is_all_right_or_all_wrong_has_an_honest_interval(name: str, right: int) -> None:
    """Recall of 4 of 4 is [0.40, 1], not [1, 1]; F1 and precision likewise, and from 0 where none is right."""
    references = np.array([1, 1, 1, 1] + [0] * 20)
    predictions = np.where(np.arange(24) < right, references, [0, 0, 0, 0] + [1] * (4 - right) + [0] * (16 + right))
    low, high = intervals(predictions, references, name)[name].ends
    exact = binomtest(right, 8 if name == "f1" and not right else 4).proportion_ci()
    wanted = [exact.low, exact.high] if name != "f1" else [2 * end / (1 + end) for end in (exact.low, exact.high)]
    assert [low, high] == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("f1", {"average": "macro"}),
        ("precision", {"average": "weighted"}),
        ("recall", {"average": "macro"}),
        ("matthews_correlation", {}),
        ("quadratic_kappa", {}),
    ],
)
def test_a_perfect_model_has_an_interval_below_one(classes: int, name: str, arguments: dict) -> None:
    """Sixty rows without an error say no more than that the true value is about 0.9 or above."""
    labels = np.arange(60) % classes
    ((key, found),) = [one for one in intervals(labels, labels, name, **arguments).items() if one[0] != "loss"]
    low, high = found.ends
    assert high == 1
    assert 0.6 < low < 0.96, key


def test_a_perfect_correlation_of_a_few_rows_has_an_interval() -> None:
    """Ranks that agree in 20 rows, and numbers that are equal, are no proof of a correlation of 1."""
    numbers = np.arange(20.0)
    for name in ("pearson", "spearmanr"):
        low, high = intervals(numbers, numbers, name)[name].ends
        assert 0.7 < low < 0.99 < high == 1


def test_an_interval_heeds_the_arguments_of_its_metric() -> None:
    """The interval of a macro average or of another positive class is not that of plain F1."""
    predicted = np.where(RNG.random(ROWS) < 0.9, 1, CLASSES)  # nearly always class 1
    plain = intervals(predicted, CLASSES, "f1")["f1"].ends
    for arguments in ({"average": "macro"}, {"average": "weighted"}, {"pos_label": 0}):
        ((_, value),) = compute_all([("f1", load_metric("f1", **arguments))], predicted, CLASSES).items()
        ((_, found),) = [one for one in intervals(predicted, CLASSES, "f1", **arguments).items() if one[0] != "loss"]
        assert found.ends[0] < value < found.ends[1]
        assert abs(found.ends[0] - plain[0]) > 0.02


def test_the_loss_is_weighted_and_skewed() -> None:
    """The interval of the loss is that of Σℓ / Σw, reaches further up than down, and is the same for one seed."""
    once = intervals(PREDICTED, CLASSES)["loss"]
    four = intervals_of([], PREDICTED, CLASSES, LOSSES * 4, np.full(ROWS, 4.0), seed=1)["loss"]
    assert four.ends == pytest.approx(once.ends, rel=1e-9)
    assert once.ends[1] - LOSSES.mean() > 1.1 * (LOSSES.mean() - once.ends[0])
    assert intervals(PREDICTED, CLASSES)["loss"] == once
    many = np.tile(LOSSES, 10)
    assert intervals(PREDICTED, CLASSES, losses=many)["loss"].method == "t with the skewness"


@pytest.mark.parametrize("rows", [0, 1, 9])
def test_too_few_rows_have_no_interval_and_say_so(rows: int) -> None:
    """Where an interval rests on more than counts, fewer than ten rows have none, with the reason in the document."""
    found = split_intervals(intervals(GUESSED[:rows], NUMBERS[:rows], "mse", "pearson"))
    assert set(found["intervals"].values()) == {None}
    assert not found["interval_methods"]
    if rows == 9:
        assert found["no_interval"]["mse"] == "too few rows: 9, and it takes at least 10"
        assert found["no_interval"]["pearson"] == "too few rows: 9, and it takes at least 10"


def test_a_mean_over_classes_of_a_few_rows_each_has_no_interval() -> None:
    """Thirty classes in 60 rows: two rows a class are too few, and that is said."""
    labels = np.arange(60) % 30
    found = intervals(labels, labels, "f1", average="macro")["f1_macro"]
    assert found == Interval(None, "too few rows: 2.0 a class on average, and it takes at least 5")


def test_an_undefined_metric_has_no_interval() -> None:
    """F1 without a positive, and a correlation with a constant, have none; an accuracy of 1 has an honest one."""
    zeros = np.zeros(ROWS, int)
    found = intervals(zeros, zeros, "accuracy", "f1", "matthews_correlation")
    assert found["accuracy"].ends == pytest.approx([0.9817, 1], abs=1e-4)
    for name in ("f1", "matthews_correlation"):
        assert found[name] == Interval(None, "the metric is undefined on these rows")
    assert intervals(np.ones(ROWS), NUMBERS, "pearson")["pearson"].ends is None
    assert intervals(NUMBERS, NUMBERS, "mse")["mse"].ends is None  # every error is 0: nothing shows how far it varies


class Own:
    """A metric of a user, of which only `compute` is known."""

    def __init__(self) -> None:
        self.calls = self.rows = 0

    def compute(self, *, predictions: Any = None, references: Any = None) -> dict[str, float]:
        self.calls += 1
        self.rows += len(references)
        return {"own": float((predictions == references).mean())}


def test_a_users_metric_without_an_error_has_an_interval() -> None:
    """Resamples exchange a prediction here and there, so that 40 right rows are no certainty."""
    labels = np.arange(40) % 2
    low, high = intervals_of([("own", Own())], labels, labels, LOSSES[:40], np.ones(40), seed=1)["own"].ends
    assert 0.85 < low < 0.96
    assert high == 1


@pytest.mark.parametrize("rows", [200, 6_000, 50_000])
def test_a_users_metric_is_computed_a_bounded_number_of_times(rows: int) -> None:
    """Of many rows forty times, each on nearly all rows, instead of 999 times."""
    labels, metric = np.arange(rows) % 2, Own()
    found = intervals_of([("own", metric)], 1 - labels, labels, NUMBERS, NUMBERS + 9, seed=1)["own"]
    assert metric.calls <= (1_000 if rows == 200 else 42)
    assert found.ends is None or found.method


def drawn_table(classes: int, rate: float) -> Any:
    """What draws predictions and references of so many classes, with errors that go to all others alike."""

    def draw(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
        references = rng.integers(0, classes, rows)
        other = (references + rng.integers(1, classes, rows)) % classes
        return np.where(rng.random(rows) < rate, references, other), references

    return draw


@pytest.mark.parametrize("rate", [0.5, 0.85, 0.98])
@pytest.mark.parametrize(("rows", "classes"), [(20, 2), (60, 3), (200, 10)])
@pytest.mark.parametrize(
    ("name", "arguments"), [("accuracy", {}), ("f1", {"average": "macro"}), ("f1", {"average": "weighted"})]
)
def test_ninety_five_of_a_hundred_intervals_hold_the_truth(
    rate: float, rows: int, classes: int, name: str, arguments: dict
) -> None:
    """With errors that go to all classes alike every one of these is the rate: at least 0.93 of 200 draws, less the noise."""
    rng, draw, held = np.random.default_rng(7), drawn_table(classes, rate), 0
    metric = [(name, load_metric(name, **arguments))]
    for _ in range(200):
        found = intervals_of(metric, *draw(rng, rows), np.ones(0), np.ones(0), seed=0)
        ((low, high),) = [one.ends for key, one in found.items() if key != "loss"]
        held += low <= rate <= high
    assert held / 200 >= 0.93 - 0.03


def test_the_cost_of_a_mean_over_classes_does_not_grow_with_rows_times_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A macro F1 of 2,000 classes and 40,000 rows and its interval hold nothing of the size of their product."""
    largest: list[int] = []
    arrays = np.stack
    monkeypatch.setattr(np, "stack", lambda *given, **options: largest.append(1) or arrays(*given, **options))
    monkeypatch.setattr(bootstrap, "_bootstrapped", None)  # and nothing is drawn
    predictions, references = drawn_table(2_000, 0.9)(np.random.default_rng(0), 40_000)
    metric = load_metric("f1", average="macro")
    counts = metric.counts(predictions, references)
    assert counts.hits.shape == counts.predicted.shape == (2_000,)
    found = intervals_of([("f1", metric)], predictions, references, np.ones(0), np.ones(0), seed=0)["f1_macro"]
    assert found.ends[0] < 0.9 < found.ends[1]
    assert len(largest) <= 1  # the loss


@pytest.mark.parametrize(("positives", "negatives"), [(10, 10), (5, 45), (40, 60)])
def test_a_perfect_ranking_of_a_few_rows_has_an_interval(positives: int, negatives: int) -> None:
    """An area of 1 reaches down, one of 0 up, by as much; one of 1/2 is about that of the normal approximation."""
    low, high = newcombe_auc(1.0, positives, negatives)
    assert 0.55 < low < 0.99
    assert high == 1
    assert newcombe_auc(0.0, positives, negatives) == (0, pytest.approx(1 - low))
    low, high = newcombe_auc(0.5, positives, negatives)
    error = ((positives + negatives + 1) / (12 * positives * negatives)) ** 0.5
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.2)


def test_the_end_of_a_run_looks_at_each_row_a_fixed_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many classes: what is compared with every row does not grow with them, for the metrics and the class table."""
    from hfpipe.parts.metrics.classification import matthews_correlation
    from hfpipe.parts.tasks import findings

    counted: list[int] = []
    counts = np.bincount
    monkeypatch.setattr(np, "bincount", lambda *given, **options: counted.append(1) or counts(*given, **options))
    calls = {}
    for classes in (2, 400):
        predictions, references = drawn_table(classes, 0.9)(np.random.default_rng(0), 3_000)
        counted.clear()
        matthews_correlation().compute(predictions=predictions, references=references)
        load_metric("f1", average="macro").compute(predictions=predictions, references=references)
        findings.by_class(predictions, references, [str(k) for k in range(classes)], None)
        findings.confusion(predictions, references, [str(k) for k in range(classes)])
        calls[classes] = len(counted)
    assert calls[2] == calls[400] <= 14


def test_a_brier_score_without_a_mistake_is_no_proof_of_none() -> None:
    """Twenty sure and right rows: the score may still be 0.15, since one wrong row would weigh nearly 1."""
    from hfpipe.evaluation.statistics.of_findings import add_intervals
    from hfpipe.parts.tasks.findings import Scored, reliability

    references = np.arange(20) % 2
    probabilities = np.where(np.eye(2, dtype=bool)[references], 0.999, 0.001)
    scored = Scored(references, references, np.arange(20), probabilities, None, {}, {})
    found = add_intervals({"calibration": reliability(probabilities, references)}, scored, 0)["calibration"]
    low, high = found["intervals"]["brier"]
    assert low < 1e-6
    assert 0.1 < high < 0.25
    assert found["intervals"]["ece"] is None
    assert "calibration error" in found["no_interval"]["ece"]
