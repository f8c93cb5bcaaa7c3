"""What stands behind a figure: against scikit-learn, and against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import average_precision_score, brier_score_loss, f1_score, r2_score, roc_auc_score

from hfpipe.evaluation import findings
from hfpipe.evaluation.baselines import constant_answer
from hfpipe.evaluation.statistics.bootstrap import count_intervals


def drawn(rows: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decisions, labels and probabilities of a middling classifier, with equal probabilities among them."""
    rng = np.random.default_rng(seed)
    right = rng.integers(0, classes, rows)
    logits = np.round(rng.normal(size=(rows, classes)) + 1.2 * (right[:, None] == np.arange(classes)), 1)
    probabilities = softmax(logits, axis=1)
    return probabilities.argmax(axis=1), right, probabilities


@pytest.mark.parametrize("classes", [2, 4])
def test_figures_by_count_are_the_figures_of_the_drawn_rows(classes: int) -> None:
    """A bootstrap by counts gives what scikit-learn and `reliability` give on the rows drawn so often."""
    _, right, probabilities = drawn(80, classes)
    counts = np.random.default_rng(1).multinomial(80, np.full(80, 1 / 80), size=5)
    functions = findings.figures_by_count(probabilities, right)
    for number, times in enumerate(counts):
        rows = np.repeat(np.arange(80), times)
        table = findings.by_class(
            probabilities[rows].argmax(axis=1), right[rows], list("abcd")[:classes], probabilities[rows]
        )
        whole = {**findings.ranking(table), **findings.reliability(probabilities[rows], right[rows])}
        for name, function in functions.items():
            assert function(counts.astype(float))[number] == pytest.approx(whole[name]), name


def test_ranking_and_brier_are_scikit_learns() -> None:
    """Of two classes those of class 1; of more the mean of each against the others."""
    said, right, probabilities = drawn(300, 2)
    table = findings.by_class(said, right, ["no", "yes"], probabilities)
    assert findings.ranking(table)["roc_auc"] == pytest.approx(roc_auc_score(right, probabilities[:, 1]))
    assert findings.ranking(table)["average_precision"] == pytest.approx(
        average_precision_score(right, probabilities[:, 1])
    )
    assert findings.reliability(probabilities, right)["brier"] == pytest.approx(
        brier_score_loss(right, probabilities[:, 1])
    )
    said, right, probabilities = drawn(300, 3)
    found = findings.ranking(findings.by_class(said, right, ["a", "b", "c"], probabilities))
    assert found["roc_auc"] == pytest.approx(roc_auc_score(right, probabilities, multi_class="ovr", average="macro"))


def test_each_class_has_its_own_figures_and_what_is_undefined_is_none() -> None:
    """By hand; a class that nobody says and that never holds has no figure, and not 0."""
    said, right = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    first, second, third = findings.by_class(said, right, ["a", "b", "c"], None)
    assert (first["precision"], first["recall"], first["support"], first["predicted"]) == (0.5, 0.5, 2, 2)
    assert second["f1"] == pytest.approx(f1_score(right, said))
    assert (third["precision"], third["recall"], third["f1"], third["support"]) == (None, None, None, 0)


def test_reliability_by_hand() -> None:
    """Four sure decisions of which three are right, and one unsure one that is wrong."""
    probabilities = np.array([[0.05, 0.95]] * 4 + [[0.55, 0.45]])
    right = np.array([1, 1, 1, 0, 1])
    found = findings.reliability(probabilities, right)
    sure, unsure = found["bins"][9], found["bins"][5]
    assert (sure["count"], sure["confidence"], sure["accuracy"]) == (4, pytest.approx(0.95), 0.75)
    assert (unsure["count"], unsure["accuracy"]) == (1, 0.0)
    assert found["bins"][0]["accuracy"] is None
    assert found["ece"] == pytest.approx((4 * 0.2 + 0.55) / 5)
    assert sum(one["count"] for one in found["bins"]) == 5


def test_a_confidence_on_an_edge_counts_once() -> None:
    """0.5 belongs to the bin above it, and 1 to the last one."""
    assert findings.bins_of(np.array([0.0, 0.5, 0.999, 1.0])).tolist() == [0, 5, 9, 9]


def test_who_is_taken_for_whom() -> None:
    """Rows are what is right, columns what is said; very many classes are not written down."""
    said, right = np.array([0, 1, 1, 2]), np.array([0, 0, 1, 2])
    assert findings.confusion(said, right, ["a", "b", "c"]) == {
        "names": ["a", "b", "c"],
        "counts": [[1, 1, 0], [0, 1, 0], [0, 0, 1]],
    }
    assert findings.confusion(said, right, [str(k) for k in range(201)]) is None


def test_errors_of_a_regression() -> None:
    """In units of the label; the worst examples by their row numbers; R² undefined where all labels are one number."""
    right, said = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.5, 2.0, 2.0, 4.0])
    found = findings.errors(said, right, np.array([10, 11, 12, 13]))
    assert found["mean"] == pytest.approx(-0.125)
    assert found["rmse"] == pytest.approx(np.sqrt(1.25 / 4))
    assert found["r2"] == pytest.approx(r2_score(right, said))
    assert [one["id"] for one in found["worst"][:2]] == [12, 10]
    assert sum(found["residuals"]["counts"]) == 4
    assert findings.errors(said, np.ones(4), np.arange(4))["r2"] is None


def test_the_interval_of_a_figure_by_count_holds_it() -> None:
    """Intervals of a ranking and of a Brier score lie around them; one example alone has none."""
    _, right, probabilities = drawn(200, 2)
    functions = findings.figures_by_count(probabilities, right)
    found = count_intervals(functions, 200, seed=3)
    for name in ("roc_auc", "average_precision", "brier"):
        low, high = found[name]
        assert low < float(functions[name](np.ones((1, 200)))[0]) < high
    assert count_intervals(findings.figures_by_count(probabilities[:1], right[:1]), 1, seed=3) == dict.fromkeys(
        functions
    )


@pytest.mark.parametrize(
    ("kind", "names", "right", "what", "answers"),
    [
        (
            "text-classification",
            ["no", "yes"],
            np.array([1, 0, 1]),
            "always 'yes', the most frequent one here",
            [1, 1, 1],
        ),
        ("text-regression", [], np.array([1.0, 3.0]), "always the mean, 2", [2.0, 2.0]),
        ("multiple-choice", [], np.array([2, 2, 0]), "always choice 2, the most frequent one here", [2, 2, 2]),
        (
            "multi-label-classification",
            ["x", "y"],
            np.array([[1, 0], [1, 1], [1, 0]]),
            "always x, as most examples",
            [[1, 0]] * 3,
        ),
    ],
)
def test_a_constant_answer(kind: str, names: list[str], right: np.ndarray, what: str, answers: list[object]) -> None:
    """The most frequent class, the mean, or what each label mostly is, in the shape of what is right."""
    told, found = constant_answer(kind, names, right)
    assert told == what
    assert found.tolist() == answers


def test_a_constant_answer_for_words_and_for_questions() -> None:
    """The most frequent label for every word; no answer, where some questions have none."""
    words = np.empty(2, dtype=object)
    words[:] = [["O", "B-x"], ["O"]]
    told, found = constant_answer("token-classification", ["O", "B-x"], words)
    assert "always 'O'" in told
    assert found.tolist() == [["O", "O"], ["O"]]
    questions = np.empty(1, dtype=object)
    questions[:] = [{"answers": {"text": ["here"], "answer_start": [0]}}]
    assert constant_answer("question-answering", [], questions) is None
    questions[0] = {"answers": {"text": [], "answer_start": []}}
    assert constant_answer("question-answering", [], questions)[1][0]["prediction_text"] == ""
