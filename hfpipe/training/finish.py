"""The end of a run: weights, metrics, the document of every split, the card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfpipe.errors import ModelError
from hfpipe.runs.records import NO_ITEM
from hfpipe.runs.store import Run
from hfpipe.system import manifest
from hfpipe.system.text import plural
from hfpipe.training.recorder import Recorder

if TYPE_CHECKING:
    from torch import nn

    from hfpipe.evaluation.document import SplitEvaluation
    from hfpipe.evaluation.inference import Predictions
    from hfpipe.training.job import Job


def finish(
    run: Run,
    job: Job,
    recorder: Recorder,
    final: dict[str, Any] | None,
    predictions: Mapping[str, Predictions],
    seconds: float,
) -> None:
    """Measure the final weights, which are in the run, and write what that gives.

    Args:
        run: where things go.
        job: with the final weights.
        recorder: of the training.
        final: the record of the evaluation of these weights.
        predictions: their outputs for every split that is measured or calibrated on.
        seconds: the time of the training alone.
    """
    from hfpipe.sharing.model_card import write_card

    job = _calibrated(run, job, predictions, recorder)
    measured = _evaluations(run, job, predictions)
    for text in _notices(run, job, measured):
        recorder({"type": "notice", "text": text})
    _write_results(run, job, recorder, measured, {"final": final, "seconds": seconds})
    write_card(run)
    run.update_metadata(model=manifest.digests(run.path / "model"))


def save_model(run: Run, job: Job) -> None:
    """Put the final weights into the run, before anything is measured.

    Raises:
        NumericError: they are not finite.
    """
    from hfpipe.parts.model.models import save_tokenizer
    from hfpipe.parts.model.own_class import require_finite
    from hfpipe.parts.model.own_class import save_model as save_weights

    # The loss of the last step was still a number; what that step made of the weights may be none.
    require_finite(job.model, "after the last step", "Try a smaller optimizer.lr.")
    with run.staged("model") as folder:
        save_weights(job.model, job.config, folder)
        save_tokenizer(job.tokenizer, folder)


def _notices(run: Run, job: Job, measured: Mapping[str, SplitEvaluation]) -> list[str]:
    """What a reader of the metrics should know."""
    split = job.recipe.dataset.splits.evaluation
    metrics = measured[split].metrics if split is not None and split in measured else {}
    undefined = [name for name, value in metrics.items() if value is None]
    verb = "is" if len(undefined) == 1 else "are"
    what = f"{', '.join(undefined)} {verb} undefined on this split, and so {verb} not reported as a number"
    notices = [what] if undefined else []
    empty = sum(record.get("skipped") == NO_ITEM for record in run.records)
    if empty:
        notices.append(f"{plural(empty, 'update')} had no label that counts, and changed nothing")
    of_splits = [f"{name}: {notice}" for name, one in measured.items() for notice in one.document["notices"]]
    return [*notices, *of_splits]


def _write_results(
    run: Run, job: Job, recorder: Recorder, measured: Mapping[str, SplitEvaluation], end: Mapping[str, Any]
) -> None:
    """Write `metrics.json`, the last record, the files of transformers' examples, and what `run.json` says at the end."""
    from hfpipe.training.transformers_files import write_transformers_files

    last, split, seconds = recorder.last_step, job.recipe.dataset.splits.evaluation, end["seconds"]
    assert last is not None
    main = None if split is None else measured.get(split)
    metrics = main.metrics if main else {}
    intervals = {key: main.document[key] if main else {} for key in ("intervals", "interval_methods", "no_interval")}
    examples = job.examples_by(last)
    summary = {
        "steps": last["step"],
        "epochs": last["epoch"],
        "trained_examples": examples,
        "seconds": seconds,
        "examples_per_second": examples / seconds,
        "evaluated_step": end["final"]["step"] if end["final"] else None,
        "padding_share": job.padding_share(),
    }
    rows = {
        "train": len(job.train_data),
        "evaluation": len(job.evaluation_rows) if job.evaluation_rows is not None else 0,
    }
    also = {name: one.metrics for name, one in measured.items() if name != split}
    run.write_json(
        "metrics.json",
        {"split": split, "metrics": metrics, **intervals, "examples": rows["evaluation"], **summary}
        | ({"also": also} if also else {})
        | ({"leak": main.document["leak"]} if main and main.document["leak"] else {}),
    )
    recorder({"type": "end", "status": "finished", "step": last["step"], "seconds": seconds})
    write_transformers_files(run, rows, {**summary, "metrics": metrics})
    missing = len(recorder.lines.waiting)
    if missing:
        text = f"records.jsonl is incomplete: the disk refused its last {missing:,} lines"
        recorder.show({"type": "notice", "text": text})
    early = {"step": last["step"], "of": recorder.timeline.num_steps, "why": recorder.why_stopped_early}
    run.update_metadata(
        rows=rows, records_missing=missing, stopped_early=early if recorder.stops_early else None, **_skipped_steps(job)
    )


def _skipped_steps(job: Job) -> dict[str, Any]:
    """How many steps were skipped, as `run.json` says it; `left_out` and `scaled_away` are their names before."""
    status = job.state.status
    if not (status.not_finite or status.skipped_by_scaler or status.without_items):
        return {}
    return {
        "skipped_steps": {
            "not_finite": status.not_finite,
            "by_scaler": status.skipped_by_scaler,
            **({"without_items": status.without_items} if status.without_items else {}),
        },
        "left_out": {"not_finite": status.not_finite, "scaled_away": status.skipped_by_scaler},
    }


def _calibrated(run: Run, job: Job, predictions: Mapping[str, Predictions], recorder: Recorder) -> Job:
    """The job with what the recipe asks for fitted on its calibration split, also in the config of its model on disk."""
    split = job.recipe.dataset.splits.calibration
    if split is None:
        return job
    from hfpipe.evaluation.document import fit
    from hfpipe.parts.tasks import calibrated

    found = fit(job.recipe, job.task, predictions[split], job.others[split][0], job.identity["dataset"]["configured"])
    found.write(job.config)
    job.config.save_pretrained(run.path / "model")
    recorder({"type": "notice", "text": f"fitted on {len(job.others[split][1]):,} rows of {split}: {found.as_text()}"})
    return replace(job, task=calibrated(job.task, found))


def _evaluations(run: Run, job: Job, predictions: Mapping[str, Predictions]) -> dict[str, SplitEvaluation]:
    """The evaluation of each split that is measured, in the order of the recipe; written into the run."""
    from hfpipe.evaluation.document import build_document
    from hfpipe.runs.evaluations import file_name, write_evaluation

    splits, found = job.recipe.dataset.splits, {}
    rows = dict(job.others)
    if splits.evaluation and job.evaluation_data is not None and job.evaluation_rows is not None:
        rows[splits.evaluation] = (job.evaluation_data, job.evaluation_rows)
    for split in dict.fromkeys(one for one in (splits.evaluation, *splits.also) if one and one in predictions):
        found[split] = build_document(
            job.recipe,
            job.task,
            job.metrics,
            predictions[split],
            *rows[split],
            target=run.id,
            split=split,
            dataset=job.identity["dataset"]["configured"],
            in_train=job.audit.in_train.get(split),
            places=job.places.get(split),
        )
        write_evaluation(run, file_name(split), found[split].document, found[split].examples)
    return found


def reload_best(model: nn.Module, folder: Path) -> None:
    """Put the weights of the best checkpoint into the model; raises ModelError where that is gone or damaged."""
    from hfpipe.parts.model.own_class import load_weights

    if not folder.is_dir():
        raise ModelError(
            f"the best checkpoint is gone from {folder}",
            fix="The last weights are not passed off as the best; train again.",
        )
    if (what := manifest.find_corruption(folder)) is not None:
        raise ModelError(f"the best checkpoint is damaged: {what}", where=str(folder), fix="Train again.")
    load_weights(model, folder)
