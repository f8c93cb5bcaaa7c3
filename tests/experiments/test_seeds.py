"""Several seeds: each trained as alone, summed up, and a group that stopped goes on where it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest

import hfpipe
from hfpipe.errors import MachineError, NumericError, RecipeError, StoppedByUser
from hfpipe.experiments import seeds as seeds_module
from hfpipe.runs import Run
from hfpipe.runs.evaluations import write_evaluation
from hfpipe.runs.groups import Group

ROOT = Path(__file__).parents[2]
SHORT = {"epochs": 1, "batch_size": 8, "precision": "fp32"}


@pytest.fixture
def short(recipe_fields: dict[str, Any]) -> hfpipe.Recipe:
    """A recipe of six steps."""
    return hfpipe.load_recipe({**recipe_fields, "train": SHORT})


def trace(run: Run) -> list[dict[str, Any]]:
    """What a run recorded, without what a clock says."""
    return [{key: one for key, one in record.items() if key != "seconds"} for record in run.records]


@pytest.mark.parametrize("engine", ["trainer", "loop"])
def test_a_seed_of_a_group_is_the_run_alone(engine: str, recipe_fields: dict[str, Any], tmp_path: Path) -> None:
    """The third seed of a group equals, bit for bit, the run of that seed in a process of its own."""
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps({**recipe_fields, "engine": engine}), encoding="utf-8")
    command = [sys.executable, "-m", "hfpipe.cli.app", "finetune", str(file), "seed=9", "--name", "alone"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HFPIPE_RUNS_DIR": str(tmp_path)}
    alone = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    group = hfpipe.finetune_seeds(file, seeds=[7, 8, 9], runs_dir=tmp_path, name="group")
    _, err = alone.communicate(timeout=120)
    assert alone.returncode == 0, err.decode()
    runs = Run(tmp_path / "alone"), group.run(9)
    weights = [run.metadata["model"]["model.safetensors"] for run in runs]
    assert weights[0] == weights[1]
    assert runs[0].metrics == runs[1].metrics
    assert trace(runs[0]) == trace(runs[1])
    assert len(trace(runs[0])) > 12
    assert group.run(8).metadata["model"]["model.safetensors"] != runs[1].metadata["model"]["model.safetensors"]


def test_the_summary_is_that_of_the_runs(short: hfpipe.Recipe, tmp_path: Path) -> None:
    """Mean, deviation, best and worst are those of the runs' own metrics, and group.json has all of it."""
    group = hfpipe.finetune_seeds(short, seeds=3, runs_dir=tmp_path)
    assert group.status == "finished"
    assert group.seeds == [42, 43, 44]
    assert [run.recipe.seed for run in group.runs.values()] == group.seeds
    losses = [run.metrics["loss"] for run in group.runs.values()]
    found = group.summary["metrics"]["loss"]
    assert found["mean"] == pytest.approx(fmean(losses))
    assert found["standard_deviation"] == pytest.approx(stdev(losses))
    assert found["best"]["value"] == min(losses)
    assert group.run(found["worst"]["seed"]).metrics["loss"] == max(losses)
    about = json.loads((group.path / "group.json").read_text())
    assert {"format", "id", "name", "recipe_digest", "seeds", "status", "versions", "summary"} <= about.keys()
    assert group.recipe == short
    assert group.summary["notices"] == []


def test_the_baseline_is_that_of_the_evaluations(short: hfpipe.Recipe, tmp_path: Path) -> None:
    """What the evaluation of each run says of a model that learned nothing stands beside the mean."""
    group = hfpipe.finetune_seeds(short, seeds=[1, 2], runs_dir=tmp_path)
    assert group.summary["metrics"]["accuracy"]["baseline"] is None or group.run(1).read_json(
        "evaluations/validation.json"
    )
    for run in group.runs.values():
        write_evaluation(run, "validation", {"baseline": {"what": "always", "metrics": {"accuracy": 0.25}}}, [])
    again = hfpipe.finetune_seeds(resume=group)
    found = again.summary["metrics"]["accuracy"]
    assert found["baseline"] == 0.25
    assert found["difference"] == pytest.approx(found["mean"] - 0.25)


def test_one_seed_says_that_there_is_no_deviation(
    short: hfpipe.Recipe, tmp_path: Path, hfpipe_command: Callable[..., Any]
) -> None:
    """A group of one is trained, with a dash for the deviation and a notice."""
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(short.model_dump(mode="json")))
    done = hfpipe_command("finetune", file, "--seeds", "1", "--runs-dir", tmp_path)
    assert done.code == 0, done.err
    assert "one seed has no deviation" in done.out
    assert "note: one seed alone" in done.out


def test_a_stopped_group_goes_on(short: hfpipe.Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finished seeds are kept untouched, the one that was cut is trained anew, and the end equals an uninterrupted group."""
    whole = hfpipe.finetune_seeds(short, seeds=3, runs_dir=tmp_path, name="whole")
    from hfpipe.training import finetune as training

    real, begun = training.finetune, []

    def cut(recipe: Any, **how: Any) -> Run:
        begun.append(recipe.seed)
        if len(begun) == 2:  # as a process that is killed leaves it
            Run.create(recipe, how["runs_dir"], how["name"]).update_metadata(status="running", pid=2**22 + 1)
            raise StoppedByUser("stopped by the user")
        return real(recipe, **how)

    monkeypatch.setattr(training, "finetune", cut)
    with pytest.raises(StoppedByUser, match="stopped by the user") as stopped:
        hfpipe.finetune_seeds(short, seeds=3, runs_dir=tmp_path, name="cut")
    assert stopped.value.where == "seed 43"
    assert f"--resume {tmp_path / 'cut'}" in stopped.value.fix
    left = Group(tmp_path / "cut")
    assert left.status == "stopped"
    assert left.metadata["failed_seed"] == 43
    kept = (left.run(42).path / "run.json").read_bytes()
    begun.append(0)
    again = hfpipe.finetune_seeds(short, seeds=3, runs_dir=tmp_path, name="cut")
    assert begun[3:] == [43, 44]
    assert (left.run(42).path / "run.json").read_bytes() == kept
    assert again.status == "finished"
    assert again.metadata["error"] is None
    for seed in again.seeds:
        weights = [one.run(seed).metadata["model"]["model.safetensors"] for one in (again, whole)]
        assert weights[0] == weights[1]
    assert again.summary["metrics"] == whole.summary["metrics"]


def test_a_failing_seed_stops_the_group_with_its_own_error(
    short: hfpipe.Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others don't go on; the error names the seed and how to resume, and keeps its exit code."""
    from hfpipe.training import finetune as training

    real = training.finetune

    def fail(recipe: Any, **how: Any) -> Run:
        run = real(recipe, **how)
        if recipe.seed == 2:
            run.update_metadata(status="failed")
            raise NumericError("the loss is nan", where="step 3", fix="Try a smaller optimizer.lr.")
        return run

    monkeypatch.setattr(training, "finetune", fail)
    with pytest.raises(NumericError) as failed:
        hfpipe.finetune_seeds(short, seeds=[1, 2, 3], runs_dir=tmp_path, name="g")
    group = Group(tmp_path / "g")
    assert str(failed.value) == (
        "seed 2: step 3: the loss is nan. Try a smaller optimizer.lr. "
        f"`hfpipe finetune --resume {group.path}` goes on with the group."
    )
    assert group.status == "failed"
    assert not group.run(3).path.exists()


def test_nothing_is_left_of_a_group_that_never_trained(recipe_fields: dict[str, Any], tmp_path: Path) -> None:
    """A mistake before the first step leaves no folder that would take the name."""
    recipe = hfpipe.load_recipe({**recipe_fields, "dataset": {"path": str(tmp_path / "nowhere")}})
    with pytest.raises(hfpipe.HfpipeError, match=r"nowhere"):
        hfpipe.finetune_seeds(recipe, seeds=2, runs_dir=tmp_path, name="g")
    assert not (tmp_path / "g").exists()


@pytest.fixture
def untrained(short: hfpipe.Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Group:
    """A group `g` of seeds 42 and 43 that says it is finished, beside which nothing can be trained."""

    def none(*_: Any, **__: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr("hfpipe.training.finetune.finetune", none)
    group = Group.create(short, tmp_path, "g")
    group.update_metadata(format=1, id="g", seeds=[42, 43], status="finished", given={})
    for seed in group.seeds:
        run = Run.create(short, group.path, f"seed-{seed}")
        run.update_metadata(status="finished")
        figures = {"split": "validation", "metrics": {"accuracy": 0.5}, "steps": 6, "examples_per_second": 1.0}
        run.write_json("metrics.json", figures)
    return group


def test_a_finished_group_is_left_alone(short: hfpipe.Recipe, untrained: Group) -> None:
    """Asked for again, nothing is trained; equal values are called that."""
    group = hfpipe.finetune_seeds(short, seeds=2, runs_dir=untrained.path.parent, name="g")
    assert group.status == "finished"
    assert "all 2 seeds give the same value" in group.summary["metrics"]["accuracy"]["text"]


def test_a_changed_recipe_is_refused_with_what_differs(short: hfpipe.Recipe, untrained: Group) -> None:
    """Two recipes are no group: every difference is named, and both ways out."""
    changes = ["optimizer.lr=0.5", "train.epochs=2"]
    with pytest.raises(RecipeError) as refused:
        hfpipe.finetune_seeds(short, seeds=2, overrides=changes, runs_dir=untrained.path.parent, name="g")
    text_shown = str(refused.value)
    assert "optimizer.lr was 0.001 and is 0.5" in text_shown
    assert "train.epochs was 1 and is 2" in text_shown.replace("1.0", "1").replace("2.0", "2")
    assert "--name" in text_shown
    assert f"--resume {untrained.path}" in text_shown
    with pytest.raises(RecipeError, match=r"given\.loss was '\(not there\)' and is 'tests"):
        hfpipe.finetune_seeds(short, seeds=2, runs_dir=untrained.path.parent, name="g", loss=given_loss)


def given_loss() -> None:
    """An object in place of a part."""


given_loss.__module__ = "tests.somewhere"


def test_seeds_may_be_added_and_not_left_out(short: hfpipe.Recipe, untrained: Group) -> None:
    """More seeds are trained beside the finished ones; fewer would make another summary under the same name."""
    with pytest.raises(AssertionError, match="trained"):
        hfpipe.finetune_seeds(short, seeds=3, runs_dir=untrained.path.parent, name="g")
    assert untrained.seeds == [42, 43, 44]
    with pytest.raises(RecipeError, match="has the seeds 42, 43, 44; 44 would be left out"):
        hfpipe.finetune_seeds(short, seeds=2, runs_dir=untrained.path.parent, name="g")


def test_a_group_that_another_process_trains_is_refused(untrained: Group) -> None:
    """Two processes on one group would overwrite each other's runs."""
    untrained.update_metadata(status="running", pid=os.getppid())
    with pytest.raises(RecipeError, match=r"'g' is running \(process"):
        hfpipe.finetune_seeds(resume=untrained)


def test_runs_that_differ_in_more_than_their_seed_are_named(short: hfpipe.Recipe, untrained: Group) -> None:
    """A group that went on with another torch says so in its notices."""
    untrained.run(42).update_metadata(versions={"torch": "2.13.0"})
    untrained.run(43).update_metadata(versions={"torch": "2.14.0"})
    (notice,) = hfpipe.finetune_seeds(resume=untrained).summary["notices"]
    assert notice == "the runs differ in more than their seed: versions.torch: 2.13.0 for seed 42, 2.14.0 for seed 43"


def test_rows_held_out_by_each_seed_are_reported(recipe_fields: dict[str, Any], tmp_path: Path) -> None:
    """Where the seed also decides which rows are measured, a notice says that the deviation is that of both."""
    splits = {"train": "train", "evaluation": "held_out", "hold_out": 10}
    fields = {**recipe_fields, "train": SHORT, "dataset": {**recipe_fields["dataset"], "splits": splits}}
    group = hfpipe.finetune_seeds(fields, seeds=2, runs_dir=tmp_path)
    assert sum("holds out rows of its own" in notice for notice in group.summary["notices"]) == 1


def test_a_given_model_is_the_same_start_for_every_seed(short: hfpipe.Recipe, tmp_path: Path) -> None:
    """Training changes a model in place, so each seed gets a copy: the second starts where the first one did."""
    from transformers import AutoModelForSequenceClassification

    def fresh() -> Any:
        import torch

        torch.manual_seed(0)
        return AutoModelForSequenceClassification.from_pretrained(short.model.checkpoint, num_labels=2)

    given = fresh()
    before = {key: value.clone() for key, value in given.state_dict().items()}
    group = hfpipe.finetune_seeds(short, seeds=[1, 2], runs_dir=tmp_path, model=given)
    assert all(value.equal(before[key]) for key, value in given.state_dict().items())
    alone = hfpipe.finetune(short, overrides=["seed=2"], runs_dir=tmp_path, model=fresh())
    weights = [run.metadata["model"]["model.safetensors"] for run in (alone, group.run(2))]
    assert weights[0] == weights[1]


def test_the_command_prints_a_table_and_one_json_object(
    untrained: Group, tmp_path: Path, hfpipe_command: Callable[..., Any]
) -> None:
    """A metric's line has mean, deviation, best and worst; --json has the fields of a run and the summary."""
    done = hfpipe_command("finetune", "--resume", "g", "--runs-dir", tmp_path)
    assert done.code == 0, done.err
    assert "standard" in done.out
    assert "0.5000 (42)" in done.out
    found = hfpipe_command("finetune", "--resume", "g", "--runs-dir", tmp_path, "--json").json
    assert found["run"] == str(untrained.path)
    assert found["status"] == "finished"
    assert found["metrics"] == {"accuracy": 0.5}
    assert found["steps"] == 12
    assert found["seeds"] == [42, 43]
    assert found["summary"]["metrics"]["accuracy"]["standard_deviation"] == 0
    assert found["runs"][1]["run"] == str(untrained.path / "seed-43")


@pytest.mark.parametrize(
    ("arguments", "text_shown"),
    [
        (["--seeds", "many"], "'many'; allowed: how many, as 5, or which, as 1,2,3"),
        (["--seeds", "0"], "no seed"),
        (["--seeds", "1,1"], "1 is given twice"),
        (["--seeds", "1,2", "seed=3"], "seed=... does nothing beside a list of seeds"),
        (["--resume", "nothing"], "no run 'nothing'"),
    ],
)
def test_mistakes_of_the_command(
    arguments: list[str], text_shown: str, tmp_path: Path, hfpipe_command: Callable[..., Any]
) -> None:
    """Each is exit 2 and a sentence."""
    done = hfpipe_command("finetune", "quickstart", "--runs-dir", tmp_path, *arguments)
    assert done.code == 2
    assert text_shown in done.err


def test_a_command_without_a_recipe_says_what_it_needs(tmp_path: Path, hfpipe_command: Callable[..., Any]) -> None:
    """Neither `finetune` nor `finetune --seeds 3` guesses what to train."""
    assert "no recipe" in hfpipe_command("finetune").err
    done = hfpipe_command("finetune", "--seeds", "3", "--runs-dir", tmp_path)
    assert done.code == 2
    assert "no recipe" in done.err


@pytest.mark.parametrize(("text", "expected"), [("5", 5), ("1,2,3", [1, 2, 3]), ("7,", [7])])
def test_seeds_as_they_are_written(text: str, expected: int | list[int]) -> None:
    """A number is how many, a list is which, and a comma at the end makes a list of one."""
    assert seeds_module.parse_seeds(text) == expected


def test_a_folder_that_cannot_be_written_is_exit_5(short: hfpipe.Recipe, tmp_path: Path) -> None:
    """The fault of the machine keeps its kind."""
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError):
        hfpipe.finetune_seeds(short, seeds=2, runs_dir=tmp_path / "file")


def test_a_group_is_shown_and_deleted_as_a_run_is(
    untrained: Group, hfpipe_command: Callable[..., Any], tmp_path: Path
) -> None:
    """By its id or the start of it; a group with a run at work stays, and everything named beside it."""
    early = hfpipe_command("runs", "show", "g", "--runs-dir", tmp_path)
    assert early.code == 2
    assert "its summary is written when all seeds are trained" in early.err
    hfpipe.finetune_seeds(resume=untrained)
    shown = hfpipe_command("runs", "show", "g", "--runs-dir", tmp_path)
    assert shown.code == 0
    assert "accuracy" in shown.out
    assert hfpipe_command("runs", "show", "g", "--runs-dir", tmp_path, "--json").json["metrics"]["accuracy"] == 0.5
    untrained.run(43).update_metadata(status="running", pid=os.getppid())
    refused = hfpipe_command("runs", "delete", "g", "--yes", "--runs-dir", tmp_path)
    assert (refused.code, untrained.path.is_dir()) == (2, True)
    untrained.run(43).update_metadata(status="finished")
    assert hfpipe_command("runs", "delete", "g", "--yes", "--runs-dir", tmp_path).code == 0
    assert not untrained.path.exists()
