"""The checkpoint: its tokenizer and its weights, loaded from one folder and refused when something is missing."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from hfpipe.errors import ModelError, RecipeError, RefusedError
from hfpipe.parts.model import own_class
from hfpipe.parts.model.heads import compute_heads_in_fp32
from hfpipe.parts.model.longest import LONGEST_TRIED, longest_that_works
from hfpipe.parts.tasks import Task
from hfpipe.parts.tasks.tokenizer import agree_on_padding, require_embeddings
from hfpipe.recipe.catalog import near, resolve
from hfpipe.recipe.schema import Recipe
from hfpipe.system.hub import checkpoint_folder, own_root
from hfpipe.system.snapshot import digest_of_files, digest_of_text
from hfpipe.system.text import listed, one_line


@dataclass(frozen=True)
class Checkpoint:
    """Where a checkpoint is on this machine, and what identifies it."""

    name: str
    folder: Path
    commit: str | None
    config: PretrainedConfig
    weights_digest: str
    where: str
    architecture: Callable[..., Any] | None = None
    """What makes the model, where the recipe names an own class: `model.architecture`."""
    trained_as: str | None = None
    """The class of the trained model, where it is not simply the one that transformers loads."""


def open_checkpoint(recipe: Recipe, model: nn.Module | None = None) -> Checkpoint:
    """Find the checkpoint, downloading it if need be, and read its configuration.

    Args:
        recipe: names it.
        model: that is given, and will have the weights of the checkpoint.

    Raises:
        ModelError: not there, not a checkpoint, or trained as a class that is not known here.
        RefusedError: weights that are a pickle, or code of its own.
    """
    spec, where = recipe.model, recipe.where("model.checkpoint")
    folder, commit = checkpoint_folder(spec.checkpoint, spec.revision, where)
    described = _read_config(folder, spec.checkpoint, where)
    if "auto_map" in described:
        raise RefusedError(
            f"checkpoint {spec.checkpoint!r} brings code of its own (auto_map)",
            where=where,
            fix="hfpipe never runs a checkpoint's code; use one whose architecture transformers has.",
        )
    refuse_outside(folder, spec.checkpoint, where)
    architecture = load_architecture(recipe)
    trained_as = own_class.trained_class(described)
    if trained_as is not None and model is None and architecture is None:
        raise own_class.unknown_class(trained_as, spec.checkpoint, where)
    if "model_type" not in described and trained_as is None:
        raise ModelError(
            f"{spec.checkpoint!r}: config.json has no model_type", where=where, fix="Save it with save_pretrained."
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickles = sorted(p.name for p in folder.glob("*.bin")) + sorted(p.name for p in folder.glob("*.pt"))
        if pickles:
            raise RefusedError(
                f"checkpoint {spec.checkpoint!r} has its weights as a pickle ({', '.join(pickles)})",
                where=where,
                fix="A pickle can run code when loaded; use a revision with model.safetensors, or convert it yourself.",
            )
        raise ModelError(f"checkpoint {spec.checkpoint!r} has no *.safetensors in {folder}", where=where)
    try:
        config = _load_config(folder, described, architecture if model is None else type(model))
    except (ValueError, OSError, KeyError) as error:
        raise ModelError(f"checkpoint {spec.checkpoint!r}: {one_line(error)}", where=where) from error
    for key, value in spec.config.items():
        if not hasattr(config, key):
            known = [k for k in config.to_dict() if not k.startswith("_")]
            raise RecipeError(
                f"the configuration of {spec.checkpoint!r} has no {key!r}{near(key, known)}",
                where=recipe.where(f"model.config.{key}"),
            )
        setattr(config, key, value)
    digest = digest_of_files(weights)
    return Checkpoint(spec.checkpoint, folder, commit, config, digest, where, architecture, trained_as)


def load_architecture(recipe: Recipe) -> Callable[..., Any] | None:
    """What makes the model where the recipe names an own class.

    Raises:
        RecipeError: it can't be imported, or makes nothing.
    """
    name = recipe.model.architecture
    if name is None:
        return None
    found = resolve({}, name, "model.architecture")
    if not callable(found):
        where = recipe.where("model.architecture")
        raise RecipeError(f"{name!r} is a {type(found).__name__}", where=where, allowed="a class of models")
    made: Callable[..., Any] = found
    return made


def _load_config(folder: Path, described: Mapping[str, Any], architecture: Any) -> PretrainedConfig:
    """The configuration of a checkpoint, by the class of the model where that has one of its own."""
    if "model_type" not in described:
        return PretrainedConfig.from_dict(dict(described))
    own = getattr(architecture, "config_class", None)
    if own_class.is_pretrained_class(architecture) and own is not None and own.model_type == described["model_type"]:
        config: PretrainedConfig = own.from_pretrained(folder)
    else:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return config


def refuse_outside(folder: Path, name: str, where: str) -> None:
    """Refuse a checkpoint whose files, or whose index of weights, lead out of its folder, or whose tokenizer brings code.

    In the Hub's cache the files of a snapshot are links into the folder of the repository, which is fine.

    Raises:
        RefusedError: naming the file.
        ModelError: an index that is no JSON.
    """
    root = own_root(folder)
    for file in sorted(folder.iterdir()):
        if file.is_symlink() and not file.resolve().is_relative_to(root):
            raise RefusedError(
                f"{file.name} of checkpoint {name!r} is a link to {file.resolve()}, out of its folder",
                where=where,
                fix="Put the file itself there.",
            )
    for index in sorted(folder.glob("*.index.json")):
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{index.name} of checkpoint {name!r} can't be read: {error}", where=where) from None
        for shard in sorted(map(str, shards)):
            if Path(shard).name != shard or shard in ("", ".", ".."):
                raise RefusedError(
                    f"{index.name} of checkpoint {name!r} names {shard!r} as a part of the weights",
                    where=where,
                    allowed="names of files beside it",
                )
    try:
        tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # refused where the tokenizer is loaded
    if isinstance(tokenizer, dict) and "auto_map" in tokenizer:
        raise RefusedError(
            f"the tokenizer of checkpoint {name!r} brings code of its own (auto_map)",
            where=where,
            fix="hfpipe never runs a checkpoint's code; use one whose tokenizer transformers has.",
        )


def is_other_module(checkpoint: Checkpoint, model: nn.Module | None) -> bool:
    """Whether the model is a module that is none of transformers' kind: given, or named by `model.architecture`."""
    if model is not None:
        return not isinstance(model, PreTrainedModel)
    return checkpoint.architecture is not None and not own_class.is_pretrained_class(checkpoint.architecture)


def load_processor(
    checkpoint: Checkpoint, task: Task, given: PreTrainedTokenizerBase | None = None
) -> tuple[PreTrainedTokenizerBase, str | None]:
    """What makes the model's input of raw rows: the checkpoint's own, as the task loads it, or a copy of a given one.

    Returns:
        It, agreeing with the checkpoint's configuration on how to pad; and what a user should know of that.

    Raises:
        ModelError: none there, or one that does not fit the model.
    """
    if given is not None:
        processor = copy.copy(given)
        fix = "Pass the model as well, with a row for each: model.resize_token_embeddings(len(tokenizer)), model=model."
        require_embeddings(processor, checkpoint.config, "the given tokenizer", "tokenizer", fix)
    else:
        processor = task.load_processor(checkpoint.folder, checkpoint.config, checkpoint.name, checkpoint.where)
    if not isinstance(processor, PreTrainedTokenizerBase):
        return processor, None
    return processor, agree_on_padding(processor, checkpoint.config, repr(checkpoint.name), checkpoint.where)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer without how the last input was truncated or padded, which is a state and not a rule of it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    tokenizer.init_kwargs["padding_side"] = tokenizer.padding_side  # what is saved is what it was made with
    tokenizer.save_pretrained(folder)


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of what decides the tokens: vocabulary, merges, normalisation, special tokens, the side that is truncated.

    The length that the last input was padded or truncated to is a state of the tokenizer, and no part of it.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(backend.to_str()) if backend is not None else {"vocab": tokenizer.get_vocab()}
    for state in ("padding", "truncation"):
        rules.pop(state, None)
    sides = [tokenizer.padding_side, tokenizer.truncation_side]
    identity = [type(tokenizer).__name__, rules, str(tokenizer.special_tokens_map), sides, tokenizer.model_input_names]
    return digest_of_text(json.dumps(identity, sort_keys=True))


def longest_input(checkpoint: Checkpoint, tokenizer: PreTrainedTokenizerBase, wanted: int | None = None) -> int | None:
    """The most tokens the model can take, or None when nothing bounds it.

    What its configuration and its tokenizer say is tried on it.

    Args:
        checkpoint: of the model.
        tokenizer: of the same checkpoint; they agree on padding.
        wanted: tokens that have to fit, where that is known; tried in place of a bound that is too long to be tried.
    """
    config = checkpoint.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    bounds = [positions] if isinstance(positions, int) and positions > 0 else []
    if tokenizer.model_max_length < 10**9:
        bounds.append(int(tokenizer.model_max_length))
    bound = min(bounds) if bounds else None
    tried = next((one for one in (bound, wanted) if one is not None and one <= LONGEST_TRIED), None)
    works = tried and longest_that_works(checkpoint.config, tried)
    return works if works != tried else bound


def load_model(
    checkpoint: Checkpoint, task: Task, fresh: Iterable[str], fresh_where: str
) -> tuple[nn.Module, list[str]]:
    """The model for the task with the checkpoint's weights.

    Returns:
        The model in training mode, and the names of the weights that start fresh: the head that the checkpoint lacks,
        and what `fresh` declares.

    Raises:
        ModelError: any other weight missing, or a head for other classes.
    """
    fresh = tuple(fresh)
    own = checkpoint.architecture
    if own is not None and not own_class.is_pretrained_class(own):
        return _load_own(checkpoint, task)
    replaced = _replaced_head(checkpoint, task, fresh)
    config = checkpoint.config
    own_class.set_classes(config, task)
    try:
        loader: Any = own or getattr(transformers, task.auto_model)
        model, info = loader.from_pretrained(
            checkpoint.folder,
            config=config,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # refused below, with the fix
            output_loading_info=True,
            dtype="float32",
        )
    except (ValueError, OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"checkpoint {checkpoint.name!r}: {one_line(error)}", where=checkpoint.where) from error
    prefix = f"{model.base_model_prefix}."
    missing = sorted(info["missing_keys"])
    mismatched = sorted(str(key[0]) if isinstance(key, tuple) else str(key) for key in info["mismatched_keys"])
    has_head = type(model).__name__ in (checkpoint.config.architectures or [])  # then all of it must be there
    undeclared = [key for key in missing if (has_head or key.startswith(prefix)) and not _declared(key, fresh)]
    undeclared += [key for key in mismatched if not _declared(key, fresh)]
    if undeclared:
        raise ModelError(
            f"checkpoint {checkpoint.name!r} lacks {listed(undeclared, 4)}, or has them in another shape",
            where=checkpoint.where,
            fix=f"Use a checkpoint of {type(model).__name__}, or declare what may start fresh: model.fresh ({fresh_where}).",
        )
    own_class.own_memory(model)
    drawn = type(model)(config) if replaced else model  # its weights are as random as those of a missing head
    for key, parameter in model.named_parameters():
        if _declared(key, replaced):
            parameter.data.copy_(drawn.get_parameter(key).data)
            missing.append(key)
    compute_heads_in_fp32(model)
    own_class.mark(config, model)
    model.train()
    return model, sorted({*missing, *mismatched})


def _load_own(checkpoint: Checkpoint, task: Task) -> tuple[nn.Module, list[str]]:
    """A model of an own class that transformers does not load: with trained weights if the checkpoint has its, else fresh."""
    assert checkpoint.architecture is not None
    model = own_class.build(checkpoint.architecture, checkpoint.config, checkpoint.where)
    own_class.require_class(model, checkpoint.trained_as, checkpoint.name, checkpoint.where)
    if checkpoint.trained_as is not None:
        _require_same_classes(checkpoint, task)
        own_class.load_weights(model, checkpoint.folder)
    compute_heads_in_fp32(model)
    model.train()
    return model, [] if checkpoint.trained_as is not None else sorted(dict(model.named_parameters()))


def load_trained(
    checkpoint: Checkpoint,
    task: Task,
    fresh_where: str,
    *,
    model: nn.Module | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """The model with its trained head, and its tokenizer.

    Args:
        checkpoint: opened.
        task: with the classes.
        fresh_where: the place of `model.fresh`, for messages.
        model: that is given, and gets the weights of the checkpoint.
        tokenizer: that is given.

    Raises:
        ModelError: as `load_processor` and `load_model`, there is no trained head, or the model is of another class than
            the one that was trained.
    """
    tokenizer, _ = load_processor(checkpoint, task, tokenizer)
    if model is not None:
        own_class.require_class(model, checkpoint.trained_as, checkpoint.name, checkpoint.where)
        _require_same_classes(checkpoint, task)
        own_class.load_weights(model, checkpoint.folder)
        own_class.own_memory(model)
        compute_heads_in_fp32(model)
        if isinstance(model, PreTrainedModel):
            agree_on_padding(tokenizer, model.config, "the given model", "model")
            own_class.copy_padding(checkpoint.config, model.config)
        return model, tokenizer
    model, fresh = load_model(checkpoint, task, (), fresh_where)
    if fresh:
        raise ModelError(
            f"{checkpoint.name!r} has no trained head ({', '.join(fresh)} would start at random)",
            where=checkpoint.where,
            fix="Fine-tune it first: `hfpipe finetune RECIPE`.",
        )
    own_class.require_class(model, checkpoint.trained_as, checkpoint.name, checkpoint.where)
    trained = checkpoint.config.architectures or []
    if trained and type(model).__name__ not in trained:
        raise ModelError(
            f"{checkpoint.name!r} was trained as {', '.join(trained)}, and would be loaded as {type(model).__name__}",
            where=checkpoint.where,
            fix="Pass the model from Python: model=..., or name its class: model.architecture=MODULE:CLASS.",
        )
    return model, tokenizer


def head_form(checkpoint: Checkpoint) -> str | None:
    """How the labels were said that a checkpoint was trained on by hfpipe, or None."""
    form = getattr(checkpoint.config, own_class.FORM, None)
    return form if isinstance(form, str) else None


def load_again(recipe: Recipe, folder: Path, model: nn.Module | None = None) -> nn.Module:
    """The model whose weights and configuration a run wrote into a folder, by its class or into a given one.

    Raises:
        ModelError: it was trained as a class that is not known here, or weights do not fit.
    """
    fields: dict[str, Any] = {"checkpoint": str(folder), "revision": None, "config": {}}
    checkpoint = open_checkpoint(recipe.model_copy(update={"model": recipe.model.model_copy(update=fields)}), model)
    if model is None and checkpoint.architecture is not None:
        model = own_class.build(checkpoint.architecture, checkpoint.config, checkpoint.where)
    if model is not None:
        own_class.require_class(model, checkpoint.trained_as, checkpoint.name, checkpoint.where)
        own_class.load_weights(model, folder)
        return model
    architectures = checkpoint.config.architectures or ["?"]
    kind = getattr(transformers, architectures[0], None)
    if kind is None:
        raise own_class.unknown_class(architectures[0], checkpoint.name, checkpoint.where)
    loaded: nn.Module = kind.from_pretrained(folder, config=checkpoint.config, trust_remote_code=False)
    return loaded


def _require_same_classes(checkpoint: Checkpoint, task: Task) -> None:
    """Refuse a trained model of an own class whose classes are not those of the task, in this order."""
    names = head_names(checkpoint)
    if task.names and names != task.names:
        raise ModelError(
            f"checkpoint {checkpoint.name!r} has a head for the classes {list(names)}, and the data have "
            f"{list(task.names)}",
            where=checkpoint.where,
            fix="Bring the data's classes into that order.",
        )


def head_names(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The classes of a checkpoint's head in order, as its configuration names them."""
    id2label = checkpoint.config.id2label
    return tuple(str(id2label[index]) for index in sorted(id2label))


def _declared(key: str, fresh: Iterable[str]) -> bool:
    return any(key == start or key.startswith(f"{start}.") or key.startswith(start) for start in fresh)


def _replaced_head(checkpoint: Checkpoint, task: Task, fresh: tuple[str, ...]) -> tuple[str, ...]:
    """What `fresh` declares of a head that was trained for other classes than the data have; such a head goes.

    Raises:
        ModelError: there is such a head, and nothing is declared.
    """
    architectures = checkpoint.config.architectures or []
    suffix = task.auto_model.removeprefix("AutoModel")
    if not task.names or not any(name.endswith(suffix) for name in architectures):
        return ()
    names = [checkpoint.config.id2label[index] for index in sorted(checkpoint.config.id2label)]
    named = not all(name == f"LABEL_{index}" for index, name in enumerate(names))
    if len(names) == task.num_labels and (not named or names == list(task.names)):
        return ()
    declared = tuple(start for start in fresh if _is_head(start))
    if not declared:
        raise ModelError(
            f"checkpoint {checkpoint.name!r} has a head for the classes {names}, and the data have {list(task.names)}",
            where=checkpoint.where,
            fix="Bring the data's classes into that order, or declare a fresh head with model.fresh: [classifier].",
        )
    return declared


def _is_head(start: str) -> bool:
    return start.startswith(("classifier", "score", "head", "pre_classifier", "qa_outputs"))


def _read_config(folder: Path, name: str, where: str) -> dict[str, Any]:
    try:
        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{name!r} has no config.json in {folder}", where=where, fix="Name a folder written by save_pretrained."
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{folder / 'config.json'} is not JSON: {error}", where=where) from None
    if not isinstance(described, dict):
        raise ModelError(f"{folder / 'config.json'} is not a mapping", where=where)
    return described
