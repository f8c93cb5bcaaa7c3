"""What was measured with a run: `evaluations/<split>.json`, and beside it the prediction for every example."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from hfpipe.runs.store import Run
from hfpipe.system.snapshot import digest_of_text
from hfpipe.system.text import json_line

_FOLDER = "evaluations"


def file_name(split: str, overrides: Iterable[str] = ()) -> str:
    """The name, without its ending, of the files about a split or slice.

    A slice holds signs that no file name should, and other data under the same name are another measurement: both get
    a few digits of a hash.
    """
    plain, changes = re.sub(r"[^A-Za-z0-9._-]+", "_", split).strip("_")[:64], list(overrides)
    if plain == split and not changes:
        return split
    return f"{plain}-{digest_of_text(json.dumps([split, changes]))[:8]}"


def write_evaluation(run: Run, name: str, document: dict[str, Any], examples: Iterable[dict[str, Any]]) -> None:
    """Write `evaluations/NAME.json`, and one line an example into `evaluations/NAME.examples.jsonl`.

    Args:
        run: whose folder it is.
        name: from `file_name`.
        document: the metrics, see docs/evaluation.md.
        examples: `id` (row of the split, from 0), `prediction`, `reference`, `loss` and `weight` each, in the order of the rows.
    """
    lines = "".join(json_line(one) + "\n" for one in examples)
    run.write_text(f"{_FOLDER}/{name}.examples.jsonl", lines)
    run.write_json(f"{_FOLDER}/{name}.json", document)


def read_evaluation(run: Run, name: str) -> dict[str, Any] | None:
    """The document of that name, or None.

    Raises:
        RecipeError: it is there and is not JSON.
    """
    found = run.read_json(f"{_FOLDER}/{name}.json")
    return None if found is None else dict(found)


def read_examples(run: Run, name: str) -> list[dict[str, Any]] | None:
    """The prediction for every example, in the order of the rows, or None."""
    try:
        lines = (run.path / _FOLDER / f"{name}.examples.jsonl").read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return None
    return [json.loads(line) for line in lines if line]


def evaluation_names(run: Run) -> list[str]:
    """The names of all documents of a run, in order."""
    return sorted(path.stem for path in (run.path / _FOLDER).glob("*.json"))


def prediction_of(example: Mapping[str, Any]) -> Any:
    """What was predicted of an example of an evaluation; versions before called it `said`."""
    return example["prediction"] if "prediction" in example else example["said"]


def reference_of(example: Mapping[str, Any]) -> Any:
    """What should have been predicted; versions before called it `right`."""
    return example["reference"] if "reference" in example else example["right"]
