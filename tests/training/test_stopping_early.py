"""`evaluate.patience`: where a training stops because no evaluation was better, and what it leaves behind."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stopped import DiesWhen, Killed, digest, records

import hfpipe
from hfpipe.errors import RecipeError
from hfpipe.runs import checkpoints
from hfpipe.training.engines import loop

ENGINES = ("trainer", "loop")
# 6 steps an epoch; the loss is best after step 8, and not better after 12 and 16, in the middle of the third epoch.
EARLY = [
    "checkpoints.keep_state=true",
    "seed=2",
    "optimizer.lr=0.03",
    "train.epochs=6",
    "evaluate.every=4",
    "evaluate.best=loss",
    "evaluate.patience=2",
]


pytestmark = pytest.mark.usefixtures("no_report")


Start = Callable[..., hfpipe.Run]


@pytest.fixture
def start(recipe_fields: dict[str, Any], tmp_path: Path) -> Start:
    """Trains the tiny recipe with a patience, and with these overrides."""

    def finetune(*overrides: str, name: str = "one", **options: Any) -> hfpipe.Run:
        options = {"runs_dir": tmp_path / "runs", "engine": "loop", **options}
        return hfpipe.finetune(recipe_fields, overrides=[*EARLY, *overrides], name=name, **options)

    return finetune


def last_step(run: hfpipe.Run) -> int:
    """The last step that a run recorded."""
    return int(records(run, "step")[-1]["step"])


def test_both_engines_stop_at_the_same_step(start: Start) -> None:
    """The run is finished, with the best weights, and its records, its run.json and its figures say where it stopped."""
    runs = [start(engine=engine, name=engine) for engine in ENGINES]
    assert records(runs[0]) == records(runs[1])
    assert digest(runs[0]) == digest(runs[1])
    for run in runs:
        assert (run.status, last_step(run)) == ("finished", 16)
        why = "stopped after step 16: no better loss in 2 evaluations"
        assert run.metadata["stopped_early"] == {"step": 16, "of": 36, "why": why}
        assert why in [one["text"] for one in records(run, "notice")]
        assert [one["step"] for one in records(run, "evaluation")] == [4, 8, 12, 16]
        summary = run.read_json("metrics.json")
        assert (summary["steps"], summary["evaluated_step"]) == (16, 8)
        best = run.path / checkpoints.name_of(8) / "model.safetensors"
        assert digest(run) == hashlib.sha256(best.read_bytes()).hexdigest()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("every", ["1", "5", "epoch"])
def test_it_changes_nothing_but_the_end(start: Start, engine: str, every: str) -> None:
    """Up to its last step the run is the one without a patience, whatever the rhythm of the evaluations."""
    early = start(f"evaluate.every={every}", engine=engine, name="early")
    whole = start(f"evaluate.every={every}", "evaluate.patience=null", engine=engine, name="whole")
    assert last_step(whole) == 36
    assert early.metadata["stopped_early"]["step"] == last_step(early) < 36
    kept = records(early, "step", "evaluation")
    assert kept == records(whole, "step", "evaluation")[: len(kept)]
    assert kept[-1]["type"] == "evaluation"


def test_the_last_weights_are_kept_where_the_best_are_not(start: Start) -> None:
    """Without keep_best a run that stopped early ends with the weights of its last step, as any run does."""
    runs = [start("checkpoints.keep_best=false", engine=engine, name=engine) for engine in ENGINES]
    for run in runs:
        last = run.path / checkpoints.name_of(16) / "model.safetensors"
        assert digest(run) == hashlib.sha256(last.read_bytes()).hexdigest()
        assert run.read_json("metrics.json")["evaluated_step"] == 16


def test_a_run_that_stopped_early_is_complete(start: Start) -> None:
    """It says so when it is to go on, and nothing of it changes."""
    run = start()
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    assert hfpipe.finetune(resume=run).status == "finished"
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("patience", ["5", "null"])
@pytest.mark.parametrize("saving", ["epoch", "never"])
def test_more_patience_goes_on_as_if_it_had_been_there(start: Start, engine: str, patience: str, saving: str) -> None:
    """Allowed by name, a finished run goes on from its newest checkpoint to the end of the run that had it all along."""
    run = start(f"checkpoints.every={saving}", engine=engine)
    more = [f"evaluate.patience={patience}"]
    with pytest.raises(RecipeError, match=r"Pass --allow-change evaluate\.patience"):
        hfpipe.finetune(resume=run, overrides=more)
    run = hfpipe.finetune(
        resume=run, overrides=more, allow_change=["evaluate.patience"], engine=ENGINES[ENGINES.index(engine) - 1]
    )
    whole = start(*more, f"checkpoints.every={saving}", engine=engine, name="whole")
    assert run.metadata["resumed"][0]["step"] == (16 if saving == "epoch" else 8)
    assert [one for one in records(run) if "resumed" not in one] == records(whole)
    assert digest(run) == digest(whole)
    assert run.metadata["stopped_early"] == whole.metadata["stopped_early"]


def test_a_run_that_goes_on_has_not_stopped_early(start: Start) -> None:
    """While it trains on, run.json does not say so any more; the patience that was allowed once stays allowed."""
    run = start()
    with pytest.raises(Killed):
        hfpipe.finetune(
            resume=run,
            overrides=["evaluate.patience=5"],
            allow_change=["evaluate.patience"],
            display=DiesWhen(lambda one: one["type"] == "step"),
        )
    assert run.metadata["stopped_early"] is None
    assert last_step(hfpipe.finetune(resume=run)) > 16


def test_less_patience_stops_where_it_is(start: Start, tmp_path: Path) -> None:
    """Of a run that waited longer than it now may, no further step is made: the checkpoint knows how long it waited."""
    with pytest.raises(Killed):
        start("evaluate.patience=5", display=DiesWhen(lambda one: one["type"] == "step" and one["step"] == 19))
    run = hfpipe.finetune(
        resume=tmp_path / "runs" / "one", overrides=["evaluate.patience=2"], allow_change=["evaluate.patience"]
    )
    assert (last_step(run), run.metadata["stopped_early"]["step"]) == (18, 18)
    assert run.metadata["stopped_early"]["why"] == "stopped after step 18: no better loss in 2 evaluations"


def test_another_figure_is_waited_for_anew(start: Start, tmp_path: Path) -> None:
    """Evaluations that did not improve the figure that was the best are none that the new one was waited for in."""
    with pytest.raises(Killed):
        start("evaluate.patience=null", display=DiesWhen(lambda one: one["type"] == "step" and one["step"] == 19))
    changes = ["evaluate.best=accuracy", "evaluate.patience=2"]
    run = hfpipe.finetune(resume=tmp_path / "runs" / "one", overrides=changes, allow_change=["evaluate"])
    assert run.metadata["resumed"][0]["step"] == 18
    assert last_step(run) >= 24


def test_a_death_after_the_last_step_is_made_good(start: Start, tmp_path: Path) -> None:
    """Killed when it had stopped and was not finished, the run is finished without another step."""
    with pytest.raises(Killed):
        start(display=DiesWhen(lambda one: "stopped after step 16" in one.get("text", "")))
    run = hfpipe.finetune(resume=tmp_path / "runs" / "one")
    whole = start(name="whole")
    assert run.metadata["resumed"][0]["step"] == 16
    assert [one for one in records(run) if "resumed" not in one] == records(whole)
    assert digest(run) == digest(whole)


def obedient(job: Any, emit: Callable[[dict[str, Any]], None]) -> None:
    """An engine of one's own that returns when it is told."""
    loop.train(job, emit)


def deaf(job: Any, emit: Callable[[dict[str, Any]], None]) -> None:
    """An engine of one's own that does not look."""

    def unheard(record: dict[str, Any]) -> None:
        emit(record)
        job.state.stops_early = False

    loop.train(job, unheard)


def test_an_engine_of_ones_own_is_told(start: Start) -> None:
    """`job.updates()` ends for it; one that makes a step more is refused, and the run can be finished."""
    whole = start(name="whole")
    assert digest(start(engine=obedient, name="obedient")) == digest(whole)
    with pytest.raises(
        RecipeError, match="made step 17 though training stopped after step 16: no better loss in 2"
    ) as told:
        start(engine=deaf, name="deaf")
    assert "makes no update beyond those of job.updates()" in str(told.value)
    run = hfpipe.Run(whole.path.parent / "deaf")
    assert (run.status, last_step(run)) == ("failed", 16)
    finished = hfpipe.finetune(resume=run, allow_change=["given"])
    assert digest(finished) == digest(whole)


def test_it_is_told_on_every_page(
    recipe_fields: dict[str, Any], tmp_path: Path, hfpipe_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command, its JSON, `runs show`, the report and the model card say that the run stopped early and why."""
    monkeypatch.undo()
    recipe = hfpipe.load_recipe(recipe_fields, EARLY)
    hfpipe.Run(tmp_path).write_text("tiny.yaml", hfpipe.recipe.to_yaml(recipe))
    command = ["finetune", tmp_path / "tiny.yaml", "--engine", "loop", "--runs-dir", tmp_path / "runs"]
    why = "stopped after step 16: no better loss in 2 evaluations"
    shown = hfpipe_command(*command, "--name", "shown")
    assert "\n16 of 36 steps in " in shown.out
    assert f"note: {why}" in shown.err
    found = hfpipe_command(*command, "--name", "found", "--json").json
    assert (found["steps"], found["stopped_early"]) == (16, {"step": 16, "of": 36, "why": why})
    assert f"notice   {why}" in hfpipe_command("runs", "show", tmp_path / "runs" / "shown").out
    page = (tmp_path / "runs" / "shown" / "report.html").read_text(encoding="utf-8")
    assert "16 of 36 steps" in page
    assert f"Training {why}." in page
    assert why in (tmp_path / "runs" / "shown" / "model" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["evaluate.best=null"], "evaluate: `patience` waits for a better `best`, and none is named; say best: loss"),
        (["evaluate.every=never"], "every: never has none; say every: epoch, or a number of steps"),
        (["dataset.splits.evaluation=null"], "counts evaluations, and `dataset.splits.evaluation` is null"),
        (["evaluate.patience=null", "evaluate.min_improvement=0.1"], "does nothing without `patience`"),
        (["evaluate.patience=0"], "evaluate.patience: "),
        (["evaluate.min_improvement=-0.1"], "evaluate.min_improvement: "),
    ],
)
def test_a_patience_that_waits_for_nothing_is_refused(start: Start, overrides: list[str], told: str) -> None:
    """Without a figure, an evaluation on the way or a split it would do nothing: exit code 2 before anything is read."""
    with pytest.raises(RecipeError) as caught:
        start(*overrides)
    assert told in str(caught.value)
