"""Light commands stay light: none of the heavy libraries is imported, at any depth."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hfpipe.recipe import shipped

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "datasets", "evaluate", "accelerate", "sklearn", "pandas", "scipy", "matplotlib")
PROGRAM = """
import json, sys
sys.argv = ["hfpipe", *json.loads(sys.argv[1])]
code = 0
if sys.argv[1:] == ["import"]:
    import hfpipe, hfpipe.errors, hfpipe.recipe, hfpipe.runs, hfpipe.system.display, hfpipe.cli.app
    hfpipe.load_recipe, hfpipe.Recipe, hfpipe.Run
else:
    from hfpipe.cli.app import main
    try:
        main()
    except SystemExit as left:
        code = left.code or 0
print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)
"""
# A valid recipe with arguments of every part, and options of TrainingArguments.
ARGUMENTS = [
    "optimizer.betas=[0.9, 0.98]", "optimizer.eps=1e-6", "optimizer.weight_decay=0.1", "schedule.name=cosine",
    "schedule.num_cycles=0.5", "loss.label_smoothing=0.1", "loss.class_weights=balanced",
    "evaluate.metrics=[accuracy, {name: f1, average: macro}]", "trainer={use_cpu: true}",
]  # fmt: skip
COMMANDS = [
    (["import"], 0),
    (["--help"], 0),
    (["finetune", "--help"], 0),
    (["recipes", "list"], 0),
    (["recipes", "show", "quickstart"], 0),
    (["recipes", "show", "quickstart", "seed=1"], 0),
    (["recipes", "schema"], 0),
    (["recipes", "validate", "broken.yaml"], 2),
    *((["recipes", "validate", name], 0) for name in shipped.names()),
    (["recipes", "validate", "mrpc", *ARGUMENTS], 0),
    (["recipes", "validate", "mrpc", "trainer.optim_target_modules=3"], 2),
    (["finetune", "broken.yaml"], 2),
    (["runs", "list", "--runs-dir", "runs"], 0),
    (["runs", "list", "--runs-dir", "runs", "--json"], 0),
    (["runs", "show", "one", "--runs-dir", "runs"], 0),
    (["runs", "diff", "one", "one", "--runs-dir", "runs"], 0),
    (["runs", "delete", "one", "--runs-dir", "runs"], 2),
]


@pytest.mark.parametrize(
    ("arguments", "expected"), COMMANDS, ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else ""
)
def test_nothing_heavy_is_imported(tmp_path: Path, arguments: list[str], expected: int) -> None:
    """The command answers, and sys.modules of its process holds none of the heavy libraries."""
    from hfpipe.recipe import load_recipe
    from hfpipe.runs import Run

    Run.create(load_recipe("quickstart"), tmp_path / "runs", "one").update_metadata(status="finished")
    (tmp_path / "broken.yaml").write_text("train: {epochs: 0}\nlos: {}\ntrainer: {no_cuda: true}\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM, json.dumps(arguments)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == expected, done.stderr
    assert "hfpipe.cli.app" in modules
    assert not [name for name in modules if name.partition(".")[0] in HEAVY]


def test_the_program_sees_what_is_heavy() -> None:
    """A process that does import one of them is found out, so that the test above can fail."""
    program = "import json, sys, pandas; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert any(name.partition(".")[0] in HEAVY for name in json.loads(done.stdout))
