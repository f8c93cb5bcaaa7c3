"""`hfpipe predict --glue` and `hfpipe glue-zip`: what the GLUE server takes."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import datasets
import pytest

import hfpipe
from hfpipe.errors import DataError, RecipeError
from hfpipe.evaluation.prediction import glue
from hfpipe.evaluation.prediction.predict import predict_glue
from hfpipe.recipe import load_recipe

WORDS = [a + b + c for a in "bcdfg" for b in "aeiou" for c in "klmnp"]
TEXTS = {
    "cola": ["sentence"],
    "mrpc": ["sentence1", "sentence2"],
    "stsb": ["sentence1", "sentence2"],
    "mnli": ["premise", "hypothesis"],
    "ax": ["premise", "hypothesis"],
    "rte": ["sentence1", "sentence2"],
}
CLASSES = {
    "cola": ["unacceptable", "acceptable"],
    "mrpc": ["not_equivalent", "equivalent"],
    "stsb": None,
    "mnli": ["entailment", "neutral", "contradiction"],
    "ax": ["entailment", "neutral", "contradiction"],
    "rte": ["entailment", "not_entailment"],
}
TESTS = {"mnli": ("test_matched", "test_mismatched")}
ROWS = 23


def rows(config: str, count: int, seed: int, *, hidden: bool) -> datasets.Dataset:
    """Random words; labels that are kept back are -1, as the Hub has them."""
    rng, names = Random(seed), CLASSES[config]
    label = datasets.Value("float32") if names is None else datasets.ClassLabel(names=names)
    columns: dict[str, list[Any]] = {
        text: [" ".join(rng.choices(WORDS, k=rng.randint(1, 9))) for _ in range(count)] for text in TEXTS[config]
    }
    columns["label"] = [
        -1 if hidden else rng.uniform(0, 9) if names is None else row % len(names) for row in range(count)
    ]
    columns["idx"] = list(range(count))
    kinds = {**dict.fromkeys(TEXTS[config], datasets.Value("string")), "label": label, "idx": datasets.Value("int32")}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the configurations, columns and splits of nyu-mll/glue, a few rows each."""
    folder, configs = tmp_path_factory.mktemp("glue") / "glue", ""
    for config in TEXTS:
        splits = {} if config == "ax" else {"train": rows(config, 40, 1, hidden=False)}
        splits |= {
            split: rows(config, ROWS + number, 2 + number, hidden=True)
            for number, split in enumerate(TESTS.get(config, ("test",)))
        }
        configs += f"- config_name: {config}\n  data_files:\n"
        for split, data in splits.items():
            (folder / config).mkdir(parents=True, exist_ok=True)
            data.to_parquet(folder / config / f"{split}.parquet")
            configs += f"  - {{split: {split}, path: {config}/{split}.parquet}}\n"
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    return folder


def train(sets: Path, checkpoint: Path, runs: Path, config: str, **task: Any) -> hfpipe.Run:
    """A run of one step on one of the sets."""
    kind = "text-regression" if CLASSES[config] is None else "text-classification"
    recipe = {
        "dataset": {"path": str(sets), "name": config, "splits": {"train": "train", "evaluation": None}},
        "task": {"kind": kind, "text": TEXTS[config], **task},
        "model": {"checkpoint": str(checkpoint)},
        "train": {"max_steps": 1, "batch_size": 8, "precision": "fp32"},
        "evaluate": {"every": "never"},
        "engine": "loop",
    }
    return hfpipe.finetune(recipe, runs_dir=runs)


def lines(file: Path) -> list[list[str]]:
    """The cells of a file for the server."""
    return [line.split("\t") for line in file.read_text().splitlines()]


@pytest.mark.parametrize("config", ["cola", "mrpc", "rte"])
def test_a_run_writes_the_file_of_its_set(
    config: str, sets: Path, tiny_checkpoint: Path, tmp_path: Path, telling_apart: Any, hfpipe_command: Any
) -> None:
    """The file has the server's name, header and labels, an index a row, and what predict says of each row."""
    run = telling_apart(train(sets, tiny_checkpoint, tmp_path / "runs", config), rows(config, ROWS, 2, hidden=True))
    done = hfpipe_command("predict", run.path, "--glue", "--output", tmp_path / "glue")
    assert done.code == 0
    (test_set,) = glue.test_sets_of(config, "")
    file = tmp_path / "glue" / test_set.file
    assert done.out == f"{file}: {ROWS} rows\n"
    assert f"{test_set.file} has {ROWS} rows, and the server's test set has {test_set.rows:,}" in done.err
    header, *cells = lines(file)
    assert header == ["index", "prediction"]
    said = run.predict(rows(config, ROWS, 2, hidden=True))
    number = {name: str(place) for place, name in enumerate(CLASSES[config] or [])}
    expected = [row["label"] if config == "rte" else number[row["label"]] for row in said]
    assert cells == [[str(index), label] for index, label in enumerate(expected)]
    assert len(set(expected)) == 2  # else the order would not show
    again = hfpipe_command("predict", run.path, "--glue", "--output", tmp_path / "glue")
    assert again.code == 2
    assert "is there already. Say --overwrite" in again.err


def test_sts_b_is_a_number_from_0_to_5(sets: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """What the regression says is written as a number, and what lies outside is clipped."""
    run = train(sets, tiny_checkpoint, tmp_path / "runs", "stsb")
    from hfpipe.evaluation.prediction.predictor import Predictor

    monkeypatch.setattr(Predictor, "label", lambda self, chunk: [{"value": row - 3.25} for row in chunk.places])
    assert predict_glue(run, tmp_path / "glue") == {"STS-B.tsv": ROWS}
    values = [float(value) for _, value in lines(tmp_path / "glue" / "STS-B.tsv")[1:]]
    assert values == [min(max(row - 3.25, 0), 5) for row in range(ROWS)]


def test_a_model_of_mnli_labels_three_sets(
    sets: Path, tiny_checkpoint: Path, tmp_path: Path, telling_apart: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The matched, the mismatched and the diagnostic set; without the last one's data that is said, and the others stay."""
    from hfpipe.system.display import Plain

    run = telling_apart(train(sets, tiny_checkpoint, tmp_path / "runs", "mnli"), rows("mnli", ROWS, 2, hidden=True))
    made = predict_glue(run, tmp_path / "glue")
    assert made == {"MNLI-m.tsv": ROWS, "MNLI-mm.tsv": ROWS + 1, "AX.tsv": ROWS}
    for name, config, seed in (("MNLI-m", "mnli", 2), ("MNLI-mm", "mnli", 3), ("AX", "ax", 2)):
        cells = lines(tmp_path / "glue" / f"{name}.tsv")[1:]
        said = run.predict(rows(config, len(cells), seed, hidden=True))
        assert [label for _, label in cells] == [row["label"] for row in said]
    capsys.readouterr()
    readme = sets / "README.md"
    text = readme.read_text()
    try:
        readme.write_text(text.replace("config_name: ax", "config_name: xa"))
        made = predict_glue(run, tmp_path / "two", display=Plain())
    finally:
        readme.write_text(text)
    assert set(made) == {"MNLI-m.tsv", "MNLI-mm.tsv"}
    assert "AX.tsv is left out, and the server wants it: " in capsys.readouterr().err


def test_classes_with_names_of_ones_own_are_known_by_their_order(
    sets: Path, tiny_checkpoint: Path, tmp_path: Path, telling_apart: Any
) -> None:
    """Names declared in the recipe stand for the Hub's classes in order; other classes are refused."""
    run = train(sets, tiny_checkpoint, tmp_path / "runs", "cola", label={"column": "label", "names": ["bad", "good"]})
    telling_apart(run, rows("cola", ROWS, 2, hidden=True))
    predict_glue(run, tmp_path / "glue")
    said = run.predict(rows("cola", ROWS, 2, hidden=True))
    expected = [{"bad": "0", "good": "1"}[row["label"]] for row in said]
    assert [label for _, label in lines(tmp_path / "glue" / "CoLA.tsv")[1:]] == expected
    assert set(expected) == {"0", "1"}
    (cola,) = glue.test_sets_of("cola", "")
    by_number = glue.server_labels(cola, ["good", "bad"], {"1": "good", "0": "bad"}, "")
    assert by_number == {"bad": "0", "good": "1"}
    declared: tuple[tuple[list[str], list[str] | Mapping[str, str] | None], ...] = (
        (["a", "b"], None),
        (["a", "b"], ["a", "c"]),
        (["a", "b", "c"], ["a", "b", "c"]),
        (["a", "b"], {"0": "a", "1": "a"}),
    )
    for classes, names in declared:
        with pytest.raises(RecipeError, match=r"CoLA\.tsv is about unacceptable, acceptable"):
            glue.server_labels(cola, classes, names, "")


def test_a_run_on_something_else_is_refused(tmp_path: Path) -> None:
    """A run whose data are no set of GLUE has no test set there."""
    with pytest.raises(RecipeError, match="'mrcp' is no set of GLUE; did you mean 'mrpc'"):
        glue.test_sets_of("mrcp", "")
    with pytest.raises(RecipeError, match=r"None.* is no set of GLUE"):
        glue.test_sets_of(None, "")


def test_the_table_is_that_of_the_recipes() -> None:
    """Each shipped GLUE recipe has its test sets here, and all eleven files of the server come from them."""
    found = [
        one.file
        for name in ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")
        for one in glue.test_sets_of(load_recipe(f"recipes/{name}.yaml").dataset.name, "")
    ]
    assert sorted(found) == sorted(one.file for one in glue.TEST_SETS)
    assert len(found) == 11


def submission(folder: Path, names: list[str] | None = None) -> None:
    """Files that the server takes, with the official numbers of rows; QQP's is made for these tests alone."""
    folder.mkdir(exist_ok=True)
    for one in glue.TEST_SETS:
        if names is None or one.file in names:
            labels = [*one.labels.values()] or ["0.000", "2.5", "5"]
            glue.write_predictions(folder / one.file, (labels[row % len(labels)] for row in range(one.rows)))


def test_a_complete_submission_is_packed_the_same_every_time(tmp_path: Path, hfpipe_command: Any) -> None:
    """All eleven files, nothing else, and the same bytes from another folder at another time."""
    digests = []
    for name in ("one", "two"):
        submission(tmp_path / name)
        (tmp_path / name / "notes.txt").write_text("mine")
        done = hfpipe_command("glue-zip", tmp_path / name, "--complete", "--json")
        assert (done.code, done.json["missing"], done.err) == (0, [], "")
        digests.append(hashlib.sha256((tmp_path / name / "submission.zip").read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    with zipfile.ZipFile(tmp_path / "one" / "submission.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [one.file for one in glue.TEST_SETS]
        assert archive.read("RTE.tsv") == (tmp_path / "one" / "RTE.tsv").read_bytes()


def test_missing_files_are_named(tmp_path: Path, hfpipe_command: Any) -> None:
    """What is there is packed with a warning that names the rest; --complete refuses, and so does an empty folder."""
    submission(tmp_path, ["RTE.tsv", "WNLI.tsv"])
    done = hfpipe_command("glue-zip", tmp_path, "--output", tmp_path / "some.zip")
    assert done.code == 0
    assert "warning: not in the zip: CoLA.tsv, SST-2.tsv" in done.err
    assert "the server refuses a zip without them" in done.err
    assert done.out == f"{tmp_path / 'some.zip'}: RTE.tsv, WNLI.tsv\n"
    refused = hfpipe_command("glue-zip", tmp_path, "--complete")
    assert refused.code == 3
    assert "QNLI.tsv, AX.tsv are missing" in refused.err
    (tmp_path / "empty").mkdir()
    assert hfpipe_command("glue-zip", tmp_path / "empty").code == 3
    assert hfpipe_command("glue-zip", tmp_path / "nowhere").code == 2


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("WNLI.tsv", lambda text: text.replace("index\tprediction", "id,label"), "WNLI.tsv:1: 'id,label'; allowed: "),
        ("WNLI.tsv", lambda text: text.replace("\n7\t", "\n8\t"), "WNLI.tsv:9: '8\\t1'; allowed: the index 7"),
        ("WNLI.tsv", lambda text: text.replace("\n7\t1", ""), "WNLI.tsv: 145 rows, and the test set has 146"),
        ("WNLI.tsv", lambda text: f"{text}146\t1\n", "WNLI.tsv: 147 rows, and the test set has 146"),
        ("WNLI.tsv", lambda text: text.replace("\t1\n", "\tentailment\n"), "label 'entailment'; allowed: 0, 1"),
        ("WNLI.tsv", lambda text: text.replace("\t1\n", "\tyes\n"), "WNLI.tsv: and 70 more such rows"),
        ("RTE.tsv", lambda text: text.replace("\tentailment\n", "\t0\n", 1), "allowed: entailment, not_entailment"),
        ("STS-B.tsv", lambda text: text.replace("\t5\n", "\t5.01\n", 1), "'5.01'; allowed: a number from 0 to 5"),
        ("STS-B.tsv", lambda text: text.replace("\t5\n", "\tnan\n", 1), "'nan'; allowed: a number from 0 to 5"),
    ],
)
def test_what_the_server_would_refuse_is_found(tmp_path: Path, name: str, change: Any, told: str) -> None:
    """Header, indices, row count and labels are checked; nothing is packed."""
    submission(tmp_path, [name])
    file = tmp_path / name
    file.write_text(change(file.read_text()))
    with pytest.raises(DataError) as caught:
        glue.pack(tmp_path)
    assert told in str(caught.value)
    assert not (tmp_path / "submission.zip").exists()


def test_a_misspelt_file_is_told(tmp_path: Path, hfpipe_command: Any) -> None:
    """A name that the server does not know is an error with the one that was meant, and all mistakes come at once."""
    submission(tmp_path, ["MRPC.tsv", "WNLI.tsv"])
    (tmp_path / "MRPC.tsv").rename(tmp_path / "mrpc.tsv")
    (tmp_path / "WNLI.tsv").write_text("")
    done = hfpipe_command("glue-zip", tmp_path, "--json")
    assert done.code == 3
    told = json.loads(done.out)["error"]
    assert "mrpc.tsv: no name of the server's" in told
    assert "WNLI.tsv: 0 rows" in told
