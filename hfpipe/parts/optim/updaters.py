"""Hand-written optimizers: each a pure function of parameter, gradient and state, all in one thin shell.

An update is a function `update(param, grad, state, *, lr, weight_decay, ...) -> (new param, new state)` that changes
nothing it was given: plain arithmetic, to be read beside the book. `Updater` is the shell that walks over the parameter
groups, keeps the state and copies the results back; `updater_sgd`, `updater_adam` and so on join the two.

In the formulas x is the parameter, g its gradient, L the learning rate, D the weight decay. Except in `adamw` the decay
is the L2 penalty D/2 |x|^2, whose gradient D x joins g (d2l.ai/chapter_linear-regression/weight-decay.html). Where d2l
puts epsilon inside a square root and torch outside, this file follows torch, so that the two agree to the last digits;
Adadelta has it inside in all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor

from hfpipe.errors import HfpipeError, RecipeError

State = dict[str, Tensor]
Update = Callable[..., tuple[Tensor, State]]


def sgd(
    param: Tensor, grad: Tensor, state: State, *, lr: float, weight_decay: float, num_items: float
) -> tuple[Tensor, State]:
    """Minibatch stochastic gradient descent that divides by the batch: x - L (g / N + D x).

    The gradient must be a sum over the N items of the update. The decay is not divided: d2l adds the penalty to each
    item's loss, which sums to N penalties before the division.

    Source: `sgd(params, lr, batch_size)` in d2l.ai, "Linear Regression Implementation from Scratch", with the true
    number of items in the place of the nominal batch size.
    """
    return param - lr * (grad / num_items + weight_decay * param), state


def momentum_sgd(
    param: Tensor, grad: Tensor, state: State, *, lr: float, weight_decay: float, momentum: float
) -> tuple[Tensor, State]:
    """Heavy ball: v = momentum v + g; x - L v.

    Source: d2l.ai/chapter_optimization/momentum.html; Polyak 1964, "Some methods of speeding up the convergence of
    iteration methods".
    """
    grad = grad + weight_decay * param
    velocity = momentum * state.get("velocity", torch.zeros_like(param)) + grad
    return param - lr * velocity, {"velocity": velocity}


def nesterov_sgd(
    param: Tensor, grad: Tensor, state: State, *, lr: float, weight_decay: float, momentum: float
) -> tuple[Tensor, State]:
    """Nesterov's momentum, which looks one step ahead: v = momentum v + g; x - L (g + momentum v).

    x stands for the point ahead, at which the gradient is taken, so no second gradient is needed.

    Source: Nesterov 1983, "A method for solving the convex programming problem with convergence rate O(1/k^2)";
    Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning", in torch's form.
    """
    grad = grad + weight_decay * param
    velocity = momentum * state.get("velocity", torch.zeros_like(param)) + grad
    return param - lr * (grad + momentum * velocity), {"velocity": velocity}


def adagrad(
    param: Tensor, grad: Tensor, state: State, *, lr: float, weight_decay: float, eps: float
) -> tuple[Tensor, State]:
    """Adagrad: s = s + g^2; x - L g / (sqrt(s) + eps).

    Source: d2l.ai/chapter_optimization/adagrad.html (eps inside the root); Duchi et al. 2011, "Adaptive subgradient
    methods for online learning and stochastic optimization".
    """
    grad = grad + weight_decay * param
    square_sum = state.get("square_sum", torch.zeros_like(param)) + grad**2
    return param - lr * grad / (square_sum.sqrt() + eps), {"square_sum": square_sum}


def rmsprop(
    param: Tensor, grad: Tensor, state: State, *, lr: float, weight_decay: float, gamma: float, eps: float
) -> tuple[Tensor, State]:
    """RMSProp: s = gamma s + (1 - gamma) g^2; x - L g / (sqrt(s) + eps).

    Source: d2l.ai/chapter_optimization/rmsprop.html (eps inside the root); Tieleman and Hinton 2012, Coursera lecture
    6.5. torch calls gamma alpha.
    """
    grad = grad + weight_decay * param
    square_mean = gamma * state.get("square_mean", torch.zeros_like(param)) + (1 - gamma) * grad**2
    return param - lr * grad / (square_mean.sqrt() + eps), {"square_mean": square_mean}


def adadelta(
    param: Tensor, grad: Tensor, state: State, *, lr: float, weight_decay: float, rho: float, eps: float
) -> tuple[Tensor, State]:
    """Adadelta, whose step is measured by its own past steps.

    s = rho s + (1 - rho) g^2; h = sqrt(d + eps) / sqrt(s + eps) g; d = rho d + (1 - rho) h^2; x - L h.

    Source: d2l.ai/chapter_optimization/adadelta.html; Zeiler 2012, "ADADELTA: an adaptive learning rate method". Both
    have no learning rate: L is 1.
    """
    grad = grad + weight_decay * param
    square_mean = rho * state.get("square_mean", torch.zeros_like(param)) + (1 - rho) * grad**2
    past = state.get("delta_mean", torch.zeros_like(param))
    delta = (past + eps).sqrt() / (square_mean + eps).sqrt() * grad
    delta_mean = rho * past + (1 - rho) * delta**2
    return param - lr * delta, {"square_mean": square_mean, "delta_mean": delta_mean}


def adam(
    param: Tensor, grad: Tensor, state: State, *, lr: float, weight_decay: float, betas: tuple[float, float], eps: float
) -> tuple[Tensor, State]:
    """Adam: v = b1 v + (1 - b1) g; s = b2 s + (1 - b2) g^2; x - L v' / (sqrt(s') + eps).

    v' = v / (1 - b1^t) and s' = s / (1 - b2^t) undo the start at zero; t counts the steps from 1.

    Source: d2l.ai/chapter_optimization/adam.html; Kingma and Ba 2015, "Adam: a method for stochastic optimization",
    algorithm 1.
    """
    return _adam_step(param, grad + weight_decay * param, state, lr=lr, betas=betas, eps=eps)


def adamw(
    param: Tensor, grad: Tensor, state: State, *, lr: float, weight_decay: float, betas: tuple[float, float], eps: float
) -> tuple[Tensor, State]:
    """Adam with the decay kept out of the averages: x = x - L D x, then the step of `adam` on g alone.

    Source: Loshchilov and Hutter 2019, "Decoupled weight decay regularization", algorithm 2, with the decay scaled by
    the learning rate as torch does it.
    """
    return _adam_step(param - lr * weight_decay * param, grad, state, lr=lr, betas=betas, eps=eps)


def _adam_step(
    param: Tensor, grad: Tensor, state: State, *, lr: float, betas: tuple[float, float], eps: float
) -> tuple[Tensor, State]:
    beta1, beta2 = betas
    # On the CPU like torch's, so that reading the number waits for no accelerator.
    step = state.get("step", torch.zeros(())) + 1
    velocity = beta1 * state.get("velocity", torch.zeros_like(param)) + (1 - beta1) * grad
    square_mean = beta2 * state.get("square_mean", torch.zeros_like(param)) + (1 - beta2) * grad**2
    count = step.item()
    unbiased_velocity = velocity / (1 - beta1**count)
    unbiased_square = square_mean / (1 - beta2**count)
    new_state = {"step": step, "velocity": velocity, "square_mean": square_mean}
    return param - lr * unbiased_velocity / (unbiased_square.sqrt() + eps), new_state


class Updater(torch.optim.Optimizer):
    """The shell around an update: groups, state, closure; no arithmetic of its own.

    Args:
        params: parameters, or groups of them with their own `lr`, `weight_decay` and so on.
        update: the pure function.
        divides_by_items: whether the update divides by the number of items, and so needs `num_items` before every step.
        defaults: the keyword arguments of the update, for groups that don't give their own.

    Attributes:
        divides_by_items: as given.
        num_items: the items of the coming step, over all its micro-batches and processes (the sum of their weights,
            with class weights); forgotten after the step, so that a stale count can't divide the next one.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        update: Update,
        *,
        divides_by_items: bool = False,
        **defaults: Any,
    ) -> None:
        """Join the groups and the update."""
        self.update = update
        self.divides_by_items = divides_by_items
        self.num_items: float | None = None
        super().__init__(params, defaults)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy needs: torch keeps three attributes by name and would lose these."""
        own = {"update": self.update, "divides_by_items": self.divides_by_items, "num_items": self.num_items}
        return super().__getstate__() | own

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Change every parameter that has a gradient.

        Args:
            closure: computes the loss and the gradients anew, and returns the loss.

        Raises:
            HfpipeError: the update divides by the items and it was not set how many there are.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        count = self._item_count()
        for group in self.param_groups:
            settings = {name: value for name, value in group.items() if name in self.defaults} | count
            for param in group["params"]:
                if param.grad is None:
                    continue
                new_param, self.state[param] = self.update(param, param.grad, self.state[param], **settings)
                param.copy_(new_param)
        self.num_items = None
        return loss

    def _item_count(self) -> dict[str, float]:
        if not self.divides_by_items:
            return {}
        if self.num_items is None or not 0 < self.num_items < math.inf:
            raise HfpipeError(
                f"{self.update.__name__} divides the gradient by num_items, and num_items is {self.num_items}",
                allowed="a number above 0",
                fix="Set optimizer.num_items to the items of this update before every optimizer.step().",
            )
        return {"num_items": self.num_items}


Params = Iterable[Tensor] | Iterable[dict[str, Any]]


def updater_sgd(params: Params, lr: float, weight_decay: float = 0.0) -> Updater:
    """Build `sgd`, which divides by `num_items`: meant for summed gradients, learning rate per item's mean."""
    return Updater(params, sgd, divides_by_items=True, lr=lr, weight_decay=weight_decay)


def updater_momentum(params: Params, lr: float, weight_decay: float = 0.0, momentum: float = 0.9) -> Updater:
    """Build `momentum_sgd`, with a momentum from 0 to just below 1."""
    _require_share("momentum", momentum)
    return Updater(params, momentum_sgd, lr=lr, weight_decay=weight_decay, momentum=momentum)


def updater_nesterov(params: Params, lr: float, weight_decay: float = 0.0, momentum: float = 0.9) -> Updater:
    """Build `nesterov_sgd`, with a momentum from 0 to just below 1."""
    _require_share("momentum", momentum)
    return Updater(params, nesterov_sgd, lr=lr, weight_decay=weight_decay, momentum=momentum)


def updater_adagrad(params: Params, lr: float, weight_decay: float = 0.0, eps: float = 1e-10) -> Updater:
    """Build `adagrad`; eps 0 or more."""
    _require_amount("eps", eps)
    return Updater(params, adagrad, lr=lr, weight_decay=weight_decay, eps=eps)


def updater_rmsprop(
    params: Params, lr: float, weight_decay: float = 0.0, gamma: float = 0.9, eps: float = 1e-8
) -> Updater:
    """Build `rmsprop`, with d2l's gamma of 0.9 (torch's default alpha is 0.99)."""
    _require_share("gamma", gamma)
    _require_amount("eps", eps)
    return Updater(params, rmsprop, lr=lr, weight_decay=weight_decay, gamma=gamma, eps=eps)


def updater_adadelta(
    params: Params, lr: float = 1.0, weight_decay: float = 0.0, rho: float = 0.9, eps: float = 1e-6
) -> Updater:
    """Build `adadelta`; the method itself has a learning rate of 1."""
    _require_share("rho", rho)
    _require_amount("eps", eps)
    return Updater(params, adadelta, lr=lr, weight_decay=weight_decay, rho=rho, eps=eps)


def updater_adam(
    params: Params, lr: float, weight_decay: float = 0.0, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> Updater:
    """Build `adam`; both betas from 0 to just below 1."""
    _require_betas(betas)
    _require_amount("eps", eps)
    return Updater(params, adam, lr=lr, weight_decay=weight_decay, betas=betas, eps=eps)


def updater_adamw(
    params: Params, lr: float, weight_decay: float = 0.0, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> Updater:
    """Build `adamw`; both betas from 0 to just below 1."""
    _require_betas(betas)
    _require_amount("eps", eps)
    return Updater(params, adamw, lr=lr, weight_decay=weight_decay, betas=betas, eps=eps)


def _require_betas(betas: tuple[float, float]) -> None:
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise RecipeError(f"betas is {betas!r}", where="optimizer.betas", allowed="two numbers")
    for beta in betas:
        _require_share("betas", beta)


def _require_share(option: str, value: float) -> None:
    if not isinstance(value, int | float) or not 0.0 <= value < 1.0:
        raise RecipeError(f"{option} is {value!r}", where=f"optimizer.{option}", allowed=f"0 <= {option} < 1")


def _require_amount(option: str, value: float) -> None:
    if not isinstance(value, int | float) or not 0.0 <= value < math.inf:
        raise RecipeError(f"{option} is {value!r}", where=f"optimizer.{option}", allowed="a finite number of 0 or more")
