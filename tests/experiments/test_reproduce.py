"""`runs reproduce`: equal runs are called equal, others are told where and why, and changed inputs are found first."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

import hfpipe
from hfpipe.errors import DataError, ModelError, RecipeError
from hfpipe.experiments.reproduce import compare_runs, reproduce


@pytest.fixture
def own_data(recipe_fields: dict[str, Any], pairs_folder: Path, tmp_path: Path) -> Path:
    """A copy of the data that a test may change, named by the recipe."""
    folder = tmp_path / "pairs"
    shutil.copytree(pairs_folder, folder)
    recipe_fields["dataset"] = {"path": str(folder)}
    return folder


@pytest.fixture
def train(recipe_fields: dict[str, Any], tmp_path: Path) -> Callable[..., hfpipe.Run]:
    """Trains the tiny recipe."""

    def finetune(*overrides: str, **options: Any) -> hfpipe.Run:
        return hfpipe.finetune(recipe_fields, overrides=overrides, runs_dir=tmp_path / "runs", **options)

    return finetune


@pytest.mark.parametrize("engine", ["trainer", "loop"])
def test_a_run_comes_out_again(
    train: Callable[..., hfpipe.Run], hfpipe_command: Callable[..., Any], engine: str
) -> None:
    """With the engine that was asked for on the command line: weights and figures equal, exit code 0."""
    run = train("train.epochs=1", engine=engine, name="one")
    done = hfpipe_command("runs", "reproduce", "one", "--runs-dir", run.path.parent, "--json")
    assert done.code == 0, done.err
    found = done.json
    assert (found["equal"], found["weights_equal"], found["metrics_equal"]) == (True, True, True)
    assert (found["first_differing_step"], found["max_abs_weight_difference"]) == (None, 0.0)
    assert (found["inputs"], found["environment"], found["metrics"]) == ({}, {}, {})
    again = hfpipe.Run(Path(found["again"]))
    assert again.path != run.path
    assert again.recipe.engine == engine


def test_a_run_of_two_recipes_is_not_trained_again(train: Callable[..., hfpipe.Run]) -> None:
    """What was resumed with --allow-change comes from no one recipe: said before anything is trained."""
    run = train("train.epochs=1", name="one")
    run.update_metadata(allowed_changes={"optimizer.lr": 0.2, "train.batch_size": 4})
    with pytest.raises(RecipeError, match=r"another recipe on its way \(optimizer\.lr\).*--anyway"):
        reproduce(run, runs_dir=run.path.parent)
    assert [path.name for path in run.path.parent.iterdir()] == ["one"]


def test_a_run_that_does_not_come_out_is_reported(
    train: Callable[..., hfpipe.Run], hfpipe_command: Callable[..., Any]
) -> None:
    """As when the records say another path: the first step that parts, the figures, what differs here, exit code 6."""
    run, other = (
        train("train.epochs=1", name="one"),
        train("train.epochs=1", "train.max_grad_norm=0.01", "seed=7", name="two"),
    )
    for name in ("records.jsonl", "metrics.json", "model"):  # of the first run, those of another training are left
        (shutil.rmtree if name == "model" else Path.unlink)(run.path / name)
        (shutil.copytree if name == "model" else shutil.copyfile)(other.path / name, run.path / name)
    run.update_metadata(
        model=other.metadata["model"], threads=999, versions={**run.metadata["versions"], "torch": "1.0"}
    )
    done = hfpipe_command("runs", "reproduce", "one", "--runs-dir", run.path.parent, "--json")
    assert done.code == 6, done.err
    found = done.json
    assert (found["equal"], found["weights_equal"], found["first_differing_step"]) == (False, False, 1)
    assert found["max_abs_weight_difference"] > 0
    assert found["parted"]["loss"][0] != found["parted"]["loss"][1]
    assert found["metrics"]["loss"][0] == other.metrics["loss"]
    assert set(found["environment"]) == {"threads", "versions.torch"}
    assert found["environment"]["versions.torch"][0] == "1.0"


def test_where_two_runs_part(train: Callable[..., hfpipe.Run]) -> None:
    """A figure of one record, a missing step, and weights that alone differ are each found, and said in words."""
    first, second = train("train.epochs=1", name="one"), train("train.epochs=1", name="two")
    assert compare_runs(first, second, {}).equal
    records = second.records
    text = "\n".join(json.dumps({**r, "lr": 9.0} if r.get("step") == 4 and r["type"] == "step" else r) for r in records)
    second.write_text("records.jsonl", text)
    found = compare_runs(first, second, {})
    assert (found.first_differing_step, found.equal) == (4, True)
    assert found.differing["lr"][1] == 9.0
    assert "the records differ at step 4" in "\n".join(found.lines())
    second.write_text("records.jsonl", "\n".join(json.dumps(r) for r in records if r.get("step", 0) < 6))
    assert compare_runs(first, second, {}).differing == {"recorded": [True, False]}
    second.write_text("records.jsonl", "\n".join(map(json.dumps, records)))
    from safetensors.torch import load_file, save_file

    file = second.path / "model" / "model.safetensors"
    weights = load_file(file)
    weights["classifier.bias"] = weights["classifier.bias"] + 1
    save_file(weights, file)
    second.update_metadata(model={"model.safetensors": "other"})
    found = compare_runs(first, second, {})
    assert found.max_abs_weight_difference == pytest.approx(1)
    assert (found.weights_equal, found.metrics_equal, found.first_differing_step) == (False, True, 6)
    assert not found.equal
    assert "weights: not equal by at most 1" in found.lines()


def test_a_model_that_is_gone_is_compared_by_its_digests(train: Callable[..., hfpipe.Run]) -> None:
    """Without the first weights equality is still known, and a difference has no size."""
    first, second = train("train.max_steps=1", name="one"), train("train.max_steps=1", name="two")
    shutil.rmtree(first.path / "model")
    assert compare_runs(first, second, {}).weights_equal
    second.update_metadata(model={"model.safetensors": "other"})
    found = compare_runs(first, second, {})
    assert (found.weights_equal, found.max_abs_weight_difference) == (False, None)


def test_changed_data_are_found_before_training(
    own_data: Path, train: Callable[..., hfpipe.Run], hfpipe_command: Callable[..., Any]
) -> None:
    """Exit code 3 with both digests and no new run; with --anyway it trains, and says so in the outcome."""
    run = train("train.max_steps=1", name="one")
    rows = datasets.Dataset.from_parquet(str(own_data / "train.parquet"), cache_dir=str(own_data.parent / "cache"))
    rows.select(range(len(rows) - 1)).to_parquet(own_data / "train.parquet")
    refused = hfpipe_command("runs", "reproduce", "one", "--runs-dir", run.path.parent)
    assert refused.code == DataError.exit_code
    assert "not what run 'one' was trained with: dataset (digest" in refused.err
    assert "--anyway" in refused.err
    assert [path.name for path in run.path.parent.iterdir()] == ["one"]
    done = hfpipe_command("runs", "reproduce", "one", "--anyway", "--runs-dir", run.path.parent, "--json")
    assert done.code == 6
    assert set(done.json["inputs"]) == {"dataset"}


def test_a_changed_checkpoint_is_found_before_training(
    train: Callable[..., hfpipe.Run], recipe_fields: dict[str, Any], tmp_path: Path, tiny_checkpoint: Path
) -> None:
    """Other weights under the same name are exit code 4."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "mine"
    shutil.copytree(tiny_checkpoint, folder)
    recipe_fields["model"] = {"checkpoint": str(folder)}
    run = train("train.max_steps=1")
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.LayerNorm.bias"] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="checkpoint"):
        reproduce(run)


def test_what_came_from_python_is_refused(train: Callable[..., hfpipe.Run], recipe_fields: dict[str, Any]) -> None:
    """The recipe does not have it; the message names each part, and the same holds for measuring on such data."""
    label = datasets.ClassLabel(names=["other", "same"])
    features = datasets.Features(
        {name: datasets.Value("string") for name in ("sentence1", "sentence2")} | {"label": label}
    )
    rows = [{"sentence1": "bak", "sentence2": "bak", "label": row % 2} for row in range(4)]
    given = {split: datasets.Dataset.from_list(rows, features=features) for split in ("train", "validation")}
    run = train("train.max_steps=1", "dataset.path=memory", dataset=given)
    with pytest.raises(RecipeError, match=r"was given dataset \(builtins:dict\) from Python"):
        reproduce(run)
    with pytest.raises(RecipeError, match=r"was given dataset .*can.t be found again"):
        hfpipe.evaluate(run)
    with pytest.raises(RecipeError, match=r"was given dataset .*can.t be found again"):
        hfpipe.evaluate(str(run.path), split="train")
    path = recipe_fields["dataset"]["path"]
    assert hfpipe.evaluate(run, overrides=[f"dataset.path={path}"]).examples == 21


def test_an_unfinished_run_is_refused(train: Callable[..., hfpipe.Run]) -> None:
    """There is nothing to compare with."""
    run = train("train.max_steps=1")
    run.update_metadata(status="stopped")
    with pytest.raises(RecipeError, match="is stopped: there is nothing to compare with"):
        reproduce(run)
