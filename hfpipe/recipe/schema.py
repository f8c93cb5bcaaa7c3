"""What a recipe may say: frozen pydantic models, one description with its unit under every field.

The reference page `docs/recipe.md` and the JSON Schema for editors are generated from this file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializeAsAny,
    WithJsonSchema,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError, PydanticKnownError

from hfpipe.errors import RecipeError
from hfpipe.recipe.catalog import is_reference
from hfpipe.recipe.kinds import DEFAULT, KINDS, Kind, find_kind, kind_in, kind_of

HELD_OUT = "held_out"  # the split of the rows that `dataset.splits.hold_out` sets aside
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    return value


def _text_encoding(value: str) -> str:
    try:
        "".encode(value)
    except (LookupError, ValueError):
        raise ValueError("Python knows no such text encoding; utf-8, utf-16, latin-1, cp1252, ...") from None
    return value


def _is_held_out(split: str | None) -> bool:
    return split is not None and split.partition("[")[0].strip() == HELD_OUT


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def _reference(value: str) -> str:
    """Refuse a text that can't be imported by."""
    if not is_reference(value):
        raise PydanticCustomError("reference", "not `module:attribute`")
    return value


Reference = Annotated[str, AfterValidator(_reference)]
Finite = Annotated[float, AfterValidator(_finite)]
Positive = Annotated[Finite, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A section of a recipe: frozen, and nothing unknown in it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class NamedPart(BaseModel):
    """A section that names a part; what is not a field here is an argument of that part."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, use_attribute_docstrings=True)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments for the part beyond the fields of the section."""
        return dict(self.model_extra or {})


class Splits(Section):
    """Which rows train and which rows measure."""

    train: str = "train"
    """Split, or slice of one, that is trained on: `train`, `train[:10%]`, `train[:64]`."""
    evaluation: str | None = "validation"
    """Split, or slice of one, that is evaluated on; null when there is none."""
    also: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    """Further splits that the final weights are measured on, such as MNLI's `validation_mismatched`."""
    calibration: str | None = None
    """Split, or slice of one, that `evaluate.calibrate` and `evaluate.threshold` are fitted on. It shares no row with the
    splits that are trained on or measured."""
    hold_out: int | float | None = None
    """Where the data have no evaluation split: how many rows of the split `train` is taken from are set aside as the
    split `held_out`, below 1 as a share, else in rows. Which ones, `seed` decides; slices of `train` are taken from the
    others."""
    stratify: bool = False
    """Set aside the same share of every class, by the label column."""

    @field_validator("hold_out")
    @classmethod
    def _share_or_rows(cls, value: float | None) -> float | None:
        if value is not None and not (value >= 1 if isinstance(value, int) else 0 < value < 1):
            raise ValueError("a share between 0 and 1, or a whole number of rows")
        return value

    @model_validator(mode="before")
    @classmethod
    def _evaluate_what_is_held_out(cls, data: Any) -> Any:
        """Name the split that is set aside, so that the resolved recipe says it."""
        if isinstance(data, dict) and data.get("hold_out") is not None and "evaluation" not in data:
            return {**data, "evaluation": HELD_OUT}
        return data

    @model_validator(mode="after")
    def _held_out_is_evaluated(self) -> Self:
        """Refuse rows set aside that nothing is measured on, and a stratification of nothing."""
        if self.hold_out is None:
            if self.stratify:
                raise PydanticCustomError("idle", "`stratify` does nothing without `hold_out`")
        elif not _is_held_out(self.evaluation):
            raise PydanticCustomError(
                "idle",
                "`hold_out` sets rows aside for evaluation, and `evaluation` is {evaluation}; say evaluation: held_out, or "
                "remove one of the two",
                {"evaluation": self.evaluation or "null"},
            )
        return self


GIVEN = "given"
"""`dataset.path` of data that are passed from Python."""
_READ_BY = {
    "encoding": ("csv", "tsv", "json", "jsonl", "conll", "text"),
    "separator": ("csv", "tsv", "conll"),
    "quote": ("csv", "tsv"),
    "field": ("json",),
    "columns": ("conll",),
}
"""The formats that a field of `dataset` is read with."""


class Dataset(Section):
    """The raw data set."""

    path: str = Field(default=GIVEN, min_length=1)
    """Hub id (`nyu-mll/glue`), local folder (`./data`, `/data`, `~/data`; also one that `save_to_disk` wrote), format
    (`csv`, `tsv`, `json`, `jsonl`, `conll`, `parquet`, `arrow`, `text`) with `data_files`, or `embedded:NAME` for the data
    that hfpipe makes itself. `given`: the data are passed from Python, as `dataset=`. Fields of csv and tsv stay text; of
    `text` every line is a row with the one column `text`; a `conll` file has a word a line with its tags, and an empty line
    behind each sentence, which is a row. A `json` file is an object a line, a list of objects, or a document that holds
    such a list (see `field`)."""
    name: str | None = None
    """Configuration of the data set (`mrpc`), where it has several."""
    revision: str | None = None
    """Commit, branch or tag on the Hub; null takes the newest and records its commit."""
    data_files: Annotated[
        str | tuple[str, ...] | dict[str, str | list[str]] | None,
        BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v),
    ] = None
    """Files or globs: one, a list, or a mapping from split to files; a relative one starts from the folder of the recipe's
    file. A single file or list is the split `train`. csv, tsv, json, jsonl, conll and text files may be compressed (`.gz`,
    `.bz2`, `.xz`, `.zst`, `.lz4`). An address (`https://...`) needs its host in `hosts`."""
    hosts: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    """Hosts that addresses in `data_files` may lead to, redirects included: names for https (`data.example.org`), or
    origins (`http://10.0.0.7:8000`)."""
    encoding: Annotated[str, AfterValidator(_text_encoding)] = "utf-8"
    """Encoding of csv, tsv, json, jsonl, conll and text files. A byte order mark says it itself, and is no part of the
    data."""
    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """csv, tsv and conll: the character between fields; null is a comma, in tsv a tab, or what a first line `sep=;` says; in
    conll a tab where the first row has one, else white space. A header that another character parts is an error."""
    quote: Annotated[str, Field(min_length=1, max_length=1)] | None = '"'
    """csv and tsv: the character around fields that hold a separator or a line end; null takes quotes as plain text."""
    field: Annotated[str, Field(min_length=1)] | None = None
    """json: where in the document the rows are (`data`, or `result.rows`): a list of objects, or an object with a list for
    each column. null finds the only one, and says so. Articles with paragraphs and questions, as in SQuAD's own files,
    become a row a question with the columns `id`, `title`, `question`, `context` and `answers`."""
    columns: Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)] | None = None
    """conll: the names of the columns of the files, in their order; each becomes a column of lists. null takes the first as
    `task.text` and the last as `task.label`, and the names of CoNLL-U (`form`, `upos`, ...) in such files."""
    decimal: Literal[".", ","] = "."
    """What stands before the fraction of a number that is written as text (`3,5`): in csv every number is. It is read where
    the task learns numbers."""
    thousands: Literal[".", ",", " ", "'"] | None = None
    """What stands between groups of three digits of such a number (`1.250,5`); a space is also a narrow or a protected
    one."""
    splits: Splits = Splits()
    """Which split plays which role."""
    num_proc: Count = 1
    """Processes that tokenize."""
    streaming: bool = False
    """Read the training split as it is trained on, without keeping it: for sets larger than the disk. Needs
    `train.max_steps`; the evaluation split is read whole, so take a slice of it."""
    shuffle_buffer: Count = 10_000
    """Rows of a stream among which the next one is drawn."""
    strict: bool = False
    """Refuse rows that would otherwise only give a notice: repeated, contradictory, empty, or shared between splits."""

    def idle_options(self, form: str) -> list[str]:
        """The fields that say how files are written, and say nothing of files of this format."""
        return [
            name
            for name, forms in _READ_BY.items()
            if form not in forms and getattr(self, name) != type(self).model_fields[name].default
        ]

    @model_validator(mode="after")
    def _options_of_the_format(self) -> Self:
        """Refuse an option that the format does not read."""
        # What a folder holds is seen when it is opened.
        form = None if self.path.startswith((".", "/", "~")) else self.path
        idle = [] if form is None else self.idle_options(form)
        idle += ["hosts"] if self.hosts and self.data_files is None else []
        for field in idle:
            raise PydanticCustomError(
                "idle", "`{field}` does nothing with path: {path}", {"field": field, "path": self.path}
            )
        separator = self.separator or ("\t" if self.path == "tsv" else ",")
        if form in (None, "csv", "tsv") and (separator == self.quote or {separator, self.quote} & {"\n", "\r", "\0"}):
            raise PydanticCustomError("idle", "`separator` and `quote` are two characters within a line")
        if self.columns is not None and (len(set(self.columns)) < len(self.columns) or not all(self.columns)):
            raise PydanticCustomError("idle", "`columns` are different names, one for each column of the files")
        if self.decimal == self.thousands:
            raise PydanticCustomError("idle", "`decimal` and `thousands` are two characters")
        return self


class Label(Section):
    """The column to learn, with its classes declared."""

    column: str | Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=2)]
    """The column to learn; for several classes an example also a list of columns with 0 or 1 in them."""
    names: dict[str, str] | Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] | None = None
    """The classes in order: `[no, yes]` names the values 0 and 1, or puts the data's own names in this order;
    `{"-1": no, "1": yes}` says what each value means (several values may mean one class). Multiple choice: the values that
    mean the first choice, the second, ... (`[A, B, C, D]`)."""
    form: Literal["classes", "columns", "from_zero", "from_one", "letters", "text", "keys"] | None = None
    """How the column says it, where the data can be read in two ways; null finds it. Several classes an example: lists of
    `classes`, or `columns` of 0 and 1, one a class. Multiple choice: the number of the choice, counted `from_zero` or
    `from_one`, its `letters`, its `text`, or the `keys` that each row has for its choices."""
    separator: Annotated[str, Field(min_length=1)] | None = None
    """Several classes an example: what stands between the names in a text (`"a, b"`). White space around a name is no part
    of it, and an empty text has no class."""
    missing: Literal["error", "ignore"] = "error"
    """Rows without a label (null, NaN, or nothing but white space): refused, or left out of loss and metrics."""


def _known_kind(name: str) -> str:
    """Refuse a kind that is neither a row of KINDS nor an object of the user's that has one."""
    if name not in KINDS and not is_reference(name):
        listed = [repr(one) for one in KINDS]
        raise PydanticKnownError("literal_error", {"expected": f"{', '.join(listed[:-1])} or {listed[-1]}"})
    try:
        kind_of(name)
    except RecipeError as error:
        raise PydanticCustomError("idle", "{why}", {"why": str(error)}) from None
    return name


class Task(Section):
    """What is learned from which columns."""

    kind: Annotated[
        str,
        AfterValidator(_known_kind),
        WithJsonSchema({"anyOf": [{"enum": list(KINDS)}, {"type": "string", "pattern": ":"}]}),
    ] = DEFAULT
    """`text-classification`: one class an example; `text-regression`: one number; `multi-label-classification`: any
    number of classes; `token-classification`: a class for every word; `question-answering`: a span of the context;
    `multiple-choice`: one of several endings; or `module:attribute` of a kind of your own."""
    text: Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1, max_length=2)]
    """The text column, or the two columns of a pair. Token classification: the column with lists of words.
    Question answering: question and context. Multiple choice: the context, and the beginning of all endings if there is
    one."""
    label: str | Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=2)] | Label = "label"
    """The column to learn; or `{column: verdict, names: [no, yes]}`; or, for several classes an example, a list of
    columns with 0 or 1 in them."""
    choices: Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)] | None = None
    """Multiple choice: the columns of the endings, or the one column that has them as a list."""
    subwords: Literal["first", "all"] | None = None
    """Token classification: whether the first piece of a word carries its label, or all pieces do (default `first`)."""
    scheme: Literal["auto", "IOB1", "IOB2", "BILOU", "none"] | None = None
    """Token classification: how the labels mark entities; `none` for tags that mark no entities, such as parts of
    speech (default `auto`: found from the labels)."""
    stride: Annotated[int, Field(ge=0)] | None = None
    """Question answering: tokens that neighbouring windows of a long context share (default 128)."""
    max_answer_length: Count | None = None
    """Question answering: longest answer, in tokens (default 30)."""
    n_best: Count | None = None
    """Question answering: how many starts and ends are combined into answers (default 20)."""

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The column or columns to learn."""
        column = self.label.column if isinstance(self.label, Label) else self.label
        return (column,) if isinstance(column, str) else column

    @property
    def names(self) -> tuple[str, ...] | dict[str, str] | None:
        """The classes as declared, or None."""
        return self.label.names if isinstance(self.label, Label) else None

    @property
    def form(self) -> str | None:
        """How the label column is to be read, or None where the data say it."""
        return self.label.form if isinstance(self.label, Label) else None

    @property
    def separator(self) -> str | None:
        """What stands between the labels in a text, or None."""
        return self.label.separator if isinstance(self.label, Label) else None

    @property
    def ignores_missing(self) -> bool:
        """Whether a row may have no label."""
        return isinstance(self.label, Label) and self.label.missing == "ignore"

    def with_form(self, form: str) -> Self:
        """The same section, which says how the label column is to be read."""
        label = self.label if isinstance(self.label, Label) else Label(column=self.label)
        return self.model_copy(update={"label": label.model_copy(update={"form": form})})

    @property
    def traits(self) -> Kind:
        """What is known of its kind."""
        return kind_of(self.kind)

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The columns that a model reads, each once."""
        named = (_as_tuple(getattr(self, name)) or () for name in self.traits.inputs)
        return tuple(dict.fromkeys(column for columns in named for column in columns))

    @model_validator(mode="wrap")
    @classmethod
    def _with_fields_of_the_kind(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Fill in what only this kind reads, so that the resolved recipe says it; take the fields of a kind of your own."""
        if not isinstance(data, dict):
            return handler(data)
        name = data.get("kind", DEFAULT)
        kind = find_kind(name)
        if kind is None and isinstance(name, str) and is_reference(name):  # which fields it has, only it could say
            return handler({key: value for key, value in data.items() if key in cls.model_fields})
        fields = kind.fields if kind else {}
        filled = {**data, **{key: value for key, value in fields.items() if data.get(key) is None}}
        own = {key: value for key, value in fields.items() if key not in cls.model_fields}
        return cast(Self, _task_with(own).model_validate(filled)) if own else handler(filled)

    @model_validator(mode="after")
    def _fields_of_the_kind(self) -> Self:
        """Refuse fields that this kind of task does not read, and a shape that it does not have."""
        own = self.traits
        for kind, other in KINDS.items():
            idle = [field for field in other.fields if field not in own.fields and getattr(self, field) is not None]
            if idle:
                raise PydanticCustomError("idle", "`{field}` does nothing with kind: {kind}; it belongs to {other}",
                                          {"field": idle[0], "kind": self.kind, "other": kind})  # fmt: skip
        if len(self.text) not in own.text_columns:
            raise PydanticCustomError(
                "idle", "`text` of {kind} is {wanted}", {"kind": self.kind, "wanted": own.text_is}
            )
        if len(self.label_columns) > 1 and not own.several_labels:
            takers = " or ".join(name for name, kind in KINDS.items() if kind.several_labels)
            raise PydanticCustomError("idle", "several label columns need kind: {takers}", {"takers": takers})
        for field, what in own.required.items():
            if getattr(self, field) is None:
                raise PydanticCustomError("idle", "`{field}` is missing: {what}", {"field": field, "what": what})
        self._require_label_of_the_kind(own)
        if self.names is not None and not (own.has_classes or own.forms):
            raise PydanticCustomError("idle", "`names` are of classes, and {kind} has none", {"kind": self.kind})
        if isinstance(self.names, tuple) and (twice := [one for one in self.names if self.names.count(one) > 1]):
            raise PydanticCustomError("idle", "`names` has {name} twice; a mapping says that several values mean one class",
                                      {"name": repr(twice[0])})  # fmt: skip
        return self

    def _require_label_of_the_kind(self, own: Kind) -> None:
        """Refuse ways to say a label that this kind of task does not have, or that exclude each other."""
        what = {"kind": self.kind, "form": self.form, "forms": " or ".join(own.forms) or "none"}
        if self.form is not None and self.form not in own.forms:
            raise PydanticCustomError(
                "idle", "`label.form` {form} does nothing with kind: {kind}; it has {forms}", what
            )
        if self.separator is not None and not own.several_labels:
            takers = " or ".join(name for name, kind in KINDS.items() if kind.several_labels)
            raise PydanticCustomError("idle", "`label.separator` needs kind: {takers}", {"takers": takers})
        if self.ignores_missing and not (own.has_classes or own.forms):
            raise PydanticCustomError("idle", "`label.missing` is for classes and choices, and {kind} has none", what)
        if len(self.label_columns) > 1 and (
            self.names is not None or self.form is not None or self.separator is not None
        ):
            raise PydanticCustomError(
                "idle", "several label columns are a class each: leave names, form and separator out"
            )
        if self.form is not None and self.names is not None and not own.has_classes:
            raise PydanticCustomError("idle", "`label.names` says what each value means: leave `form` out")


def _task_with(fields: Mapping[str, Any]) -> type[Task]:
    """The section with further fields, each of the type of its default."""
    types: dict[str, Any] = {
        name: (Any if default is None else type(default), default) for name, default in fields.items()
    }
    made: type[Task] = create_model("Task", __base__=Task, __doc__=Task.__doc__, **types)
    return made


class Model(Section):
    """The checkpoint to start from."""

    checkpoint: str = Field(min_length=1)
    """Hub id, local folder (`./x`, `/x`, `~/x`), or `embedded:NAME`."""
    revision: str | None = None
    """Commit, branch or tag on the Hub; null takes the newest and records its commit."""
    max_length: Count | None = None
    """Longest input, in tokens; longer ones are cut. Never more than the model can take; null means that bound."""
    architecture: Reference | None = None
    """`module:attribute` of a class of models of your own, in place of the one that transformers chooses. A subclass of one
    of transformers' models is loaded with the weights of the checkpoint. Anything else is called without arguments, makes a
    `torch.nn.Module`, and begins fresh; the checkpoint then gives the tokenizer."""
    collate: Reference | None = None
    """`module:attribute` of a function of your own that makes a batch of a list of encoded rows, in place of padding them."""
    fresh: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = ()
    """Weights (by the start of their name) that may begin freshly initialised although the checkpoint should have
    them; a classification head that the checkpoint lacks needs no mention."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Changes to the checkpoint's own configuration, by its names (`hidden_dropout_prob: 0.0`)."""

    @field_validator("config")
    @classmethod
    def _classes_come_from_the_data(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Refuse what the data decide: a head of another size would train without a word."""
        for name in ("num_labels", "id2label", "label2id", "problem_type"):
            if name in value:
                raise PydanticCustomError(
                    "idle",
                    "`{name}` comes from the data, and can't be set; declare the classes with task.label: {column: label, "
                    "names: [...]}",
                    {"name": name},
                )
        return value


class Loss(NamedPart):
    """The loss of one item, and how items' losses become what is differentiated."""

    name: str = ""
    """A loss of hfpipe, or `module:attribute` of a function `(logits, targets) -> [items]`; by default cross_entropy,
    mse for regression and bce_with_logits for several classes an example. Its own arguments stand beside the name
    (`gamma: 2.0`)."""
    reduction: Literal["none", "mean", "sum"] = "mean"
    """mean: divided by the items of the whole update; sum: not divided; none: a vector, summed for backward."""
    label_smoothing: Annotated[Finite, Field(ge=0, lt=1)] = 0.0
    """Share of the target spread evenly over all classes, 0 to 1."""
    class_weights: Literal["balanced"] | dict[str, Finite] | list[Finite] | None = None
    """A weight for each class: `balanced`, `{effective_number: 0.999}`, a list in the order of the classes, or by their
    names (`{spam: 5.0}`; a class that is not named weighs 1)."""

    @property
    def counts_classes(self) -> bool:
        """Whether the weights are made of how often each class is a label."""
        weights = self.class_weights
        return weights == "balanced" or (isinstance(weights, dict) and set(weights) == {"effective_number"})


class Optimizer(NamedPart):
    """What changes the weights."""

    name: str = "adamw"
    """An optimizer of torch.optim, an updater of hfpipe, or `module:attribute`. Its own arguments stand beside it."""
    lr: Annotated[Finite, Field(ge=0, le=1000)] = 2e-5
    """Peak learning rate, per step."""
    allow_zero_lr: bool = False
    """Allow `lr: 0`, with which no step changes the weights."""
    weight_decay: Annotated[Finite, Field(ge=0)] = 0.0
    """Weight decay, per step; never on biases and norms."""

    @model_validator(mode="after")
    def _something_is_learned(self) -> Self:
        """Refuse a rate that changes no weight, unless that is meant."""
        if self.lr == 0 and not self.allow_zero_lr:
            raise PydanticCustomError(
                "idle",
                "`lr` is 0: no step would change the weights; if that is meant, say optimizer.allow_zero_lr: true",
            )
        return self


class Schedule(NamedPart):
    """The learning rate over the steps of the run."""

    name: str = "linear"
    """A schedule of transformers, `reduce_lr_on_plateau`, or `module:attribute`. Its own arguments stand beside it."""
    warmup: Annotated[Finite, Field(ge=0)] = 0.0
    """Warm-up: below 1 a share of all steps, from 1 on a number of steps."""


class Batching(Section):
    """Which rows make an update. Whatever is chosen, the rows of an update are divided by their own number of items."""

    by: Literal["examples", "tokens"] = "examples"
    """`examples`: `batch_size` of them in a micro-batch; `tokens`: as many as fit into a number of tokens, padding
    included, so that batches of short texts have more of them."""
    tokens: Count | None = None
    """Tokens of an update for each of its micro-batches on each process; its rows are shared out among those evenly. null
    takes `batch_size` times the mean length of the training rows."""
    bucket: bool = False
    """Put rows of similar length together, which leaves little padding: 50 updates of shuffled rows are sorted at a time
    (by tokens all rows), and the updates shuffled again."""

    @model_validator(mode="after")
    def _tokens_are_counted(self) -> Self:
        """Refuse a number of tokens where examples are counted."""
        if self.tokens is not None and self.by == "examples":
            raise PydanticCustomError("idle", "`tokens` does nothing with by: examples")
        return self


class Train(Section):
    """The training itself."""

    epochs: Positive = 3
    """Passes over the training split; a fraction stops inside the last one."""
    max_steps: Count | None = None
    """Stop after this many steps, whatever `epochs` says."""
    batch_size: Count = 32
    """Examples in a micro-batch, on each process."""
    accumulate: Count = 1
    """Micro-batches in one update, on each process."""
    batching: Batching = Batching()
    """Which rows make an update."""
    max_grad_norm: Positive | None = 1.0
    """Longest gradient of the mean loss, as an L2 norm; longer ones are scaled down. null never clips."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: bf16 where the device computes it natively, fp16 on older GPUs, else fp32. The run says which and why."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that load batches; 0 loads them in the training process."""
    deterministic: bool = False
    """Keep to algorithms that always sum in one order, and stop at an operation that has none. On a GPU that is slower; on
    a CPU the numbers repeat anyway, for one number of threads."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass, to save memory."""
    kernels: Literal["torch", "fast"] = "torch"
    """fast: on a CPU, attention of up to 512 tokens and dropout are computed by hfpipe, the same functions with other
    rounding and other random masks; on a GPU nothing is changed."""
    compile: bool = False
    """Compile the model with torch.compile, once for all lengths, before the first step. It takes up to some minutes, and
    needs a C++ compiler on a CPU; `scripts/bench_speed.py --compile` says whether it pays."""
    fit_memory: bool = False
    """Out of memory: halve `batch_size` (or `batching.tokens`), raise `accumulate` as much, and go on from the newest
    checkpoint, or from the beginning. The update is the same; the run says so. Several processes try the largest
    micro-batch before the first update, and agree on one that fits all of them."""
    tolerate_nonfinite: Annotated[int, Field(ge=0)] = 0
    """Steps whose loss or gradient is not finite that are left out before the run is stopped. Steps in which the fp16
    scaler looks for its scale do not count."""

    @model_validator(mode="after")
    def _one_way_to_compute(self) -> Self:
        """Refuse to compile what is written to do without a compiler."""
        if self.compile and self.kernels == "fast":
            raise PydanticCustomError("idle", "`compile` and `kernels: fast` exclude each other; take one of the two")
        return self


class Evaluate(Section):
    """The measuring during training."""

    every: Literal["epoch", "never"] | Count = "epoch"
    """`epoch`, a number of steps, or `never` (then only once, at the end)."""
    batch_size: Count = 64
    """Examples of mean length in an evaluation batch, on each process: there are more of short ones in a batch, and fewer
    of long ones. It changes no metric."""
    metrics: Annotated[tuple[str | dict[str, Any], ...], BeforeValidator(_as_tuple)] = ()
    """Metrics by name (`accuracy`, `f1`, `glue/mrpc`), with arguments as `{name: f1, average: macro}`; `module:attribute`;
    or `evaluate:NAME` for one from the Hub. By default accuracy; mse for regression, multi_label for several classes an
    example, seqeval for tokens, squad for question answering."""
    best: str | None = None
    """The metric by which the best checkpoint is chosen (`f1`, `f1_macro`, `loss`); null keeps the last one."""
    greater_is_better: bool | None = None
    """Whether a greater `best` is better; needed only for a metric that hfpipe does not know."""
    patience: Count | None = None
    """Stop after this many evaluations in a row that did not improve `best`; a tie or an undefined metric is no
    improvement. null trains to the end."""
    min_improvement: Annotated[Finite, Field(ge=0)] = 0.0
    """Only an improvement by more than this counts for `patience`, in the unit of `best`. Which checkpoint is the best is
    decided without it."""
    calibrate: Literal["temperature"] | None = None
    """`temperature`: divide the logits by the one number that makes the probabilities of `dataset.splits.calibration`
    most likely. No class changes places; it is kept in the model's config, so that predict uses it."""
    threshold: Literal["f1"] | None = None
    """`f1`: the decision threshold that maximises F1 on `dataset.splits.calibration`, in place of 1/2: of class 1 of two, or
    of each class where an example has several. It is kept in the model's config too."""
    mistakes: Annotated[int, Field(ge=0)] = 0
    """Keep the texts of so many mistakes, those that the model is most certain of, for `report.html` and
    `evaluations/*.examples.jsonl`. With 0 no text of the data is kept, and ten of them are listed by row and class."""
    slices: Annotated[tuple[str | dict[str, Any], ...], BeforeValidator(_as_tuple)] = ()
    """Parts of a split that are measured by themselves at the end: by the values of a column (`genre`), by the length in
    tokens (`length` for its quarters, `{length: [32, 64]}` for up to 32, up to 64, and more), or by an expression over the
    columns and `length` (`{name: short, where: "len(sentence1) < 40"}`)."""

    @model_validator(mode="before")
    @classmethod
    def _best_by_its_whole_name(cls, data: Any) -> Any:
        """`best: f1` means `f1_macro` where that is the one F1 among the metrics."""
        best, metrics = (data.get("best"), data.get("metrics")) if isinstance(data, dict) else (None, None)
        if not isinstance(metrics, list | tuple) or best not in ("f1", "precision", "recall"):
            return data
        averages = [
            one.get("average", "binary") for one in metrics if isinstance(one, dict) and one.get("name") == best
        ]
        if len(averages) == 1 and averages[0] != "binary" and best not in metrics:
            return {**data, "best": f"{best}_{averages[0]}"}
        return data

    @field_validator("slices")
    @classmethod
    def _slices_that_can_be_cut(cls, value: tuple[str | dict[str, Any], ...]) -> tuple[str | dict[str, Any], ...]:
        """Refuse what is no column, no lengths and no expression."""
        for one in value:
            if isinstance(one, str):
                continue
            edges = one.get("length")
            is_lengths = set(one) == {"length"} and isinstance(edges, list) and all(type(edge) is int for edge in edges)
            if is_lengths and edges and edges == sorted(set(edges)) and edges[0] > 0:
                continue
            if set(one) == {"name", "where"} and all(isinstance(part, str) and part for part in one.values()):
                continue
            raise ValueError("a column, {length: [32, 64]} in rising order, or {name: ..., where: an expression}")
        return value

    @model_validator(mode="after")
    def _patience_has_what_it_waits_for(self) -> Self:
        """Refuse a patience without a metric or evaluations, and a least improvement that nothing waits for."""
        if self.patience is None:
            if self.min_improvement:
                raise PydanticCustomError("idle", "`min_improvement` does nothing without `patience`")
        elif self.best is None:
            raise PydanticCustomError(
                "idle", "`patience` waits for a better `best`, and none is named; say best: loss, or another metric"
            )
        elif self.every == "never":
            raise PydanticCustomError(
                "idle",
                "`patience` counts the evaluations during training, and every: never has none; say every: epoch, or a "
                "number of steps",
            )
        return self


class Checkpoints(Section):
    """What is kept on disk."""

    every: Literal["epoch", "never"] = "epoch"
    """`epoch` or `never`."""
    every_steps: Count | None = None
    """Save after every so many steps as well; null for no such rhythm."""
    every_minutes: Positive | None = None
    """Save when the last save is so many minutes ago as well; null for no such rhythm."""
    keep_last: Count = 2
    """How many of the newest checkpoints are kept."""
    keep_best: bool = True
    """Keep the best checkpoint by `evaluate.best` too, and end with its weights."""
    keep_state: bool = False
    """Keep what optimizer, schedule and random generators remember when the run is finished, so that it can be trained
    further exactly. Without it only the weights stay then, a third of the size with AdamW; until then nothing goes."""


Tracker = Literal["trackio", "tensorboard", "wandb", "mlflow"]


class Recipe(Section):
    """What to fine-tune and how: frozen data, from YAML and back to YAML."""

    name: str = Field(default="run", pattern=NAME_PATTERN)
    """Short name; runs are called after it. Lower-case letters, digits, `.`, `_` and `-`."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Seed of the fresh weights, of the order of the examples and of dropout."""
    dataset: Dataset = Dataset()
    """The raw data set."""
    task: SerializeAsAny[Task]
    """What is learned from which columns."""
    model: Model
    """The checkpoint to start from."""
    loss: Loss = Loss()
    """The loss of one item, and its reduction."""
    optimizer: Optimizer = Optimizer()
    """What changes the weights."""
    schedule: Schedule = Schedule()
    """The learning rate over the steps."""
    train: Train = Train()
    """The training itself."""
    evaluate: Evaluate = Evaluate()
    """The measuring during training."""
    checkpoints: Checkpoints = Checkpoints()
    """What is kept on disk."""
    engine: str = "trainer"
    """`trainer` (transformers' Trainer), `loop` (plain PyTorch under Accelerate), or `module:attribute` of your own."""
    allow_code: bool = False
    """Allow what runs code that comes with neither hfpipe nor an installed package: a metric script from a file, or from
    the Hub at the commit that its `revision` names."""
    tracking: Annotated[tuple[Tracker, ...], BeforeValidator(_as_tuple)] = ()
    """Trackers that receive every step and evaluation, the same from both engines: `trackio`, `tensorboard`, `wandb`,
    `mlflow`. What they write is under `tracking/` in the run folder."""
    trainer: dict[str, Any] = Field(default_factory=dict)
    """Anything else that transformers' TrainingArguments takes, by its own name; read by the trainer engine only."""

    _positions: dict[tuple[str, ...], str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_task(cls, data: Any) -> Any:
        """Fill in what depends on the kind of task, so that the resolved recipe says it."""
        if not isinstance(data, dict):
            return data
        kind = kind_in(data)
        data = dict(data)
        loss = data.get("loss", {})
        if isinstance(loss, dict) and not loss.get("name"):
            data["loss"] = {**loss, "name": kind.loss}
        evaluate = data.get("evaluate", {})
        if isinstance(evaluate, dict) and not evaluate.get("metrics"):
            data["evaluate"] = {**evaluate, "metrics": [kind.metric]}
        return data

    @model_validator(mode="after")
    def _one_meaning(self) -> Self:
        """Refuse fields that would do nothing."""
        if self.dataset.streaming:
            self._require_streamable()
        elif self.dataset.shuffle_buffer != 10_000:
            raise PydanticCustomError("idle", "`dataset.shuffle_buffer` does nothing without `dataset.streaming`")
        if self.dataset.splits.stratify and not self.task.traits.one_class_a_row:
            raise PydanticCustomError(
                "idle", "`dataset.splits.stratify` needs one class a row, and {kind} has none", {"kind": self.task.kind}
            )
        if not self.task.traits.has_numbers and (self.dataset.decimal != "." or self.dataset.thousands is not None):
            raise PydanticCustomError(
                "idle",
                "`dataset.{field}` says how numbers are written, and {kind} learns none",
                {"field": "decimal" if self.dataset.decimal != "." else "thousands", "kind": self.task.kind},
            )
        self._require_calibratable()
        if self.evaluate.patience is not None and self.dataset.splits.evaluation is None:
            raise PydanticCustomError(
                "idle", "`evaluate.patience` counts evaluations, and `dataset.splits.evaluation` is null"
            )
        if len(set(self.tracking)) < len(self.tracking):
            raise PydanticCustomError("idle", "`tracking` names a tracker twice")
        if self.trainer and self.engine == "loop":
            raise PydanticCustomError("idle", "`trainer` options do nothing with engine: loop; remove them")
        self._require_loss_of_the_kind()
        return self

    def _require_loss_of_the_kind(self) -> None:
        """Refuse a loss, or a field of it, that means nothing to this kind of task."""
        kind, named = self.task.traits, {"kind": self.task.kind}
        given = {
            "class_weights": self.loss.class_weights is not None,
            "label_smoothing": bool(self.loss.label_smoothing),
        }
        for field, is_given in given.items():
            if is_given and field in kind.refuses:
                raise PydanticCustomError("idle", "{why}", {"why": kind.refuses[field].format(**named)})
        if kind.losses and ":" not in self.loss.name and self.loss.name not in kind.losses:
            *others, last = kind.losses
            taken = f"{', '.join(others)} or {last}" if others else last
            why = f"loss {self.loss.name} {kind.losses_because}; {self.task.kind} takes {taken}"
            raise PydanticCustomError("idle", "{why}", {"why": why})

    def _require_calibratable(self) -> None:
        """Refuse a calibration without rows of its own, rows without a calibration, and a task that has none."""
        asked = [name for name in ("calibrate", "threshold") if getattr(self.evaluate, name) is not None]
        splits = self.dataset.splits
        if not asked:
            if splits.calibration is not None:
                raise PydanticCustomError(
                    "idle",
                    "`dataset.splits.calibration` does nothing without `evaluate.calibrate` or `evaluate.threshold`",
                )
            return
        if not self.task.traits.calibratable:
            raise PydanticCustomError("idle", "`evaluate.{field}` is for classes of a text, and {kind} has none",
                                      {"field": asked[0], "kind": self.task.kind})  # fmt: skip
        if splits.calibration is None:
            raise PydanticCustomError(
                "idle",
                "`evaluate.{field}` is fitted on rows that are measured nowhere else: name them with "
                "`dataset.splits.calibration`, such as validation[:50%] beside evaluation: validation[50%:]",
                {"field": asked[0]},
            )
        if splits.calibration in (splits.train, splits.evaluation, *splits.also):
            raise PydanticCustomError(
                "idle", "`dataset.splits.calibration` is {split}, which is trained on or measured: take other rows",
                {"split": splits.calibration},
            )  # fmt: skip

    def _require_streamable(self) -> None:
        """Refuse what only a split that is there as a whole can give."""
        problems = {
            "`train.max_steps` is missing: a stream has no length": self.train.max_steps is None,
            "`dataset.splits.hold_out` needs the whole split": self.dataset.splits.hold_out is not None,
            "`loss.class_weights` that are counted need the whole split; give them as a list": self.loss.counts_classes,
            "`train.workers` above 1 would each read the whole stream": self.train.workers > 1,
            "`train.batching` needs the lengths of all rows": self.train.batching != Batching(),
        }
        for problem in (text for text, holds in problems.items() if holds):
            raise PydanticCustomError("idle", "{problem} (dataset.streaming)", {"problem": problem})

    def require_data_named(self) -> None:
        """Refuse a recipe that leaves its data to be passed from Python.

        Raises:
            RecipeError: saying so.
        """
        if self.dataset.path == GIVEN:
            raise RecipeError(
                "missing",
                where=self.where("dataset.path"),
                fix="Name the data: dataset.path=..., or pass them from Python: dataset=...",
            )

    def __eq__(self, other: object) -> bool:
        """Recipes are equal when their fields are, wherever these were written."""
        return isinstance(other, Recipe) and self.model_dump() == other.model_dump()

    def where(self, path: str) -> str:
        """Say where a dotted path of the recipe was written: file:line:column: path, or the path alone."""
        pieces = tuple(path.split("."))
        for end in range(len(pieces), 0, -1):
            if pieces[:end] in self._positions:
                return f"{self._positions[pieces[:end]]}: {path}"
        return path


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a recipe file, for editors: with `extends`, and one text wherever a list of texts may stand."""
    schema = Recipe.model_json_schema()
    schema["properties"]["extends"] = {"type": "string", "description": "Another recipe to take as the base."}
    schema.pop("required", None)  # what is missing here may come from the extended recipe
    for section, field in (
        ("Task", "text"),
        ("Task", "choices"),
        ("Model", "fresh"),
        ("Evaluate", "metrics"),
        ("Evaluate", "slices"),
    ):
        listed = schema["$defs"][section]["properties"][field]
        about = {key: listed.pop(key) for key in ("description", "default", "title") if key in listed}
        schema["$defs"][section]["properties"][field] = {"anyOf": [{"type": "string"}, listed], **about}
    task = schema["$defs"]["Task"]
    del task["additionalProperties"]  # a kind of your own may have more fields
    task["if"] = {"properties": {"kind": {"enum": list(KINDS)}}}
    task["then"] = {"propertyNames": {"enum": list(task["properties"])}}
    listed = schema["properties"]["tracking"]
    about = {key: listed.pop(key) for key in ("description", "default", "title")}
    schema["properties"]["tracking"] = {"anyOf": [listed["items"], listed], **about}
    return schema
