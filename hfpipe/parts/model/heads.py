"""The head of a model computes in fp32, whatever the rest of it computes in.

A number format with 8 bits of precision has no number between 2,000 and 2,008. What layers hand to each other may be
rounded like that; what a model answers may not.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_MARK = "_hfpipe_in_fp32"


def heads_of(model: nn.Module) -> list[nn.Module]:
    """The modules that make answers of what the body of a model puts out: all that it has beside its body.

    The body is what transformers calls `base_model`. A model that has nothing beside it, or no such body, has as its head
    the last linear layer that puts out as many numbers as there are labels, else the last one.
    """
    unwrap: Any = getattr(model, "get_base_model", None)  # of peft
    inner: nn.Module = unwrap() if unwrap is not None else model
    body = getattr(inner, "base_model", inner)
    children = [child for child in inner.children() if any(True for _ in child.parameters())]
    beside = [child for child in children if child is not body]
    if len(beside) < len(children) and beside:
        return beside
    linear: list[nn.Module] = [module for module in inner.modules() if isinstance(module, nn.Linear)]
    outputs = getattr(getattr(inner, "config", None), "num_labels", None)
    return ([one for one in linear if one.out_features == outputs] or linear)[-1:]


def compute_heads_in_fp32(model: nn.Module) -> None:
    """Make the heads of a model take, hold and give fp32 under autocast and in a model that is held in half precision.

    Names of weights, hooks and checkpoints stay as they are; done twice, it is done once.
    """
    for head in heads_of(model):
        if any(p.is_floating_point() and p.itemsize < 4 for p in head.parameters()):
            head.float()
        if not getattr(head.forward, _MARK, False):
            # A bound method, so that a copy of the model has one of its own head.
            head.forward = types.MethodType(_in_fp32(_forward_of(head)), head)


def _forward_of(head: nn.Module) -> Callable[..., Any]:
    """As a function of the module, whose class may have been overruled for this one."""
    own = vars(head).get("forward")
    if own is None:
        return type(head).forward
    return own.__func__ if getattr(own, "__self__", None) is head else lambda _, *args, **kwargs: own(*args, **kwargs)


def _in_fp32(forward: Callable[..., Any]) -> Callable[..., Any]:
    def compute(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        weight = next(self.parameters())  # fp32, unless somebody made it double since
        with torch.autocast(weight.device.type, enabled=False):
            return forward(
                self,
                *(_as(weight.dtype, value) for value in args),
                **{name: _as(weight.dtype, value) for name, value in kwargs.items()},
            )

    setattr(compute, _MARK, True)
    return compute


def _as(dtype: torch.dtype, value: Any) -> Any:
    return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
