"""Label the test sets of GLUE with a run, for the server that keeps their labels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets

from hfpipe.errors import DataError, RecipeError
from hfpipe.evaluation.prediction.chunks import LARGEST_CHUNK, given_chunks, require_columns
from hfpipe.evaluation.prediction.glue import HIGHEST_STSB, TestSet, server_labels, test_sets_of, write_predictions
from hfpipe.evaluation.prediction.predictor import Predictor, load_predictor
from hfpipe.parts.data.open import open_data
from hfpipe.parts.inputs.rows import Notify
from hfpipe.parts.tasks.classes import Names
from hfpipe.recipe.kinds import KINDS
from hfpipe.recipe.schema import Recipe
from hfpipe.recipe.source import with_overrides
from hfpipe.system.display import NOTE


def submit(
    recipe: Recipe, folder: Path, *, overwrite: bool, notice: Notify, parts: Mapping[str, Any] | None = None
) -> dict[str, int]:
    """Write the predictions of a model for the test sets of its own data set.

    All of the data are opened before anything is labelled. The diagnostic set, which a model of MNLI labels too, is left
    out where it can't be had, with a notice.

    Args:
        recipe: with the checkpoint in it.
        folder: is made where it is not there.
        overwrite: replace files that are there.
        notice: is called with what goes on.
        parts: as for `load_predictor`.

    Returns:
        The rows of each file.

    Raises:
        RecipeError: no set of GLUE, classes that are not those of the set, or a file that is there.
        DataError: a test set that is not there.
    """
    wanted = test_sets_of(recipe.dataset.name, recipe.where("dataset.name"))
    there = [folder / one.file for one in wanted if (folder / one.file).exists()]
    if there and not overwrite:
        raise RecipeError(f"{there[0]} is there already", where="--output", fix="Say --overwrite, or name another.")
    opened: list[tuple[TestSet, datasets.Dataset]] = []
    for one in wanted:
        try:
            opened.append((one, _rows_of(recipe, one)))
        except DataError as error:
            if one.config == recipe.dataset.name:
                raise
            notice(f"{NOTE}{one.file} is left out, and the server wants it: {error}")
    predictor = load_predictor(recipe, notice, parts)
    declared = recipe.task.names
    labels = {one.file: _labels(one, predictor, declared) for one, _ in opened}
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for one, rows in opened:
        notice(f"labelling {len(rows):,} rows of {one.config}, split {one.split}")
        written[one.file] = write_predictions(folder / one.file, _predictions(predictor, rows, labels[one.file]))
        if written[one.file] != one.rows:
            notice(f"{NOTE}{one.file} has {written[one.file]:,} rows, and the server's test set has {one.rows:,}")
    return written


def _rows_of(recipe: Recipe, test_set: TestSet) -> datasets.Dataset:
    """The rows of a test set, from where the data of the recipe are."""
    changes = [f"dataset.name={json.dumps(test_set.config)}"]
    changes.append(f"dataset.splits={{train: {test_set.split}, evaluation: null}}")
    if recipe.dataset.streaming:
        changes += ["dataset.streaming=false", "dataset.shuffle_buffer=10000"]
    raw = open_data(with_overrides(recipe, changes, "--glue"))
    rows = raw.split(test_set.split, "--glue")
    require_columns(rows.column_names, recipe.task.text, f"{raw.name}, split {test_set.split}")
    return rows.select_columns(list(recipe.task.text))


def _labels(test_set: TestSet, predictor: Predictor, declared: Names) -> dict[str, str]:
    """What the server reads for each class; nothing for a number."""
    where, wanted = predictor.recipe.where("task.kind"), "label" if test_set.labels else "value"
    if wanted not in predictor.task.kind.outputs:
        allowed = ", ".join(name for name, kind in KINDS.items() if wanted in kind.outputs)
        raise RecipeError(
            f"{predictor.recipe.task.kind!r} does not label {test_set.file}", where=where, allowed=allowed
        )
    names = predictor.task.names
    return server_labels(test_set, names, declared, where) if test_set.labels else {}


def _predictions(predictor: Predictor, rows: datasets.Dataset, labels: dict[str, str]) -> Iterator[str]:
    """What the server reads for each row."""
    for chunk in given_chunks(rows, predictor.columns, LARGEST_CHUNK):
        for one in predictor.label(chunk):
            yield labels[one["label"]] if labels else f"{min(max(one['value'], 0.0), HIGHEST_STSB):.6f}"
