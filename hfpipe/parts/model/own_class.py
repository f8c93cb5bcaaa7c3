"""A model of a class that transformers' loaders would not choose: its name, and how it is built again, saved and loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save_model as save_module
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from hfpipe.errors import ModelError, NumericError
from hfpipe.parts.tasks import Task, outputs_of
from hfpipe.system.text import one_line

KEY = "hfpipe_class"
"""In config.json: the class of the trained model, where it is not simply the one that transformers loads by itself."""
FORM = "hfpipe_label_form"
"""In config.json: how the labels were said that the model was trained on, where the kind of task knows several forms."""
PADDED_TO = "hfpipe_padded_to"
"""In config.json: the length that every row is padded to, where padding would change answers."""
_CHANGED = " (changed)"
"""Behind the name of a class whose object was changed, so that the class alone does not give the model."""


def class_name(model: nn.Module) -> str:
    """`module:Class` of a model."""
    return f"{type(model).__module__}:{type(model).__qualname__}"


def is_stock(model: nn.Module) -> bool:
    """Whether the class of a model is one of transformers' own."""
    return isinstance(model, PreTrainedModel) and type(model).__module__.partition(".")[0] == "transformers"


def trained_class(described: Mapping[str, Any]) -> str | None:
    """The class that a config.json names as that of the trained model, if it is an own one or a changed one."""
    named = described.get(KEY)
    return str(named) if named else None


def mark(config: PretrainedConfig, model: nn.Module, *, rebuilds: bool = True) -> None:
    """Write into a configuration which class was trained, unless transformers would load that one anyway."""
    if is_stock(model) and rebuilds:
        config.__dict__.pop(KEY, None)
    else:
        setattr(config, KEY, class_name(model) + ("" if rebuilds or not is_stock(model) else _CHANGED))


def require_class(model: nn.Module, trained_as: str | None, name: str, where: str) -> None:
    """Refuse a model of another class than the one that was trained.

    Raises:
        ModelError: naming both.
    """
    if trained_as is not None and class_name(model) != trained_as.removesuffix(_CHANGED):
        raise ModelError(
            f"the weights of {name!r} were trained as {trained_as}, and this is a {class_name(model)}",
            where=where,
            allowed=f"an object of {trained_as.removesuffix(_CHANGED)}",
        )


def unknown_class(trained_as: str, name: str, where: str) -> ModelError:
    """The error about a trained class that nothing here names."""
    reference = trained_as.removesuffix(_CHANGED)
    changed = trained_as != reference
    by_name = "" if changed else f", or name its class if it can be imported: model.architecture={reference}"
    return ModelError(
        f"{name!r} was trained as {trained_as}, and loaded as anything else its numbers would be others",
        where=where,
        fix=f"Pass the model from Python, whose weights are replaced by the trained ones: model=...{by_name}.",
    )


def fit_config(model: nn.Module, task: Task, bound: int | None, vocabulary: int | None) -> PretrainedConfig:
    """The configuration of a model, with the classes of the data in it; one is made where the model has none.

    Args:
        model: whose own configuration is changed, if it is a model of transformers.
        task: with the classes.
        bound: the most tokens that its inputs may have, for a model without a configuration.
        vocabulary: the rows of its embeddings, as far as they are known, for the same.
    """
    if isinstance(model, PreTrainedModel):
        config: PretrainedConfig = model.config
    else:
        config = PretrainedConfig(architectures=[type(model).__name__])
        for key, value in (("max_position_embeddings", bound), ("vocab_size", vocabulary)):
            if value is not None:
                setattr(config, key, value)
        inner = getattr(model, "config", None)  # of a model of transformers that this one wraps
        if isinstance(inner, PretrainedConfig):
            set_classes(inner, task)
    set_classes(config, task)
    return config


def set_classes(config: PretrainedConfig, task: Task) -> None:
    """Write the classes of a task into the configuration of its model."""
    if task.num_labels is not None:
        config.num_labels = task.num_labels
    config.problem_type = task.problem_type
    if task.names:
        config.id2label = dict(enumerate(task.names))
        config.label2id = {name: index for index, name in enumerate(task.names)}
    form = getattr(task, "form", None)
    if form in task.kind.forms:
        setattr(config, FORM, form)
    elif hasattr(config, FORM):
        delattr(config, FORM)


def copy_padding(trained: PretrainedConfig, config: PretrainedConfig) -> None:
    """Take over from the configuration of trained weights how long every row was padded to, where padding matters."""
    if (length := getattr(trained, PADDED_TO, None)) is not None:
        setattr(config, PADDED_TO, length)


def is_pretrained_class(architecture: Any) -> bool:
    """Whether what makes a model is a class of transformers' kind, which is made of a configuration."""
    return isinstance(architecture, type) and issubclass(architecture, PreTrainedModel)


def build(architecture: Callable[..., Any], config: PretrainedConfig, where: str) -> nn.Module:
    """A model of an own class: of its configuration where it is of transformers' kind, else without arguments.

    Raises:
        ModelError: it can't be made so, or is no module.
    """
    name = f"{getattr(architecture, '__module__', '?')}:{getattr(architecture, '__qualname__', architecture)}"
    try:
        made = architecture(config) if is_pretrained_class(architecture) else architecture()
    except Exception as error:  # whatever the user's own code raises
        of = "its configuration" if is_pretrained_class(architecture) else "no arguments"
        raise ModelError(
            f"{name} can't be made of {of}: {type(error).__name__}: {one_line(error, 200)}",
            where=where,
            fix="From Python pass the model itself: model=...",
        ) from error
    if not isinstance(made, nn.Module):
        raise ModelError(f"{name} made a {type(made).__name__}", where=where, allowed="a torch.nn.Module")
    return made


def save_model(model: nn.Module, config: PretrainedConfig, folder: Path) -> None:
    """Write config.json and model.safetensors; weights that are tied are written once.

    Raises:
        ModelError: weights that share only a part of their memory.
    """
    if isinstance(model, PreTrainedModel):
        model.save_pretrained(folder)
        return
    config.save_pretrained(folder)
    try:
        save_module(model, str(folder / "model.safetensors"), metadata={"format": "pt"})
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"the weights of {class_name(model)} can't be saved: {one_line(error, 300)}") from error


def load_weights(model: Any, folder: Path) -> None:
    """Copy the weights of a checkpoint into a model, into memory of its own, all of them and no others.

    A model in half precision is held in fp32 from then on, as it is trained.

    Raises:
        ModelError: weights that are missing, too many or of another shape.
        NumericError: weights that are not finite.
    """
    train_in_fp32(model)
    try:
        found: dict[str, torch.Tensor] = {}
        for file in sorted(folder.glob("model*.safetensors")):
            found |= load_file(file)
        wrong = _misfits(model, found)
        if wrong and is_stock(model):  # some architectures are saved under other names than they have in memory
            found, wrong = _as_transformers_loads(model, folder)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        what = f"the weights can't be loaded: {one_line(error, 300)}"
        raise ModelError(what, where=str(folder), fix="Train again.") from error
    if wrong:
        raise ModelError(
            f"the weights do not fit the model: {', '.join(wrong[:4])}",
            where=str(folder),
            fix="They are of another architecture; take the run's own recipe.",
        )
    for key, values in found.items():
        if not is_finite(values):
            fix = "An earlier checkpoint may be whole; remove this one."
            raise NumericError(f"the weights {key!r} are not finite in {folder.name}", fix=fix)
    model.load_state_dict(found, strict=False)  # what is missing shares its memory with what is there


def _misfits(model: nn.Module, found: Mapping[str, torch.Tensor]) -> list[str]:
    """The names that only the model or only the file has, or with another shape there; a tied weight is there once."""
    own = model.state_dict()
    there = {_place(own[key]) for key in found if key in own}
    missing = [key for key, values in own.items() if key not in found and _place(values) not in there]
    unexpected = [key for key in found if key not in own]
    mismatched = [key for key, values in found.items() if key in own and values.shape != own[key].shape]
    return [*sorted(missing), *sorted(unexpected), *sorted(mismatched)]


def _place(values: torch.Tensor) -> tuple[int, torch.Size]:
    return values.data_ptr(), values.shape


def _as_transformers_loads(model: Any, folder: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    loaded, info = type(model).from_pretrained(
        folder,
        use_safetensors=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        dtype="float32",
    )
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    return dict(loaded.state_dict()), [str(key) for kind in kinds for key in sorted(info[kind])]


def require_finite(model: Any, where: str, fix: str) -> None:
    """Refuse weights that are no numbers.

    Raises:
        NumericError: naming the first.
    """
    for key, parameter in model.named_parameters():
        if not is_finite(parameter.detach()):
            raise NumericError(f"the weights {key!r} are not finite {where}", fix=fix)


def is_finite(values: torch.Tensor) -> bool:
    """Whether every number of a tensor is one."""
    # torch calls its threads together five times a tensor, 500 times for a MiniLM: with other work on the cores that took
    # 5 seconds a save, and numpy takes 0.01 in this one thread.
    if values.device.type == "cpu" and values.dtype == torch.float32:
        return bool(np.isfinite(values.numpy()).all())
    return bool(values.isfinite().all())


def own_memory(model: nn.Module) -> None:
    """Move weights into memory of torch's own.

    Loaded weights lie where the file has them, and some kernels round by that: so the same weights give the same numbers
    whatever they come from. Weights that share memory stay where they are.
    """
    parameters = list(model.parameters())
    places = [parameter.untyped_storage().data_ptr() for parameter in parameters]
    for parameter, place in zip(parameters, places, strict=True):
        if places.count(place) == 1 and parameter.device.type != "meta":
            parameter.data = parameter.data.clone()


def train_in_fp32(model: nn.Module) -> str:
    """Hold a model that would be trained in half precision in fp32, in place, and say in what it came; else an empty text.

    Most steps of an optimizer are smaller than the distance of two numbers of 8 bits, and would be lost.
    """
    halves = {p.dtype for p in model.parameters() if p.requires_grad and p.is_floating_point() and p.itemsize < 4}
    if not halves or getattr(model, "is_quantized", False):
        return ""
    model.float()
    if isinstance(model, PreTrainedModel):
        model.config.dtype = torch.float32
    return ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in halves))


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of the names and numbers of all weights."""
    digest = hashlib.sha256()
    for key, values in sorted(model.state_dict().items()):
        digest.update(f"{key} {values.dtype} {list(values.shape)} ".encode())
        digest.update(values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def require_answers(model: nn.Module, task: Task, batch: Mapping[str, torch.Tensor]) -> None:
    """Try a given model on a few rows.

    Raises:
        ModelError: it does not take the batch, gives no logits, or another number of them than there are classes.
    """
    name = class_name(model)
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    try:
        outputs = _answers(model, inputs, training=False)
    except Exception as error:  # whatever the user's own code raises
        why = error.what if isinstance(error, ModelError) else f"{type(error).__name__}: {one_line(error, 200)}"
        shapes = ", ".join(f"{key} {list(value.shape)}" for key, value in inputs.items())
        raise ModelError(
            f"the given model {name} does not answer a batch: {why}",
            where="model",
            allowed=f"a forward that takes {shapes} by name, and returns logits, or something with .logits",
        ) from error
    if not isinstance(outputs, torch.Tensor) or not outputs.ndim:
        got = f"shape {list(outputs.shape)}" if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise ModelError(f"the given model {name} gave {got} as logits", where="model", allowed="a tensor of logits")
    labels = batch.get("labels")
    axes = None if labels is None or labels.is_floating_point() else labels.ndim + 1
    rows = len(next(iter(inputs.values())))
    if len(outputs) != rows or axes not in (None, outputs.ndim):
        raise ModelError(
            f"the given model {name} gave logits of the shape {list(outputs.shape)} for {rows} rows",
            where="model",
            allowed="logits of every row" + (f", {axes} axes" if axes else ""),
        )
    if task.num_labels is not None and outputs.shape[-1] != task.num_labels:
        classes = f"the {len(task.names)} classes {', '.join(task.names)}" if task.names else "one number an example"
        raise ModelError(
            f"the given model has {outputs.shape[-1]} outputs, and the data have {classes}",
            where="model",
            fix=f"Build it with num_labels={task.num_labels}.",
        )


def rebuild_problem(
    model: nn.Module, config: PretrainedConfig, architecture: Any, task: Task, batch: Mapping[str, torch.Tensor]
) -> str:
    """Why a given model can't be had again from its class and its weights, in words; empty where it can.

    It is built anew and given the same weights. Then it has to give the same logits for a few rows, bit for bit, without
    dropout and with it.

    Args:
        model: the given one.
        config: of it.
        architecture: what its class is made of when it is loaded again; None for a class of transformers.
        task: whose auto class of transformers loads it where it is not an own one.
        batch: a few rows.
    """
    if architecture is None and not is_stock(model):
        return "its class can't be imported by a name, or is not made without arguments"
    kept = type(config).from_dict(json.loads(config.to_json_string(use_diff=False)))  # as config.json will have it
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    with _rng_kept():
        try:
            if architecture is not None:
                again = build(architecture, kept, "model")
            else:
                again = getattr(transformers, task.auto_model).from_config(kept)
        except Exception as error:  # noqa: BLE001 - whatever the user's own code raises
            return one_line(error, 200)
        if type(again) is not type(model):
            return f"{class_name(again)} would be made in its place"
        again.to(next(model.parameters()).device)
        if wrong := _misfits(again, model.state_dict()):
            return f"a new {type(model).__name__} has other weights: {', '.join(wrong[:4])}"
        again.load_state_dict(model.state_dict())
        trained = [[parameter.requires_grad for parameter in one.parameters()] for one in (model, again)]
        if trained[0] != trained[1]:
            return "some of its weights are frozen"
        for training in (False, True):
            if not torch.equal(*(_answers(one, inputs, training=training) for one in (model, again))):
                dropout = " with dropout" if training else ""
                return f"a new {type(model).__name__} with the same weights gives other logits{dropout}"
    return ""


def _answers(model: nn.Module, inputs: Mapping[str, torch.Tensor], *, training: bool) -> torch.Tensor:
    """The logits of a few rows; the model and the random state of torch are as before."""
    device, modes = next(model.parameters()).device, [(module, module.training) for module in model.modules()]
    buffers = {key: values.clone() for key, values in model.named_buffers()}
    model.train(training)
    try:
        with _rng_kept(), torch.no_grad():
            torch.manual_seed(0)
            on_device = {key: value.to(device) for key, value in inputs.items()}
            return outputs_of(model(**on_device), on_device)
    finally:
        for module, mode in modes:
            module.training = mode
        for key, values in model.named_buffers():  # a norm over batches counts what it sees
            values.copy_(buffers.get(key, values))


def _rng_kept() -> AbstractContextManager[None]:
    """Whatever is drawn inside is not missing afterwards."""
    return torch.random.fork_rng(devices=range(torch.cuda.device_count()))
