"""What the runs of a comparison recorded, and by how much two of them differ: measured numbers, no opinion."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hfpipe.recipe import Recipe
from hfpipe.runs import Run

# A loss or a weight of size s may differ after t steps by GROWTH * eps * t * max(1, s) and still be called rounding. A
# float32 sum in another order is off by a few eps; each step adds as much again.
EPS = 2.0**-23
GROWTH = 4.0

# Their step is proportional to the gradient, so that a factor on the gradient is a factor on the learning rate.
LINEAR = ("sgd", "updater_sgd", "updater_momentum", "updater_nesterov")


@dataclass(frozen=True)
class Trace:
    """One variant as it was trained."""

    name: str
    recipe: Recipe
    path: Path
    """The folder of its run."""
    steps: list[dict[str, Any]]
    """Its step records, in order."""
    divides: bool
    """Whether its optimizer divides the gradient by the items itself."""
    is_linear: bool
    """Whether its optimizer's step is proportional to the gradient."""
    precision: str = "fp32"
    weights_step: int | None = None
    """The step whose weights are in `model/`; None when there are none."""
    failure: str | None = None
    """Why training stopped early."""
    digests: dict[str, str | None] = field(default_factory=dict)
    """What identifies the data set, the checkpoint and the tokenizer that were really loaded."""

    @property
    def losses(self) -> dict[int, float]:
        """Step to recorded loss; a loss that is not finite is NaN."""
        return {record["step"]: _number(record["loss"]) for record in self.steps}

    @property
    def first_norm(self) -> float:
        """L2 norm of the gradient of step 1 before clipping, or NaN."""
        return _number(self.steps[0]["grad_norm"]) if self.steps else math.nan


@dataclass(frozen=True)
class Difference:
    """How far a run is from another one.

    Attributes:
        max_loss: largest absolute difference of the losses of a step, None without a common step.
        max_weight: largest absolute difference of a final weight, None when the weights can't be compared.
        first_step: the first step whose loss is another number or that only one has; when all losses are equal and
            the weights are not, the last step. None when nothing differs.
        beyond_step: the same by the bound of rounding in place of equality.
        weights_within: whether the weights differ by no more than rounding; None when they can't be compared.
        losses_within: whether no loss differs by more than rounding, and both took the same steps.
    """

    max_loss: float | None
    max_weight: float | None
    first_step: int | None
    beyond_step: int | None
    weights_within: bool | None
    losses_within: bool = False

    @property
    def size(self) -> str | None:
        """`bit for bit`, `within rounding`, or None for more than that."""
        if self.first_step is None:
            return "bit for bit"
        return "within rounding" if self.beyond_step is None else None


def read_trace(
    name: str, run: Run, recipe: Recipe, *, divides: bool, is_linear: bool, failure: str | None = None
) -> Trace:
    """What a run left on disk."""
    steps = [record for record in run.records if record["type"] == "step"]
    # An engine of the user's own may record the items alone; without class weights that is the divisor.
    steps = [{"divisor": float(record["num_items"]), **record} for record in steps]
    weights_step = None
    if (run.path / "model").is_dir():
        summary = run.read_json("metrics.json") or {}
        weights_step = summary.get("evaluated_step") or summary.get("steps")
    precision = (run.metadata.get("precision") or {}).get("name", "fp32")
    identity = run.metadata.get("identity") or {}
    digests = {what: identity[what]["digest"] for what in ("dataset", "checkpoint", "tokenizer") if what in identity}
    return Trace(name, recipe, run.path, steps, divides, is_linear, precision, weights_step, failure, digests)


def compare_traces(first: Trace, second: Trace) -> Difference:
    """Compare two runs step by step, and the weights that they ended with."""
    ours, theirs = first.losses, second.losses
    common = sorted(ours.keys() & theirs.keys())
    unequal = sorted(ours.keys() ^ theirs.keys())  # one of them was longer
    gaps = {step: _gap(ours[step], theirs[step]) for step in common}
    first_steps = [step for step in common if gaps[step] != 0][:1] + unequal[:1]
    beyond = [step for step in common if not gaps[step] <= rounding(step, theirs[step])][:1] + unequal[:1]
    losses_within = bool(common) and not beyond
    max_weight = weights_within = None
    if first.weights_step is not None and first.weights_step == second.weights_step:
        max_weight, largest = weight_gap(first.path / "model", second.path / "model")
        last = first.weights_step
        if max_weight is not None:
            weights_within = max_weight <= rounding(last, largest)
            if max_weight != 0 and not first_steps:
                first_steps = [last]
            if not weights_within and not beyond:
                beyond = [last]
    return Difference(
        max_loss=max(gaps.values(), default=None, key=lambda gap: math.inf if math.isnan(gap) else gap),
        max_weight=max_weight,
        first_step=min(first_steps, default=None),
        beyond_step=min(beyond, default=None),
        weights_within=weights_within,
        losses_within=losses_within,
    )


def rounding(steps: int, size: float) -> float:
    """The largest difference that is called rounding, after so many steps, in a number of that size."""
    return GROWTH * EPS * steps * max(1.0, abs(size))


def weight_gap(first: Path, second: Path) -> tuple[float | None, float]:
    """The largest absolute difference of a weight in two saved models, and the largest absolute weight.

    The difference is None when the two have other tensors, and NaN when a weight is. One tensor of each is in memory.
    """
    from safetensors import safe_open

    with _Tensors(first, safe_open) as ours, _Tensors(second, safe_open) as theirs:
        if ours.files.keys() != theirs.files.keys():
            return None, 0.0
        gap = largest = 0.0
        for key in ours.files:
            a, b = ours.tensor(key), theirs.tensor(key)
            if a.shape != b.shape:
                return None, 0.0
            if a.numel():
                largest_here = float((a.double() - b.double()).abs().max())
                gap = largest_here if math.isnan(largest_here) or largest_here > gap else gap
                largest = max(largest, float(b.double().abs().max()))
    return gap, largest


class _Tensors:
    """The tensors of a saved model by name, whatever files they lie in."""

    def __init__(self, folder: Path, opener: Any) -> None:
        self.opened = [opener(path, framework="pt") for path in sorted(folder.glob("*.safetensors"))]
        self.files = {key: file for file in self.opened for key in file.keys()}  # noqa: SIM118 - no mapping

    def tensor(self, key: str) -> Any:
        return self.files[key].get_tensor(key)

    def __enter__(self) -> _Tensors:
        return self

    def __exit__(self, *error: object) -> None:
        for file in self.opened:
            file.__exit__(*error)


def _gap(first: float, second: float) -> float:
    return 0.0 if math.isnan(first) and math.isnan(second) else abs(first - second)


def _number(value: float | None) -> float:
    """JSON has no NaN, and null stands for it."""
    return math.nan if value is None else float(value)
