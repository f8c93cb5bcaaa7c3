"""Exact match and F1 as the official SQuAD scripts compute them."""

from __future__ import annotations

import numpy as np
import pytest

from hfpipe.errors import DataError
from hfpipe.evaluation.statistics import bootstrap
from hfpipe.evaluation.statistics.intervals import intervals_of
from hfpipe.parts.metrics.load import load_metric
from hfpipe.parts.metrics.scores import compute_all
from hfpipe.parts.metrics.squad import Squad, normalized
from hfpipe.recipe.catalog import GREATER_IS_BETTER


def scored(*rows: tuple[str, list[str]]) -> dict[str, float | None]:
    """The figures of predictions and their answers."""
    return Squad().compute(**columns(*rows))


def columns(*rows: tuple[str, list[str]]) -> dict[str, list]:
    """Predictions and references as the task gives them."""
    predicted = [{"prediction_text": text, "no_answer_probability": 0.0} for text, _ in rows]
    return {
        "predictions": predicted,
        "references": [{"answers": {"text": t, "answer_start": [0] * len(t)}} for _, t in rows],
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Broncos!", "broncos"),
        ("a theory of an Anthem", "theory of anthem"),
        ("U.S.A.", "usa"),
        ("a.the", "athe"),  # punctuation goes before articles are looked for
        ("\tOne\u00a0two ", "one two"),
        ("«Zürich»", "«zürich»"),  # string.punctuation is ASCII
        ("the", ""),
    ],
)
def test_texts_are_compared_without_what_does_not_matter(text, expected):
    """Lower case, ASCII punctuation, articles as whole words, and white space."""
    assert normalized(text) == expected


@pytest.mark.parametrize(
    ("text", "answers", "exact", "f1"),
    [
        ("Denver Broncos", ["Denver Broncos"], 1, 1),
        ("the Denver Broncos.", ["denver broncos"], 1, 1),
        ("Broncos", ["Denver Broncos", "The Broncos"], 1, 1),
        ("Denver team", ["Denver Broncos", "x"], 0, 0.5),
        ("one one two", ["one two three"], 0, 2 / 3),  # a word counts as often as both have it
        ("one", ["two"], 0, 0),
        ("", ["two"], 0, 0),
        ("", [], 1, 1),
        ("one", [], 0, 0),
        ("the", [], 1, 1),  # nothing is left of it
        ("the", ["a"], 1, 1),
        ("the", ["a", "one"], 0, 0),  # an answer of which nothing is left is none beside others
    ],
)
def test_a_row_scores_as_in_the_official_script(text, answers, exact, f1):
    """Exact match and the greatest F1 over the answers, worked out by hand for each rule."""
    found = scored((text, answers))
    assert found["exact_match"] == exact
    assert found["f1"] == pytest.approx(f1)


def test_rows_without_answers_get_figures_of_their_own():
    """The means over all rows, over those with an answer and over those without; the latter only where there are such."""
    rows = [("one", ["one"]), ("two", ["two three"]), ("", []), ("four", []), ("five", [])]
    assert scored(*rows) == pytest.approx(
        {
            "exact_match": 2 / 5,
            "f1": (1 + 2 / 3 + 1) / 5,
            "has_answer_exact_match": 1 / 2,
            "has_answer_f1": (1 + 2 / 3) / 2,
            "no_answer_exact_match": 1 / 3,
            "no_answer_f1": 1 / 3,
        }
    )
    assert set(scored(*rows[:2])) == {"exact_match", "f1"}
    alone = scored(*rows[2:])
    assert alone["has_answer_f1"] is None
    assert alone["f1"] == alone["no_answer_f1"] == pytest.approx(1 / 3)
    assert scored() == {"exact_match": None, "f1": None}


def test_it_is_a_metric_of_the_catalog():
    """`squad` takes what the task decides, as arrays of dicts, and greater is better for all of its figures."""
    rows = columns(("one", ["one"]), ("", []))
    found = compute_all([("squad", load_metric("squad"))], *(np.array(side, dtype=object) for side in rows.values()))
    assert all(GREATER_IS_BETTER[name] for name in found)
    assert len(found) == 6


@pytest.mark.parametrize(
    ("predictions", "references", "shown"),
    [
        (["one"], [{"answers": {"text": ["one"]}}], "the prediction of row 0 is 'one'"),
        ([{"prediction_text": "one"}], [{"answers": ["one"]}], "the reference of row 0 is"),
        ([{"prediction_text": "one"}], [{"answers": {"text": "one"}}], "the reference of row 0 is"),
        ([{"prediction_text": "one"}], [], "1 predictions for 0 references"),
        (None, [], "the predictions are NoneType"),
    ],
)
def test_other_shapes_are_refused(predictions, references, shown):
    """What is no answer is a data error that says what was got."""
    with pytest.raises(DataError, match=shown):
        Squad().compute(predictions=predictions, references=references)


def test_intervals_come_from_the_scores_of_the_rows(monkeypatch):
    """Every figure gets an interval around it, as wide as the normal approximation has it, without the slow way."""
    monkeypatch.setattr(bootstrap, "_resampled_slowly", None)
    rng = np.random.default_rng(0)
    words = [["one two"], [], ["three"]]
    rows = [(rng.choice(["one two", "one", "", "three"]), words[row % 3]) for row in range(600)]
    sides = {name: np.array(side, dtype=object) for name, side in columns(*rows).items()}
    metrics = [("squad", load_metric("squad"))]
    ones = np.ones(600)
    found = intervals_of(metrics, sides["predictions"], sides["references"], ones, ones, seed=1)
    figures = compute_all(metrics, sides["predictions"], sides["references"])
    assert set(found) == {"loss", *figures}
    for name, sums in Squad().sums(**sides).items():
        scores, counted = sums.terms
        (low, high), method = found[name]
        assert method == ("Clopper-Pearson" if np.isin(scores, (0, 1)).all() else "Korn-Graubard")
        assert low < figures[name] < high
        spread = scores[counted > 0].std() / np.sqrt(counted.sum())
        assert 0.97 < (high - low) / 2 / (1.96 * spread) < 1.35  # never narrower than that of shares
