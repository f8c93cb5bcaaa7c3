"""Tokens of rows: what the tasks make of a column is what lies in the cache, whatever the raw column is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
from transformers import AutoTokenizer

from hfpipe.parts.inputs.tokenized import tokenize
from hfpipe.parts.tasks import make_task
from hfpipe.recipe.schema import Task

FLAGS = {"column": "labels", "names": {"false": "no", "true": "yes"}}
STARS = {"column": "labels", "names": {"1": "bad", "2": "good"}}


@pytest.mark.parametrize(
    ("spec", "values", "expected"),
    [
        ({"kind": "multi-label-classification", "label": "labels"}, [[0, 2], [1]], [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]),
        ({"kind": "text-regression", "label": "labels"}, [3, 5], [3.0, 5.0]),
        ({"label": FLAGS}, [True, False], [1, 0]),
        ({"label": STARS}, [2.0, 1.0], [1, 0]),
    ],
    ids=["lists of numbers", "whole numbers as targets", "booleans", "floats"],
)
def test_a_raw_column_called_labels_lends_its_type_to_no_target(
    tiny_checkpoint: Path, spec: dict[str, Any], values: list[Any], expected: list[Any]
) -> None:
    """Targets have the type that the loss needs when the data's own label column is called `labels` as well."""
    rows = datasets.Dataset.from_dict({"text": ["bak bal", "bam"], "labels": values})
    task = make_task(Task(text=("text",), **spec), rows, "here", "where")
    tokenizer = AutoTokenizer.from_pretrained(str(tiny_checkpoint))
    made = tokenize(task, rows, tokenizer, max_length=16, identity=f"labels of {spec}").data
    targets = made["labels"][:]
    assert targets == expected
    assert repr(targets) == repr(expected)  # 1 == 1.0 == True


def test_what_datasets_leaves_beside_the_tokens_is_not_read_as_tokens(tiny_checkpoint: Path) -> None:
    """Filtering cached rows makes datasets write a file of its own into their folder, and the rows stay what they were."""
    rows = datasets.Dataset.from_dict({"text": ["bak bal", "bam", "bak"], "label": [0, 1, 0]})
    task = make_task(Task(text=("text",)), rows, "here", "where")
    tokenizer = AutoTokenizer.from_pretrained(str(tiny_checkpoint))
    first = tokenize(task, rows, tokenizer, max_length=16, identity="filtered").data
    first.filter(lambda row: row["labels"] == 0)
    assert len(list(Path(first.cache_files[0]["filename"]).parent.glob("*.arrow"))) == 2
    again = tokenize(task, rows, tokenizer, max_length=16, identity="filtered")
    assert again.seconds is None
    assert again.data.to_list() == first.to_list()
