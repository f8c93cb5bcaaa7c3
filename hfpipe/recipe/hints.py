"""What somebody probably meant: the field of the recipe for a name that stands elsewhere, or comes from other tools."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel

from hfpipe.recipe.catalog import close_names, plain_name
from hfpipe.recipe.schema import Recipe
from hfpipe.recipe.trainer_options import OLD_NAMES, OWNED

# Words of habit and of other libraries, with the field that decides it here.
_WORDS: dict[str, tuple[str, ...]] = {
    "batch": ("train.batch_size",),
    "bs": ("train.batch_size",),
    "eval_batch_size": ("evaluate.batch_size",),
    "train_batch_size": ("train.batch_size",),
    "epoch": ("train.epochs",),
    "n_epochs": ("train.epochs",),
    "num_epochs": ("train.epochs",),
    "steps": ("train.max_steps",),
    "num_steps": ("train.max_steps",),
    "rate": ("optimizer.lr",),
    "wd": ("optimizer.weight_decay",),
    "optim": ("optimizer.name",),
    "scheduler": ("schedule.name",),
    "lr_scheduler": ("schedule.name",),
    "early_stopping": ("evaluate.patience",),
    "early_stop": ("evaluate.patience",),
    "metric": ("evaluate.metrics",),
    "best_metric": ("evaluate.best",),
    "max_len": ("model.max_length",),
    "max_seq_len": ("model.max_length",),
    "seq_len": ("model.max_length",),
    "clip": ("train.max_grad_norm",),
    "grad_clip": ("train.max_grad_norm",),
    "gradient_clip_val": ("train.max_grad_norm",),
    "accumulation": ("train.accumulate",),
    "grad_accum": ("train.accumulate",),
    "accumulate_grad_batches": ("train.accumulate",),
    "num_workers": ("train.workers",),
    "dropout": ("model.config.hidden_dropout_prob",),
    "pretrained": ("model.checkpoint",),
    "model_name": ("model.checkpoint",),
    "dataset_name": ("dataset.path",),
    "data": ("dataset.path",),
    "train_file": ("dataset.data_files.train",),
    "validation_file": ("dataset.data_files.validation",),
    "test_file": ("dataset.data_files.test",),
    "delimiter": ("dataset.separator",),
    "sep": ("dataset.separator",),
    "column": ("task.text", "task.label"),
    "labels": ("task.label",),
    "target": ("task.label",),
    "text_column": ("task.text",),
    "label_column": ("task.label",),
    "classes": ("task.label.names",),
    "class_names": ("task.label.names",),
    "problem_type": ("task.kind",),
    "random_state": ("seed",),
    "random_seed": ("seed",),
    "validation_split": ("dataset.splits.hold_out",),
    "val_split": ("dataset.splits.hold_out",),
    "test_size": ("dataset.splits.hold_out",),
    "mixed_precision": ("train.precision",),
    "dtype": ("train.precision",),
    "wandb": ("tracking",),
    "log_level": ("--debug",),
}
# What a section is meant by where a single value stands in its place: `model=bert-base-cased`.
_MEANT = {
    "dataset": "path",
    "dataset.splits": "evaluation",
    "task": "kind",
    "model": "checkpoint",
    "loss": "name",
    "optimizer": "name",
    "schedule": "name",
    "train": "epochs",
    "train.batching": "by",
    "evaluate": "metrics",
    "checkpoints": "every",
}


@cache
def field_paths() -> tuple[str, ...]:
    """Every field of a recipe as a dotted path, the sections left out."""
    return tuple(_leaves(Recipe, ""))


def _leaves(model: type[BaseModel], above: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        nested = section_of(field.annotation)
        if nested is None:
            yield f"{above}{name}"
        else:
            yield from _leaves(nested, f"{above}{name}.")


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a field is, or None where it is a value."""
    for one in (annotation, *get_args(annotation)[:1]):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None


def meant_fields(name: str) -> tuple[str, ...]:
    """The fields that a name stands for which is the last piece of their path, or a word of other tools; else none."""
    key = plain_name(name.rpartition(".")[2])
    exact = tuple(path for path in field_paths() if path.rpartition(".")[2] == key)
    if exact and key != "name":
        return exact
    if key in _WORDS:
        return _WORDS[key]
    owned = {**OWNED, **OLD_NAMES}.get(key, "")
    return (owned,) if owned in field_paths() else ()


def near_fields(name: str) -> tuple[str, ...]:
    """The fields whose path, or the last piece of it, is spelt nearly like a name."""
    key = plain_name(name)
    by_leaf: dict[str, tuple[str, ...]] = {}
    for path in field_paths():
        leaf = path.rpartition(".")[2]
        by_leaf[leaf] = (*by_leaf.get(leaf, ()), path)
    by_leaf |= {path: (path,) for path in field_paths()} | _WORDS
    by_leaf |= {old: (now,) for old, now in {**OWNED, **OLD_NAMES}.items() if now in field_paths()}
    close = close_names(key, by_leaf) or close_names(key.rpartition(".")[2], by_leaf)
    return by_leaf[close[0]] if close else ()


def hint_for(name: str, value: str | None = None) -> str:
    """What to write in place of a name that is no field: "; write optimizer.lr=1e-4", or nothing.

    Args:
        name: an option or a key, with or without dashes.
        value: what was to be set; None where the place is a file, in which fields are no assignments.
    """
    key = plain_name(name.rpartition(".")[2])
    fields = meant_fields(name)
    if not fields and key in OLD_NAMES:
        return f"; in hfpipe: {OLD_NAMES[key]}"
    fields = (fields or near_fields(name))[:3]
    if not fields:
        return ""
    if value is None:
        return f"; did you mean {' or '.join(fields)}?"
    return f"; write {' or '.join(one if one.startswith('--') else f'{one}={value}' for one in fields)}"


def main_field(section: str) -> str | None:
    """The field that a single value in place of a section is meant for, as a path."""
    return f"{section}.{_MEANT[section]}" if section in _MEANT else None
