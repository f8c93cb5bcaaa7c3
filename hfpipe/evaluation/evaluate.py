"""evaluate: a run or a checkpoint measured on splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfpipe.errors import DataError, RecipeError
from hfpipe.recipe import Recipe, to_yaml, with_overrides
from hfpipe.recipe.source import Overrides, as_overrides
from hfpipe.runs.arguments import checked
from hfpipe.runs.given_parts import MEASURED_WITH, Given, excused_by, given_names, require_given, take_parts, with_held
from hfpipe.runs.store import Run
from hfpipe.runs.targets import (
    as_recipe,
    columns_of_file,
    quiet,
    reach_hub,
    require_effect,
    rows_of_file,
    with_checkpoint,
)
from hfpipe.system import snapshot
from hfpipe.system.display import NOTE, Display, as_display
from hfpipe.system.machine import translated_errors

if TYPE_CHECKING:
    from hfpipe.evaluation.document import SplitEvaluation


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured of one split.

    Attributes:
        target: what was measured, as it was named.
        split: the split or slice, or the name of the file.
        metrics: name to number, None where undefined.
        intervals: name to the [low, high] of a 95 % interval, None where there is none; `document` has the methods, and why
            there is none.
        baseline: what a constant prediction scores: `what` in words, and `metrics`; None where there is none.
        notices: what a reader of these metrics should know.
        examples: rows, each scored exactly once.
        examples_per_second: rows over the time of the forward passes.
        document: all of it and more: classes, confusion, calibration, slices; see docs/evaluation.md.
        also: the further splits, where several were asked for.
    """

    target: str
    split: str
    metrics: dict[str, float | None]
    intervals: dict[str, list[float] | None]
    baseline: dict[str, Any] | None
    notices: list[str]
    examples: int
    examples_per_second: float
    document: dict[str, Any] = field(repr=False)
    also: tuple[Evaluation, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        own = {key: value for key, value in self.document.items() if key not in ("format", "names")}
        return {**own, **({"also": [one.as_dict() for one in self.also]} if self.also else {})}


@checked
def evaluate(
    target: Run | str | Path,
    source: str | Path | None = None,
    *,
    text: str | Sequence[str] | None = None,
    label: str | Sequence[str] | None = None,
    choices: str | Sequence[str] | None = None,
    input_format: str | None = None,
    recipe: Recipe | str | Path | Mapping[str, Any] | None = None,
    overrides: Overrides = (),
    split: str | Sequence[str] | None = None,
    runs_dir: str | Path | None = None,
    display: Display | bool | None = None,
    **parts: Any,
) -> Evaluation:
    """Measure a run, a checkpoint folder or a checkpoint on the Hub.

    What is measured of a run is written to its `evaluations/`; nothing else in its folder is touched.

    Args:
        target: a run or its id or folder, a local checkpoint folder, or a Hub id.
        source: a csv, tsv, json, jsonl or parquet file with labels, to measure on it; by default the recipe's data.
        text: the columns of texts, where they are called otherwise than in the recipe.
        label: the column of labels, likewise; the classes stay those of the target.
        choices: the columns of the choices, likewise.
        input_format: of `source`, where its ending does not say it.
        recipe: data and task; by default the run's own. A checkpoint needs one.
        overrides: `dotted.path=value` each, or a mapping from paths to values.
        split: the split or slice, or several; `train` and `evaluation` mean those of the recipe. By default the
            evaluation split.
        runs_dir: where run ids are looked up.
        display: where progress goes: by default to a terminal or a notebook, and nowhere else; False for none.
        parts: objects in place of those of the recipe: `dataset`, `tokenizer`, `collate`, `model`, `loss`, `metrics`, as
            for :func:`hfpipe.prepare`. What a run was given from Python and can't be found by a name is passed again. A
            given model gets the trained weights.

    Returns:
        What was measured of the first split, with the others in `also`.

    Raises:
        HfpipeError: with the exit code that the command line would give.
    """
    overrides, display = as_overrides(overrides), as_display(display, lines=True)
    name = str(target.path if isinstance(target, Run) else target)
    if isinstance(target, Path):
        name = str(target.expanduser().absolute())  # a Path is a folder, never an id of the Hub
    excused = (*excused_by(recipe, overrides), *(() if source is None else ("dataset",)))
    given = take_parts(with_held(target, parts, MEASURED_WITH, excused), evaluate, MEASURED_WITH)
    run, base = with_checkpoint(target, name, recipe, overrides if source is None else (), runs_dir)
    if run is not None:
        require_given(run, given.keywords, MEASURED_WITH, excused=excused, call="hfpipe.evaluate(run, ...)")
    columns = columns_of_file(base, text, label, choices)
    file = None if source is None else _file(source, input_format, split)
    resolved = with_overrides(_on_file(base, file, columns, overrides, display), given.overrides)
    reach_hub(resolved, display)
    from hfpipe.evaluation.scoring import evaluate_checkpoint

    changes = [*_identity(file), *columns, *overrides, *_other_parts(run, given)]
    if recipe is not None:
        changes.insert(0, f"recipe {snapshot.digest_of_text(to_yaml(as_recipe(recipe, ())))}")
    splits = [split] if isinstance(split, str) or split is None else list(split)
    measured_of, named = run.id if run else name, file[0].name if file else None
    with quiet(), translated_errors():
        measured = evaluate_checkpoint(
            resolved,
            splits,
            display.notice,
            target=measured_of,
            overrides=changes,
            file=named,
            trained_on=base if file else None,
            parts=given.objects,
        )
    if run is not None:
        if recipe is None and file is None and (notice := _other_data(run, measured[0].document["dataset"], overrides)):
            display.notice(f"{NOTE}{notice}")
        _write(run, measured, changes, display)
    found = [_evaluation(name, one.document) for one in measured]
    return replace(found[0], also=tuple(found[1:]))


def _file(source: str | Path, input_format: str | None, split: object) -> tuple[Path, str]:
    """A file that is to be measured, and its format.

    Raises:
        RecipeError: a split of it, a format that has no labels, or no file at all.
        DataError: no such file.
    """
    from hfpipe.evaluation.prediction import chunks

    if not isinstance(source, str | Path):
        fix = "Rows in memory are data: dataset=datasets.Dataset.from_list(rows)."
        raise RecipeError(
            f"got a {type(source).__name__}", where="evaluate()", allowed="a file, as text or Path", fix=fix
        )
    path = Path(source)
    if split is not None:
        raise RecipeError("a file is measured whole", where="--split", fix="Leave --split out.")
    if str(path) == chunks.STANDARD_INPUT:
        raise RecipeError("standard input is not measured", where="INPUT", fix="Write it to a file.")
    form = chunks.format_of(str(path), input_format)
    if form == "text":
        fix = "Give a csv, tsv, json, jsonl or parquet file; a word a line with its tag is --input-format conll."
        raise RecipeError("a line of text has no label", where="INPUT", fix=fix)
    if not path.expanduser().is_file():
        raise DataError(f"no file {str(path)!r} (from {Path.cwd()})", where="INPUT")
    return path.expanduser(), form


def _identity(file: tuple[Path, str] | None) -> list[str]:
    """What stands for a file among what was changed: its name and its content, not where it lies."""
    return [] if file is None else [f"INPUT {file[0].name} {snapshot.digest_of_file(file[0])[:16]}"]


def _on_file(
    base: Recipe, file: tuple[Path, str] | None, columns: Sequence[str], overrides: Sequence[str], display: Display
) -> Recipe:
    """The recipe with the rows of a file, if there is one, instead of its data, and with other columns."""
    if file is None:
        return with_overrides(base, columns, "--text, --label, --choices") if columns else base
    changes = [*rows_of_file(base, file[1], file[0]), *columns]
    if base.loss.counts_classes:
        changes.append("loss.class_weights=null")
        display.notice(f"{NOTE}the loss on {file[0].name} is without class weights: those are of the training rows")
    resolved = with_overrides(with_overrides(base, changes, "INPUT"), overrides)
    require_effect(overrides)
    return resolved


def _other_data(run: Run, dataset: str, overrides: Sequence[str]) -> str:
    """Say that the files of a run's data are not what they were when it was trained, where nobody asked for others."""
    about = run.metadata
    trained = ((about.get("identity") or {}).get("dataset") or {}).get("configured")
    asked = any(change.startswith(("dataset", "seed")) for change in overrides)
    if asked or "places" not in about or trained in (None, dataset):
        return ""
    return "the data are not what the run was trained with: their content is another"


def _other_parts(run: Run | None, given: Given) -> list[str]:
    """What is measured with other parts than the run was trained with, as overrides say it."""
    if run is None:
        return [*given.overrides, *(f"{key}={name}" for key, name in given.names.items())]
    known, own = given_names(run), run.recipe
    named = [one for one in given.overrides if with_overrides(own, [one]) != own]
    return [
        *named,
        *(f"{key}={name}" for key, name in given.names.items() if known.get(key) != name and key != "model"),
    ]


def _evaluation(target: str, document: dict[str, Any]) -> Evaluation:
    shared = ("split", "metrics", "intervals", "baseline", "notices", "examples", "examples_per_second")
    return Evaluation(target=target, document={**document, "target": target}, **{key: document[key] for key in shared})


def _write(run: Run, measured: Sequence[SplitEvaluation], changes: Sequence[str], display: Display) -> None:
    """Write what was measured into the run; a folder that can't be written costs no metric."""
    from accelerate import PartialState

    from hfpipe.runs.evaluations import file_name, write_evaluation

    if not PartialState().is_main_process:
        return
    try:
        for one in measured:
            write_evaluation(run, file_name(one.document["split"], changes), one.document, one.examples)
    except OSError as error:
        display.notice(
            f"{NOTE}the metrics could not be written to {run.path / 'evaluations'}: {error.strerror or error}"
        )
