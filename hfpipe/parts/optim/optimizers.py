"""The optimizer of a job: a factory over the model's parameters in two groups, with and without weight decay."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from transformers.trainer_pt_utils import get_parameter_names

from hfpipe.errors import ModelError, RecipeError
from hfpipe.recipe.catalog import near

# What transformers' Trainer leaves out of the decay, so that both engines decay the same parameters.
_NOT_DECAYED_MODULES = [nn.LayerNorm]
_NOT_DECAYED_NAMES = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]

_UNFIT: dict[object, str] = {
    torch.optim.LBFGS: "it takes no parameter groups, and wants to compute the loss several times within a step",
    torch.optim.SparseAdam: "it takes sparse gradients only, and the models here have dense ones",
}
if hasattr(torch.optim, "Muon"):  # from torch 2.9 on
    _UNFIT[torch.optim.Muon] = "it takes matrices only, and every model has biases and norms too"

_GIVEN_ELSEWHERE = ("self", "params", "lr", "weight_decay")


def build_optimizer(
    model: nn.Module, factory: Callable[..., Any], *, lr: float, weight_decay: float = 0.0, **arguments: Any
) -> Optimizer:
    """Build the optimizer of a model.

    Only trainable parameters are given to it, in two groups: those that decay, and the biases and norms, which don't.
    `torch.optim.AdamW` is fused unless the arguments say otherwise, as in Trainer's default `adamw_torch_fused`: the
    fused and the plain kernel differ in the last digits.

    Args:
        model: the model to train.
        factory: what makes an optimizer of `(params, lr=..., ...)`: a class of `torch.optim`, an updater, your own.
        lr: learning rate, a finite number of 0 or more.
        weight_decay: for the group that decays, a finite number of 0 or more.
        arguments: what else the factory takes.

    Raises:
        RecipeError: a rate or a decay that is no such number, a decay for an optimizer without one, an argument that
            the factory doesn't take or refuses, or an optimizer that can't train a model like this.
        ModelError: nothing to train.
    """
    name = getattr(factory, "__name__", repr(factory))
    _require_amount("lr", lr)
    _require_amount("weight_decay", weight_decay)
    _refuse_unfit(factory, name)
    _check_arguments(factory, name, arguments)
    # YAML has lists only, torch documents tuples, and a checkpoint remembers which it was.
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    if factory is torch.optim.AdamW and not settings.keys() & {"fused", "foreach", "differentiable"}:
        settings["fused"] = True
    try:
        optimizer = factory(parameter_groups(model, weight_decay), lr=lr, **settings)
    except (TypeError, ValueError, RuntimeError) as error:
        raise RecipeError(f"{name} refused its arguments: {error}", where="optimizer") from error
    if not isinstance(optimizer, Optimizer):
        raise RecipeError(
            f"{name} made a {type(optimizer).__name__}", where="optimizer.name", allowed="a torch.optim.Optimizer"
        )
    # Every optimizer accepts the key in a group; only one that has it among its defaults reads it.
    if weight_decay and "weight_decay" not in optimizer.defaults:
        raise RecipeError(
            f"{name} has no weight decay, and the recipe asks for {weight_decay}",
            where="optimizer.weight_decay",
            fix="Set optimizer.weight_decay=0, or take another optimizer.",
        )
    return optimizer


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the trainable parameters into those that decay and those that don't, in the model's order.

    Both groups are there even if one is empty, as Trainer has them, so that checkpoints fit each other.

    Raises:
        ModelError: no parameter is trainable.
    """
    decayed = decayed_parameter_names(model)
    trainable = [(name, param) for name, param in model.named_parameters() if param.requires_grad]
    if not trainable:
        raise ModelError("the model has no trainable parameter", fix="Leave something unfrozen.")
    return [
        {"params": [param for name, param in trainable if name in decayed], "weight_decay": weight_decay},
        {"params": [param for name, param in trainable if name not in decayed], "weight_decay": 0.0},
    ]


def decayed_parameter_names(model: nn.Module) -> set[str]:
    """Name the parameters that decay: all but biases and norms, as `Trainer.get_decay_parameter_names` has them."""
    names: Callable[..., list[str]] = get_parameter_names  # untyped in transformers
    return set(names(model, _NOT_DECAYED_MODULES, _NOT_DECAYED_NAMES))


def _refuse_unfit(factory: object, name: str) -> None:
    for unfit, reason in _UNFIT.items():
        if factory is unfit:
            raise RecipeError(
                f"{name} can't train here: {reason}", where="optimizer.name", fix="Take another, adamw for example."
            )


def _check_arguments(factory: Callable[..., Any], name: str, arguments: dict[str, Any]) -> None:
    """Refuse an argument that the factory doesn't take; one that takes any keyword is left to its own devices."""
    parameters = inspect.signature(factory).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    allowed = [key for key in parameters if key not in _GIVEN_ELSEWHERE]
    for key in arguments:
        if key not in allowed:
            raise RecipeError(
                f"{name} takes no {key!r}{near(key, allowed)}",
                where=f"optimizer.{key}",
                allowed=", ".join(["lr", "weight_decay", *allowed]),
            )


def _require_amount(option: str, value: object) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0.0 <= float(value) < math.inf:  # type: ignore[arg-type]
        raise RecipeError(f"{option} is {value!r}", where=f"optimizer.{option}", allowed="a finite number of 0 or more")
