"""Data files as other programs and other people write them: separators, encodings, documents, columns of every type."""

from __future__ import annotations

import datetime
import decimal
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hfpipe.errors import DataError, HfpipeError, RecipeError
from hfpipe.parts.data.open import RawData, given_data, open_data
from hfpipe.parts.data.streams import open_stream
from hfpipe.recipe import Recipe, load_recipe

Opened = Callable[..., RawData]


def recipe_of(task: dict[str, Any] | None = None, **dataset: Any) -> Recipe:
    """A recipe with this section of data."""
    return load_recipe({"dataset": dataset, "task": task or {"text": "text"}, "model": {"checkpoint": "./m"}})


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """Writes a file and opens it, as a recipe for it would."""

    def open_file(form: str, content: str | bytes, task: dict[str, Any] | None = None, **options: Any) -> RawData:
        path = tmp_path / f"rows.{form}"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return open_data(recipe_of(task, path=form, data_files=str(path), **options))

    return open_file


def refused(told: str, act: Callable[[], Any], kind: type[HfpipeError] = DataError) -> None:
    """The act ends with this kind of error, which says this."""
    with pytest.raises(kind) as caught:
        act()
    assert told in str(caught.value), str(caught.value)


# Separators


@pytest.mark.parametrize(
    ("form", "content", "told"),
    [
        ("csv", "ticket;text;label\n1;a, b;x\n", """the header has 1 field between ',', and 3 fields between ';'"""),
        ("csv", "ticket;text;label\n1;a, b;x\n", """Say dataset.separator: ";"; or dataset.separator: "," where"""),
        ("csv", '"text";"label"\r\n"a, ""b""";"x"\r\n', """Say dataset.separator: ";\""""),
        ("csv", "text\tlabel\na\tx\n", '''Say dataset.separator: "\\t"'''),
        ("csv", "text|label\na|x\n", '''Say dataset.separator: "|"'''),
        ("csv", "id;price, EUR;text\n1;2;a\n2;3;b, c, d\n", '''Say dataset.separator: ";"'''),
        ("tsv", "text,label\na,x\n", '''Say dataset.separator: ","'''),
        ("tsv", "text;label\na;x\n", '''Say dataset.separator: ";"'''),
    ],
)
def test_a_header_that_another_separator_parts_is_told(opened: Opened, form: str, content: str, told: str) -> None:
    """Semicolons, tabs and bars, with and without quotes and with commas in the texts: the error names the field to set."""
    refused(told, lambda: opened(form, content))


@pytest.mark.parametrize(
    ("form", "content", "options", "names"),
    [
        ("csv", "text;label\na, b;x\n", {"separator": ";"}, ["text", "label"]),
        ("csv", '"text"|"label"\n"a|b"|"x"\n', {"separator": "|"}, ["text", "label"]),
        ("csv", "a;b\nx\n", {"separator": ","}, ["a;b"]),  # one column of that name: somebody said it
        ("csv", "text\na; b; c\n", {}, ["text"]),
        ("csv", "text,label;as said\na,x\nb; c,y\n", {}, ["text", "label;as said"]),
        ("csv", "sep=;\r\ntext;label\r\na, b;x\r\n", {}, ["text", "label"]),
        ("csv", '"sep=\t"\ntext\tlabel\na\tx\n', {}, ["text", "label"]),
        ("tsv", "text\tlabel, as said; or so\na\tx\n", {}, ["text", "label, as said; or so"]),
    ],
)
def test_a_separator_that_is_said_is_taken(
    opened: Opened, form: str, content: str, options: dict[str, Any], names: list[str]
) -> None:
    """By the recipe, by the first line of a spreadsheet, or because no other parts the header better."""
    assert opened(form, content, **options).splits["train"].column_names == names


def test_lines_are_counted_behind_the_line_of_a_spreadsheet(opened: Opened) -> None:
    """`sep=;` is a line of the file; a quoted field with a line end in it is two."""
    refused("rows.csv:5: 3 fields, and the header names 2", lambda: opened("csv", 'sep=;\nt;l\n"a\nb";x\na;b;c\n'))


def test_a_wrong_separator_is_told_wherever_a_column_is_missing() -> None:
    """A data set whose only column is a header, as another reader made it, names the field too."""
    from hfpipe.parts.data.columns import require_columns

    rows = datasets.Dataset.from_dict({"ticket;text;label": ["1;a;x"]})
    refused("no column 'text'; allowed: ticket;text;label. Its header is one column; if ';' is between fields, say "
            'dataset.separator: ";".', lambda: require_columns(rows, ["text"], "train", "task"))  # fmt: skip


def test_options_reach_the_files_of_a_folder(tmp_path: Path) -> None:
    """A folder of csv files takes separator and encoding; one of parquet files refuses them."""
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_bytes("text;label\nä, b;x\n".encode("cp1252"))
    refused("Say dataset.separator", lambda: open_data(recipe_of(path=str(tmp_path), encoding="cp1252")))
    raw = open_data(recipe_of(path=str(tmp_path), separator=";", encoding="cp1252"))
    assert {split: rows.to_list() for split, rows in raw.splits.items()} == {
        split: [{"text": "ä, b", "label": "x"}] for split in ("train", "test")
    }
    other = tmp_path / "other"
    other.mkdir()
    pq.write_table(pa.table({"text": ["a"]}), other / "train.parquet")
    refused("`separator` does nothing with parquet files", lambda: open_data(recipe_of(path=str(other), separator=";")),
            RecipeError)  # fmt: skip


# Encodings


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("csv", "text,label\nä,x\n"),
        ("tsv", "text\tlabel\nä\tx\n"),
        ("jsonl", '{"text": "ä", "label": "x"}\n'),
        ("json", '{"data": [\n{"text": "ä", "label": "x"}]}\n'),
        ("text", "ä\n"),
    ],
)
def test_a_byte_order_mark_says_the_encoding(opened: Opened, encoding: str, form: str, content: str) -> None:
    """In every text format, and it is said; a file that was read before says it again."""
    for _ in range(2):
        raw = opened(form, content.encode(encoding))
        assert raw.splits["train"]["text"][:] == ["ä"]
        marked = [notice for notice in raw.notices if "byte order mark" in notice]
        assert [f"is read as {encoding}" in notice for notice in marked] == ([] if encoding == "utf-8-sig" else [True])


def test_a_mark_is_no_part_of_a_file_of_another_encoding(opened: Opened) -> None:
    """A UTF-8 mark in a file that is said to be cp1252 wins, and that is said."""
    raw = opened("csv", "text,label\nä,x\n".encode("utf-8-sig"), encoding="cp1252")
    assert raw.splits["train"][:] == {"text": ["ä"], "label": ["x"]}
    assert "is read as utf-8, by the byte order mark" in raw.notices[0]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_told(opened: Opened, encoding: str) -> None:
    """Every second byte is zero: the error names the encoding, which reads it."""
    for form, content in (("csv", "text,label\na,x\n"), ("jsonl", '{"text": "a"}\n'), ("text", "a line\n")):
        refused(f"Say dataset.encoding: {encoding}.", lambda: opened(form, content.encode(encoding)))  # noqa: B023
        assert len(opened(form, content.encode(encoding), encoding=encoding).splits["train"]) == 1


def test_other_bytes_are_told_with_their_line_and_reading(opened: Opened) -> None:
    """Latin-1 in what should be UTF-8: line, byte, and what it would read in the encoding that is suggested."""
    content = "text,label\na,x\nschöne Größe,y\n".encode("cp1252")
    refused("rows.csv:3: not utf-8 at byte 18 (0xf6)", lambda: opened("csv", content))
    refused("with dataset.encoding=cp1252 it reads 'schöne Größe,y' there", lambda: opened("csv", content))
    assert opened("csv", content, encoding="cp1252").splits["train"]["text"][1] == "schöne Größe"


# Documents

ROWS = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    ("document", "field", "told"),
    [
        ({"version": "1", "data": ROWS}, None, "those of 'data' (dataset.field)"),
        ({"version": "1", "data": ROWS, "other": [{"n": 1}]}, "data", ""),
        ({"result": {"rows": ROWS, "n": 2}}, None, "those of 'result.rows'"),
        ({"result": {"rows": ROWS, "more": [{"n": 1}]}}, "result.rows", ""),
        ({"a.b": {"c": ROWS}, "a": {"b": []}}, "a.b.c", ""),
        ({"text": ["a", "b"], "label": ["x", "y"]}, None, "holds columns"),
        ({"data": {"text": ["a", "b"], "label": ["x", "y"]}}, "data", ""),
        ({"n": 2, "data": {"text": ["a", "b"], "label": ["x", "y"]}}, None, "those of 'data'"),
        ({"text": {"0": "a", "1": "b"}, "label": {"0": "x", "1": "y"}}, None, "holds columns"),
        (ROWS, None, ""),
    ],
)
def test_rows_are_found_in_a_document(
    opened: Opened, document: Any, field: str | None, told: str, indent: int | None
) -> None:
    """Under the only list of objects or the field that is said, by rows or by columns, on one line or printed prettily."""
    raw = opened("json", json.dumps(document, indent=indent), field=field)
    assert raw.splits["train"].to_list() == ROWS
    assert any(told in notice for notice in raw.notices) if told else not raw.notices


def test_objects_of_several_lines_are_rows(opened: Opened) -> None:
    """As `jq` prints them; and a single object that has the text column is a row, whatever lists are in it."""
    assert opened("json", "\n".join(json.dumps(row, indent=2) for row in ROWS)).splits["train"].to_list() == ROWS
    row = {"text": "a", "spans": [{"start": 1}, {"start": 2}]}
    for indent in (None, 1):
        assert opened("json", json.dumps(row, indent=indent)).splits["train"].to_list() == [row]
    words = {"words": ["a", "b"], "tags": ["O", "O"]}
    task = {"kind": "token-classification", "text": "words", "label": "tags"}
    assert opened("json", json.dumps(words), task).splits["train"].to_list() == [words]
    columns = {"words": [["a", "b"], ["c"]], "tags": [["O", "O"], ["O"]]}
    assert opened("json", json.dumps(columns), task).splits["train"]["tags"][:] == columns["tags"]


@pytest.mark.parametrize("text", ["text", "another"])
def test_rows_under_keys_and_columns_as_pandas_writes_them(opened: Opened, text: str) -> None:
    """An object a row, an object or a list a column: the same rows, also where the text column is not known yet."""
    rows = [{"text": "a b", "label": 0}, {"text": "c", "label": None}, {"text": "d", "label": 2}]
    documents = (
        {str(number): row for number, row in enumerate(rows)},
        {name: {str(number): row[name] for number, row in enumerate(rows)} for name in rows[0]},
        {name: [row[name] for row in rows] for name in rows[0]},
    )
    for document in documents:
        assert opened("json", json.dumps(document), {"text": text}).splits["train"].to_list() == rows
    named = {"first": rows[0], "second": rows[1]}
    if text == "text":  # known: else it could be one row with two objects
        assert opened("json", json.dumps(named), {"text": text}).splits["train"].to_list() == rows[:2]
    else:
        assert opened("json", json.dumps(named), {"text": text}).splits["train"].column_names == ["first", "second"]


@pytest.mark.parametrize(
    ("document", "field", "told"),
    [
        ({"train": ROWS, "dev": ROWS}, None, "2 lists of objects may be the rows: train, dev"),
        ({"train": ROWS, "dev": ROWS}, None, "Say which one: dataset.field: train."),
        ({"data": ROWS}, "dat", "no field 'dat'; did you mean 'data'?; allowed: data"),
        ({"data": {"rows": ROWS}}, "data", "'data' holds an object; allowed: a list of objects"),
        ({"data": {"rows": ROWS}}, "data", "In it are data.rows."),
        ({"data": 3}, "data", "'data' holds int '3'"),
        (ROWS, "data", "the document is a list, and has no 'data'"),
        ({"data": [1, 2]}, "data", "1 is no object"),
        ({"text": ["a", "b"], "label": ["x"]}, None, "not equally long: 'text' has 2, 'label' has 1"),
    ],
)
def test_what_is_not_found_in_a_document_is_told(opened: Opened, document: Any, field: str | None, told: str) -> None:
    """Several lists, another field, something else under it: with the names there are."""
    refused(told, lambda: opened("json", json.dumps(document, indent=1), field=field))


def test_a_row_of_a_document_has_its_line(opened: Opened) -> None:
    """Mistakes in a document are told by the line of their row, a damaged one by the place of the damage."""
    text = json.dumps({"data": [{"text": "a"}, {"text": 3}]}, indent=1)
    refused("rows.json:6: 'text' is 3, a number", lambda: opened("json", text))
    refused("rows.json:7:13: the document is cut short", lambda: opened("json", text[: text.index("3") + 1].rstrip()))
    refused("rows.json:1: the key 'a' is there twice", lambda: opened("json", '{\n"data": [\n{"a": 1, "a": 2}]}'))


SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "T",
            "paragraphs": [
                {
                    "context": "bak bel fum",
                    "qas": [
                        {
                            "id": "q1",
                            "question": "bel",
                            "answers": [{"text": "bel", "answer_start": 4}],
                            "is_impossible": False,
                        },
                        {
                            "id": "q2",
                            "question": "dop",
                            "answers": [],
                            "plausible_answers": [{"text": "fum", "answer_start": 8}],
                            "is_impossible": True,
                        },
                    ],
                },
                {
                    "context": "gim bak",
                    "qas": [{"id": 3, "question": "bak", "answers": [{"text": "bak", "answer_start": 4}]}],
                },
            ],
        }
    ],
}
QUESTIONS = {"kind": "question-answering", "text": ["question", "context"], "label": "answers"}


@pytest.mark.parametrize("field", [None, "data"])
@pytest.mark.parametrize("indent", [None, 1])
def test_squad_as_it_is_published_becomes_a_row_a_question(
    opened: Opened, indent: int | None, field: str | None
) -> None:
    """Articles, paragraphs and questions of both versions; an impossible question has no answers, plausible ones aside."""
    raw = opened("json", json.dumps(SQUAD, indent=indent), QUESTIONS, field=field)
    rows = raw.splits["train"].to_list()
    assert [row["id"] for row in rows] == ["q1", "q2", "3"]
    assert rows[0] == {"id": "q1", "title": "T", "question": "bel", "context": "bak bel fum",
                       "answers": {"text": ["bel"], "answer_start": [4]}}  # fmt: skip
    assert rows[1]["answers"] == {"text": [], "answer_start": []}
    assert any("each question is a row" in notice for notice in raw.notices)
    assert opened("json", json.dumps(SQUAD["data"]), QUESTIONS).splits["train"].to_list() == rows


def test_a_contradictory_squad_is_refused(opened: Opened) -> None:
    """A question that is impossible and has answers; a paragraph without questions."""
    document = json.loads(json.dumps(SQUAD))
    document["data"][0]["paragraphs"][0]["qas"][0]["is_impossible"] = True
    refused(
        "question 'q1' is said to be impossible, and has answers",
        lambda: opened("json", json.dumps(document), QUESTIONS),
    )
    document = {"data": [{"title": "T", "paragraphs": [{"context": "c"}]}]}
    refused("'qas' is no list of objects", lambda: opened("json", json.dumps(document), QUESTIONS))


# Numbers

NUMBERS = {"kind": "text-regression", "text": "text", "label": "value"}


@pytest.mark.parametrize(
    ("written", "options", "meant"),
    [
        (["3,5", "-0,25", " 1 ", "2,5e3"], {"decimal": ","}, [3.5, -0.25, 1.0, 2500.0]),
        (["1.250,5", "12", "1.000.000"], {"decimal": ",", "thousands": "."}, [1250.5, 12.0, 1e6]),
        (["1,250.5", "12"], {"thousands": ","}, [1250.5, 12.0]),
        (["1 250,5", "1\u00a0250", "1\u202f250,25"], {"decimal": ",", "thousands": " "}, [1250.5, 1250.0, 1250.25]),
        (["1'250.5", "\u22123"], {"thousands": "'"}, [1250.5, -3.0]),
    ],
)
def test_numbers_are_read_as_they_are_written(
    opened: Opened, tmp_path: Path, written: list[str], options: dict[str, Any], meant: list[float]
) -> None:
    """With a decimal comma and signs between thousands, from csv, jsonl, parquet, memory and a stream alike."""
    rows = [{"text": "a", "value": one} for one in written]
    lines = "text;value\n" + "".join(f"a;{one}\n" for one in written)
    options_of_csv = {**options, "separator": ";"}
    raw = opened("csv", lines, NUMBERS, **options_of_csv)
    assert raw.splits["train"]["value"][:] == meant
    assert raw.digest != opened("csv", lines, NUMBERS, separator=";").digest
    jsonl = "".join(json.dumps(row) + "\n" for row in rows)
    assert opened("jsonl", jsonl, NUMBERS, **options).splits["train"]["value"][:] == meant
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    recipe = load_recipe(
        {
            "dataset": {"path": "parquet", "data_files": str(tmp_path / "a.parquet"), "streaming": True, **options},
            "task": NUMBERS,
            "model": {"checkpoint": "./m"},
            "train": {"max_steps": 1},
        }
    )
    stream = open_stream(recipe)
    assert stream.head("train", "")["value"][:] == meant
    assert [row["value"] for row in stream.stream("train[1:]", "")] == meant[1:]
    memory = given_data(recipe_of(NUMBERS, path="./d", **options), datasets.Dataset.from_list(rows))
    assert memory.splits["train"]["value"][:] == meant


@pytest.mark.parametrize(
    ("written", "options", "told"),
    [
        (["3", "1.250"], {"decimal": ","}, "holds '1.250', which is no number written as 3,5 (row 1, counted from 0)"),
        (["3", "1.250"], {"decimal": ","}, "If a sign parts thousands there, name it: dataset.thousands."),
        (["12.5"], {"decimal": ",", "thousands": "."}, "'12.5', which is no number written as 3,5 or 1.250,5"),
        (["1,2,3"], {"decimal": ","}, "'1,2,3', which is no number"),
        (["many"], {"decimal": ","}, "'many', which is no number"),
    ],
)
def test_numbers_that_are_written_otherwise_are_told(
    opened: Opened, written: list[str], options: dict[str, Any], told: str
) -> None:
    """Nothing is read half: `1.250` is no 1.25 where the comma stands before the fraction."""
    lines = "text;value\n" + "".join(f"a;{one}\n" for one in written)
    refused(told, lambda: opened("csv", lines, NUMBERS, separator=";", **options))


def test_a_decimal_comma_that_nobody_said_names_the_field(opened: Opened) -> None:
    """The error of the task names row, value and `dataset.decimal`; with it the task takes the column."""
    from hfpipe.parts.tasks.numbers import NumberTask

    for lines, value in (("text;value\na;3\na;3,5\n", "3,5"), ("text;value\na;3\na;1.250,5\n", "1.250,5")):
        rows = opened("csv", lines, NUMBERS, separator=";").splits["train"]
        task = NumberTask.make(recipe_of(NUMBERS, path="./d").task, rows, "train", "task")
        refused(f"train: column 'value' is not all numbers, '{value}' is none (row 1, counted from 0)",
                lambda: task.check(rows, "train", "task"))  # noqa: B023 # fmt: skip
    refused("dataset.decimal: ','", lambda: NumberTask(("text",), "value").check(
        opened("csv", "text;value\na;3,5\n", NUMBERS, separator=";").splits["train"], "train", "task"))  # fmt: skip


# Types


def written(path: Path, table: pa.Table) -> str:
    """A table as a file of the format that its name says, for arrow in the form that polars writes."""
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    return str(path)


D = decimal.Decimal
UUID = b"\x00" * 15 + b"\x01"
UNUSUAL: dict[str, tuple[pa.Array, list[Any]]] = {
    "string_view": (pa.array(["a", None, "c" * 40], pa.string_view()), ["a", None, "c" * 40]),
    "binary_view": (pa.array([b"a", None, b"c"], pa.binary_view()), [b"a", None, b"c"]),
    "large_string": (pa.array(["a", None, "c"], pa.large_string()), ["a", None, "c"]),
    "dictionary": (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
    "dictionary_uint8": (
        pa.DictionaryArray.from_arrays(pa.array([1, 0, 1], pa.uint8()), pa.array(["x", "y"], pa.string_view())),
        ["y", "x", "y"],
    ),
    "dictionary_of_numbers": (
        pa.DictionaryArray.from_arrays(pa.array([1, 0, None], pa.int8()), pa.array([5, 7])),
        [7, 5, None],
    ),
    "decimal32": (pa.array([D("1.50"), None, D("-2.25")], pa.decimal32(5, 2)), [1.5, None, -2.25]),
    "decimal128": (pa.array([D("1.50"), None, D("-2.25")], pa.decimal128(20, 2)), [1.5, None, -2.25]),
    "decimal256": (pa.array([D("1.50"), None, D("-2.25")], pa.decimal256(50, 2)), [1.5, None, -2.25]),
    "decimal_whole": (pa.array([D(1), None, D(0)], pa.decimal128(18, 0)), [1, None, 0]),
    "float16": (pa.array(np.array([1.5, 2.5, -1], np.float16)), [1.5, 2.5, -1.0]),
    "large_list": (pa.array([["a"], None, []], pa.large_list(pa.large_string())), [["a"], None, []]),
    "list_of_views": (pa.array([["a", None], None, []], pa.list_(pa.string_view())), [["a", None], None, []]),
    "fixed_size_list": (pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2)), [[1, 2], None, [3, 4]]),
    "list_view": (pa.array([["a"], None, ["b", "c"]], pa.list_view(pa.string())), [["a"], None, ["b", "c"]]),
    "large_list_view": (pa.array([["a"], None, []], pa.large_list_view(pa.string_view())), [["a"], None, []]),
    "nested": (
        pa.array([[["a"]], None, [[], ["b"]]], pa.large_list(pa.large_list(pa.string_view()))),
        [[["a"]], None, [[], ["b"]]],
    ),
    "list_of_dictionary": (
        pa.ListArray.from_arrays([0, 1, 1, 3], pa.array(["a", "b", "a"]).dictionary_encode()),
        [["a"], [], ["b", "a"]],
    ),
    "struct": (
        pa.array([{"a": "x", "b": D("1.5")}, None, {"a": None, "b": None}],
                 pa.struct([("a", pa.string_view()), ("b", pa.decimal128(5, 1))])),
        [{"a": "x", "b": 1.5}, None, {"a": None, "b": None}],
    ),
    "map": (pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64())), [[{"key": "k", "value": 1}], None, []]),
    "uuid": (
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([UUID, None, UUID], pa.binary(16))),
        ["00000000-0000-0000-0000-000000000001", None, "00000000-0000-0000-0000-000000000001"],
    ),
    "json": (pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}', None, "2"])), ['{"a": 1}', None, "2"]),
    "null": (pa.nulls(3), [None] * 3),
    "date": (pa.array([datetime.date(2020, 1, 2)] * 3), [datetime.date(2020, 1, 2)] * 3),
    "uint64": (pa.array([1, 2**63 + 1, None], pa.uint64()), [1, 2**63 + 1, None]),
}  # fmt: skip


def unusual(form: str, *without: str) -> tuple[pa.Table, dict[str, list[Any]]]:
    """All of these columns that the format can hold, and what they mean."""
    taken = [name for name in UNUSUAL if name not in without and (form, name) != ("parquet", "dictionary_uint8")]
    return pa.table({name: UNUSUAL[name][0] for name in taken}), {name: UNUSUAL[name][1] for name in taken}


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_columns_of_every_type_are_read_as_what_they_mean(tmp_path: Path, form: str) -> None:
    """Views, large and fixed lists, dictionaries, decimals, halves, maps, ids: the values, with null where there was none."""
    table, meant = unusual(form)
    file = written(tmp_path / f"a.{form}", table)
    for options in ({"path": form, "data_files": file}, {"path": str(tmp_path)}):
        rows = open_data(recipe_of(**options)).splits["train"]
        assert rows.to_dict() == meant


def test_a_slice_of_an_array_is_that_slice() -> None:
    """Lists, maps and structs whose first rows were cut off have their own values."""
    from hfpipe.parts.data.formats.columnar import plain, plain_type

    for name, (array, meant) in UNUSUAL.items():
        cut = plain(array[1:])
        assert (cut.to_pylist(), cut.type) == (meant[1:], plain_type(array.type)), name


def test_names_of_classes_survive_beside_unusual_columns(tmp_path: Path) -> None:
    """What `datasets` wrote with large texts keeps its ClassLabel."""
    features = datasets.Features(
        {"text": datasets.Value("large_string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, features=features).to_parquet(
        tmp_path / "a.parquet"
    )
    rows = open_data(recipe_of(path="parquet", data_files=str(tmp_path / "a.parquet"))).splits["train"]
    assert rows.features["label"].names == ["no", "yes"]
    assert rows.features["text"].dtype == "string"


def test_files_of_a_split_may_have_different_types(tmp_path: Path) -> None:
    """One with a dictionary, one with texts, one with nothing but null; and columns in another order."""
    columns = ({"text": ["a"], "label": ["x"]}, {"label": ["y"], "text": ["b"]}, {"text": ["c"], "label": [None]})
    kinds = (pa.array(["x"]).dictionary_encode(), pa.array(["y"], pa.large_string()), pa.nulls(1))
    for number, (rows, label) in enumerate(zip(columns, kinds, strict=True)):
        written(tmp_path / f"{number}.parquet", pa.table({n: label if n == "label" else v for n, v in rows.items()}))
    rows = open_data(recipe_of(path="parquet", data_files=str(tmp_path / "*.parquet"))).splits["train"]
    assert rows.to_dict() == {"text": ["a", "b", "c"], "label": ["x", "y", None]}


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_stream_reads_the_same_types(tmp_path: Path, form: str) -> None:
    """Streamed, unusual columns have the values and types that they have in a map."""
    table, meant = unusual(form, "uint64")  # `datasets` makes no rows of greater numbers than int64 has
    file = written(tmp_path / f"a.{form}", table)
    dataset = {"path": form, "data_files": file, "streaming": True}
    recipe = load_recipe({"dataset": dataset, "task": {"text": "string_view"}, "model": {"checkpoint": "./m"},
                          "train": {"max_steps": 1}})  # fmt: skip
    stream = open_stream(recipe)
    rows = stream.head("train", "")
    assert rows.to_dict() == meant
    assert sorted(str(row["dictionary"]) for row in stream.stream("train", "").shuffle(seed=1)) == ["None", "a", "a"]


@pytest.mark.parametrize(
    "kind",
    [pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(), pa.decimal128(3, 0)],
)
def test_classes_may_be_counted_in_any_whole_numbers(tmp_path: Path, kind: pa.DataType) -> None:
    """Unsigned and short ones, and decimals without a fraction: 0 and 1 are classes, and another number is told."""
    from hfpipe.parts.tasks import make_task

    values = [D(one) for one in (0, 1, 1)] if pa.types.is_decimal(kind) else [0, 1, 1]
    file = written(tmp_path / "a.parquet", pa.table({"text": ["a", "b", "c"], "label": pa.array(values, kind)}))
    recipe = recipe_of(path="parquet", data_files=file)
    rows = open_data(recipe).splits["train"]
    task = make_task(recipe.task, rows, "train", "task")
    task.check(rows, "train", "task")
    assert task.names == ("0", "1")
    other = datasets.Dataset.from_dict({"text": ["a"], "label": [7]}, features=rows.features)
    refused("label 7 is outside the 2 classes", lambda: task.check(other, "test", "task"))


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.decimal32(5, 2), pa.decimal128(9, 2), pa.uint8()])
def test_a_regression_takes_any_number(tmp_path: Path, kind: pa.DataType) -> None:
    """Halves, decimals and short whole numbers are labels of a regression."""
    from hfpipe.parts.tasks import make_task

    values = (
        [D(1), D(2)] if pa.types.is_decimal(kind) else np.array([1, 2], np.float16) if kind == pa.float16() else [1, 2]
    )
    file = written(tmp_path / "a.parquet", pa.table({"text": ["a", "b"], "value": pa.array(values, kind)}))
    recipe = recipe_of(NUMBERS, path="parquet", data_files=file)
    rows = open_data(recipe).splits["train"]
    make_task(recipe.task, rows, "train", "task").check(rows, "train", "task")
    assert [float(one) for one in rows["value"][:]] == [1.0, 2.0]
