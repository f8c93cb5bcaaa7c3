"""Raw data: read as they stand in the file, identified by content, never served from an older file's cache."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hfpipe.errors import DataError, HfpipeError, RecipeError
from hfpipe.parts.data import RawData, open_data
from hfpipe.recipe import load_recipe

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
        (b"text,label\nx\xff,1\n", "not UTF-8 at byte 12"),
        (b"text,label\n" + b"x,1\n" * 100_000 + b"x\xff,1\n", "can't be read"),
        (b"t\xff,label\nx,1\n", "not UTF-8 at byte 1"),
        (b"text,text\na,b\n", "one line of different column names"),
        (b"", "the header is []"),
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


@pytest.mark.parametrize("form", ["csv", "json", "jsonl", "parquet"])
def test_an_edited_file_of_the_same_name_and_time_is_read_anew(
    tmp_path: Path, form: str, data_folder: Callable[..., None]
) -> None:
    """Same path, same size, same modification time, other content: the new rows are served."""
    path = tmp_path / f"a.{form}"

    def write(word: str) -> None:
        if form == "csv":
            path.write_text(f"text,label\n{word},1\n")
        elif form == "parquet":
            import pyarrow
            import pyarrow.parquet

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
        ({"path": "csv", "data_files": "nowhere/*.csv"}, DataError, "no file at 'nowhere/*.csv'"),
        ({"path": "csv", "data_files": "https://example.com/a.csv"}, RecipeError, "is an address"),
        ({"path": "./nowhere"}, DataError, "no such folder"),
        ({"path": "a.csv"}, RecipeError, "Write path: csv and data_files: a.csv"),
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
    refused(kind, told, **dataset)


def test_a_folder_without_data_and_a_broken_file_are_told(tmp_path: Path) -> None:
    """An empty folder, a parquet file that is none and a revision of a local folder are refused."""
    (tmp_path / "empty").mkdir()
    refused(DataError, "can't be read", path=str(tmp_path / "empty"))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    refused(DataError, "can't be read", path="parquet", data_files=str(tmp_path / "a.parquet"))
    refused(RecipeError, "a revision for a local folder", path=str(tmp_path / "empty"), revision="main")


def test_an_unknown_configuration_is_told(pairs_folder: Path) -> None:
    """A wrong `dataset.name` lists the configurations there are."""
    refused(DataError, "default", path=str(pairs_folder), name="mrpc")
