"""How often an engine waits for its device: where a number is read from a tensor, nothing runs ahead."""

from __future__ import annotations

import functools
import itertools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hfpipe.parts.optim.objective import Objective
from hfpipe.training.engines import loop, trainer
from hfpipe.training.prepare import prepare

READS = (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.equal, torch.ops.aten.is_nonzero)


class Reads(TorchDispatchMode):
    """Counts what makes the host wait: single numbers, and whole tensors."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.count = 0
        for name in ("tolist", "numpy", "cpu"):
            monkeypatch.setattr(torch.Tensor, name, self.counted(getattr(torch.Tensor, name)))

    def counted(self, read):
        """The method of a tensor, counted."""

        def reading(tensor, *args, **kwargs):
            self.count += 1
            return read(tensor, *args, **kwargs)

        return reading

    def left_out(self, function):
        """The function, without what it reads."""

        @functools.wraps(function)
        def uncounted(*args, **kwargs):
            before = self.count
            result = function(*args, **kwargs)
            self.count = before
            return result

        return uncounted

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Count the operations that give the host a number or a shape."""
        self.count += func.overloadpacket in READS
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("engine", [trainer.train, loop.train], ids=["trainer", "loop"])
def test_once_in_a_step(engine, accumulate, reduction, recipe_for, data, monkeypatch):
    """A step reads its loss and norm in one go, whatever its micro-batches; the vector of losses is one read for each."""
    overrides = [
        "train.batch_size=3",
        f"train.accumulate={accumulate}",
        f"loss.reduction={reduction}",
        "train.epochs=1",
    ]
    job = prepare(recipe_for("bert", *overrides, "dataset.splits.evaluation=null"), dataset=data)
    reads, at_steps = Reads(monkeypatch), []
    # Labels are counted before they leave the CPU, and transformers' models look at their mask by themselves.
    monkeypatch.setattr(Objective, "tally", reads.left_out(Objective.tally))
    job.model.forward = reads.left_out(job.model.forward)
    with reads:
        engine(job, lambda record: at_steps.append(reads.count))
    assert len(at_steps) == 9 // accumulate
    assert {later - earlier for earlier, later in itertools.pairwise(at_steps)} == {
        1 if reduction == "mean" else 1 + accumulate
    }
