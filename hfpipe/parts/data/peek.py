"""Looking into a data set without downloading or preparing it: splits, features and a few rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from hfpipe.errors import DataError
from hfpipe.parts.data.formats import compressed
from hfpipe.parts.data.formats.files import as_arrow, other_separator, read_open
from hfpipe.parts.data.formats.layout import SUFFIXES, Layout
from hfpipe.parts.data.formats.objects import Shape
from hfpipe.parts.data.untrusted import refuse_archive, refuse_named_outside, streamable
from hfpipe.recipe.catalog import near
from hfpipe.system import hub
from hfpipe.system.text import one_line

VIEWER = "https://datasets-server.huggingface.co"
_SECONDS = 10  # for an answer of the viewer
_FORMATS = (*SUFFIXES, ".parquet")

Ask = Callable[[str, Mapping[str, str]], dict[str, Any] | None]
"""Asks the viewer: `(endpoint, parameters) -> answer`, None where it has none."""


@dataclass(frozen=True)
class Peek:
    """What was seen.

    Attributes:
        source: where from: the Hub's viewer, streamed, or local files.
        config: the configuration, None where there is only one without a name.
        configs: all configurations.
        splits: rows of each split, None where they are not known.
        split: the one that is shown.
        features: type by column.
        rows: the first rows.
    """

    source: str
    config: str | None
    configs: list[str]
    splits: dict[str, int | None]
    split: str
    features: dict[str, str]
    rows: list[dict[str, Any]]


def peek(path: str, config: str | None = None, split: str | None = None, rows: int = 5, ask: Ask | None = None) -> Peek:
    """Show features, sizes and a few rows of a data set that may be too large to load.

    Args:
        path: Hub id, local folder, or a file.
        config: configuration, where there are several.
        split: by default the first.
        rows: how many.
        ask: asks the Hub's dataset viewer; by default over the network, and not at all when offline.

    Raises:
        DataError: nothing there, or no such configuration or split.
    """
    if path.startswith("embedded:"):
        from hfpipe.system import embedded

        return _streamed(str(embedded.dataset_folder(path.removeprefix("embedded:"))), path, config, split, rows)
    local = Path(path).expanduser()
    suffix = Path(compressed.bare(local.name)).suffix
    if suffix in _FORMATS and local.is_file():
        if config is not None:
            raise DataError(f"{path} is a file and has no configurations", where="CONFIG", fix="Remove it.")
        if suffix == ".parquet":
            return _streamed("parquet", path, None, split, rows, data_files=str(local))
        _chosen(split, ["train"], "split", path)
        return _read(str(local), SUFFIXES[suffix], rows)
    if hub.is_local(path):
        return _streamed(str(hub.local_folder(path, "DATASET", DataError)), path, config, split, rows)
    if local.is_file():
        raise DataError(repr(path), where="DATASET", allowed=f"a file ending in {', '.join(_FORMATS)}")
    if local.is_dir():
        raise DataError(
            f"{path!r} would be a Hub id, and a folder of that name is here too",
            where="DATASET",
            fix=f"Write ./{path} for the folder, or work in another folder for the Hub.",
        )
    if not hub.is_offline():
        seen = _viewed(path, config, split, rows, ask or _ask)
        return seen or _streamed(path, path, config, split, rows)
    folder = hub.snapshot(path, "dataset", None)
    if folder is not None:
        return _streamed(str(folder), path, config, split, rows)
    if suffix in _FORMATS:
        raise DataError(f"no file {path!r} (from {Path.cwd()}), and the Hub is out of reach", where="DATASET")
    return _cached(path, config, split, rows)


def _read(path: str, form: str, rows: int) -> Peek:
    """The first rows of a text file, as a recipe reads them."""
    refuse_archive(path, "DATASET")
    said: list[str] = []
    layout = Layout(form)
    if form in ("csv", "tsv") and (other := other_separator(path, layout)) is not None:
        layout = replace(layout, separator=other)
        said.append(f"dataset.separator: {json.dumps(other)}")
    found: dict[str, Any] = {}
    try:
        batches: Any = read_open(layout, compressed.opened(path), path, Shape(), max(rows, 1), said.append)
        for lines, columns in batches:
            found = {name: as_arrow(values, name, f"{path}:{{}}".format, lines) for name, values in columns.items()}
            break
        batches.close()
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror or error}", where=path) from None
    table = pa.table(found)
    features = datasets.Features.from_arrow_schema(table.schema)
    types = {name: _described(one) for name, one in features.items()}
    source = "; ".join(["read from the file", *said])
    return Peek(source, None, ["default"], {"train": None}, "train", types, table.slice(0, rows).to_pylist())


def _viewed(path: str, config: str | None, split: str | None, rows: int, ask: Ask) -> Peek | None:
    """The answer of the viewer, or None where it has none for this data set."""
    answer = ask("splits", {"dataset": path})
    if not answer or not answer.get("splits"):
        return None
    configs = list(dict.fromkeys(str(one["config"]) for one in answer["splits"]))
    config = _chosen(config, configs, "configuration", path)
    names = [str(one["split"]) for one in answer["splits"] if one["config"] == config]
    split = _chosen(split, names, "split", path)
    sizes = ask("size", {"dataset": path, "config": config}) or {}
    counted = {one["split"]: one.get("num_rows") for one in sizes.get("size", {}).get("splits", [])}
    first = ask("first-rows", {"dataset": path, "config": config, "split": split})
    if not first:
        return None
    features = {str(one["name"]): _described(one["type"]) for one in first["features"]}
    shown = [dict(one["row"]) for one in first["rows"][:rows]]
    return Peek("the Hub's dataset viewer", config, configs, {n: counted.get(n) for n in names}, split, features, shown)


def _streamed(path: str, title: str, config: str | None, split: str | None, rows: int, **options: Any) -> Peek:
    """The first rows, read from where they lie and no further."""
    folder = Path(path) if not options and Path(path).is_dir() else None
    if folder is not None:
        refuse_named_outside(folder, "DATASET")
    try:
        configs = ["default"] if options else datasets.get_dataset_config_names(path)
        config = _chosen(config, configs, "configuration", title) if configs != ["default"] else None
        builder = streamable(path, folder, "DATASET", name=config, **options)
        streams = builder.as_streaming_dataset()
        split = _chosen(split, list(streams), "split", title)
        stream = streams[split]
        shown = [dict(row) for row in islice(iter(stream), rows)]
    except (datasets.exceptions.DatasetsError, ValueError, OSError, UnicodeDecodeError) as error:
        if isinstance(error, DataError):
            raise
        what = one_line(error.__cause__ or error, 400)
        raise DataError(f"{title} can't be read: {what}", where="DATASET") from error
    declared = {name: one.num_examples or None for name, one in (builder.info.splits or {}).items()}
    counted = declared | _counted_in_parquet(builder.config.data_files or {})
    features = stream.features or builder.info.features
    types = {name: _described(one) for name, one in features.items()} if features else _guessed(shown)
    where = "streamed" if path == title and not options else "read from the files"
    return Peek(where, config, configs, {name: counted.get(name) for name in streams}, split, types, shown)


def _counted_in_parquet(data_files: Mapping[Any, Any]) -> dict[str, int | None]:
    """Rows of each split whose files are parquet here, which say how many they hold."""
    return {
        str(split): sum(pq.read_metadata(file).num_rows for file in files)
        for split, files in data_files.items()
        if files and all(str(file).endswith(".parquet") and Path(file).is_file() for file in files)
    }


def _cached(path: str, config: str | None, split: str | None, rows: int) -> Peek:
    """A prepared Arrow cache, whose files are mapped and not read."""
    folder = Path(datasets.config.HF_DATASETS_CACHE) / path.replace("/", "___")
    configs = sorted(one.name for one in folder.glob("*") if one.is_dir())
    if not configs:
        raise DataError(
            f"data set {path!r} is not in the local cache, and the Hub is out of reach",
            where="DATASET",
            fix=f"Where the Hub can be reached: `hf download --repo-type dataset {path}`.",
        )
    config = _chosen(config, configs, "configuration", path)
    splits = datasets.load_dataset(path, config)
    split = _chosen(split, list(splits), "split", path)
    shown = [splits[split][row] for row in range(min(rows, len(splits[split])))]
    features = {name: _described(one) for name, one in splits[split].features.items()}
    sizes: dict[str, int | None] = {name: len(part) for name, part in splits.items()}
    return Peek("the local cache", config, configs, sizes, split, features, shown)


def _chosen(wanted: str | None, all_of_them: list[str], what: str, title: str) -> str:
    if wanted is None and (len(all_of_them) == 1 or what == "split"):
        return all_of_them[0]
    if wanted is None or wanted not in all_of_them:
        problem = f"has several {what}s" if wanted is None else f"has no {what} {wanted!r}{near(wanted, all_of_them)}"
        raise DataError(
            f"{title} {problem}", where="CONFIG" if what != "split" else "--split", allowed=", ".join(all_of_them)
        )
    return wanted


def _described(feature: Any) -> str:
    """A feature in a few words: its type, and the names of its classes."""
    if isinstance(feature, Mapping) and feature.get("_type") == "Value":
        return str(feature.get("dtype"))
    if isinstance(feature, Mapping) and feature.get("_type") == "ClassLabel":
        return f"class of {', '.join(map(str, feature.get('names', [])))}"
    if isinstance(feature, Mapping) and feature.get("_type") in ("List", "Sequence", "LargeList"):
        return f"list of {_described(feature.get('feature'))}"
    if isinstance(feature, datasets.ClassLabel):
        return f"class of {', '.join(feature.names)}"
    if isinstance(feature, datasets.Value):
        return str(feature.dtype)
    if isinstance(feature, datasets.List | datasets.LargeList):
        return f"list of {_described(feature.feature)}"
    if isinstance(feature, Mapping):
        return "{" + ", ".join(f"{name}: {_described(one)}" for name, one in feature.items()) + "}"
    return str(feature)


def _guessed(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Types of columns that are not declared, as the shown rows have them."""
    return {name: type(value).__name__ for name, value in (rows[0] if rows else {}).items()}


def _ask(endpoint: str, parameters: Mapping[str, str]) -> dict[str, Any] | None:
    """One question to the viewer, without a token; None where it has no answer, or can't be reached."""
    try:
        with urlopen(f"{VIEWER}/{endpoint}?{urlencode(parameters)}", timeout=_SECONDS) as answer:
            return dict(json.load(answer))
    except (OSError, ValueError):  # a set that is not public, or that the viewer does not know: it is streamed
        return None
