"""What optimizers, schedules and generators remember survives a checkpoint bit for bit."""

from __future__ import annotations

import json
import math
import random
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hfpipe.errors import ModelError
from hfpipe.parts.optim.optimizers import build_optimizer
from hfpipe.parts.optim.schedules import build_schedule, steps_on_metric
from hfpipe.recipe.catalog import OPTIMIZERS, SCHEDULES, resolve
from hfpipe.training import checkpoint_state

NEEDED: dict[str, dict[str, Any]] = {
    "polynomial": {"lr_end": 1e-4},
    "cosine_with_min_lr": {"min_lr": 1e-4},
    "cosine_warmup_with_min_lr": {"min_lr": 1e-4},
    "warmup_stable_decay": {"num_decay_steps": 3},
    "reduce_lr_on_plateau": {"mode": "min", "patience": 0},
}


def built(optimizer: str, schedule: str, seed: int = 0, **arguments: Any) -> tuple[torch.nn.Module, Any, Any]:
    """A tiny model with an optimizer and a schedule of these names."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 2))
    factory = resolve(OPTIMIZERS, optimizer)
    made = build_optimizer(model, factory, lr=0.01, **arguments)
    return model, made, build_schedule(made, schedule, num_steps=20, **NEEDED.get(schedule, {}))


def go_on(model: torch.nn.Module, optimizer: Any, schedule: Any, steps: range) -> None:
    """Train some steps whose data depend on the step alone."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        model(torch.randn(5, 3, generator=generator)).square().sum().backward()
        if getattr(optimizer, "divides_by_items", False):
            optimizer.num_items = 5
        optimizer.step()
        schedule.step(1 / (step % 3 + 1)) if steps_on_metric(schedule) else schedule.step()
        optimizer.zero_grad()


def stopped_and_resumed(folder: Path, optimizer: str, schedule: str, **arguments: Any) -> None:
    """Train 4 steps, save, put it into another model, train both 4 steps further, and compare everything."""
    model, first, plan = built(optimizer, schedule, **arguments)
    go_on(model, first, plan, range(4))
    checkpoint_state.write_state(folder, first, plan, None, [checkpoint_state.random_state()])
    assert not [path for path in folder.iterdir() if path.suffix not in (".json", ".safetensors")]
    other, second, other_plan = built(optimizer, schedule, seed=1, **arguments)
    other.load_state_dict(model.state_dict())
    checkpoint_state.load_optimizer(folder, second, None, settings=True)
    checkpoint_state.load_schedule(folder, other_plan)
    for one in (model, first, plan), (other, second, other_plan):
        go_on(*one, range(4, 8))
    for left, right in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(left, right)
        assert first.state[left].keys() == second.state[right].keys()
        for key, value in first.state[left].items():
            same = torch.equal(value, second.state[right][key]) if isinstance(value, torch.Tensor) else None
            assert same if same is not None else value == second.state[right][key]
            assert getattr(value, "dtype", None) == getattr(second.state[right][key], "dtype", None)
    assert plan.get_last_lr() == other_plan.get_last_lr()
    assert [group["lr"] for group in first.param_groups] == [group["lr"] for group in second.param_groups]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_on_exactly(tmp_path: Path, name: str) -> None:
    """After a restart each optimizer of the catalog takes the steps that it would have taken."""
    stopped_and_resumed(tmp_path, name, "cosine")


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_goes_on_exactly(tmp_path: Path, name: str) -> None:
    """After a restart each schedule of the catalog gives the rates that it would have given."""
    stopped_and_resumed(tmp_path, "adamw", name)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("adam", {"amsgrad": True}), ("sgd", {"momentum": 0.9}), ("adam", {"capturable": False, "foreach": True})],
)
def test_arguments_with_a_state_of_their_own(tmp_path: Path, name: str, arguments: dict[str, Any]) -> None:
    """What an argument adds to the state is kept as well."""
    stopped_and_resumed(tmp_path, name, "linear", **arguments)


def test_tensors_of_any_type_stay_what_they_are(tmp_path: Path) -> None:
    """A state in another precision than its parameter comes back in that precision, unlike with load_state_dict."""
    param = torch.nn.Parameter(torch.zeros(3))
    kinds = [torch.float64, torch.bfloat16, torch.float16, torch.uint8, torch.int64, torch.bool]
    held = {str(kind): torch.arange(3).to(kind) for kind in kinds}
    held |= {"nan": torch.tensor([math.nan, math.inf, -0.0]), "scalar": torch.tensor(2.5, dtype=torch.float64)}
    optimizer = torch.optim.SGD([param], lr=0.1)
    optimizer.state[param] = {**held, "float": math.inf, "number": 3, "shared": held["nan"]}
    checkpoint_state.write_state(tmp_path, optimizer, None, None, [])
    again = torch.optim.SGD([param], lr=0.1)
    checkpoint_state.load_optimizer(tmp_path, again, None, settings=True)
    for key, value in held.items():
        found = again.state[param][key]
        assert found.dtype == value.dtype
        assert found.shape == value.shape
        assert found.reshape(-1).view(torch.uint8).tolist() == value.reshape(-1).view(torch.uint8).tolist()
    assert again.state[param]["float"] == math.inf
    assert again.state[param]["number"] == 3


@pytest.mark.parametrize(
    "value",
    [
        *(0.1, -0.0, 5e-324, 1.7976931348623157e308, math.inf, -math.inf, math.nan, 2**70, True, None, "text"),
        *((1, (2.5, "x")), [1, [2]], {"a": {"b": (1,)}}, {1: "one", "$float": 2}, np.float64(0.1), np.int32(7)),
        *(deque([1, 2], maxlen=2), deque(), torch.tensor([0.1, math.nan]), torch.tensor(3), torch.empty(0)),
    ],
    ids=repr,
)
def test_values_survive_json(value: Any) -> None:
    """Every kind of value comes back as it was, with its type and to the last bit."""
    back = checkpoint_state.decode(json.loads(json.dumps(checkpoint_state.encode(value), allow_nan=False)))
    assert type(back) is type(value)
    if isinstance(value, torch.Tensor):
        assert back.dtype == value.dtype
        assert back.shape == value.shape
        assert torch.equal(back.nan_to_num(7), value.nan_to_num(7))
    elif isinstance(value, float) and math.isnan(value):
        assert math.isnan(back)
    else:
        assert back == value
        assert not isinstance(value, float) or math.copysign(1, back) == math.copysign(1, value)


def test_an_object_is_refused() -> None:
    """What only a pickle could hold is an error, not a string."""
    with pytest.raises(TypeError, match="no exact form"):
        checkpoint_state.encode({"a": object()})


def test_all_generators_go_on(tmp_path: Path) -> None:
    """Python, numpy and torch draw after a restart what they would have drawn, a half-used normal pair included."""
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    np.random.normal(), torch.randn(3)
    held = json.loads(json.dumps(checkpoint_state.random_state(), allow_nan=False))

    def draws() -> list[float]:
        return [random.random(), random.gauss(), float(np.random.normal()), *torch.rand(5).tolist()]

    expected = draws()
    random.seed(9), np.random.seed(9), torch.manual_seed(9)
    assert draws() != expected
    checkpoint_state.restore_random(held)
    assert draws() == expected


def test_a_state_of_another_model_is_refused(tmp_path: Path) -> None:
    """State for another number of parameters is an error with the way out."""
    _, optimizer, schedule = built("adam", "linear")
    checkpoint_state.write_state(tmp_path, optimizer, schedule, None, [])
    other = torch.optim.Adam(torch.nn.Linear(1, 1).parameters())
    with pytest.raises(ModelError, match=r"of 6 parameters, and the model trains 2.*--reset-optimizer"):
        checkpoint_state.load_optimizer(tmp_path, other, None, settings=True)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_changed_rate_takes_effect(tmp_path: Path, name: str) -> None:
    """A schedule carried on with twice the rate gives twice the rates that it would have given."""
    model, optimizer, schedule = built("sgd", name)
    go_on(model, optimizer, schedule, range(4))
    checkpoint_state.write_state(tmp_path, optimizer, schedule, None, [])
    other, second, _ = built("sgd", "constant")
    twice = {key: 2 * value if key in ("min_lr", "lr_end") else value for key, value in NEEDED.get(name, {}).items()}
    second = build_optimizer(other, torch.optim.SGD, lr=0.02)
    plan = build_schedule(second, name, num_steps=20, **twice)
    checkpoint_state.load_optimizer(tmp_path, second, None, settings=False)
    checkpoint_state.advance_schedule(tmp_path, plan, 4, 2.0)
    for step in range(4, 8):
        assert plan.get_last_lr() == pytest.approx([2 * lr for lr in schedule.get_last_lr()], rel=1e-9)
        assert [group["lr"] for group in second.param_groups] == plan.get_last_lr()
        go_on(model, optimizer, schedule, range(step, step + 1))
        go_on(other, second, plan, range(step, step + 1))


def test_an_unchanged_schedule_is_carried_on_to_the_same_rates(tmp_path: Path) -> None:
    """A longer run asks the new schedule for its rate at the step, not for a copy of the old one's."""
    weights = [torch.nn.Parameter(torch.zeros(1))]
    expected, plan = (build_schedule(torch.optim.SGD(weights, 0.1), "linear", num_steps=40) for _ in range(2))
    for _ in range(6):
        expected.optimizer.step()
        expected.step()
    checkpoint_state.advance_schedule(None, plan, 6, 1.0)
    assert plan.get_last_lr() == expected.get_last_lr()
    assert plan.get_last_lr() != [0.1]
