"""parquet and arrow as polars, DuckDB, pandas and Spark write them: columns of every Arrow type, read as what they mean.

A text is text whether it lies in a view, behind an index or with long offsets; a list is a list whatever its layout; a
decimal number is a number. What `datasets` and the tasks read anyway stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hfpipe.errors import DataError
from hfpipe.system.text import one_line

FORMATS = ("parquet", "arrow")
_BATCH = 1000  # rows in memory at once
_WHOLE = 18  # digits of a decimal number without a fraction that always fit into 64 bits


def has_plain_types(files: Mapping[str, Sequence[str]], form: str) -> bool:
    """Whether all columns of files by split have types that need no change; also where a file can't be read at all."""
    try:
        schemas = [schema_of(file, form) for found in files.values() for file in found]
    except (pa.ArrowException, OSError):
        return True  # whoever reads it says what is wrong
    return all(plain_type(field.type) == field.type for schema in schemas for field in schema)


def read_columns(paths: Sequence[str], form: str) -> Iterator[pa.RecordBatch]:
    """The rows of several files with plain types, in batches.

    Raises:
        DataError: files of other columns, or one that can't be read.
    """
    names: list[str] = []
    for path in paths:
        try:
            schema = plain_features(schema_of(path, form)).arrow_schema
            names = names or schema.names
            if set(schema.names) != set(names):
                found = ", ".join(schema.names)
                raise DataError(f"the columns are {found}", where=path, allowed=f"{', '.join(names)}, as before")
            fields = pa.schema([schema.field(name) for name in names], schema.metadata)
            for batch in _batches_of(path, form):
                yield pa.record_batch([plain(batch.column(name)) for name in names], schema=fields)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"can't be read: {one_line(error, 300)}", where=path) from None


def read_rows(files: Iterable[str], form: str) -> Iterator[dict[str, Any]]:
    """The rows of files one by one, with plain types; raises as :func:`read_columns`."""
    for file in files:
        for batch in read_columns([file], form):
            yield from batch.to_pylist()


def plain_features(schema: pa.Schema) -> datasets.Features:
    """The columns of a file as :func:`read_columns` gives them, with the names of classes that `datasets` wrote beside them."""
    written = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    known = datasets.Features.from_dict((written.get("info") or {}).get("features") or {})
    plain = datasets.Features.from_arrow_schema(pa.schema([(field.name, plain_type(field.type)) for field in schema]))
    for name in plain:
        if name in known and datasets.Features({name: known[name]}).arrow_schema == _alone(plain, name):
            plain[name] = known[name]
    return plain


def _alone(features: datasets.Features, name: str) -> pa.Schema:
    return datasets.Features({name: features[name]}).arrow_schema


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The plain type of what a type means."""
    is_ = pa.types
    if isinstance(kind, pa.DictionaryType | pa.RunEndEncodedType):
        return plain_type(kind.value_type)
    if isinstance(kind, pa.UuidType):
        return pa.string()
    if isinstance(kind, pa.Bool8Type):
        return pa.bool_()
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if is_.is_string_view(kind) or is_.is_large_string(kind) or is_.is_interval(kind):
        return pa.string()
    if is_.is_binary_view(kind) or is_.is_large_binary(kind) or is_.is_fixed_size_binary(kind):
        return pa.binary()
    if is_.is_decimal(kind):
        return pa.int64() if kind.scale == 0 and kind.precision <= _WHOLE else pa.float64()
    if is_.is_float16(kind):
        return pa.float32()
    if is_.is_map(kind):
        pair = [("key", plain_type(kind.key_type)), ("value", plain_type(kind.item_type))]
        return pa.list_(pa.struct(pair))
    if _is_list(kind):
        return pa.list_(plain_type(kind.value_type))
    if is_.is_struct(kind):
        return pa.struct([(field.name, plain_type(field.type)) for field in kind])
    return kind


def plain(values: Any) -> Any:
    """An array as :func:`plain_type` says; null stays null."""
    kind, wanted = values.type, plain_type(values.type)
    if wanted == kind:
        return values
    if isinstance(kind, pa.DictionaryType):
        # The values first: views can't be taken from.
        return pa.DictionaryArray.from_arrays(values.indices, plain(values.dictionary)).dictionary_decode()
    if isinstance(kind, pa.RunEndEncodedType):
        return plain(pc.run_end_decode(values))
    if isinstance(kind, pa.UuidType) or pa.types.is_interval(kind):
        return pa.array([None if one is None else str(one) for one in values.to_pylist()], pa.string())
    if isinstance(kind, pa.Bool8Type):
        return values.storage.cast(pa.bool_())
    if isinstance(kind, pa.BaseExtensionType):
        return plain(values.storage)
    if pa.types.is_map(kind):
        pairs = pa.struct([("key", kind.key_type), ("value", kind.item_type)])
        return plain(values.cast(pa.list_(pairs)))
    if _is_list(kind):
        lengths = np.asarray(pc.fill_null(pc.list_value_length(values), 0))
        ends = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        return pa.ListArray.from_arrays(ends, plain(values.flatten()), mask=values.is_null())
    if pa.types.is_struct(kind):
        parts = [plain(part) for part in values.flatten()]
        return pa.StructArray.from_arrays(parts, fields=list(wanted), mask=values.is_null())
    return values.cast(wanted)


def _is_list(kind: pa.DataType) -> bool:
    is_ = pa.types
    checks = (is_.is_list, is_.is_large_list, is_.is_fixed_size_list, is_.is_list_view, is_.is_large_list_view)
    return any(check(kind) for check in checks)


def schema_of(path: str, form: str) -> pa.Schema:
    """The types of a file as it has them."""
    if form == "parquet":
        return pq.read_schema(path)
    with pa.memory_map(path) as source:
        return _opened_arrow(source).schema


def _batches_of(path: str, form: str) -> Iterator[pa.RecordBatch]:
    if form == "parquet":
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=_BATCH)
        return
    with pa.memory_map(path) as source:
        reader = _opened_arrow(source)
        if isinstance(reader, pa.RecordBatchFileReader):
            yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
        else:
            yield from reader


def _opened_arrow(source: Any) -> Any:
    """An Arrow file in either of its two forms."""
    try:
        return pa.ipc.open_stream(source)
    except pa.ArrowInvalid:
        return pa.ipc.open_file(source)
