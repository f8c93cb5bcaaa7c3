"""Two models on the same examples: paired resamples, honest p values, and McNemar where metrics are shares."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hfpipe.evaluation.statistics.paired import compare_losses, compare_metrics, correct_examples
from hfpipe.evaluation.statistics.significance import mcnemar, share_difference
from hfpipe.parts.metrics.load import load_metric
from hfpipe.parts.metrics.multi_label import MultiLabel
from hfpipe.parts.metrics.scores import compute_all

RNG = np.random.default_rng(0)
ROWS = 300
CLASSES = RNG.integers(0, 2, ROWS)
GOOD = np.where(RNG.random(ROWS) < 0.9, CLASSES, 1 - CLASSES)
FAIR = np.where(RNG.random(ROWS) < 0.75, CLASSES, 1 - CLASSES)


def objects(values: list[Any]) -> np.ndarray:
    """One object a row, as sentences and answers come."""
    column = np.empty(len(values), object)
    column[:] = values
    return column


def pair(name: str, **arguments: Any) -> list[tuple[str, Any]]:
    """A metric with its name."""
    return [(name, load_metric(name, **arguments))]


def test_a_model_does_not_differ_from_itself() -> None:
    """p is 1; the share of correct examples has an honest interval around 0, and what no resample can show has none."""
    metrics = [*pair("accuracy"), *pair("f1"), *pair("matthews_correlation")]
    metrics += [("macro", load_metric("precision", average="macro"))]
    found = compare_metrics(metrics, GOOD, GOOD, CLASSES, seed=1, resamples=500)
    assert [one.p for one in found.values()] == [1] * 4
    low, high = found.pop("accuracy").interval
    assert low == -high == pytest.approx(-1.96 * 2**0.5 / (ROWS + 2), rel=1e-3)
    assert {one.interval for one in found.values()} == {None}


def test_two_perfect_models_are_not_proven_equal() -> None:
    """Without an error on either side the difference of the accuracies may still be a few points."""
    found = compare_metrics([*pair("accuracy"), *pair("f1")], CLASSES[:40], CLASSES[:40], CLASSES[:40], seed=1)
    low, high = found["accuracy"].interval
    assert low == -high
    assert 0.05 < high < 0.08
    assert found["f1"].interval is None
    assert found["f1"].p == 1


def test_a_few_differing_examples_prove_nothing() -> None:
    """Four examples that the second alone gets right: no p below 2 of the 16 ways to exchange the models on them."""
    second = CLASSES.copy()
    first = CLASSES.copy()
    first[np.flatnonzero(CLASSES == 1)[:4]] = 0
    found = compare_metrics([*pair("accuracy"), *pair("f1")], first, second, CLASSES, seed=1)
    assert found["f1"].p == found["accuracy"].p == 0.125


def test_the_interval_of_a_difference_of_shares_covers() -> None:
    """Two models of accuracies 0.97 and 0.95 on 40 examples: at least 93 of 100 intervals hold the difference."""
    rng, held = np.random.default_rng(3), 0
    for _ in range(2_000):
        sides = [rng.random(40) < rate for rate in (0.97, 0.95)]
        low, high = share_difference(int((sides[0] & ~sides[1]).sum()), int((sides[1] & ~sides[0]).sum()), 40)
        held += low <= -0.02 <= high
    assert held / 2_000 > 0.93


def test_the_interval_is_that_of_the_mean_of_the_differences() -> None:
    """For an accuracy it is d ± 1.96 s/√n over the examples' differences: narrower than without pairing."""
    found = compare_metrics(pair("accuracy"), FAIR, GOOD, CLASSES, seed=1)["accuracy"]
    differences = (GOOD == CLASSES).astype(float) - (FAIR == CLASSES)
    half = 1.96 * differences.std() / np.sqrt(ROWS)
    assert found.interval == pytest.approx([differences.mean() - half, differences.mean() + half], abs=0.1 * half)
    assert found.resamples == 9_999


def test_an_accuracy_has_mcnemars_p_and_other_metrics_that_of_the_resamples() -> None:
    """A share of right examples is tested on the disagreements; F1 by the resamples, and both find a large difference."""
    found = compare_metrics([*pair("accuracy"), *pair("f1")], FAIR, GOOD, CLASSES, seed=1)
    assert found["accuracy"].pairs == mcnemar(FAIR == CLASSES, GOOD == CLASSES)
    assert found["accuracy"].p == found["accuracy"].pairs.p < 0.001
    assert found["f1"].pairs is None
    assert found["f1"].p < 0.001
    assert found["f1"].interval[0] > 0


def test_a_macro_average_is_resampled_as_by_hand() -> None:
    """A macro average agrees with resampling both models by hand, and says how few resamples there were."""
    metrics = pair("f1", average="macro")
    found = compare_metrics(metrics, FAIR, GOOD, CLASSES, seed=1, resamples=400)["f1_macro"]
    rng, drawn = np.random.default_rng(2), []
    for _ in range(400):
        rows = rng.integers(0, ROWS, ROWS)
        scores = [compute_all(metrics, predictions[rows], CLASSES[rows])["f1_macro"] for predictions in (FAIR, GOOD)]
        drawn.append(scores[1] - scores[0])
    assert found.resamples == 400
    assert found.interval == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.02)


@pytest.mark.parametrize("metric", ["f1", "matthews_correlation"])
def test_the_bootstrap_rejects_equal_models_as_seldom_as_it_says(metric: str) -> None:
    """Two models of one quality, 400 examples, 500 draws: between 2 and 8 % come out below 0.05."""
    rng = np.random.default_rng(13)
    metrics, rejected = pair(metric), 0
    for _ in range(500):
        right = rng.integers(0, 2, 400)
        sides = [np.where(rng.random(400) < 0.8, right, 1 - right) for _ in range(2)]
        rejected += (
            compare_metrics(metrics, *sides, right, seed=int(rng.integers(2**31)), resamples=499)[metric].p < 0.05
        )
    assert 0.02 <= rejected / 500 <= 0.08


def test_the_losses_are_weighted_means_on_the_same_examples() -> None:
    """Twice the loss at twice the weight is no difference; a constant more is that constant, in every resample."""
    losses, ones = RNG.exponential(size=ROWS), np.ones(ROWS)
    same = compare_losses((losses, ones), (losses * 2, ones * 2), seed=1)
    assert (same.interval, same.p) == (None, 1)
    shifted = compare_losses((losses, ones), (losses + 0.25, ones), seed=1)
    assert shifted.interval == pytest.approx([0.25, 0.25])
    assert shifted.p < 0.001


def test_exact_matches_are_correct_examples_and_scores_between_are_not() -> None:
    """Of SQuAD the exact matches are, each over the rows that count in it; the F1 of words is not."""
    references = objects([{"answers": {"text": texts}} for texts in (["red"], ["blue sky"], [], ["x"])])
    predictions = objects([{"prediction_text": text} for text in ("red", "blue", "", "y")])
    found = correct_examples(load_metric("squad"), predictions, references)
    assert {name: list(rows) for name, rows in found.items()} == {
        "exact_match": [True, False, True, False],
        "has_answer_exact_match": [True, False, False],
        "no_answer_exact_match": [True],
    }


def test_words_of_sentences_are_no_examples() -> None:
    """The accuracy of words is resampled by sentences, not tested as if words were drawn one by one."""
    right = objects([["O", "B-PER", "O"], ["O", "O", "O"]])
    metric = load_metric("seqeval", scheme="IOB2")
    assert correct_examples(metric, objects([["O", "O", "O"]] * 2), right) == {}


def test_a_row_of_labels_is_right_when_all_are() -> None:
    """The subset accuracy of several labels is a share of rows; their F1 is not."""
    predictions, right = np.array([[1, 0], [1, 1], [0, 0]]), np.array([[1, 0], [0, 1], [0, 0]])
    found = correct_examples(MultiLabel(), predictions, right)
    assert {name: list(rows) for name, rows in found.items()} == {"subset_accuracy": [True, False, True]}


def test_an_accuracy_that_counts_otherwise_is_no_share() -> None:
    """A metric that is only called accuracy is not tested as one."""

    class Halved:
        def compute(self, *, predictions: Any = None, references: Any = None) -> dict[str, float]:
            return {"accuracy": float((predictions == references).mean() / 2)}

    assert correct_examples(Halved(), FAIR, CLASSES) == {}
