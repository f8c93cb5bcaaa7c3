"""Raw data: read as they stand in the file, identified by content, never served from an older file's cache."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import pytest

from hfpipe.errors import DataError, HfpipeError, RecipeError, RefusedError
from hfpipe.parts.data.open import RawData, given_data, open_data
from hfpipe.recipe import load_recipe, to_yaml

OTHERS = {"task": {"text": "text"}, "model": {"checkpoint": "./m"}}


def opened(**dataset: Any) -> RawData:
    """The data of a recipe with this `dataset` section."""
    return open_data(load_recipe({"dataset": dataset, **OTHERS}))


def refused(kind: type[HfpipeError], told: str, **dataset: Any) -> None:
    """Such a section is refused with this kind of error."""
    with pytest.raises(kind) as caught:
        opened(**dataset)
    assert told in str(caught.value), str(caught.value)


def test_csv_is_read_as_the_text_it_is(tmp_path: Path) -> None:
    """`NA`, `null`, `None`, an empty field, `007`, `1e5` and `True` stay the text that was written."""
    values = ["NA", "null", "None", "", "007", "1e5", "True", "nan", "a,b", 'say "x"', "two\nlines", "ä", " x "]
    quoted = ['"' + value.replace('"', '""') + '"' for value in values]
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"{value},007\n" for value in quoted), encoding="utf-8")
    rows = opened(path="csv", data_files=str(tmp_path / "a.csv")).splits["train"]
    assert rows["text"][:] == values
    assert rows["label"][:] == ["007"] * len(values)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"text,label\nx\xff,1\n", "a.csv:2: not utf-8 at byte 12 (0xff)"),
        (b"text,label\n" + b"x,1\n" * 300_000 + b"x\xff,1\n", "a.csv:300002: not utf-8 at byte 1200012 (0xff)"),
        (b"t\xff,label\nx,1\n", "a.csv:1: not utf-8 at byte 1 (0xff)"),
        (b"text,text\na,b\n", "one line of different column names"),
        (b"", "a.csv:1: there is no header"),
    ],
)
def test_a_broken_csv_is_a_data_error(tmp_path: Path, content: bytes, told: str) -> None:
    """Bytes that are no UTF-8 and a header that names no columns are told, with exit code 3."""
    (tmp_path / "a.csv").write_bytes(content)
    refused(DataError, told, path="csv", data_files=str(tmp_path / "a.csv"))


def test_a_csv_of_a_spreadsheet_is_read(tmp_path: Path) -> None:
    """A byte order mark and Windows line ends are no part of the data."""
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbftext,label\r\nx,1\r\ny,0\r\n")
    rows = opened(path="csv", data_files=str(tmp_path / "a.csv")).splits["train"]
    assert rows.to_dict() == {"text": ["x", "y"], "label": ["1", "0"]}


@pytest.mark.parametrize("form", ["csv", "tsv", "json", "jsonl", "parquet", "arrow", "text"])
def test_an_edited_file_of_the_same_name_and_time_is_read_anew(
    tmp_path: Path, form: str, data_folder: Callable[..., None]
) -> None:
    """Same path, same size, same modification time, other content: the new rows are served."""
    path = tmp_path / f"a.{form}"

    def write(word: str) -> None:
        if form == "csv":
            path.write_text(f"text,label\n{word},1\n")
        elif form == "tsv":
            path.write_text(f"text\tlabel\n{word}\t1\n")
        elif form == "text":
            path.write_text(f"{word}\n")
        elif form == "arrow":
            rows = pyarrow.Table.from_pylist([{"text": word, "label": 1}])
            with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, rows.schema) as stream:
                stream.write_table(rows)
        elif form == "parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"text": word, "label": 1}]), path)
        else:
            path.write_text(json.dumps({"text": word, "label": 1}) + "\n")
        os.utime(path, (1_000_000_000, 1_000_000_000))

    write("old")
    before = opened(path=form, data_files=str(path))
    write("new")
    after = opened(path=form, data_files=str(path))
    assert (before.splits["train"]["text"][:], after.splits["train"]["text"][:]) == (["old"], ["new"])
    assert before.digest != after.digest


def pair(word: str) -> dict[str, list[dict[str, Any]]]:
    """A split of one row."""
    return {"train": [{"sentence1": word, "sentence2": word, "label": 0, "idx": 0}]}


def test_an_edited_folder_is_read_anew(tmp_path: Path, data_folder: Callable[..., None]) -> None:
    """A folder with a README, which `datasets` caches by its name, serves its new rows after an edit."""
    folder = tmp_path / "data"
    found = []
    for word in ("old", "new"):
        data_folder(folder, pair(word))
        for path in folder.iterdir():
            os.utime(path, (1_000_000_000, 1_000_000_000))
        found.append(opened(path=str(folder)))
    assert [raw.splits["train"]["sentence1"][:] for raw in found] == [["old"], ["new"]]
    assert found[0].digest != found[1].digest


def test_folders_of_one_name_share_nothing(tmp_path: Path, data_folder: Callable[..., None]) -> None:
    """Two folders called `data` each serve their own rows."""
    for word in ("one", "two"):
        data_folder(tmp_path / word / "data", pair(word))
    rows = [opened(path=str(tmp_path / word / "data")).splits["train"]["sentence1"][:] for word in ("one", "two")]
    assert rows == [["one"], ["two"]]


def test_equal_data_have_equal_digests(tmp_path: Path, data_folder: Callable[..., None]) -> None:
    """A folder is identified by what is in it, not by where it lies; hidden files don't count."""
    for place in ("one", "two"):
        data_folder(tmp_path / place / "data", pair("x"))
    (tmp_path / "two" / "data" / ".DS_Store").write_text("x")
    first, second = (opened(path=str(tmp_path / place / "data")) for place in ("one", "two"))
    assert first.digest == second.digest
    assert len(first.digest) == 64


def test_class_names_come_with_the_folder(pairs_folder: Path) -> None:
    """Splits and ClassLabel names are those of the README."""
    raw = opened(path=str(pairs_folder))
    assert {name: len(rows) for name, rows in raw.splits.items()} == {"train": 44, "validation": 21, "test": 10}
    assert raw.splits["train"].features["label"].names == ["other", "same"]
    assert raw.commit is None


@pytest.mark.parametrize(
    ("expression", "rows"),
    [
        ("train", range(44)),
        ("train[:4]", range(4)),
        ("train[4:6]", range(4, 6)),
        ("train[-3:]", range(41, 44)),
        ("train[:10%]", range(4)),
        ("validation[20:]", range(20, 21)),
        ("validation[19:1000]", range(19, 21)),
    ],
)
def test_a_split_may_be_a_slice(pairs_folder: Path, expression: str, rows: range) -> None:
    """Rows are counted, or percent of the split are taken, in the order of the data."""
    assert opened(path=str(pairs_folder)).split(expression, "here")["idx"][:] == list(rows)


@pytest.mark.parametrize(
    ("expression", "kind", "told"),
    [
        ("validaton", DataError, "has no split 'validaton'; did you mean 'validation'?"),
        ("dev[:3]", DataError, "has no split 'dev'"),
        ("train[:0]", DataError, "has no rows"),
        ("train[5:5]", DataError, "has no rows"),
        ("train[:1%]", DataError, "has no rows"),
        ("train[:", RecipeError, "is not a slice"),
        ("train[:x]", RecipeError, "is not a slice"),
        ("train[:200%]", RecipeError, "is not a slice"),
        ("train+validation", RecipeError, "is not a slice of one split"),
        ("", DataError, "has no split ''"),
    ],
)
def test_a_split_that_is_none_is_told(pairs_folder: Path, expression: str, kind: type[HfpipeError], told: str) -> None:
    """Unknown splits, empty slices and broken ones are told with the place in the recipe and what is allowed."""
    with pytest.raises(kind) as caught:
        opened(path=str(pairs_folder)).split(expression, "r.yaml:3:1")
    assert str(caught.value).startswith("r.yaml:3:1: ")
    assert told in str(caught.value)


def test_files_by_split_and_by_glob(tmp_path: Path) -> None:
    """A mapping names the files of each split; a glob takes them in the order of their names."""
    for name in ("b", "a", "v"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": name, "label": "x"}) + "\n")
    files = {"train": str(tmp_path / "[ab].jsonl"), "validation": [str(tmp_path / "v.jsonl")]}
    raw = opened(path="jsonl", data_files=files)
    assert {name: rows["text"][:] for name, rows in raw.splits.items()} == {"train": ["a", "b"], "validation": ["v"]}
    assert opened(path="json", data_files=[str(tmp_path / "b.jsonl"), str(tmp_path / "a.jsonl")]).splits["train"][
        "text"
    ][:] == ["b", "a"]


@pytest.mark.parametrize(
    ("dataset", "kind", "told"),
    [
        ({"path": "csv"}, RecipeError, "data_files is missing"),
        ({"path": "csv", "data_files": "nowhere/*.csv"}, DataError, "/nowhere/*.csv'"),
        ({"path": "csv", "data_files": "https://example.com/a.csv"}, RefusedError, "is an address"),
        ({"path": "./nowhere"}, DataError, "no such folder"),
        ({"path": "a.csv"}, RecipeError, "Write path: csv and data_files: a.csv"),
        ({"path": "./a.txt"}, RecipeError, "Write path: text and data_files: a.txt"),
        ({"path": "csv", "data_files": {"../x": "here.csv"}}, RecipeError, "'../x' is no name for a split"),
        ({"path": "csv", "data_files": {"held_out": "here.csv"}}, RecipeError, "'held_out' is no name for a split"),
        ({"path": "nyu-mll/glue", "data_files": "a.csv"}, RecipeError, "data_files go with a format"),
        ({"path": "embedded:nothing"}, RecipeError, "no embedded data set is named 'nothing'"),
        ({"path": "../x/../y"}, DataError, "no such folder"),
    ],
)
def test_data_that_are_not_there_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: dict[str, Any], kind: type[HfpipeError], told: str
) -> None:
    """Each way of naming nothing has its own sentence."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.csv").write_text("text\nx\n")
    refused(kind, told, **dataset)


def test_a_folder_without_data_and_a_broken_file_are_told(tmp_path: Path) -> None:
    """An empty folder, a parquet file that is none and a revision of a local folder are refused."""
    (tmp_path / "empty").mkdir()
    refused(DataError, "can't be read", path=str(tmp_path / "empty"))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    refused(DataError, "a.parquet) can't be read", path="parquet", data_files=str(tmp_path / "a.parquet"))
    refused(DataError, "It is a folder: name its files, ", path="parquet", data_files=str(tmp_path / "empty"))
    refused(RecipeError, "a revision for a local folder", path=str(tmp_path / "empty"), revision="main")


def test_an_unknown_configuration_is_told(pairs_folder: Path) -> None:
    """A wrong `dataset.name` lists the configurations there are."""
    refused(DataError, "default", path=str(pairs_folder), name="mrpc")


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    """The same three rows come out of csv, tsv, json as lines and as a list, jsonl, parquet and arrow."""
    rows = [{"text": 'a "b", c', "label": "x"}, {"text": "d", "label": "y"}, {"text": "ä\u2028", "label": "x"}]
    table = pyarrow.Table.from_pylist(rows)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "a.csv").write_text('text,label\n"a ""b"", c",x\nd,y\n\nä\u2028,x\n', encoding="utf-8")
    (tmp_path / "a.tsv").write_text('text\tlabel\n"a ""b"", c"\tx\nd\ty\nä\u2028\tx', encoding="utf-8")
    (tmp_path / "a.jsonl").write_text(lines + "\n")
    (tmp_path / "lines.json").write_text(lines)
    (tmp_path / "list.json").write_text("\n" + json.dumps(rows, indent=1) + "\n")
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pyarrow.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    for path in sorted(tmp_path.iterdir()):
        found = opened(path=path.suffix[1:], data_files=str(path)).splits["train"]
        assert found[:] == {"text": [row["text"] for row in rows], "label": ["x", "y", "x"]}, path


def test_a_text_file_is_a_row_a_line(tmp_path: Path) -> None:
    """Empty lines are rows too, and only line ends end a line."""
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\n\ntwo\u2028\x0b three\nlast".encode())
    found = opened(path="text", data_files=str(tmp_path / "a.txt")).splits["train"]
    assert found[:] == {"text": ["one", "", "two\u2028\x0b three", "last"]}


@pytest.mark.parametrize(
    ("form", "content", "options", "expected"),
    [
        ("csv", "text;label\nä, b;x\n".encode("latin-1"), {"encoding": "latin-1", "separator": ";"}, "ä, b"),
        ("csv", "text,label\nä,x\n".encode("utf-16"), {"encoding": "utf-16"}, "ä"),
        ("csv", b"text,label\n'a, \"b',x\n", {"quote": "'"}, 'a, "b'),
        ("csv", b'text,label\n"a" b,x\n', {"quote": None}, '"a" b'),
        ("tsv", b'text\tlabel\n"a, b\tx\n', {"quote": None}, '"a, b'),
        ("jsonl", '{"text": "ä", "label": "x"}'.encode("cp1252"), {"encoding": "cp1252"}, "ä"),
        ("json", '[{"text": "ä", "label": "x"}]'.encode("utf-16"), {"encoding": "utf-16"}, "ä"),
    ],
)
def test_encoding_separator_and_quote_can_be_given(
    tmp_path: Path, form: str, content: bytes, options: dict[str, Any], expected: str
) -> None:
    """A file of another encoding, separator or quote reads as it was meant."""
    (tmp_path / "a").write_bytes(content)
    found = opened(path=form, data_files=str(tmp_path / "a"), **options).splits["train"]
    assert found[:] == {"text": [expected], "label": ["x"]}


@pytest.mark.parametrize(
    ("dataset", "told"),
    [
        ({"path": "jsonl", "separator": ";"}, "`separator` does nothing with path: jsonl"),
        ({"path": "parquet", "quote": None}, "`quote` does nothing with path: parquet"),
        ({"path": "parquet", "encoding": "latin-1"}, "`encoding` does nothing with path: parquet"),
        ({"path": "org/data", "separator": ";"}, "`separator` does nothing with path: org/data"),
        ({"path": "jsonl", "field": "data"}, "`field` does nothing with path: jsonl"),
        ({"path": "csv", "columns": ["a"]}, "`columns` does nothing with path: csv"),
        ({"path": "conll", "columns": ["a", "a"]}, "`columns` are different names"),
        (
            {"path": "csv", "decimal": ","},
            "`dataset.decimal` says how numbers are written, and text-classification learns none",
        ),
        ({"path": "csv", "decimal": ",", "thousands": ","}, "`decimal` and `thousands` are two characters"),
        ({"path": "csv", "separator": '"'}, "two characters within a line"),
        ({"path": "csv", "quote": ","}, "two characters within a line"),
        ({"path": "tsv", "separator": "ab"}, "dataset.separator: string should have at most 1 character"),
        ({"path": "csv", "encoding": "utf-9"}, "dataset.encoding: Python knows no such text encoding"),
        ({"path": "csv", "encoding": "rot13"}, "Python knows no such text encoding"),
    ],
)
def test_an_option_that_does_nothing_for_the_format_is_refused(dataset: dict[str, Any], told: str) -> None:
    """Reading options belong to text formats, and have to make sense together."""
    refused(RecipeError, told, data_files="x", **dataset)


def test_types_are_those_of_the_whole_json_file(tmp_path: Path) -> None:
    """A fraction, a null or a filled list that comes late changes no row before it; nothing is guessed from a text."""
    rows = [{"n": 1, "day": "2024-01-01T00:00:00", "tags": [], "o": {"a": 1}, "x": None} for _ in range(1500)]
    rows.append({"n": 0.5, "day": "007", "tags": ["t"], "o": {"a": None, "b": "c"}, "x": "late"})
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = opened(path="jsonl", data_files=str(tmp_path / "a.jsonl")).splits["train"]
    assert found[1499] == {**rows[1499], "o": {"a": 1, "b": None}}
    assert found[1500] == rows[1500]


def test_files_of_a_split_are_one_table(tmp_path: Path) -> None:
    """Columns go by their names over the files of a split; other columns are refused; splits may differ."""
    (tmp_path / "1.csv").write_text("text,label\na,x\n")
    (tmp_path / "2.csv").write_text("label,text\ny,b\n")
    (tmp_path / "3.csv").write_text("text\nc\n")
    files = {"train": [str(tmp_path / "1.csv"), str(tmp_path / "2.csv")], "test": str(tmp_path / "3.csv")}
    raw = opened(path="csv", data_files=files)
    assert raw.splits["train"][:] == {"text": ["a", "b"], "label": ["x", "y"]}
    assert raw.splits["test"][:] == {"text": ["c"]}
    refused(
        DataError, "3.csv:1: the columns are text; allowed: text, label", path="csv", data_files=f"{tmp_path}/*.csv"
    )


def test_damaged_rows_of_the_cache_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed or missing file of the cache is noticed, and made again from the data files."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "a.csv").write_text("text\nx\n")
    for spoil in (lambda path: path.write_bytes(path.read_bytes()[:-9]), lambda path: path.unlink()):
        assert opened(path="csv", data_files=str(tmp_path / "a.csv")).notices == ()
        (arrow,) = (tmp_path / "cache").rglob("*.arrow")
        spoil(arrow)
        again = opened(path="csv", data_files=str(tmp_path / "a.csv"))
        assert again.splits["train"]["text"][:] == ["x"]
        assert "read again" in again.notices[0]
    assert not list((tmp_path / "cache").rglob("part-*"))


def test_text_files_of_a_folder_are_read_as_text_too(tmp_path: Path) -> None:
    """A folder of csv or jsonl without a README is read as `csv` and `jsonl` are: no `NA` is lost, no `007` shortened."""
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "train.csv").write_text("text,label\nNA,007\n")
    (tmp_path / "c" / "test.csv").write_text("text,label\nnull,008\n")
    raw = opened(path=str(tmp_path / "c"))
    assert raw.splits["train"][:] == {"text": ["NA"], "label": ["007"]}
    assert raw.splits["test"][:] == {"text": ["null"], "label": ["008"]}
    (tmp_path / "j").mkdir()
    (tmp_path / "j" / "train.jsonl").write_text('{"text": "a", "text": "b"}\n')
    refused(DataError, "train.jsonl:1: the key 'text' is there twice", path=str(tmp_path / "j"))


def test_a_folder_of_save_to_disk_is_opened(tmp_path: Path) -> None:
    """What `save_to_disk` wrote, one data set or several splits, is read as it is."""
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=rows, test=rows.select([1]).with_format("numpy")).save_to_disk(tmp_path / "two")
    assert opened(path=str(tmp_path / "one")).splits["train"][:] == rows[:]
    two = opened(path=str(tmp_path / "two"))
    assert {name: part["text"][:] for name, part in two.splits.items()} == {"train": ["a", "b"], "test": ["b"]}
    assert len(two.digest) == 64
    refused(RecipeError, "has no configurations", path=str(tmp_path / "two"), name="mrpc")
    (tmp_path / "one" / "state.json").write_text("{}")
    refused(DataError, "can't be read", path=str(tmp_path / "one"))


def given(data: Any, **splits: Any) -> RawData:
    """Data from memory."""
    return given_data(load_recipe({"dataset": {"path": "./d", "splits": splits}, **OTHERS}), data)


def test_data_sets_come_from_memory() -> None:
    """A mapping of splits, a DatasetDict, or one data set, which is the split `train`."""
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    assert given(rows.with_format("torch")).splits["train"][:] == rows[:]
    assert given({"train": rows}).splits["train"][:] == rows[:]
    with pytest.raises(DataError, match="has no split 'train'"):
        given({}).split("train", "dataset.splits.train")
    assert list(given(datasets.DatasetDict(train=rows, test=rows)).splits) == ["train", "test"]
    assert given(rows).digest != given(rows.select([0])).digest


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (pandas.DataFrame({"text": ["a"]}), "a pandas.DataFrame; allowed: .* Use datasets.Dataset.from_pandas"),
        ([{"text": "a"}], "a list; .* Use datasets.Dataset.from_list"),
        ({"train": pandas.DataFrame({"text": ["a"]})}, "split 'train' of the given data set is a pandas.DataFrame"),
        ({"text": ["a"], "label": ["x"]}, "split 'text' of the given data set is a list"),
        ({"train": {"text": ["a"]}}, "split 'train' of the given data set is a dict; .*from_dict"),
        ("nyu-mll/glue", "a str; .* Name a path in the recipe's dataset.path"),
        (datasets.Dataset.from_dict({"a": [1]}).to_iterable_dataset(), "datasets.IterableDataset"),
    ],
)
def test_what_is_no_data_set_is_told_how_to_become_one(data: Any, told: str) -> None:
    """Anything else from Python is refused with the call that makes a data set of it."""
    with pytest.raises(RecipeError, match=told):
        given(data)


ROWS = datasets.Dataset.from_dict({"text": [f"t{row}" for row in range(100)], "label": [0] * 80 + [1] * 18 + [2] * 2})


@pytest.mark.parametrize(("hold_out", "aside"), [(0.1, 10), (0.004, 1), (25, 25), (99, 99)])
def test_rows_are_held_out_by_the_seed(hold_out: float, aside: int) -> None:
    """They are so many, disjoint from the training rows, in the order of the data, and the same for the same seed."""
    recipe = load_recipe({"dataset": {"path": "./d", "splits": {"hold_out": hold_out}}, **OTHERS})
    assert recipe.dataset.splits.evaluation == "held_out"
    raw, again = given_data(recipe, ROWS), given_data(recipe, ROWS)
    train, held = (raw.split(name, "")["text"][:] for name in ("train", "held_out"))
    assert (len(train), len(held)) == (100 - aside, aside)
    assert sorted(train + held) == sorted(ROWS["text"][:])
    assert all(part == sorted(part, key=lambda text: int(text[1:])) for part in (train, held))
    assert again.split("held_out", "")["text"][:] == held
    assert again.digest == raw.digest != given(ROWS).digest
    other = given_data(load_recipe({**json.loads(recipe.model_dump_json()), "seed": 7}), ROWS)
    assert other.split("held_out", "")["text"][:] != held
    assert other.digest != raw.digest


def test_held_out_rows_may_keep_the_classes_in_proportion() -> None:
    """Stratified, every class gives its share, and keeps a row to learn from."""
    for hold_out, expected in ((0.1, [8, 2, 0]), (50, [40, 9, 1]), (97, [79, 17, 1]), (3, [2, 1, 0])):
        raw = given(ROWS, hold_out=hold_out, stratify=True)
        assert np.bincount(raw.splits["held_out"]["label"][:], minlength=3).tolist() == expected
        assert len(raw.splits["train"]) + sum(expected) == 100
    with pytest.raises(DataError, match="leave a row of each of the 3 classes; allowed: up to 97 rows"):
        given(ROWS, hold_out=98, stratify=True)
    texts = ROWS.cast_column("label", datasets.Value("string"))
    assert (
        given(texts, hold_out=0.1, stratify=True).splits["held_out"]["text"][:]
        == (given(ROWS, hold_out=0.1, stratify=True).splits["held_out"]["text"][:])
    )


def test_slices_are_taken_beside_the_held_out_rows(pairs_folder: Path) -> None:
    """A slice of the training split has no held-out row, and which rows those are does not depend on it."""
    splits = {"train": "train[:10]", "hold_out": 0.5, "evaluation": "held_out[:6]"}
    raw = opened(path=str(pairs_folder), splits=splits)
    train, held = (raw.split(splits[name], "")["idx"][:] for name in ("train", "evaluation"))
    assert (len(train), len(held), len(raw.splits["held_out"])) == (10, 6, 22)
    assert not set(train) & set(held)
    whole = opened(path=str(pairs_folder), splits={"hold_out": 0.5})
    assert whole.splits["held_out"]["idx"][:] == raw.splits["held_out"]["idx"][:]
    assert len(whole.splits["validation"]) == 21


@pytest.mark.parametrize(
    ("splits", "kind", "told"),
    [
        ({"hold_out": 100}, DataError, "100 of 100 rows would be set aside; allowed: up to 99 rows"),
        ({"hold_out": 0.999}, DataError, "100 of 100 rows would be set aside"),
        ({"hold_out": 0}, RecipeError, "hold_out"),
        ({"hold_out": 1.0}, RecipeError, "a share between 0 and 1, or a whole number of rows"),
        ({"hold_out": -0.1}, RecipeError, "a share between 0 and 1, or a whole number of rows"),
        ({"hold_out": True}, RecipeError, "hold_out"),
        ({"hold_out": "10%"}, RecipeError, "hold_out"),
        (
            {"hold_out": 0.1, "evaluation": "validation"},
            RecipeError,
            "say evaluation: held_out, or remove one of the two",
        ),
        ({"hold_out": 0.1, "evaluation": None}, RecipeError, "`evaluation` is null"),
        ({"stratify": True}, RecipeError, "`stratify` does nothing without `hold_out`"),
        ({"hold_out": 0.1, "train": "trian"}, DataError, "has no split 'trian'; did you mean 'train'"),
        ({"hold_out": 0.1, "train": "train["}, RecipeError, "is not a slice"),
    ],
)
def test_rows_that_can_not_be_held_out_are_told(splits: dict[str, Any], kind: type[HfpipeError], told: str) -> None:
    """Too many rows, no share, another evaluation split, and options that do nothing are refused."""
    with pytest.raises(kind) as caught:
        given(ROWS, **splits).split(splits.get("train", "train"), "dataset.splits.train")
    assert told in str(caught.value)


def test_stratify_needs_one_class_a_row() -> None:
    """Kinds of task without one class a row, a column that is not there and a column of lists are refused."""
    fields = {"dataset": {"path": "./d", "splits": {"hold_out": 0.1, "stratify": True}}, "model": {"checkpoint": "./m"}}
    with pytest.raises(RecipeError, match="text-regression has none"):
        load_recipe({**fields, "task": {"text": "text", "kind": "text-regression"}})
    with pytest.raises(DataError, match="no column 'verdict'"):
        given_data(load_recipe({**fields, "task": {"text": "text", "label": "verdict"}}), ROWS)
    lists = datasets.Dataset.from_dict({"text": [["a"], ["b"]]})
    with pytest.raises(DataError, match=r"column 'text' holds list.* Remove stratify"):
        given_data(load_recipe({**fields, "task": {"text": "text", "label": "text"}}), lists)
    with pytest.raises(RecipeError, match="has a split 'held_out' of its own"):
        given({"train": ROWS, "held_out": ROWS}, hold_out=0.1)


def test_the_resolved_recipe_says_what_is_evaluated(tmp_path: Path) -> None:
    """`hold_out` writes `evaluation: held_out` into the recipe, which reads back equal; missing splits suggest it."""
    recipe = load_recipe({"dataset": {"path": "csv", "data_files": "x", "splits": {"hold_out": 3}}, **OTHERS})
    (tmp_path / "r.yaml").write_text(to_yaml(recipe))
    assert "evaluation: held_out" in to_yaml(recipe)
    assert load_recipe(tmp_path / "r.yaml") == recipe
    with pytest.raises(DataError, match=r"Where there is none, `dataset\.splits\.hold_out=0\.1`"):
        given(ROWS).split("validation", "r.yaml:3:1: dataset.splits.evaluation")
