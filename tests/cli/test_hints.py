"""Whoever names the wrong thing is told what there is, and the line to write."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hfpipe
from hfpipe.errors import DataError, RecipeError
from hfpipe.recipe import load_recipe
from hfpipe.runs.given_parts import PARTS
from hfpipe.runs.groups import Group


@pytest.fixture
def run(pairs_run: hfpipe.Run) -> hfpipe.Run:
    """A run on pairs."""
    return pairs_run


def csv_recipe(tmp_path: Path, labels: list[str]) -> dict[str, Any]:
    """A recipe of rows to measure on, with these labels."""
    rows = "".join(f"bak cek,bak {word},{label}\n" for word, label in zip(["bal", "bam", "ban"], labels, strict=True))
    (tmp_path / "rows.csv").write_text(f"sentence1,sentence2,label\n{rows}")
    return {
        "dataset": {"path": "csv", "data_files": {"validation": str(tmp_path / "rows.csv")}},
        "task": {"text": ["sentence1", "sentence2"]},
        "model": {"checkpoint": "./unused"},
    }


def test_numbers_for_classes_with_names(run: hfpipe.Run, tmp_path: Path) -> None:
    """A csv with 0 and 1 is refused with the mapping to declare, and with that line it is measured."""
    recipe = csv_recipe(tmp_path, ["0", "1", "1"])
    with pytest.raises(DataError, match="outside the 2 classes") as caught:
        hfpipe.evaluate(run, recipe=recipe)
    line = re.search(r"say so: (label: \{.*\})\.$", str(caught.value))
    assert line is not None, caught.value
    assert line[1] == 'label: {column: label, names: {"0": "other", "1": "same"}}'
    file = tmp_path / "recipe.yaml"
    file.write_text(
        f"dataset: {{path: csv, data_files: {{validation: {tmp_path}/rows.csv}}}}\n"
        f"task:\n  text: [sentence1, sentence2]\n  {line[1]}\n"
        "model: {checkpoint: ./unused}\n"
    )
    assert load_recipe(file).task.names == {"0": "other", "1": "same"}
    assert hfpipe.evaluate(run, recipe=file).examples == 3


def test_other_words_for_the_classes(run: hfpipe.Run, tmp_path: Path) -> None:
    """Where no value is a class, the mapping is shown with the values; where some are, the stray one is a stray one."""
    with pytest.raises(DataError, match=r'Declare which one each value means, label: .*\{"no": NAME, "yes": NAME\}'):
        hfpipe.evaluate(run, recipe=csv_recipe(tmp_path, ["no", "yes", "no"]))
    with pytest.raises(DataError, match=r"label '1' is outside .*The classes are other, same\.$"):
        hfpipe.evaluate(run, recipe=csv_recipe(tmp_path, ["other", "same", "1"]))


def test_a_split_that_is_not_there(run: hfpipe.Run, hfpipe_command: Callable[..., Any]) -> None:
    """`--split` names the splits there are, and gives no advice for a training."""
    done = hfpipe_command("evaluate", run.path, "--split", "nosuch")
    assert done.code == 3
    assert "has no split 'nosuch'; allowed: train, validation, test\n" in done.err.replace(
        "test, train, validation", ""
    )
    assert "hold_out" not in done.err


@pytest.mark.parametrize("function", [hfpipe.finetune, hfpipe.finetune_seeds, hfpipe.compare])
def test_an_argument_that_is_not_there(function: Callable[..., Any], tmp_path: Path) -> None:
    """A misspelt keyword is told with the near names before any folder is made, and a field of the recipe with its place."""
    vary = {"vary": {"seed": [1, 2]}} if function is hfpipe.compare else {}
    with pytest.raises(RecipeError, match=r"no argument 'tokeniser'; did you mean 'tokenizer'\?") as caught:
        function("quickstart", tokeniser=1, runs_dir=tmp_path / "runs", **vary)
    assert caught.value.where == f"{function.__name__}()"
    with pytest.raises(RecipeError, match=r"changed with overrides=\['train\.epochs=1'\]"):
        function("quickstart", epochs=1, runs_dir=tmp_path / "runs", **vary)
    assert not (tmp_path / "runs").exists()


def test_what_may_be_given_is_what_prepare_takes() -> None:
    """The list of parts is that of `hfpipe.prepare`."""
    parameters = inspect.signature(hfpipe.prepare).parameters
    assert [name for name in parameters if name not in ("recipe", "notice", "batch_plans")] == list(PARTS)


@pytest.mark.parametrize(
    "change", ["train.epochs=9", "optimizer={lr: 1}", "checkpoints.keep_last=1", "engine=loop", "name=x"]
)
def test_an_override_that_only_a_training_reads(
    run: hfpipe.Run, tmp_path: Path, hfpipe_command: Callable[..., Any], change: str
) -> None:
    """evaluate and predict refuse it, exit 2: it would change nothing, and look as if it had."""
    (tmp_path / "rows.jsonl").write_text('{"sentence1": "bak", "sentence2": "bal"}\n')
    path = change.partition("=")[0]
    for done in (
        hfpipe_command("evaluate", run.path, change),
        hfpipe_command("predict", run.path, tmp_path / "rows.jsonl", change),
    ):
        assert done.code == 2
        assert f"override {change!r}: {path} does nothing where nothing is trained" in done.err
    with pytest.raises(RecipeError, match="does nothing where nothing is trained"):
        run.predict(["bak"], overrides=[change])


def test_an_override_that_is_read(run: hfpipe.Run, hfpipe_command: Callable[..., Any]) -> None:
    """What decides the figures or the memory is taken; of the two batch sizes the right one is named."""
    assert hfpipe_command("evaluate", run.path, "evaluate.batch_size=2", "train.precision=fp32", "seed=3").code == 0
    assert hfpipe_command("evaluate", run.path, "train.kernels=fast").code == 0
    assert (
        "evaluate.batch_size is the one that is read here"
        in hfpipe_command("evaluate", run.path, "train.batch_size=2").err
    )
    assert "did you mean 'epochs'" in hfpipe_command("evaluate", run.path, "train.epoch=2").err


@pytest.mark.parametrize(
    "command",
    [["runs", "export", "GROUP", "OUT"], ["push", "GROUP", "a/b"], ["runs", "report", "GROUP"], ["evaluate", "GROUP"]],
)
def test_a_group_where_a_run_is_meant(
    run: hfpipe.Run,
    tmp_path: Path,
    hfpipe_command: Callable[..., Any],
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By its folder, too: exit 2, and the runs that may be meant."""
    group = Group.create(run.recipe, tmp_path / "all", "seeds")
    group.update_metadata(seeds=[1, 2])
    for seed in (1, 2):
        group.run(seed).path.mkdir()
        group.run(seed).update_metadata(
            id=f"seed-{seed}", status="finished", best="accuracy", started=f"2026-01-0{seed}T00:00:00+00:00"
        )
        group.run(seed).write_json("metrics.json", {"metrics": {"accuracy": seed / 4}})
    monkeypatch.chdir(tmp_path)
    names = {"GROUP": "all/seeds", "OUT": "out"}
    done = hfpipe_command(*[names.get(word, word) for word in command], "--runs-dir", tmp_path / "elsewhere")
    assert done.code == 2
    assert "is a group of seeds, and one run is wanted" in done.err
    assert "all/seeds/seed-1 (accuracy 0.2500), all/seeds/seed-2 (accuracy 0.5000)" in done.err
