"""Micro-batches that fit into memory: the same update in smaller ones, tried by two processes before they train.

This file is also what torchrun starts: `training/test_fit_memory.py FOLDER` trains on FOLDER/fields.json.
"""

from __future__ import annotations

import faulthandler
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hfpipe.recipe import load_recipe

ROOT = Path(__file__).parents[2]
ENGINES = ("trainer", "loop")
FITTED = ["train.batch_size=8", "train.fit_memory=true"]


def work(folder: Path) -> None:
    """As one of two processes: train where only two inputs fit, on the second process alone, and as if nothing more ever did."""
    import torch

    import hfpipe
    from hfpipe.errors import MachineError
    from hfpipe.parts.optim import losses
    from hfpipe.training import scale_check

    scale_check.is_due = lambda job: False  # its few short examples would be too many for what is left here
    torch.set_num_threads(1)
    faulthandler.dump_traceback_later(120, exit=True)  # a process that waits for the other says where
    rank, whole = int(os.environ["RANK"]), losses.cross_entropy

    def narrow(logits: Any, targets: Any) -> Any:
        if rank == 1 and len(targets) > most and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return whole(logits, targets)

    fields = json.loads((folder / "fields.json").read_text(encoding="utf-8"))
    for engine in ENGINES:
        most, losses.cross_entropy = 2, narrow
        recipe = hfpipe.load_recipe(fields, [*FITTED, f"engine={engine}"])
        hfpipe.finetune(recipe, runs_dir=folder, name=f"{engine}-fitted")
        most = 99
        small = hfpipe.load_recipe(fields, ["train.batch_size=2", "train.accumulate=4", f"engine={engine}"])
        hfpipe.finetune(small, runs_dir=folder, name=f"{engine}-small")
    most = 0
    try:
        hfpipe.finetune(hfpipe.load_recipe(fields, FITTED), runs_dir=folder, name="none")
    except MachineError as error:
        (folder / f"none-{rank}.txt").write_text(str(error))


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory, tiny_fields: Callable[..., dict[str, Any]]) -> Path:
    """The folder with the runs of two processes."""
    folder = tmp_path_factory.mktemp("fitting")
    fields = tiny_fields(train={"precision": "fp32", "max_steps": 4}, evaluate={"every": "never"})
    (folder / "fields.json").write_text(json.dumps(fields), encoding="utf-8")
    python_path = os.pathsep.join(filter(None, [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, __file__, str(folder)],
        env={**os.environ, "PYTHONPATH": python_path, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=140,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize("engine", ENGINES)
def test_fault_27_one_of_two_processes_is_out_of_memory(launched: Path, engine: str) -> None:
    """Both make their micro-batches smaller before the first update, and end as a run that had them so all along."""
    from hfpipe.runs import Run

    fitted, small = Run(launched / f"{engine}-fitted"), Run(launched / f"{engine}-small")
    assert (fitted.status, small.status) == ("finished", "finished")
    assert (fitted.recipe.train.batch_size, fitted.recipe.train.accumulate) == (2, 4)
    assert [one["batch_size"] for one in fitted.metadata["fitted"]] == [4, 2]
    assert fitted.metadata["fitted"][0]["why"] == (
        "out of memory with the widest micro-batch, of 8 inputs, on 1 of 2 processes"
    )
    kept = [[one for one in run.records if one["type"] == "step"] for run in (fitted, small)]
    assert len(kept[0]) == 4
    assert kept[0] == kept[1]
    weights = [(run.path / "model" / "model.safetensors").read_bytes() for run in (fitted, small)]
    assert weights[0] == weights[1]


def test_fault_27_nothing_smaller_on_one_of_two_processes(launched: Path) -> None:
    """Where a single input is too much for one of them, both end with exit 5 and the same words, and no run is left."""
    told = [(launched / f"none-{rank}.txt").read_text() for rank in (0, 1)]
    assert told[0] == told[1]
    assert "A micro-batch of one is too much" in told[0]


def test_a_trial_leaves_no_trace(recipe_fields: dict[str, Any]) -> None:
    """It takes the longest rows with dropout on, and weights, gradients, modes and random states are as before."""
    import torch

    from hfpipe.parts.tasks import lengths
    from hfpipe.training.fit_memory import try_memory, widest
    from hfpipe.training.prepare import prepare

    job = prepare(load_recipe(recipe_fields, ["train.batch_size=4"]))
    found = lengths(job.train_data)
    assert sorted(found[widest(job)]) == sorted(found)[-4:]
    seen: list[tuple[bool, tuple[int, ...]]] = []
    job.model.register_forward_pre_hook(
        lambda module, args, given: seen.append((module.training, tuple(given["input_ids"].shape))), with_kwargs=True
    )
    weights = {name: value.clone() for name, value in job.model.state_dict().items()}
    job.model.train()
    job.model.classifier.eval()
    states, modes = torch.get_rng_state(), [module.training for module in job.model.modules()]
    try_memory(job)
    assert seen == [(True, (4, max(found)))]
    assert all(torch.equal(weights[name], value) for name, value in job.model.state_dict().items())
    assert [parameter.grad for parameter in job.model.parameters()] == [None] * len(list(job.model.parameters()))
    assert [module.training for module in job.model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), states)


def test_tokens_decide_how_many_rows_are_tried(recipe_fields: dict[str, Any]) -> None:
    """Where micro-batches are cut by tokens, no micro-batch of any epoch is larger than the one that is tried."""
    from hfpipe.parts.inputs.batches import EpochBatches
    from hfpipe.parts.tasks import lengths
    from hfpipe.training.fit_memory import widest
    from hfpipe.training.prepare import prepare

    for bucket in ("true", "false"):
        for tokens in (50, 64, 81):
            for accumulate, processes in ((1, 1), (2, 1), (3, 1), (2, 2)):
                spec = f"train.batching={{by: tokens, tokens: {tokens}, bucket: {bucket}}}"
                job = prepare(load_recipe(recipe_fields, [spec, f"train.accumulate={accumulate}"]))
                found, order = lengths(job.train_data), job.loader.order
                job.loader.batches.processes = processes
                padded = max(
                    len(rows) * found[np.where(np.array(rows) < 0, -1 - np.array(rows), rows)].max()
                    for epoch in range(3)
                    for rank in range(processes)
                    for rows in EpochBatches(order, accumulate=accumulate, rank=rank, processes=processes).shares(epoch)
                )
                tried = widest(job)
                assert padded <= len(tried) * found[tried].max() <= 2 * padded


def test_micro_batches_of_tokens_are_cut_with_their_update_kept() -> None:
    """Where a micro-batch is cut by tokens, these are halved; where nothing near the half divides them, that is said."""
    from hfpipe.errors import MachineError
    from hfpipe.recipe.schema import Batching, Train
    from hfpipe.training.fit_memory import smaller

    def found(tokens: int) -> dict[str, int]:
        spec = Train(batch_size=1, accumulate=3, batching=Batching(by="tokens", tokens=tokens))
        return smaller(spec, "out of memory")

    assert found(1000) == {"train.batching.tokens": 500, "train.accumulate": 6}
    assert found(999) == {"train.batching.tokens": 333, "train.accumulate": 9}
    with pytest.raises(MachineError, match=r"Lower train\.batching\.tokens"):
        found(997)
    assert smaller(Train(batch_size=9), "") == {"train.batch_size": 3, "train.accumulate": 3}
    with pytest.raises(MachineError, match="micro-batch of one"):
        smaller(Train(batch_size=1), "")


if __name__ == "__main__":
    work(Path(sys.argv[1]))


def test_a_try_that_ran_out_of_memory_has_freed_it(recipe_fields: dict[str, Any], tmp_path: Path) -> None:
    """While the job of the smaller micro-batches is prepared, nothing refers to the model of the try before."""
    import torch

    import hfpipe
    from hfpipe.training.engines import loop

    tried: list[weakref.ref[Any]] = []
    alive: list[int] = []

    def counting(groups: Any, lr: float, **arguments: Any) -> torch.optim.Optimizer:
        alive.append(sum(model() is not None for model in tried))
        return torch.optim.SGD(groups, lr=lr)

    def out_of_memory_once(job: Any, emit: Callable[[dict[str, Any]], None]) -> None:
        tried.append(weakref.ref(job.model))
        if len(tried) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        loop.train(job, emit)

    run = hfpipe.finetune(
        recipe_fields,
        overrides=["train.fit_memory=true", "train.max_steps=2"],
        engine=out_of_memory_once,
        optimizer=counting,
        runs_dir=tmp_path,
    )
    assert run.recipe.train.accumulate == 2
    assert alive == [0, 0]
