"""Calibration: a temperature for a model's probabilities, and the decision thresholds of its classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax

from hfpipe.errors import DataError, ModelError

Array = np.ndarray[Any, Any]

_KEY = "hfpipe_calibration"  # in the model's config
_AT_ONCE = 1_000_000  # numbers
_MANY = 20_000_000  # probabilities, which are kept in single precision
_COLDEST, _HOTTEST = 0.05, 20.0


@dataclass(frozen=True)
class Calibration:
    """How logits become probabilities and decisions.

    Attributes:
        temperature: what logits are divided by.
        thresholds: the least probability for which a class is predicted: class 1 of two, or each of several that may
            hold together. Empty: the most probable class, or every one from 1/2 on.
        fitted_on: the split or slice whose rows both come from; None where nothing was fitted.
        dataset: what identifies the data of that split.
    """

    temperature: float = 1.0
    thresholds: tuple[float, ...] = ()
    fitted_on: str | None = None
    dataset: str | None = None

    def decide(self, logits: Array) -> Array:
        """The class of each row, `[rows]`, of classes that exclude each other."""
        is_decided = self.thresholds and np.shape(logits)[-1] == 2
        return self.one_of(logits)[0] if is_decided else np.asarray(logits.argmax(axis=-1))

    def one_of(self, logits: Array) -> tuple[Array, Array]:
        """The class of each row, `[rows]`, and the probabilities, `[rows, classes]`, of classes that exclude each other."""
        many = np.size(logits) > _MANY
        probabilities: Array = np.empty(logits.shape, np.float32 if many else np.float64)
        step = max(1, _AT_ONCE // logits.shape[-1])
        for begin in range(0, len(logits), step):  # what softmax holds beside its result is as large as that
            probabilities[begin : begin + step] = softmax(self._cooled(logits[begin : begin + step]), axis=-1)
        if not self.thresholds or probabilities.shape[1] > 2:  # earlier versions fitted one for three classes, too
            return np.asarray(logits.argmax(axis=-1)), probabilities
        return (probabilities[:, 1] >= self.thresholds[0]).astype(np.int64), probabilities

    def any_of(self, logits: Array) -> tuple[Array, Array]:
        """Which classes hold, as 0 and 1, and the probabilities of classes that may hold together; `[rows, classes]`."""
        probabilities = expit(self._cooled(logits))
        if not self.thresholds:
            return (logits > 0).astype(np.int64), probabilities
        return (probabilities >= np.array(self.thresholds)).astype(np.int64), probabilities

    def _cooled(self, logits: Array) -> Array:
        return np.asarray(logits, dtype=float) / self.temperature

    def as_text(self) -> str:
        """What was fitted, in words."""
        lines = ", ".join(f"{one:.3f}" for one in self.thresholds[:8]) + (", ..." if len(self.thresholds) > 8 else "")
        parts = [f"temperature {self.temperature:.3f}"] if self.temperature != 1 else []
        parts += [f"threshold{'s' if len(self.thresholds) > 1 else ''} {lines}"] if self.thresholds else []
        return " and ".join(parts) or "temperature 1"

    def write(self, config: Any) -> None:
        """Keep it in a model's configuration, which `save_pretrained` writes."""
        values = {"temperature": self.temperature, "thresholds": list(self.thresholds)}
        setattr(config, _KEY, {**values, "fitted_on": self.fitted_on, "dataset": self.dataset})


NONE = Calibration()


def forget(config: Any) -> None:
    """Remove what was fitted for other weights: of weights that are trained on it says nothing."""
    if hasattr(config, _KEY):
        delattr(config, _KEY)


def calibration_of(config: Any, where: str) -> Calibration:
    """What a model's configuration holds, or that nothing was fitted.

    Raises:
        ModelError: something there that hfpipe did not write.
    """
    values = getattr(config, _KEY, None)
    if values is None:
        return NONE
    try:
        found = Calibration(
            float(values["temperature"]),
            tuple(map(float, values["thresholds"])),
            values["fitted_on"],
            values["dataset"],
        )
        if not (found.temperature > 0 and all(0 <= one <= 1 for one in found.thresholds)):
            raise ValueError(f"temperature {found.temperature}, thresholds {found.thresholds}")
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{_KEY} in its config.json can't be read ({error})", where=where, fix="Remove it there, or train again."
        ) from error
    return found


def fit_temperature(logits: Array, labels: Array) -> float:
    """The temperature under which the labels are most likely, between 0.05 and 20.

    Args:
        logits: `[rows, classes]`.
        labels: class of each row, `[rows]`; or 0 and 1 for classes that may hold together, `[rows, classes]`.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks"; `scipy.optimize.minimize_scalar`.
    """
    logits = np.asarray(logits, dtype=float)

    def surprise(log_temperature: float) -> float:
        cooled = logits / np.exp(log_temperature)
        if labels.ndim == 1:
            return float(-log_softmax(cooled, axis=-1)[np.arange(len(labels)), labels].mean())
        return float((np.logaddexp(0, cooled) - labels * cooled).mean())

    bounds = (np.log(_COLDEST), np.log(_HOTTEST))
    return float(np.exp(minimize_scalar(surprise, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))


def fit_threshold(probabilities: Array, is_positive: Array, name: str, where: str) -> float:
    """The probability from which on saying a class gives its best F1; of several the one nearest to 1/2.

    It lies halfway between two probabilities that occur, so that rounding moves no row over it.

    Args:
        probabilities: of the class, `[rows]`.
        is_positive: whether the class holds, `[rows]`.
        name: of the class, for messages.
        where: the place in the recipe.

    Raises:
        DataError: no row of the class, or nothing else.
    """
    from sklearn.metrics import precision_recall_curve

    if not is_positive.any() or is_positive.all():
        share = "no row" if not is_positive.any() else "every row"
        raise DataError(
            f"{share} of the calibration split is {name!r}, so no threshold is better than another",
            where=where,
            fix="Take other rows, or leave evaluate.threshold out.",
        )
    precision, recall, found = precision_recall_curve(is_positive, probabilities)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    best = np.flatnonzero(f1[:-1] >= f1[:-1].max() - 1e-12)  # the last point has no threshold
    below = np.concatenate([[0.0], found])[best]
    middle = (found[best] + below) / 2
    return float(middle[np.abs(middle - 0.5).argmin()])
