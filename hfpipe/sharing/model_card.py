"""The model card in `model/README.md`: what a run's model is, how it was measured, and how to use it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hfpipe.recipe.kinds import task_class
from hfpipe.recipe.schema import GIVEN, Recipe
from hfpipe.reports import wording
from hfpipe.runs.given_parts import given_names, restorable
from hfpipe.runs.store import Run
from hfpipe.system import hub
from hfpipe.system.redaction import last_part, strip_path

# The line of the example that `hfpipe push` completes with the name of the repository.
PLACE = 'checkpoint = "model"  # this folder, or the name of the repository that holds it'
_MOST_RESULTS, _MOST_METRICS = 40, 30
_TEMPLATE = "---\n{{ card_data }}\n---\n\n{{ text }}\n"


def write_card(run: Run) -> None:
    """Write `model/README.md` from what the run folder holds. Nothing is asked of the Hub.

    Raises:
        OSError: it can't be written.
    """
    run.write_text("model/README.md", str(card(run)))


def card(run: Run) -> Any:
    """The :class:`huggingface_hub.ModelCard` of a run; licence and language are left to the owner, who knows them."""
    from huggingface_hub import ModelCard, ModelCardData

    recipe, own = _with_given_data(run), wording.own_evaluation(run)
    others, _ = wording.other_evaluations(run)
    results: list[Any] = [
        one
        for document in (own, *others.values())
        for one in _results(run, recipe, document)
        if not document.get("overrides")
    ][:_MOST_RESULTS]
    metrics = list(dict.fromkeys(one.metric_type for one in results if "/" not in one.metric_type))
    data = ModelCardData(
        base_model=None if "model" in given_names(run) else _on_hub(recipe.model.checkpoint),
        datasets=_on_hub(recipe.dataset.path, recipe.dataset.data_files),
        eval_results=results or None,
        library_name="transformers",
        metrics=metrics or None,
        model_name=recipe.name,
        pipeline_tag=recipe.task.traits.hub_task,
        tags=["hfpipe", _named(recipe)],
    )
    if not results:  # without them the name stands in no field that the Hub knows
        data.model_name = None
    text = "\n".join(_text(run, recipe, own, others))
    return ModelCard.from_template(data, template_str=_TEMPLATE, text=text)


def _with_given_data(run: Run) -> Recipe:
    """The recipe of a run; of data that were given from Python it names none, whatever it says."""
    recipe = run.recipe
    if "dataset" not in given_names(run):
        return recipe
    given = recipe.dataset.model_copy(update={"path": GIVEN, "data_files": None, "name": None})
    return recipe.model_copy(update={"dataset": given})


def _named(recipe: Recipe) -> str:
    """The kind of task, or the name of the class of a kind of the user's."""
    return recipe.task.kind.rpartition(":")[2]


def _kind_of_model(recipe: Recipe) -> str:
    return _named(recipe).replace("-", " ")


def _on_hub(path: str, files: Any = None) -> str | None:
    """The id, if that is what a path of the recipe is."""
    is_id = (
        files is None
        and path != GIVEN
        and not hub.is_local(path)
        and not path.startswith("embedded:")
        and path.count("/") <= 1
    )
    return path if is_id else None


def _data_name(recipe: Recipe) -> str:
    """What the data are called, without a path of this machine."""
    spec = recipe.dataset
    if _on_hub(spec.path, spec.data_files):
        return spec.path
    if spec.path == GIVEN:
        return "data given from Python"
    if spec.path.startswith("embedded:"):
        return spec.path
    if spec.data_files is not None:
        return f"{spec.path} files"
    return last_part(spec.path)


def _results(run: Run, recipe: Recipe, document: Mapping[str, Any]) -> Iterator[Any]:
    from huggingface_hub import EvalResult

    identity = (run.metadata.get("identity") or {}).get("dataset") or {}
    is_on_hub = _on_hub(recipe.dataset.path, recipe.dataset.data_files) is not None
    name = _data_name(recipe)
    known = (document.get("leak") or {}).get("rows")
    of = f" ({known:,} of the {document.get('examples'):,} examples stand in the training data)" if known else ""
    for metric, value in (document.get("metrics") or {}).items():
        if metric == "loss" or not isinstance(value, int | float) or not math.isfinite(value):
            continue
        yield EvalResult(
            task_type=recipe.task.traits.hub_task,
            task_name=_kind_of_model(recipe)[:1].upper() + _kind_of_model(recipe)[1:],
            dataset_type=name,
            dataset_name=f"{name} {recipe.dataset.name}" if recipe.dataset.name else name,
            dataset_config=recipe.dataset.name,
            dataset_split=document.get("split"),
            dataset_revision=identity.get("commit") if is_on_hub else None,
            metric_type=metric,
            metric_name=f"{metric}{of}",
            metric_value=round(float(value), 6),
        )


def _text(run: Run, recipe: Recipe, own: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    about, summary = run.metadata, run.read_json("metrics.json") or {}
    yield f"# {recipe.name}"
    yield ""
    base = _on_hub(recipe.model.checkpoint)
    named = f"[{base}](https://huggingface.co/{base})" if base else _code(last_part(recipe.model.checkpoint))
    if model := given_names(run).get("model"):
        named = f"{_code(model)}, which was given from Python, with the tokenizer of {named},"
    yield f"A model for {_kind_of_model(recipe)}, fine-tuned with hfpipe from {named} on {_linked(recipe)}."
    yield ""
    yield from _measured("Results", own, recipe)
    for key, document in others.items():
        yield from _measured(f"Results on {document.get('split') or key}", document, recipe)
    yield "## How to use"
    yield ""
    yield from _example(run, recipe)
    yield "## Training data"
    yield ""
    yield from _data(about, recipe)
    yield "## Training"
    yield ""
    yield from _table(("field", "value"), list(_settings(recipe, given_names(run))))
    if summary.get("steps"):
        yield f"{summary['steps']:,} steps on {about.get('device', 'an unknown device')}, engine {recipe.engine}, " \
              f"{(about.get('precision') or {}).get('name', 'unknown precision')}, seed {recipe.seed}. The model has the " \
              f"weights of step {summary.get('evaluated_step') or summary['steps']:,}. The whole recipe is in `recipe.yaml` " \
              "of the run."  # fmt: skip
        yield ""
    yield "## Versions"
    yield ""
    yield ", ".join(f"{name} {version}" for name, version in (about.get("versions") or {}).items()) + "."
    yield ""
    yield "## Limitations"
    yield ""
    yield from (f"- {_plain(text)}" for text in _limits(run, recipe, own))


def _limits(run: Run, recipe: Recipe, own: Mapping[str, Any]) -> list[str]:
    """The notices of the run itself; nothing is guessed."""
    found = [f"{text[:1].upper()}{text[1:]}." for text in wording.notices_of(own)]
    if wording.is_chosen(run, recipe.evaluate.best, recipe.checkpoints.keep_best):
        found.append(
            f"The weights are those with the best {recipe.evaluate.best} of several evaluations of the split that is reported, "
            "which flatters the metrics a little."
        )
    found += [f"Notice of the run: {text}" for text in wording.notices(run.records)]
    if own_class_of(run.read_json("model/config.json") or {}):
        found.append(
            "config.json has the class of the model under `hfpipe_class`: loaded as another one it is another model."
        )
    found.append("It was measured on the data named above and on nothing else.")
    return [strip_path(text) for text in found]


def _measured(title: str, document: Mapping[str, Any], recipe: Recipe) -> Iterator[str]:
    metrics, intervals = document.get("metrics") or {}, document.get("intervals") or {}
    yield f"## {title}"
    yield ""
    if not metrics:
        yield "Nothing was evaluated."
        yield ""
        return
    result = wording.result(dict(document), recipe.evaluate.best)
    assert result is not None
    yield _plain(f"{result['name']} {wording.number(result['value'])}: {' '.join(result['sentences'])}".rstrip(": "))
    yield ""
    if document.get("overrides"):
        yield _plain(strip_path(f"Measured with {' '.join(map(str, document['overrides']))}."))
        yield ""
    baseline = (document.get("baseline") or {}).get("metrics") or {}
    level = f"{100 * (document.get('level') or 0.95):g} % interval"
    rows = [
        (_plain(name), wording.number(value), wording.between(intervals.get(name)),
         wording.number(baseline[name]) if baseline.get(name) is not None else "")
        for name, value in metrics.items()
    ]  # fmt: skip
    more = len(rows) - _MOST_METRICS
    rows = rows[:_MOST_METRICS]
    shown = [column for column in range(4) if column < 2 or any(row[column] for row in rows)]
    head = ("metric", "value", level, "baseline")
    yield from _table([head[column] for column in shown], [[row[column] for column in shown] for row in rows])
    if more > 0:
        yield f"And {more:,} more."
        yield ""


def _example(run: Run, recipe: Recipe) -> Iterator[str]:
    """Python that loads the model and asks it once, in the words of its kind of task; or why none can be shown."""
    config = run.read_json("model/config.json") or {}
    if (why := _why_no_example(run, recipe, config)) is not None:
        yield f"{why} In place of an example: `hfpipe.predict` asks the run itself."
        yield ""
        return
    task = task_class(recipe.task.kind)
    length = f", max_length={recipe.model.max_length}" if recipe.model.max_length else ""
    inputs, answer = task.example([_identifier(name) for name in recipe.task.text], f"truncation=True{length}")
    yield "```python"
    yield from _loading(recipe, config, task.auto_model)
    yield ""
    yield from inputs
    yield "with torch.inference_mode():"
    yield "    outputs = model(**inputs)"
    if own_class_of(config):
        yield 'logits = outputs["logits"] if isinstance(outputs, dict) else getattr(outputs, "logits", outputs)'
        answer = [line.replace("outputs.logits", "logits").replace("model.config", "config") for line in answer]
    yield from answer
    yield "```"
    yield ""


def own_class_of(config: Mapping[str, Any]) -> str:
    """The class of the trained model, where it is not the one that transformers' Auto classes load; empty where it is."""
    return str(config.get("hfpipe_class") or "")


def _why_no_example(run: Run, recipe: Recipe, config: Mapping[str, Any]) -> str | None:
    """Why no few lines of Python give the model's answers, in a sentence."""
    trained_as = own_class_of(config)
    is_found = "model" not in given_names(run) or "model" in restorable(run)
    if trained_as and not (is_found and recipe.model.architecture):
        return (
            f"The model is an object that was given from Python, {_code(trained_as)}, and the code that makes it is not "
            "here: what transformers would load from this folder is another model, with other metrics than those above."
        )
    collate = given_names(run).get("collate") or recipe.model.collate
    return f"Its batches are made by {_code(collate)}, whose code is not here." if collate else None


def _loading(recipe: Recipe, config: Mapping[str, Any], auto_model: str) -> Iterator[str]:
    """Lines of Python that load `tokenizer` and `model`, by the class that was trained."""
    architecture = recipe.model.architecture if own_class_of(config) else None
    module, _, attribute = (architecture or f"transformers:{auto_model}").partition(":")
    name = attribute.partition(".")[0]
    is_plain = bool(architecture) and not config.get("model_type")
    yield "import torch"
    if architecture:
        yield f"from {module} import {name}  # transformers' Auto classes would load another model"
    if is_plain:
        yield "from safetensors.torch import load_model"
        yield "from transformers import AutoTokenizer, PretrainedConfig"
        yield "from transformers.utils import cached_file"
    else:
        yield (
            "from transformers import AutoTokenizer"
            if architecture
            else f"from transformers import {name}, AutoTokenizer"
        )
    yield ""
    yield PLACE
    yield "tokenizer = AutoTokenizer.from_pretrained(checkpoint)"
    if is_plain:
        yield "config = PretrainedConfig.from_pretrained(checkpoint)"
        yield f"model = {attribute}().eval()"
        yield 'load_model(model, cached_file(checkpoint, "model.safetensors"))'
    else:
        yield f"model = {attribute}.from_pretrained(checkpoint).eval()"
        if architecture:
            yield "config = model.config"


def _identifier(name: str) -> str:
    plain = "".join(letter if letter.isalnum() and letter.isascii() else "_" for letter in name).strip("_").lower()
    import keyword

    return plain if plain.isidentifier() and not keyword.iskeyword(plain) else f"text_{plain}".rstrip("_")


def _linked(recipe: Recipe) -> str:
    path = _on_hub(recipe.dataset.path, recipe.dataset.data_files)
    config = f" ({_code(recipe.dataset.name)})" if recipe.dataset.name else ""
    return (
        f"[{path}](https://huggingface.co/datasets/{path}){config}" if path else f"{_code(_data_name(recipe))}{config}"
    )


def _data(about: Mapping[str, Any], recipe: Recipe) -> Iterator[str]:
    identity = (about.get("identity") or {}).get("dataset") or {}
    rows = (about.get("rows") or {}).get("train")
    text = f"{_linked(recipe)}, split {_code(recipe.dataset.splits.train)}"
    text += f", {rows:,} rows" if rows else ""
    text += f", commit {_code(identity['commit'])}" if identity.get("commit") else ""
    text += f", SHA-256 {_code(identity['digest'])}" if identity.get("digest") else ""
    columns = ", ".join(_code(name) for name in recipe.task.text)
    yield f"{text}. Read: {columns}; learned: {', '.join(_code(name) for name in recipe.task.label_columns)}."
    yield ""


def _settings(recipe: Recipe, given: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What a reader asks first, in the recipe's own names."""
    sections = {"loss": recipe.loss, "optimizer": recipe.optimizer, "schedule": recipe.schedule}
    for section, part in sections.items():
        if section in given:
            yield f"`{section}`", f"{_code(given[section])}, given from Python"
            continue
        for key, value in part.model_dump(mode="json").items():
            if value is not None and key != "allow_zero_lr":  # the rate itself says it
                yield f"`{section}.{key}`", _code(str(value))
    for key in ("epochs", "max_steps", "batch_size", "accumulate", "max_grad_norm", "precision"):
        value = getattr(recipe.train, key)
        if value is not None:
            yield f"`train.{key}`", _code(f"{value:g}" if isinstance(value, float) else str(value))
    if recipe.model.max_length:
        yield "`model.max_length`", _code(str(recipe.model.max_length))
    yield "`seed`", _code(str(recipe.seed))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join('---' for _ in head)} |"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


def _code(text: str) -> str:
    return "`" + strip_path(text).replace("`", "'").replace("\n", " ") + "`"


def _plain(text: str) -> str:
    """Text from data that Markdown takes for nothing else."""
    text = " ".join(text.split())
    for sign in "\\`*_[]<>#":
        text = text.replace(sign, f"\\{sign}")
    return text
