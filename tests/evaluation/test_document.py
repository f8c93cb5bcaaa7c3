"""All that is said of a split: in the run that trained, and by `hfpipe evaluate`, from the same code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hfpipe
from hfpipe.errors import RecipeError
from hfpipe.runs.evaluations import evaluation_names, file_name, read_evaluation, read_examples
from hfpipe.system.display import Silent


@pytest.fixture
def train(recipe_fields: dict[str, Any], tmp_path: Path) -> Callable[..., hfpipe.Run]:
    """Fine-tune the tiny recipe with overrides."""

    def finetune(*overrides: str, **options: Any) -> hfpipe.Run:
        return hfpipe.finetune(recipe_fields, overrides=overrides, runs_dir=tmp_path / "runs", **options)

    return finetune


CALIBRATED = (
    "dataset.splits.calibration=validation[:10]",
    "dataset.splits.evaluation=validation[10:]",
    "evaluate.calibrate=temperature",
    "evaluate.threshold=f1",
)


@pytest.mark.parametrize("engine", ["trainer", "loop"])
def test_the_run_says_what_evaluate_says(train: Callable[..., hfpipe.Run], engine: str) -> None:
    """The document that a run writes of its evaluation split is the one that `evaluate` measures from the saved model."""
    run = train("evaluate.best=loss", engine=engine)
    written, examples = read_evaluation(run, "validation"), read_examples(run, "validation")
    assert written is not None
    assert examples is not None
    again = hfpipe.evaluate(run)
    assert {**again.document, "examples_per_second": 0} == {
        **written, "examples_per_second": 0, "target": again.target,
    }  # fmt: skip
    assert written["metrics"] == run.metrics
    assert [one["id"] for one in examples] == list(range(21))
    references = np.array([one["reference"] for one in examples])
    assert written["metrics"]["accuracy"] == pytest.approx(
        (np.array([one["prediction"] for one in examples]) == references).mean()
    )
    assert all((one["said"], one["right"]) == (one["prediction"], one["reference"]) for one in examples)
    assert written["metrics"]["loss"] == pytest.approx(np.mean([one["loss"] for one in examples]))
    assert sum(map(sum, written["confusion"]["counts"])) == 21
    assert [one["support"] for one in written["classes"]] == np.bincount(references).tolist()


def test_what_was_measured_is_kept_and_nothing_else_is_touched(train: Callable[..., hfpipe.Run]) -> None:
    """Several splits at once, each a file of the run; another measurement of the name another file; the rest stays."""
    run = train("evaluate.every=never")

    def state() -> dict[str, str]:
        files = (path for path in run.path.rglob("*") if path.is_file() and path.parent.name != "evaluations")
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before = state()
    found = hfpipe.evaluate(run, split=["validation", "train[:8]"])
    assert (found.split, found.examples) == ("validation", 21)
    assert [(one.split, one.examples) for one in found.also] == [("train[:8]", 8)]
    other = hfpipe.evaluate(run, overrides=["evaluate.metrics=[f1]"])
    assert state() == before
    assert len(evaluation_names(run)) == 3
    assert read_evaluation(run, "validation")["metrics"] == found.metrics  # not the later one under the same name
    kept = read_evaluation(run, file_name("validation", ["evaluate.metrics=[f1]"]))
    assert kept["metrics"] == other.metrics
    assert kept["overrides"] == ["evaluate.metrics=[f1]"]


def test_a_folder_that_can_not_be_written_costs_no_metric(train: Callable[..., hfpipe.Run]) -> None:
    """Where the evaluations can't be written the metrics are returned all the same, and that is said."""
    run = train("evaluate.every=never")
    for file in (run.path / "evaluations").iterdir():
        file.unlink()
    (run.path / "evaluations").rmdir()
    (run.path / "evaluations").write_text("a file in the way")
    said: list[str] = []

    class Told(Silent):
        def notice(self, text: str) -> None:
            said.append(text)

    assert hfpipe.evaluate(run, display=Told()).examples == 21
    assert any("the metrics could not be written to" in line for line in said)


def test_calibration_is_fitted_on_other_rows_and_predict_uses_it(
    train: Callable[..., hfpipe.Run], tmp_path: Path, pairs: dict[str, list[dict[str, Any]]]
) -> None:
    """The model's config has temperature and threshold; evaluate and predict decide by them; its own rows are refused."""
    run = train(*CALIBRATED)
    config = json.loads((run.path / "model/config.json").read_text())["hfpipe_calibration"]
    document = read_evaluation(run, file_name("validation[10:]"))
    assert document["fitted_on"] == config["fitted_on"] == "validation[:10]"
    assert document["temperature"] == config["temperature"] != 1
    (line,) = document["threshold"]
    assert [line] == config["thresholds"]
    assert set(document["calibration"]["before"]) == {"ece", "brier"}
    examples = read_examples(run, file_name("validation[10:]"))
    assert all(one["prediction"] == int(one["probabilities"][1] >= round(line, 6)) for one in examples)
    assert hfpipe.evaluate(run).metrics == run.metrics == document["metrics"]

    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in pairs["validation"][10:]))
    told = hfpipe.predict(run, file)
    assert [("other", "same").index(one["label"]) for one in told] == [one["prediction"] for one in examples]
    assert [one["probabilities"]["same"] for one in told] == pytest.approx(
        [one["probabilities"][1] for one in examples], abs=1e-5
    )
    onward = train(f"model.checkpoint={run.path / 'model'}", "train.max_steps=1")
    assert "hfpipe_calibration" not in (onward.path / "model/config.json").read_text()  # it spoke of other weights
    with pytest.raises(RecipeError, match=r"10 rows of validation are those of validation\[:10\]"):
        hfpipe.evaluate(run, split="validation")


def test_a_checkpoint_is_calibrated_where_it_is_measured(train: Callable[..., hfpipe.Run]) -> None:
    """A run without a calibration gets one for a measurement that asks for it, and its model stays as it was."""
    run = train()
    plain = hfpipe.evaluate(run, split="validation[10:]")
    fitted = hfpipe.evaluate(run, overrides=CALIBRATED)
    assert fitted.document["fitted_on"] == "validation[:10]"
    assert plain.document["fitted_on"] is None
    assert fitted.metrics["loss"] == plain.metrics["loss"]  # of the logits as they are
    assert "hfpipe_calibration" not in (run.path / "model/config.json").read_text()
    with pytest.raises(RecipeError, match=r"validation\[:10\] shares 10 rows with validation\[:12\]"):
        hfpipe.evaluate(run, overrides=CALIBRATED, split="validation[:12]")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["evaluate.calibrate=temperature"], "is fitted on rows that are measured nowhere else"),
        (["dataset.splits.calibration=test"], "does nothing without `evaluate.calibrate` or `evaluate.threshold`"),
        (
            ["evaluate.threshold=f1", "dataset.splits.calibration=validation"],
            "is validation, which is trained on or measured",
        ),
        (
            ["evaluate.threshold=f1", "dataset.splits.calibration=validation[:5]"],
            "validation[:5] shares 5 rows with validation",
        ),
        (["evaluate.slices=[gender]"], "has no column 'gender'"),
        (["evaluate.slices=[{length: [8, 4]}]"], "in rising order"),
        (["evaluate.slices=[{name: x, where: 'len(sentence3) > 2'}]"], "can't be computed for row 0"),
    ],
)
def test_mistakes_are_told_before_the_first_step(
    train: Callable[..., hfpipe.Run], tmp_path: Path, overrides: list[str], told: str
) -> None:
    """Each with its reason, and no run is left behind."""
    with pytest.raises(RecipeError) as error:
        train(*overrides)
    assert told in str(error.value)
    assert not list((tmp_path / "runs").glob("*/records.jsonl"))


def test_slices_are_measured_by_themselves(train: Callable[..., hfpipe.Run]) -> None:
    """The slices of a column part the split, each with figures of its own rows and an interval around them."""
    run = train("evaluate.slices=[label, {length: [12]}, {name: even, where: 'idx % 2 == 0'}]")
    document = read_evaluation(run, "validation")
    examples = read_examples(run, "validation")
    by_label = [one for one in document["slices"] if one["by"] == "label"]
    assert [one["value"] for one in by_label] == ["other", "same"]
    assert sum(one["examples"] for one in by_label) == 21
    even = next(one for one in document["slices"] if one["by"] == "even")
    mine = [one for one in examples if one["id"] % 2 == 0]
    assert even["examples"] == len(mine) == 11
    assert even["metrics"]["accuracy"] == pytest.approx(
        np.mean([one["prediction"] == one["reference"] for one in mine])
    )
    assert even["metrics"]["loss"] == pytest.approx(np.mean([one["loss"] for one in mine]))
    assert even["intervals"]["accuracy"][0] <= even["metrics"]["accuracy"] <= even["intervals"]["accuracy"][1]


def test_a_model_that_predicts_one_class_is_called_that(train: Callable[..., hfpipe.Run]) -> None:
    """In words, beside the baseline that it does not beat; in the document and among the notices of the run."""
    run = train("optimizer={lr: 0, allow_zero_lr: true}", "dataset.splits.evaluation=validation[:8]", "seed=3")
    measured = read_evaluation(run, file_name("validation[:8]"))["notices"]
    notices = [record["text"] for record in run.records if record["type"] == "notice"]
    assert measured
    assert any("always '" in notice for notice in measured)
    assert all(f"validation[:8]: {notice}" in notices for notice in measured)


def test_ignored_rows_are_no_examples_of_the_figures(
    train: Callable[..., hfpipe.Run], tmp_path: Path, pairs: dict[str, list[dict[str, Any]]]
) -> None:
    """A row with the label -100 is counted as read, and stands in no figure and under no id."""
    rows = [{**row, "label": -100 if row["idx"] in (2, 5) else row["label"]} for row in pairs["validation"]]
    for split, part in (("train", pairs["train"]), ("validation", rows)):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    files = f"{{train: {tmp_path}/train.jsonl, validation: {tmp_path}/validation.jsonl}}"
    slices = "evaluate.slices=[{name: late, where: 'idx >= 5'}]"
    label = "task.label={column: label, names: [other, same]}"
    run = train("dataset.path=json", f"dataset.data_files={files}", label, slices)
    document = read_evaluation(run, "validation")
    late = [one for one in read_examples(run, "validation") if one["id"] >= 5]
    assert document["slices"][0]["examples"] == len(late) == 15
    assert document["slices"][0]["metrics"]["loss"] == pytest.approx(np.mean([one["loss"] for one in late]))
    assert (document["examples"], document["scored"]) == (21, 19)
    assert [one["id"] for one in read_examples(run, "validation")] == [row for row in range(21) if row not in (2, 5)]
    assert sum(map(sum, document["confusion"]["counts"])) == 19


def test_evaluate_prints_figures_with_interval_and_baseline(
    train: Callable[..., hfpipe.Run], hfpipe_command: Callable[..., Any]
) -> None:
    """Every figure on one line with its interval and the baseline; classes and slices below; several splits in JSON."""
    run = train("evaluate.slices=[length]", "task.label={column: label, names: [other, '[same]']}")
    shown = hfpipe_command("evaluate", run.path)
    assert shown.code == 0
    accuracy = next(line for line in shown.out.splitlines() if line.strip().startswith("accuracy"))
    assert accuracy.split()[1] == f"{run.metrics['accuracy']:.4f}"
    assert " to " in accuracy
    for expected in ("baseline: always '", "ROC-AUC", "Brier score", "[same]", "over "):
        assert expected in shown.out
    as_json = hfpipe_command("evaluate", run.path, "--split", "validation", "--split", "train[:6]", "--json").json
    assert {"target", "split", "metrics", "intervals", "examples", "examples_per_second"} <= set(as_json)
    assert as_json["also"][0]["split"] == "train[:6]"


@pytest.mark.parametrize(
    ("name", "value", "interval", "other", "told"),
    [
        ("accuracy", 0.7, [0.65, 0.75], 0.7, "accuracy 0.7000 is no better than the 0.7000 of always 'x'"),
        ("accuracy", 0.6, [0.55, 0.65], 0.7, "accuracy 0.6000 is no better than the 0.7000 of always 'x'"),
        (
            "accuracy",
            0.72,
            [0.68, 0.76],
            0.7,
            "the interval of accuracy, 0.6800 to 0.7600, reaches the 0.7000 of always 'x'",
        ),
        ("accuracy", 0.8, [0.75, 0.85], 0.7, None),
        ("mse", 2.0, [1.8, 2.2], 1.5, "mse 2.0000 is no better than the 1.5000 of always 'x'"),
        ("mse", 1.0, [0.9, 1.1], 1.5, None),
        ("mse", None, None, 1.5, None),
        ("unheard_of", 0.1, None, 0.2, None),
    ],
)
def test_a_figure_is_held_against_the_baseline(
    recipe_fields: dict[str, Any],
    name: str,
    value: float | None,
    interval: list[float] | None,
    other: float,
    told: str | None,
) -> None:
    """Greater or smaller as the figure has it; equal is no better; an undefined or unknown figure says nothing."""
    from hfpipe.evaluation.baseline import against_baseline
    from hfpipe.evaluation.statistics.intervals import Interval

    recipe = hfpipe.load_recipe(recipe_fields, ["evaluate.best=null"])
    baseline = {"what": "always 'x'", "metrics": {name: other}}
    assert against_baseline(recipe, {name: value}, {name: Interval(interval, "")}, baseline) == ([told] if told else [])


def test_the_model_folder_of_a_run_is_no_hub_id(
    train: Callable[..., hfpipe.Run],
    hfpipe_command: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`runs/ID/model`, as it is completed by a shell, is that folder: an id of the Hub has one slash at most."""
    run = train(name="one")
    monkeypatch.chdir(tmp_path)
    measured = hfpipe_command("evaluate", "runs/one/model", "--recipe", run.path / "recipe.yaml", "--json")
    assert measured.code == 0, measured.err
    assert measured.json["metrics"] == run.metrics
