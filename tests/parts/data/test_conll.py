"""conll files: words with their tags, whatever their columns, comments, separators and marks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hfpipe.errors import DataError, RecipeError, RefusedError
from hfpipe.parts.data.open import RawData, open_data
from hfpipe.recipe import Recipe, load_recipe

TASK = {"kind": "token-classification", "text": "tokens", "label": "ner"}
Opened = Callable[..., RawData]


def recipe_of(**dataset: Any) -> Recipe:
    """A recipe with this section of data."""
    return load_recipe({"dataset": dataset, "task": TASK, "model": {"checkpoint": "./m"}})


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """Writes a file and opens it."""

    def open_file(content: str | bytes, **options: Any) -> RawData:
        path = tmp_path / "rows.conll"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return open_data(recipe_of(path="conll", data_files=str(path), **options))

    return open_file


CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
# CD B-NP O
. . O O

-DOCSTART- -X- -X- O

Peter NNP B-NP B-PER
"""


def test_conll_2003_is_read_with_its_tags(opened: Opened) -> None:
    """Documents are no sentences, a # among the words is one, and the first and the last column are the task's."""
    raw = opened(CONLL_2003)
    assert raw.splits["train"].to_dict() == {
        "tokens": [["EU", "rejects", "#", "."], ["Peter"]],
        "ner": [["B-ORG", "O", "O", "O"], ["B-PER"]],
    }
    assert "has 4 columns: the first is read as 'tokens', the last as 'ner'" in raw.notices[0]
    named = opened(CONLL_2003, columns=["tokens", "pos", "chunk", "ner"])
    assert named.splits["train"]["pos"][:] == [["NNP", "VBZ", "CD", "."], ["NNP"]]
    assert named.splits["train"].column_names == ["tokens", "pos", "chunk", "ner"]
    assert named.notices == ()


@pytest.mark.parametrize(
    ("content", "tokens", "tags"),
    [
        ("a\tB-X\nb\tO\n\nc\tO\n", [["a", "b"], ["c"]], [["B-X", "O"], ["O"]]),
        ("a B-X\r\nb O\r\n\r\nc O\r\n\r\n\r\n", [["a", "b"], ["c"]], [["B-X", "O"], ["O"]]),
        ("\n\n a   B-X\n b \t O \n", [["a", "b"]], [["B-X", "O"]]),
        ("New York\tB-X\n1\u00a0000\tO\n \t\nc\tO", [["New York", "1\u00a0000"], ["c"]], [["B-X", "O"], ["O"]]),
        ("a\u2028b O\nc O\n", [["a\u2028b", "c"]], [["O", "O"]]),
        ("# id 12 x=y\na O\n# O\n\n# O\nb O\n", [["a", "#"], ["#", "b"]], [["O", "O"], ["O", "O"]]),
        ("# id d=en\na O\n\n#tag B-X\nb O\nc B-X\n", [["a"], ["#tag", "b", "c"]], [["O"], ["B-X", "O", "B-X"]]),
        ("#begin document (x);\na O\n\n#end document\n", [["a"]], [["O"]]),
        ("a\tB-X\t\nb\tO\n", [["a", "b"]], [["B-X", "O"]]),
    ],
)
def test_sentences_are_what_lies_between_empty_lines(
    opened: Opened, content: str, tokens: list[list[str]], tags: list[list[str]]
) -> None:
    """Tabs or spaces, Windows line ends, empty lines at both ends or with white space in them, comments and # as a word."""
    assert opened(content).splits["train"].to_dict() == {"tokens": tokens, "ner": tags}


def test_comments_are_counted(opened: Opened) -> None:
    """Who had words that begin with # taken for comments reads how many."""
    assert "2 lines with # at the start are read as comments" in opened("# a\na O\n\n# b c d\nb O\n").notices[0]


CONLL_U = (
    "# sent_id = 1\n# text = du lac\n1-2\tdu\t_\t_\t_\t_\t_\t_\t_\t_\n1\tde\tde\tADP\t_\t_\t3\tcase\t_\t_\n"
    "2\tle\tle\tDET\t_\t_\t3\tdet\t_\t_\n3\tlac\tlac\tNOUN\t_\tNumber=Sing\t0\troot\t_\t_\n"
    "3.1\tvu\tvu\tVERB\t_\t_\t_\t_\t_\t_\n# inside\n4\t#\t#\tSYM\t_\t_\t3\tpunct\t_\t_\n\n"
)


def test_conll_u_has_its_own_columns(opened: Opened) -> None:
    """The names of the format, without what is no word of the sentence: ranges, empty nodes, comments."""
    rows = opened(CONLL_U).splits["train"]
    assert (rows["form"][0], rows["upos"][0]) == (["de", "le", "lac", "#"], ["ADP", "DET", "NOUN", "SYM"])
    assert rows.column_names[:4] == ["id", "form", "lemma", "upos"]


GERMEVAL = "#\thttp://x [2009]\n1\tIn\tO\tO\n2\tKöln\tB-LOC\tO\n\n#\thttp://y\n1\t#\tO\tO\n"


def test_a_column_of_numbers_is_no_word(opened: Opened) -> None:
    """Where rows begin with the number of the word, nobody guesses which column is what."""
    with pytest.raises(
        DataError, match=r"rows\.conll:2: the first of 4 columns counts the words.*dataset\.columns: \[id"
    ):
        opened(GERMEVAL)
    rows = opened(GERMEVAL, columns=["id", "tokens", "ner", "inner"]).splits["train"]
    assert (rows["tokens"][:], rows["ner"][:]) == ([["In", "Köln"], ["#"]], [["O", "B-LOC"], ["O"]])


@pytest.mark.parametrize(
    ("content", "options", "told"),
    [
        ("a O\nNew York B-X\n", {}, "rows.conll:2: 3 fields between white space, and line 1 has 2: 'New York B-X'"),
        ("a\tO\n\nb\n", {}, "rows.conll:3: 1 field between '\\t', and line 1 has 2: 'b'"),
        ("a O\n# of\n\n# x y z\nb O\n# x y z\n", {}, "rows.conll:6: 4 fields between white space"),
        ("a\tO\n\tO\n", {}, "rows.conll:2: field 1 of 2 is empty"),
        ("a\tx\tO\nb\t\tO\n", {}, "rows.conll:2: field 2 of 3 is empty"),
        ("a O\n", {"columns": ["tokens", "pos", "ner"]}, "rows.conll:1: 2 fields, and dataset.columns names 3"),
        ("\n\n", {}, "rows.conll: the file has no rows"),
        ("# only a comment\n", {}, "rows.conll: the file has no rows"),
        ("a O\n\0 O\n", {}, "rows.conll:2: a NUL character"),
    ],
)
def test_a_broken_file_is_told_by_line(opened: Opened, content: str, options: dict[str, Any], told: str) -> None:
    """Uneven rows, empty fields, other columns than were named."""
    with pytest.raises(DataError) as caught:
        opened(content, **options)
    assert told in str(caught.value), str(caught.value)


def test_separator_encoding_and_compression_are_those_of_text_files(opened: Opened, tmp_path: Path) -> None:
    """A separator that is said, a byte order mark, a line by its encoding, and a gzip file."""
    import gzip

    assert opened("a b;O\nc;O\n", separator=";").splits["train"]["tokens"][:] == [["a b", "c"]]
    assert opened("ä\tO\n".encode("utf-16")).splits["train"]["tokens"][:] == [["ä"]]
    with pytest.raises(DataError, match=r"rows\.conll:2: not utf-8 at byte 4 .*it reads 'ä O'"):
        opened("a O\nä O\n".encode("cp1252"))
    (tmp_path / "a.conll.gz").write_bytes(gzip.compress(b"a O\n"))
    raw = open_data(recipe_of(path="conll", data_files=str(tmp_path / "a.conll.gz")))
    assert raw.splits["train"]["ner"][:] == [["O"]]


@pytest.mark.parametrize("ending", ["conll", "conllu", "bio", "iob", "iob2", "conll.gz"])
def test_a_folder_has_its_splits_and_its_tags(tmp_path: Path, ending: str) -> None:
    """train, dev and test by the names of the files; notes beside them are none."""
    import gzip

    for split in ("train", "dev", "test"):
        content = f"{split}\tB-X\nb\tO\n".encode()
        (tmp_path / f"{split}.{ending}").write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
    (tmp_path / "README.md").write_text("Words.\n")
    (tmp_path / "license.txt").write_text("Free.\n")
    raw = open_data(recipe_of(path=str(tmp_path)))
    assert {split: rows["tokens"][0][0] for split, rows in raw.splits.items()} == {
        "train": "train",
        "validation": "dev",
        "test": "test",
    }
    assert raw.splits["validation"]["ner"][:] == [["B-X", "O"]]
    named = open_data(recipe_of(path=str(tmp_path), columns=["words", "tags"]))
    assert named.splits["train"].column_names == ["words", "tags"]
    streamed = {"dataset": {"path": str(tmp_path), "streaming": True}, "task": TASK, "model": {"checkpoint": "./m"}}
    from hfpipe.parts.data.streams import open_stream

    with pytest.raises(RecipeError, match="conll files are not streamed"):
        open_stream(load_recipe({**streamed, "train": {"max_steps": 1}}))
    outside = tmp_path.parent / f"outside.{ending}"
    (tmp_path / f"train.{ending}").rename(outside)
    (tmp_path / f"train.{ending}").symlink_to(outside)
    with pytest.raises(RefusedError, match="leads out of"):
        open_data(recipe_of(path=str(tmp_path)))


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        (["B-X I-X O", "B-X O B-Y"], "IOB2"),
        (["I-X I-X O", "I-X B-X O"], "IOB1"),
        (["B-X E-X O", "S-Y O O"], "BILOU"),
        (["B-X L-X O", "U-Y O O"], "BILOU"),
        (["NOUN VERB NOUN", "VERB NOUN DET"], "none"),
    ],
)
def test_the_scheme_of_the_tags_is_found(opened: Opened, tags: list[str], scheme: str) -> None:
    """As of every token classification."""
    from hfpipe.parts.tasks import make_task

    rows = opened("\n".join("".join(f"w\t{tag}\n" for tag in one.split()) for one in tags)).splits["train"]
    recipe = recipe_of(path="./d")
    task = make_task(recipe.task, rows, "train", "task")
    task.check(rows, "train", "task")
    assert task.scheme == scheme
