"""An evaluation that fails costs no training: the step before it is saved, and a resume evaluates first and goes on exactly."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stopped import digest, records

import hfpipe
from hfpipe.errors import HfpipeError, MachineError, RecipeError
from hfpipe.runs.checkpoints import list_checkpoints
from hfpipe.training import job as job_module

ENGINES = ("trainer", "loop")
PLATEAU = "schedule={name: reduce_lr_on_plateau, patience: 0, threshold: 0.5}"

pytestmark = pytest.mark.usefixtures("no_report")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Exception], None]:
    """Lets the evaluation of this number, from 1, fail with an error once its predictions are made."""

    def fail(number: int, error: Exception) -> None:
        real, calls = job_module.compute_metrics, itertools.count(1)

        def compute_metrics(*arguments: Any) -> Any:
            score = real(*arguments)

            def scored(prediction: Any) -> Any:
                if next(calls) == number:
                    raise error
                return score(prediction)

            return scored

        monkeypatch.setattr(job_module, "compute_metrics", compute_metrics)

    return fail


# What is trained, which evaluation fails, and after which step that is: 6 steps an epoch, the last batch of it ragged.
CASES: dict[str, tuple[list[str], int, int]] = {
    "epoch": (["checkpoints.every=never", "checkpoints.keep_best=false"], 1, 6),
    "last": (["checkpoints.every=never", "checkpoints.keep_best=false"], 2, 12),
    "mid-epoch": (["evaluate.every=4", "evaluate.best=accuracy", "optimizer.lr=0.03"], 2, 8),
    "plateau": ([PLATEAU, "evaluate.every=4", "optimizer={name: sgd, momentum: 0.9, lr: 0.01}"], 2, 8),
    "patience": (["evaluate.every=2", "evaluate.best=loss", "evaluate.patience=2", "optimizer.lr=0.03"], 2, 4),
    "at the end": (["evaluate.every=never", "evaluate.best=null", "checkpoints.every=never"], 1, 12),
}


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_lost(
    case: str,
    recipe_fields: dict[str, Any],
    tmp_path: Path,
    failing: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error says where the step is and how to go on; either engine goes on from there to the weights of the whole run."""
    overrides, number, step = CASES[case]
    whole = hfpipe.finetune(recipe_fields, overrides=overrides, engine="loop", runs_dir=tmp_path, name="whole")
    for engine in ENGINES:
        with monkeypatch.context() as patch:
            patch.setattr(job_module, "compute_metrics", job_module.compute_metrics)
            failing(number, RecipeError("the metric is out of order", where="metric 'm'"))
            with pytest.raises(RecipeError, match="the metric is out of order") as caught:
                hfpipe.finetune(recipe_fields, overrides=overrides, engine=engine, runs_dir=tmp_path, name=engine)
        run = hfpipe.Run(tmp_path / engine)
        assert run.status == "failed"
        newest = list_checkpoints(run.path)[-1]
        assert (newest.step, newest.progress["unmeasured"]) == (step, True)
        told = f"Step {step} is saved with its weights in {newest.path}; `hfpipe finetune --resume {run.path}` goes on"
        assert told in str(caught.value)
        assert told in run.metadata["error"]
        monkeypatch.undo()
        monkeypatch.setattr("hfpipe.reports.write_report", lambda run: None)
        resumed = hfpipe.finetune(resume=run, engine=next(other for other in ENGINES if other != engine))
        assert resumed.status == "finished"
        assert digest(resumed) == digest(whole)
        assert records(resumed) == records(whole)
        assert resumed.metrics == whole.metrics


def test_a_failure_that_is_none_of_hfpipes_is_told_beside_it(
    recipe_fields: dict[str, Any], tmp_path: Path, failing: Callable[..., None]
) -> None:
    """A full disk while an evaluation writes is told with the step that is saved; beside a bug a line says so."""
    from hfpipe.system.display import Silent

    class Listening(Silent):
        said: list[str] = []  # noqa: RUF012 - one display in this test

        def notice(self, text: str) -> None:
            self.said.append(text)

    failing(1, OSError(28, "No space left on device"))
    with pytest.raises(MachineError, match=r"the disk is full.*Step 6 is saved with its weights in"):
        hfpipe.finetune(recipe_fields, runs_dir=tmp_path, name="full")
    failing(2, KeyError("a bug"))
    with pytest.raises(KeyError, match="a bug"):
        hfpipe.finetune(recipe_fields, runs_dir=tmp_path, name="bug", display=Listening())
    assert any("Step 12 is saved with its weights in" in text for text in Listening.said)
    for name, step in (("full", 6), ("bug", 12)):
        assert list_checkpoints(tmp_path / name)[-1].step == step
        assert hfpipe.finetune(resume=tmp_path / name).status == "finished"


def test_where_it_can_not_be_saved_the_first_error_stands(
    recipe_fields: dict[str, Any], tmp_path: Path, failing: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went wrong first is what is told, with what kept the step from being saved."""
    failing(1, RecipeError("the metric is out of order"))
    monkeypatch.setattr(
        "hfpipe.runs.checkpoints.commit", lambda *args, **kwargs: (_ for _ in ()).throw(OSError(28, "full"))
    )
    with pytest.raises(RecipeError, match=r"out of order.*Step 6 could not be saved: .*full"):
        hfpipe.finetune(recipe_fields, runs_dir=tmp_path, name="both")


def test_the_final_weights_are_there_before_they_are_measured(
    recipe_fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Intervals that can't be computed at the end leave model/ as it will be, and a resume measures it."""
    whole = hfpipe.finetune(recipe_fields, runs_dir=tmp_path, name="whole")
    with monkeypatch.context() as patch:
        patch.setattr("hfpipe.evaluation.document.build_document", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            hfpipe.finetune(recipe_fields, runs_dir=tmp_path, name="one")
    run = hfpipe.Run(tmp_path / "one")
    assert run.status == "failed"
    assert digest(run) == digest(whole)
    resumed = hfpipe.finetune(resume=run)
    assert resumed.metrics == whole.metrics
    assert digest(resumed) == digest(whole)


def test_two_processes_save_what_both_need(recipe_fields: dict[str, Any], tmp_path: Path) -> None:
    """The random states of all processes are in what one of them writes."""
    from hfpipe.recipe import load_recipe
    from hfpipe.training import checkpoint_state, resume
    from hfpipe.training.prepare import prepare

    job = prepare(load_recipe(recipe_fields))
    states = [checkpoint_state.random_state(), checkpoint_state.random_state()]
    (tmp_path / "saved").mkdir()
    resume.saver(job, states)(tmp_path / "saved")
    assert checkpoint_state.read_json(tmp_path / "saved" / "random.json") == states


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("trainer.fsdp=full_shard", "every process holds the whole model"),
        ("trainer.deepspeed=zero.json", "every process holds the whole model"),
        ("trainer.hub_strategy=sometimes", "Trainer refused its options: sometimes is not a valid HubStrategy"),
        ("trainer.use_liger_kernel=true", "Trainer refused its options: .*liger"),
    ],
)
def test_what_trainer_refuses_is_refused_before_anything_is_loaded(
    option: str, told: str, recipe_fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one second, and not after the data and the weights are there; without the option the engine is as it was."""
    monkeypatch.setattr("hfpipe.training.prepare.read_rows", lambda *args, **kwargs: pytest.fail("data were read"))
    with pytest.raises(HfpipeError, match=told):
        hfpipe.finetune(recipe_fields, overrides=[option], runs_dir=tmp_path, name="refused")
    assert not (tmp_path / "refused").exists()
