"""A finished run as a folder for `from_pretrained` or upload, with nothing of this machine in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfpipe.errors import ModelError, RecipeError
from hfpipe.recipe import Recipe, to_yaml
from hfpipe.runs import Run, default_folder, find_run
from hfpipe.runs.given_parts import require_given
from hfpipe.runs.model_files import model_folder, require_own_files
from hfpipe.sharing.model_card import own_class_of
from hfpipe.system import atomic, library_logs
from hfpipe.system.display import NOTE, Display, Silent
from hfpipe.system.machine import translated_errors
from hfpipe.system.redaction import last_part, shorten_folders
from hfpipe.system.text import one_line

_TEXTS = (".json", ".md", ".txt", ".jinja")


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        run: the folder of the run.
        folder: the folder that was written.
        files: the names in it.
        notices: what a user should know.
    """

    run: str
    folder: str
    files: list[str]
    notices: list[str]


def export(
    target: Run | str | Path,
    to: str | Path,
    *,
    runs_dir: str | Path | None = None,
    display: Display | None = None,
    model: Any = None,
) -> Export:
    """Write the model of a run, its card, `recipe.yaml` and `metrics.json` into a new folder, and load it once.

    Args:
        target: a run, or its id or folder.
        to: a folder that is not there yet, or is empty; it appears whole or not at all.
        runs_dir: where a run id is looked up.
        display: gets the notices; by default they are only in the result.
        model: an object of the class that was trained, where that can't be found; what is exported is loaded into it once.

    Raises:
        RecipeError: `to` is taken, or the model was given from Python and is not given now.
        ModelError: the run is not finished, or its model is gone, was changed after the run, or can't be loaded.
        MachineError: it can't be written.
    """
    display = display or Silent()
    run = target if isinstance(target, Run) else find_run(str(target), Path(runs_dir) if runs_dir else default_folder())
    if run.status != "finished":
        raise ModelError(f"run {run.id!r} is {run.status} and has no finished model", fix="Train it to its end.")
    folder = Path(to).expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "is not empty" if folder.is_dir() else "is a file"
        raise RecipeError(f"{what}", where=str(folder), fix="Name a new or an empty folder.")
    require_given(run, () if model is None else ("model",), ("model",), call="export(run, folder, ...)")
    source = model_folder(run)
    require_own_files(run, source)
    with translated_errors(), atomic.replaced_folder(folder) as staging:
        notices = _fill(staging, run, source)
        display.notice("loading it once")
        _require_whole(staging, run.recipe, model)
    if trained_as := own_class_of(run.read_json("model/config.json") or {}):
        notices.append(
            f"the model is a {trained_as}, whose code is not exported: whoever loads the folder needs it, and transformers' "
            "Auto classes load another model"
        )
    for notice in notices:
        display.notice(f"{NOTE}{notice}")
    names = sorted(path.name for path in folder.iterdir())
    return Export(str(run.path), str(folder), names, notices)


def _fill(folder: Path, run: Run, source: Path) -> list[str]:
    """Copy what is exported, without the paths of this machine, and return what was changed, in sentences."""
    recipe, notices = _portable(run.recipe)
    for file in sorted(source.iterdir()):
        if file.is_file() and not file.is_symlink():
            shutil.copyfile(file, folder / file.name)
    (folder / "recipe.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    Run(folder).write_json("metrics.json", run.read_json("metrics.json") or {})
    folders = [str(run.path), str(run.path.parent.resolve())]
    folders += [path for _, _, path in _local_paths(run.recipe.model_dump(mode="json"))]
    for file in sorted(folder.iterdir()):
        # A vocabulary may hold what looks like a path, and no place of this machine.
        if file.suffix not in _TEXTS or file.name.startswith(("tokenizer.json", "vocab", "merges", "special_tokens")):
            continue
        text = file.read_text(encoding="utf-8")
        without = shorten_folders(text, folders)
        if without != text:
            file.write_text(without, encoding="utf-8")
            notices.append(f"{file.name}: a path of this machine was shortened to its last part")
    return notices


def _portable(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """The recipe with its local paths shortened to `./NAME`, and a sentence about each."""
    fields = recipe.model_dump(mode="json")
    notices = []
    for place, key, value in _local_paths(fields):
        name = "dataset.data_files" if key not in ("path", "checkpoint") else f"{_SECTIONS[key]}.{key}"
        place[key] = f"./{last_part(value)}"
        notices.append(
            f"recipe.yaml: {name} is a path of this machine, {value}; exported as {place[key]}, which whoever trains from it "
            "has to put there or change"
        )
    return Recipe.model_validate(fields), notices  # not `load_recipe`: its paths start from where it will lie


_SECTIONS = {"path": "dataset", "checkpoint": "model"}


def _local_paths(fields: dict[str, Any]) -> Iterator[tuple[Any, Any, str]]:
    """Every local path of a recipe that says where on this machine something lies, as container, key and value."""
    places: list[tuple[Any, Any]] = [(fields["dataset"], "path"), (fields["model"], "checkpoint")]
    files = fields["dataset"]["data_files"]
    if isinstance(files, str):
        places.append((fields["dataset"], "data_files"))
    elif isinstance(files, list):
        places += [(files, index) for index in range(len(files))]
    elif isinstance(files, dict):
        for split, found in files.items():
            places += [(files, split)] if isinstance(found, str) else [(found, index) for index in range(len(found))]
    for place, key in places:
        if place[key].startswith(("/", "~", "../")):
            yield place, key, place[key]


def _require_whole(folder: Path, recipe: Recipe, model: Any) -> None:
    """Load model and tokenizer as whoever gets the folder will.

    Raises:
        ModelError: one of them can't be loaded, or weights are missing.
    """
    with library_logs.library_logs_to(Path(os.devnull)):
        import transformers

        from hfpipe.parts.model.models import load_again

        try:
            transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            if model is not None or own_class_of(Run(folder).read_json("config.json") or {}):
                load_again(recipe, folder, model)
                return
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
            kind = getattr(transformers, config.architectures[0])
            _, found = kind.from_pretrained(folder, output_loading_info=True)
        except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
            what = f"what would be exported can't be loaded: {one_line(error, 400)}"
            raise ModelError(what, fix="Train the run again.") from error
    missing = [*found["missing_keys"], *found["mismatched_keys"]]
    if missing:
        raise ModelError(
            f"what would be exported lacks {len(missing)} weights, such as {missing[0]}", fix="Train the run again."
        )
