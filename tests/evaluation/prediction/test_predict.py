"""`hfpipe predict`, `hfpipe.predict` and `Run.predict` label rows with what was trained."""

from __future__ import annotations

import csv
import gc
import io
import json
import os
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

import hfpipe
from hfpipe.errors import DataError, MachineError, ModelError, NumericError, RecipeError, StoppedByUser
from hfpipe.evaluation.prediction import chunks, predictor
from hfpipe.evaluation.prediction import predict as predicting
from hfpipe.evaluation.prediction.output_file import PartialOutput
from hfpipe.evaluation.prediction.predict import predict_chunks
from hfpipe.evaluation.prediction.predict_rows import predict_into
from hfpipe.evaluation.prediction.predictor import Predictor
from hfpipe.runs.given_parts import Given
from hfpipe.system.display import Plain

WORDS = [a + b + c for a in "bcdfg" for b in "aeiou" for c in "klmnp"]


@pytest.fixture(scope="module")
def fields(pairs_folder: Path, tiny_checkpoint: Path) -> dict[str, Any]:
    """A recipe of one step."""
    return {
        "name": "tiny",
        "dataset": {"path": str(pairs_folder), "splits": {"train": "train", "evaluation": None}},
        "task": {"text": ["sentence1", "sentence2"]},
        "model": {"checkpoint": str(tiny_checkpoint)},
        "train": {"max_steps": 1, "batch_size": 8, "precision": "fp32"},
        "evaluate": {"every": "never", "batch_size": 16},
        "engine": "loop",
    }


@pytest.fixture(scope="module")
def run(fields: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, telling_apart: Any) -> hfpipe.Run:
    """A run on pairs that gives different labels to them."""
    made = hfpipe.finetune(fields, runs_dir=tmp_path_factory.mktemp("runs"), name="pairs")
    return telling_apart(made, rows_of(50))


@pytest.fixture(scope="module")
def one_text(fields: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> hfpipe.Run:
    """A run on single texts."""
    own = {**fields, "task": {"text": "sentence1"}}
    return hfpipe.finetune(own, runs_dir=tmp_path_factory.mktemp("runs"), name="texts")


def rows_of(count: int) -> list[dict[str, str]]:
    """Pairs of different lengths."""
    return [
        {"sentence1": " ".join(WORDS[row % 50 : row % 50 + 1 + row % 7]), "sentence2": WORDS[row % 75]}
        for row in range(count)
    ]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write an object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def close(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    """Whether two predictions are the same but for rounding."""
    return [row["label"] for row in one] == [row["label"] for row in other] and [
        row["score"] for row in one
    ] == pytest.approx([row["score"] for row in other], abs=1e-6)


def test_rows_are_labelled_in_order_without_a_label(run: hfpipe.Run, tmp_path: Path) -> None:
    """Every row gets what it gets alone, with probabilities that sum to 1, in the order of the file, in any chunk."""
    rows = rows_of(50)
    file = write_jsonl(tmp_path / "pairs.jsonl", rows)
    found = hfpipe.predict(run, file)
    assert len({row["label"] for row in found}) == 2  # else the order would not show
    assert close(found, [hfpipe.predict(run, [row])[0] for row in rows])
    assert close(found, hfpipe.predict(run, file, chunk_rows=3))
    for row in found:
        assert set(row["probabilities"]) == {"other", "same"}
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert row["score"] == max(row["probabilities"].values()) == row["probabilities"][row["label"]]


@pytest.mark.parametrize("form", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_every_format_gives_the_same(run: hfpipe.Run, tmp_path: Path, form: str, monkeypatch: Any) -> None:
    """The same rows in another format, as a file or on standard input, get the same labels."""
    rows = rows_of(30)
    file = tmp_path / f"rows.{form}"
    if form in ("csv", "tsv"):
        separator = "," if form == "csv" else "\t"
        file.write_text("\n".join(separator.join(line) for line in [list(rows[0]), *(row.values() for row in rows)]))
    elif form == "parquet":
        pa.parquet.write_table(pa.Table.from_pylist([{"extra": None, **row} for row in rows]), file, row_group_size=7)
    else:
        file.write_text(json.dumps(rows) if form == "json" else "\n".join(map(json.dumps, rows)))
    expected = hfpipe.predict(run, rows)
    assert hfpipe.predict(run, file) == expected
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    if form == "parquet":
        with pytest.raises(RecipeError, match="a pipe does not have"):
            hfpipe.predict(run, "-", input_format=form)
    else:
        assert hfpipe.predict(run, "-", input_format=form) == expected


def test_a_line_of_text_is_a_row(one_text: hfpipe.Run, run: hfpipe.Run, tmp_path: Path) -> None:
    """A .txt file goes with a model of one text, whatever its column is called, and not with one of pairs."""
    file = tmp_path / "texts.txt"
    file.write_text("bak cek\ndok\n")
    assert hfpipe.predict(one_text, file) == hfpipe.predict(one_text, ["bak cek", "dok"])
    with pytest.raises(RecipeError, match="a line of text is one column, and the model reads 2: sentence1, sentence2"):
        hfpipe.predict(run, file)


def test_the_outputs_hold_the_same(run: hfpipe.Run, tmp_path: Path, hfpipe_command: Any) -> None:
    """jsonl, csv and parquet have label, score and the probability of each class, and so has standard output."""
    rows = rows_of(40)
    file = write_jsonl(tmp_path / "rows.jsonl", rows)
    expected = hfpipe.predict(run, file)
    printed = hfpipe_command("predict", run.path, file)
    assert [json.loads(line) for line in printed.out.splitlines()] == expected
    for form in ("jsonl", "csv", "parquet"):
        done = hfpipe_command("predict", run.path, file, "--output", tmp_path / f"out.{form}", "--json")
        assert (done.code, done.json["examples"], done.json["resumed"]) == (0, 40, 0)
        assert not (tmp_path / f"out.{form}.partial").exists()
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == expected
    flat = [
        [row["label"], row["score"], row["probabilities"]["other"], row["probabilities"]["same"]] for row in expected
    ]
    names = ["label", "score", "probability_other", "probability_same"]
    with open(tmp_path / "out.csv", newline="") as opened:
        header, *cells = csv.reader(opened)
    assert header == names
    assert [[label, *map(float, figures)] for label, *figures in cells] == flat
    table = pa.parquet.read_table(tmp_path / "out.parquet")
    assert table.column_names == names
    assert [list(row.values()) for row in table.to_pylist()] == flat
    again = hfpipe_command("predict", run.path, file, "--output", tmp_path / "out.csv")
    assert again.code == 2
    assert "is there already. Say --overwrite" in again.err
    forced = hfpipe_command("predict", run.path, file, "--output", tmp_path / "out.csv", "--overwrite")
    assert forced.code == 0


def test_a_pipe_is_labelled_before_it_ends(run: hfpipe.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The labels of the first few rows are there while the writer has not closed the pipe; with --chunk 1, of each."""
    for chunk, count in ((1024, chunks.FIRST_CHUNK), (1, 1)):
        read, write = os.pipe()
        monkeypatch.setattr("sys.stdin", os.fdopen(read))
        pipe = os.fdopen(write, "w")
        closing = threading.Timer(60, pipe.close)  # so that a fault fails here, and does not wait for ever
        closing.start()
        pipe.writelines(json.dumps(row) + "\n" for row in rows_of(count))
        pipe.flush()
        labelled = predict_chunks(run, "-", chunk_rows=chunk)
        assert len(next(labelled)) == count
        assert not pipe.closed
        closing.cancel()
        pipe.writelines(json.dumps(row) + "\n" for row in rows_of(3))
        pipe.close()
        assert sum(map(len, labelled)) == 3


def test_a_pipe_with_a_name_is_read_once(run: hfpipe.Run, tmp_path: Path) -> None:
    """What a FIFO gives is all labelled: nothing of it is spent on a look before."""
    pipe, rows = tmp_path / "rows.jsonl", rows_of(20)
    os.mkfifo(pipe)
    writer = threading.Thread(target=write_jsonl, args=(pipe, rows), daemon=True)
    writer.start()
    assert hfpipe.predict(run, pipe) == hfpipe.predict(run, rows)
    writer.join(10)


class Stub:
    """Labels without a model, and counts the chunks that are alive while it does."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor, self.alive, self.most = predictor, weakref.WeakSet[Any](), 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.predictor, name)

    def label(self, chunk: chunks.Chunk) -> list[dict[str, Any]]:
        self.alive.add(chunk)
        self.most = max(self.most, len(self.alive))
        share = 1 / (1 + chunk.first)
        return [{"label": "a", "score": share, "probabilities": {"a": share}} for _ in chunk.places]


@pytest.fixture
def stub(run: hfpipe.Run) -> Stub:
    """A predictor whose model is never asked."""
    return Stub(
        predictor.load_predictor(predicting._for_rows(run, "jsonl", None, (), None, Given()), lambda text: None)
    )


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_memory_does_not_grow_with_the_rows(stub: Stub, tmp_path: Path, form: str) -> None:
    """16 times the rows take no more memory, and never are more than two chunks alive; the next is read, one goes."""
    peaks = []
    for count in (1_000, 16_000):
        file = write_jsonl(tmp_path / f"{count}.jsonl", rows_of(count))
        output = tmp_path / f"{count}.{form}"
        tracemalloc.start()
        made = predict_into(
            stub, stub.recipe, str(file), "jsonl", output, form, overwrite=False, chunk_rows=128, notice=lambda text: None
        )  # fmt: skip
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert made.examples == count
        assert len(output.read_text().splitlines()) == count + (form == "csv")
    assert stub.most <= 2
    assert peaks[1] < 1.2 * peaks[0], peaks


def stopping(label: Callable[..., Any], after: int, error: BaseException) -> Callable[..., Any]:
    """Labels so many chunks, and then raises."""
    done = iter(range(after))

    def stops(self: Predictor, chunk: Any) -> Any:
        if next(done, None) is None:
            raise error
        return label(self, chunk)

    return stops


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_a_stopped_prediction_goes_on(
    run: hfpipe.Run, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a stop in the middle the same call labels only what is missing, and the file is the same byte for byte."""
    file = write_jsonl(tmp_path / "rows.jsonl", rows_of(100))
    whole, output = tmp_path / f"whole.{form}", tmp_path / f"out.{form}"
    hfpipe.predict_file(run, file, whole)
    label = Predictor.label
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "label", stopping(label, 2, KeyboardInterrupt()))
        with pytest.raises(StoppedByUser, match="goes on behind row 24"):
            hfpipe.predict_file(run, file, output)
    partial = tmp_path / f"out.{form}.partial"
    assert not output.exists()
    with open(partial, "a") as opened:
        opened.write('{"label": "same", "score": 0.9}\n{"label": "sa')  # what a killed process leaves
    seen: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "label", lambda self, chunk: seen.append(chunk.first) or label(self, chunk))
        made = hfpipe.predict_file(run, file, output, display=Plain())
    assert seen == [24, 56]
    assert (made.examples, made.resumed) == (100, 24)
    assert f"going on with {partial} behind row 24" in capsys.readouterr().err
    assert output.read_bytes() == whole.read_bytes()
    assert not partial.exists()


def test_what_another_command_began_is_refused(
    run: hfpipe.Run, one_text: hfpipe.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another model, other options or another input don't go on with a partial file, and are told what to do."""
    rows = rows_of(60)
    file, output = write_jsonl(tmp_path / "rows.jsonl", rows), tmp_path / "out.jsonl"
    partial = tmp_path / "out.jsonl.partial"

    def stop() -> bytes:
        partial.unlink(missing_ok=True)
        with monkeypatch.context() as patch:
            patch.setattr(Predictor, "label", stopping(Predictor.label, 2, NumericError("stop")))
            with pytest.raises(NumericError):
                hfpipe.predict_file(run, file, output)
        return partial.read_bytes()

    before = stop()
    with pytest.raises(RecipeError, match=r"started with another model and another set of options.* --overwrite"):
        hfpipe.predict_file(one_text, file, output)
    with pytest.raises(RecipeError, match="started with another set of options"):
        hfpipe.predict_file(run, file, output, overrides=["model.max_length=9"])
    other = write_jsonl(tmp_path / "other.jsonl", [rows[1], *rows[1:]])
    for wrong in (other, write_jsonl(tmp_path / "short.jsonl", rows[:20])):
        with pytest.raises(RecipeError, match=r"another input: its first 24 rows .* --overwrite"):
            hfpipe.predict_file(run, wrong, output)
    assert partial.read_bytes() == before
    assert hfpipe.predict_file(run, other, output, overwrite=True).resumed == 0
    assert [json.loads(line) for line in output.read_text().splitlines()] == hfpipe.predict(run, other)
    output.unlink()
    stop()
    more = write_jsonl(tmp_path / "more.jsonl", [*rows, *rows_of(7)])  # rows that came later do no harm
    assert hfpipe.predict_file(run, more, output).resumed == 24
    assert [json.loads(line) for line in output.read_text().splitlines()] == hfpipe.predict(run, more)


def test_a_partial_file_belongs_to_one_process(tmp_path: Path) -> None:
    """A second writer is refused, and a file that only has the name is left alone."""
    with PartialOutput(tmp_path / "a.csv", {"model": 1}, overwrite=False) as partial:
        partial.write([{"label": "x"}], "digest")
        with pytest.raises(MachineError, match="another process is writing it"):
            PartialOutput(tmp_path / "a.csv", {"model": 1}, overwrite=False)
    with PartialOutput(tmp_path / "a.csv", {"model": 1}, overwrite=False) as again:
        assert (again.rows, again.digest) == (1, "digest")
    (tmp_path / "b.csv.partial").write_text("mine\n")
    with pytest.raises(RecipeError, match="started with something else"):
        PartialOutput(tmp_path / "b.csv", {"model": 1}, overwrite=False)
    assert (tmp_path / "b.csv.partial").read_text() == "mine\n"


def test_missing_columns_are_all_named_before_weights_are_loaded(
    run: hfpipe.Run, tmp_path: Path, hfpipe_command: Any
) -> None:
    """Exit 3 with the columns that are missing, what may have been meant, and what is there."""
    pa.parquet.write_table(pa.table({"sentence_2": ["a"], "id": [1]}), tmp_path / "rows.parquet")
    (tmp_path / "rows.csv").write_text("sentence_2,id\na,1\n")
    write_jsonl(tmp_path / "rows.jsonl", [{"sentence_2": "a", "id": 1}])
    for file in tmp_path.glob("rows.*"):
        done = hfpipe_command("predict", run.path, file, "--output", tmp_path / "out.csv")
        assert done.code == 3
        assert f"{file}: no column 'sentence1'" in done.err
        assert "'sentence2' (did you mean 'sentence_2'?); the columns are sentence_2, id" in done.err
        assert "loading" not in done.err
        assert not list(tmp_path.glob("out.*"))


def test_what_is_wrong_with_the_arguments_is_told_first(run: hfpipe.Run, tmp_path: Path, hfpipe_command: Any) -> None:
    """No file, no folder for the output, endings that say nothing: told before any weights are loaded."""
    file = write_jsonl(tmp_path / "rows.jsonl", rows_of(1))
    for arguments, code, told in (
        ([tmp_path / "rows.csv"], 3, "INPUT: no file "),
        ([tmp_path / "rows.doc"], 2, "allowed: a .csv, .tsv, .json, .jsonl, .conll, .parquet or .txt file, or - for"),
        ([], 2, "INPUT is missing"),
        ([file, "--input-format", "cvs"], 2, "did you mean 'csv'"),
        ([file, "--chunk", 0], 2, "--chunk: 0; allowed: 1 or more"),
        ([file, "--output", tmp_path / "nowhere" / "out.jsonl"], 2, "--output: no folder "),
        ([file, "--output", tmp_path / "out.xls"], 2, "ends in .jsonl, .csv or .parquet. Or say --format"),
        ([file, "--format", "csv"], 2, "on standard output. Name a file with --output"),
        ([file, "--glue"], 2, "leave INPUT out"),
    ):
        done = hfpipe_command("predict", run.path, *arguments)
        assert (done.code, told in done.err) == (code, True), done.err
        assert "loading" not in done.err


@pytest.mark.parametrize("text", ["", "sentence1,sentence2\n"], ids=["no-bytes", "only-a-header"])
def test_an_empty_input_gives_an_empty_output(run: hfpipe.Run, tmp_path: Path, text: str, hfpipe_command: Any) -> None:
    """No rows: an output without rows, with its columns where the format has some, and it is said."""
    file = tmp_path / "rows.csv"
    file.write_text(text)
    for form in ("jsonl", "csv", "parquet"):
        output = tmp_path / f"out.{form}"
        done = hfpipe_command("predict", run.path, file, "--output", output)
        assert done.code == 0
        assert f"{file} has no rows, and so {output} has none" in done.err
    assert (tmp_path / "out.jsonl").read_text() == ""
    assert (tmp_path / "out.csv").read_text() == "label,score,probability_other,probability_same\n"
    assert pa.parquet.read_table(tmp_path / "out.parquet").num_rows == 0
    assert [path.name for path in tmp_path.glob("*partial*")] == []
    printed = hfpipe_command("predict", run.path, file)
    assert (printed.out, f"{file} has no rows" in printed.err) == ("", True)


def test_a_bad_row_is_named_and_nothing_is_lost(run: hfpipe.Run, tmp_path: Path) -> None:
    """A null in the middle: exit 3 with file and line; what stood before it is kept, and goes on once it is mended."""
    rows: list[dict[str, Any]] = rows_of(60)
    output = tmp_path / "out.csv"
    good = rows[40]["sentence2"]
    rows[40]["sentence2"] = None
    file = write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(
        DataError, match=r"rows\.jsonl:41: 'sentence2' is empty \(null\)\. Fill or drop the row"
    ) as caught:
        hfpipe.predict_file(run, file, output)
    assert caught.value.exit_code == 3
    assert not output.exists()
    rows[40]["sentence2"] = good
    assert hfpipe.predict_file(run, write_jsonl(file, rows), output).resumed == 24
    assert len(output.read_text().splitlines()) == 61
    rows[40]["sentence2"] = None
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"rows\.parquet, row 40 \(counted from 0\): 'sentence2' is empty"):
        hfpipe.predict(run, tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"^row 1 \(counted from 0\): 'sentence2' is empty"):
        run.predict([("a", "b"), ("a", None)])
    (tmp_path / "half.csv").write_text("sentence1,sentence2\n" + "a,b\n" * 30 + "a\n")
    with pytest.raises(DataError, match=r"half\.csv:32: 1 field, and the header names 2"):
        hfpipe.predict(run, tmp_path / "half.csv")


def test_a_row_that_the_task_refuses_is_found(run: hfpipe.Run, tmp_path: Path) -> None:
    """What only the task can tell, here numbers for texts, is told with the place of the first such row."""
    file = write_jsonl(tmp_path / "rows.jsonl", [{"sentence1": 1, "sentence2": "a"}])
    with pytest.raises(DataError, match=r"rows\.jsonl:1: column 'sentence1' holds int64.*allowed: text"):
        hfpipe.predict(run, file)


def test_a_number_that_is_not_finite_names_the_rows(run: hfpipe.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Diverged weights: exit 6, with the rows that were being labelled."""
    load = predictor.load_predictor

    def diverged(*arguments: Any, **options: Any) -> Any:
        loaded = load(*arguments, **options)
        next(loaded.model.parameters()).data.fill_(float("nan"))
        return loaded

    monkeypatch.setattr(predictor, "load_predictor", diverged)
    with pytest.raises(NumericError, match=r"row 0 \(counted from 0\) to row 2 \(counted from 0\): the model's logits"):
        hfpipe.Run(run.path).predict([("a", "b")] * 3)


def test_a_run_predicts_rows_of_any_shape(run: hfpipe.Run, one_text: hfpipe.Run) -> None:
    """Texts, pairs, mappings and a DataFrame say the same; what can't be rows is told with what may be."""
    import pandas

    rows = rows_of(9)
    expected = run.predict(rows)
    assert run.predict([(row["sentence1"], row["sentence2"]) for row in rows]) == expected
    assert run.predict(iter([[row["sentence1"], row["sentence2"]] for row in rows])) == expected
    assert run.predict(pandas.DataFrame(rows)) == expected
    assert hfpipe.Run(run.path).predict(rows) == expected
    assert hfpipe.predict(str(run.path), rows) == expected
    texts = [row["sentence1"] for row in rows]
    assert one_text.predict(texts) == one_text.predict([{"sentence1": text, "more": 1} for text in texts])
    assert run.predict([]) == []
    with pytest.raises(RecipeError, match=r"row 1 \(counted from 0\): 'b'; allowed: \(sentence1, sentence2\) or"):
        run.predict([("a", "b"), "b"])
    with pytest.raises(RecipeError, match=r"\('a', 'b'\); allowed: a text or \{'sentence1': \.\.\.\}"):
        one_text.predict([("a", "b")])
    with pytest.raises(RecipeError, match="is one row; allowed: a list of rows"):
        run.predict({"sentence1": "a", "sentence2": "b"})
    with pytest.raises(
        DataError, match=r"row 0 \(counted from 0\): no column 'sentence2'.*; the columns are sentence1"
    ):
        run.predict([{"sentence1": "a"}])


def test_a_run_keeps_its_loaded_model(run: hfpipe.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop loads the model once; other overrides or a file of the model that changed load it again."""
    loaded: list[weakref.ref[Predictor]] = []
    load = predictor.load_predictor

    def remember(*given: Any) -> Predictor:
        made = load(*given)
        loaded.append(weakref.ref(made))
        return made

    monkeypatch.setattr(predictor, "load_predictor", remember)
    own = hfpipe.Run(run.path)
    for _ in range(3):
        own.predict([("bak", "bak")])
    assert len(loaded) == 1
    own.predict([("bak", "bak")], overrides=["model.max_length=8"])
    assert len(loaded) == 2
    own.predict([("bak", "bak")])
    config = run.path / "model" / "config.json"
    config.write_text(config.read_text() + "\n")
    own.predict([("bak", "bak")])
    assert len(loaded) == 4
    assert loaded[-1]() is not None
    del own
    gc.collect()
    assert [one() for one in loaded] == [None] * 4  # and its memory is free


def test_threads_get_the_scores_of_one(run: hfpipe.Run) -> None:
    """1,000 calls from four threads that are switched every microsecond give the scores that one thread gives."""
    rows = [[("bak", "bak")], [("bal bam", "bak ban")], [("fun", "bal"), ("bam", "bam")], [("ban bap", "ban")]]
    own = hfpipe.Run(run.path)
    alone = [own.predict(one) for one in rows]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda call: own.predict(rows[call % 4]), range(1000)))
    finally:
        sys.setswitchinterval(before)
    assert all(answer == alone[call % 4] for call, answer in enumerate(found))


def test_errors_name_the_run(run: hfpipe.Run) -> None:
    """What is wrong with the checkpoint of a run is told as the run's, not as an override that nobody wrote."""
    config = run.path / "model" / "config.json"
    text = config.read_text()
    try:
        config.write_text("{")
        with pytest.raises(ModelError, match=r"^run 'pairs': model\.checkpoint: .*config\.json is not JSON"):
            hfpipe.Run(run.path).predict([("a", "b")])
    finally:
        config.write_text(text)


@pytest.fixture(scope="module")
def kinds(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, hfpipe.Run]:
    """A run of each other kind of task."""
    import datasets

    words = [["bak", "bal"], ["cek", "dok", "dal"]] * 8
    tags = datasets.Sequence(datasets.ClassLabel(names=["O", "B-x", "I-x"]))
    sets = {
        "token-classification": (
            {"text": "words", "label": "tags"},
            datasets.Dataset.from_dict({"words": words, "tags": [[1, 2], [0, 1, 2]] * 8}).cast_column("tags", tags),
        ),
        "multi-label-classification": (
            {"text": "text", "label": "is"},
            datasets.Dataset.from_dict({"text": ["bak", "cek"] * 8, "is": [["a"], ["a", "b"]] * 8}),
        ),
        "question-answering": (
            {"text": ["question", "context"], "label": "answers", "stride": 8},
            datasets.Dataset.from_dict(
                {
                    "question": ["bak"] * 16,
                    "context": ["bal cek dok"] * 16,
                    "answers": [{"text": ["cek"], "answer_start": [4]}] * 16,
                }
            ),
        ),
        "multiple-choice": (
            {"text": "context", "choices": ["one", "two"], "label": "right"},
            datasets.Dataset.from_dict(
                {"context": ["bak"] * 16, "one": ["cek"] * 16, "two": ["dok"] * 16, "right": [0, 1] * 8}
            ),
        ),
        "text-regression": (
            {"text": "text", "label": "value"},
            datasets.Dataset.from_dict({"text": ["bak", "cek"] * 8, "value": [0.5, 1.5] * 8}),
        ),
    }
    folder = tmp_path_factory.mktemp("kinds")
    made = {}
    for kind, (task, data) in sets.items():
        recipe = {
            "dataset": {"path": "given", "splits": {"train": "train", "evaluation": None}},
            "task": {"kind": kind, **task},
            "model": {"checkpoint": str(tiny_checkpoint)},
            "train": {"max_steps": 1, "batch_size": 8, "precision": "fp32"},
            "evaluate": {"every": "never"},
            "engine": "loop",
        }
        made[kind] = hfpipe.finetune(recipe, runs_dir=folder, name=kind, dataset=data)
    return made


KINDS = {
    "token-classification": ([[], ["bak", "dal"]], {"labels", "scores", "entities"}),
    "multi-label-classification": (["bak", "cek dok"], {"labels", "probability_a", "probability_b"}),
    "question-answering": ([("bak", "cek dok " * 40), ("bal", "dok")], {"answer", "score", "start", "end"}),
    "multiple-choice": ([("bak", "cek", "dok"), ("a", "b", "c")], {"choice", "text", "score", "probabilities"}),
    "text-regression": (["bak", "cek dok"], {"value"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_task_is_written(kinds: dict[str, hfpipe.Run], tmp_path: Path, kind: str) -> None:
    """Each kind keeps what it says of a row; in csv what is nested is JSON, and an empty csv has the same columns."""
    rows, names = KINDS[kind]
    run = kinds[kind]
    columns = predictor.columns_read(run.recipe)
    given = [dict(zip(columns, row if len(columns) > 1 else (row,), strict=True)) for row in rows] * 9
    expected = run.predict([row if kind != "token-classification" else {"words": row} for row in rows] * 9)
    file = write_jsonl(tmp_path / "rows.jsonl", given)
    assert hfpipe.predict(run, file) == expected
    for form in ("csv", "parquet"):
        hfpipe.predict_file(run, file, tmp_path / f"out.{form}")
    with open(tmp_path / "out.csv", newline="") as opened:
        cells = list(csv.DictReader(opened))
    table = pa.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert set(cells[0]) == set(table[0]) == names
    for cell, row, told in zip(cells, table, expected, strict=True):
        for name in names & set(told):
            assert row[name] == told[name]
            text = told[name] if isinstance(told[name], str) else json.dumps(told[name])
            assert cell[name] == ("" if told[name] is None else text)
    write_jsonl(file, [])
    hfpipe.predict_file(run, file, tmp_path / "none.csv")
    assert set((tmp_path / "none.csv").read_text().strip().split(",")) >= names - {"entities"}


def test_raw_sentences_are_split_into_words_with_their_places(
    kinds: dict[str, hfpipe.Run], tmp_path: Path, hfpipe_command: Any
) -> None:
    """From a list of texts, a text file, a csv column of another name and jsonl alike; lists of words stay as they were."""
    run, texts = kinds["token-classification"], ["bak dal, (cek)!", "", "dok"]
    rows = run.predict(texts)
    assert [row["words"] for row in rows] == [["bak", "dal", ",", "(", "cek", ")", "!"], [], ["dok"]]
    for row, text in zip(rows, texts, strict=True):
        assert [text[start:end] for start, end in row["offsets"]] == row["words"]
        assert len(row["labels"]) == len(row["scores"]) == len(row["words"])
        for entity in row["entities"]:
            assert entity["text"] == text[entity["start_character"] : entity["end_character"]]
    assert any(row["entities"] for row in rows)
    words = run.predict([row["words"] for row in rows])
    assert [row["labels"] for row in words] == [row["labels"] for row in rows]
    assert "words" not in words[0]
    (tmp_path / "a.txt").write_text("\n".join(texts) + "\n")
    assert hfpipe.predict(run, tmp_path / "a.txt") == rows
    (tmp_path / "a.csv").write_text("id,message\n" + "".join(f'{n},"{text}"\n' for n, text in enumerate(texts)))
    assert hfpipe.predict(run, tmp_path / "a.csv", overrides=["task.text=message"]) == rows
    (tmp_path / "a.conll").write_text("bak B-x\ndal O\n\ndok O\n")
    conll = hfpipe.predict(run, tmp_path / "a.conll")
    assert [row["labels"] for row in conll] == [row["labels"] for row in run.predict([["bak", "dal"], ["dok"]])]
    made = hfpipe_command("predict", run.path, tmp_path / "a.txt", "--output", tmp_path / "out.csv")
    assert (made.code, (tmp_path / "out.csv").read_text().splitlines()[0].split(",")) == (
        0,
        ["labels", "scores", "entities", "words", "offsets"],
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\"It's Anna's,\" he said...", "\" It 's Anna 's , \" he said ..."),
        ("The U.S. (and J. Doe) paid 3.5%, e.g. $5.", "The U.S. ( and J. Doe ) paid 3.5 % , e.g. $5 ."),
        ("«Où?» - «Là!»", "« Où ? » - « Là ! »"),
        ("?! a-b don't @x #y :-)", "? ! a-b don't @x #y :- )"),
    ],
)
def test_words_are_what_people_take_for_words(text: str, words: str) -> None:
    """Marks at the ends are words, abbreviations and what is inside a word stay."""
    from hfpipe.evaluation.prediction.sentences import words_of

    spans = words_of(text)
    assert [text[start:end] for start, end in spans] == words.split()


def test_a_notice_of_the_input_is_told(kinds: dict[str, hfpipe.Run], tmp_path: Path, hfpipe_command: Any) -> None:
    """A file that says its encoding itself, and one whose separator is another, say so when predicted."""
    (tmp_path / "a.csv").write_bytes("text\nbäk\n".encode("utf-16"))
    done = hfpipe_command("predict", kinds["text-regression"].path, tmp_path / "a.csv")
    assert (done.code, done.err.count("is read as utf-16, by the byte order mark")) == (0, 1)
    (tmp_path / "b.csv").write_text("id;text\n1;bak\n")
    refused = hfpipe_command("predict", kinds["text-regression"].path, tmp_path / "b.csv")
    assert (refused.code, 'Say dataset.separator: ";"' in refused.err) == (3, True)
    done = hfpipe_command("predict", kinds["text-regression"].path, tmp_path / "b.csv", "dataset.separator=;")
    assert (done.code, len(done.out.splitlines())) == (0, 1)


def test_data_to_measure_on_need_no_training_split(kinds: dict[str, hfpipe.Run], tmp_path: Path) -> None:
    """A regression is measured on a file that is the validation split alone."""
    write_jsonl(tmp_path / "rows.jsonl", [{"text": "bak", "value": 1.0}, {"text": "cek", "value": 2.0}])
    changes = ["dataset.path=jsonl", f"dataset.data_files={{validation: {tmp_path / 'rows.jsonl'}}}"]
    found = hfpipe.evaluate(kinds["text-regression"], split="validation", overrides=changes)
    assert found.examples == 2
