"""The kinds of task, one row each: what a recipe says of a kind, and what else must be known without importing torch.

A new kind is a module that answers everything of :class:`hfpipe.parts.tasks.Task`, and a row of :data:`KINDS`. A kind of
your own is a class that has its row as the attribute `kind`, and is named `module:attribute` in `task.kind`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hfpipe.errors import RecipeError
from hfpipe.recipe.catalog import is_reference, resolve


@dataclass(frozen=True)
class Kind:
    """What is known of a kind of task before any data are read.

    Attributes:
        loss: the loss where the recipe names none.
        metric: the metric where the recipe names none.
        outputs: the columns that `hfpipe predict` writes of each row.
        target: `module:attribute` of the class of its tasks; of a kind of your own that is the reference itself.
        fields: the fields of `task` that only this kind reads, with their defaults. A field that the schema does not have
            takes values of the type of its default, or any value where that is None.
        required: of these fields those that must be given, and what they are, in words.
        inputs: the fields of `task` that name the columns a model reads.
        text_columns: how many columns `task.text` may name.
        text_is: what those are, in words, where it is not one or two.
        is_words: whether the text of a row is a list of words.
        has_classes: whether classes are learned, so that the recipe may declare their names.
        has_numbers: whether labels are numbers, which text may write in several ways (`dataset.decimal`).
        one_class_a_row: whether every row has one class, by which a split can be stratified.
        several_labels: whether `task.label` may name several columns, or one whose texts have several names.
        forms: the words for `task.label.form`, by which the recipe says how labels are to be read.
        calibratable: whether probabilities can be calibrated and a decision threshold fitted.
        refuses: the fields of `loss` that do nothing with this kind, and why.
        losses: hfpipe's losses that it takes; empty for all.
        losses_because: what the other losses can't do.
        hub_task: the Hub's name of the task.
        aliases: what others call it, in lower case with `_`; a recipe that says so is told the name.
    """

    loss: str
    metric: str
    outputs: tuple[str, ...]
    target: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    required: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[str, ...] = ("text",)
    text_columns: tuple[int, ...] = (1, 2)
    text_is: str = "one text, or the two of a pair"
    is_words: bool = False
    has_classes: bool = False
    has_numbers: bool = False
    one_class_a_row: bool = False
    several_labels: bool = False
    forms: tuple[str, ...] = ()
    calibratable: bool = False
    refuses: Mapping[str, str] = field(default_factory=dict)
    losses: tuple[str, ...] = ()
    losses_because: str = ""
    hub_task: str = "text-classification"
    aliases: tuple[str, ...] = ()


_NO_CLASSES = "class_weights need classes, and {kind} has none"

KINDS: dict[str, Kind] = {
    "text-classification": Kind(
        target="hfpipe.parts.tasks.text:TextTask",
        loss="cross_entropy",
        metric="accuracy",
        outputs=("label", "score", "probabilities"),
        has_classes=True,
        one_class_a_row=True,
        calibratable=True,
        aliases=(
            "classification",
            "sequence_classification",
            "single_label_classification",
            "sentiment",
            "sentiment_analysis",
            "binary",
            "binary_classification",
            "multiclass",
            "multi_class",
            "nli",
            "zero_shot_classification",
        ),
    ),
    "text-regression": Kind(
        target="hfpipe.parts.tasks.numbers:NumberTask",
        loss="mse",
        metric="mse",
        outputs=("value",),
        has_numbers=True,
        refuses=dict.fromkeys(
            ("class_weights", "label_smoothing"),
            "label_smoothing and class_weights need classes, and a regression has none",
        ),
        aliases=("regression", "sequence_regression", "sts"),
    ),
    "multi-label-classification": Kind(
        target="hfpipe.parts.tasks.multi_label:MultiLabelTask",
        loss="bce_with_logits",
        metric="multi_label",
        outputs=("labels", "probabilities"),
        has_classes=True,
        has_numbers=True,
        several_labels=True,
        forms=("classes", "columns"),
        calibratable=True,
        aliases=("multilabel", "multi_label", "multilabel_classification", "tagging"),
    ),
    "token-classification": Kind(
        target="hfpipe.parts.tasks.tokens:TokenTask",
        loss="cross_entropy",
        metric="seqeval",
        outputs=("labels", "scores", "entities"),
        fields={"subwords": "first", "scheme": "auto"},
        text_columns=(1,),
        text_is="one column, of lists of words",
        is_words=True,
        has_classes=True,
        hub_task="token-classification",
        aliases=("ner", "pos", "chunking", "tokens", "sequence_labeling", "named_entity_recognition"),
    ),
    "question-answering": Kind(
        target="hfpipe.parts.tasks.questions:QuestionTask",
        loss="cross_entropy",
        metric="squad",
        outputs=("answer", "score", "start", "end"),
        fields={"stride": 128, "max_answer_length": 30, "n_best": 20},
        text_columns=(2,),
        text_is="question and context",
        refuses={
            "class_weights": _NO_CLASSES,
            "label_smoothing": "label_smoothing spreads over classes, and the positions of {kind} are none",
        },
        # The classes are the positions of a window, and padding is none: only a softmax leaves it out.
        losses=("cross_entropy", "focal", "kl_div"),
        losses_because="can't leave out padding",
        hub_task="question-answering",
        aliases=("qa", "squad", "extractive_qa", "extractive_question_answering"),
    ),
    "multiple-choice": Kind(
        target="hfpipe.parts.tasks.choices:ChoiceTask",
        loss="cross_entropy",
        metric="accuracy",
        outputs=("choice", "text", "score", "probabilities"),
        fields={"choices": None},
        required={"choices": "the columns of the endings"},
        inputs=("text", "choices"),
        forms=("from_zero", "from_one", "letters", "text", "keys"),
        one_class_a_row=True,
        refuses={"class_weights": _NO_CLASSES},
        hub_task="multiple-choice",
        aliases=("mc", "swag", "choices", "mcq"),
    ),
}
DEFAULT = "text-classification"


def kind_of(name: str) -> Kind:
    """The row of a kind by its name, or the one of an object of your own.

    Raises:
        RecipeError: neither a name nor `module:attribute`; a module that can't be imported; an object without a row.
    """
    if name in KINDS:
        return KINDS[name]
    found = getattr(task_class(name), "kind", None)
    if not isinstance(found, Kind):
        raise RecipeError(
            f"kind of task {name!r} has no row",
            allowed="a class with the attribute kind = hfpipe.recipe.kinds.Kind(...)",
        )
    return found


def task_class(name: str) -> Any:
    """The class that makes the tasks of a kind, a :class:`hfpipe.parts.tasks.Task`; raises as :func:`kind_of`."""
    return resolve(KINDS, name, "kind of task")


def find_kind(name: object) -> Kind | None:
    """The row of a kind, or None where a name stands for none; the schema says why."""
    try:
        return kind_of(name) if isinstance(name, str) and (name in KINDS or is_reference(name)) else None
    except RecipeError:
        return None


def kind_in(fields: Mapping[str, Any]) -> Kind:
    """The kind of a recipe's plain fields, and the default one where they name none that there is."""
    task = fields.get("task")
    name = task.get("kind", DEFAULT) if isinstance(task, Mapping) else DEFAULT
    return find_kind(name) or KINDS[DEFAULT]
