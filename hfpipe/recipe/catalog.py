"""The short names of a recipe, and the object each stands for.

A name with a colon (`my_package.losses:tversky`) is imported as it is; everything else is a row of these tables. A row
holds `module:attribute` and the argument names a recipe may give beyond the fields that every such part has, so that a
misspelt argument is found without importing torch. A test resolves every row and binds its signature.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from hfpipe.errors import RecipeError


@dataclass(frozen=True)
class Entry:
    """One row: where the object is, and the arguments a recipe may give it."""

    target: str
    arguments: tuple[str, ...] = ()


class Row(Protocol):
    """What a name stands for: an entry of a table here, or a kind of task."""

    @property
    def target(self) -> str:
        """`module:attribute`."""


ENGINES: dict[str, Entry] = {
    "trainer": Entry("hfpipe.training.engines.trainer:train"),
    "loop": Entry("hfpipe.training.engines.loop:train"),
}

LOSSES: dict[str, Entry] = {
    "cross_entropy": Entry("hfpipe.parts.optim.losses:cross_entropy"),
    "bce_with_logits": Entry("hfpipe.parts.optim.losses:bce_with_logits"),
    "mse": Entry("hfpipe.parts.optim.losses:mse"),
    "l1": Entry("hfpipe.parts.optim.losses:l1"),
    "smooth_l1": Entry("hfpipe.parts.optim.losses:smooth_l1", ("beta",)),
    "kl_div": Entry("hfpipe.parts.optim.losses:kl_div"),
    "cosine_embedding": Entry("hfpipe.parts.optim.losses:cosine_embedding"),
    "focal": Entry("hfpipe.parts.optim.losses:focal", ("gamma",)),
    "earth_mover": Entry("hfpipe.parts.optim.losses:earth_mover"),
}

_TORCH = ("foreach", "maximize", "capturable", "differentiable")
OPTIMIZERS: dict[str, Entry] = {
    "adamw": Entry("torch.optim:AdamW", ("betas", "eps", "amsgrad", "fused", *_TORCH)),
    "adam": Entry("torch.optim:Adam", ("betas", "eps", "amsgrad", "fused", "decoupled_weight_decay", *_TORCH)),
    "sgd": Entry(
        "torch.optim:SGD", ("momentum", "dampening", "nesterov", "foreach", "maximize", "differentiable", "fused")
    ),
    "adagrad": Entry(
        "torch.optim:Adagrad",
        ("lr_decay", "initial_accumulator_value", "eps", "foreach", "maximize", "differentiable", "fused"),
    ),
    "rmsprop": Entry("torch.optim:RMSprop", ("alpha", "eps", "momentum", "centered", *_TORCH)),
    "adadelta": Entry("torch.optim:Adadelta", ("rho", "eps", *_TORCH)),
    "nadam": Entry("torch.optim:NAdam", ("betas", "eps", "momentum_decay", "decoupled_weight_decay", *_TORCH)),
    "radam": Entry("torch.optim:RAdam", ("betas", "eps", "decoupled_weight_decay", *_TORCH)),
    "adamax": Entry("torch.optim:Adamax", ("betas", "eps", *_TORCH)),
    "asgd": Entry("torch.optim:ASGD", ("lambd", "alpha", "t0", *_TORCH)),
    "rprop": Entry("torch.optim:Rprop", ("etas", "step_sizes", *_TORCH)),
    "adafactor": Entry("torch.optim:Adafactor", ("beta2_decay", "eps", "d", "foreach", "maximize")),
    "updater_sgd": Entry("hfpipe.parts.optim.updaters:updater_sgd"),
    "updater_momentum": Entry("hfpipe.parts.optim.updaters:updater_momentum", ("momentum",)),
    "updater_nesterov": Entry("hfpipe.parts.optim.updaters:updater_nesterov", ("momentum",)),
    "updater_adagrad": Entry("hfpipe.parts.optim.updaters:updater_adagrad", ("eps",)),
    "updater_rmsprop": Entry("hfpipe.parts.optim.updaters:updater_rmsprop", ("gamma", "eps")),
    "updater_adadelta": Entry("hfpipe.parts.optim.updaters:updater_adadelta", ("rho", "eps")),
    "updater_adam": Entry("hfpipe.parts.optim.updaters:updater_adam", ("betas", "eps")),
    "updater_adamw": Entry("hfpipe.parts.optim.updaters:updater_adamw", ("betas", "eps")),
}

_SCHEDULE_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "linear": (),
    "cosine": ("num_cycles",),
    "cosine_with_restarts": ("num_cycles",),
    "polynomial": ("lr_end", "power"),
    "constant": (),
    "constant_with_warmup": (),
    "inverse_sqrt": ("timescale",),
    "cosine_with_min_lr": ("num_cycles", "min_lr", "min_lr_rate"),
    "cosine_warmup_with_min_lr": ("num_cycles", "min_lr", "min_lr_rate", "warmup_lr_rate"),
    "warmup_stable_decay": (
        "num_decay_steps", "num_stable_steps", "warmup_type", "decay_type", "min_lr_ratio", "num_cycles",
    ),
    "reduce_lr_on_plateau": (
        "mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr", "eps",
    ),
}  # fmt: skip
SCHEDULES: dict[str, Entry] = {
    name: Entry("transformers:get_scheduler", arguments) for name, arguments in _SCHEDULE_ARGUMENTS.items()
}

_CLASSES, _NUMBERS = "hfpipe.parts.metrics.classification", "hfpipe.parts.metrics.regression"
_AVERAGED = ("average", "pos_label")
_ACCURACY, _MATTHEWS = Entry(f"{_CLASSES}:accuracy"), Entry(f"{_CLASSES}:matthews_correlation")
METRICS: dict[str, Entry] = {
    "accuracy": _ACCURACY,
    "f1": Entry(f"{_CLASSES}:f1", _AVERAGED),
    "precision": Entry(f"{_CLASSES}:precision", _AVERAGED),
    "recall": Entry(f"{_CLASSES}:recall", _AVERAGED),
    "matthews_correlation": _MATTHEWS,
    "quadratic_kappa": Entry(f"{_CLASSES}:quadratic_kappa"),
    "pearson": Entry(f"{_NUMBERS}:pearson"),
    "spearmanr": Entry(f"{_NUMBERS}:spearman"),
    "multi_label": Entry("hfpipe.parts.metrics.multi_label:MultiLabel"),
    "seqeval": Entry("hfpipe.parts.metrics.entities:Seqeval", ("scheme",)),
    "squad": Entry("hfpipe.parts.metrics.squad:Squad"),
    "mse": Entry(f"{_NUMBERS}:mse"),
    "mae": Entry(f"{_NUMBERS}:mae"),
    "glue/cola": _MATTHEWS,
    "glue/sst2": _ACCURACY,
    "glue/mrpc": Entry(f"{_CLASSES}:accuracy_and_f1"),
    "glue/stsb": Entry(f"{_NUMBERS}:pearson_and_spearman"),
    "glue/qqp": Entry(f"{_CLASSES}:accuracy_and_f1"),
    "glue/mnli": _ACCURACY,
    "glue/mnli_matched": _ACCURACY,
    "glue/mnli_mismatched": _ACCURACY,
    "glue/qnli": _ACCURACY,
    "glue/rte": _ACCURACY,
    "glue/wnli": _ACCURACY,
    "glue/hans": _ACCURACY,
    "glue/ax": _MATTHEWS,
}


_BETTER_WHEN_GREATER = (
    "accuracy", "f1", "precision", "recall", "matthews_correlation", "quadratic_kappa", "pearson", "spearmanr",
    *(f"{score}_{average}" for score in ("f1", "precision", "recall") for average in ("micro", "macro", "weighted")),
    "subset_accuracy", "exact_match", "has_answer_exact_match", "has_answer_f1", "no_answer_exact_match", "no_answer_f1",
)  # fmt: skip
GREATER_IS_BETTER = {**dict.fromkeys(_BETTER_WHEN_GREATER, True), **dict.fromkeys(("mse", "mae", "loss"), False)}


def greater_is_better(score: str) -> bool | None:
    """Whether a greater score is the better one; None for a score that hfpipe does not know.

    `PER_f1` is the F1 of a class, and better when it is greater, as F1 is; so with precision and recall.
    """
    if score.endswith(("_f1", "_precision", "_recall")):
        return True
    return GREATER_IS_BETTER.get(score)


def is_metric_script(name: str) -> bool:
    """Whether a metric is a script, from the Hub (`evaluate:NAME`) or from a file, whose code would run."""
    return name.startswith(("evaluate:", "./", "../", "/", "~")) or name.endswith(".py")


# Names of habit and of other libraries, as `plain_name` has them, and the name that is meant where it is allowed.
_ALIASES: dict[str, tuple[str, ...]] = {
    "cross_entropy": ("ce", "crossentropy", "crossentropyloss", "cross_entropy_loss", "nll", "categorical_crossentropy"),
    "bce_with_logits": ("bce", "bceloss", "bcewithlogitsloss", "binary_cross_entropy", "binary_crossentropy"),
    "l1": ("l1loss", "mean_absolute_error"),
    "smooth_l1": ("huber", "huber_loss", "smoothl1loss"),
    "mse": ("mseloss", "mean_squared_error", "rmse", "l2"),
    "mae": ("mean_absolute_error", "l1"),
    "adamw": ("adamw_torch", "adamw_torch_fused", "adamw_hf", "adam_w"),
    "cosine": ("cosine_annealing", "cosineannealinglr", "cosine_schedule"),
    "linear": ("linear_with_warmup", "linear_schedule_with_warmup"),
    "constant": ("none", "fixed"),
    "reduce_lr_on_plateau": ("plateau", "reducelronplateau"),
    "accuracy": ("acc", "accuracy_score"),
    "f1": ("f1_score", "f_score", "macro_f1", "f1_macro"),
    "matthews_correlation": ("mcc", "matthews", "matthews_corrcoef"),
    "spearmanr": ("spearman", "spearman_correlation"),
    "pearson": ("pearsonr", "pearson_correlation"),
    "quadratic_kappa": ("kappa", "cohen_kappa", "qwk"),
    "squad": ("exact_match", "em"),
    "fp16": ("float16", "half", "16"),
    "bf16": ("bfloat16",),
    "fp32": ("float32", "full", "32"),
    "epoch": ("epochs",),
    "never": ("no", "none"),
    "loop": ("accelerate", "pytorch", "torch"),
}  # fmt: skip


def plain_name(name: str) -> str:
    """A name without its dashes at the front, in lower case, with `_` between its words."""
    return name.strip().lstrip("-").lower().replace("-", "_").replace(" ", "_")


def close_names(name: str, allowed: Iterable[str]) -> list[str]:
    """The allowed names that were probably meant, two at most: an alias, the same in other case, or nearly the same.

    Rows of a table may have `aliases` of their own.
    """
    names, plain = list(allowed), plain_name(name)
    rows = allowed if isinstance(allowed, Mapping) else {}
    same = [
        one
        for one in names
        if plain_name(one) == plain or plain in (*_ALIASES.get(one, ()), *getattr(rows.get(one), "aliases", ()))
    ]
    if same or not plain:
        return same[:2]
    spelt: dict[str, str] = {}
    for one in names:
        spelt.setdefault(plain_name(one), one)
    return [spelt[close] for close in difflib.get_close_matches(plain, list(spelt), n=2, cutoff=0.6)]


def near(name: str, allowed: Iterable[str]) -> str:
    """Say which allowed name was probably meant: "; did you mean 'x'?", or nothing."""
    close = close_names(name, allowed)
    return f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else ""


def is_reference(name: str) -> bool:
    """Whether a name is `module:attribute` rather than a row of a table."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and all(p.isidentifier() for p in (*module.split("."), *attribute.split(".")))


def check_name(table: Mapping[str, Row], name: str, what: str) -> None:
    """Refuse a name that is neither in the table nor `module:attribute`.

    Raises:
        RecipeError: with the near names and the whole list.
    """
    if name not in table and not is_reference(name):
        raise RecipeError(
            f"unknown {what} {name!r}{near(name, table)}",
            allowed=f"{', '.join(table)}, or your own as module:attribute",
        )


def check_argument(table: Mapping[str, Entry], name: object, key: str, common: Iterable[str], what: str) -> None:
    """Refuse an argument that a part of the table does not take; parts from outside it are bound when imported.

    Raises:
        RecipeError: naming the argument, the near names and the whole list.
    """
    if isinstance(name, str) and name in table and key not in table[name].arguments:
        allowed = (*common, *table[name].arguments)
        raise RecipeError(f"{what} {name!r} takes no {key!r}{near(key, allowed)}", allowed=", ".join(allowed))


def resolve(table: Mapping[str, Row], name: str, what: str = "part") -> Any:
    """Import the object that a name stands for.

    Raises:
        RecipeError: unknown name, module that can't be imported, or module without that attribute.
    """
    check_name(table, name, what)
    target = table[name].target if name in table else name
    module_name, _, attribute = target.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise RecipeError(
            f"{what} {name!r}: module {module_name!r} can't be imported ({error})",
            fix="Install the package it belongs to, or put its folder on PYTHONPATH.",
        ) from error
    for piece in attribute.split("."):
        if not hasattr(found, piece):
            raise RecipeError(f"{what} {name!r}: {module_name!r} has no {attribute!r}{near(piece, dir(found))}")
        found = getattr(found, piece)
    return found
