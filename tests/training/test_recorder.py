"""What follows from records: lines, checkpoints, their rotation, and which one is the best."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hfpipe.errors import RecipeError
from hfpipe.recipe import load_recipe
from hfpipe.runs import Run
from hfpipe.training.recorder import Recorder
from hfpipe.training.timeline import Timeline

STEPS = 6  # of the whole run, two an epoch


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Recorder]:
    """Feeds a recorder the records of a run with these scores: `train({2: 0.5}, checkpoints={...})`."""

    def run_through(
        scores: dict[int, float | None], *, greater: bool = True, steps: int = STEPS, **sections: Any
    ) -> Recorder:
        evaluate = {"best": "score", "greater_is_better": greater, **sections.pop("evaluate", {})}
        least = {"dataset": {"path": "./d"}, "task": {"text": "s"}, "model": {"checkpoint": "./m"}}
        recipe = load_recipe({**least, "evaluate": evaluate, **sections})
        shown: list[dict[str, Any]] = []

        def save(folder: Path) -> None:
            (folder / "weights").write_text(str(step))

        recorder = Recorder(
            Run.create(recipe, tmp_path),
            recipe,
            timeline=Timeline(STEPS, steps_per_epoch=2, evaluate_every=recipe.evaluate.every if scores else "never"),
            greater_is_better=greater,
            save=save,
            show=shown.append,
        )
        for step in range(1, steps + 1):
            recorder({"type": "step", "step": step, "loss": 1.0})
            if step in scores:
                recorder({"type": "evaluation", "step": step, "metrics": {"score": scores[step]}, "seconds": 0.0})
        assert [record["type"] for record in shown] == [record["type"] for record in recorder.run.records]
        return recorder

    return run_through


def test_another_figure_is_followed_from_here_on(train: Callable[..., Recorder]) -> None:
    """Where the best so far lacks the figure that is followed now, or had no number for it, the next number is the best."""
    for before in ({"other": 0.9}, {"score": None}):
        recorder = train({2: 0.5}, steps=2)
        recorder.best = {"step": 1, "metrics": before}
        recorder({"type": "step", "step": 3, "loss": 1.0})
        recorder({"type": "evaluation", "step": 3, "metrics": {"score": 0.1}, "seconds": 0.0})
        assert recorder.best["step"] == 3
        shutil.rmtree(recorder.run.path)


def kept(recorder: Recorder) -> list[int]:
    """The steps whose checkpoints are there, each holding the weights of its own step."""
    folders = sorted((recorder.run.path / "checkpoints").glob("*"))
    steps = [int(folder.name.removeprefix("step-")) for folder in folders]
    assert [int((folder / "weights").read_text()) for folder in folders] == steps
    assert all(Run(folder).read_json("checkpoint.json")["num_steps"] == STEPS for folder in folders)
    return steps


@pytest.mark.parametrize(
    ("scores", "checkpoints", "expected", "best"),
    [
        ({2: 0.1, 4: 0.2, 6: 0.3}, {}, [4, 6], 6),
        ({2: 0.3, 4: 0.2, 6: 0.1}, {}, [2, 4, 6], 2),
        ({2: 0.3, 4: 0.2, 6: 0.1}, {"keep_best": False}, [4, 6], 2),
        ({2: 0.3, 4: 0.2, 6: 0.1}, {"keep_last": 1}, [2, 6], 2),
        ({2: 0.1, 4: 0.3, 6: 0.1}, {"keep_last": 1}, [4, 6], 4),
        ({2: 0.1, 4: 0.2, 6: 0.3}, {"keep_last": 1}, [6], 6),
        ({2: 0.3, 4: 0.3, 6: 0.3}, {"keep_last": 1}, [2, 6], 2),
        ({2: 0.1, 4: 0.3, 6: 0.2}, {"every": "never"}, [2, 4], 4),
        ({2: 0.1, 4: 0.3, 6: 0.2}, {"every": "never", "keep_last": 1}, [4], 4),
        ({2: 0.1, 4: 0.3, 6: 0.2}, {"every": "never", "keep_best": False}, [], 4),
        ({2: 0.1, 4: 0.3, 6: 0.2}, {"every": "never", "every_steps": 3, "keep_last": 9}, [2, 3, 4, 6], 4),
        ({2: None, 4: 0.3, 6: None}, {"keep_last": 1}, [4, 6], 4),
        ({2: float("nan"), 4: 0.3, 6: float("inf")}, {"keep_last": 1}, [4, 6], 4),
        ({2: None, 4: None, 6: None}, {"keep_last": 1}, [6], None),
    ],
)
def test_the_newest_and_the_best_are_kept(
    train: Callable[..., Recorder], scores: Any, checkpoints: Any, expected: list[int], best: int | None
) -> None:
    """`keep_last` counts the newest checkpoints, the best one stays beside them, and no other does."""
    recorder = train(scores, checkpoints=checkpoints)
    assert kept(recorder) == expected
    assert (recorder.best["step"] if recorder.best else None) == best


def test_a_smaller_figure_can_be_the_best(train: Callable[..., Recorder]) -> None:
    """With greater_is_better false the least value wins."""
    assert train({2: 0.3, 4: 0.1, 6: 0.2}, greater=False).best["step"] == 4


@pytest.mark.parametrize(
    ("scores", "evaluate", "stops"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], {"patience": 1}, None),
        ([0.3, 0.2, 0.1], {"patience": 2}, 3),
        ([0.3, 0.3, 0.3], {"patience": 2}, 3),  # a tie is no improvement
        ([0.3, None, float("nan")], {"patience": 2}, 3),  # nor is what is no number
        ([None, None], {"patience": 2}, 2),
        ([None, 0.1, None, 0.2, 0.1, 0.1], {"patience": 2}, None),  # at the last step there is nothing left to stop
        ([0.3, 0.2, 0.4, 0.3, 0.2], {"patience": 2}, 5),  # an improvement begins the count anew
        (
            [0.1, 0.15, 0.2, 0.25],
            {"patience": 3, "min_improvement": 0.1},
            4,
        ),  # each over the best before, however small
        ([0.1, 0.3, 0.35, 0.5], {"patience": 2, "min_improvement": 0.1}, None),
        ([0.5, 0.75, 0.6], {"patience": 1, "min_improvement": 0.25}, 2),  # exactly as much is not more
        ([3.0, 2.0, 1.0, 0.5, 0.6], {"patience": 1, "greater_is_better": False}, 5),
        ([0.3, 0.2, 0.1, 0.1, 0.1, 0.1], {}, None),
    ],
)
def test_patience_counts_what_is_no_improvement(
    train: Callable[..., Recorder], scores: list[float | None], evaluate: dict[str, Any], stops: int | None
) -> None:
    """After so many evaluations in a row that did not improve the best figure there are to be no more steps."""
    greater = evaluate.pop("greater_is_better", True)
    every = {"evaluate": {"every": 1, **evaluate}, "greater": greater}
    if stops is None:
        assert not train(dict(enumerate(scores, start=1)), **every).stops_early
        return
    recorder = train(dict(enumerate(scores[:stops], start=1)), steps=stops, **every)
    assert recorder.stops_early
    assert recorder.why_stopped_early.startswith(f"stopped after step {stops}: no ")
    with pytest.raises(
        RecipeError, match=f"the engine made step {stops + 1} though training stopped after step {stops}"
    ):
        recorder({"type": "step", "step": stops + 1, "loss": 1.0})
    if stops > 1:
        fewer = train(dict(enumerate(scores[: stops - 1], start=1)), steps=stops - 1, **every)
        assert not fewer.stops_early


def test_where_it_stops_early_is_an_end(train: Callable[..., Recorder]) -> None:
    """The step is saved as the last one would be, also inside an epoch, and says how long nothing was better."""
    recorder = train({1: 0.3, 2: 0.2, 3: 0.1}, steps=3, evaluate={"every": 1, "patience": 2})
    assert kept(recorder) == [1, 2, 3]
    folder = Run(recorder.run.path / "checkpoints" / "step-00000003")
    assert folder.read_json("checkpoint.json")["unimproved"] == 2
    assert recorder.best_folder == recorder.run.path / "checkpoints" / "step-00000001"


def test_the_best_weights_and_figures_are_those_of_the_end(train: Callable[..., Recorder]) -> None:
    """The folder to restore is that of the best step, unless it is the last; the final figures belong to it."""
    early = train({2: 0.3, 4: 0.2, 6: 0.1})
    assert early.best_folder == early.run.path / "checkpoints" / "step-00000002"
    assert early.final_evaluation["step"] == 2
    late = train({2: 0.1, 6: 0.3})
    assert late.best_folder is None
    assert late.final_evaluation["step"] == 6
    last = train({2: 0.3, 6: 0.1}, checkpoints={"keep_best": False})
    assert last.best_folder is None
    assert last.final_evaluation["step"] == 6


def test_figures_of_other_weights_are_not_the_final_ones(train: Callable[..., Recorder]) -> None:
    """An evaluation before the last step says nothing about the last weights."""
    assert train({2: 0.3}, checkpoints={"keep_best": False}, evaluate={"every": 2}).final_evaluation is None


def test_without_an_evaluation_split_every_epoch_is_saved(train: Callable[..., Recorder]) -> None:
    """Nothing waits for an evaluation that never comes."""
    recorder = train({}, checkpoints={"keep_last": 3})
    assert kept(recorder) == [2, 4, 6]
    assert recorder.best_folder is None


def test_every_record_is_written_down(train: Callable[..., Recorder]) -> None:
    """One line a record, in order."""
    records = train({2: 0.1, 6: 0.2}).run.records
    assert [(record["type"], record["step"]) for record in records] == [
        ("step", 1),
        ("step", 2),
        ("evaluation", 2),
        ("step", 3),
        ("step", 4),
        ("step", 5),
        ("step", 6),
        ("evaluation", 6),
    ]


def test_evaluating_and_saving_are_no_training_time(train: Callable[..., Recorder]) -> None:
    """The seconds of training leave out those of evaluation."""
    recorder = train({2: 0.1})
    before = recorder.training_seconds
    recorder({"type": "evaluation", "step": 6, "metrics": {"score": 0.0}, "seconds": 1_000.0})
    assert recorder.training_seconds < before - 900


def test_what_lies_between_a_step_and_its_evaluation_is_no_training(
    train: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A metric that takes ten seconds, or an engine that does something around it, is left out of the seconds of training."""
    recorder = train({2: 0.5, 4: 0.5}, steps=2, checkpoints={"every": "never", "keep_best": False})
    clock = [100.0]
    monkeypatch.setattr("hfpipe.training.recorder.time.perf_counter", lambda: clock[0])
    recorder.started = recorder.stepped_at = 100.0
    recorder.seconds_aside = recorder.seconds_before = 0.0
    for seconds, record in (
        (1.0, {"type": "step", "step": 3, "loss": 1.0}),
        (1.0, {"type": "step", "step": 4, "loss": 1.0}),
        (10.0, {"type": "evaluation", "step": 4, "metrics": {"score": 0.5}, "seconds": 9.0}),
        (1.0, {"type": "step", "step": 5, "loss": 1.0}),
    ):
        clock[0] += seconds
        recorder(record)
    assert recorder.training_seconds == 3.0
    recorder({"type": "evaluation", "step": 5, "metrics": {"score": 0.5}, "seconds": 2.0})  # of an engine of one's own
    assert recorder.training_seconds == 1.0
