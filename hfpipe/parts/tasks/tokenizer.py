"""A checkpoint's tokenizer, as every task of texts loads it, and how long the rows are that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from transformers import AutoTokenizer, DataCollatorWithPadding, PretrainedConfig, PreTrainedTokenizerBase

from hfpipe.errors import ModelError
from hfpipe.parts.data.columns import column, is_list
from hfpipe.system.text import one_line

Array = np.ndarray[Any, Any]
LEAST_TOKENS = 2  # of a choice with its context
_SMALLEST_VOCABULARY = 100  # entries; AutoTokenizer without vocabulary files makes up one of five


def load_tokenizer(folder: Path, config: PretrainedConfig, name: str, where: str) -> PreTrainedTokenizerBase:
    """The checkpoint's own tokenizer.

    Args:
        folder: of the checkpoint.
        config: of its model.
        name: of the checkpoint, for messages.
        where: the place in the recipe.

    Raises:
        ModelError: none there, one that was made up for want of files, or one that does not fit the embeddings.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, OSError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise ModelError(f"the tokenizer of {name!r} can't be loaded: {one_line(error)}", where=where) from error
    size, rows = len(tokenizer), getattr(config, "vocab_size", None)
    if size < _SMALLEST_VOCABULARY:
        raise ModelError(
            f"the tokenizer of {name!r} has a vocabulary of {size}: its files are missing from {folder}",
            where=where,
            fix="Put tokenizer.json (or vocab.txt) beside the weights; tokenizer.save_pretrained writes them.",
        )
    if rows is not None and size > rows:
        raise ModelError(
            f"the tokenizer of {name!r} has {size:,} entries, and the embeddings only {rows:,} rows",
            where=where,
            fix="The tokenizer belongs to another checkpoint; take the one that was trained with these weights.",
        )
    if tokenizer.pad_token is None:
        raise ModelError(
            f"the tokenizer of {name!r} has no padding token", where=where, fix="Set pad_token and save it."
        )
    return tokenizer


def padding_collator(tokenizer: PreTrainedTokenizerBase, multiple: int | None = None) -> Any:
    """Pads to the longest row of a batch, or to the next multiple of a length."""
    return DataCollatorWithPadding(tokenizer, pad_to_multiple_of=multiple)


def rows_of_logits(logits: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> list[Array]:
    """The logits of a batch, `[batch, outputs]`, as a row of `[outputs]` each: none of them is padding."""
    return list(logits.cpu().numpy())


def filler_of(batch: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    """The choices that only fill a batch of `[batch, choices, length]` up, `[batch, choices]`; None in other batches.

    They have a single token, and real ones have more.
    """
    mask = batch.get("attention_mask")
    return None if mask is None or mask.ndim != 3 else mask.sum(dim=-1) < LEAST_TOKENS


def lengths(encoded: datasets.Dataset) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Tokens in each encoded row, `[rows]`; of several choices the longest."""
    return lengths_of(column(encoded, "input_ids"))


def lengths_of(ids: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Tokens in each row of the Arrow column `input_ids`, `[rows]`; of several choices the longest."""
    counts = [_longest(chunk) for chunk in ids.chunks]
    return np.concatenate(counts).astype(np.int64) if counts else np.zeros(0, np.int64)


def _longest(chunk: pa.Array) -> Array:
    if not is_list(chunk.type.value_type):
        return np.asarray(pc.list_value_length(chunk))
    inner = chunk.flatten()
    tokens = np.asarray(pc.list_value_length(inner))
    choices = np.asarray(pc.list_value_length(chunk))
    return np.maximum.reduceat(tokens, np.concatenate([[0], np.cumsum(choices)[:-1]])) if len(chunk) else tokens
