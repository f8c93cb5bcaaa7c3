"""The metrics against closed formulas in numpy, what is undefined, what is refused, and that nothing leaves memory."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import evaluate
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    matthews_corrcoef,
    mean_absolute_error,
    mean_squared_error,
    precision_score,
    recall_score,
)

from hfpipe.errors import DataError, MachineError, RecipeError
from hfpipe.parts.metrics import scripts
from hfpipe.parts.metrics.adapter import as_evaluate_metric
from hfpipe.parts.metrics.load import load_metric
from hfpipe.parts.metrics.scores import compute_all
from hfpipe.recipe.catalog import GREATER_IS_BETTER, METRICS, greater_is_better

GLUE_ACCURACY = ("sst2", "mnli", "mnli_matched", "mnli_mismatched", "qnli", "rte", "wnli", "hans")
OUTPUTS = {
    "accuracy": {"accuracy"},
    "f1": {"f1"},
    "precision": {"precision"},
    "recall": {"recall"},
    "matthews_correlation": {"matthews_correlation"},
    "quadratic_kappa": {"quadratic_kappa"},
    "pearson": {"pearson"},
    "spearmanr": {"spearmanr"},
    "mse": {"mse"},
    "mae": {"mae"},
    "glue/cola": {"matthews_correlation"},
    "glue/ax": {"matthews_correlation"},
    "glue/mrpc": {"accuracy", "f1"},
    "glue/qqp": {"accuracy", "f1"},
    "glue/stsb": {"pearson", "spearmanr"},
    **{f"glue/{name}": {"accuracy"} for name in GLUE_ACCURACY},
}
OF_OTHER_SHAPES = {"multi_label", "seqeval", "squad"}  # not one number a row: each has tests of its own
AVERAGES = ("binary", "macro", "micro", "weighted")
many = settings(max_examples=300, deadline=None)


@st.composite
def class_ids(draw, most_classes=5):
    """Predictions and references of one to `most_classes` classes, 0 to 40 examples: constant sides come up often."""
    examples = draw(st.integers(0, 40))
    sides = [draw(st.integers(1, most_classes)) for _ in range(2)]
    return [np.array(draw(st.lists(st.integers(0, k - 1), min_size=examples, max_size=examples)), int) for k in sides]


@st.composite
def quarters(draw):
    """Two sides of multiples of 1/4, which float64 holds exactly, with many ties; a side may be constant."""
    examples, span = draw(st.integers(0, 40)), draw(st.sampled_from([0, 1, 3, 50, 100_000]))
    side = st.lists(st.integers(-span, span), min_size=examples, max_size=examples)
    return np.array(draw(side), float) / 4, np.array(draw(side), float) / 4


def score(metric, predictions, references):
    """Return the only score of a metric."""
    (value,) = metric.compute(predictions=predictions, references=references).values()
    assert value is None or type(value) is float
    return value


def same(got, wanted, tolerance=1e-13):
    """Compare scores; None equals None alone."""
    if got is None or wanted is None:
        return got is wanted
    return abs(got - wanted) <= tolerance * max(1.0, abs(wanted))


def ratio(numerator, denominator):
    """Divide, or say that it is undefined."""
    return None if denominator == 0 else numerator / denominator


def class_score(kind, predictions, references, positive):
    """Score one class from its true and false positives and negatives."""
    tp = int(np.sum((predictions == positive) & (references == positive)))
    fp = int(np.sum((predictions == positive) & (references != positive)))
    fn = int(np.sum((predictions != positive) & (references == positive)))
    return {
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
    }[kind]


def averaged_score(kind, predictions, references, average):
    """Average the classes that occur; one whose score is undefined counts 0, as with scikit-learn's zero_division=0."""
    if len(references) == 0:
        return None
    if average == "micro":  # every wrong example is one FP and one FN, so all three are the accuracy
        return float(np.mean(predictions == references))
    classes = sorted(set(predictions.tolist()) | set(references.tolist()))
    scores = [class_score(kind, predictions, references, c) or 0.0 for c in classes]
    weights = [1 if average == "macro" else int(np.sum(references == c)) for c in classes]
    counted = [(s, w) for s, w in zip(scores, weights, strict=True) if w > 0]
    return sum(s * w for s, w in counted) / sum(w for _, w in counted)


def matthews(predictions, references):
    """Correlate the one-hot matrices: Gorodkin's definition by covariances rather than by counts."""
    if len(references) == 0:
        return None
    k = int(max(predictions.max(), references.max())) + 1
    x, y = np.eye(k)[predictions], np.eye(k)[references]
    x, y = x - x.mean(0), y - y.mean(0)
    if len(set(predictions.tolist())) == 1 or len(set(references.tolist())) == 1:
        return None
    return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))


def pearson(x, y):
    """Pearson's r by its textbook formula."""
    if len(x) < 2 or len(set(x.tolist())) == 1 or len(set(y.tolist())) == 1:
        return None
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))


def ranks(x):
    """Give equal values the mean of their ranks: as many as are smaller, and half of the equals."""
    return (x[:, None] > x[None, :]).sum(1) + ((x[:, None] == x[None, :]).sum(1) + 1) / 2


@many
@given(class_ids())
def test_accuracy_is_the_share_of_equal_labels(sides):
    """Accuracy equals the mean of the equalities, and is None without examples."""
    predictions, references = sides
    wanted = float(np.mean(predictions == references)) if len(references) else None
    assert same(score(load_metric("accuracy"), predictions, references), wanted)


@many
@given(class_ids(most_classes=2), st.sampled_from(["precision", "recall", "f1"]), st.integers(0, 1))
def test_binary_scores_follow_the_counts(sides, kind, positive):
    """Precision, recall and F1 of either class equal the formula of the counts, None where it divides by 0."""
    predictions, references = sides
    wanted = class_score(kind, predictions, references, positive)
    assert same(score(load_metric(kind, pos_label=positive), predictions, references), wanted)


@many
@given(class_ids(), st.sampled_from(["precision", "recall", "f1"]), st.sampled_from(["macro", "micro", "weighted"]))
def test_averages_follow_the_classes(sides, kind, average):
    """Macro, micro and weighted equal the averages of the classes that occur, an undefined score counting 0."""
    predictions, references = sides
    wanted = averaged_score(kind, predictions, references, average)
    assert same(score(load_metric(kind, average=average), predictions, references), wanted)


@many
@given(class_ids(), st.sampled_from(["precision", "recall", "f1"]), st.sampled_from(["macro", "weighted"]))
def test_averages_are_those_of_scikit_learn_with_zero_division_0(sides, kind, average):
    """Over the labels of the data, predictions included: none is left out for never being predicted."""
    predictions, references = sides
    if not len(references):
        return
    options = {"labels": np.union1d(predictions, references), "average": average, "zero_division": 0}
    wanted = getattr(sklearn.metrics, f"{kind}_score")(references, predictions, **options)
    assert same(score(load_metric(kind, average=average), predictions, references), wanted)


@many
@given(class_ids())
def test_matthews_is_the_correlation_of_one_hot_labels(sides):
    """MCC in two and more classes equals the covariance formula, and is None when a margin is zero."""
    assert same(score(load_metric("matthews_correlation"), *sides), matthews(*sides))


@many
@given(quarters())
def test_pearson_is_the_textbook_formula(sides):
    """Pearson's r equals its formula, and is None for constant input and fewer than two examples."""
    assert same(score(load_metric("pearson"), *sides), pearson(*sides))


@many
@given(quarters())
def test_spearman_is_pearson_of_mean_ranks(sides):
    """Spearman's correlation equals Pearson's r of the ranks, ties sharing their mean."""
    wanted = pearson(*map(ranks, sides)) if len(sides[0]) else None
    assert same(score(load_metric("spearmanr"), *sides), wanted)


@many
@given(quarters())
def test_errors_are_means_over_examples(sides):
    """MSE and MAE equal the means of squares and of absolute values."""
    predictions, references = sides
    error = predictions - references
    assert same(score(load_metric("mse"), *sides), float(np.mean(error**2)) if len(error) else None)
    assert same(score(load_metric("mae"), *sides), float(np.mean(np.abs(error))) if len(error) else None)


@pytest.mark.parametrize("name", OUTPUTS)
def test_glue_scores_are_the_single_ones(name):
    """A set of scores holds what the metric of each name gives alone."""
    predictions, references = np.array([0, 1, 1, 0, 1, 1]), np.array([0, 1, 0, 0, 1, 0])
    if name == "glue/stsb":
        predictions = predictions + np.arange(6) ** 2 / 7  # Pearson and Spearman differ
    for output, value in load_metric(name).compute(predictions=predictions, references=references).items():
        assert value == score(load_metric(output), predictions, references)


@pytest.mark.parametrize(
    ("name", "arguments", "predictions", "references", "wanted"),
    [
        ("f1", {}, [0, 0, 0], [0, 0, 0], None),
        ("f1", {}, [0, 0, 0], [0, 1, 0], 0.0),
        ("f1", {}, [1, 0, 0], [0, 0, 0], 0.0),
        ("f1", {}, [2, 2], [2, 2], None),
        ("precision", {}, [0, 0, 0], [0, 1, 0], None),
        ("precision", {}, [1, 0, 0], [0, 1, 0], 0.0),
        ("recall", {}, [0, 1, 0], [0, 0, 0], None),
        ("recall", {}, [0, 0, 0], [0, 1, 0], 0.0),
        ("precision", {"average": "macro"}, [0, 0, 1], [0, 1, 2], 1 / 6),
        ("recall", {"average": "macro"}, [0, 1, 2], [0, 1, 1], 0.5),
        ("recall", {"average": "weighted"}, [0, 1, 2], [0, 1, 1], 2 / 3),
        ("f1", {"average": "macro"}, [0, 0, 0], [0, 1, 2], 1 / 6),
        ("matthews_correlation", {}, [1, 1, 1], [0, 1, 1], None),
        ("matthews_correlation", {}, [0, 1, 1], [1, 1, 1], None),
        ("matthews_correlation", {}, [0, 1, 0, 1], [0, 0, 1, 1], 0.0),
        ("pearson", {}, [0.5, 0.5, 0.5], [1, 2, 3], None),
        ("pearson", {}, [1.0, 1.0, 1.0 + 2.3e-16], [1, 2, 3], None),
        ("pearson", {}, [1.0], [2.0], None),
        ("pearson", {}, [1.0, 3.0], [2.0, 1.0], -1.0),
        ("spearmanr", {}, [1.0, 2.0], [5.0, 5.0], None),
        ("spearmanr", {}, [7.0], [5.0], None),
        ("spearmanr", {}, [1.0, 2.0], [5.0, 9.0], 1.0),
        ("mse", {}, [float("nan"), 1.0], [1.0, 1.0], None),
        ("mse", {}, [1e200, 1.0], [1.0, 1.0], None),
        ("mae", {}, [float("inf"), 1.0], [1.0, 1.0], None),
    ],
)
def test_undefined_is_none_and_not_zero(name, arguments, predictions, references, wanted):
    """Cases worked out by hand, undefined ones beside true zeros, give exactly None or the number."""
    assert same(score(load_metric(name, **arguments), predictions, references), wanted)


@pytest.mark.parametrize("name", OUTPUTS)
def test_every_catalog_name_gives_its_outputs(name):
    """Each name is in the catalog, gives the names of its task, known as better up or down, and None when empty."""
    metric = load_metric(name)
    scores = metric.compute(predictions=[0, 1, 1, 0, 1], references=[0, 1, 0, 0, 1])
    assert set(scores) == OUTPUTS[name] <= set(GREATER_IS_BETTER)
    assert all(type(value) is float for value in scores.values())
    assert metric.compute(predictions=[], references=[]) == dict.fromkeys(OUTPUTS[name])


def test_the_catalog_holds_these_metrics_and_no_more():
    """No catalog row goes untested here, and the losses are the names that are better when smaller."""
    assert set(METRICS) - OF_OTHER_SHAPES == set(OUTPUTS)
    assert {name for name, greater in GREATER_IS_BETTER.items() if not greater} == {"loss", "mse", "mae"}


@pytest.mark.parametrize("name", OUTPUTS)
def test_no_warning_leaks(name, recwarn):
    """30 classes in 30 examples, one class and constant sides pass without a warning of scikit-learn or scipy."""
    metric = load_metric(name, average="macro") if name in ("f1", "precision", "recall") else load_metric(name)
    if "f1" not in OUTPUTS[name] or name == "f1":
        metric.compute(predictions=list(range(30)), references=list(range(30)))
    metric.compute(predictions=[1] * 30, references=[1] * 30)
    metric.compute(predictions=[0] * 30, references=[1] * 30)
    metric.compute(predictions=[1], references=[1])
    assert not recwarn.list


def test_a_warning_of_the_library_is_kept_in(monkeypatch, recwarn):
    """Whatever scikit-learn warns of while a metric is computed stays inside, also in releases that warn more."""

    def warn(*_, **__):
        warnings.warn("The number of unique classes is greater than 50%", UserWarning, stacklevel=1)
        return float(np.float64(1.0) / np.float64(0.0))

    monkeypatch.setattr("sklearn.metrics.cohen_kappa_score", warn)
    assert load_metric("quadratic_kappa").compute(predictions=[0], references=[0]) == {"quadratic_kappa": None}
    assert not recwarn.list


@many
@given(class_ids(most_classes=12), st.sampled_from(["accuracy", "matthews_correlation"]))
def test_scikit_learn_gives_the_same_float(sides, name):
    """Accuracy and MCC are scikit-learn's own numbers to the last bit, wherever they are defined."""
    theirs = {"accuracy": accuracy_score, "matthews_correlation": matthews_corrcoef}[name]
    value = score(load_metric(name), *sides)
    assert value is None or value == theirs(sides[1], sides[0])


@many
@given(class_ids(most_classes=7), st.sampled_from(["precision", "recall", "f1"]), st.sampled_from(AVERAGES))
def test_scikit_learn_gives_the_same_float_for_classes(sides, kind, average):
    """Precision, recall and F1 in all averages are scikit-learn's numbers to the last bit, wherever they are defined."""
    predictions, references = sides
    if average == "binary":
        predictions, references = predictions % 2, references % 2
    value = score(load_metric(kind, average=average), predictions, references)
    theirs = {"precision": precision_score, "recall": recall_score, "f1": f1_score}[kind]
    assert value is None or value == theirs(references, predictions, average=average, zero_division=0)


@pytest.mark.parametrize("examples", [1, 2, 7, 200, 10_001])
@pytest.mark.parametrize("narrow", [False, True])
def test_scikit_learn_gives_the_same_float_for_numbers(examples, narrow):
    """MSE and MAE are scikit-learn's numbers to the last bit, for predictions in float64 and float32."""
    predictions, references = np.random.default_rng(examples).normal(size=(2, examples)) * 3
    if narrow:
        predictions = predictions.astype(np.float32)
    assert score(load_metric("mse"), predictions, references) == mean_squared_error(references, predictions)
    assert score(load_metric("mae"), predictions, references) == mean_absolute_error(references, predictions)


@pytest.mark.parametrize("name", ["accuracy", "glue/mrpc", "matthews_correlation", "glue/stsb", "mse", "mae"])
def test_100000_rows_take_less_than_a_second(name):
    """A split of 100,000 examples is scored in under a second."""
    generator = np.random.default_rng(0)
    predictions, references = generator.integers(0, 2, (2, 100_000))
    metric = load_metric(name)
    start = time.perf_counter()
    metric.compute(predictions=predictions, references=references)
    assert time.perf_counter() - start < 1.0


def test_numbers_stay_float64():
    """A difference of 1e-9, which float32 loses, arrives in the score, at once and by batches."""
    metric = as_evaluate_metric("mae")
    assert score(metric, [1.0 + 1e-9], [1.0]) == (1.0 + 1e-9) - 1.0
    metric.add_batch(predictions=[1.0 + 1e-9], references=[1.0])
    assert metric.compute() == {"mae": (1.0 + 1e-9) - 1.0}


def test_labels_of_a_narrow_type_do_not_wrap():
    """Bytes, booleans and whole floats are class ids like any other integers."""
    for kind in (np.uint8, np.int8, bool, np.float32):
        assert score(load_metric("f1"), np.array([1, 0, 1], kind), np.array([1, 1, 0], kind)) == 0.5


def test_batches_add_up():
    """add, add_batch and compute together score what one compute scores, empty batches included, time after time."""
    generator = np.random.default_rng(1)
    predictions, references = generator.integers(0, 3, (2, 50))
    metric = as_evaluate_metric("f1", average="macro")
    whole = metric.compute(predictions=predictions, references=references)
    for _ in range(2):
        metric.add_batch(predictions=[], references=[])
        metric.add_batch(predictions=predictions[:20], references=references[:20])
        metric.add(prediction=predictions[20], reference=references[20])
        assert len(metric) == 21
        assert metric.compute(predictions=predictions[21:], references=references[21:]) == whole
        metric.add_batch(predictions=[], references=[])
        assert metric.compute() == {"f1": None}


def test_scoring_draws_no_random_number():
    """Building and computing leave numpy's global generator where it was."""
    before = np.random.get_state()[1].copy(), np.random.get_state()[2]
    load_metric("glue/mrpc").compute(predictions=[0, 1], references=[1, 1])
    after = np.random.get_state()
    assert (before[0] == after[1]).all()
    assert before[1] == after[2]


@pytest.mark.parametrize("kind", ["precision", "recall", "f1"])
def test_binary_refuses_three_classes(kind):
    """A third class with average binary is an error that names the averages to choose from."""
    with pytest.raises(RecipeError, match=r"binary.*3: 0, 1, 2; allowed: macro, micro or weighted"):
        load_metric(kind).compute(predictions=[0, 1, 1], references=[0, 1, 2])


def test_binary_refuses_a_positive_class_outside_two():
    """Classes 0 and 2 with pos_label 1 are an error rather than an undefined score."""
    with pytest.raises(RecipeError, match=r"pos_label 1 is not among.*0, 2 as pos_label"):
        load_metric("f1").compute(predictions=[0, 2], references=[0, 0])


def test_an_average_is_part_of_the_name():
    """A macro F1 is called f1_macro, so that two averages stand beside each other and no list shows one as F1."""
    sides = {"predictions": [0, 1, 2], "references": [0, 2, 2]}
    pairs = [(kind, load_metric("f1", average=kind)) for kind in ("macro", "weighted", "micro")]
    assert list(compute_all(pairs, **sides)) == ["f1_macro", "f1_weighted", "f1_micro"]
    assert list(as_evaluate_metric("f1", average="macro").compute(**sides)) == ["f1"]  # as `evaluate` calls it
    assert all(greater_is_better(name) for name in ("f1_macro", "precision_weighted", "recall_micro"))


def test_unknown_average_is_refused_when_built():
    """A misspelt average is found before anything is scored."""
    with pytest.raises(RecipeError, match="'macr'; did you mean 'macro'"):
        load_metric("f1", average="macr")


@pytest.mark.parametrize(
    ("name", "predictions", "references", "message"),
    [
        ("accuracy", [0, 1], [0], "2 predictions for 1 references"),
        ("accuracy", [[0.1, 0.9]], [1], r"predictions have the shape \[1, 2\]"),
        ("accuracy", [0.3, 1.0], [0, 1], "predictions are no class ids: 0.3, 1.0"),
        ("accuracy", [0, 1], ["no", "yes"], "references are no class ids: no, yes"),
        ("accuracy", [0, 1], [0, -1], "row 1: the class id in the references is -1"),
        ("accuracy", [0, None], [0, 1], "no class ids"),
        ("accuracy", None, [0, 1], "there are no predictions"),
        ("mse", [[1.0], [2.0]], [1.0, 2.0], r"shape \[2, 1\]"),
        ("mse", ["a"], [1.0], "no numbers: a"),
        ("mse", [1.0, 2.0], [1.0, float("nan")], "row 1: the reference is nan"),
        ("mse", [[1.0], [1.0, 2.0]], [1.0, 2.0], "make no array"),
    ],
)
@pytest.mark.parametrize("batched", [False, True])
def test_wrong_values_are_refused(name, predictions, references, message, batched):
    """What is no class id or number is an error with its row or shape, at once and by batches, never a cast."""
    score = as_evaluate_metric(name).add_batch if batched else load_metric(name).compute
    with pytest.raises(DataError, match=message):
        score(predictions=predictions, references=references)


def test_compute_all_is_flat():
    """Scores of several metrics come in one flat dict, nested ones spread out, what is not finite None."""

    class Nested:
        def compute(self, *, predictions, references):
            return {"PER": {"f1": np.float32(0.5)}, "steps": [1, float("nan")], "at": np.array(2.0), "no": None}

    scores = compute_all([("mse", load_metric("mse")), ("nested", Nested())], [1.0, 2.0], [1.0, 4.0])
    assert scores == {"mse": 2.0, "PER_f1": 0.5, "steps_0": 1.0, "steps_1": None, "at": 2.0, "no": None}
    json.dumps(scores, allow_nan=False)


def test_compute_all_refuses_one_name_twice():
    """Two metrics that give the same score are an error naming both."""
    pair = [(name, load_metric(name)) for name in ("accuracy", "glue/mrpc")]
    with pytest.raises(RecipeError, match="'accuracy' and 'glue/mrpc' both give 'accuracy'"):
        compute_all(pair, [0, 1], [0, 1])


@pytest.mark.parametrize(("result", "message"), [({"text": "0.5"}, "'text' is '0.5'"), (0.5, "returned float")])
def test_compute_all_refuses_what_is_no_number(result, message):
    """A metric that returns a text or no dict is an error, not a cast."""

    class Odd:
        def compute(self, *, predictions, references):
            return result

    with pytest.raises(RecipeError, match=message):
        compute_all([("odd", Odd())], [0], [0])


SCRIPT = """
import datasets
import evaluate

class HalfRight(evaluate.Metric):
    def _info(self):
        number = datasets.Value("int64")
        features = datasets.Features({"predictions": number, "references": number})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references, factor=0.5):
        return {"half": factor * sum(p == r for p, r in zip(predictions, references)) / len(references)}
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    """A metric script in a folder of its own name, with its copies going to a modules cache of its own.

    A cache that another test of this process has loaded a script from would be found first: it is out of sight here.
    """

    def forget():
        for name in [name for name in sys.modules if name.startswith("evaluate_modules")]:
            del sys.modules[name]

    forget()
    for name in ("HF_MODULES_CACHE", "HF_METRICS_CACHE", "HF_EVALUATE_CACHE", "DOWNLOADED_EVALUATE_PATH"):
        monkeypatch.setattr(evaluate.config, name, tmp_path / "cache" / name)
    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", False)  # whatever the environment of the tests says
    monkeypatch.setattr(scripts.hub_constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(sys, "path", [one for one in sys.path if not Path(one, "evaluate_modules").exists()])
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "half_right" / "half_right.py"
    path.parent.mkdir()
    path.write_text(SCRIPT)
    yield path
    forget()


@pytest.fixture
def attempts(monkeypatch):
    """Every attempt to look a host up or to connect, each of them refused."""
    made: list[object] = []

    def refuse(*arguments, **_):
        made.append(arguments)
        raise OSError("no network in this test")

    for owner, name in ((socket, "getaddrinfo"), (socket, "create_connection"), (socket.socket, "connect")):
        monkeypatch.setattr(owner, name, refuse)
    return made


def test_scripts_run_by_their_path(script, attempts):
    """A local script runs by its folder or its file, without the network, and its arguments reach its compute."""
    for name in ("./half_right", str(script.parent), "half_right/half_right.py", str(script)):
        assert load_metric(name).compute(predictions=[0, 1], references=[0, 0]) == {"half": 0.25}
    assert load_metric("./half_right", factor=4).compute(predictions=[0, 1], references=[0, 0]) == {"half": 2.0}
    with pytest.raises(RecipeError, match=r"no argument 'facto'; did you mean 'factor'.*allowed: factor"):
        load_metric("./half_right", facto=4)
    assert attempts == []


def test_scripts_run_by_no_other_name(script):
    """A script in the working folder is run neither by its bare name nor in the place of the Hub's."""
    with pytest.raises(RecipeError, match="unknown metric 'half_right'"):
        load_metric("half_right")
    with pytest.raises(RecipeError, match=r"stands before the Hub's 'half_right'.*\./half_right"):
        load_metric("evaluate:half_right")
    assert not list(Path("cache").rglob("*.py"))


def test_broken_and_missing_scripts_give_their_own_errors(script):
    """A script that is not there, fails, or needs a package that is not there, each gives its own error."""
    with pytest.raises(RecipeError, match=r"there is no metric script nowhere.py"):
        load_metric("./nowhere.py")
    script.write_text("1 / 0")
    with pytest.raises(RecipeError, match=r"fails while loading .ZeroDivisionError"):
        load_metric("./half_right")
    script.write_text("import no_such_package_at_all\n" + SCRIPT)
    with pytest.raises(MachineError, match="no_such_package_at_all"):
        load_metric("./half_right")


def test_offline_asks_the_cache_and_no_host(script, attempts, monkeypatch):
    """With HF_HUB_OFFLINE, evaluate:NAME tries no connection; the error says how to get the script."""
    monkeypatch.setattr(scripts.hub_constants, "HF_HUB_OFFLINE", True)
    for name in ("evaluate:accuracy", "evaluate:someone/metric"):
        with pytest.raises(MachineError, match=r"offline mode is on.*evaluate.load"):
            load_metric(name)
    assert attempts == []
    assert evaluate.config.HF_EVALUATE_OFFLINE is False


def test_an_unreachable_hub_is_an_error_of_hfpipe(script, attempts):
    """With the network gone and nobody having said so, evaluate:NAME is tried, and its error is hfpipe's."""
    with pytest.raises(MachineError, match=r"evaluate:accuracy.*can't be had.*same HF_HOME"):
        load_metric("evaluate:accuracy")
    assert attempts


def test_own_classes_and_objects(tmp_path, monkeypatch):
    """module:attribute reaches a class, an evaluate.Metric without a constructor and an object, arguments checked."""
    own = SCRIPT + textwrap.dedent("""
        class Plain:
            def __init__(self, scale):
                self.scale = scale

            def compute(self, *, predictions, references):
                return {"plain": self.scale * len(references)}

        ready = Plain(3)
        number = 3
        def score(predictions, references, rows): return {}
    """)
    (tmp_path / "own_metrics_of_a_test.py").write_text(own)
    monkeypatch.syspath_prepend(tmp_path)
    name = "own_metrics_of_a_test:"
    assert load_metric(name + "Plain", scale=2).compute(predictions=[0], references=[0]) == {"plain": 2}
    assert load_metric(name + "ready").compute(predictions=[0], references=[0]) == {"plain": 3}
    assert load_metric(name + "HalfRight", factor=1).compute(predictions=[0], references=[0]) == {"half": 1.0}
    for attribute, arguments, message in (
        ("Plain", {"size": 2}, r"missing a required argument: 'scale'; allowed: Plain\(scale\)"),
        ("HalfRight", {"factr": 2}, "no argument 'factr'; did you mean 'factor'"),
        ("ready", {"scale": 2}, "built already and takes no scale"),
        ("number", {}, "it is 3"),
        ("score", {}, "missing a required argument: 'predictions'"),
    ):
        with pytest.raises(RecipeError, match=message):
            load_metric(name + attribute, **arguments)


def test_no_connection_no_file(tmp_path):
    """In a fresh process with sockets blocked and a cache that can't be made, all metrics of the catalog score."""
    (tmp_path / "file").touch()
    program = """
        import json, socket
        attempts = []
        def refuse(*arguments, **_):
            attempts.append(repr(arguments))
            raise OSError("no network in this test")
        socket.getaddrinfo = socket.create_connection = refuse
        socket.socket.connect = socket.socket.connect_ex = refuse

        from hfpipe.parts.metrics.adapter import as_evaluate_metric
        from hfpipe.parts.metrics.load import load_metric
        from hfpipe.recipe.catalog import METRICS
        scores = {}
        for name in set(METRICS) - {"multi_label", "seqeval", "squad"}:
            scores[name] = load_metric(name).compute(predictions=[0, 1, 1], references=[0, 1, 0])
            metric = as_evaluate_metric(name)
            metric.add_batch(predictions=[0, 1, 1], references=[0, 1, 0])
            assert metric.compute() == scores[name], name
        print(json.dumps({"attempts": attempts, "scores": scores}))
    """
    root = str(Path(scripts.__file__).parents[3])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    # A folder below a file can't be made by anyone, not even by root, who may write to read-only folders.
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "file" / "home"), "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], env=env, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["attempts"] == []
    assert {name: set(scores) for name, scores in result["scores"].items()} == OUTPUTS
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", [name for name in METRICS if name not in ("multi_label", "seqeval", "squad")])
def test_names_are_had_without_computing(name, monkeypatch):
    """What a metric would name and refuse is found without scikit-learn or scipy, the same as by computing."""
    metric = [(name, load_metric(name))]
    values = [0, 1, 1, 0]
    wanted = list(compute_all(metric, values, values))
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)  # importing it would fail
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    assert compute_all(metric, values, values, names_only=True) == dict.fromkeys(wanted)
    with pytest.raises(DataError, match="2 predictions for 1 references"):
        compute_all(metric, [0, 1], [0], names_only=True)


@pytest.mark.parametrize("name", ["f1", "precision", "recall", "glue/mrpc"])
def test_more_than_two_classes_are_refused_without_computing(name):
    """A binary average of three classes is a mistake that is told before the first step, by the same words."""
    for names_only in (True, False):
        with pytest.raises(RecipeError, match="average 'binary' scores two classes, and the data have 3"):
            compute_all([(name, load_metric(name))], [0, 1, 2], [0, 1, 2], names_only=names_only)


def test_an_adapted_metric_is_one_of_evaluates(tmp_path):
    """It is an evaluate.Metric that evaluate.combine takes, also of other shapes than one number a row."""
    pair = [as_evaluate_metric("accuracy"), as_evaluate_metric("f1")]
    assert all(isinstance(one, evaluate.Metric) for one in pair)
    combined = evaluate.combine(pair).compute(predictions=[0, 1, 1], references=[0, 1, 0])
    assert combined == {"accuracy": 2 / 3, "f1": 2 / 3}
    words = as_evaluate_metric("seqeval", scheme="IOB2")
    words.add(prediction=["B-x", "O"], reference=["B-x", "B-x"])
    words.add_batch(predictions=[["O"]], references=[["O"]])
    assert words.compute()["f1"] == 2 / 3
    with pytest.raises(RecipeError, match="unknown metric 'f2'"):
        as_evaluate_metric("f2")


def test_evaluate_is_imported_by_the_adapter_alone():
    """Loading, computing and resampling every metric of the catalog never imports `evaluate`; the adapter does."""
    program = """
        import sys
        import numpy as np
        import hfpipe.parts.build
        from hfpipe.evaluation.statistics.bootstrap import resampled
        from hfpipe.parts.metrics.load import load_metric
        from hfpipe.recipe.catalog import METRICS
        for name in METRICS:
            metric, values = load_metric(name), np.array([0, 1, 1])
            if name not in ("multi_label", "seqeval", "squad"):
                metric.compute(predictions=values, references=values)
                resampled([(name, metric)], values, values, seed=0, resamples=9)
        assert "evaluate" not in sys.modules
        from hfpipe.parts.metrics.adapter import as_evaluate_metric
        assert "evaluate" not in sys.modules
        as_evaluate_metric("accuracy")
        assert "evaluate" in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)
