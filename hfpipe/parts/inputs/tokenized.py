"""Rows as tokens: the tokenizer mapped over raw rows, cached on disk under a key that nothing stale can share."""

from __future__ import annotations

import sys
import time
from collections import ChainMap
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from transformers import PreTrainedTokenizerBase
from transformers import __version__ as transformers_version

from hfpipe.parts import tasks
from hfpipe.parts.data import columns
from hfpipe.parts.data.columns import ROW
from hfpipe.system.cache import build_entry, entry_files, entry_folder
from hfpipe.system.manifest import find_corruption
from hfpipe.system.snapshot import digest_of_code, digest_of_text

_BATCH = 1000  # rows that the tokenizer is given at once
_RAW = "raw:"  # before the names of raw columns while they are mapped


@dataclass(frozen=True)
class Tokenized:
    """Encoded rows, and whether they came from the cache.

    Attributes:
        data: what the model reads, `labels`, and the side columns of the task.
        seconds: what tokenizing took; None when the rows came from the cache.
        rebuilt: what was wrong with the cached rows, where there were some that could not be used.
    """

    data: datasets.Dataset
    seconds: float | None
    rebuilt: str | None

    @property
    def summary(self) -> str:
        """One line for a person, with the rate."""
        rows = len(self.data)
        if self.seconds is None:
            return f"{rows:,} rows of tokens from the cache"
        return f"tokenized to {rows:,} rows in {self.seconds:.1f} s ({rows / max(self.seconds, 1e-9):,.0f} a second)"


def tokenize(
    task: tasks.Task,
    rows: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    identity: str,
    labelled: bool = True,
    num_proc: int = 1,
) -> Tokenized:
    """Map the tokenizer over the rows, `batched=True`, and keep only what the model reads and `labels`.

    Args:
        task: which columns, and the classes.
        rows: the raw split.
        tokenizer: the checkpoint's own.
        max_length: tokens; longer inputs are cut.
        identity: names these very rows and this very tokenizer. With the task, the arguments, the versions and the code
            of the task it is the key of the cache, so that neither edited data nor older code is ever served.
        labelled: whether to make `labels`.
        num_proc: processes that tokenize.
    """
    arguments = (identity, task, max_length, labelled, transformers_version, datasets.__version__, _code(type(task)))
    key = digest_of_text(repr(arguments))[:32]
    folder = entry_folder("tokens", key)
    rebuilt = find_corruption(folder) if folder.is_dir() else None
    if folder.is_dir() and rebuilt is None:
        return Tokenized(_read(folder), None, None)
    started = time.perf_counter()
    # `map` gives a column that it makes the type of the raw column of that name, where the values fit: `labels` would
    # turn the floats of a multi-hot row into its class numbers' type. Under another name there is no such type.
    raw = rows.rename_columns({name: f"{_RAW}{name}" for name in rows.column_names})
    with build_entry(folder) as staging:
        raw.map(
            _encode_raw,
            batched=True,
            with_indices=True,
            batch_size=_BATCH,
            remove_columns=raw.column_names,
            fn_kwargs={"task": task, "tokenizer": tokenizer, "max_length": max_length, "labelled": labelled},
            new_fingerprint=key,
            cache_file_name=str(staging / "data.arrow"),
            load_from_cache_file=False,
            num_proc=num_proc if num_proc > 1 else None,
        )
    return Tokenized(_read(folder), time.perf_counter() - started, rebuilt)


def encode_batch(
    batch: MutableMapping[str, Any],
    numbers: list[int],
    task: tasks.Task,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    labelled: bool,
) -> dict[str, Any]:
    """A batch of raw rows as its task encodes it, which finds their numbers beside their columns."""
    return task.encode(ChainMap({ROW: numbers}, batch), tokenizer, max_length, labelled)


def _encode_raw(batch: Mapping[str, Any], numbers: list[int], *, task: tasks.Task, **arguments: Any) -> dict[str, Any]:
    """A batch whose columns are marked as raw, encoded; only the columns that the task reads become Python objects."""
    columns = {name: batch[f"{_RAW}{name}"] for name in task.columns if f"{_RAW}{name}" in batch}
    return encode_batch(columns, numbers, task, **arguments)


def _code(task: type[tasks.Task]) -> str:
    """A hash of the code that makes tokens of rows, with the module of a kind of task that is not hfpipe's."""
    own = getattr(sys.modules[task.__module__], "__file__", None)
    hfpipes = Path(tasks.__file__).parent
    others = [Path(own)] if own and Path(own).parent != hfpipes else []
    return digest_of_code(hfpipes, Path(columns.__file__), Path(__file__), *others)


def _read(folder: Path) -> datasets.Dataset:
    parts = [datasets.Dataset.from_file(str(file)) for file in entry_files(folder)]
    return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)
