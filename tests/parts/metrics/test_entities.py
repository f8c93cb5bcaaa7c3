"""Entities as CoNLL counts them: how labels are read, what schemes are, and the scores and their intervals."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from hfpipe.errors import DataError, RecipeError
from hfpipe.evaluation.statistics import bootstrap
from hfpipe.evaluation.statistics.intervals import intervals_of
from hfpipe.parts.metrics.entities import Seqeval, count, entities, scheme_of, types_of
from hfpipe.parts.metrics.load import load_metric
from hfpipe.parts.metrics.scores import compute_all
from hfpipe.recipe.catalog import greater_is_better

TYPES = ("PER", "LOC")
LABELS = {
    "IOB2": ["O", *(f"{letter}-{kind}" for letter in "BI" for kind in TYPES)],
    "BILOU": ["O", *(f"{letter}-{kind}" for letter in "BILU" for kind in TYPES)],
    "BIOES": ["O", *(f"{letter}-{kind}" for letter in "BIES" for kind in TYPES)],
}


def by_pattern(labels: list[str]) -> set[tuple[str, int, int]]:
    """The same reading by other means: the letters of each type as a text, and every entity a match of one pattern."""
    found = set()
    for kind in TYPES:
        letters = "".join(label[0] if label[2:] == kind else "." for label in labels)
        for match in re.finditer("[US]|[BI]I*[LE]?|[LE]", letters):
            found.add((kind, match.start(), match.end()))
    return found


@pytest.mark.parametrize("scheme", LABELS)
def test_random_labels_are_read_as_the_pattern_says(scheme: str) -> None:
    """5,000 sequences, most of them ill-formed, give the entities of an independent definition, in their order."""
    rng, total = random.Random(0), 0
    for _ in range(5_000):
        labels = rng.choices(LABELS[scheme], k=rng.randint(0, 9))
        found = entities(labels, scheme.replace("BIOES", "BILOU"))
        assert {tuple(one) for one in found} == by_pattern(labels)
        assert [one.start for one in found] == sorted(one.start for one in found)
        total += len(found)
    assert total > 10_000


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ("O B-PER I-PER O", [("PER", 1, 3)]),
        ("I-PER I-PER B-PER", [("PER", 0, 2), ("PER", 2, 3)]),  # IOB1: B only between neighbours of a type
        ("I-PER I-LOC", [("PER", 0, 1), ("LOC", 1, 2)]),
        ("B-PER I-LOC I-LOC", [("PER", 0, 1), ("LOC", 1, 3)]),  # ill-formed: inside of another type begins one
        ("O I-LOC", [("LOC", 1, 2)]),
        ("B I O B", [("entity", 0, 2), ("entity", 3, 4)]),
        ("U-PER U-PER", [("PER", 0, 1), ("PER", 1, 2)]),
        ("B-PER I-PER L-PER I-PER", [("PER", 0, 3), ("PER", 3, 4)]),
        ("B-PER O L-PER", [("PER", 0, 1), ("PER", 2, 3)]),
        ("B-a-b I-a-b", [("a-b", 0, 2)]),
        ("", []),
    ],
)
def test_entities_by_hand(labels: str, found: list[tuple[str, int, int]]) -> None:
    """Cases worked out by hand, the ill-formed ones as conlleval reads them."""
    assert [tuple(one) for one in entities(labels.split(), "BILOU")] == found


def test_a_word_without_a_prediction_is_outside() -> None:
    """None ends an entity, and with tags is none."""
    assert [tuple(one) for one in entities(["B-PER", None, "I-PER"], "IOB2")] == [("PER", 0, 1), ("PER", 2, 3)]
    assert [tuple(one) for one in entities(["DET", None, "NOUN"], "none")] == [("DET", 0, 1), ("NOUN", 2, 3)]


@pytest.mark.parametrize("scheme", ["IOB1", "IOB2", "BILOU"])
def test_what_a_scheme_writes_is_read_back(scheme: str) -> None:
    """Random entities, neighbours of one type among them, written in each scheme, are read as they were."""
    rng = random.Random(1)
    for _ in range(500):
        labels, wanted = [], []
        while len(labels) < 12:
            kind, length, start = rng.choice([*TYPES, "O"]), rng.randint(1, 3), len(labels)
            if kind == "O":
                labels += ["O"] * length
                continue
            letters = {"IOB2": "B" + "I" * (length - 1), "IOB1": "I" * length}.get(scheme)
            if scheme == "IOB1" and wanted and wanted[-1][0] == kind and wanted[-1][2] == start:
                letters = "B" + "I" * (length - 1)
            if scheme == "BILOU":
                letters = "U" if length == 1 else "B" + "I" * (length - 2) + "L"
            labels += [f"{letter}-{kind}" for letter in letters]
            wanted.append((kind, start, start + length))
        assert [tuple(one) for one in entities(labels, scheme)] == wanted


@pytest.mark.parametrize(
    ("names", "scheme"),
    [
        (["O", "B-x", "I-x"], "IOB2"),
        (["O", "I-x"], "IOB2"),
        (["O", "B", "I"], "IOB2"),
        (["O", "B-x", "I-x", "L-x", "U-x"], "BILOU"),
        (["O", "S-x", "B-x", "E-x"], "BILOU"),
        (["B", "I", "O", "S"], "BILOU"),
        (["DET", "NOUN", "X"], "none"),
        (["I", "DT"], "none"),  # a tag of one letter among others
        (["O", "PER", "LOC"], "none"),
    ],
)
def test_the_scheme_is_found_from_the_names(names: list[str], scheme: str) -> None:
    """Prefixes tell the scheme, and without any there is none."""
    assert scheme_of(names) == scheme


@pytest.mark.parametrize(
    ("names", "declared", "shown"),
    [
        (["O", "B-x", "X"], "auto", "look like IOB2, and X is not of it"),
        (["O", "B-x", "L-x", "U-x"], "IOB2", "are declared as IOB2, and L-x, U-x are not of it"),
        (["O", "x"], "BILOU", "allowed: O, and types after B-, I-, L-, U-, E-, S-"),
        (["O", "B-", "I-x"], "IOB1", "B- is not of it"),
    ],
)
def test_names_that_do_not_fit_are_reported(names: list[str], declared: str, shown: str) -> None:
    """Labels outside of the scheme are refused with the way out, and none refuses nothing."""
    with pytest.raises(DataError) as caught:
        scheme_of(names, declared, "task")
    assert shown in str(caught.value)
    assert "task.scheme: none" in str(caught.value)
    assert scheme_of(names, "none") == "none"


def test_a_label_outside_of_the_scheme_is_reported() -> None:
    """Reading a label that the scheme does not have is an error, not an O."""
    with pytest.raises(DataError, match="'L-x' is no label of the scheme IOB2"):
        entities(["L-x"], "IOB2")


RIGHT = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-LOC", "I-LOC"], []]
SAID = [["B-PER", "I-PER", "O", "B-PER"], ["O", "B-LOC", "O"], []]


def test_counts_are_by_sentence_and_type() -> None:
    """Hits, predicted and right entities, and words, of each sentence."""
    counts = count(SAID, RIGHT, "IOB2", ["MISC"])
    assert counts.types == ("LOC", "MISC", "PER")
    assert counts.hits.tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert counts.predicted.tolist() == [[0, 0, 2], [1, 0, 0], [0, 0, 0]]
    assert counts.actual.tolist() == [[1, 0, 1], [1, 0, 0], [0, 0, 0]]
    assert (counts.words_hit.tolist(), counts.words.tolist()) == ([3, 2, 0], [4, 3, 0])


def test_scores_by_hand() -> None:
    """Micro over entities, words, and each type; what the data leave undefined is None and never 0."""
    scores = Seqeval(names=["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-MISC"]).compute(
        predictions=SAID, references=RIGHT
    )
    assert scores == {
        "precision": 1 / 3, "recall": 1 / 3, "f1": 1 / 3, "accuracy": 5 / 7,
        "LOC_precision": 0.0, "LOC_recall": 0.0, "LOC_f1": 0.0, "LOC_support": 2.0,
        "MISC_precision": None, "MISC_recall": None, "MISC_f1": None, "MISC_support": 0.0,
        "PER_precision": 0.5, "PER_recall": 1.0, "PER_f1": 2 / 3, "PER_support": 1.0,
    }  # fmt: skip
    nothing = Seqeval("IOB2").compute(predictions=[["O"]], references=[["O"]])
    assert nothing == {"precision": None, "recall": None, "f1": None, "accuracy": 1.0}
    assert set(Seqeval("IOB2").compute(predictions=[], references=[]).values()) == {None}
    missed = Seqeval("IOB2").compute(predictions=[["O"]], references=[["B-x"]])
    assert (missed["precision"], missed["recall"], missed["f1"]) == (None, 0.0, 0.0)


def test_random_scores_are_those_of_sets() -> None:
    """Precision, recall and F1 are those of sets of (sentence, type, start, end), by the independent reading."""
    rng = random.Random(2)
    right = [rng.choices(LABELS["BILOU"], k=rng.randint(0, 12)) for _ in range(200)]
    guesses = [[label if rng.random() < 0.7 else rng.choice(LABELS["BILOU"]) for label in row] for row in right]
    scores = Seqeval().compute(predictions=guesses, references=right)

    def found(rows: list[list[str]], kind: str | None) -> set[tuple[int, str, int, int]]:
        return {(row, *one) for row, labels in enumerate(rows) for one in by_pattern(labels) if kind in (None, one[0])}

    for prefix, kind in (("", None), *((f"{kind}_", kind) for kind in TYPES)):
        predicted, real = found(guesses, kind), found(right, kind)
        hits = len(predicted & real)
        assert scores[f"{prefix}precision"] == pytest.approx(hits / len(predicted), abs=1e-15)
        assert scores[f"{prefix}recall"] == pytest.approx(hits / len(real), abs=1e-15)
        assert scores[f"{prefix}f1"] == pytest.approx(2 * hits / (len(predicted) + len(real)), abs=1e-15)


def test_tags_have_an_accuracy_and_an_f1_each() -> None:
    """Parts of speech are scored word by word: scikit-learn's F1 of each tag, and no entities are spoken of."""
    rng = random.Random(3)
    right = [rng.choices(["DET", "NOUN", "O"], k=rng.randint(1, 9)) for _ in range(50)]
    guesses = [[tag if rng.random() < 0.6 else rng.choice(["DET", "NOUN", "O"]) for tag in row] for row in right]
    scores = Seqeval("none", names=["DET", "NOUN", "O", "VERB"]).compute(predictions=guesses, references=right)
    assert list(scores) == ["accuracy", "DET_f1", "NOUN_f1", "O_f1", "VERB_f1"]
    flat = [[tag for row in rows for tag in row] for rows in (right, guesses)]
    theirs = f1_score(*flat, labels=["DET", "NOUN", "O"], average=None)
    assert [scores[f"{tag}_f1"] for tag in ("DET", "NOUN", "O")] == pytest.approx(theirs.tolist(), abs=1e-12)
    assert scores["VERB_f1"] is None
    assert scores["accuracy"] == pytest.approx(np.mean([one == other for one, other in zip(*flat, strict=True)]))


def test_what_is_no_label_is_reported() -> None:
    """Class ids, sentences of another length, labels of another scheme and unknown schemes are errors."""
    with pytest.raises(DataError, match="the predictions are no lists of labels"):
        Seqeval().compute(predictions=[0, 1], references=[0, 1])
    with pytest.raises(DataError, match="row 1: 1 labels are predicted for 2 words"):
        Seqeval().compute(predictions=[["O"], ["O"]], references=[["O"], ["O", "O"]])
    with pytest.raises(DataError, match="'U-x' is no label of the scheme IOB2"):
        Seqeval("IOB2", ["O", "B-x"]).compute(predictions=[["U-x"]], references=[["O"]])
    with pytest.raises(RecipeError, match="unknown scheme 'BILUO'; did you mean 'BILOU'"):
        load_metric("seqeval", scheme="BILUO")


def objects(rows: list[list[str]]) -> np.ndarray:
    """Lists as an array that rows can be drawn from."""
    made = np.empty(len(rows), dtype=object)
    for row, value in enumerate(rows):
        made[row] = value
    return made


def random_sides(rows: int, seed: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Predictions, four fifths of them right, and references."""
    rng = random.Random(seed)
    right = [rng.choices(LABELS["IOB2"], k=rng.randint(0, 20)) for _ in range(rows)]
    guesses = [[label if rng.random() < 0.8 else rng.choice(LABELS["IOB2"]) for label in row] for row in right]
    return objects(guesses), objects(right)


def intervals(metric: Seqeval, guesses: np.ndarray, right: np.ndarray) -> dict[str, list[float] | None]:
    """The interval of each score."""
    ones = np.ones(len(right))
    found = intervals_of([("seqeval", metric)], guesses, right, ones, ones, seed=1)
    return {name: one.ends for name, one in found.items() if name != "loss"}


@pytest.mark.parametrize("scheme", ["IOB2", "none"])
def test_intervals_are_about_those_of_drawing_sentences(scheme: str) -> None:
    """Every ratio has an interval around it, about as wide as the scores of whole resamples of sentences scatter."""
    guesses, right = random_sides(300)
    metric = Seqeval(scheme)
    found = intervals(metric, guesses, right)
    figures = compute_all([("seqeval", metric)], guesses, right)
    slow = bootstrap._resampled_slowly("seqeval", metric, guesses, right, seed=2, resamples=200)
    assert set(found) == {name for name in figures if not name.endswith("_support")}
    for name, (low, high) in found.items():
        assert low < figures[name] < high
        drawn = bootstrap.percentiles(slow[name])
        assert 0.9 < (high - low) / (drawn[1] - drawn[0]) < 1.6


def test_the_interval_of_a_split_scores_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No resample of 1,300 sentences is scored: the intervals come from the counts of the sentences."""
    guesses, right = random_sides(1_300)
    calls = []
    counted = Seqeval._counted
    monkeypatch.setattr(Seqeval, "_counted", lambda self, *sides: calls.append(1) or counted(self, *sides))
    found = intervals(Seqeval("IOB2"), guesses, right)
    assert len(calls) == 1
    assert found["PER_f1"][0] < found["PER_f1"][1]


def test_what_is_undefined_has_no_interval() -> None:
    """Nothing predicted leaves precision without an interval; nothing found of three gives recall an honest one."""
    guesses, right = objects([["O"], ["O"], ["O"]]), objects([["B-x"], ["B-x"], ["B-x"]])
    found = intervals(Seqeval("IOB2"), guesses, right)
    assert found["precision"] is None
    low, high = found["recall"]
    assert low == 0
    assert high == pytest.approx(binomtest(0, 3).proportion_ci().high)


def test_sentences_that_are_right_or_wrong_as_a_whole_count_as_one_each() -> None:
    """Ten entities in each of 20 sentences, all of them right or all wrong: the interval is that of 20, not of 200."""
    right = objects([["B-x"] * 10] * 20)
    guesses = objects([["B-x"] * 10] * 15 + [["O"] * 10] * 5)
    low, high = intervals(Seqeval("IOB2"), guesses, right)["recall"]
    of_sentences = binomtest(15, 20).proportion_ci()
    assert low < of_sentences.low + 0.01
    assert high > of_sentences.high - 0.01


def test_the_figures_of_a_type_are_better_when_greater() -> None:
    """By their ending; how many there are of a type is neither better nor worse."""
    assert all(greater_is_better(name) for name in ("f1", "accuracy", "PER_f1", "creative-work_recall", "x_precision"))
    assert greater_is_better("PER_support") is None
    assert greater_is_better("loss") is False


def test_types_are_those_of_the_names() -> None:
    """O is no type; with the scheme none every tag is."""
    assert types_of(["O", "B-x", "I-x", "I-y"], "IOB1") == ("x", "y")
    assert types_of(["O", "DET"], "none") == ("DET", "O")
