"""Real data and a real checkpoint, from the cache that HFPIPE_REALDATA_HOME names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.realdata

ROOT = Path(__file__).parent.parent
MINILM = "sentence-transformers/all-MiniLM-L6-v2"

# In a process of its own, in which a connection is an error: `HFPIPE_REALDATA_HOME` is all there is.
PROGRAM = """
import json, socket, sys

attempts = []

def refuse(*arguments, **options):
    attempts.append(repr(arguments[1:]))
    raise ConnectionRefusedError(111, "no network in this test")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
import hfpipe

recipe = hfpipe.load_recipe(sys.argv[1], sys.argv[3:])
found = {}
for engine in ("trainer", "loop"):
    run = hfpipe.finetune(recipe, engine=engine, runs_dir=sys.argv[2], name=engine)
    measured = hfpipe.evaluate(run)
    steps = [record for record in run.records if record["type"] == "step"]
    found[engine] = {
        "metrics": run.metrics,
        "measured": measured.metrics,
        "intervals": measured.intervals,
        "examples": measured.examples,
        "losses": [step["loss"] for step in steps],
        "identity": run.metadata["identity"],
        "fresh": run.metadata["fresh"],
    }
print(json.dumps({"attempts": attempts, **found}))
"""


def test_mrpc_trains_with_both_engines_from_the_cache_alone(tmp_path: Path) -> None:
    """recipes/mrpc.yaml with MiniLM: both engines take the same steps, evaluate agrees, nobody is called."""
    home = os.environ["HFPIPE_REALDATA_HOME"]
    overrides = [f"model.checkpoint={MINILM}", "dataset.splits.train=train[:64]", "train.epochs=1"]
    overrides += ["dataset.splits.evaluation='validation[:24]'", "train.batch_size=16", "train.precision=fp32"]
    overrides += ["checkpoints.keep_last=1", "model.max_length=64"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HOME": home, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", PROGRAM, str(ROOT / "recipes" / "mrpc.yaml"), str(tmp_path / "runs"), *overrides]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["attempts"] == []
    trainer, loop = found["trainer"], found["loop"]
    assert len(trainer["losses"]) == 4
    assert trainer["losses"] == loop["losses"]
    assert trainer["metrics"] == loop["metrics"]
    assert all(trainer["identity"][part] == loop["identity"][part] for part in ("dataset", "checkpoint", "tokenizer"))
    assert len(trainer["identity"]["dataset"]["commit"]) == 40
    for engine in (trainer, loop):
        assert engine["fresh"] == ["classifier.bias", "classifier.weight"]
        assert engine["measured"] == engine["metrics"]
        assert engine["examples"] == 24
        low, high = engine["intervals"]["accuracy"]
        assert low <= engine["metrics"]["accuracy"] <= high


@pytest.mark.parametrize(
    ("path", "name", "kind", "text", "rows"),
    [
        ("nyu-mll/glue", "mrpc", "text-classification", ["sentence1", "sentence2"], 3668),
        ("nyu-mll/glue", "cola", "text-classification", ["sentence"], None),
        ("nyu-mll/glue", "stsb", "text-regression", ["sentence1", "sentence2"], None),
    ],
)
def test_real_data_are_opened_and_checked(path: str, name: str, kind: str, text: list[str], rows: int | None) -> None:
    """Each data set opens offline at a commit, its rows pass the checks, and MRPC has the 3,668 that it should."""
    from hfpipe.parts import tasks
    from hfpipe.parts.data.open import open_data
    from hfpipe.recipe import load_recipe

    fields = {
        "dataset": {"path": path, "name": name},
        "task": {"text": text, "kind": kind},
        "model": {"checkpoint": "x"},
    }
    recipe = load_recipe(fields)
    raw = open_data(recipe)
    train = raw.split("train", "here")
    task = tasks.make_task(recipe.task, train, raw.name, "here")
    for split in ("train", "validation"):
        task.check(raw.split(split, "here"), split, "here")
    assert raw.commit
    assert rows is None or len(train) == rows
    assert (task.num_labels == 1) == (kind == "text-regression")


@pytest.mark.parametrize(
    ("recipe", "figures"),
    [
        ("cola-minilm", {"matthews_correlation"}),
        ("stsb-minilm", {"pearson", "spearmanr"}),
        ("wnut17", {"precision", "recall", "f1", "accuracy", "person_f1"}),
    ],
)
def test_real_recipes_train_measure_and_predict(recipe: str, figures: set[str], tmp_path: Path) -> None:
    """Two steps of each recipe on real rows: the figures of its task, the same from evaluate, and labels for rows."""
    import datasets

    import hfpipe
    from hfpipe.evaluation.prediction.predict import predict

    # After two steps every prediction may be of one class, for which a correlation is no number and no best one.
    small = [
        "train.max_steps=2",
        "dataset.splits={train: 'train[:64]', evaluation: 'validation[:48]'}",
        "evaluate.best=loss",
    ]
    run = hfpipe.finetune(f"recipes/{recipe}.yaml", overrides=small, runs_dir=tmp_path, name="two")
    assert figures <= set(run.metrics)
    measured = hfpipe.evaluate(run)
    assert measured.metrics == run.metrics
    assert measured.examples == 48
    spec = run.recipe
    rows = datasets.load_dataset(spec.dataset.path, spec.dataset.name, split="validation[:5]")
    rows.select_columns(list(spec.task.text)).to_json(tmp_path / "rows.jsonl")
    assert len(predict(run, tmp_path / "rows.jsonl")) == 5


def test_the_audit_of_mrpc() -> None:
    """What is known of MRPC: its sizes and classes, and no pair of the training split in the validation split."""
    from hfpipe.parts.inputs.preview import look_at_data

    _, audit, longer, _ = look_at_data("recipes/mrpc-minilm.yaml")
    train, validation = audit.splits["train"], audit.splits["validation"]
    assert train.labels == {"not_equivalent": 1194, "equivalent": 2474}
    assert (validation.rows, validation.labels["equivalent"]) == (408, 279)
    assert audit.shared == {"validation": 0}
    assert longer == {"train": [], "validation": []}
    assert train.lengths["longest"] == 103
