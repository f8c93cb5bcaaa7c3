"""The model card in `model/README.md`: what a run's model is, how it was measured, and how to use it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hfpipe.recipe.schema import Recipe
from hfpipe.reports import wording
from hfpipe.runs.store import Run
from hfpipe.system import hub
from hfpipe.system.redaction import last_part, strip_path

# The line of the example that `hfpipe push` completes with the name of the repository.
PLACE = 'checkpoint = "model"  # this folder, or the name of the repository that holds it'
_AUTO_CLASSES = {
    "text-classification": "AutoModelForSequenceClassification",
    "text-regression": "AutoModelForSequenceClassification",
    "multi-label-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "multiple-choice": "AutoModelForMultipleChoice",
}
# The Hub's names of tasks; a number or several labels for a text are text classification there.
_TAGS = {"text-regression": "text-classification", "multi-label-classification": "text-classification"}
_MOST_RESULTS, _MOST_FIGURES = 40, 30
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

    recipe, own = run.recipe, wording.own_evaluation(run)
    others, _ = wording.other_evaluations(run)
    results: list[Any] = [
        one
        for document in (own, *others.values())
        for one in _results(run, recipe, document)
        if not document.get("overrides")
    ][:_MOST_RESULTS]
    metrics = list(dict.fromkeys(one.metric_type for one in results if "/" not in one.metric_type))
    kind = recipe.task.kind
    data = ModelCardData(
        base_model=_on_hub(recipe.model.checkpoint),
        datasets=_on_hub(recipe.dataset.path, recipe.dataset.data_files),
        eval_results=results or None,
        library_name="transformers",
        metrics=metrics or None,
        model_name=recipe.name,
        pipeline_tag=_TAGS.get(kind, kind),
        tags=["hfpipe", kind],
    )
    if not results:  # without them the name stands in no field that the Hub knows
        data.model_name = None
    text = "\n".join(_text(run, recipe, own, others))
    return ModelCard.from_template(data, template_str=_TEMPLATE, text=text)


def _on_hub(path: str, files: Any = None) -> str | None:
    """The id, if that is what a path of the recipe is."""
    is_id = files is None and not hub.is_local(path) and not path.startswith("embedded:") and path.count("/") <= 1
    return path if is_id else None


def _data_name(recipe: Recipe) -> str:
    """What the data are called, without a path of this machine."""
    spec = recipe.dataset
    if _on_hub(spec.path, spec.data_files):
        return spec.path
    if spec.path.startswith("embedded:"):
        return spec.path
    if spec.data_files is not None:
        return f"{spec.path} files"
    return last_part(spec.path)


def _results(run: Run, recipe: Recipe, document: Mapping[str, Any]) -> Iterator[Any]:
    from huggingface_hub import EvalResult

    identity = (run.metadata.get("identity") or {}).get("dataset") or {}
    is_on_hub = _on_hub(recipe.dataset.path, recipe.dataset.data_files) is not None
    kind = recipe.task.kind
    name = _data_name(recipe)
    for metric, value in (document.get("metrics") or {}).items():
        if metric == "loss" or not isinstance(value, int | float) or not math.isfinite(value):
            continue
        yield EvalResult(
            task_type=_TAGS.get(kind, kind),
            task_name=kind.replace("-", " ").capitalize(),
            dataset_type=name,
            dataset_name=f"{name} {recipe.dataset.name}" if recipe.dataset.name else name,
            dataset_config=recipe.dataset.name,
            dataset_split=document.get("split"),
            dataset_revision=identity.get("commit") if is_on_hub else None,
            metric_type=metric,
            metric_name=metric,
            metric_value=round(float(value), 6),
        )


def _text(run: Run, recipe: Recipe, own: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    about, summary = run.metadata, run.read_json("metrics.json") or {}
    yield f"# {recipe.name}"
    yield ""
    base = _on_hub(recipe.model.checkpoint)
    named = f"[{base}](https://huggingface.co/{base})" if base else _code(last_part(recipe.model.checkpoint))
    yield f"A model for {recipe.task.kind.replace('-', ' ')}, fine-tuned with hfpipe from {named} on {_linked(recipe)}."
    yield ""
    yield from _measured("Results", own, recipe)
    for key, document in others.items():
        yield from _measured(f"Results on {document.get('split') or key}", document, recipe)
    yield "## How to use"
    yield ""
    yield from _example(recipe)
    yield "## Training data"
    yield ""
    yield from _data(about, recipe)
    yield "## Training"
    yield ""
    yield from _table(("field", "value"), list(_settings(recipe)))
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
    """What the run itself was told; nothing is guessed."""
    said = [f"{text[:1].upper()}{text[1:]}." for text in own.get("remarks") or []]
    if wording.is_chosen(run, recipe.evaluate.best, recipe.checkpoints.keep_best):
        said.append(
            f"The weights are those with the best {recipe.evaluate.best} of several evaluations of the split that is reported, "
            "which flatters the figures a little."
        )
    said += [f"Told during the run: {text}" for text in wording.notices(run.records)]
    said.append("It was measured on the data named above and on nothing else.")
    return [strip_path(text) for text in said]


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
    more = len(rows) - _MOST_FIGURES
    rows = rows[:_MOST_FIGURES]
    kept = [place for place in range(4) if place < 2 or any(row[place] for row in rows)]
    head = ("metric", "value", level, "baseline")
    yield from _table([head[place] for place in kept], [[row[place] for place in kept] for row in rows])
    if more > 0:
        yield f"And {more:,} more."
        yield ""


def _example(recipe: Recipe) -> Iterator[str]:
    task, auto = recipe.task, _AUTO_CLASSES[recipe.task.kind]
    length = f", max_length={recipe.model.max_length}" if recipe.model.max_length else ""
    columns = [_identifier(name) for name in task.text]
    yield "```python"
    yield "import torch"
    yield f"from transformers import {auto}, AutoTokenizer"
    yield ""
    yield PLACE
    yield "tokenizer = AutoTokenizer.from_pretrained(checkpoint)"
    yield f"model = {auto}.from_pretrained(checkpoint).eval()"
    yield ""
    if task.kind == "token-classification":
        yield f'{columns[0]} = ["A", "sentence", "in", "words"]'
        yield f'inputs = tokenizer({columns[0]}, is_split_into_words=True, truncation=True{length}, return_tensors="pt")'
    elif task.kind == "multiple-choice":
        yield f'{columns[0]} = "What all endings begin with."'
        yield 'endings = ["One ending.", "Another ending."]'
        yield f"inputs = tokenizer([{columns[0]}] * len(endings), endings, truncation=True{length}, padding=True, " \
              'return_tensors="pt")'  # fmt: skip
        yield "inputs = {name: tensor.unsqueeze(0) for name, tensor in inputs.items()}"
    else:
        told = {"question-answering": ("A question?", "The text with its answer.")}.get(
            task.kind, ("A text.", "Another text.")
        )
        for column, text in zip(columns, told, strict=False):
            yield f'{column} = "{text}"'
        yield f'inputs = tokenizer({", ".join(columns)}, truncation=True{length}, return_tensors="pt")'
    yield "with torch.inference_mode():"
    yield "    outputs = model(**inputs)"
    yield {
        "text-classification": "print(model.config.id2label[outputs.logits.argmax(-1).item()])",
        "text-regression": "print(outputs.logits.item())",
        "multi-label-classification": "print({model.config.id2label[i]: p for i, p in "
        "enumerate(outputs.logits.sigmoid()[0].tolist())})",
        "token-classification": "print([model.config.id2label[i] for i in outputs.logits.argmax(-1)[0].tolist()])",
        "question-answering": "start, end = outputs.start_logits.argmax(), outputs.end_logits.argmax()\n"
        'print(tokenizer.decode(inputs["input_ids"][0][start : end + 1]))',
        "multiple-choice": "print(endings[outputs.logits.argmax(-1).item()])",
    }[task.kind]
    yield "```"
    yield ""


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


def _settings(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """What a reader asks first, in the recipe's own names."""
    sections = {"loss": recipe.loss, "optimizer": recipe.optimizer, "schedule": recipe.schedule}
    for section, part in sections.items():
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
