"""What stands behind a metric: against scikit-learn, and against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, r2_score, roc_auc_score

from hfpipe.parts.tasks import Task, findings, head_task
from hfpipe.recipe import schema


def drawn(rows: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decisions, labels and probabilities of a middling classifier, with equal probabilities among them."""
    rng = np.random.default_rng(seed)
    references = rng.integers(0, classes, rows)
    logits = np.round(rng.normal(size=(rows, classes)) + 1.2 * (references[:, None] == np.arange(classes)), 1)
    probabilities = softmax(logits, axis=1)
    return probabilities.argmax(axis=1), references, probabilities


def test_ranking_and_brier_are_scikit_learns() -> None:
    """Of two classes those of class 1; of more the mean of each against the others."""
    predictions, references, probabilities = drawn(300, 2)
    table = findings.by_class(predictions, references, ["no", "yes"], probabilities)
    assert findings.ranking(table)["roc_auc"] == pytest.approx(roc_auc_score(references, probabilities[:, 1]))
    assert findings.ranking(table)["average_precision"] == pytest.approx(
        average_precision_score(references, probabilities[:, 1])
    )
    assert findings.reliability(probabilities, references)["brier"] == pytest.approx(
        brier_score_loss(references, probabilities[:, 1])
    )
    predictions, references, probabilities = drawn(300, 3)
    found = findings.ranking(findings.by_class(predictions, references, ["a", "b", "c"], probabilities))
    assert found["roc_auc"] == pytest.approx(
        roc_auc_score(references, probabilities, multi_class="ovr", average="macro")
    )


def test_each_class_has_its_own_metrics_and_what_is_undefined_is_none() -> None:
    """By hand; a class that is never predicted and never holds has no metric, and not 0."""
    predictions, references = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    first, second, third = findings.by_class(predictions, references, ["a", "b", "c"], None)
    assert (first["precision"], first["recall"], first["support"], first["predicted"]) == (0.5, 0.5, 2, 2)
    assert second["f1"] == pytest.approx(f1_score(references, predictions))
    assert (third["precision"], third["recall"], third["f1"], third["support"]) == (None, None, None, 0)


def test_reliability_by_hand() -> None:
    """Four sure decisions of which three are correct, and one unsure one that is wrong."""
    probabilities = np.array([[0.05, 0.95]] * 4 + [[0.55, 0.45]])
    references = np.array([1, 1, 1, 0, 1])
    found = findings.reliability(probabilities, references)
    sure, unsure = found["bins"][9], found["bins"][5]
    assert (sure["count"], sure["confidence"], sure["accuracy"]) == (4, pytest.approx(0.95), 0.75)
    assert (unsure["count"], unsure["accuracy"]) == (1, 0.0)
    assert found["bins"][0]["accuracy"] is None
    assert found["ece"] == pytest.approx((4 * 0.2 + 0.55) / 5)
    assert sum(one["count"] for one in found["bins"]) == 5


def test_a_confidence_on_an_edge_counts_once() -> None:
    """0.5 belongs to the bin above it, and 1 to the last one."""
    assert findings.bins_of(np.array([0.0, 0.5, 0.999, 1.0])).tolist() == [0, 5, 9, 9]


def test_which_class_is_predicted_as_which() -> None:
    """Rows are the references, columns the predictions; of very many classes the confused pairs."""
    predictions, references = np.array([0, 1, 1, 2]), np.array([0, 0, 1, 2])
    assert findings.confusion(predictions, references, ["a", "b", "c"]) == {
        "names": ["a", "b", "c"],
        "counts": [[1, 1, 0], [0, 1, 0], [0, 0, 1]],
    }
    many = findings.confusion(predictions, references, [str(k) for k in range(201)])
    assert many == {"classes": 201, "pairs": [{"reference": "0", "prediction": "1", "count": 1, "of": 2}]}


def test_errors_of_a_regression() -> None:
    """In units of the label; the worst examples by their row numbers; R² undefined where all labels are one number."""
    references, predictions = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.5, 2.0, 2.0, 4.0])
    found = findings.errors(predictions, references, np.array([10, 11, 12, 13]))
    assert found["mean"] == pytest.approx(-0.125)
    assert found["rmse"] == pytest.approx(np.sqrt(1.25 / 4))
    assert found["r2"] == pytest.approx(r2_score(references, predictions))
    assert [one["id"] for one in found["worst"][:2]] == [12, 10]
    assert [(one["prediction"], one["reference"]) for one in found["worst"][:2]] == [(2.0, 3.0), (1.5, 1.0)]
    assert all((one["said"], one["right"]) == (one["prediction"], one["reference"]) for one in found["worst"])
    assert sum(found["residuals"]["counts"]) == 4
    assert findings.errors(predictions, np.ones(4), np.arange(4))["r2"] is None


def test_one_sort_ranks_as_scikit_learn_does() -> None:
    """ROC-AUC and average precision, with equal scores among them."""
    rng = np.random.default_rng(0)
    for rows in (2, 5, 40, 300):
        held, scores = rng.random(rows) < 0.3, rng.integers(0, 12, rows) / 12
        held[0], held[1] = True, False
        area, precision = findings.rank_scores(held, scores)
        assert area == pytest.approx(roc_auc_score(held, scores))
        assert precision == pytest.approx(average_precision_score(held, scores))


def test_many_classes_are_counted_and_not_ranked_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a stated number of probabilities no class is sorted, and the ranking says so; classes that occur alone are."""
    predictions, references, probabilities = drawn(60, 40)
    sorts: list[int] = []
    ranked = findings.rank_scores
    monkeypatch.setattr(findings, "rank_scores", lambda *sides: sorts.append(1) or ranked(*sides))
    names = [str(k) for k in range(40)]
    findings.by_class(predictions, references, names, probabilities)
    assert len(sorts) == len(np.unique(references))
    monkeypatch.setattr(findings, "MOST_RANKED", 2_000)
    sorts.clear()
    table = findings.by_class(predictions, references, names, probabilities)
    assert not sorts
    assert findings.ranking(table, probabilities.size)["what"] == (
        "not ranked: of more than 2,000 probabilities (2,400 here) that is left out"
    )


SPECS = {
    "text-classification": schema.Task(text="text"),
    "text-regression": schema.Task(kind="text-regression", text="text"),
    "multi-label-classification": schema.Task(kind="multi-label-classification", text="text"),
    "token-classification": schema.Task(kind="token-classification", text="words"),
    "question-answering": schema.Task(kind="question-answering", text=["question", "context"]),
    "multiple-choice": schema.Task(kind="multiple-choice", text="context", choices="endings"),
}


def task_of(kind: str, *names: str) -> Task:
    """The task of a trained head with these classes."""
    return head_task(SPECS[kind], names)


def words(*rows: object) -> np.ndarray:
    """Predictions or references that are no numbers, as a metric takes them."""
    found = np.empty(len(rows), dtype=object)
    found[:] = list(rows)
    return found


@pytest.mark.parametrize(
    ("task", "references", "what", "predictions"),
    [
        (
            task_of("text-classification", "no", "yes"),
            np.array([1, 0, 1]),
            "always 'yes', the most frequent one here",
            [1, 1, 1],
        ),
        (task_of("text-regression"), np.array([1.0, 3.0]), "always the mean, 2", [2.0, 2.0]),
        (
            task_of("multiple-choice"),
            np.array([2, 2, 0]),
            "always choice 2, the most frequent one here",
            [2, 2, 2],
        ),
        (
            task_of("multi-label-classification", "x", "y"),
            np.array([[1, 0], [1, 1], [1, 0]]),
            "always x, as most examples",
            [[1, 0]] * 3,
        ),
    ],
)
def test_a_constant_prediction(task: Task, references: np.ndarray, what: str, predictions: list[object]) -> None:
    """The most frequent class, the mean, or what each label mostly is, in the shape of the references."""
    in_words, found = task.constant_predictions(references)[0]
    assert in_words == what
    assert found.tolist() == predictions


def test_a_constant_prediction_for_words_and_for_questions() -> None:
    """The most frequent label for every word; no answer, where some questions have none, and the usual answers."""
    tags = task_of("token-classification", "O", "B-x")
    (in_words, found), (other, _) = tags.constant_predictions(words(["O", "B-x"], ["O"]))
    assert in_words == "always 'O', the most frequent label of a word here"
    assert other == "always 'B-x'"
    assert found.tolist() == [["O", "O"], ["O"]]
    assert tags.constant_predictions(words([], [])) == []
    questions, answered = task_of("question-answering"), {"answers": {"text": ["here"], "answer_start": [0]}}
    assert [what for what, _ in questions.constant_predictions(words(answered))] == ["always the answer 'here'"]
    none, answer = questions.constant_predictions(words(answered, {"answers": {"text": [], "answer_start": []}}))
    first, second = none[1]
    assert answer[1][0]["prediction_text"] == "here"
    assert first["prediction_text"] == second["prediction_text"] == ""


@pytest.mark.parametrize(
    ("task", "predictions", "told"),
    [
        ("text-classification", np.array([1, 1, 1]), "the model predicts 'yes' for all 3 examples"),
        ("text-classification", np.array([1, 1, 0]), None),
        ("multi-label-classification", np.array([[1, 0], [1, 0]]), "the model predicts no for all 2 examples"),
        ("multi-label-classification", np.array([[0, 0], [0, 0]]), "the model predicts no label for all 2 examples"),
        ("multi-label-classification", np.array([[0, 0], [0, 1]]), None),
        ("multiple-choice", np.array([2, 2]), "the model predicts choice 2 for all 2 examples"),
        ("multiple-choice", np.array([2, 0]), None),
        ("text-regression", np.array([2.5, 2.5001]), "the model predicts about 2.5 for all 2 examples"),
        ("text-regression", np.array([2.5, 2.6]), None),
        ("token-classification", words(["B-x", "B-x"], ["B-x"]), "the model predicts 'B-x' for every word"),
        ("token-classification", words(["O", "B-x"], ["O"]), None),
        (
            "question-answering",
            words({"prediction_text": ""}, {"prediction_text": ""}),
            "the model answers no question",
        ),
        ("question-answering", words({"prediction_text": ""}, {"prediction_text": "here"}), None),
    ],
)
def test_one_prediction_for_all_examples_is_told(task: str, predictions: np.ndarray, told: str | None) -> None:
    """Of every kind of task in its own words, and nothing where a single prediction differs."""
    names = ("O", "B-x") if task == "token-classification" else ("no", "yes")
    assert task_of(task, *names).degenerate(predictions) == told
