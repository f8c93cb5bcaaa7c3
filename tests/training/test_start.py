"""What a training waits for before its first step: libraries that only scoring needs are not imported until then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# sklearn brings joblib and narwhals; the figures of the report, and the tests of two runs, come after the training.
LATER = (
    "sklearn",
    "joblib",
    "matplotlib",
    "hfpipe.evaluation.statistics.significance",
    "hfpipe.reports",
)
OWN = 23_000  # lines of hfpipe's own modules, of 36,000 in all; there are 22,000. A module split in two costs the same.
MORE = 600  # modules beside those that a bare script imports too; there are 490
PROGRAM = """
import json, os, sys
from torch.optim.optimizer import register_optimizer_step_post_hook

def stop(*_):
    with open("modules.json", "w") as file:
        json.dump(sorted(sys.modules), file)
    os._exit(0)

register_optimizer_step_post_hook(stop)
from hfpipe.cli.app import main
sys.argv = ["hfpipe", "finetune", *sys.argv[1:]]
main()
"""
BARE = """
import json, sys
import datasets, torch, transformers
from transformers import AutoTokenizer, BertForSequenceClassification, DataCollatorWithPadding, Trainer, TrainingArguments
with open("modules.json", "w") as file:
    json.dump(sorted(sys.modules), file)
"""


def modules_of(program: str, folder: Path, *arguments: str) -> set[str]:
    """The modules that a fresh process has imported when it writes them down."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return set(json.loads((folder / "modules.json").read_text()))


def lines_of(modules: Iterable[str]) -> int:
    """The lines of modules of hfpipe, and of packages their `__init__.py`."""
    paths = [ROOT.joinpath(*name.split(".")) for name in modules]
    files = [path / "__init__.py" if path.is_dir() else path.with_suffix(".py") for path in paths]
    assert len(files) > 50
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


@pytest.mark.parametrize("engine", ["trainer", "loop"])
def test_nothing_is_imported_for_nothing_before_the_first_step(tmp_path: Path, engine: str) -> None:
    """At the first update no library of the later stages is there, and only so many modules more than in a bare script."""
    known = modules_of(BARE, tmp_path)
    found = modules_of(PROGRAM, tmp_path, "quickstart", "train.max_steps=1", "--engine", engine, "--runs-dir", "runs")
    assert "hfpipe.training.engines." + engine in found
    assert not [name for name in sorted(found) if name in LATER or name.startswith(tuple(f"{one}." for one in LATER))]
    assert lines_of(name for name in found if name.partition(".")[0] == "hfpipe") < OWN
    assert len(found - known) < MORE, len(found - known)
