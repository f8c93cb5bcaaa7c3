"""finetune and evaluate from Python: the run folder, the parts that come as objects, and what goes wrong on the way."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

import hfpipe
from hfpipe.errors import DataError, MachineError, ModelError, NumericError, RecipeError, StoppedByUser

FILES = {  # what design.md promises, and what the transformers examples write; the report is another test's
    "recipe.yaml",
    "run.json",
    "records.jsonl",
    "audit.json",
    "metrics.json",
    "log.txt",
    "all_results.json",
    "eval_results.json",
    "train_results.json",
    "trainer_state.json",
}
ENGINES = ["trainer", "loop"]
KEPT = {"step", "epoch", "loss", "grad_norm", "lr", "num_items"}


@pytest.fixture
def train(recipe_fields: dict[str, Any], tmp_path: Path) -> Callable[..., hfpipe.Run]:
    """Trains the tiny recipe with these overrides and parts."""

    def finetune(*overrides: str, **parts: Any) -> hfpipe.Run:
        parts.setdefault("runs_dir", tmp_path / "runs")
        return hfpipe.finetune(parts.pop("recipe", recipe_fields), overrides=overrides, **parts)

    return finetune


def folders(tmp_path: Path) -> list[str]:
    """The runs that are there."""
    return sorted(path.name for path in (tmp_path / "runs").glob("*"))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_folder_holds_what_the_contract_lists(train: Callable[..., hfpipe.Run], engine: str) -> None:
    """Files, fields of the records and of run.json, and a recipe that loads again: for both engines."""
    run = train("checkpoints.keep_last=1", engine=engine, name="one")
    assert run.status == "finished"
    assert {path.name for path in run.path.iterdir()} - {"report.html"} == {
        *FILES,
        "model",
        "checkpoints",
        "evaluations",
    }
    assert {path.name for path in (run.path / "model").iterdir()} >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    assert run.recipe.engine == engine
    assert hfpipe.load_recipe(run.path / "recipe.yaml") == run.recipe

    about = run.metadata
    assert (about["id"], about["status"], about["seed"], about["engine"]) == ("one", "finished", 42, engine)
    assert {"torch", "transformers", "python"} <= set(about["versions"])
    assert about["fresh"] == ["classifier.bias", "classifier.weight"]
    assert all(len(about["identity"][part]["digest"]) == 64 for part in ("dataset", "checkpoint", "tokenizer"))
    assert about["rows"] == {"train": 44, "evaluation": 21}
    assert about["device"] == "cpu"
    assert {"commit", "machine", "precision", "started", "ended"} <= set(about)

    steps = [record for record in run.records if record["type"] == "step"]
    assert [step["step"] for step in steps] == list(range(1, 13))
    assert all(set(step) >= KEPT for step in steps)
    assert [step["num_items"] for step in steps] == [8, 8, 8, 8, 8, 4] * 2
    assert steps[-1]["epoch"] == 2.0
    evaluations = [record for record in run.records if record["type"] == "evaluation"]
    assert [(record["step"], record["epoch"]) for record in evaluations] == [(6, 1.0), (12, 2.0)]
    assert run.records[-1]["type"] == "end"
    assert any("freshly initialised from seed 42" in record.get("text", "") for record in run.records)
    assert set(run.metrics) == {"loss", "accuracy", "f1"}

    state = run.read_json("trainer_state.json")
    assert state["global_step"] == 12
    assert [entry["step"] for entry in state["log_history"]] == [1, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10, 11, 12, 12]
    assert run.read_json("eval_results.json")["eval_accuracy"] == run.metrics["accuracy"]
    assert run.read_json("all_results.json")["train_samples"] == 44


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_in_a_run_is_a_pickle(train: Callable[..., hfpipe.Run], engine: str) -> None:
    """No file is a pickle, a zip of one, or called like one; nothing hidden is left over."""
    run = train("train.max_steps=2", engine=engine)
    files = [path for path in run.path.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        start = path.read_bytes()[:4]
        assert path.suffix not in (".bin", ".pt", ".pth", ".pkl", ".pickle"), path
        assert not start.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")), path
        assert not path.name.startswith("."), path


def test_the_model_is_the_one_that_was_measured(train: Callable[..., hfpipe.Run]) -> None:
    """`run.model()` is in evaluation mode, and `evaluate` on the run gives the very figures of `finetune`."""
    run = train()
    assert not run.model().training
    measured = hfpipe.evaluate(run)
    assert measured.metrics == run.metrics
    assert (measured.split, measured.examples) == ("validation", 21)
    for name, value in measured.metrics.items():
        low, high = measured.intervals[name]
        assert low <= value <= high
    for target in (str(run.path), run.path, run.id):
        assert hfpipe.evaluate(target, runs_dir=run.path.parent).metrics == run.metrics


@pytest.mark.parametrize("engine", ENGINES)
def test_the_best_weights_are_those_of_the_end(train: Callable[..., hfpipe.Run], engine: str) -> None:
    """The model that a run ends with is, bit for bit, the checkpoint with the best figure, and so are the metrics."""
    run = train("train.epochs=4", "optimizer.lr=0.05", "evaluate.best=loss", "checkpoints.keep_last=1", engine=engine)
    losses = {record["step"]: record["metrics"]["loss"] for record in run.records if record["type"] == "evaluation"}
    best = min(losses, key=losses.get)
    assert best < max(losses), "the recipe must get worse at its end for this test to say anything"
    kept = sorted(path.name for path in (run.path / "checkpoints").iterdir())
    assert kept == [f"step-{step:08d}" for step in sorted({best, max(losses)})]
    end = load_file(run.path / "model" / "model.safetensors")
    checkpoint = load_file(run.path / "checkpoints" / f"step-{best:08d}" / "model.safetensors")
    assert all(torch.equal(end[name], checkpoint[name]) for name in checkpoint)
    assert run.metrics["loss"] == losses[best]
    assert hfpipe.evaluate(run).metrics["loss"] == losses[best]
    assert run.read_json("trainer_state.json")["best_global_step"] == best


@pytest.mark.parametrize("engine", ENGINES)
def test_the_best_weights_are_measured_as_they_were_trained(train: Callable[..., hfpipe.Run], engine: str) -> None:
    """With kernels of its own, what a run says of a further split after going back to its best is what evaluate says."""
    overrides = [
        "train.epochs=4",
        "optimizer.lr=0.05",
        "evaluate.every=1",
        "evaluate.best=loss",
        "checkpoints.keep_last=1",
    ]
    run = train(*overrides, "train.kernels=fast", "train.precision=bf16", "dataset.splits.also=train", engine=engine)
    summary = run.read_json("metrics.json")
    assert summary["evaluated_step"] < summary["steps"], "it must get worse at its end for this test to say anything"
    assert summary["also"]["train"] == hfpipe.evaluate(run, split="train").metrics


def test_a_smaller_run_ends_where_it_says(train: Callable[..., hfpipe.Run]) -> None:
    """Fractions of an epoch, max_steps and evaluation by steps stop and measure where they should."""
    run = train("train.epochs=1.5", "evaluate.every=4", "checkpoints.every=never", "checkpoints.keep_best=false")
    assert [record["step"] for record in run.records if record["type"] == "evaluation"] == [4, 8, 9]
    assert run.read_json("metrics.json")["steps"] == 9
    assert not (run.path / "checkpoints").exists()
    never = train("train.max_steps=2", "evaluate.every=never")
    assert [record["step"] for record in never.records if record["type"] == "evaluation"] == [2]
    assert set(never.metrics) == {"loss", "accuracy", "f1"}


def test_without_an_evaluation_split_nothing_is_measured(train: Callable[..., hfpipe.Run]) -> None:
    """A run without an evaluation split has no metrics, and evaluating it asks which split is meant."""
    run = train("dataset.splits.evaluation=null", "evaluate.best=null", "train.max_steps=1")
    assert run.metrics == {}
    with pytest.raises(RecipeError, match="no evaluation split"):
        hfpipe.evaluate(run)
    assert hfpipe.evaluate(run, split="train").examples == 44


def test_an_undefined_metric_is_null_and_said(train: Callable[..., hfpipe.Run]) -> None:
    """A figure that the predictions leave undefined is null everywhere, and a notice says so."""
    metrics = "evaluate.metrics=[accuracy, matthews_correlation]"
    none = "optimizer={lr: 0, allow_zero_lr: true}"
    run = train(none, "train.max_steps=1", metrics, "dataset.splits.evaluation='validation[:1]'")
    assert run.metrics["matthews_correlation"] is None
    assert '"matthews_correlation": null' in (run.path / "metrics.json").read_text()
    assert any("matthews_correlation is undefined" in record.get("text", "") for record in run.records)
    assert hfpipe.evaluate(run).intervals["matthews_correlation"] is None


@pytest.mark.parametrize("engine", ENGINES)
def test_fault_20_a_best_that_is_never_a_number(train: Callable[..., hfpipe.Run], tmp_path: Path, engine: str) -> None:
    """When the figure that decides is undefined each time, that is exit 6, and the last weights stay under their name."""
    overrides = ["evaluate.metrics=[matthews_correlation]", "evaluate.best=matthews_correlation", "evaluate.every=1"]
    overrides += ["dataset.splits.evaluation='validation[:1]'", "schedule.name=reduce_lr_on_plateau"]
    with pytest.raises(NumericError, match="matthews_correlation was never a number in any evaluation") as caught:
        train("train.max_steps=2", *overrides, engine=engine, name="one")
    assert caught.value.exit_code == 6
    run = hfpipe.Run(tmp_path / "runs" / "one")
    assert run.status == "failed"
    assert run.metrics["matthews_correlation"] is None
    assert (run.path / "model" / "model.safetensors").is_file()


def pair_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """A loss of one's own."""
    return F.cross_entropy(logits, targets, reduction="none")


def count_metric(predictions: Any, references: Any) -> dict[str, float]:
    """A metric of one's own."""
    return {"seen": float(len(predictions)), "right": float((predictions == references).mean())}


@pytest.mark.parametrize("engine", ENGINES)
def test_parts_may_be_objects(
    train: Callable[..., hfpipe.Run], engine: str, recipe_fields: dict[str, Any], pairs: dict[str, list[dict[str, Any]]]
) -> None:
    """Loss, data, optimizer, schedule, model and metrics given as objects train as their names in the recipe do."""
    classes = datasets.ClassLabel(names=["other", "same"])
    data = {name: datasets.Dataset.from_list(rows).cast_column("label", classes) for name, rows in pairs.items()}
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(recipe_fields["model"]["checkpoint"])
    plain = {"evaluate": {"best": "right", "greater_is_better": True}}
    run = train(
        recipe={**recipe_fields, **plain},
        engine=engine,
        dataset=data,
        model=model,
        loss=pair_loss,
        optimizer=torch.optim.SGD,
        schedule=lambda optimizer, steps: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
        metrics=count_metric,
    )
    assert run.metrics["seen"] == 21.0
    assert all(record["lr"] == 1e-3 for record in run.records if record["type"] == "step")
    assert run.metadata["fresh"] == []
    assert set(run.metadata["given"]) == {"dataset", "model", "schedule"}
    assert run.recipe.loss.name.endswith(":pair_loss")  # what can be imported stands in the recipe
    assert run.recipe.evaluate.metrics[0].endswith(":count_metric")


def test_a_loss_object_is_the_loss_of_its_name(train: Callable[..., hfpipe.Run]) -> None:
    """A function that computes cross entropy gives the same weights as the recipe's cross_entropy."""
    named, given = train("train.max_steps=3"), train("train.max_steps=3", loss=pair_loss)
    first, second = (load_file(run.path / "model" / "model.safetensors") for run in (named, given))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_engine_may_be_a_function(train: Callable[..., hfpipe.Run]) -> None:
    """A function `train(job, emit)` of one's own is an engine; one that does nothing is told."""
    from hfpipe.training.engines import loop

    seen: list[Any] = []

    def mine(job: Any, emit: Any) -> None:
        seen.append(job)
        loop.train(job, emit)

    run = train("train.max_steps=1", engine=mine)
    assert len(seen) == 1
    assert run.metadata["given"]["engine"].endswith("mine")
    with pytest.raises(RecipeError, match="emitted no step record"):
        train(engine=lambda job, emit: None)


def test_a_job_is_ready_to_train(recipe_fields: dict[str, Any]) -> None:
    """`prepare` gives model, loader, optimizer, schedule and objective for a loop of one's own."""
    job = hfpipe.prepare(hfpipe.load_recipe(recipe_fields))
    batch = next(iter(job.loader))
    labels = batch.pop("labels")
    losses = job.objective.item_losses(job.model(**batch).logits, labels)
    assert losses.shape == (8,)
    assert (job.timeline.num_steps, job.timeline.steps_per_epoch) == (12, 6)


@pytest.mark.parametrize(
    ("overrides", "kind", "told"),
    [
        (["dataset.path=./nowhere"], DataError, "no such folder"),
        (["model.checkpoint=./nowhere"], ModelError, "no such folder"),
        (["task.label=labell"], DataError, "did you mean 'label'"),
        (["dataset.splits.train=test"], DataError, "-1"),
        (["evaluate.best=acuracy"], RecipeError, "did you mean 'accuracy'"),
        (["model.max_length=3"], RecipeError, "3 special tokens alone"),
        (["train.precision=fp16"], RecipeError, "fp16 needs a GPU"),
        (["loss.class_weights=[1, 2, 3]"], RecipeError, "class_weights"),
        (["schedule.warmup=1000"], RecipeError, "longer than the run"),
        (["optimizer.name=no_such_module_here:X"], RecipeError, "can't be imported"),
        (["evaluate.metrics=[{name: f1, average: macroo}]"], RecipeError, "did you mean 'macro'"),
        (["trainer.torch_empty_cache_steps=three"], RecipeError, "trainer.torch_empty_cache_steps"),
    ],
)
def test_a_preparation_that_fails_leaves_no_folder(
    train: Callable[..., hfpipe.Run], tmp_path: Path, overrides: list[str], kind: type[Exception], told: str
) -> None:
    """Whatever is wrong is told before the first step, and no run is left behind."""
    with pytest.raises(kind) as caught:
        train(*overrides)
    assert told in str(caught.value)
    assert folders(tmp_path) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_a_loss_that_is_no_number_stops_the_run(train: Callable[..., hfpipe.Run], tmp_path: Path, engine: str) -> None:
    """A NaN ends the run with exit code 6, status failed, and every record before it."""
    calls: list[int] = []

    def breaks(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        losses = F.cross_entropy(logits, targets, reduction="none")
        return losses * math.nan if len(calls) == 3 else losses

    with pytest.raises(NumericError, match="is nan at step 3") as caught:
        train(loss=breaks, engine=engine, name="broken")
    assert caught.value.exit_code == 6
    run = hfpipe.Run(tmp_path / "runs" / "broken")
    assert run.status == "failed"
    assert "is nan at step 3" in run.metadata["error"]
    assert [record["step"] for record in run.records if record["type"] == "step"] == [1, 2]
    with pytest.raises(ModelError, match="is failed and has no model"):
        hfpipe.evaluate(run)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["loss.name=focal", "loss.gamma=x"], "gamma"),
        (["trainer.torch_empty_cache_steps=-1"], "Trainer refused its options: `torch_empty_cache_steps` must be"),
    ],
)
def test_what_only_training_finds_out_is_a_recipe_error(
    train: Callable[..., hfpipe.Run], overrides: list[str], told: str
) -> None:
    """An argument that a part or Trainer refuses when it is used is told as a mistake of the recipe."""
    with pytest.raises(RecipeError) as caught:
        train(*overrides)
    assert told in str(caught.value)


def test_weights_that_diverge_in_the_last_step_are_no_result(train: Callable[..., hfpipe.Run]) -> None:
    """A run whose last update broke the weights is not called finished."""
    from hfpipe.training.engines import loop

    def breaks(job: Any, emit: Any) -> None:
        loop.train(job, emit)
        next(job.model.parameters()).data[0, 0] = math.inf

    with pytest.raises(NumericError, match="not finite after the last step"):
        train("train.max_steps=1", "evaluate.best=null", "dataset.splits.evaluation=null", engine=breaks)


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (lambda logits, targets: F.cross_entropy(logits, targets), "gave shape [] for 8 items"),
        (lambda logits, targets: logits, "gave shape [8, 2] for 8 items"),
    ],
)
def test_a_loss_of_another_shape_is_told(train: Callable[..., hfpipe.Run], loss: Any, told: str) -> None:
    """A loss that was reduced already, or not to items, names its shape and the one it should have."""
    with pytest.raises(RecipeError) as caught:
        train(loss=loss)
    assert told in str(caught.value)


def test_stopping_is_no_failure(train: Callable[..., hfpipe.Run], tmp_path: Path) -> None:
    """Ctrl-C during training gives StoppedByUser, status interrupted and the records up to there; before it, no folder."""

    def stops(job: Any, emit: Any) -> None:
        update = next(job.updates())
        for batch in update.micro_batches():
            update.loss(job.model(**batch.inputs), batch.inputs, batch.labels)
        update.skip_if_nonfinite(1.0)
        emit(update.record(lr=1e-3))
        raise KeyboardInterrupt

    with pytest.raises(StoppedByUser):
        train(engine=stops, name="stopped")
    run = hfpipe.Run(tmp_path / "runs" / "stopped")
    assert run.status == "interrupted"
    assert [record["type"] for record in run.records][-1] == "step"


def test_a_fault_of_the_program_is_kept_in_the_log(train: Callable[..., hfpipe.Run], tmp_path: Path) -> None:
    """An unexpected exception passes through, with status failed and its traceback in log.txt."""

    def fails(job: Any, emit: Any) -> None:
        raise ZeroDivisionError("of mine")

    with pytest.raises(ZeroDivisionError):
        train(engine=fails, name="fault")
    run = hfpipe.Run(tmp_path / "runs" / "fault")
    assert run.status == "failed"
    assert "ZeroDivisionError: of mine" in (run.path / "log.txt").read_text()


def test_a_disk_that_is_too_small_is_told_before_the_first_step(
    train: Callable[..., hfpipe.Run], tmp_path: Path
) -> None:
    """When the model can't fit on the disk the run ends with exit code 5 before it begins, and leaves nothing."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80k", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be made here: {mounted.stderr.strip()}")
    try:
        with pytest.raises(MachineError, match=r"the run needs [\d,]+ bytes, and [\d,]+ are free") as caught:
            train("train.max_steps=1", runs_dir=disk, name="one")
        assert caught.value.exit_code == 5
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_checkpoint_is_evaluated_with_a_recipe(
    train: Callable[..., hfpipe.Run], recipe_fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of weights is measured by the data of a recipe, whatever its path holds; without one it is asked for."""
    run = train("train.max_steps=2")
    odd = tmp_path / 'it\'s a "model"'
    (run.path / "model").rename(odd)
    assert hfpipe.evaluate(odd, recipe=recipe_fields).metrics == run.metrics
    assert hfpipe.evaluate(str(odd), recipe=recipe_fields, split="train[:5]").examples == 5
    monkeypatch.chdir(tmp_path)
    assert hfpipe.evaluate(Path(odd.name), recipe=recipe_fields).metrics == run.metrics
    with pytest.raises(RecipeError, match="say which data: --recipe"):
        hfpipe.evaluate(str(odd))
    with pytest.raises(RecipeError, match="--recipe"):
        hfpipe.evaluate("org/model", runs_dir=run.path.parent)
    with pytest.raises(ModelError, match="would start at random"):
        hfpipe.evaluate(recipe_fields["model"]["checkpoint"], recipe=recipe_fields)
    # The start of a run id abbreviates it, except where the name may be a checkpoint's.
    with pytest.raises(ModelError, match="'tiny' is not in the local cache"):
        hfpipe.evaluate("tiny", recipe=recipe_fields, runs_dir=run.path.parent)


def test_splits_that_cannot_be_scored_are_told(train: Callable[..., hfpipe.Run]) -> None:
    """A split whose labels are kept back, and one that is not there, have exit code 3."""
    run = train("train.max_steps=1")
    with pytest.raises(DataError, match="hfpipe predict"):
        hfpipe.evaluate(run, split="test")
    with pytest.raises(DataError, match="did you mean 'validation'"):
        hfpipe.evaluate(run, split="validaton")


@pytest.mark.parametrize("form", ["text", "numbers"])
def test_csv_labels_train_and_evaluate(
    recipe_fields: dict[str, Any], tmp_path: Path, pairs: dict[str, list[dict[str, Any]]], form: str
) -> None:
    """Classes named by text and a regression on numbers, both from csv, train, save and are measured again."""
    words = {0: "unlike", 1: "alike"} if form == "text" else {0: "0.25", 1: "4.5"}
    for split in ("train", "validation"):
        rows = [f"{row['sentence1']},{row['sentence2']},{words[row['label']]}" for row in pairs[split]]
        (tmp_path / f"{split}.csv").write_text("\n".join(["sentence1,sentence2,label", *rows]) + "\n")
    files = {split: str(tmp_path / f"{split}.csv") for split in ("train", "validation")}
    fields = {**recipe_fields, "dataset": {"path": "csv", "data_files": files}}
    if form == "numbers":
        fields["task"] = {**fields["task"], "kind": "text-regression"}
        fields["evaluate"] = {"metrics": ["mse", "pearson"], "best": "mse"}
    run = hfpipe.finetune(fields, runs_dir=tmp_path / "runs", overrides=["train.epochs=1"])
    assert hfpipe.evaluate(run).metrics == run.metrics
    if form == "text":
        assert run.model().config.id2label == {0: "alike", 1: "unlike"}
    else:
        assert run.metrics["mse"] == pytest.approx(run.metrics["loss"], rel=1e-6)


def test_max_length_is_bounded_by_the_model(train: Callable[..., hfpipe.Run]) -> None:
    """A longer max_length than the model takes is lowered and said; one that cuts many inputs is said too."""
    long = train("model.max_length=1000", "train.max_steps=1")
    assert any("the model takes 64 tokens: 64 it is" in record.get("text", "") for record in long.records)
    short = train("model.max_length=6", "train.max_steps=1")
    assert any("reach max_length (6 tokens)" in record.get("text", "") for record in short.records)


def test_engines_of_different_precision_follow_each_other(train: Callable[..., hfpipe.Run]) -> None:
    """One process may train in bf16 and then in fp32, with either engine: no state of the first leaks."""
    first = train("train.max_steps=2", engine="loop")
    for engine in ENGINES:
        train("train.max_steps=1", "train.precision=bf16", engine=engine)
    again = train("train.max_steps=2", engine="loop")
    before, after = (load_file(run.path / "model" / "model.safetensors") for run in (first, again))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_warmups_of_any_length_are_valid_before_the_data_are_known(recipe_fields: dict[str, Any]) -> None:
    """A check without data refuses no warm-up that a long run could have."""
    from hfpipe.parts.build import check_parts

    check_parts(hfpipe.load_recipe(recipe_fields, ["schedule.warmup=20000"]))
    check_parts(hfpipe.load_recipe(recipe_fields, ["schedule.name=reduce_lr_on_plateau", "schedule.min_lr=0.0005"]))


def test_the_log_holds_the_chatter_and_the_terminal_does_not(
    train: Callable[..., hfpipe.Run], capfd: pytest.CaptureFixture[str]
) -> None:
    """What the libraries say lands in log.txt; with a silent display nothing is printed."""
    run = train("train.max_steps=1")
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""
    assert (run.path / "log.txt").stat().st_size > 0
    assert json.loads((run.path / "metrics.json").read_text())["steps"] == 1
