"""A span of the context that answers a question, as in SQuAD: `question-answering`.

A long context is read through windows that overlap, each of them an encoded row of its own; all windows are kept, in
training and in evaluation. A window has two items, the start and the end of the answer among its tokens. Where it does
not hold the answer, both are the [CLS] token, and so they are where a question has none.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from scipy.special import softmax
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from hfpipe.errors import DataError, ModelError, RecipeError
from hfpipe.parts.data import columns
from hfpipe.parts.metrics.squad import normalized
from hfpipe.parts.tasks import findings
from hfpipe.parts.tasks.plain_text import tokens_of
from hfpipe.parts.tasks.text import Lines, text_inputs
from hfpipe.parts.tasks.tokenizer import lengths, load_tokenizer
from hfpipe.recipe import schema
from hfpipe.recipe.kinds import KINDS

Array = np.ndarray[Any, Any]
_NO_CONTEXT, _CLS = -1, -2  # in `offsets`: a token outside the context, and the one that stands for no answer
_SHAPE = "{text: [...], answer_start: [...]} or [{text: ..., answer_start: ...}, ...], as in SQuAD"
_SHOWN = 60  # characters of a text in an error
_BATCH = 1000  # contexts that are looked at together


class _Span(NamedTuple):
    """A part of a context: the sum of its two logits, and its first and one past its last character."""

    score: float
    start: int
    end: int


class _Answer(NamedTuple):
    """What is predicted for a row; without an answer the text is empty and stands nowhere."""

    text: str
    start: int | None
    end: int | None
    probability: float
    no_answer_probability: float


_MOST_CONSTANTS = 3  # answers that a baseline may give to all questions


@dataclass(frozen=True)
class QuestionTask:
    """The answer to a question within a context.

    Attributes:
        text: the columns of the question and of the context.
        label: the column of the answers.
        stride: tokens that neighbouring windows share. An answer of no more than one token above that is whole in some
            window.
        max_answer_length: of a predicted answer, in tokens.
        n_best: starts and ends of each window that are combined, and spans of each row that share the probability.
        unanswerable: whether a question may have no answer; then the empty one competes with the spans.
    """

    text: tuple[str, ...]
    label: str
    stride: int
    max_answer_length: int = field(repr=False)  # the text of a task is part of the key of its tokens
    n_best: int = field(repr=False)
    unanswerable: bool = field(repr=False)

    kind = KINDS["question-answering"]
    auto_model = "AutoModelForQuestionAnswering"
    names = ()
    num_labels = 2  # of each token: that it is the start, and that it is the end
    problem_type = None
    scheme = calibration = None

    load_processor = staticmethod(load_tokenizer)
    lengths = staticmethod(lengths)

    @classmethod
    def make(cls, spec: schema.Task, rows: datasets.Dataset, title: str, where: str) -> QuestionTask:
        """The task of these rows, which say whether a question may have no answer.

        Raises:
            DataError: a missing column, or answers of another shape than SQuAD's.
        """
        label = spec.label_columns[0]
        columns.require_columns(rows, (*spec.text, label), title, where)
        texts, _ = _lists(columns.column(rows, label), label, title, where)
        return cls._of(spec, unanswerable=bool(pc.any(pc.equal(pc.list_value_length(texts), 0)).as_py()))

    @classmethod
    def from_head(cls, spec: schema.Task, names: tuple[str, ...]) -> QuestionTask:
        """The task of a trained head, which does not say what it was trained on: an empty answer may score best."""
        return cls._of(spec, unanswerable=True)

    @classmethod
    def _of(cls, spec: schema.Task, *, unanswerable: bool) -> QuestionTask:
        assert spec.stride is not None
        assert spec.max_answer_length is not None
        assert spec.n_best is not None
        return cls(spec.text, spec.label_columns[0], spec.stride, spec.max_answer_length, spec.n_best, unanswerable)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read: question, context and answers."""
        return (*self.text, self.label)

    def check(self, rows: datasets.Dataset, split: str, where: str, *, labelled: bool = True) -> None:
        """Refuse rows that would train or measure something wrong.

        Raises:
            DataError: naming the split and the first rows: missing columns, texts that are no text, answers of another
                shape, and answers that do not stand where they say. With `labelled` false only the texts are looked at.
        """
        columns.require_columns(rows, self.columns if labelled else self.text, split, where)
        for name in self.text:
            columns.require_text(rows, name, split, where)
        if labelled:
            _require_answers(rows, self.text[1], self.label, split, where)

    def encode(
        self, batch: Mapping[str, Sequence[Any]], tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool
    ) -> dict[str, Any]:
        """The windows of a batch of rows.

        Only the context is cut. A tokenizer that pads on the left gets the context first, as in transformers' examples.

        Returns:
            What the model reads; `row`, the number of the raw row; `offsets`, for each token its first and one past its
            last character in the context, -1 outside the context and -2 for the [CLS] token, `[length, 2]`; and
            `labels`, the tokens where the first of the row's answers starts and ends, both counted in.

        Raises:
            ModelError: a tokenizer that does not say where its tokens stand, or that has no [CLS] token.
            RecipeError: a question so long that its windows would not move on.
        """
        if not tokenizer.is_fast or tokenizer.cls_token_id is None:
            lacks = "has no [CLS] token" if tokenizer.is_fast else "does not say where its tokens stand in the text"
            raise ModelError(
                f"{type(tokenizer).__name__} {lacks}, and question answering needs that",
                fix="Take a checkpoint with a fast tokenizer that has one, such as BERT's or RoBERTa's.",
            )
        questions = [question.lstrip() for question in batch[self.text[0]]]
        contexts = list(batch[self.text[1]])
        numbers = batch.get(columns.ROW, range(len(contexts)))
        self._require_room(questions, contexts, numbers, tokenizer, max_length)
        context_at = 0 if tokenizer.padding_side == "left" else 1
        pair = (questions, contexts) if context_at else (contexts, questions)
        encoded = tokens_of(
            tokenizer,
            *pair,
            numbers=numbers,
            truncation="only_second" if context_at else "only_first",
            max_length=max_length,
            stride=self.stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_attention_mask=True,
        )
        row_of, offsets_of = encoded.pop("overflow_to_sample_mapping"), encoded.pop("offset_mapping")
        offsets, labels = [], []
        answers = [_first_answer(one) for one in batch[self.label]] if labelled else []
        for window, row in enumerate(row_of):
            cls = encoded["input_ids"][window].index(tokenizer.cls_token_id)
            inside = np.array([one == context_at for one in encoded.sequence_ids(window)])
            spans = np.where(inside[:, None], np.array(offsets_of[window], np.int32), np.int32(_NO_CONTEXT))
            spans[cls] = _CLS
            offsets.append(spans)
            if labelled:
                labels.append(_tokens_of(answers[row], spans) or [cls, cls])
        found = {**encoded, "row": [numbers[row] for row in row_of], "offsets": offsets}
        return {**found, "labels": labels} if labelled else found

    def _require_room(
        self,
        questions: list[str],
        contexts: list[str],
        numbers: Sequence[int],
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
    ) -> None:
        """Refuse a question that leaves a long context no more room than windows share: they would not move on."""
        special = tokenizer.num_special_tokens_to_add(pair=True)
        tokens = [len(ids) for ids in tokens_of(tokenizer, questions, add_special_tokens=False)["input_ids"]]
        for row, count in enumerate(tokens):
            room = max_length - special - count
            whole = max_length - special > self.stride and room > 0
            if room > self.stride or (
                whole and len(tokens_of(tokenizer, [contexts[row]], add_special_tokens=False)["input_ids"][0]) <= room
            ):
                continue
            raise RecipeError(
                f"the question of row {numbers[row]} has {count} tokens, and with {special} special ones leaves room for "
                f"{max(room, 0)} of the context in a window of {max_length}, while windows share {self.stride}",
                where="task.stride",
                allowed=f"less than {room}" if room > 0 else "no stride, with so long a question",
                fix="Lower task.stride, raise model.max_length, or drop the row.",
            )

    def collator(self, tokenizer: PreTrainedTokenizerBase, multiple: int | None = None) -> Any:
        """Pads to the longest window of a batch, on the right whatever the tokenizer's side: labels count tokens."""
        tokenizer = copy.copy(tokenizer)
        tokenizer.padding_side = "right"
        return DataCollatorWithPadding(tokenizer, pad_to_multiple_of=multiple)

    def unpad_logits(self, logits: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> list[Array]:
        """The logits of a batch, `[batch, 2, length]`, without padding: `[2, own length]` a window."""
        lengths = batch["attention_mask"].sum(dim=1).tolist()
        return [one[:, :length] for one, length in zip(logits.cpu().numpy(), lengths, strict=True)]

    def decode(
        self, logits: Sequence[Array], encoded: datasets.Dataset, rows: datasets.Dataset
    ) -> tuple[Array, Array | None]:
        """The best answer of each raw row over all of its windows, and the answers that it has.

        In each window the `n_best` starts and ends among the tokens of the context are combined, and the score of a
        span is the sum of its two logits. Without an answer scores what [CLS] does in the window where it scores least;
        it is predicted where that is more than the best span, and questions may have none. A row without any span of an
        allowed length has no answer either. Source: transformers' examples/pytorch/question-answering.

        Returns:
            Dicts of `prediction_text` and `no_answer_probability`, and dicts of `answers` (`text` and `answer_start`),
            as the squad metric takes them; both `[rows]`.
        """
        predictions = [
            {"prediction_text": answer.text, "no_answer_probability": answer.no_answer_probability}
            for answer in self._answers(logits, encoded, rows)
        ]
        if "labels" not in encoded.column_names:
            return _objects(predictions), None
        pairs = [_texts_and_starts(one) for one in _values(columns.column(rows, self.label))]
        references = [{"answers": {"text": list(texts), "answer_start": list(starts)}} for texts, starts in pairs]
        return _objects(predictions), _objects(references)

    def dummy_predictions(self) -> tuple[Array, Array]:
        """Two predictions and their answers, to try a metric on; one without an answer where there are such."""
        answers = [("here", [0]), ("", []) if self.unanswerable else ("there", [5])]
        predictions = [{"prediction_text": text, "no_answer_probability": 0.0} for text, _ in answers]
        references = [{"answers": {"text": [text] * len(at), "answer_start": at}} for text, at in answers]
        return _objects(predictions), _objects(references)

    def format_predictions(
        self, logits: Sequence[Array], encoded: datasets.Dataset, rows: datasets.Dataset
    ) -> list[dict[str, Any]]:
        """For each row its `answer`, the `score` (its share of the probability), and its `start` and `end` character.

        Without an answer that is an empty text, and no characters.
        """
        return [
            {"answer": one.text, "score": one.probability, "start": one.start, "end": one.end}
            for one in self._answers(logits, encoded, rows)
        ]

    def probabilities(self, logits: Sequence[Array]) -> None:
        """The positions of a context are no classes."""

    def constant_predictions(self, references: Array) -> list[tuple[str, Array]]:
        """The answers that most questions have, and no answer, where some question has none."""
        counted = Counter(text for one in references for text in set(map(normalized, one["answers"]["text"])))
        found = {f"always the answer {_cut(text)!r}": text for text, _ in counted.most_common(_MOST_CONSTANTS) if text}
        if not all(one["answers"]["text"] for one in references):
            found = {"never an answer": "", **found}
        return [
            (
                words,
                _objects([{"prediction_text": text, "no_answer_probability": float(not text)} for _ in references]),
            )
            for words, text in found.items()
        ]

    def degenerate(self, predictions: Array) -> str | None:
        """Whether no question is answered."""
        return None if any(one["prediction_text"] for one in predictions) else "the model answers no question"

    def findings(self, scored: findings.Scored) -> dict[str, Any]:
        """Nothing but the metrics."""
        return {}

    @staticmethod
    def example(columns: Sequence[str], options: str) -> Lines:
        """A question, and the tokens of its answer."""
        return text_inputs(columns, options, ("A question?", "The text with its answer.")), [
            "start, end = outputs.start_logits.argmax(), outputs.end_logits.argmax()",
            'print(tokenizer.decode(inputs["input_ids"][0][start : end + 1]))',
        ]

    def _answers(self, logits: Sequence[Array], encoded: datasets.Dataset, rows: datasets.Dataset) -> Iterator[_Answer]:
        """The answer of each raw row."""
        spans: list[dict[tuple[int, int], float]] = [{} for _ in range(len(rows))]
        nothing = np.full(len(rows), np.inf)
        numbers = columns.column(encoded, "row").to_pylist()
        for row, offsets, scores in zip(numbers, _offsets(encoded), logits, strict=True):
            nothing[row] = min(nothing[row], float(scores[:, offsets[:, 0] == _CLS].sum()))
            for span in self._best_spans(scores, offsets):
                place = (span.start, span.end)
                spans[row][place] = max(span.score, spans[row].get(place, -np.inf))
        for context, found, none in zip(_values(columns.column(rows, self.text[1])), spans, nothing, strict=True):
            ordered = sorted((_Span(score, *place) for place, score in found.items()), key=lambda one: -one.score)
            yield self._best(context, ordered[: self.n_best], float(none))

    def _best_spans(self, logits: Array, offsets: Array) -> list[_Span]:
        """The best spans of one window, from its best starts and ends: logits `[2, length]`, offsets `[length, 2]`."""
        inside = np.flatnonzero(offsets[:, 1] > offsets[:, 0])
        ordered = np.argsort(-logits[:, inside], axis=1, kind="stable")[:, : self.n_best]
        starts, ends = inside[ordered]
        tokens = ends[None, :] - starts[:, None] + 1  # [starts, ends]
        first, last = np.nonzero((tokens >= 1) & (tokens <= self.max_answer_length))
        starts, ends = starts[first], ends[last]
        scores = logits[0, starts].astype(float) + logits[1, ends]
        best = np.argsort(-scores, kind="stable")[: self.n_best]
        places = zip(scores[best], offsets[starts[best], 0], offsets[ends[best], 1], strict=True)
        return [_Span(float(score), int(start), int(end)) for score, start, end in places]

    def _best(self, context: str, spans: list[_Span], nothing: float) -> _Answer:
        """The best of a row's spans, the first being the greatest, or no answer."""
        competes = self.unanswerable or not spans
        share = softmax([span.score for span in spans] + [nothing] * competes)
        none = float(share[-1]) if competes else 0.0
        if competes and (not spans or nothing > spans[0].score):
            return _Answer("", None, None, none, none)
        _, start, end = spans[0]
        start += len(context[start:end]) - len(context[start:end].lstrip())  # some tokens hold the space before a word
        text = context[start:end].rstrip()
        return _Answer(text, start, start + len(text), float(share[0]), none)


def _objects(values: list[dict[str, Any]]) -> Array:
    """Dicts as an array that rows can be drawn from, `[rows]`."""
    made = np.empty(len(values), dtype=object)
    made[:] = values
    return made


def _values(column: pa.ChunkedArray) -> Iterator[Any]:
    """The values of a column as Python has them, a batch in memory at a time."""
    for begin in range(0, len(column), _BATCH):
        yield from column.slice(begin, _BATCH).to_pylist()


def _offsets(encoded: datasets.Dataset) -> Iterator[Array]:
    """The offsets of each window, `[length, 2]`, without a copy."""
    for chunk in columns.column(encoded, "offsets").chunks:
        flat = chunk.flatten().flatten().to_numpy()
        ends = 2 * np.cumsum(np.asarray(pc.list_value_length(chunk)))
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            yield flat[begin:end].reshape(-1, 2)


def _texts_and_starts(answers: Any) -> tuple[Sequence[str], Sequence[int]]:
    """The answers of a row in either shape."""
    if isinstance(answers, Mapping):
        return answers["text"], answers["answer_start"]
    return [one["text"] for one in answers], [one["answer_start"] for one in answers]


def _first_answer(answers: Any) -> tuple[int, int] | None:
    """The first and one past the last character of a row's first answer, without spaces around it."""
    texts, starts = _texts_and_starts(answers)
    if not texts:
        return None
    begin = starts[0] + len(texts[0]) - len(texts[0].lstrip())
    return begin, begin + len(texts[0].strip())


def _tokens_of(answer: tuple[int, int] | None, offsets: Array) -> list[int] | None:
    """The first and the last token of an answer that a window with these offsets holds whole, or None."""
    context = np.flatnonzero(offsets[:, 0] >= 0)
    if answer is None or not len(context):
        return None
    begin, end = answer
    if offsets[context[0], 0] > begin or offsets[context[-1], 1] < end:
        return None
    held = context[(offsets[context, 0] < end) & (offsets[context, 1] > begin)]
    return [int(held[0]), int(held[-1])] if len(held) else None


def _lists(values: pa.ChunkedArray, name: str, split: str, where: str) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Texts and starts, a list of each for every row, whichever of the two shapes the column has."""
    kind = values.type
    inner = kind.value_type if columns.is_list(kind) else kind
    fields = {inner.field(index).name for index in range(inner.num_fields)} if pa.types.is_struct(inner) else set()
    wrong = DataError(f"{split}: column {name!r} holds {kind}", where=where, allowed=_SHAPE)
    if not {"text", "answer_start"} <= fields:
        raise wrong
    if inner is not kind:
        flat = pc.list_flatten(values).combine_chunks()
        lengths = np.asarray(pc.fill_null(pc.list_value_length(values), 0))
        ends = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int64())
        lists = [pa.LargeListArray.from_arrays(ends, pc.struct_field(flat, one)) for one in ("text", "answer_start")]
        made = [pa.chunked_array([one]) for one in lists]
    else:
        made = [pc.struct_field(values, one) for one in ("text", "answer_start")]
    if not all(columns.is_list(one.type) for one in made):
        raise wrong
    texts, starts = (one.type.value_type for one in made)
    empty = pa.types.is_null
    if not (columns.is_text(texts) or empty(texts)) or not (pa.types.is_integer(starts) or empty(starts)):
        raise wrong
    return made[0], made[1]


def _require_answers(rows: datasets.Dataset, context: str, name: str, split: str, where: str) -> None:
    """Refuse answers that are missing, empty, or do not stand in the context where they say."""
    values = columns.require_values(rows, name, split, where, f"no value in column {name!r}")
    texts, starts = _lists(values, name, split, where)
    bad, first = np.zeros(len(rows), bool), ""
    each = zip(_values(columns.column(rows, context)), _values(texts), _values(starts), strict=True)
    for row, (context_text, answers, at) in enumerate(each):
        wrong = _wrong(context_text, answers, at)
        bad[row] = wrong is not None
        first = first or wrong or ""
    if bad.any():
        columns.refuse(
            bad,
            f"{split}: {first}",
            where,
            "answer_start counts characters of the context from 0; a question without an answer has empty lists.",
        )


def _wrong(context: str, texts: list[Any] | None, starts: list[Any] | None) -> str | None:
    """What is wrong with the answers of a row, or None."""
    if texts is None or starts is None or None in texts or None in starts:
        return "an answer without text or answer_start"
    if len(texts) != len(starts):
        return f"{len(texts)} texts and {len(starts)} answer_starts"
    for text, start in zip(texts, starts, strict=True):
        if not text.strip():
            return f"the answer {text!r} has nothing in it"
        if start < 0 or not context.startswith(text, start):
            there = context[start : start + len(text)] if start >= 0 else ""
            found = context.find(text)
            real = f"it stands at {found}" if found >= 0 else "it stands nowhere in the context"
            return f"the answer {_cut(text)!r} is said to start at {start}, where {_cut(there)!r} stands; {real}"
    return None


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
