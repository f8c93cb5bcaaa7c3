"""The hand-written updaters against torch.optim, over a table of cases."""

import copy
import math

import pytest
import torch

from hfpipe.errors import HfpipeError, RecipeError
from hfpipe.parts.optim import updaters

# updater, torch's factory, arguments of ours, arguments of torch's. updater_sgd is handed sums and torch means.
PAIRS = {
    "sgd": (updaters.updater_sgd, torch.optim.SGD, {}, {}),
    "momentum": (updaters.updater_momentum, torch.optim.SGD, {}, {"momentum": 0.9}),
    "momentum 0.5": (updaters.updater_momentum, torch.optim.SGD, {"momentum": 0.5}, {"momentum": 0.5}),
    "nesterov": (updaters.updater_nesterov, torch.optim.SGD, {}, {"momentum": 0.9, "nesterov": True}),
    "adagrad": (updaters.updater_adagrad, torch.optim.Adagrad, {}, {}),
    "rmsprop": (updaters.updater_rmsprop, torch.optim.RMSprop, {}, {"alpha": 0.9}),
    "rmsprop 0.99": (updaters.updater_rmsprop, torch.optim.RMSprop, {"gamma": 0.99, "eps": 1e-6}, {"eps": 1e-6}),
    "adadelta": (updaters.updater_adadelta, torch.optim.Adadelta, {}, {}),
    "adam": (updaters.updater_adam, torch.optim.Adam, {}, {}),
    "adam 0.5": (
        updaters.updater_adam,
        torch.optim.Adam,
        {"betas": (0.5, 0.7), "eps": 1e-3},
        {"betas": (0.5, 0.7), "eps": 1e-3},
    ),
    "adamw": (updaters.updater_adamw, torch.optim.AdamW, {}, {}),
}
CASES = {
    "1 step": {"steps": 1, "lr": 0.01, "weight_decay": 0.0},
    "10 steps": {"steps": 10, "lr": 0.01, "weight_decay": 0.0},
    "high rate": {"steps": 10, "lr": 2.5, "weight_decay": 0.0},
    "decay": {"steps": 10, "lr": 0.05, "weight_decay": 0.1},
    "high decay": {"steps": 10, "lr": 0.5, "weight_decay": 0.9},
    "rate 0": {"steps": 2, "lr": 0.0, "weight_decay": 0.1},
}
BATCHES = [8, 8, 5, 8, 1, 8, 3, 8, 8, 2]


def parameters():
    """A matrix and a vector in float64, the same at every call."""
    generator = torch.Generator().manual_seed(1)
    return [torch.nn.Parameter(torch.randn(*s, dtype=torch.float64, generator=generator)) for s in ((3, 4), (4,))]


def groups(params, lr, weight_decay):
    """The matrix decays; the vector doesn't, and has a rate of its own."""
    return [
        {"params": params[:1], "weight_decay": weight_decay},
        {"params": params[1:], "weight_decay": 0.0, "lr": lr / 2},
    ]


def item_losses(params, step):
    """The squared errors of a small regression on a batch that is ragged from step to step. `[items]`."""
    items = BATCHES[step % len(BATCHES)]
    generator = torch.Generator().manual_seed(100 + step)
    features = torch.randn(items, 3, dtype=torch.float64, generator=generator)
    return ((features @ params[0]).tanh() + params[1] - 1).pow(2).sum(dim=1)


def train(optimizer, params, steps, start=0, summed=False):
    """Take some steps on the mean of the losses, or on their sum with the count handed over; return the weights."""
    for step in range(start, start + steps):
        optimizer.zero_grad()
        losses = item_losses(params, step)
        (losses.sum() if summed else losses.mean()).backward()
        if summed:
            optimizer.num_items = len(losses)
        optimizer.step()
    return [param.detach().clone() for param in params]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_an_updater_is_torchs(pair, case):
    """Each updater follows torch's optimizer to 1e-12 in float64, with a decay and a rate for each group.

    updater_sgd gets the summed gradient and the count of each ragged batch, and torch the mean: the d2l identity.
    """
    updater, torchs, our_arguments, torch_arguments = pair
    lr, decay = case["lr"], case["weight_decay"]
    mine, theirs = parameters(), parameters()
    optimizer = updater(groups(mine, lr, decay), lr=lr, **our_arguments)
    reference = torchs(groups(theirs, lr, decay), lr=lr, **torch_arguments)
    got = train(optimizer, mine, case["steps"], summed=optimizer.divides_by_items)
    want = train(reference, theirs, case["steps"])
    assert all(torch.isfinite(w).all() for w in want)
    # A rate of 2.5 sends some of them far away, and then an error of the last digit of one entry reaches the others by the
    # gradient: the distance is measured in units of the parameter, whose largest entry it is.
    for ours, theirs in zip(got, want, strict=True):
        assert (ours - theirs).abs().max() <= 1e-12 * max(1.0, float(theirs.abs().max()))
    if lr:
        assert not torch.equal(got[0], parameters()[0])


def test_dividing_by_a_nominal_batch_drifts():
    """The nominal batch size in the place of the true count drifts from the mean on ragged batches."""
    mine, theirs = parameters(), parameters()
    optimizer = updaters.updater_sgd(mine, lr=0.05)
    for step in range(3):
        optimizer.zero_grad()
        item_losses(mine, step).sum().backward()
        optimizer.num_items = 8
        optimizer.step()
    want = train(torch.optim.SGD(theirs, lr=0.05), theirs, 3)
    assert (mine[0] - want[0]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "name", ["sgd", "momentum_sgd", "nesterov_sgd", "adagrad", "rmsprop", "adadelta", "adam", "adamw"]
)
def test_an_update_is_pure(name):
    """The function changes none of its inputs and gives the same result twice."""
    own = {
        "sgd": {"num_items": 4},
        "momentum_sgd": {"momentum": 0.9},
        "nesterov_sgd": {"momentum": 0.9},
        "adagrad": {"eps": 1e-10},
        "rmsprop": {"gamma": 0.9, "eps": 1e-8},
        "adadelta": {"rho": 0.9, "eps": 1e-6},
        "adam": {"betas": (0.9, 0.999), "eps": 1e-8},
        "adamw": {"betas": (0.9, 0.999), "eps": 1e-8},
    }[name]
    update = getattr(updaters, name)
    param, grad = (torch.randn(3, 2, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    settings = {"lr": 0.1, "weight_decay": 0.01, **own}
    _, state = update(param, grad, {}, **settings)
    before = copy.deepcopy((param, grad, state))
    first, second = (update(param, grad, state, **settings) for _ in range(2))
    torch.testing.assert_close((param, grad, state), before, rtol=0, atol=0)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not torch.equal(first[0], param)


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_a_state_dict_resumes_exactly(pair):
    """Five steps, a state dict through torch.save without pickled objects, and five more are ten steps, bit for bit."""
    factory, _, arguments, _ = pair
    straight = parameters()
    optimizer = factory(groups(straight, 0.05, 0.1), lr=0.05, **arguments)
    summed = optimizer.divides_by_items
    want = train(optimizer, straight, 10, summed=summed)

    resumed = parameters()
    first = factory(groups(resumed, 0.05, 0.1), lr=0.05, **arguments)
    train(first, resumed, 5, summed=summed)
    path = _saved(first.state_dict())
    second = factory(groups(resumed, 0.3, 0.4), lr=0.3, **arguments)
    second.load_state_dict(path)
    assert second.param_groups[0]["lr"] == 0.05
    got = train(second, resumed, 5, start=5, summed=summed)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def _saved(state):
    """The state as it comes back from a file that may hold tensors and plain values only."""
    import io

    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_the_dividing_updater_wants_its_count_at_every_step():
    """updater_sgd without num_items, with a stale one or a 0, raises and leaves the weights; no other updater asks."""
    params = parameters()
    optimizer = updaters.updater_sgd(params, lr=0.1)
    assert optimizer.divides_by_items
    item_losses(params, 0).sum().backward()
    before = params[0].detach().clone()
    with pytest.raises(HfpipeError, match=r"num_items is None.*Set optimizer.num_items"):
        optimizer.step()
    for wrong in (0, -1, math.nan, math.inf):
        optimizer.num_items = wrong
        with pytest.raises(HfpipeError, match="num_items"):
            optimizer.step()
    assert torch.equal(params[0], before)
    optimizer.num_items = 8
    optimizer.step()
    assert not torch.equal(params[0], before)
    with pytest.raises(HfpipeError, match="num_items is None"):
        optimizer.step()
    for factory in (pair[0] for name, pair in PAIRS.items() if name != "sgd"):
        other = factory(params, lr=0.1)
        assert not other.divides_by_items
        other.step()


def test_the_shell_takes_a_closure_and_leaves_parameters_without_gradient():
    """The closure runs with gradients on and its loss comes back; a parameter without a gradient stays as it is."""
    params = parameters()
    idle = torch.nn.Parameter(torch.ones(2))
    optimizer = updaters.updater_adamw([*params, idle], lr=0.1, weight_decay=0.5)

    def closure():
        optimizer.zero_grad()
        loss = item_losses(params, 0).mean()
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    assert torch.equal(loss, item_losses(parameters(), 0).mean())
    assert torch.equal(idle, torch.ones(2))
    assert idle not in optimizer.state
    assert not torch.equal(params[0], parameters()[0])


def test_a_copy_of_the_shell_goes_on_alike():
    """A deep copy keeps the update and the state: both go on to the same weights."""
    params = parameters()
    optimizer = updaters.updater_adam(params, lr=0.1)
    train(optimizer, params, 2)
    pair = copy.deepcopy((optimizer, params))
    got, want = train(*pair, 3, start=2), train(optimizer, params, 3, start=2)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_a_schedule_drives_the_shell():
    """torch's schedules change the rate of an updater and find its step counted: no warning."""
    params = parameters()
    optimizer = updaters.updater_momentum(params, lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    train(optimizer, params, 1)
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == 0.05


@pytest.mark.parametrize(
    ("factory", "arguments", "text"),
    [
        (updaters.updater_momentum, {"momentum": 1.0}, "0 <= momentum < 1"),
        (updaters.updater_nesterov, {"momentum": -0.1}, "0 <= momentum < 1"),
        (updaters.updater_rmsprop, {"gamma": math.nan}, "0 <= gamma < 1"),
        (updaters.updater_rmsprop, {"eps": -1.0}, "eps is -1.0"),
        (updaters.updater_adagrad, {"eps": math.inf}, "eps is inf"),
        (updaters.updater_adadelta, {"rho": 1.5}, "0 <= rho < 1"),
        (updaters.updater_adam, {"betas": (0.9, 1.0)}, "0 <= betas < 1"),
        (updaters.updater_adamw, {"betas": (0.9,)}, "two numbers"),
        (updaters.updater_adamw, {"betas": 0.9}, "two numbers"),
        (updaters.updater_adam, {"eps": "small"}, "a finite number"),
    ],
)
def test_impossible_settings_are_refused(factory, arguments, text):
    """A coefficient out of range is a RecipeError that names it, before the first step."""
    with pytest.raises(RecipeError) as caught:
        factory(parameters(), lr=0.1, **arguments)
    assert text in str(caught.value)
