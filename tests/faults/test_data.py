"""Faults 31 to 60 of recipes and raw data, each test named after its number: told before anything is trained."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from transformers import AutoTokenizer

from hfpipe.errors import DataError, HfpipeError, RecipeError, RefusedError
from hfpipe.parts.data.open import open_data
from hfpipe.parts.tasks import TextTask
from hfpipe.parts.tasks.classes import Classes
from hfpipe.parts.tasks.long_texts import shortened
from hfpipe.recipe import load_recipe
from hfpipe.training.engines import loop, trainer
from hfpipe.training.job import Job
from hfpipe.training.prepare import prepare

LEAST: dict[str, Any] = {"dataset": {"path": "./d"}, "task": {"text": "text"}, "model": {"checkpoint": "./m"}}
YAML = "dataset: {path: ./d}\ntask: {text: text}\nmodel: {checkpoint: ./m}\n"

Prepare = Callable[..., Job]


def told(kind: type[HfpipeError], code: int, call: Callable[[], object]) -> str:
    """The message of an error of this kind and exit code, which the call must raise."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert caught.value.exit_code == code
    return str(caught.value)


def table(texts: list[Any] | None = None, labels: list[Any] | None = None, **columns: list[Any]) -> datasets.Dataset:
    """Rows of four texts with two classes, unless given otherwise."""
    texts = ["bak bal", "bam", "ban bap bak", "bel"] if texts is None else texts
    labels = [row % 2 for row in range(len(texts))] if labels is None else labels
    return datasets.Dataset.from_dict({"text": texts, "label": labels, **columns})


@pytest.fixture
def prepared(tiny_checkpoint: Path) -> Prepare:
    """Prepares the job of rows in memory, as the preflight of a run does."""

    def prepare_rows(train: datasets.Dataset, validation: datasets.Dataset | None = None, *overrides: str) -> Job:
        splits = {"train": train, "validation": validation if validation is not None else table()}
        fields = {**LEAST, "model": {"checkpoint": str(tiny_checkpoint)}, "train": {"precision": "fp32"}}
        return prepare(load_recipe(fields, overrides), dataset=splits)

    return prepare_rows


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., datasets.Dataset]:
    """Writes a data file and reads its rows."""

    def read_rows(form: str, content: str | bytes, **options: Any) -> datasets.Dataset:
        path = tmp_path / f"rows.{form}"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        dataset = {"path": form, "data_files": str(path), **options}
        return open_data(load_recipe({**LEAST, "dataset": dataset})).splits["train"]

    return read_rows


def test_fault_31_an_exponent_is_a_number(tmp_path: Path) -> None:
    """`5e-5` in a recipe and in an override is the float, not a text."""
    (tmp_path / "r.yaml").write_text(YAML + "optimizer: {lr: 5e-5}\n")
    assert load_recipe(tmp_path / "r.yaml").optimizer.lr == 5e-5
    assert load_recipe(LEAST, ["optimizer.lr=5e-5"]).optimizer.lr == 5e-5


@pytest.mark.parametrize("value", ["no", "1:30", "2024-01-01"])
def test_fault_32_words_times_and_dates_are_text(tmp_path: Path, value: str) -> None:
    """What YAML 1.1 turned into false, 90 or a date stays text: right for a name, a mistake for a number."""
    (tmp_path / "r.yaml").write_text(YAML.replace("text: text", f"text: {value}") + f"seed: {value}\n")
    message = told(RecipeError, 2, lambda: load_recipe(tmp_path / "r.yaml"))
    assert message.startswith(f"{tmp_path / 'r.yaml'}:4:1: seed: ")
    assert message.endswith(f"got {value!r}")
    assert load_recipe(LEAST, [f"task.text={value}"]).task.text == (value,)


def test_fault_32_a_leading_zero_is_no_octal(tmp_path: Path) -> None:
    """`0123` is the number 123: right for a seed, a mistake for the name of a column."""
    (tmp_path / "r.yaml").write_text(YAML.replace("text: text", "text: 0123") + "seed: 0123\n")
    assert "r.yaml:2:8: task.text: " in told(RecipeError, 2, lambda: load_recipe(tmp_path / "r.yaml"))
    assert load_recipe(LEAST, ["seed=0123"]).seed == 123


def _load(folder: Path, text: str, name: str = "") -> object:
    (folder / "r.yaml").write_text(text)
    return load_recipe(folder / "r.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nseed: 2\n", "r.yaml:5:1: not YAML 1.2: found duplicate key"),
        ("colour: red\n", "r.yaml:4:1: colour: unknown field; did you mean task.text or task.label?"),
        ("train: {epoch: 1}\n", "r.yaml:4:9: train.epoch: unknown field; did you mean 'epochs'?"),
    ],
)
def test_fault_33_duplicate_unknown_and_misspelt_keys(tmp_path: Path, text: str, message: str) -> None:
    """Each is a mistake at its line and column, and a misspelt key gets the right one."""
    assert message in told(RecipeError, 2, lambda: _load(tmp_path, YAML + text))


@pytest.mark.parametrize(
    ("text", "kind", "code"),
    [
        ("a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)), RecipeError, 2),
        (YAML + "# " + "x" * 10_000_000, RecipeError, 2),
        (YAML + "name: !!python/object/apply:os.system [true]\n", RefusedError, 7),
    ],
    ids=["bomb", "10 MB", "python"],
)  # fmt: skip
def test_fault_34_hostile_recipes_cost_less_than_a_second(
    tmp_path: Path, text: str, kind: type[HfpipeError], code: int
) -> None:
    """An alias bomb and ten megabytes are recipe errors, a tag that builds an object is refused, all within a second."""
    started = time.process_time()
    told(kind, code, lambda: _load(tmp_path, text))
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    "text", ['train: {fp16: "false"}\n', 'trainer: {fp16: "false"}\n', 'train: {precision: "false"}\n']
)
def test_fault_35_a_text_is_no_switch(tmp_path: Path, text: str) -> None:
    """`fp16: "false"`, which is true to Python, is refused wherever it stands."""
    assert "r.yaml:4:" in told(RecipeError, 2, lambda: _load(tmp_path, YAML + text))


@pytest.mark.parametrize("field", ["accumulate", "batch_size", "epochs", "max_steps"])
def test_fault_36_zero_is_no_number_of_steps(field: str) -> None:
    """No accumulation, batch, epoch or step can be 0."""
    assert f"train.{field}: " in told(RecipeError, 2, lambda: load_recipe(LEAST, [f"train.{field}=0"]))


@pytest.mark.parametrize("engine", [loop.train, trainer.train], ids=["loop", "trainer"])
def test_fault_37_more_accumulation_than_batches(prepared: Prepare, engine: Callable[..., None]) -> None:
    """A notice says the effective batch, and loss and gradient are those of one batch of all rows."""
    still = "model.config={hidden_dropout_prob: 0.0, attention_probs_dropout_prob: 0.0}"
    first = []
    for batch_size, accumulate in ((2, 100), (5, 1)):
        rows = table(["bak", "bal bam", "ban", "bap bak bal", "bel"])
        changes = [still, f"train.batch_size={batch_size}", f"train.accumulate={accumulate}", "train.max_steps=2"]
        job = prepared(rows, None, *changes, "evaluate.every=never", "train.max_grad_norm=null")
        notices = [notice for notice in job.notices if "effective batch" in notice]
        wanted = [
            "train.accumulate is 100, and an epoch has 3 batches: the effective batch is all 5 training inputs, not 200"
        ]
        assert notices == (wanted if accumulate == 100 else [])
        records: list[dict[str, Any]] = []
        engine(job, records.append)
        first.append(next(record for record in records if record["type"] == "step"))
    assert first[0]["num_items"] == first[1]["num_items"] == 5
    for figure in ("loss", "grad_norm"):
        assert first[0][figure] == pytest.approx(first[1][figure], rel=1e-5)


def test_fault_38_empty_texts_are_counted(prepared: Prepare) -> None:
    """Texts without a visible character are counted by split, and refused where the recipe is strict."""
    odd = table(["bak", "", " \t", "bal"])
    assert "train: 2 of 4 rows have an empty text" in prepared(odd).notices
    assert not [notice for notice in prepared(table()).notices if "empty" in notice]
    message = told(DataError, 3, lambda: prepared(table(), odd, "dataset.strict=true"))
    assert "validation: 2 of 4 rows have an empty text" in message


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["bak", None, "bal", None], "column 'text' has no text (rows 1, 3, counted from 0)"),
        ([1, 2, 3, 4], "column 'text' holds int64, such as '1' in row 0; allowed: text"),
        ([0.5, float("nan"), 1.0, 2.0], "column 'text' holds double, such as '0.5' in row 0; allowed: text"),
        ([["bak"], ["bal"], ["bam"], ["ban"]], "column 'text' holds list<item: string>, such as \"['bak']\" in row 0"),
    ],
)
def test_fault_39_a_text_column_holds_text(prepared: Prepare, texts: list[Any], message: str) -> None:
    """None, numbers and lists in a text column are told with rows, in the training split and in the other."""
    assert f"split train: {message}" in told(DataError, 3, lambda: prepared(table(texts)))
    assert f"split validation: {message}" in told(DataError, 3, lambda: prepared(table(), table(texts)))


@pytest.mark.parametrize("form", ["csv", "tsv"])
def test_fault_40_no_text_becomes_nothing(read: Callable[..., datasets.Dataset], form: str) -> None:
    """`NA`, `null`, `None`, `nan` and an empty field stay texts."""
    values = ["NA", "null", "None", "nan", "N/A", "", "-"]
    separator = "," if form == "csv" else "\t"
    rows = read(form, f"text{separator}label\n" + "".join(f"{value}{separator}{value}\n" for value in values))
    assert rows[:] == {"text": values, "label": values}


@pytest.mark.parametrize("form", ["csv", "tsv"])
def test_fault_41_digits_stay_digits(read: Callable[..., datasets.Dataset], prepared: Prepare, form: str) -> None:
    """A column of `007` is text, as a text to read and as a class."""
    separator = "," if form == "csv" else "\t"
    rows = read(form, f"text{separator}label\n007{separator}01\n1e5{separator}1\n")
    assert rows[:] == {"text": ["007", "1e5"], "label": ["01", "1"]}
    job = prepared(*[table(["bak", "bal"], rows["label"][:])] * 2)
    assert job.task.names == ("01", "1")


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("text,label\na,x\nb, c,y\n", {}, "rows.csv:3: 3 fields, and the header names 2"),
        ("text,label\na,x\nb\n", {}, "rows.csv:3: 1 field, and the header names 2"),
        ('text,label\n"a\nb",x\n"c" d,y\n', {}, "rows.csv:4: bad quoting (',' expected after '\"')"),
        ('text,label\na,x\n"b,y\nc,x\n', {}, "rows.csv:3: bad quoting (unexpected end of data, read up to line 4)"),
        ("text,label\na,x\nb\0c,y\n", {}, "rows.csv:3: a NUL character at column 2"),
        ("text,label\na,x\nä,y\n".encode("latin-1"), {}, "rows.csv:3: not utf-8 at byte 15 (0xe4)"),
        ("text,label\na,x\n\N{SNOWMAN},y\n", {"encoding": "ascii"}, "rows.csv:3: not ascii at byte 15 (0xe2)"),
        ("text,label\n", {}, "rows.csv: the file has no rows"),
        ("", {}, "rows.csv:1: there is no header"),
    ],
)
def test_fault_42_a_broken_csv_is_told_by_line(
    read: Callable[..., datasets.Dataset], content: str | bytes, options: dict[str, Any], message: str
) -> None:
    """Commas, quotes, NULs and bytes that do not fit are told with file and line."""
    assert message in told(DataError, 3, lambda: read("csv", content, **options))


def test_fault_42_marks_and_encodings_are_no_data(read: Callable[..., datasets.Dataset]) -> None:
    """A byte order mark is no part of the first name, Latin-1 reads when it is named, and a long text is no mistake."""
    assert read("csv", b"\xef\xbb\xbftext,label\r\na,x\r\n")[:] == {"text": ["a"], "label": ["x"]}
    assert read("csv", "text\nä\n".encode("latin-1"), encoding="latin-1")[:] == {"text": ["ä"]}
    assert read("csv", "text,label\n" + "a" * 1_000_000 + ",x\n")["text"][0] == "a" * 1_000_000


GOOD = '{"text": "a", "label": "x"}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + '{"text": "b", "lab', "rows.jsonl:2:15: the line is cut short"),
        (GOOD + '{"text": "b"', "rows.jsonl:2:13: the line is cut short"),
        (GOOD + '{"text": "b",, "label": "x"}', "rows.jsonl:2:14: no JSON: Expecting property name"),
        ("", "rows.jsonl: the file has no rows"),
        ("\n\n", "rows.jsonl: the file has no rows"),
        (GOOD + '{"text": "b", "label": "x", "text": "c"}', "rows.jsonl:2: the key 'text' is there twice"),
        (GOOD + '{"text": {"a": 1, "a": 2}, "label": "x"}', "rows.jsonl:2: the key 'a' is there twice"),
        (GOOD + GOOD + '{"text": 3, "label": "x"}', "rows.jsonl:3: 'text' is 3, a number, and at "),
        (GOOD + '{"text": "b", "label": true}', "rows.jsonl:2: 'label' is true, true or false, and at "),
        ('{"label": 1}\n{"label": 0.5}\n{"label": true}', "rows.jsonl:3: 'label' is true, true or false, and at "),
        ('{"t": [1]}\n{"t": ["x"]}', "rows.jsonl:2: 't' does not fit the rows before"),
        (GOOD + '{"text": "b"}', "rows.jsonl:2: no field 'label', which "),
        (GOOD + '{"text": "b", "label": "x", "more": 1}', "rows.jsonl:2: a field 'more', which "),
        (GOOD + '["b", "x"]', 'rows.jsonl:2: ["b", "x"] is no object'),
        (GOOD + "null", "rows.jsonl:2: null is no object"),
        ("{}", "rows.jsonl:1: an object without fields"),
        (GOOD + "[" * 100_000, "rows.jsonl:2: nested too deeply"),
        (GOOD + '{"text": "b", "label": "\\ud83d"}', "rows.jsonl:2: 'label' has half of a surrogate pair, '\\ud83d'"),
        ('{"n": 1}\n{"n": 18446744073709551617}', "rows.jsonl:2: 'n' has a whole number of more than 64 bits"),
        (GOOD.encode() + b'{"text": "\xff"}', "rows.jsonl:2: not utf-8 at byte 38 (0xff)"),
    ],
)
def test_fault_43_a_broken_jsonl_is_told_by_line(
    read: Callable[..., datasets.Dataset], content: str | bytes, message: str
) -> None:
    """Truncation, no rows, a key twice, a changed type and a missing field are told with file and line."""
    assert message in told(DataError, 3, lambda: read("jsonl", content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[\n{"text": "a"},\n{"text": "b"', "rows.json:3:13: the list is cut short"),
        ('[\n{"text": "a"},\n{"text": "b"} {}]', "rows.json:3:15: no JSON: Expecting ',' or ']'"),
        ('[\n{"text": "a"},\n\n{"txt": "b"}]', "rows.json:4: no field 'text', which "),
        ('[\n{"text": "a", "text": "b"}]', "rows.json:2: the key 'text' is there twice"),
        ('[{"text": "a"},]', "rows.json:1:16: no JSON"),
        ('[{"text": "a"}]\n\n{"text": "b"}', "rows.json:3: something follows the list"),
        ('["a"]', 'rows.json:1: "a" is no object'),
        ("[]", "rows.json: the file has no rows"),
        ('{\n"text": ["a"]\n', "rows.json:3:1: the document is cut short"),
        ('{\n"text": "a"\n}\n\n{"text": 3}', "rows.json:5: 'text' is 3, a number, and at "),
        ("", "rows.json: the file has no rows"),
    ],
)
def test_fault_43_a_broken_json_list_is_told_by_line(
    read: Callable[..., datasets.Dataset], content: str, message: str
) -> None:
    """The same of a file that is one list of objects, over as many lines as it likes."""
    assert message in told(DataError, 3, lambda: read("json", content))


def test_fault_43_a_change_far_below_is_told_by_its_line(read: Callable[..., datasets.Dataset]) -> None:
    """A row of another shape is found after a hundred thousand right ones, in a few seconds."""
    started = time.process_time()
    message = told(DataError, 3, lambda: read("jsonl", GOOD * 100_000 + '{"text": "b", "label": ["x"]}'))
    assert "rows.jsonl:100001: 'label' is [\"x\"], a list, and at " in message
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, None, 1, None], "no label (rows 1, 3, counted from 0)"),
        ([0.0, 1.0, 0.0, 1.0], 'Declare what each value means, label: {column: label, names: {"0": NAME, "1": NAME}}'),
        ([False, True, True, False], 'label: {column: label, names: {"false": NAME, "true": NAME}}'),
        ([3, 7, 3, 7], 'label: {column: label, names: {"3": NAME, "7": NAME}}'),
        (["no", None, "yes", "no"], "no label (row 1, counted from 0)"),
    ],
)
def test_fault_44_labels_that_are_no_classes_show_the_mapping(
    prepared: Prepare, labels: list[Any], message: str
) -> None:
    """A missing label is told by row; floats, booleans and odd numbers come with the mapping to declare."""
    assert message in told(DataError, 3, lambda: prepared(table(labels=labels)))


def test_fault_44_the_mapping_that_is_shown_is_taken(prepared: Prepare) -> None:
    """Booleans train once declared as told; texts are classes by themselves."""
    rows = table(labels=[False, True, True, False])
    job = prepared(rows, rows, 'task.label={column: label, names: {"false": no, "true": yes}}')
    assert (job.task.names, job.train_data["labels"][:]) == (("no", "yes"), [0, 1, 1, 0])
    rows = table(labels=["yes", "no", "no", "yes"])
    assert prepared(rows, rows).train_data["labels"][:] == [1, 0, 0, 1]


def test_fault_45_minus_one_is_no_class(prepared: Prepare) -> None:
    """-1 in training or evaluation is told by row; a split of nothing else is for `hfpipe predict`."""
    odd, hidden = table(labels=[0, 1, -1, 1]), table(labels=[-1, -1, -1, -1])
    assert "without a gap" in told(DataError, 3, lambda: prepared(odd))
    message = told(DataError, 3, lambda: prepared(table(), odd))
    assert "split validation: label -1 is outside the 2 classes (row 2, counted from 0)" in message
    assert "hfpipe predict" in told(DataError, 3, lambda: prepared(table(), hidden))


@pytest.mark.parametrize(
    ("labels", "unseen"),
    [([0, 1, 0, 1], [0, 2, 1, 2]), (["no", "yes", "no", "yes"], ["no", "maybe", "yes", "maybe"])],
)
def test_fault_46_a_label_that_training_never_saw(prepared: Prepare, labels: list[Any], unseen: list[Any]) -> None:
    """A class beyond those of the training split is told by split and row, whether a number or a text."""
    message = told(DataError, 3, lambda: prepared(table(labels=labels), table(labels=unseen)))
    assert f"split validation: label {unseen[1]!r} is outside the 2 classes (rows 1, 3, counted from 0)" in message


def test_fault_47_ignored_labels_are_counted(prepared: Prepare) -> None:
    """Some labels of -100 are counted in a notice; a split of nothing else is refused."""
    some, none = table(labels=[0, -100, 1, -100]), table(labels=[-100] * 4)
    assert "validation: 2 labels are -100 and are left out" in prepared(table(), some).notices
    assert "train: 2 labels are -100 and are left out" in prepared(some).notices
    assert "every label is -100" in told(DataError, 3, lambda: prepared(table(), none))
    assert "-100" in told(DataError, 3, lambda: prepared(none))


@pytest.mark.parametrize(
    "setting", ["num_labels: 5", "num_labels: 1", 'id2label: {"0": x}', "problem_type: regression"]
)
def test_fault_49_the_number_of_classes_comes_from_the_data(setting: str) -> None:
    """A head of another size, or for another problem, can't be asked for behind the task's back."""
    message = told(RecipeError, 2, lambda: load_recipe(LEAST, [f"model.config={{{setting}}}"]))
    assert f"`{setting.partition(':')[0]}` comes from the data" in message
    assert "task.label" in message


def test_fault_51_the_label_column(prepared: Prepare) -> None:
    """No such column is told with the near ones; with both `label` and `labels` a notice says which is learned."""
    rows = table(labels=[1, 0, 1, 0], verdict=[0, 1, 0, 1])
    assert "no column 'verdct'; did you mean 'verdict'?; allowed: text, label, verdict" in told(
        DataError, 3, lambda: prepared(rows, rows, "task.label=verdct")
    )
    assert "no column 'label'" in told(DataError, 3, lambda: prepared(rows.remove_columns("label")))
    assert "split validation: no column 'label'" in told(
        DataError, 3, lambda: prepared(rows, rows.remove_columns("label"))
    )
    both = rows.rename_column("verdict", "labels")
    for learned, encoded in (("label", [1, 0, 1, 0]), ("labels", [0, 1, 0, 1])):
        job = prepared(both, both, f"task.label={learned}")
        assert job.train_data["labels"][:] == encoded
        assert f"train: there are the columns 'label' and 'labels', and {learned!r} is learned, as task.label says" in (
            job.notices
        )
    assert not [notice for notice in prepared(rows).notices if "'labels'" in notice]


def test_fault_52_a_split_without_rows(prepared: Prepare, read: Callable[..., datasets.Dataset]) -> None:
    """Empty splits and slices are refused; fewer rows than a batch are one ragged batch, none is dropped."""
    assert "'train' has no rows" in told(DataError, 3, lambda: prepared(table().select([])))
    assert "'validation' has no rows" in told(DataError, 3, lambda: prepared(table(), table().select([])))
    assert "'train[:0]' has no rows" in told(
        DataError, 3, lambda: prepared(table(), None, "dataset.splits.train=train[:0]")
    )
    job = prepared(table())
    assert [len(batch["labels"]) for batch in job.loader] == [4]


def test_fault_55_half_a_surrogate_pair_is_refused(prepared: Prepare) -> None:
    """Text that no encoding has, as parquet and Arrow files can hold it, is told by row before a tokenizer meets it."""
    broken = pyarrow.Array.from_buffers(
        pyarrow.string(), 3, pyarrow.array([b"bak", b"a\xed\xa0\xbd", b"bal"], pyarrow.binary()).buffers()
    )
    rows = datasets.Dataset(pyarrow.table({"text": broken, "label": [0, 1, 0]}))
    message = told(DataError, 3, lambda: prepared(rows))
    assert "a text of 'text' is no UTF-8, or has half of a surrogate pair (row 1, counted from 0)" in message


def test_fault_55_odd_characters_are_told(prepared: Prepare) -> None:
    """NUL characters and marks of writing direction train, and are counted in a notice."""
    odd = table(
        ["bak \0 bal bam ban bap", "bak bal bam ban bap \u202e bak \u202c", "bam bal bak \u200f", "ban bal bak"]
    )
    notices = prepared(table(), odd).notices
    assert "validation: 1 of 4 texts in 'text' have a NUL character" in notices
    assert "validation: 2 of 4 texts in 'text' have an invisible mark of writing direction" in notices
    assert not [notice for notice in notices if notice.startswith("train:") and "texts in" in notice]


@pytest.mark.parametrize("text", ["bak bal bam " * 420_000, "a" * 5_000_000, " " * 5_000_000, "ba\n" * 1_700_000])
def test_fault_55_five_megabytes_are_tokens_in_two_seconds(tiny_checkpoint: Path, text: str) -> None:
    """A text of 5 MB, of words, of one word, or of blanks, is cut to its first tokens without reading all of it."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    task = TextTask(("text",), "label", Classes(("no", "yes")))
    started = time.process_time()
    found = task.encode({"text": [text, "bak"]}, tokenizer, 64, False)
    assert time.process_time() - started < 2
    plain = tokenizer([text[:30_000], "bak"], truncation=True, max_length=64)
    assert found["input_ids"] == plain["input_ids"]


@pytest.mark.parametrize("embedded", [True, False])
def test_fault_55_a_long_text_has_the_tokens_it_always_had(tiny_checkpoint: Path, embedded: bool) -> None:
    """Leaving out the far end changes no token, of one text or of a pair, cut on the right or on the left."""
    from hfpipe.system.embedded import checkpoint_folder

    tokenizer = AutoTokenizer.from_pretrained(checkpoint_folder("tiny-bert") if embedded else tiny_checkpoint)
    words = "bak the cat bal, sat. " * 90
    texts = [words, "x" * 2000 + " bak", " " * 2000 + words, "bak bal", words[7:] + "y" * 2000]
    task = TextTask(("one", "two"), "label", Classes(("no", "yes")))
    for side, first, second in (
        ("right", texts, texts[::-1]),
        ("right", texts, ["bak"] * 5),
        ("right", ["bak bal bam"] * 5, texts),
        ("left", texts, ["bak"] * 5),
    ):
        tokenizer.truncation_side = side
        plain = dict(tokenizer(first, second, truncation=True, max_length=17))
        assert task.encode({"one": first, "two": second}, tokenizer, 17, False) == plain
    tokenizer.truncation_side = "right"
    assert [len(text) for text in shortened(texts, tokenizer, 17)] == [1700, 1704, 1700 + len(words), 7, 1700]


def test_fault_60_an_edit_that_keeps_the_time_is_seen(tmp_path: Path, prepared: Prepare) -> None:
    """A file of the same name, size and modification time with other rows gives other rows and another digest."""
    path = tmp_path / "rows.jsonl"
    found = []
    for word in ("bak", "bal"):
        path.write_text("".join(json.dumps({"text": word, "label": label}) + "\n" for label in "xy"))
        os.utime(path, (1_000_000_000, 1_000_000_000))
        found.append(open_data(load_recipe({**LEAST, "dataset": {"path": "jsonl", "data_files": str(path)}})))
    assert [raw.splits["train"]["text"][0] for raw in found] == ["bak", "bal"]
    assert found[0].digest != found[1].digest
    first, second = (prepared(raw.splits["train"], raw.splits["train"]).train_data["input_ids"][0] for raw in found)
    assert first != second
