"""The loop engine follows a script that shares no code with it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import hfpipe
from hfpipe.recipe import to_yaml, with_overrides

SCRIPT = Path(__file__).parents[2] / "scripts" / "plain_reference.py"


def test_witness_is_independent():
    """The reference imports nothing from hfpipe."""
    tree = ast.parse(SCRIPT.read_text())
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert "torch" in modules
    assert not [name for name in modules if name.split(".")[0] == "hfpipe"]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_loop_follows_the_reference(optimizer, recipe_for, data, tmp_path):
    """Losses, norms, rates and final weights are those of the plain script: dropout, clipping, a ragged window."""
    folder = tmp_path / "data"
    folder.mkdir()
    data["train"].to_parquet(folder / "train-0.parquet")
    recipe = with_overrides(
        recipe_for("bert"),
        [
            f"dataset.path='{folder}'",
            "dataset.splits.evaluation=null",
            "model.max_length=16",
            f"optimizer.name={optimizer}",
            "optimizer.weight_decay=0.1",
            "schedule.warmup=0.2",
            "train.accumulate=2",
            "train.max_grad_norm=0.5",
        ],
    )
    run = hfpipe.finetune(recipe, engine="loop", runs_dir=tmp_path)
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "recipe.yaml"), str(tmp_path / "plain")],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

    plain = json.loads((tmp_path / "plain" / "losses.json").read_text())
    steps = [record for record in run.records if record["type"] == "step"]
    assert [{key: record[key] for key in ("step", "loss", "grad_norm", "lr")} for record in steps] == plain
    theirs = load_file(tmp_path / "plain" / "model.safetensors")
    ours = load_file(run.path / "model" / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) == 0.0
    assert not torch.equal(next(iter(ours.values())), torch.zeros(()))
