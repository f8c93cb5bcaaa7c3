"""Looking into a data set without loading it: the Hub's viewer, streams, files and the local cache."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pytest
from typer.testing import CliRunner

from hfpipe.cli.app import app
from hfpipe.errors import DataError
from hfpipe.parts.data import peek as peeking
from hfpipe.parts.data.peek import peek

# What the viewer answers, in its own shape, for a set with two configurations.
ANSWERS: dict[str, dict[str, Any]] = {
    "splits": {
        "splits": [
            {"dataset": "a/b", "config": "one", "split": "train"},
            {"dataset": "a/b", "config": "one", "split": "test"},
            {"dataset": "a/b", "config": "two", "split": "train"},
        ]
    },
    "size": {"size": {"splits": [{"split": "train", "num_rows": 10**9}, {"split": "test", "num_rows": 7}]}},
    "first-rows": {
        "features": [
            {"feature_idx": 0, "name": "text", "type": {"dtype": "string", "_type": "Value"}},
            {"feature_idx": 1, "name": "label", "type": {"names": ["no", "yes"], "_type": "ClassLabel"}},
            {
                "feature_idx": 2,
                "name": "tags",
                "type": {"feature": {"dtype": "int64", "_type": "Value"}, "_type": "List"},
            },
        ],
        "rows": [{"row_idx": row, "row": {"text": f"t{row}", "label": 0, "tags": []}} for row in range(100)],
    },
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, str]]]:
    """The questions that the viewer got; the Hub counts as reachable."""
    questions: list[tuple[str, dict[str, str]]] = []

    def ask(endpoint: str, parameters: Mapping[str, str]) -> dict[str, Any] | None:
        questions.append((endpoint, dict(parameters)))
        return ANSWERS.get(endpoint)

    monkeypatch.setattr(peeking, "_ask", ask)
    monkeypatch.setattr(peeking.hub, "is_offline", lambda: False)
    return questions


def test_the_viewer_is_asked_first(asked: list[tuple[str, dict[str, str]]]) -> None:
    """Sizes, features and rows come from three small answers; nothing is downloaded."""
    seen = peek("a/b", "one", rows=2)
    assert [endpoint for endpoint, _ in asked] == ["splits", "size", "first-rows"]
    assert asked[-1][1] == {"dataset": "a/b", "config": "one", "split": "train"}
    assert seen.splits == {"train": 10**9, "test": 7}
    assert seen.features == {"text": "string", "label": "class of no, yes", "tags": "list of int64"}
    assert [row["text"] for row in seen.rows] == ["t0", "t1"]
    assert (seen.config, seen.configs) == ("one", ["one", "two"])


def test_a_missing_choice_is_told_with_what_there_is(asked: list[tuple[str, dict[str, str]]]) -> None:
    """Without a configuration, with a wrong one, and with a wrong split, the names are listed."""
    with pytest.raises(DataError, match="a/b has several configurations; allowed: one, two"):
        peek("a/b")
    with pytest.raises(DataError, match="no configuration 'onne'; did you mean 'one'"):
        peek("a/b", "onne")
    with pytest.raises(DataError, match="no split 'tst'; did you mean 'test'"):
        peek("a/b", "one", "tst")


def test_a_set_without_a_viewer_is_streamed(asked: list[tuple[str, dict[str, str]]], monkeypatch: Any) -> None:
    """Where the viewer has no answer, the rows are streamed from the Hub."""
    monkeypatch.setitem(ANSWERS, "splits", {})
    called: list[tuple[Any, ...]] = []

    def streamed(*arguments: Any) -> str:
        called.append(arguments)
        return "streamed"

    monkeypatch.setattr(peeking, "_streamed", streamed)
    assert peek("a/b", "one", rows=3) == "streamed"
    assert called == [("a/b", "a/b", "one", None, 3)]


# A stream that is left before its end closes its file when it is collected, which warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl", "rows.parquet", "rows.txt"])
def test_files_are_read_no_further_than_shown(name: str, tmp_path: Path) -> None:
    """The first rows of a file of each format, with its columns; parquet also says how many rows it has."""
    file = tmp_path / name
    table = datasets.Dataset.from_dict({"text": ["x", "y", "z"], "label": ["a", "b", "c"]})
    if name.endswith("parquet"):
        table.to_parquet(file)
    elif name.endswith("jsonl"):
        file.write_text("".join(json.dumps(row) + "\n" for row in table))
    elif name.endswith("txt"):
        file.write_text("x\ny\nz\n")
    else:
        between = "\t" if name.endswith("tsv") else ","
        file.write_text("".join(f"{a}{between}{b}\n" for a, b in [("text", "label"), *zip("xyz", "abc", strict=True)]))
    seen = peek(str(file), rows=2)
    assert [row["text"] for row in seen.rows] == ["x", "y"]
    assert seen.splits == {"train": 3 if name.endswith("parquet") else None}
    assert "text" in seen.features
    gc.collect()


@pytest.mark.parametrize(
    ("name", "content", "first", "said"),
    [
        ("a.csv", "id;text\n007;ä, b\n", {"id": "007", "text": "ä, b"}, 'dataset.separator: ";"'),
        ("a.csv", "sep=;\nid;text\n007;ä\n", {"id": "007", "text": "ä"}, ""),
        ("a.csv", "id,text\n007,ä\n".encode("utf-16"), {"id": "007", "text": "ä"}, "is read as utf-16"),
        ("a.json", json.dumps({"v": 1, "data": [{"text": "a"}]}, indent=1), {"text": "a"}, "those of 'data'"),
        ("a.conll", "a B-X\nb O\n\nc O\n", {"tokens": ["a", "b"], "tags": ["B-X", "O"]}, ""),
    ],
)
def test_a_file_is_shown_as_a_recipe_reads_it(
    tmp_path: Path, name: str, content: str | bytes, first: dict[str, Any], said: str
) -> None:
    """Numbers stay text, a separator is found and said, a mark is followed, documents and sentences are rows."""
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    seen = peek(str(tmp_path / name), rows=1)
    assert (seen.rows, said in seen.source) == ([first], True)


def test_the_embedded_set_and_the_command(tmp_path: Path) -> None:
    """`hfpipe peek embedded:paraphrases` prints rows and classes, and with --json one object."""
    told = CliRunner().invoke(app, ["peek", "embedded:paraphrases", "--rows", "2"])
    assert told.exit_code == 0, told.output
    assert "sentence1: string" in told.stdout
    seen = json.loads(CliRunner().invoke(app, ["peek", "embedded:paraphrases", "--rows", "2", "--json"]).stdout)
    assert len(seen["rows"]) == 2


def test_offline_without_a_copy_says_how_to_get_one() -> None:
    """A set that is not in the cache is an error with the download command, not a wait for the network."""
    with pytest.raises(DataError, match="hf download --repo-type dataset no/such"):
        peek("no/such")


def test_what_lies_here_is_not_looked_for_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without ./, a missing file, a file of another kind and a configuration of a file are each told."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows").mkdir()
    (tmp_path / "notes.py").write_text("")
    (tmp_path / "rows.csv").write_text("text\nx\n")
    with pytest.raises(DataError, match=r"Write \./rows for the folder"):
        peek("rows")
    with pytest.raises(DataError, match=r"no file 'nothing\.jsonl'"):
        peek("nothing.jsonl")
    with pytest.raises(DataError, match=r"'notes\.py'; allowed: a file ending in \.csv"):
        peek("notes.py")
    with pytest.raises(DataError, match=r"CONFIG: rows\.csv is a file and has no configurations"):
        peek("rows.csv", "mrpc")


def test_a_long_row_is_cut_and_said(tmp_path: Path) -> None:
    """A page of a long text, a long list and many classes fits a screen, and says what it left out; --full does not cut."""
    row = {"text": "word " * 3460, "tags": list(range(500)), "inner": {"body": "x" * 5000}}
    (tmp_path / "long.jsonl").write_text(json.dumps(row) + "\n")
    run = CliRunner().invoke
    cut = run(app, ["peek", str(tmp_path / "long.jsonl")])
    assert cut.exit_code == 0
    assert len(cut.stdout) < 1500
    assert "(17,300 characters)" in cut.stdout
    assert "(500 items)" in cut.stdout
    assert "(5,000 characters)" in cut.stdout
    assert "3 long values cut; --full shows them whole" in cut.stderr
    whole = run(app, ["peek", str(tmp_path / "long.jsonl"), "--full"])
    assert json.loads(whole.stdout.splitlines()[-1]) == row
    assert json.loads(run(app, ["peek", str(tmp_path / "long.jsonl"), "--json"]).stdout)["rows"] == [row]


def test_many_columns_share_the_line(tmp_path: Path) -> None:
    """With 400 columns a row is cut shorter, and a value still has its beginning."""
    (tmp_path / "wide.jsonl").write_text(json.dumps({f"c{number}": "y" * 200 for number in range(400)}) + "\n")
    done = CliRunner().invoke(app, ["peek", str(tmp_path / "wide.jsonl")])
    assert len(done.stdout.splitlines()[-1]) < 400 * 100
    assert "y" * 40 + "... (200 characters)" in done.stdout
