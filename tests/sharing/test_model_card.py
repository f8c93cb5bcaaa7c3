"""The model card: it parses back, says what the run says and nothing else, and its example runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

import hfpipe
from hfpipe.recipe.source import to_yaml
from hfpipe.runs import Run
from hfpipe.runs.evaluations import write_evaluation
from hfpipe.sharing.model_card import PLACE, card
from hfpipe.system import manifest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TASKS: dict[str, dict[str, Any]] = {
    "text-classification": {"text": ["sentence1", "sentence2"]},
    "text-regression": {"text": "my text"},
    "multi-label-classification": {"text": ["class"], "label": ["a", "b"]},
    "token-classification": {"text": ["tokens"], "label": "ner_tags"},
    "question-answering": {"text": ["question", "context"], "label": "answers"},
    "multiple-choice": {"text": ["sent1"], "choices": ["ending0", "ending1"]},
}


@pytest.fixture(scope="module")
def trained(tiny_checkpoint: Path, pairs_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> hfpipe.Run:
    """A run of two steps on local data and a local checkpoint."""
    fields = {
        "name": "tiny",
        "dataset": {"path": str(pairs_folder)},
        "task": {"text": ["sentence1", "sentence2"]},
        "model": {"checkpoint": str(tiny_checkpoint)},
        "train": {"max_steps": 2, "batch_size": 8, "precision": "fp32"},
        "evaluate": {"metrics": ["accuracy", "f1"], "best": "accuracy"},
    }
    return hfpipe.finetune(fields, runs_dir=tmp_path_factory.mktemp("runs"), name="one")


@pytest.fixture
def dummy_predictions(tmp_path: Path) -> Run:
    """A run of Hub ids, as its folder would be; nothing was trained."""
    fields = {
        "name": "mrpc",
        "dataset": {"path": "nyu-mll/glue", "name": "mrpc", "splits": {"train": "train", "evaluation": "validation"}},
        "task": {"text": ["sentence1", "sentence2"]},
        "model": {"checkpoint": "google-bert/bert-base-cased", "max_length": 128},
        "evaluate": {"metrics": ["accuracy", "f1"], "best": "f1"},
    }
    return of_fields(tmp_path, fields)


def of_fields(folder: Path, fields: dict[str, Any]) -> Run:
    """The folder of a finished run of this recipe."""
    run = Run(folder / "made")
    run.write_text("recipe.yaml", to_yaml(hfpipe.load_recipe(fields)))
    identity = {"dataset": {"path": "x", "commit": COMMIT, "digest": "6" * 64}}
    run.update_metadata(
        id="made",
        status="finished",
        identity=identity,
        rows={"train": 3668},
        device="cpu",
        seed=42,
        versions={"torch": "2"},
    )
    figures = {"loss": 0.4, "accuracy": 0.82, "f1": 0.8701, "odd": None}
    run.write_json(
        "metrics.json", {"split": "validation", "metrics": figures, "examples": 408, "steps": 10, "evaluated_step": 8}
    )
    document = {
        "split": "validation", "examples": 408, "metrics": figures, "intervals": {"f1": [0.84, 0.9]}, "level": 0.95,
        "baseline": {"what": "always 'equivalent'", "metrics": {"f1": 0.812}},
        "remarks": ["the model predicts 'equi_valent' for all 408 examples"],
    }  # fmt: skip
    write_evaluation(run, "validation", document, [])
    run.append({"type": "notice", "text": "train: read from /home/someone/data/pairs"})
    return run


def test_every_run_ends_with_a_card(trained: hfpipe.Run) -> None:
    """It lies in model/, its digest stands in run.json, and Hub and user may change it: evaluate does not mind."""
    path = trained.path / "model" / "README.md"
    assert trained.metadata["model"]["README.md"] == manifest.digests(path.parent)["README.md"]
    loaded = ModelCard.load(path)
    assert loaded.data.library_name == "transformers"
    path.write_text(f"{path.read_text(encoding='utf-8')}\nMine.\n", encoding="utf-8")
    assert hfpipe.evaluate(trained).examples == 21


def test_no_path_of_this_machine_is_in_it(trained: hfpipe.Run, pairs_folder: Path, tiny_checkpoint: Path) -> None:
    """Local data and a local checkpoint are called by their last name, and are no id of the Hub in the metadata."""
    text = str(card(trained))
    assert str(pairs_folder.parent) not in text
    assert str(tiny_checkpoint.parent) not in text
    assert "`pairs`" in text
    assert "`tiny`" in text
    data = ModelCard(text).data
    assert data.base_model is None
    assert data.datasets is None
    assert all(one.dataset_revision is None for one in data.eval_results)


def test_the_metadata_parse_back(dummy_predictions: Run) -> None:
    """Ids, split, revision and figures come back as EvalResult; an undefined figure and the loss are left out."""
    data = ModelCard(str(card(dummy_predictions))).data
    assert (data.base_model, data.datasets) == ("google-bert/bert-base-cased", "nyu-mll/glue")
    assert (data.pipeline_tag, data.tags, data.metrics) == (
        "text-classification",
        ["hfpipe", "text-classification"],
        ["accuracy", "f1"],
    )
    assert (data.language, data.license) == (None, None)
    assert data.model_name == "mrpc"
    f1 = next(one for one in data.eval_results if one.metric_type == "f1")
    assert (f1.dataset_type, f1.dataset_config, f1.dataset_split, f1.dataset_revision) == (
        "nyu-mll/glue",
        "mrpc",
        "validation",
        COMMIT,
    )
    assert f1.metric_value == 0.8701
    assert [one.metric_type for one in data.eval_results] == ["accuracy", "f1"]


def test_the_text_says_what_the_run_says(dummy_predictions: Run) -> None:
    """Interval, baseline, settings, data and notices; a path in a notice is cut, and names are no markup."""
    text = card(dummy_predictions).text
    assert "f1 0.8701: 95 % interval 0.8400 to 0.9000, on 408 examples of validation." in text
    assert "| f1 | 0.8701 | 0.8400 to 0.9000 | 0.8120 |" in text
    assert "| odd | undefined |" in text
    assert f"split `train`, 3,668 rows, commit `{COMMIT}`" in text
    assert "| `optimizer.lr` | `" in text
    assert "- The model predicts 'equi\\_valent' for all 408 examples." in text
    assert "read from .../pairs" in text
    assert "/home/" not in text


@pytest.mark.parametrize("kind", TASKS)
def test_each_kind_of_task_has_its_example(kind: str, tmp_path: Path) -> None:
    """The example names the class of the head and the columns of the task, and is valid Python."""
    fields = {
        "name": "any",
        "dataset": {"path": "a/b"},
        "task": {"kind": kind, **TASKS[kind]},
        "model": {"checkpoint": "c/d"},
    }
    run = of_fields(tmp_path, fields)
    text = card(run).text
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    compile(example, "example", "exec")
    assert PLACE in example
    assert f"import {run_class(kind)}," in example
    assert ModelCard(str(card(run))).data.eval_results


def run_class(kind: str) -> str:
    """The class of transformers that has this kind's head."""
    ends = {
        "token-classification": "TokenClassification",
        "question-answering": "QuestionAnswering",
        "multiple-choice": "MultipleChoice",
    }
    return f"AutoModelFor{ends.get(kind, 'SequenceClassification')}"


def test_the_example_runs(trained: hfpipe.Run, capsys: pytest.CaptureFixture[str]) -> None:
    """With the folder of the model in its place, it loads, reads the two texts and prints a class."""
    (example,) = re.findall(r"```python\n(.*?)```", card(trained).text, flags=re.DOTALL)
    with torch.random.fork_rng():
        exec(example.replace(PLACE, f"checkpoint = {str(trained.path / 'model')!r}"), {})
    assert capsys.readouterr().out.strip() in ("other", "same")
