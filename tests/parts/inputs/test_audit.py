"""The audit of the data: what is counted, what is told, what is refused, and the commands that print it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest
from typer.testing import CliRunner

from hfpipe.cli.app import app
from hfpipe.errors import DataError, ModelError
from hfpipe.parts.inputs import audit as audits
from hfpipe.parts.inputs.rows import Rows, read_rows
from hfpipe.recipe import Recipe, load_recipe

WORDS = [a + b + c for a in "bcdfg" for b in "aeiou" for c in "klmnp"]
TRAIN = {
    "id": [1, 2, 3, 3, 5, 6],
    "text": ["bak bal", "bam ban bap", "bak bal", "  ", "bek", "bek"],
    "label": [0, 1, 0, 1, 0, 1],
}
VALIDATION = {"id": [7, 8, 9], "text": ["bak bal", "fun", "fup"], "label": [1, 1, 1]}


def recipe_for(checkpoint: Path, *overrides: str) -> Recipe:
    """A recipe for rows with `text` and `label`."""
    fields = {"dataset": {"path": "given"}, "task": {"text": "text"}, "model": {"checkpoint": str(checkpoint)}}
    return load_recipe(fields, overrides)


def split_of(columns: dict[str, list[Any]]) -> datasets.Dataset:
    """Rows in memory whose classes are no and yes."""
    rows = datasets.Dataset.from_dict(columns)
    return rows.cast_column("label", datasets.ClassLabel(names=["no", "yes"]))


def looked_at(
    checkpoint: Path, train: dict[str, list[Any]], validation: dict[str, list[Any]], *overrides: str
) -> tuple[audits.Audit, Rows]:
    """The audit of two splits, and their rows."""
    recipe = recipe_for(checkpoint, *overrides)
    rows = read_rows(recipe, dataset={"train": split_of(train), "validation": split_of(validation)})
    return audits.audit(recipe, rows), rows


def test_everything_is_counted(tiny_checkpoint: Path) -> None:
    """Classes, lengths, empty and repeated texts, contradictions, repeated ids and shared rows, by hand."""
    found, _ = looked_at(tiny_checkpoint, TRAIN, VALIDATION)
    train, validation = found.splits["train"], found.splits["validation"]
    assert (train.rows, train.labels) == (6, {"no": 3, "yes": 3})
    assert (train.empty, train.repeated, train.contradicted, train.repeated_ids) == (1, 2, 1, 1)
    assert train.lengths["longest"] == 5  # three words between [CLS] and [SEP]
    assert sum(count for _, count in train.lengths["histogram"]) == 6
    assert validation.only_class == "yes"
    assert found.shared == {"validation": 1}
    assert "validation: every label is 'yes', so metrics on it say little" in found.notices
    assert "validation: 1 of 3 rows have the same text as a row of train" in found.notices
    assert "train: texts with more than one label: 1" in found.notices


def test_clean_data_give_no_notice(tiny_checkpoint: Path) -> None:
    """Nothing is told where there is nothing to tell."""
    train = {"text": ["bak", "bal", "bam", "ban"], "label": [0, 1, 0, 1]}
    found, _ = looked_at(tiny_checkpoint, train, {"text": ["bap", "bek"], "label": [0, 1]})
    assert found.notices == []


def test_what_longer_inputs_would_cost(tiny_checkpoint: Path) -> None:
    """At 6 tokens one row of ten words is cut; at its 12 none is, for the tokens that the lengths say."""
    train = {"text": ["bak", " ".join(WORDS[:10]), "bal bam"], "label": [0, 1, 0]}
    found, rows = looked_at(tiny_checkpoint, train, {"text": ["bap", "bek"], "label": [0, 1]}, "model.max_length=6")
    assert found.splits["train"].full == 1
    assert "train: 1 of 3 inputs reach max_length (6 tokens) and may have been cut" in found.notices
    assert audits.longer(rows, "train") == [
        {"max_length": 6, "cut": 1, "tokens": 1.0},
        {"max_length": 12, "cut": 0, "tokens": (3 + 12 + 4) / (3 + 6 + 4)},
    ]
    assert audits.longer(rows, "validation") == []


def test_examples_are_shown_as_the_model_sees_them(tiny_checkpoint: Path) -> None:
    """The first rows with their columns, their tokens and the decoded text."""
    _, rows = looked_at(tiny_checkpoint, TRAIN, VALIDATION)
    (first,) = audits.examples(rows, "train", 1)
    assert first["columns"] == {"text": "bak bal", "label": 0}
    assert first["tokens"] == [["[CLS]", "bak", "bal", "[SEP]"]]
    assert first["decoded"] == ["[CLS] bak bal [SEP]"]


def test_fault_48_a_split_of_one_class(tiny_checkpoint: Path) -> None:
    """A training split of one class is told; labels without class names that are all the same are refused."""
    one = {"text": ["bak", "bal"], "label": [1, 1]}
    found, _ = looked_at(tiny_checkpoint, one, {"text": ["bam", "ban"], "label": [0, 1]})
    assert "train: every label is 'yes', so metrics on it say little" in found.notices
    with pytest.raises(DataError, match="has only the class '1'"):
        read_rows(
            recipe_for(tiny_checkpoint, "dataset.splits.evaluation=null"),
            dataset={"train": datasets.Dataset.from_dict({"text": ["a", "b"], "label": ["1", "1"]})},
        )


@pytest.mark.parametrize("change", ["repeated", "contradicted", "shared", "id"])
def test_fault_53_strict_refuses_what_is_told_otherwise(change: str, tiny_checkpoint: Path) -> None:
    """Duplicate ids, repeated and contradictory rows, and a row shared by two splits: told, and refused when strict."""
    train: dict[str, list[Any]] = {"id": [1, 2, 3], "text": ["bak", "bal", "bam"], "label": [0, 1, 0]}
    validation: dict[str, list[Any]] = {"id": [4, 5], "text": ["bap", "bek"], "label": [0, 1]}
    if change == "repeated":
        train = {"id": [1, 2, 3], "text": ["bak", "bal", "bak"], "label": [0, 1, 0]}
    elif change == "contradicted":
        train = {"id": [1, 2, 3], "text": ["bak", "bal", "bak"], "label": [0, 1, 1]}
    elif change == "shared":
        validation["text"] = ["bap", "bal"]
    else:
        train["id"] = [1, 2, 2]
    found, _ = looked_at(tiny_checkpoint, train, validation)
    assert len(found.notices) == (2 if change == "contradicted" else 1)
    with pytest.raises(DataError) as caught:
        looked_at(tiny_checkpoint, train, validation, "dataset.strict=true")
    assert caught.value.exit_code == 3
    assert found.notices[0] in str(caught.value)


def test_fault_56_a_tokenizer_of_another_language(tiny_checkpoint: Path) -> None:
    """More than a fifth of unknown tokens is refused with exit 4 before any weights are loaded; fewer are told."""
    known = [" ".join(WORDS[row : row + 4]) for row in range(10)]
    labels = [row % 2 for row in range(10)]
    foreign = {"text": [f"{text} xyz uvw" for text in known], "label": labels}
    validation = {"text": ["bak", "bal"], "label": [0, 1]}
    with pytest.raises(ModelError, match=r"33% of the tokens of train are \[UNK\]") as caught:
        looked_at(tiny_checkpoint, foreign, validation)
    assert caught.value.exit_code == 4
    some = {"text": [*known[:8], "bak xyz", known[9]], "label": labels}
    found, _ = looked_at(tiny_checkpoint, some, validation)
    assert "train: 2.6% of the tokens are unknown to the tokenizer" in found.notices


def test_the_command_prints_the_audit(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """`hfpipe data` shows sizes, classes and notices without loading weights; `--json` is one object with the same."""
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "unreadable")
    (folder / "model.safetensors").write_bytes(b"no weights at all")
    file = tmp_path / "rows.jsonl"
    lines = [json.dumps({"text": text, "label": label}) for text, label in zip(*list(TRAIN.values())[1:], strict=True)]
    file.write_text("\n".join(lines) + "\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"dataset: {{path: jsonl, data_files: {file}, splits: {{evaluation: null}}}}\n"
        f"task: {{text: text}}\nmodel: {{checkpoint: {folder}}}\n"
    )
    shown = CliRunner().invoke(app, ["data", str(recipe)])
    assert shown.exit_code == 0, shown.output
    assert "train: 6 rows" in shown.stdout
    assert "notice: train: texts with more than one label: 1" in shown.stdout
    assert "decoded: [CLS] bak bal [SEP]" in shown.stdout
    told = json.loads(CliRunner().invoke(app, ["data", str(recipe), "--json"]).stdout)
    assert told["splits"]["train"]["repeated"] == 2
    assert told["examples"][0]["columns"]["text"] == "bak bal"


def test_preprocess_fills_the_cache(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """The first call tokenizes, and the second finds the tokens of the first."""
    file = tmp_path / "rows.csv"
    file.write_text("text,label\n" + "".join(f"{WORDS[row]} {tmp_path.name},{row % 2}\n" for row in range(40)))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"dataset: {{path: csv, data_files: {file}, splits: {{evaluation: null}}}}\n"
        f"task: {{text: text}}\nmodel: {{checkpoint: {tiny_checkpoint}}}\n"
    )
    first, second = (
        json.loads(CliRunner().invoke(app, ["preprocess", str(recipe), "--json"]).stdout) for _ in range(2)
    )
    assert first["splits"]["train"]["rows"] == 40
    assert first["splits"]["train"]["seconds"] > 0
    assert second["splits"]["train"] == {"rows": 40, "seconds": None}
