"""The schedules against transformers' own, step by step, and through a resume."""

import io
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import SchedulerType, TrainingArguments, get_scheduler

from hfpipe.errors import RecipeError
from hfpipe.parts.optim.schedules import build_schedule, schedule_arguments, steps_on_metric, warmup_steps
from hfpipe.recipe.catalog import SCHEDULES

STEPS = 20
LR = 0.1
CASES = [
    ("linear", 0.1, {}),
    ("linear", 0.0, {}),
    ("linear", 20, {}),
    ("cosine", 0.1, {}),
    ("cosine", 3, {"num_cycles": 1.5}),
    ("cosine_with_restarts", 0.1, {"num_cycles": 3}),
    ("polynomial", 0.1, {"lr_end": 1e-3, "power": 2.0}),
    ("constant", 0.0, {}),
    ("constant_with_warmup", 0.26, {}),
    ("inverse_sqrt", 0.1, {}),
    ("inverse_sqrt", 0.0, {"timescale": 5}),
    ("reduce_lr_on_plateau", 0.0, {"factor": 0.5, "patience": 1}),
    ("cosine_with_min_lr", 0.1, {"min_lr": 0.01}),
    ("cosine_with_min_lr", 0.1, {"min_lr_rate": 0.3, "num_cycles": 1.0}),
    ("cosine_warmup_with_min_lr", 5, {"min_lr_rate": 0.1, "warmup_lr_rate": 0.2}),
    ("warmup_stable_decay", 0.1, {"num_decay_steps": 5}),
    (
        "warmup_stable_decay",
        2,
        {"num_decay_steps": 4, "num_stable_steps": 3, "decay_type": "1-sqrt", "min_lr_ratio": 0.1},
    ),
]
METRICS = [1.0, 0.9, 0.8, 0.7, 0.7, 0.8, 0.9, 0.9, 0.9, 0.5, 0.4, 0.3, 0.2, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4]


def sgd(lr=LR):
    """An optimizer with two groups of one parameter each."""
    params = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    return torch.optim.SGD([{"params": params[:1]}, {"params": params[1:], "lr": lr / 2}], lr=lr)


def rates(optimizer, schedule, steps=range(STEPS)):
    """The rates of both groups at each step, read before the schedule moves on."""
    read = []
    for step in steps:
        read.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step(METRICS[step]) if steps_on_metric(schedule) else schedule.step()
    return read


def test_the_cases_cover_every_schedule_of_transformers():
    """Each name of SchedulerType but `greedy`, which hfpipe does not offer, has a case, reduce_lr_on_plateau among them."""
    assert {name for name, _, _ in CASES} == {kind.value for kind in SchedulerType} - {"greedy"} == set(SCHEDULES)
    assert "reduce_lr_on_plateau" in {name for name, _, _ in CASES}


@pytest.mark.filterwarnings("ignore:Both num_training_steps and num_stable_steps:UserWarning")
@pytest.mark.parametrize(("name", "warmup", "arguments"), CASES)
def test_the_rates_are_transformers(name, warmup, arguments, tmp_path):
    """Over 20 steps the rates equal, bit for bit, those of get_scheduler with TrainingArguments' own warm-up."""
    mine, theirs = sgd(), sgd()
    got = rates(mine, build_schedule(mine, name, num_steps=STEPS, warmup=warmup, **arguments))
    warm = TrainingArguments(tmp_path, warmup_steps=warmup, report_to=[], use_cpu=True).get_warmup_steps(STEPS)
    want = rates(theirs, get_scheduler(name, theirs, warm, STEPS, arguments))
    assert got == want
    assert name in ("constant",) or len({rate[0] for rate in got}) > 1
    assert all(math.isclose(second, first / 2, rel_tol=1e-12) for first, second in got)


@pytest.mark.parametrize(("name", "warmup", "arguments"), CASES)
def test_a_state_dict_resumes_exactly(name, warmup, arguments):
    """Ten steps, the states through a file of plain values, and ten more give the rates of twenty."""
    straight = sgd()
    want = rates(straight, build_schedule(straight, name, num_steps=STEPS, warmup=warmup, **arguments))

    first = sgd()
    schedule = build_schedule(first, name, num_steps=STEPS, warmup=warmup, **arguments)
    got = rates(first, schedule, range(10))
    file = io.BytesIO()
    torch.save((first.state_dict(), schedule.state_dict()), file)
    file.seek(0)
    optimizer_state, schedule_state = torch.load(file, weights_only=True)

    second = sgd()
    resumed = build_schedule(second, name, num_steps=STEPS, warmup=warmup, **arguments)
    second.load_state_dict(optimizer_state)
    resumed.load_state_dict(schedule_state)
    got += rates(second, resumed, range(10, 20))
    assert got == want


@settings(deadline=None, max_examples=60)
@given(num_steps=st.integers(1, 5000), warmup=st.one_of(st.floats(0, 0.9999), st.integers(1, 5000), st.floats(1, 5000)))
def test_the_warm_up_is_training_arguments(num_steps, warmup):
    """A share is rounded up and a number of steps cut off, as TrainingArguments does; longer than the run fails."""
    arguments = TrainingArguments.__new__(TrainingArguments)
    arguments.warmup_steps = warmup
    want = arguments.get_warmup_steps(num_steps)
    if want > num_steps:
        with pytest.raises(RecipeError, match="longer than the run"):
            warmup_steps(warmup, num_steps)
    else:
        assert warmup_steps(warmup, num_steps) == want


def test_only_one_schedule_steps_on_a_metric():
    """reduce_lr_on_plateau is stepped with a metric, all others without."""
    on_metric = {
        name
        for name, warmup, arguments in CASES
        if steps_on_metric(build_schedule(sgd(), name, num_steps=STEPS, warmup=warmup, **arguments))
    }
    assert on_metric == {"reduce_lr_on_plateau"}


def test_the_arguments_are_those_of_transformers():
    """Needed and allowed arguments come from transformers' signatures, less those that hfpipe gives."""
    assert schedule_arguments("warmup_stable_decay") == (
        ["num_decay_steps"],
        ["num_decay_steps", "num_stable_steps", "warmup_type", "decay_type", "min_lr_ratio", "num_cycles"],
    )
    assert schedule_arguments("linear") == ([], [])
    assert schedule_arguments("polynomial") == ([], ["lr_end", "power"])
    assert "patience" in schedule_arguments("reduce_lr_on_plateau")[1]
    assert "verbose" not in schedule_arguments("reduce_lr_on_plateau")[1]


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        ("linaer", {}, "unknown schedule 'linaer'; did you mean 'linear'?; allowed: linear, cosine"),
        ("linear", {"num_cycles": 2}, "schedule linear takes no 'num_cycles'; allowed: warmup"),
        ("cosine", {"num_cycle": 2}, "did you mean 'num_cycles'?"),
        ("cosine", {"last_epoch": 2}, "takes no 'last_epoch'"),
        ("warmup_stable_decay", {}, "needs num_decay_steps. Set schedule.num_decay_steps."),
        ("warmup_stable_decay", {"num_decay_steps": 0.5}, "num_decay_steps is 0.5"),
        ("warmup_stable_decay", {"num_decay_steps": 18, "warmup": 3}, "take 21 steps, and the run has 20"),
        ("warmup_stable_decay", {"num_decay_steps": 5, "num_stable_steps": 16}, "take 21 steps"),
        ("warmup_stable_decay", {"num_decay_steps": 5, "decay_type": "cubic"}, "Unknown decay type: cubic"),
        ("cosine_with_min_lr", {}, "got neither min_lr nor min_lr_rate"),
        ("cosine_warmup_with_min_lr", {"min_lr": 0.01, "min_lr_rate": 0.1}, "got min_lr and min_lr_rate"),
        ("cosine_with_min_lr", {"min_lr": 0.2}, "its min_lr 0.2 is above it"),
        ("reduce_lr_on_plateau", {"min_lr": 0.2}, "can't lower the learning rate 0.05: its min_lr 0.2 is above it"),
        ("reduce_lr_on_plateau", {"mode": "lowest"}, "refused its arguments: mode lowest is unknown"),
        ("reduce_lr_on_plateau", {"warmup": 0.1}, "schedule reduce_lr_on_plateau has no warm-up"),
        ("greedy", {}, "unknown schedule 'greedy'; allowed: linear, cosine"),
        ("constant", {"warmup": 0.1}, "Set schedule.warmup=0, or take constant_with_warmup."),
        ("polynomial", {"lr_end": 0.2}, "refused its arguments: lr_end (0.2) must be smaller"),
        ("polynomial", {"power": "two", "warmup": 3}, "refused its arguments"),
        ("polynomial", {"warmup": 20}, "needs one to decay in"),
        ("inverse_sqrt", {"timescale": 0}, "refused its arguments"),
        ("linear", {"warmup": 21}, "the warm-up of 21 steps is longer than the run of 20"),
        ("linear", {"warmup": -0.1}, "warmup is -0.1; allowed: a share below 1, or a number of steps"),
        ("linear", {"warmup": math.nan}, "warmup is nan"),
        ("linear", {"warmup": "0.1"}, "warmup is '0.1'"),
        ("linear", {"warmup": True}, "warmup is True"),
    ],
)
def test_what_cannot_work_is_refused(name, settings, text):
    """A wrong name, warm-up or argument is a RecipeError that names it and what is allowed, before the first step."""
    with pytest.raises(RecipeError) as caught:
        build_schedule(sgd(), name, num_steps=STEPS, **settings)
    assert text in str(caught.value)
