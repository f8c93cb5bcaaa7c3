"""Metrics: `evaluate.Metric` subclasses that scikit-learn and scipy compute, without files, locks or a network.

A metric that its data leave undefined is None, never 0: a score of 0 is a finding about the model, an undefined score
is one about the data. Every class says when that happens; for all of them it happens on empty input, and whenever the
arithmetic gives no finite number.

The data live in memory: `evaluate` itself would pass them through a locked Arrow file in the user's cache.

scikit-learn and scipy.stats, half a second and more, are imported by what scores: no training waits for them before its
first step.
"""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol, cast, get_args

import evaluate
import numpy as np
from datasets import Features, Value
from huggingface_hub import constants as hub_constants
from numpy.typing import NDArray

from hfpipe.errors import DataError, MachineError, RecipeError
from hfpipe.recipe.catalog import METRICS, near, resolve

Average = Literal["binary", "macro", "micro", "weighted"]
Labels = NDArray[np.int64]
Numbers = NDArray[np.float64]

GREATER_IS_BETTER: dict[str, bool] = {
    "accuracy": True,
    "f1": True,
    "exact_match": True,
    "has_answer_exact_match": True,
    "has_answer_f1": True,
    "no_answer_exact_match": True,
    "no_answer_f1": True,
    "precision": True,
    "recall": True,
    "matthews_correlation": True,
    "quadratic_kappa": True,
    "f1_micro": True,
    "f1_macro": True,
    "precision_micro": True,
    "precision_macro": True,
    "recall_micro": True,
    "recall_macro": True,
    "subset_accuracy": True,
    "pearson": True,
    "spearmanr": True,
    "mse": False,
    "mae": False,
    "loss": False,
}


def greater_is_better(figure: str) -> bool | None:
    """Whether a greater figure is the better one; None for a figure that hfpipe does not know.

    `PER_f1` is the F1 of a class, and better when it is greater, as F1 is; so with precision and recall.
    """
    if figure.endswith(("_f1", "_precision", "_recall")):
        return True
    return GREATER_IS_BETTER.get(figure)


class Metric(Protocol):
    """What hfpipe asks of a metric: `compute`, as `evaluate.Metric` has it."""

    def compute(self, *, predictions: Any = None, references: Any = None) -> Mapping[str, Any] | None:
        """Return the scores by name."""


class _InMemoryMetric(evaluate.Metric):
    """`evaluate.Metric` that keeps its batches as arrays.

    Upstream writes them to an Arrow file, makes its folder when a metric is constructed, and turns 0.7 into class 0 on
    the way; 100,000 rows take it more than a second. A subclass names its outputs, says what its inputs are, and scores
    arrays of one length that are not empty.
    """

    outputs: tuple[str, ...]
    inputs: Literal["labels", "numbers"]

    def __init__(self) -> None:
        super().__init__(keep_in_memory=True)
        self._kept: list[tuple[NDArray[Any], NDArray[Any]]] = []

    def __len__(self) -> int:
        """Return how many examples are kept for `compute`."""
        return sum(len(references) for _, references in self._kept)

    def _build_data_dir(self) -> str:
        """Return the path upstream would use; nothing is ever written there, so nothing is made."""
        return os.path.join(self._data_dir_root, self.name, self.config_name)

    def _info(self) -> Any:
        value = Value("int64" if self.inputs == "labels" else "float64")
        return evaluate.MetricInfo(
            description=inspect.getdoc(type(self)) or "",
            citation="",
            inputs_description="",
            features=Features({"predictions": value, "references": value}),
        )

    def add(self, *, prediction: Any = None, reference: Any = None) -> None:
        """Keep one prediction and its reference for `compute`."""
        self.add_batch(predictions=[prediction], references=[reference])

    def add_batch(self, *, predictions: Any = None, references: Any = None) -> None:
        """Keep predictions and references, each of shape `[examples]`, for `compute`."""
        self._kept.append(self._arrays(predictions, references))

    def compute(self, *, predictions: Any = None, references: Any = None) -> dict[str, float | None]:
        """Score predictions against references, each of shape `[examples]`, with those kept by `add_batch` if any."""
        if predictions is not None or references is not None:
            self.add_batch(predictions=predictions, references=references)
        kept, self._kept = [self._arrays([], []), *self._kept], []
        return self._compute(
            predictions=np.concatenate([batch[0] for batch in kept]),
            references=np.concatenate([batch[1] for batch in kept]),
        )

    def _compute(self, *, predictions: Any = None, references: Any = None) -> dict[str, float | None]:
        predictions, references = self._arrays(predictions, references)
        if not len(references) or not np.isfinite(predictions).all():
            return dict.fromkeys(self.outputs)
        # An undefined score is returned as None: warnings on the way there say nothing more. Some scikit-learn releases
        # also take class ids that hardly repeat for a regression, and warn.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scores = self._score(predictions, references)
        return {name: _finite(scores[name]) for name in self.outputs}

    def _arrays(self, predictions: Any, references: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        convert: Callable[[Any, str], NDArray[Any]] = _labels if self.inputs == "labels" else _numbers
        predictions, references = convert(predictions, "predictions"), convert(references, "references")
        if len(predictions) != len(references):
            raise DataError(
                f"{len(predictions)} predictions for {len(references)} references",
                where=f"metric {self.name}",
                allowed="as many of one as of the other",
            )
        if not np.isfinite(references).all():
            row = int(np.flatnonzero(~np.isfinite(references))[0])
            raise DataError(f"the reference is {references[row]}", where=f"row {row}", allowed="a finite number")
        return predictions, references

    def _score(self, predictions: Any, references: Any) -> dict[str, float]:
        """Return a float for each output; NaN where it is undefined."""
        raise NotImplementedError

    def tried(self, *, predictions: Any, references: Any) -> dict[str, None]:
        """Refuse what `compute` would refuse, and name its outputs, without computing them."""
        self._check(*self._arrays(predictions, references))
        return dict.fromkeys(self.outputs)

    def _check(self, predictions: Any, references: Any) -> None:
        """Refuse values that this metric does not score, beyond what its kind of inputs says."""


class Accuracy(_InMemoryMetric):
    """The share of predictions that equal their reference: (1/n) Σ [ŷᵢ = yᵢ].

    Defined for one example or more. Source: `sklearn.metrics.accuracy_score`.
    """

    outputs = ("accuracy",)
    inputs = "labels"

    def _score(self, predictions: Labels, references: Labels) -> dict[str, float]:
        from sklearn.metrics import accuracy_score

        return {"accuracy": accuracy_score(references, predictions)}


class Precision(_InMemoryMetric):
    """TP / (TP + FP) of a class: how much of what was predicted as the class is of it.

    Undefined for a class that is never predicted. An average, "macro" or "weighted", is undefined as soon as one class
    with a weight in it is: scikit-learn counts such a class as 0, and leaving it out would let a model gain by never
    predicting a hard class. Source: `sklearn.metrics.precision_recall_fscore_support`.

    Args:
        average: "binary" for the score of `pos_label` alone, or how the classes that occur in the predictions or the
            references are averaged: "macro" (unweighted), "weighted" (by their count in the references) or "micro"
            (from the summed counts, which makes it the accuracy).
        pos_label: the class that counts as positive with "binary".
    """

    outputs = ("precision",)
    inputs = "labels"

    def __init__(self, average: Average = "binary", pos_label: int = 1) -> None:
        """Fix which classes are scored; see the class."""
        self.average, self.pos_label = _checked_average(average), pos_label
        super().__init__()

    def _score(self, predictions: Labels, references: Labels) -> dict[str, float]:
        return {"precision": _averaged("precision", predictions, references, self.average, self.pos_label)}

    def _check(self, predictions: Labels, references: Labels) -> None:
        if self.average == "binary":
            _check_binary("precision", np.union1d(predictions, references), self.pos_label)


class Recall(_InMemoryMetric):
    """TP / (TP + FN) of a class: how much of the class was found.

    Undefined for a class that no reference has. With "macro" one such class among the predictions leaves the average
    undefined; with "weighted" it weighs nothing. Source: `sklearn.metrics.precision_recall_fscore_support`.

    Args:
        average: as for `Precision`.
        pos_label: the class that counts as positive with "binary".
    """

    outputs = ("recall",)
    inputs = "labels"

    def __init__(self, average: Average = "binary", pos_label: int = 1) -> None:
        """Fix which classes are scored; see the class."""
        self.average, self.pos_label = _checked_average(average), pos_label
        super().__init__()

    def _score(self, predictions: Labels, references: Labels) -> dict[str, float]:
        return {"recall": _averaged("recall", predictions, references, self.average, self.pos_label)}

    def _check(self, predictions: Labels, references: Labels) -> None:
        if self.average == "binary":
            _check_binary("recall", np.union1d(predictions, references), self.pos_label)


class F1(_InMemoryMetric):
    """2 TP / (2 TP + FP + FN) of a class: the harmonic mean of precision and recall, where both exist.

    Undefined only for a class that neither predictions nor references have (TP + FP + FN = 0): with "binary", when the
    positive class is in neither. Source: `sklearn.metrics.precision_recall_fscore_support`; C. J. van Rijsbergen,
    Information Retrieval, 1979, chapter 7.

    Args:
        average: as for `Precision`.
        pos_label: the class that counts as positive with "binary".
    """

    outputs = ("f1",)
    inputs = "labels"

    def __init__(self, average: Average = "binary", pos_label: int = 1) -> None:
        """Fix which classes are scored; see the class."""
        self.average, self.pos_label = _checked_average(average), pos_label
        super().__init__()

    def _score(self, predictions: Labels, references: Labels) -> dict[str, float]:
        return {"f1": _averaged("f1", predictions, references, self.average, self.pos_label)}

    def _check(self, predictions: Labels, references: Labels) -> None:
        if self.average == "binary":
            _check_binary("f1", np.union1d(predictions, references), self.pos_label)


class MatthewsCorrelation(_InMemoryMetric):
    """The correlation of the confusion matrix; in two classes (TP·TN - FP·FN) / √((TP+FP)(TP+FN)(TN+FP)(TN+FN)).

    In K classes, with c correct of n, tₖ references and pₖ predictions of class k:
    (c n - Σ tₖ pₖ) / √((n² - Σ pₖ²)(n² - Σ tₖ²)). Undefined when a margin is zero, that is when all predictions or all
    references are of one class. Source: `sklearn.metrics.matthews_corrcoef`; J. Gorodkin, Comparing two K-category
    assignments by a K-category correlation coefficient, 2004.
    """

    outputs = ("matthews_correlation",)
    inputs = "labels"

    def _score(self, predictions: Labels, references: Labels) -> dict[str, float]:
        return {"matthews_correlation": _matthews(predictions, references)}


class QuadraticKappa(_InMemoryMetric):
    """Cohen's kappa with quadratic weights, for classes in an order: 1 right, 0 as good as chance, below 0 worse.

    Undefined when predictions and references are all of one and the same class. Source: Cohen 1968, "Weighted kappa";
    `sklearn.metrics.cohen_kappa_score`.
    """

    outputs = ("quadratic_kappa",)
    inputs = "labels"

    def _score(self, predictions: Labels, references: Labels) -> dict[str, float]:
        from sklearn.metrics import cohen_kappa_score

        return {"quadratic_kappa": cohen_kappa_score(references, predictions, weights="quadratic")}


class AccuracyAndF1(_InMemoryMetric):
    """`Accuracy` and the `F1` of class 1, as GLUE scores its paraphrase tasks (MRPC, QQP)."""

    outputs = ("accuracy", "f1")
    inputs = "labels"

    def _score(self, predictions: Labels, references: Labels) -> dict[str, float]:
        from sklearn.metrics import accuracy_score

        return {
            "accuracy": accuracy_score(references, predictions),
            "f1": _averaged("f1", predictions, references, "binary", 1),
        }

    def _check(self, predictions: Labels, references: Labels) -> None:
        _check_binary("f1", np.union1d(predictions, references), 1)


class Pearson(_InMemoryMetric):
    """Pearson's r: Σ(xᵢ - x̄)(yᵢ - ȳ) / √(Σ(xᵢ - x̄)² Σ(yᵢ - ȳ)²).

    Undefined for fewer than two examples, and where either side is constant, also up to rounding: scipy's limit of
    1e-13 of the mean, below which the digits of r are noise. Source: `scipy.stats.pearsonr`.
    """

    outputs = ("pearson",)
    inputs = "numbers"

    def _score(self, predictions: Numbers, references: Numbers) -> dict[str, float]:
        return {"pearson": _correlation("pearsonr", predictions, references)}


class Spearman(_InMemoryMetric):
    """Spearman's rank correlation: Pearson's r of the ranks, equal values sharing the mean of their ranks.

    Undefined for fewer than two examples and where either side is constant. Source: `scipy.stats.spearmanr`.
    """

    outputs = ("spearmanr",)
    inputs = "numbers"

    def _score(self, predictions: Numbers, references: Numbers) -> dict[str, float]:
        return {"spearmanr": _correlation("spearmanr", predictions, references)}


class PearsonAndSpearman(_InMemoryMetric):
    """`Pearson` and `Spearman`, as GLUE scores sentence similarity (STS-B)."""

    outputs = ("pearson", "spearmanr")
    inputs = "numbers"

    def _score(self, predictions: Numbers, references: Numbers) -> dict[str, float]:
        return {
            "pearson": _correlation("pearsonr", predictions, references),
            "spearmanr": _correlation("spearmanr", predictions, references),
        }


class MSE(_InMemoryMetric):
    """The mean squared error (1/n) Σ (ŷᵢ - yᵢ)², in squared units of the label.

    Undefined when a prediction is not finite. Source: `sklearn.metrics.mean_squared_error`.
    """

    outputs = ("mse",)
    inputs = "numbers"

    def _score(self, predictions: Numbers, references: Numbers) -> dict[str, float]:
        from sklearn.metrics import mean_squared_error

        return {"mse": mean_squared_error(references, predictions)}


class MAE(_InMemoryMetric):
    """The mean absolute error (1/n) Σ |ŷᵢ - yᵢ|, in units of the label.

    Undefined when a prediction is not finite. Source: `sklearn.metrics.mean_absolute_error`.
    """

    outputs = ("mae",)
    inputs = "numbers"

    def _score(self, predictions: Numbers, references: Numbers) -> dict[str, float]:
        from sklearn.metrics import mean_absolute_error

        return {"mae": mean_absolute_error(references, predictions)}


def load_metric(name: str, **arguments: Any) -> Metric:
    """Build the metric that a recipe names.

    Args:
        name: a name of the catalog; `module:attribute`; the path of a metric script (`./x`, `/x`, `~/x` or `x.py`, a
            file or a folder that holds a script of its own name); or `evaluate:NAME`, which asks the Hub, or the
            modules cache when `HF_HUB_OFFLINE` or `HF_EVALUATE_OFFLINE` is set. The last two run the script's code,
            and no other name ever leads to them.
        arguments: given to the class; for a script, and for a class that keeps the constructor of `evaluate.Metric`,
            to each `compute`, except for `config_name` and, with `evaluate:`, `module_type` and `revision`.

    Raises:
        RecipeError: unknown name or argument, no script there, or a script that fails while it loads.
        MachineError: the script is neither reachable nor in the cache, needs a package, or can't be written there.
    """
    if name in METRICS:
        return _built(resolve(METRICS, name, "metric"), name, arguments)
    if name.startswith("evaluate:"):
        return _loaded_from_hub(name, arguments)
    if name.startswith(("./", "../", "/", "~")) or name.endswith(".py"):
        return _loaded_from_file(name, arguments)
    return _built(resolve(METRICS, name, "metric"), name, arguments)


def compute_all(
    metrics: Sequence[tuple[str, Metric]], predictions: Any, references: Any, *, names_only: bool = False
) -> dict[str, float | None]:
    """Score the predictions with every metric, under flat names.

    A score that is a mapping or a list, as some scripts return, is spread out: `precisions_0`, `PER_f1`. A score that
    is not finite becomes None.

    Args:
        metrics: pairs of the name in the recipe and the metric.
        predictions: class ids or numbers, `[examples]`.
        references: class ids or numbers, `[examples]`.
        names_only: have hfpipe's own metrics check the values and name their scores, each None, instead of computing.

    Raises:
        RecipeError: two scores of one name, or a score that is not a number.
        DataError: from a metric, where the values are not what it scores.
    """
    scores: dict[str, float | None] = {}
    sources: dict[str, str] = {}
    for name, metric in metrics:
        try:
            own = names_only and name in METRICS
            score = getattr(metric, "tried", metric.compute) if own else metric.compute
            result = score(predictions=predictions, references=references)
        except DataError as error:
            error.where = error.where or f"metric {name!r}"
            raise
        if not isinstance(result, Mapping):
            raise RecipeError(
                f"it returned {type(result).__name__}", where=f"metric {name!r}", allowed="a dict of names to numbers"
            )
        for key, value in _flat(result, name):
            if key in scores:
                raise RecipeError(
                    f"metrics {sources[key]!r} and {name!r} both give {key!r}",
                    where="evaluate.metrics",
                    allowed="each score once",
                    fix=f"Take {name!r} or {sources[key]!r} out of the recipe.",
                )
            scores[key], sources[key] = value, name
    return scores


def _averaged(
    score: Literal["precision", "recall", "f1"],
    predictions: Labels,
    references: Labels,
    average: Average,
    pos_label: int,
) -> float:
    """Score each class that occurs, and average; NaN as soon as one class of a weight above 0 is undefined.

    The average is taken here, since scikit-learn's own counts such a class as 0, or with `zero_division=nan` leaves it
    out.
    """
    from sklearn.metrics import precision_recall_fscore_support

    classes = np.union1d(predictions, references)
    column = ("precision", "recall", "f1").index(score)
    if average == "micro":
        summed = precision_recall_fscore_support(references, predictions, average="micro", zero_division=np.nan)
        return cast(float, summed[column])
    if average == "binary":
        _check_binary(score, classes, pos_label)
        classes = np.array([pos_label])
    table = precision_recall_fscore_support(references, predictions, labels=classes, average=None, zero_division=np.nan)
    values, support = table[column], table[3]
    if average == "weighted":
        counted = support > 0  # a class that no reference has weighs nothing, defined or not
        return float(np.average(values[counted], weights=support[counted]))
    return float(np.mean(values))


def _check_binary(score: str, classes: Labels, pos_label: int) -> None:
    if len(classes) > 2:
        raise RecipeError(
            f"average 'binary' scores two classes, and the data have {len(classes)}: {_listed(classes)}",
            where=f"metric {score!r}",
            allowed="macro, micro or weighted",
            fix=f"Write {{name: {score}, average: macro}} in evaluate.metrics.",
        )
    if len(classes) == 2 and pos_label not in classes:
        raise RecipeError(
            f"pos_label {pos_label} is not among the classes of the data",
            where=f"metric {score!r}",
            allowed=f"{_listed(classes)} as pos_label; or average macro, micro or weighted",
        )


def _checked_average(average: str) -> Average:
    if average not in get_args(Average):
        raise RecipeError(
            f"unknown average {average!r}{near(str(average), get_args(Average))}", allowed=", ".join(get_args(Average))
        )
    return cast(Average, average)


def _matthews(predictions: Labels, references: Labels) -> float:
    if len(np.unique(predictions)) < 2 or len(np.unique(references)) < 2:
        return math.nan  # scikit-learn says 0 here
    from sklearn.metrics import matthews_corrcoef

    return cast(float, matthews_corrcoef(references, predictions))


def _correlation(which: Literal["pearsonr", "spearmanr"], predictions: Numbers, references: Numbers) -> float:
    if len(references) < 2:
        return math.nan
    from scipy import stats

    with warnings.catch_warnings():
        # scipy's own verdict on constant and nearly constant input, which comes as a warning.
        warnings.simplefilter("error", stats.DegenerateDataWarning)
        try:
            return cast(float, getattr(stats, which)(predictions, references).statistic)
        except stats.DegenerateDataWarning:
            return math.nan


def _labels(values: Any, side: str) -> Labels:
    """Return class ids as integers of shape `[examples]`, or say in which row they are none."""
    array = _one_axis(values, side, "class ids")
    numeric = array.dtype.kind in "biuf"
    if not numeric or (array.dtype.kind == "f" and not (np.isfinite(array) & (array == np.trunc(array))).all()):
        raise DataError(
            f"the {side} are no class ids: {_listed(array)}",
            allowed="whole numbers from 0",
            fix="Take the argmax of logits, and the number of a class instead of its name.",
        )
    ids = array.astype(np.int64)
    if (ids < 0).any():
        row = int(np.flatnonzero(ids < 0)[0])
        raise DataError(
            f"the class id in the {side} is {ids[row]}",
            where=f"row {row}",
            allowed="whole numbers from 0",
            fix="A split without labels (-1) can't be scored, and ignored positions (-100) must be left out.",
        )
    return ids


def _numbers(values: Any, side: str) -> Numbers:
    """Return numbers as float64 of shape `[examples]`."""
    array = _one_axis(values, side, "numbers")
    if array.dtype.kind not in "biuf":
        raise DataError(f"the {side} are no numbers: {_listed(array)}", allowed="one number an example")
    return array.astype(np.float64)


def _one_axis(values: Any, side: str, kind: str) -> NDArray[Any]:
    if values is None:
        raise DataError(f"there are no {side}", allowed=f"{kind} of shape [examples]")
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise DataError(f"the {side} make no array ({error})", allowed=f"{kind} of shape [examples]") from error
    if array.ndim != 1:
        raise DataError(f"the {side} have the shape {list(array.shape)}", allowed=f"{kind} of shape [examples]")
    return array


def _listed(values: NDArray[Any]) -> str:
    """Show the first values, for a message."""
    return ", ".join(str(value) for value in values[:5]) + (", ..." if len(values) > 5 else "")


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _flat(result: Mapping[str, Any], metric: str) -> Iterator[tuple[str, float | None]]:
    for key, value in result.items():
        if isinstance(value, np.ndarray):
            value = value.tolist()  # of no axis: a number
        if value is None:
            yield key, None
        elif isinstance(value, numbers.Real):
            yield key, _finite(float(value))
        elif isinstance(value, Mapping):
            yield from _flat({f"{key}_{inner}": score for inner, score in value.items()}, metric)
        elif isinstance(value, list | tuple):
            yield from _flat({f"{key}_{index}": score for index, score in enumerate(value)}, metric)
        else:
            raise RecipeError(
                f"its score {key!r} is {value!r}", where=f"metric {metric!r}", allowed="a number, or None if undefined"
            )


def _built(target: Any, name: str, arguments: dict[str, Any]) -> Metric:
    """Call the class or function behind a name; hand an object that is a metric already through."""
    where = f"metric {name!r}"
    upstream_class = isinstance(target, type) and issubclass(target, evaluate.EvaluationModule)
    if upstream_class and target.__init__ is evaluate.EvaluationModule.__init__:
        # That constructor drops what it doesn't know.
        config = {key: arguments[key] for key in arguments if key == "config_name"}
        rest = {key: arguments[key] for key in arguments if key not in config}
        return _with_arguments(target(keep_in_memory=True, **config), where, rest)
    if not isinstance(target, type) and callable(getattr(target, "compute", None)):
        if arguments:
            raise RecipeError(f"it is built already and takes no {', '.join(arguments)}", where=where)
        return cast(Metric, target)
    if not callable(target):
        raise RecipeError(f"it is {target!r}", where=where, allowed="a metric, or what makes one")
    try:
        inspect.signature(target).bind(**arguments)
    except TypeError as error:
        raise RecipeError(
            f"{error}", where=where, allowed=f"{getattr(target, '__name__', name)}{inspect.signature(target)}"
        ) from error
    metric = target(**arguments)
    if not callable(getattr(metric, "compute", None)):
        raise RecipeError(
            f"it makes {type(metric).__name__}, which has no compute", where=where, allowed="an evaluate.Metric"
        )
    return cast(Metric, metric)


def _with_arguments(metric: Any, where: str, arguments: dict[str, Any]) -> Metric:
    """Fix the arguments of every later `compute`, which is where upstream's metrics take them."""
    if not arguments:
        return cast(Metric, metric)
    parameters = inspect.signature(metric._compute).parameters
    allowed = [key for key in parameters if key not in metric._feature_names()]
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        for key in arguments:
            if key not in allowed:
                raise RecipeError(
                    f"it takes no argument {key!r}{near(key, allowed)}",
                    where=where,
                    allowed=", ".join(allowed) or "none",
                )
    metric.compute = functools.partial(metric.compute, **arguments)
    return cast(Metric, metric)


def _loaded_from_hub(name: str, arguments: dict[str, Any]) -> Metric:
    where, module = f"metric {name!r}", name.removeprefix("evaluate:")
    local = Path(module) / f"{Path(module).name}.py"
    if not module or module.endswith(".py") or module.startswith((".", "/", "~")):
        raise RecipeError(
            f"{module!r} is no name of a metric on the Hub", where=where, fix="Write a local script as its path alone."
        )
    if local.exists():  # upstream would run this file, which the recipe did not ask for
        raise RecipeError(
            f"the file {local} stands before the Hub's {module!r}",
            where=where,
            fix=f"Write ./{module} to run that file.",
        )
    options = {key: arguments[key] for key in arguments if key in ("config_name", "module_type", "revision")}
    metric = _loaded(
        module,
        where,
        options,
        f"Load it once where the Hub can be reached, with the same HF_HOME: evaluate.load({module!r}) in Python; or "
        "give the path of a local copy; or take one of hfpipe's own metrics, which need no Hub.",
    )
    return _with_arguments(metric, where, {key: arguments[key] for key in arguments if key not in options})


def _loaded_from_file(name: str, arguments: dict[str, Any]) -> Metric:
    where, path = f"metric {name!r}", Path(name).expanduser()
    script = path / f"{path.resolve().name}.py" if path.is_dir() else path
    if not script.is_file() or script.suffix != ".py":
        raise RecipeError(
            f"there is no metric script {script}",
            where=where,
            allowed="a .py file, or a folder with a script of its own name",
        )
    options = {key: arguments[key] for key in arguments if key == "config_name"}
    metric = _loaded(
        str(script.resolve()),
        where,
        options,
        "HF_HOME must be writable: evaluate imports a copy of the script from there.",
    )
    return _with_arguments(metric, where, {key: arguments[key] for key in arguments if key not in options})


def _loaded(path: str, where: str, options: dict[str, Any], fix: str) -> Any:
    """Run `evaluate.load`, and say in hfpipe's words what went wrong."""
    try:
        with _hub_offline() as offline:
            return evaluate.load(path, keep_in_memory=True, **options)
    except OSError as error:  # ConnectionError and FileNotFoundError too: upstream gives either for an unknown name
        reason = f"{error}; offline mode is on" if offline else f"{error}"
        raise MachineError(f"its script can't be had ({reason})", where=where, fix=fix) from error
    except ImportError as error:
        raise MachineError(
            f"its script can't be imported ({error})", where=where, fix="Install what it needs."
        ) from error
    except Exception as error:  # the script is someone's code: anything can come out of it
        raise RecipeError(f"its script fails while loading ({type(error).__name__}: {error})", where=where) from error


@contextmanager
def _hub_offline() -> Iterator[bool]:
    """Make `evaluate` obey HF_HUB_OFFLINE, which it doesn't know: it reads its own variable, and only at import."""
    before = evaluate.config.HF_EVALUATE_OFFLINE
    evaluate.config.HF_EVALUATE_OFFLINE = before or hub_constants.HF_HUB_OFFLINE
    try:
        yield evaluate.config.HF_EVALUATE_OFFLINE
    finally:
        evaluate.config.HF_EVALUATE_OFFLINE = before
