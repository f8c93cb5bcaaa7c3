"""The trajectory of both engines does not change unseen, and `train.deterministic` does what it says."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import hfpipe
from hfpipe.errors import RecipeError
from hfpipe.training.determinism import seed_of

SCRIPT = Path(__file__).parents[2] / "scripts" / "golden.py"
TOLERANCE = 1e-4  # relative: CPUs sum in different orders, and 16 steps make a few 1e-6 of that


@pytest.fixture(scope="module")
def golden(script: Callable[[str], ModuleType]) -> ModuleType:
    """scripts/golden.py as a module."""
    return script("golden")


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="torch draws dropout otherwise on this processor"
)
@pytest.mark.parametrize("engine", ["trainer", "loop"])
def test_the_golden_trajectory(golden: ModuleType, engine: str) -> None:
    """Losses, gradient norms, rates, counts and evaluations are those that scripts/golden.py wrote."""
    recorded = json.loads(golden.FILE.read_text())
    assert golden.difference(recorded, golden.trajectory(engine), TOLERANCE) is None


def test_a_changed_trajectory_is_told_by_its_first_step(golden: ModuleType) -> None:
    """A norm that is off by a thousandth, or a figure of an evaluation, is named with its step and both values."""
    recorded = json.loads(golden.FILE.read_text())
    changed = [dict(one) for one in recorded]
    changed[6]["grad_norm"] *= 1.001
    changed[9]["loss"] *= 2
    assert golden.difference(recorded, changed, TOLERANCE).startswith("step 7: grad_norm was ")
    changed = json.loads(json.dumps(recorded))
    changed[-1]["evaluation"]["loss"] += 0.01
    assert golden.difference(recorded, changed, TOLERANCE).startswith("step 16: loss was ")


@pytest.mark.parametrize("engine", ["trainer", "loop"])
def test_deterministic_is_on_while_training_and_off_afterwards(
    recipe_fields: dict[str, Any], tmp_path: Path, engine: str
) -> None:
    """The switch is set for the training alone, said with its cost, and the number of threads is in the run."""
    seen = []

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return torch.nn.functional.cross_entropy(logits, targets, reduction="none")

    overrides = ["train.deterministic=true", "train.max_steps=2", "evaluate.every=never"]
    run = hfpipe.finetune(recipe_fields, overrides=overrides, engine=engine, loss=loss, runs_dir=tmp_path)
    assert seen[:2] == [True, True]
    assert not torch.are_deterministic_algorithms_enabled()
    assert any(record.get("text", "").startswith("deterministic: ") for record in run.records)
    assert run.metadata["threads"] == torch.get_num_threads()


def test_an_operation_without_a_deterministic_algorithm_is_told(recipe_fields: dict[str, Any], tmp_path: Path) -> None:
    """Torch's refusal becomes an error of the recipe field, with the operation in it."""

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("put_ does not have a deterministic implementation, but you set ...")

    with pytest.raises(RecipeError, match=r"train\.deterministic: put_ does not have a deterministic implementation"):
        hfpipe.finetune(
            recipe_fields, overrides=["train.deterministic=true"], engine="loop", loss=loss, runs_dir=tmp_path
        )


def test_no_two_streams_of_dropout_meet() -> None:
    """Seed 42 in its second epoch is not seed 43 in its first, nor is any other pair of seed, epoch, process and step.

    The first epoch of the main process is that of the seed itself, as it always was.
    """
    assert seed_of(42, 0) == 42
    assert seed_of(42, 1) not in (42, 43)
    drawn = [seed_of(seed, epoch, rank) for seed in range(60) for epoch in range(8) for rank in range(4)]
    drawn += [seed_of(seed, epoch, step=step) for seed in range(20) for epoch in range(3) for step in range(1, 20)]
    assert len(set(drawn)) == len(drawn)
    assert all(0 <= one < 2**32 for one in drawn)
    sums = {seed + epoch for seed in range(60) for epoch in range(8)} | {seed + 1_000_003 for seed in range(60)}
    assert not {seed_of(seed, epoch) for seed in range(60) for epoch in range(1, 8)} & sums


def test_every_epoch_is_seeded_by_its_own_hash(recipe_fields: dict[str, Any], tmp_path: Path) -> None:
    """Both engines seed the first epoch with the seed of the recipe, and the second with a hash of it."""
    for engine in ("trainer", "loop"):
        seeded: list[int] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("hfpipe.training.determinism.set_seed", seeded.append)
            hfpipe.finetune(recipe_fields, engine=engine, runs_dir=tmp_path, name=f"seeds-{engine}")
        assert seeded == [42, seed_of(42, 1)]
