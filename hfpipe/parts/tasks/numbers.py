"""One number for a text or a pair of texts: `text-regression`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from hfpipe.parts.data import columns
from hfpipe.parts.tasks import findings
from hfpipe.parts.tasks.text import Lines, encode_texts, text_inputs
from hfpipe.parts.tasks.tokenizer import lengths, load_tokenizer, padding_collator, rows_of_logits
from hfpipe.recipe import schema
from hfpipe.recipe.kinds import KINDS

Array = np.ndarray[Any, Any]
_SPREAD = 1e-3  # of predictions that are called one number, as a share of it


@dataclass(frozen=True)
class NumberTask:
    """One number for each row."""

    text: tuple[str, ...]
    label: str

    kind = KINDS["text-regression"]
    auto_model = "AutoModelForSequenceClassification"
    problem_type = "regression"
    scheme = calibration = None
    names = ()
    num_labels = 1

    load_processor = staticmethod(load_tokenizer)
    lengths = staticmethod(lengths)
    collator = staticmethod(padding_collator)
    unpad_logits = staticmethod(rows_of_logits)

    @classmethod
    def make(cls, spec: schema.Task, rows: datasets.Dataset, title: str, where: str) -> NumberTask:
        """The task of these rows.

        Raises:
            DataError: a missing column.
        """
        columns.require_columns(rows, (*spec.text, *spec.label_columns), title, where)
        return cls.from_head(spec, ())

    @classmethod
    def from_head(cls, spec: schema.Task, names: tuple[str, ...]) -> NumberTask:
        """The task of a trained head, whose one output has no name."""
        return cls(spec.text, spec.label_columns[0])

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read, the label last."""
        return (*self.text, self.label)

    def check(self, rows: datasets.Dataset, split: str, where: str, *, labelled: bool = True) -> None:
        """Refuse rows that would train or measure something wrong.

        Raises:
            DataError: naming the split and the first rows: missing columns, texts that are no text, labels that are
                missing or no finite numbers. With `labelled` false only the texts are looked at.
        """
        columns.require_columns(rows, self.columns if labelled else self.text, split, where)
        for name in self.text:
            columns.require_text(rows, name, split, where)
        if not labelled:
            return
        values = columns.require_values(rows, self.label, split, where)
        numbers = np.asarray(columns.as_numbers(values, split, self.label, where))
        bad = ~np.isfinite(numbers)
        if bad.any():
            what = f"{split}: label {numbers[bad][0]} is not a finite number"
            columns.refuse(pa.array(bad), what, where, "Mend these rows.")

    def encode(
        self, batch: Mapping[str, Sequence[Any]], tokenizer: PreTrainedTokenizerBase, max_length: int, labelled: bool
    ) -> dict[str, Any]:
        """What the model reads of a batch of rows; of a pair the longer text is cut first."""
        encoded = encode_texts(batch, self.text, tokenizer, max_length)
        if labelled:
            encoded["labels"] = [float(value) for value in batch[self.label]]
        return encoded

    def decode(
        self, logits: Sequence[Array], encoded: datasets.Dataset, rows: datasets.Dataset
    ) -> tuple[Array, Array | None]:
        """The predicted numbers, `[rows]`, and the labels, where the rows have them."""
        stacked = np.stack(logits)
        predictions = stacked.reshape(len(stacked))
        return predictions, np.asarray(encoded["labels"][:]) if "labels" in encoded.column_names else None

    def dummy_predictions(self) -> tuple[Array, Array]:
        """Two predictions and their labels, to try a metric on."""
        return np.array([0.25, 1.5]), np.array([0.25, 1.5])  # no class ids, which whole numbers could be

    def format_predictions(
        self, logits: Sequence[Array], encoded: datasets.Dataset, rows: datasets.Dataset
    ) -> list[dict[str, Any]]:
        """For each row its `value`."""
        return [{"value": float(value)} for value in np.stack(logits).astype(float).reshape(-1)]

    def probabilities(self, logits: Sequence[Array]) -> None:
        """A number has none."""

    def constant_predictions(self, references: Array) -> list[tuple[str, Array]]:
        """The mean, which has the least squared error, and the median, which has the least absolute one."""
        found = {"mean": float(references.mean()), "median": float(np.median(references))}
        return [(f"always the {name}, {one:.4g}", np.full(len(references), one)) for name, one in found.items()]

    def degenerate(self, predictions: Array) -> str | None:
        """Whether all predictions are about the same number."""
        if np.ptp(predictions) > _SPREAD * max(1.0, abs(float(predictions[0]))):
            return None
        return f"the model predicts about {float(np.mean(predictions)):.4g} for all {len(predictions):,} examples"

    def findings(self, scored: findings.Scored) -> dict[str, Any]:
        """`errors`: where the numbers are off."""
        return {"errors": findings.errors(scored.predictions, scored.references, scored.ids)}

    @staticmethod
    def example(columns: Sequence[str], options: str) -> Lines:
        """A text, and its number."""
        return text_inputs(columns, options), ["print(outputs.logits.item())"]
