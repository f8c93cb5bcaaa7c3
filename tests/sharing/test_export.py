"""`runs export`: a whole folder that loads, nothing of this machine in it, or nothing at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hfpipe
from hfpipe.errors import ModelError
from hfpipe.sharing.export import export
from hfpipe.system.redaction import shorten_folders


@pytest.fixture
def run(recipe_fields: dict[str, Any], tmp_path: Path) -> hfpipe.Run:
    """A short run, with a model card that names paths of this machine."""
    run = hfpipe.finetune(recipe_fields, overrides=["train.max_steps=1"], runs_dir=tmp_path / "runs", name="one")
    checkpoint = recipe_fields["model"]["checkpoint"]
    card = f"---\nbase_model: {checkpoint}\n---\nFrom `{run.path}/model`, see https://x.y{Path.home()}/z.\n"
    (run.path / "model" / "README.md").write_text(card, encoding="utf-8")
    return run


def test_an_export_is_whole_and_portable(
    run: hfpipe.Run, hfpipe_command: Callable[..., Any], tmp_path: Path, recipe_fields: dict[str, Any]
) -> None:
    """It loads with from_pretrained and gives the same outputs; every local path is shortened, and that is said."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    done = hfpipe_command("runs", "export", "one", tmp_path / "out" / "there", "--runs-dir", run.path.parent, "--json")
    assert done.code == 0
    assert done.err.splitlines() == [f"note: {notice}" for notice in done.json["notices"]]
    folder = tmp_path / "out" / "there"
    expected = {"config.json", "model.safetensors", "tokenizer.json", "README.md", "recipe.yaml", "metrics.json"}
    assert expected <= set(done.json["files"]) == {path.name for path in folder.iterdir()}
    assert [path.name for path in folder.parent.iterdir()] == ["there"]
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    batch = tokenizer("bak bak", return_tensors="pt")
    assert torch.equal(model(**batch).logits, run.model()(**batch).logits)
    assert json.loads((folder / "metrics.json").read_text())["metrics"] == run.metrics
    recipe = hfpipe.load_recipe(folder / "recipe.yaml")
    assert (recipe.dataset.path, recipe.model.checkpoint) == (str(folder / "pairs"), str(folder / "tiny"))
    notices = "\n".join(done.json["notices"])
    for told in (
        "dataset.path is a path of this machine",
        "model.checkpoint is a path",
        "README.md: a path of this machine",
    ):
        assert told in notices
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card == f"---\nbase_model: ./tiny\n---\nFrom `./model`, see https://x.y{Path.home()}/z.\n"
    for file in folder.iterdir():
        for path in (tmp_path, recipe_fields["dataset"]["path"], recipe_fields["model"]["checkpoint"]):
            assert str(path).encode() not in file.read_bytes(), file


def test_an_export_never_writes_over_anything(
    run: hfpipe.Run, hfpipe_command: Callable[..., Any], tmp_path: Path
) -> None:
    """A folder with something in it and a file are refused with exit code 2; an empty folder is taken."""
    taken, empty, file = tmp_path / "taken", tmp_path / "empty", tmp_path / "file"
    (taken / "x").mkdir(parents=True)
    empty.mkdir()
    file.write_text("")
    for to, told in ((taken, "is not empty"), (file, "is a file")):
        refused = hfpipe_command("runs", "export", run.path, to)
        assert (refused.code, told in refused.err) == (2, True)
    assert [path.name for path in taken.iterdir()] == ["x"]
    done = hfpipe_command("runs", "export", run.path, empty)
    assert done.code == 0
    assert (empty / "config.json").is_file()
    assert "note: recipe.yaml: dataset.path" in done.err
    assert done.out.splitlines()[0] == str(empty)


def test_a_model_that_was_changed_or_is_not_whole_is_not_exported(run: hfpipe.Run, tmp_path: Path) -> None:
    """Weights changed after the run, weights that are missing, and a run without an end: exit 4, and no folder."""
    from safetensors.torch import load_file, save_file

    file = run.path / "model" / "model.safetensors"
    weights = load_file(file)
    del weights["classifier.bias"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="has changed"):
        export(run, tmp_path / "out")
    run.update_metadata(model={})
    with pytest.raises(ModelError, match=r"lacks 1 weights, such as classifier\.bias"):
        export(run, tmp_path / "out")
    (run.path / "model" / "config.json").write_text("{")
    with pytest.raises(ModelError, match="can't be loaded"):
        export(run, tmp_path / "out")
    run.update_metadata(status="failed")
    with pytest.raises(ModelError, match="is failed"):
        export(run, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


def test_every_form_of_data_files_is_shortened(run: hfpipe.Run, recipe_fields: dict[str, Any], tmp_path: Path) -> None:
    """One file, a list, and a mapping, also what was written relative to the recipe's file."""
    from hfpipe.sharing.export import _portable

    for files, expected in (
        ("/a/b/x.csv", "./x.csv"),
        (["~/x.csv", "y.csv"], ("./x.csv", "./y.csv")),
        ({"train": "../x.csv", "validation": ["/v/*.csv"]}, {"train": "./x.csv", "validation": ["./*.csv"]}),
    ):
        fields = {**recipe_fields, "dataset": {"path": "csv", "data_files": files}}
        recipe, notices = _portable(hfpipe.load_recipe(fields))
        assert recipe.dataset.data_files == expected
        assert sum("dataset.data_files" in notice for notice in notices) == (1 if isinstance(files, str) else 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at RUN/model.", "at ./model."),
        ('"RUN/a/b"', '"./b"'),
        ("RUNNER/x", "./x"),  # under the same runs folder
        ("https://x.y/RUN", "https://x.y/RUN"),
        ("RUN", "./one"),
    ],
)
def test_only_whole_paths_are_shortened(run: hfpipe.Run, text: str, expected: str) -> None:
    """The end of a URL and a longer name are no path of this machine."""
    place = str(run.path)
    given, wanted = (one.replace("y/RUN", f"y{place}").replace("RUN", place) for one in (text, expected))
    assert shorten_folders(given, [place, str(run.path.parent)]) == wanted
