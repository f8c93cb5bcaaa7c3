"""Exact match and F1 of predicted answers, as the official SQuAD scripts define them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hfpipe.errors import DataError

Array = np.ndarray[Any, Any]
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Squad:
    """Exact match and F1 of answers to questions, each a share from 0 to 1; the official scripts print percents.

    Texts are compared in lower case, without punctuation, without the articles a, an and the, and with single spaces.
    `exact_match` of a row is 1 where the prediction is one of its answers; `f1` is the greatest F1 of the words it
    shares with one of them, 2 * shared / (words predicted + words of the answer). A row without answers is right, for
    both, where the prediction is empty, and an answer of which nothing is left is none where there are others. Both
    figures are means over the rows. Undefined (None) without rows.

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
        scores = {}
        for name, (values, counted) in self.ratios(predictions, references).items():
            scores[name] = float(values.sum() / counted.sum()) if counted.any() else None
        return scores

    def ratios(self, predictions: Any, references: Any) -> dict[str, tuple[Array, Array]]:
        """For each figure its score of every row, and whether the row counts in it (else the score is 0), both `[rows]`.

        A figure is the sum of the first over the sum of the second: what the intervals are resampled from.
        """
        said = [_text(one, row) for row, one in enumerate(_listed(predictions, "predictions"))]
        right = [_texts(one, row) for row, one in enumerate(_listed(references, "references"))]
        if len(said) != len(right):
            raise DataError(f"{len(said)} predictions for {len(right)} references", where="metric squad")
        pairs = [_scores(text, answers) for text, answers in zip(said, right, strict=True)]
        exact, f1 = np.array(pairs, dtype=float).reshape(-1, 2).T
        has = np.array([bool(answers) for answers in right], dtype=float)
        every = np.ones(len(right))
        found = {"exact_match": (exact, every), "f1": (f1, every)}
        if not has.all():
            found |= {"has_answer_exact_match": (exact * has, has), "has_answer_f1": (f1 * has, has)}
            none = 1 - has
            found |= {"no_answer_exact_match": (exact * none, none), "no_answer_f1": (f1 * none, none)}
        return found


def normalized(text: str) -> str:
    """A text as answers are compared: lower case, no punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def _scores(text: str, answers: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 of one row."""
    said = normalized(text)
    right = [one for one in map(normalized, answers) if one] or [""]
    return float(said in right), max(_f1(said.split(), one.split()) for one in right)


def _f1(said: list[str], right: list[str]) -> float:
    if not said or not right:
        return float(said == right)
    return 2 * (Counter(said) & Counter(right)).total() / (len(said) + len(right))


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
