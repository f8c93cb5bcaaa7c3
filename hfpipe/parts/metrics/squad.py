"""Exact match and F1 of predicted answers, as the official SQuAD scripts define them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hfpipe.errors import DataError
from hfpipe.parts.metrics.sums import Sums, share, values_of

Array = np.ndarray[Any, Any]
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Squad:
    """Exact match and F1 of answers to questions, each a share from 0 to 1; the official scripts print percents.

    Texts are compared in lower case, without punctuation, without the articles a, an and the, and with single spaces.
    `exact_match` of a row is 1 where the prediction is one of its answers; `f1` is the greatest F1 of the words it
    shares with one of them, 2 * shared / (words predicted + words of the answer). A row without answers is a match, for
    both, where the prediction is empty, and an answer of which nothing is left is none where there are others. Both
    scores are means over the rows. Undefined (None) without rows.

    Where some rows have no answer, the means over those rows and over the others are there as well: `no_answer_f1`,
    `has_answer_f1` and the same of exact_match; they are None where there are no such rows.

    Source: evaluate-v2.0.py of SQuAD 2.0 (Rajpurkar et al. 2018), to which evaluate-v1.1.py is the same on rows whose
    answers have something left.
    """

    def compute(self, *, predictions: Any = None, references: Any = None) -> dict[str, float | None]:
        """Score dicts with a `prediction_text` against dicts with `answers` (`text`, a list), both `[rows]`.

        Raises:
            DataError: other shapes than these.
        """
        return values_of(self.sums(predictions, references))

    def sums(self, predictions: Any, references: Any) -> dict[str, Sums]:
        """For each score its value of every row, 0 where the row does not count in it, over whether the row counts."""
        predicted = [_text(one, row) for row, one in enumerate(_listed(predictions, "predictions"))]
        answers = [_texts(one, row) for row, one in enumerate(_listed(references, "references"))]
        if len(predicted) != len(answers):
            raise DataError(f"{len(predicted)} predictions for {len(answers)} references", where="metric squad")
        pairs = [_scores(text, texts) for text, texts in zip(predicted, answers, strict=True)]
        of_rows = np.array(pairs, dtype=float).reshape(-1, 2).T  # exact match and F1, [2, rows]
        has_answer = np.array([bool(texts) for texts in answers], dtype=float)
        groups = {"": np.ones(len(answers))}
        if not has_answer.all():
            groups |= {"has_answer_": has_answer, "no_answer_": 1 - has_answer}
        return {
            f"{group}{name}": Sums(np.stack([values * counts, counts]), share)
            for group, counts in groups.items()
            for name, values in zip(("exact_match", "f1"), of_rows, strict=True)
        }


def normalized(text: str) -> str:
    """A text as answers are compared: lower case, no punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def _scores(text: str, answers: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 of one row."""
    predicted = normalized(text)
    allowed = [one for one in map(normalized, answers) if one] or [""]
    return float(predicted in allowed), max(_f1(predicted.split(), one.split()) for one in allowed)


def _f1(predicted: list[str], reference: list[str]) -> float:
    if not predicted or not reference:
        return float(predicted == reference)
    return 2 * (Counter(predicted) & Counter(reference)).total() / (len(predicted) + len(reference))


def _listed(values: Any, side: str) -> list[Any]:
    if values is None or isinstance(values, str | Mapping):
        raise DataError(f"the {side} are {type(values).__name__}", where="metric squad", allowed="one dict a row")
    return list(values)


def _text(prediction: Any, row: int) -> str:
    text = prediction.get("prediction_text") if isinstance(prediction, Mapping) else None
    if not isinstance(text, str):
        allowed = "{prediction_text: ...}"
        raise DataError(f"the prediction of row {row} is {prediction!r}", where="metric squad", allowed=allowed)
    return text


def _texts(reference: Any, row: int) -> list[str]:
    answers = reference.get("answers") if isinstance(reference, Mapping) else None
    texts = answers.get("text") if isinstance(answers, Mapping) else None
    if texts is None or isinstance(texts, str) or not all(isinstance(one, str) for one in texts):
        allowed = "{answers: {text: [...], answer_start: [...]}}"
        raise DataError(f"the reference of row {row} is {reference!r}", where="metric squad", allowed=allowed)
    return list(texts)
