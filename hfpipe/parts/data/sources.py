"""Where raw data come from: the Hub or its cache, a local folder, or files."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from pyarrow.dataset import ParquetFragmentScanOptions

from hfpipe.errors import DataError, RecipeError
from hfpipe.parts.data import urls
from hfpipe.parts.data.formats import columnar, compressed
from hfpipe.parts.data.formats import files as text_files
from hfpipe.parts.data.formats.layout import SUFFIXES, Layout
from hfpipe.parts.data.untrusted import (
    Downloads,
    data_files,
    refuse_archive,
    refuse_named_outside,
    refuse_outside,
    streamable,
)
from hfpipe.recipe.catalog import near
from hfpipe.recipe.schema import HELD_OUT, Recipe
from hfpipe.system import hub
from hfpipe.system.redaction import relative
from hfpipe.system.snapshot import digest_of_files, digest_of_text
from hfpipe.system.text import one_line

FORMATS = (*text_files.FORMATS, "parquet", "arrow")
_SUFFIXES = {**SUFFIXES, ".parquet": "parquet", ".arrow": "arrow"}
_ASIDE = "Where there is none, `dataset.splits.hold_out=0.1` sets training rows aside."


@dataclass(frozen=True)
class RawData:
    """An opened data set whose splits can be read.

    `digest` changes whenever the data do: the commit on the Hub, or the SHA-256 of the files, and which of them are held
    out. `notices` are what a user should know about how they were read. `whole` is the training split before rows were held
    out of it: its rows have the numbers that a user knows. `places` are where the rows of a split stand in files with lines.
    """

    name: str
    digest: str
    commit: str | None
    splits: Mapping[str, datasets.Dataset]
    notices: tuple[str, ...] = ()
    whole: datasets.Dataset | None = None
    places: Mapping[str, text_files.Places] = field(default_factory=dict)

    def places_of(self, expression: str, where: str) -> text_files.Places | None:
        """Where the rows of a split or slice stand; None where no file has lines. Raises as `split`."""
        base, numbers = self.numbers(expression, where)
        found = self.places.get(base)
        return found and found.select(numbers)

    def split(self, expression: str, where: str) -> datasets.Dataset:
        """The rows of a split or slice (`train`, `train[:10%]`, `train[:64]`).

        Raises:
            DataError: no such split, or no rows in it.
            RecipeError: not a slice that can be read.
        """
        base, numbers = self.numbers(expression, where)
        rows = self.splits[base]
        if len(numbers) != len(rows):
            rows = rows.select(numbers)
        if not len(rows):
            raise DataError(f"{self.name}: {expression!r} has no rows", where=where)
        return rows

    def numbers(self, expression: str, where: str) -> tuple[str, range]:
        """The split of an expression, and the numbers of its rows there; raises as `split`."""
        base = base_of(expression)
        require_split(
            self.name, self.splits, base, where, _ASIDE if where.endswith("dataset.splits.evaluation") else ""
        )
        if base == expression:
            return base, range(len(self.splits[base]))
        try:
            instruction = datasets.ReadInstruction.from_spec(expression)
            (bounds,) = instruction.to_absolute({name: len(part) for name, part in self.splits.items()})
        except (ValueError, AssertionError) as error:
            raise RecipeError(
                f"{expression!r} is not a slice of one split ({error})",
                where=where,
                allowed="train, train[:64], train[10%:20%], train[-100:]",
            ) from None
        return base, range(bounds.from_, bounds.to)

    def shared(self, first: str, second: str, where: str) -> int:
        """How many rows two splits or slices have in common; raises as `split`."""
        (base, some), (other, more) = self.numbers(first, where), self.numbers(second, where)
        return max(0, min(some.stop, more.stop) - max(some.start, more.start)) if base == other else 0


def require_split(name: str, splits: Collection[str], base: str, where: str, fix: str = "") -> None:
    """Refuse a split that the data do not have.

    Raises:
        DataError: with the near names and all there are.
    """
    if base not in splits:
        what = f"{name} has no split {base!r}{near(base, splits)}"
        raise DataError(what, where=where, allowed=", ".join(splits), fix=fix)


def format_of(path: str) -> str | None:
    """The format of a file by its ending, whether it is compressed or not."""
    return _SUFFIXES.get(Path(compressed.bare(path)).suffix)


def base_of(expression: str) -> str:
    """The split that a slice is taken from."""
    return re.match(r"[^\[+]*", expression)[0].strip()  # type: ignore[index]


def open_source(recipe: Recipe) -> RawData:
    """Open what `recipe.dataset` names.

    Raises:
        RecipeError: fields that contradict each other.
        DataError: nothing there, or files that can't be read.
    """
    recipe.require_data_named()
    spec, where = recipe.dataset, recipe.where("dataset.path")
    if spec.path in FORMATS:
        return _open_files(recipe)
    if spec.data_files is not None:
        raise RecipeError(
            f"data_files go with a format, not with {spec.path!r}",
            where=recipe.where("dataset.data_files"),
            allowed=f"path: {', '.join(FORMATS)}",
        )
    if spec.path.startswith("embedded:"):
        from hfpipe.system import embedded

        return _open_folder(embedded.dataset_folder(spec.path.removeprefix("embedded:")), recipe)
    form = format_of(spec.path)
    if form is not None and not (hub.is_local(spec.path) and Path(spec.path).expanduser().is_dir()):
        raise RecipeError(
            f"{spec.path!r} is a file", where=where, fix=f"Write path: {form} and data_files: {relative(spec.path)}."
        )
    if hub.is_local(spec.path):
        return _open_folder(hub.local_folder(spec.path, where, DataError), recipe)
    hub.refuse_ambiguous(spec.path, where)
    return _open_hub(recipe)


def _open_hub(recipe: Recipe) -> RawData:
    spec, where = recipe.dataset, recipe.where("dataset.path")
    if not hub.is_offline():
        commit = hub.dataset_commit(spec.path, spec.revision, where)
        return _build(spec.path, spec.path, commit, commit, recipe, name=spec.name, revision=commit)
    folder = hub.snapshot(spec.path, "dataset", spec.revision)
    if folder is not None:
        # The snapshot is what the revision says; a prepared Arrow cache would be taken whatever the revision.
        return _build(spec.path, str(folder), folder.name, folder.name, recipe, name=spec.name, cache=folder.name)
    prepared = _prepared(spec.path, spec.name, spec.revision)
    if prepared is not None:
        return _build(spec.path, spec.path, prepared, prepared, recipe, name=spec.name, revision=prepared)
    at = f" at revision {spec.revision!r}" if spec.revision else ""
    raise DataError(
        f"data set {spec.path!r}{at} is not in the local cache, and the Hub is out of reach",
        where=where,
        fix=f"Where the Hub can be reached: `hf download --repo-type dataset {spec.path}`, then bring that cache here "
        f"(HF_HOME). {hub.QUICKSTART}",
    )


def stream_source(recipe: Recipe) -> tuple[str, str, str | None, dict[str, datasets.IterableDataset]]:
    """Open what `recipe.dataset` names to be streamed: its name, digest, commit, and the streams by split.

    Raises:
        RecipeError: text files, whose every line hfpipe reads before the first step, or fields that contradict.
        DataError: nothing there.
    """
    spec, where = recipe.dataset, recipe.where("dataset.path")
    options: dict[str, Any] = {}
    folder: Path | None = None
    if spec.path in FORMATS:
        if spec.path not in ("parquet", "arrow"):
            raise _not_streamed(spec.path, recipe)
        files = _files_of(recipe)
        name, path, commit = spec.path, spec.path, None
        digest = _digest_of(files)
        options["data_files"] = files
    elif hub.is_local(spec.path):
        folder = hub.local_folder(spec.path, where, DataError)
        name, path, commit = spec.path, str(folder), None
        digest = digest_of_files(sorted(p for p in folder.rglob("*") if p.is_file()), relative_to=folder)
        if _conll_files(folder, where):
            raise _not_streamed("conll", recipe)
        _require_read(recipe, "streamed")
    elif hub.is_offline():
        folder = hub.snapshot(spec.path, "dataset", spec.revision)
        if folder is None:
            raise DataError(
                f"data set {spec.path!r} is not in the local cache, and the Hub is out of reach", where=where
            )
        name, path, commit, digest = spec.path, str(folder), folder.name, folder.name
    else:
        commit = hub.dataset_commit(spec.path, spec.revision, where)
        name, path, digest, options["revision"] = spec.path, spec.path, commit, commit
    try:
        builder = streamable(path, folder, where, name=spec.name, **options)
        streams = _streams(builder)
    except (datasets.exceptions.DatasetsError, ValueError, FileNotFoundError) as error:
        raise DataError(f"{name} can't be streamed: {one_line(error.__cause__ or error, 600)}", where=where) from error
    return name, digest, commit, dict(streams)


def _streams(builder: Any) -> dict[str, datasets.IterableDataset]:
    """The streams by split; local files whose types `datasets` or the tasks do not read are given plain ones."""
    files = {str(split): [str(file) for file in found] for split, found in (builder.config.data_files or {}).items()}
    is_local = all(Path(file).is_file() for found in files.values() for file in found)
    if not is_local or (columns := _unusual_columns(builder)) is None:
        return dict(builder.as_streaming_dataset())
    return {
        split: datasets.IterableDataset.from_generator(
            columnar.read_rows,
            features=columnar.plain_features(columnar.schema_of(found[0], builder.name)),
            gen_kwargs={"files": found, "form": builder.name},
        )
        for split, found in columns.items()
    }


def _not_streamed(form: str, recipe: Recipe) -> RecipeError:
    return RecipeError(
        f"{form} files are not streamed",
        where=recipe.where("dataset.streaming"),
        allowed="a Hub id, a folder, parquet or arrow",
        fix="Leave streaming out, or convert the files to parquet.",
    )


def _prepared(path: str, name: str | None, revision: str | None) -> str | None:
    """The commit of a prepared Arrow cache of the data set, when there is one and it is of that revision."""
    folder = Path(datasets.config.HF_DATASETS_CACHE) / path.replace("/", "___") / (name or "default") / "0.0.0"
    commits = sorted(p.name for p in folder.glob("*") if p.is_dir() and (p / "dataset_info.json").is_file())
    if revision is not None:
        commits = [commit for commit in commits if commit == revision]
    return commits[-1] if commits else None


def _open_folder(folder: Path, recipe: Recipe) -> RawData:
    files = sorted(
        p for p in folder.rglob("*") if p.is_file() and not any(x.startswith(".") for x in p.relative_to(folder).parts)
    )
    if recipe.dataset.revision is not None:
        raise RecipeError("a revision for a local folder", where=recipe.where("dataset.revision"), fix="Remove it.")
    digest, where = digest_of_files(files, relative_to=folder), recipe.where("dataset.name")
    saved = [name for name in ("dataset_dict.json", "state.json") if (folder / name).is_file()]
    if not saved and (files_by_split := _conll_files(folder, recipe.where("dataset.path"))):
        _require_read(recipe, "conll")
        found = text_files.read_files(Layout.of(recipe, "conll"), files_by_split, digest=digest)
        return _of_files(str(recipe.dataset.path), digest, found)
    if not saved:
        return _build(
            str(recipe.dataset.path), str(folder), digest, None, recipe, name=recipe.dataset.name, cache=digest
        )
    if recipe.dataset.name is not None:
        raise RecipeError("a data set that `save_to_disk` wrote has no configurations", where=where, fix="Remove it.")
    try:
        given = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        what = f"{folder} can't be read: {one_line(error, 600)}"
        raise DataError(what, where=recipe.where("dataset.path"), fix="Write it again with `save_to_disk`.") from error
    _require_read(recipe, "arrow")
    splits = given if isinstance(given, dict) else {"train": given}
    return RawData(
        str(recipe.dataset.path), digest, None, {name: rows.with_format(None) for name, rows in splits.items()}
    )


def _files_of(recipe: Recipe) -> dict[str, list[str]]:
    """The files that `data_files` names, by split."""
    spec, where = recipe.dataset, recipe.where("dataset.data_files")
    if spec.data_files is None:
        raise RecipeError(
            "data_files is missing", where=recipe.where("dataset.path"), fix=f"Name the {spec.path} files."
        )
    given = spec.data_files if isinstance(spec.data_files, dict) else {"train": list(_listed(spec.data_files))}
    files = {split: _found(patterns, spec.hosts, where) for split, patterns in given.items()}
    for split in files:
        if not re.fullmatch(r"\w+(\.\w+)*", split) or split == HELD_OUT:
            raise RecipeError(f"{split!r} is no name for a split", where=where, allowed="letters, digits, `_` and `.`")
    return files


def _require_read(recipe: Recipe, form: str) -> None:
    """Refuse to say of a folder how its files are written where that is not read."""
    for option in recipe.dataset.idle_options(form):
        raise RecipeError(
            f"`{option}` does nothing with {form} files, which {recipe.dataset.path} has",
            where=recipe.where(f"dataset.{option}"),
            fix="Remove it.",
        )


def _digest_of(files: Mapping[str, Sequence[str]]) -> str:
    """What identifies files by split: their names and contents, and not where they lie."""
    names = {split: [Path(file).name for file in found] for split, found in files.items()}
    return digest_of_files([Path(file) for found in files.values() for file in found], label=json.dumps(names))


def _open_files(recipe: Recipe) -> RawData:
    spec, files = recipe.dataset, _files_of(recipe)
    digest = _digest_of(files)
    if spec.path not in text_files.FORMATS:
        return _build(spec.path, spec.path, digest, None, recipe, data_files=files, cache=digest)
    return _of_files(spec.path, digest, text_files.read_files(Layout.of(recipe, spec.path), files, digest=digest))


def _of_files(name: str, digest: str, found: text_files.FileRows) -> RawData:
    """Data that were read from files."""
    return RawData(name, digest, None, found.splits, found.notices, places=found.places)


def _listed(value: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _found(patterns: str | list[str], hosts: tuple[str, ...], where: str) -> list[str]:
    found: list[str] = []
    for pattern in _listed(patterns):
        if pattern.startswith(urls.SCHEMES):
            found.append(str(urls.fetch(pattern, hosts, where)))
            continue
        path = Path(pattern).expanduser()
        # A name may have a bracket in it and be no pattern.
        matches = [str(path)] if path.is_file() else sorted(glob.glob(str(path), recursive=True))
        matches = [m for m in matches if Path(m).is_file()]
        for match in matches:
            refuse_archive(match, where)
        if not matches:
            fix = f"It is a folder: name its files, {Path(pattern) / '*'}." if path.is_dir() else hub.near_here(pattern)
            raise DataError(f"no file at {pattern!r}", where=where, fix=fix)
        found += [str(Path(m).resolve()) for m in matches]
    return found


def _build(
    title: str, path: str, digest: str, commit: str | None, recipe: Recipe, *, cache: str | None = None, **options: Any
) -> RawData:
    """Prepare the Arrow files with the datasets library and read all splits.

    `cache` names a folder of its own for these very data, since the library caches a local folder by its name.
    """
    if cache is not None:
        options["cache_dir"] = str(Path(datasets.config.HF_DATASETS_CACHE) / "hfpipe" / digest_of_text(cache)[:24])
    folder, where = Path(path) if path not in FORMATS and Path(path).is_dir() else None, recipe.where("dataset.path")
    if folder is not None:
        refuse_named_outside(folder, where)
    try:
        builder = datasets.load_dataset_builder(path, **options)
        if folder is not None:
            refuse_outside(data_files(builder), folder, where)
        found = _text_files(builder, recipe) if commit is None else None
        if folder is not None and commit is None:
            _require_read(recipe, builder.name if found is None else found[0].form)
        if found is not None:
            return _of_files(title, digest, text_files.read_files(*found, digest=digest))
        if (columns := _unusual_columns(builder)) is not None:
            return _of_files(title, digest, text_files.read_columnar(builder.name, columns, digest=digest))
        if hasattr(builder.config, "fragment_scan_options"):
            # Arrow would hold the bytes of a whole parquet file until its last row group is read.
            builder.config.fragment_scan_options = ParquetFragmentScanOptions(pre_buffer=False)
        builder.download_and_prepare(dl_manager=Downloads(builder))
        splits = builder.as_dataset()
    except (datasets.exceptions.DatasetsError, ValueError, FileNotFoundError) as error:
        cause = error.__cause__ or error
        what = one_line(cause, 600)
        configs = "config name" in what.lower() or "builderconfig" in what.lower()
        if files := sorted({file for found in options.get("data_files", {}).values() for file in found}):
            title = f"{title} ({', '.join(files[:3])}{', ...' if len(files) > 3 else ''})"
        raise DataError(
            f"{title} can't be read: {what}",
            where=recipe.where("dataset.name" if configs else "dataset.path"),
            fix="Choose a configuration with `dataset.name`." if configs else "",
        ) from error
    return RawData(title, digest, commit, dict(splits))


def _unusual_columns(builder: Any) -> dict[str, list[str]] | None:
    """The parquet or arrow files by split, where some of their types are not read as they are and nothing says others."""
    is_asked = builder.info.features is None and not getattr(builder.config, "columns", None)
    is_asked = is_asked and not getattr(builder.config, "filters", None)
    if builder.name not in columnar.FORMATS or not is_asked or not builder.config.data_files:
        return None
    is_local = all(Path(file).is_file() for found in builder.config.data_files.values() for file in found)
    if not is_local and Path(builder.cache_dir).is_dir():
        return None  # prepared before: nothing is fetched again
    there = Downloads(builder).download(builder.config.data_files)
    files = {str(split): [str(file) for file in found] for split, found in there.items()}
    return None if columnar.has_plain_types(files, builder.name) else files


def _text_files(builder: Any, recipe: Recipe) -> tuple[Layout, dict[str, list[str]]] | None:
    """How the files of a local folder are written, and they by split, where they are text and nothing says their types."""
    form, config = builder.name, builder.config
    if form not in ("csv", "json", "text") or builder.info.features is not None or not config.data_files:
        return None
    files = {str(split): [str(path) for path in paths] for split, paths in config.data_files.items()}
    forms = {format_of(path) for paths in files.values() for path in paths}
    if None in forms:
        return None
    layout = Layout.of(recipe, "jsonl" if forms == {"jsonl"} else form)
    if layout.encoding == "utf-8":
        layout = replace(layout, encoding=config.encoding or "utf-8")
    if form == "csv":
        said = config.sep if config.sep != "," else None
        quote = config.quotechar if layout.quote == '"' else layout.quote
        layout = replace(layout, separator=layout.separator or said, quote=quote)
    if form == "json" and layout.field is None:
        layout = replace(layout, field=config.field)
    return layout, files


def _conll_files(folder: Path, where: str) -> dict[str, list[str]]:
    """The conll files of a folder without other data, by the splits that their names say; `datasets` would drop the tags.

    Raises:
        RefusedError: a file that lies elsewhere.
    """
    there = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    if {format_of(str(path)) for path in there} - {None, "text"} != {"conll"}:
        return {}
    found = datasets.data_files.DataFilesDict.from_patterns(
        datasets.data_files.get_data_patterns(str(folder)), base_path=str(folder)
    )
    files = {
        str(split): [str(file) for file in some if format_of(str(file)) == "conll"] for split, some in found.items()
    }
    refuse_outside([file for some in files.values() for file in some], folder, where)
    return {split: some for split, some in files.items() if some}
