"""The names of TrainingArguments that a recipe does not give under `trainer:`, and what to write in their place."""

from __future__ import annotations

import ast
import builtins
import importlib.util
import typing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hfpipe.recipe.schema import Recipe

# Fields of TrainingArguments that hfpipe sets itself, and the recipe field that decides each.
OWNED: dict[str, str] = {
    "output_dir": "--runs-dir and --name",
    "seed": "seed",
    "data_seed": "seed",
    "learning_rate": "optimizer.lr",
    "weight_decay": "optimizer.weight_decay",
    "adam_beta1": "optimizer.betas",
    "adam_beta2": "optimizer.betas",
    "adam_epsilon": "optimizer.eps",
    "optim": "optimizer.name",
    "optim_args": "optimizer",
    "lr_scheduler_type": "schedule.name",
    "lr_scheduler_kwargs": "schedule",
    "warmup_steps": "schedule.warmup",
    "num_train_epochs": "train.epochs",
    "max_steps": "train.max_steps",
    "per_device_train_batch_size": "train.batch_size",
    "gradient_accumulation_steps": "train.accumulate",
    "max_grad_norm": "train.max_grad_norm",
    "bf16": "train.precision",
    "fp16": "train.precision",
    "gradient_checkpointing": "train.gradient_checkpointing",
    "torch_compile": "train.compile",
    "torch_compile_backend": "train.compile",
    "torch_compile_mode": "train.compile",
    "dataloader_num_workers": "train.workers",
    "train_sampling_strategy": "train.batching, and seed, which alone decides the order of the examples",
    "label_smoothing_factor": "loss.label_smoothing",
    "average_tokens_across_devices": "loss.reduction",
    "eval_strategy": "evaluate.every",
    "eval_steps": "evaluate.every",
    "eval_delay": "evaluate.every",
    "eval_on_start": "evaluate.every",
    "per_device_eval_batch_size": "evaluate.batch_size",
    "metric_for_best_model": "evaluate.best",
    "greater_is_better": "evaluate.greater_is_better",
    "load_best_model_at_end": "checkpoints.keep_best",
    "save_strategy": "checkpoints.every",
    "save_steps": "checkpoints.every_steps",
    "save_total_limit": "checkpoints.keep_last",
    "logging_strategy": "nothing: every step is recorded",
    "logging_steps": "nothing: every step is recorded",
    "logging_nan_inf_filter": "nothing: a loss that is not finite is never hidden",
    "disable_tqdm": "nothing: hfpipe shows its own progress",
    "remove_unused_columns": "task.text and task.label",
    "auto_find_batch_size": "train.batch_size and train.accumulate",
    "resume_from_checkpoint": "nothing: not a setting of the recipe",
    "report_to": "tracking: [...], which both engines feed with the same keys",
    "fsdp": "nothing: every process holds the whole model",
    "fsdp_config": "nothing: every process holds the whole model",
    "deepspeed": "nothing: every process holds the whole model",
    "parallelism_config": "nothing: every process holds the whole model",
    "push_to_hub": "nothing: publishing is not part of training",
    "hub_token": "nothing: a token never stands in a recipe",
}

# Options that Trainer takes on every machine; the others are tried on a tiny model, which imports torch.
ALWAYS_TAKEN = frozenset({("use_cpu", True), ("skip_memory_metrics", True), ("skip_memory_metrics", False)})

# Names of older transformers releases, and of habit, with today's answer.
OLD_NAMES: dict[str, str] = {
    "evaluation_strategy": "evaluate.every (transformers 5 calls it eval_strategy)",
    "eval_strategy": "evaluate.every",
    "warmup_ratio": "schedule.warmup below 1 (transformers 5: warmup_steps below 1)",
    "warmup_steps": "schedule.warmup",
    "group_by_length": "train.batching.bucket",
    "no_cuda": "trainer.use_cpu: true",
    "tokenizer": "model.checkpoint, whose own tokenizer is used (transformers 5: processing_class)",
    "overwrite_output_dir": "nothing; every run has a folder of its own",
    "logging_dir": "nothing; logs are in the run folder",
    "save_safetensors": "nothing; safetensors is the only format",
    "evaluate_during_training": "evaluate.every",
    "early_stopping_patience": "evaluate.patience",
    "early_stopping_threshold": "evaluate.min_improvement",
    "per_gpu_train_batch_size": "train.batch_size",
    "per_device_train_batch_size": "train.batch_size",
    "per_device_eval_batch_size": "evaluate.batch_size",
    "num_train_epochs": "train.epochs",
    "learning_rate": "optimizer.lr",
    "gradient_accumulation_steps": "train.accumulate",
    "max_seq_length": "model.max_length",
    "model_name_or_path": "model.checkpoint",
    "task_name": "dataset.name",
    "lr_scheduler_type": "schedule.name",
    "metric_for_best_model": "evaluate.best",
    "load_best_model_at_end": "checkpoints.keep_best",
    "save_total_limit": "checkpoints.keep_last",
    "output_dir": "--runs-dir",
    "report_to": "tracking",
    "fp16": "train.precision: fp16",
    "bf16": "train.precision: bf16",
}


@cache
def _annotations() -> dict[str, str]:
    """The fields of the installed TrainingArguments and their types, read from its source: nothing heavy is imported."""
    found = importlib.util.find_spec("transformers")
    if found is None or found.origin is None:
        return {}
    tree = ast.parse(Path(found.origin).with_name("training_args.py").read_text(encoding="utf-8"))
    options = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "TrainingArguments")
    fields = [n for n in options.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
    return {field.target.id: ast.unparse(field.annotation) for field in fields if isinstance(field.target, ast.Name)}


def names() -> tuple[str, ...]:
    """The fields of the installed TrainingArguments."""
    return tuple(_annotations())


class _Unwritable:
    """A type of transformers' own, of which no recipe can write a value."""


class _Names(dict[str, Any]):
    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, None) or getattr(typing, name, _Unwritable)


def type_problem(name: str, value: Any) -> str | None:
    """What is wrong with the type of an option's value, or None; types that can't be read are left to transformers."""
    from pydantic import TypeAdapter, ValidationError

    try:
        annotation = eval(_annotations()[name], _Names())
        checker = TypeAdapter(annotation, config={"arbitrary_types_allowed": True})
    except Exception:  # noqa: BLE001
        return None
    try:
        checker.validate_python(value, strict=True)
    except ValidationError as error:
        return "; ".join(dict.fromkeys(detail["msg"][0].lower() + detail["msg"][1:] for detail in error.errors()))
    return None


def option_problems(recipe: Recipe) -> list[str]:
    """What is wrong with the types of the `trainer` section, each with its place."""
    found = {key: type_problem(key, value) for key, value in recipe.trainer.items() if key in names()}
    return [
        f"{recipe.where(f'trainer.{key}')}: {wrong}, got {recipe.trainer[key]!r}"
        for key, wrong in found.items()
        if wrong
    ]
