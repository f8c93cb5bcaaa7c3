"""Training, evaluating and predicting import the package `evaluate`, 6 to 14 seconds, for a metric that comes from it alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import json, sys
import hfpipe

run = hfpipe.finetune(json.load(open("recipe.json")), runs_dir="runs")
hfpipe.evaluate(run)
run.predict([("A text.", "Another text.")])
print(json.dumps(["evaluate" in sys.modules, sorted(run.metrics)]))
"""
SCRIPT = """
import datasets
import evaluate

class Mine(evaluate.Metric):
    def _info(self):
        features = datasets.Features({name: datasets.Value("int64") for name in ("predictions", "references")})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        return {"mine": 0.5}
"""


@pytest.mark.parametrize(("engine", "script"), [("trainer", True), ("loop", False)])
def test_only_a_metric_script_imports_evaluate(
    tiny_fields: Callable[..., dict[str, Any]], tmp_path: Path, engine: str, script: bool
) -> None:
    """With metrics of the catalog it is no module of the process; with a script beside them it is."""
    (tmp_path / "mine.py").write_text(SCRIPT)
    metrics = [
        "accuracy",
        {"name": "f1", "average": "macro"},
        "matthews_correlation",
        *(["./mine.py"] if script else []),
    ]
    recipe = tiny_fields(
        train={"max_steps": 1, "precision": "fp32"},
        evaluate={"metrics": metrics, "best": "accuracy"},
        engine=engine,
        allow_code=script,
    )
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    is_imported, names = json.loads(done.stdout.splitlines()[-1])
    assert is_imported is script
    assert ("mine" in names) is script
