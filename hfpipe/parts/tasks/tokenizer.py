"""A checkpoint's tokenizer, as every task of texts loads it, and how long the rows are that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
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
_PADDING_NAMES = ("<pad>", "[PAD]", "<|pad|>", "<|padding|>", "<|finetune_right_pad_id|>", "<PAD>", "<|endoftext|>")
_SENTENCEPIECE = {"sentencepiece": "sentencepiece", "google.protobuf": "protobuf"}  # modules, and their packages


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
    missing = _missing_packages(folder)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, OSError, KeyError, TypeError, AttributeError, ImportError) as error:
        if missing:
            raise _needs_packages(name, folder, missing, where) from error
        raise ModelError(f"the tokenizer of {name!r} can't be loaded: {one_line(error)}", where=where) from error
    size = len(tokenizer)
    if size < _SMALLEST_VOCABULARY:
        if missing:
            raise _needs_packages(name, folder, missing, where)
        raise ModelError(
            f"the tokenizer of {name!r} has a vocabulary of {size}: its files are missing from {folder}",
            where=where,
            fix="Put tokenizer.json (or vocab.txt) beside the weights; tokenizer.save_pretrained writes them.",
        )
    fix = "The tokenizer belongs to another checkpoint; take the one that was trained with these weights."
    require_embeddings(tokenizer, config, f"the tokenizer of {name!r}", where, fix)
    if tokenizer.is_fast:  # as `plain_text` asks for it, kept for those who load the trained model elsewhere
        tokenizer.split_special_tokens = tokenizer.init_kwargs["split_special_tokens"] = True
    return tokenizer


def require_embeddings(
    tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, what: str, where: str, fix: str
) -> None:
    """Refuse a tokenizer with tokens that a model has no embeddings for.

    A padding token without an embedding, and nothing else, is mended by `agree_on_padding`: it is never looked up.

    Raises:
        ModelError: with `what` the tokenizer is called, and `fix`.
    """
    size, rows = len(tokenizer), getattr(config, "vocab_size", None)
    if rows is not None and size > rows and not (size == rows + 1 and tokenizer.pad_token_id == rows):
        raise ModelError(f"{what} has {size:,} entries, and the embeddings only {rows:,} rows", where=where, fix=fix)


def _missing_packages(folder: Path) -> list[str]:
    """What has to be installed to read the tokenizer of a folder that has a sentencepiece model alone."""
    if (folder / "tokenizer.json").is_file() or not any(folder.glob("*.model")):
        return []
    return [package for module, package in _SENTENCEPIECE.items() if not _is_installed(module)]


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package above it
        return False


def _needs_packages(name: str, folder: Path, missing: list[str], where: str) -> ModelError:
    file = next(iter(sorted(folder.glob("*.model")))).name
    return ModelError(
        f"the tokenizer of {name!r} is a sentencepiece model alone ({file}), and {' and '.join(missing)} can't be imported",
        where=where,
        fix="Install what reads it: pip install 'hfpipe[tokenizers]' (that is, pip install sentencepiece protobuf).",
    )


def agree_on_padding(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, name: str, where: str) -> str | None:
    """Make a tokenizer and the configuration of its model name the same padding token, before either is used.

    The embeddings are never resized: padding is masked, so that any token they have can stand for it. The model's own
    token counts where the tokenizer knows it as a special one, since some models derive positions from it; else the
    tokenizer's; without either one of the usual names, else the token that ends a text. Its tokens that begin and end a
    text become the model's, too: some heads look for the end.

    Args:
        tokenizer: changed in place.
        config: changed in place.
        name: of the checkpoint, for messages.
        where: the place in the recipe.

    Returns:
        What a user should know; None where both agreed before.

    Raises:
        ModelError: no token that could stand for padding.
    """
    inner = config.get_text_config() if hasattr(config, "get_text_config") else config
    rows = getattr(inner, "vocab_size", None) or len(tokenizer)
    models_own, own = getattr(inner, "pad_token_id", None), tokenizer.pad_token_id
    _align_ends(tokenizer, inner)
    is_known = own is not None and own < rows
    chosen: int | None
    if (
        isinstance(models_own, int)
        and 0 <= models_own < min(rows, len(tokenizer))
        and _is_special(tokenizer, models_own)
    ):
        chosen = models_own
    else:
        chosen = own if is_known else _stand_in(tokenizer, rows)
    if chosen is None:
        raise ModelError(
            f"the tokenizer of {name!r} has no padding token, and no token that could stand for one",
            where=where,
            fix="Set pad_token to one of its tokens and save it.",
        )
    token = tokenizer.convert_ids_to_tokens(chosen)
    if own != chosen:
        tokenizer.pad_token = token
    inner.pad_token_id = config.pad_token_id = chosen
    if own == chosen and models_own in (None, chosen):
        return None
    theirs = "names no padding token" if own is None else f"pads with token {own}"
    models = "none" if models_own is None else f"with token {models_own}"
    return (
        f"the tokenizer of {name} {theirs}, its model {models}: {token!r} ({chosen}) is what both pad with here, masked; "
        "the embeddings stay as they are"
    )


def _is_special(tokenizer: PreTrainedTokenizerBase, token: int) -> bool:
    """Whether a token is no piece of texts: of these none may stand for padding, since heads pass padding over."""
    added = tokenizer.added_tokens_decoder.get(token)
    named = tokenizer.convert_ids_to_tokens(token) in _PADDING_NAMES
    return named or token in tokenizer.all_special_ids or (added is not None and added.special)


def _align_ends(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
    """As transformers' Trainer does when it starts, so that both engines and every evaluation have the same model."""
    for key in ("bos_token_id", "eos_token_id"):
        own, models_own = getattr(tokenizer, key, None), getattr(config, key, None)
        known = models_own if isinstance(models_own, list) else [models_own]
        if own is not None and own not in known and hasattr(config, key):
            setattr(config, key, own)


def _stand_in(tokenizer: PreTrainedTokenizerBase, rows: int) -> int | None:
    """A token that is made for padding, else the one that ends a text, else another special one."""
    vocabulary = tokenizer.get_vocab()
    ids = [vocabulary.get(one) for one in _PADDING_NAMES]
    ids += [tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id, *tokenizer.all_special_ids]
    return next((one for one in ids if one is not None and one < rows), None)


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
