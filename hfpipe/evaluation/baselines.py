"""What a model that has learned nothing would score: the same answer for every example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def constant_answer(kind: str, names: Sequence[str], right: Array) -> tuple[str, Array] | None:
    """The best constant answer in words, and as predictions for the metrics, in the shape of `right`.

    The most frequent class (or label of a word) of these very examples, for several classes an example what each of them
    mostly is, for numbers their mean, for questions that may have none no answer. None where there is nothing of the kind.

    Args:
        kind: of the task.
        names: of the classes.
        right: what is right, as `Task.decide` gives it.
    """
    if not len(right):
        return None
    if kind == "text-regression":
        mean = float(right.mean())
        return f"always the mean, {mean:.4g}", np.full(len(right), mean)
    if kind in ("text-classification", "multiple-choice"):
        most = int(np.bincount(right).argmax())
        said = f"choice {most}" if kind == "multiple-choice" else repr(names[most])
        return f"always {said}, the most frequent one here", np.full(len(right), most)
    if kind == "multi-label-classification":
        mostly = (right.mean(axis=0) > 0.5).astype(np.int64)
        held = [name for name, one in zip(names, mostly, strict=True) if one]
        return f"always {', '.join(held) or 'no label'}, as most examples", np.tile(mostly, (len(right), 1))
    if kind == "token-classification":
        counted = Counter(label for row in right for label in row)
        if not counted:
            return None
        label = max(counted, key=lambda one: (counted[one], one))
        answers = np.empty(len(right), dtype=object)
        answers[:] = [[label] * len(row) for row in right]
        return f"always {label!r}, the most frequent label of a word here", answers
    if kind == "question-answering" and any(not one["answers"]["text"] for one in right):
        answers = np.empty(len(right), dtype=object)
        answers[:] = [{"prediction_text": "", "no_answer_probability": 1.0} for _ in right]
        return "never an answer", answers
    return None
