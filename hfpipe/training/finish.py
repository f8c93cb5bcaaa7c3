"""The end of a run: weights, figures, what is said of every split, the card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hfpipe.errors import ModelError
from hfpipe.runs.checkpoints import find_corruption
from hfpipe.runs.store import Run
from hfpipe.system import snapshot
from hfpipe.training.recorder import Recorder


def finish(
    run: Run,
    job: Any,
    recorder: Recorder,
    final: dict[str, Any] | None,
    predicted: dict[str, Any],
    seconds: float,
    save: Callable[[Path], None],
) -> None:
    """Put the final weights and figures into the run.

    Args:
        run: where things go.
        job: with the final weights.
        recorder: of the training.
        final: the record of the evaluation of these weights.
        predicted: what they say of every split that is measured or calibrated on.
        seconds: the time of the training alone.
        save: writes model and tokenizer into a folder.
    """
    from hfpipe.sharing.model_card import write_card
    from hfpipe.training.resume import require_finite
    from hfpipe.training.transformers_files import write_transformers_files

    recipe, last = job.recipe, recorder.last_step
    assert last is not None
    # The loss of the last step was still a number; what that step made of the weights may be none.
    require_finite(job.model, "after the last step", "Try a smaller optimizer.lr.")
    _calibrate(job, predicted, recorder)
    measured = _measured(run, job, predicted)
    with run.staged("model") as model_folder:
        save(model_folder)
    examples = job.examples_by(last["step"])
    split = recipe.dataset.splits.evaluation
    metrics = measured[split].metrics if split in measured else {}
    undefined = [key for key, value in metrics.items() if value is None]
    if undefined:
        verb = "is" if len(undefined) == 1 else "are"
        told = f"{', '.join(undefined)} {verb} undefined on this split, and so {verb} not reported as a number"
        recorder({"type": "notice", "text": told})
    for name, one in measured.items():
        for remark in one.document["remarks"]:
            recorder({"type": "notice", "text": f"{name}: {remark}"})
    summary = {
        "steps": last["step"],
        "epochs": last["epoch"],
        "trained_examples": examples,
        "seconds": seconds,
        "examples_per_second": examples / seconds,
        "evaluated_step": final["step"] if final else None,
        "padding_share": job.padding_share(),
    }
    rows = {
        "train": len(job.train_data),
        "evaluation": len(job.evaluation_rows) if job.evaluation_rows is not None else 0,
    }
    also = {name: one.metrics for name, one in measured.items() if name != split}
    intervals = measured[split].document["intervals"] if split in measured else {}
    run.write_json(
        "metrics.json",
        {"split": split, "metrics": metrics, "intervals": intervals, "examples": rows["evaluation"], **summary}
        | ({"also": also} if also else {}),
    )
    recorder({"type": "end", "status": "finished", "step": last["step"], "seconds": seconds})
    write_transformers_files(run, rows, {**summary, "metrics": metrics})
    missing = len(recorder.lines.waiting)
    if missing:
        recorder.show(
            {"type": "notice", "text": f"records.jsonl is incomplete: the disk refused its last {missing:,} lines"}
        )
    if job.status.not_finite or job.status.skipped_by_scaler:
        run.update_metadata(
            left_out={"not_finite": job.status.not_finite, "skipped_by_scaler": job.status.skipped_by_scaler}
        )
    early = {"step": last["step"], "of": recorder.num_steps, "why": recorder.told_early}
    run.update_metadata(rows=rows, records_missing=missing, stopped_early=early if recorder.stops_early else None)
    write_card(run)
    run.update_metadata(model=snapshot.digests(run.path / "model"))


def _calibrate(job: Any, predicted: dict[str, Any], recorder: Recorder) -> None:
    """Fit what the recipe asks for on its calibration split, for the task of the job and in the config of its model."""
    split = job.recipe.dataset.splits.calibration
    if split is None:
        return
    from hfpipe.evaluation.document import fit
    from hfpipe.parts.tasks import calibrated

    found = fit(job.recipe, job.task, predicted[split], job.others[split][0], job.identity["dataset"]["configured"])
    job.task = calibrated(job.task, found)
    found.write(job.model.config)
    recorder({"type": "notice", "text": f"fitted on {len(job.others[split][1]):,} rows of {split}: {found.told()}"})


def _measured(run: Run, job: Any, predicted: dict[str, Any]) -> dict[str, Any]:
    """What is said of each split that is measured, in the order of the recipe; written into the run."""
    from hfpipe.evaluation.document import build_document
    from hfpipe.runs.evaluations import file_name, write_evaluation

    splits, found = job.recipe.dataset.splits, {}
    rows = {splits.evaluation: (job.evaluation_data, job.evaluation_rows), **job.others}
    for split in dict.fromkeys(one for one in (splits.evaluation, *splits.also) if one in predicted):
        found[split] = build_document(
            job.recipe,
            job.task,
            job.metrics,
            predicted[split],
            *rows[split],
            target=run.id,
            split=split,
            dataset=job.identity["dataset"]["configured"],
        )
        write_evaluation(run, file_name(split), found[split].document, found[split].examples)
    return found


def reload_best(model: Any, folder: Path) -> None:
    """Put the weights of the best checkpoint into the model; raises ModelError where that is gone or damaged."""
    from hfpipe.training.resume import load_weights

    if not folder.is_dir():
        raise ModelError(
            f"the best checkpoint is gone from {folder}",
            fix="The last weights are not passed off as the best; train again.",
        )
    if (what := find_corruption(folder)) is not None:
        raise ModelError(f"the best checkpoint is damaged: {what}", where=str(folder), fix="Train again.")
    load_weights(model, folder)
