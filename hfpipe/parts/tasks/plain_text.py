"""Texts as tokens in which nothing that is written makes a special token: `</s>` in a text is four characters of it.

Fast tokenizers of BPE and WordPiece do that when they are asked to (`split_special_tokens`). Those whose vocabulary holds
its special tokens as pieces like any other (Unigram, words) find them there nevertheless; they are asked again without
these pieces.
"""

from __future__ import annotations

import copy
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from tokenizers import Tokenizer
from transformers import BatchEncoding, PreTrainedTokenizerBase

from hfpipe.errors import DataError
from hfpipe.system.text import listed

_NEVER_WRITTEN = "\U0010fffe"  # before the name of a piece that no text shall match: a code point that is no character
_SHOWN = 5
_without_pieces: WeakKeyDictionary[PreTrainedTokenizerBase, PreTrainedTokenizerBase] = WeakKeyDictionary()


def tokens_of(
    tokenizer: PreTrainedTokenizerBase, *texts: Any, numbers: Sequence[int] | None = None, **options: Any
) -> BatchEncoding:
    """What `tokenizer(*texts, **options)` gives, with no special token but those that it puts around texts itself.

    Args:
        tokenizer: fast or slow.
        texts: a batch, or two for pairs.
        numbers: of the rows that the texts are of, for messages; by default counted.
        options: of the tokenizer.

    Raises:
        DataError: rows in which it makes a special token of a text whatever it is told.
    """
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    found, bad = BatchEncoding(), np.zeros(0, np.int64)
    for one, splits in _ways(tokenizer, special, texts):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "this sequence already has </s>": that is what is looked for
            found = one(*texts, split_special_tokens=splits, return_special_tokens_mask=True, **options)
        bad = _with_special(found, special)
        if not len(bad):
            del found["special_tokens_mask"]
            return found
    numbers = numbers if numbers is not None else range(len(found["input_ids"]))
    of = found.get("overflow_to_sample_mapping") or range(len(found["input_ids"]))
    rows = list(dict.fromkeys(numbers[of[row]] for row in bad))
    written = special.intersection(found["input_ids"][bad[0]])
    raise DataError(
        f"{'rows' if len(rows) > 1 else 'row'} {listed(rows, _SHOWN)}, counted from 0: {type(tokenizer).__name__} makes a "
        f"special token of what stands in a text ({', '.join(sorted(tokenizer.convert_ids_to_tokens(list(written))))}), and "
        "the model would take it for the structure of its input",
        fix="Take it out of these texts, or take a checkpoint with a fast tokenizer (tokenizer.json).",
    )


def _ways(
    tokenizer: PreTrainedTokenizerBase, special: set[int], texts: Sequence[Sequence[str]]
) -> Iterator[tuple[PreTrainedTokenizerBase, bool]]:
    """Tokenizers to ask one after the other, each with `split_special_tokens`."""
    if tokenizer.is_fast:
        yield tokenizer, True
        yield _without_special_pieces(tokenizer, special), True
        return
    yield tokenizer, False
    # A slow one that is asked to split finds its other added tokens no more: only where that makes no difference.
    marks = re.compile("|".join(map(re.escape, sorted(tokenizer.all_special_tokens, key=len, reverse=True))))
    plain = [marks.sub(" ", text) for part in texts for text in part]
    if tokenizer(plain)["input_ids"] == tokenizer(plain, split_special_tokens=True)["input_ids"]:
        yield tokenizer, True


def never_empty(encoded: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The same rows; one without any token, as some tokenizers make of an empty text, gets that which begins or ends texts.

    Alone it would be no input at all, and among others nothing but padding.
    """
    ends = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    filler = {"input_ids": next((one for one in ends if one is not None), 0), "attention_mask": 1}
    for row, ids in enumerate(encoded["input_ids"]):
        if not ids:
            for name, values in encoded.items():
                values[row] = [filler.get(name, 0)]
    return encoded


def _with_special(found: BatchEncoding, special: set[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The numbers of the encoded rows that have special tokens beyond those that stand around texts."""
    rows, masks = found["input_ids"], found["special_tokens_mask"]
    if any(len(ids) != len(mask) for ids, mask in zip(rows, masks, strict=True)):
        # A slow tokenizer that took what is written for the token that it would have put there.
        each = zip(rows, masks, strict=True)
        return np.flatnonzero([_is_written(ids, mask, special) for ids, mask in each])
    ids = np.fromiter(chain.from_iterable(rows), np.int64)
    is_around = np.fromiter(chain.from_iterable(masks), bool)
    bad = np.isin(ids, list(special)) & ~is_around
    return np.unique(np.repeat(np.arange(len(rows)), [len(row) for row in rows])[bad]) if bad.any() else bad[:0]


def _is_written(ids: list[int], is_around: list[int], special: set[int]) -> bool:
    pairs = zip(ids, is_around, strict=False)
    return len(ids) != len(is_around) or any(one in special and not around for one, around in pairs)


def _without_special_pieces(tokenizer: PreTrainedTokenizerBase, special: set[int]) -> PreTrainedTokenizerBase:
    """The same tokenizer with other names for its special pieces, which keep their ids."""
    made = _without_pieces.get(tokenizer)
    if made is None:
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        model = rules["model"]
        if isinstance(model["vocab"], dict):
            model["vocab"] = {f"{_NEVER_WRITTEN}{k}" if i in special else k: i for k, i in model["vocab"].items()}
        else:
            model["vocab"] = [
                [f"{_NEVER_WRITTEN}{piece}" if number in special else piece, score]
                for number, (piece, score) in enumerate(model["vocab"])
            ]
        # A special token without a piece gets a new id, behind those of the tokens that were added to the vocabulary.
        # What stands around texts does so by its id, and no text is searched for added special tokens.
        rules["added_tokens"].sort(key=lambda token: token["id"] in special)
        made = copy.copy(tokenizer)
        made._tokenizer = Tokenizer.from_str(json.dumps(rules))
        _without_pieces[tokenizer] = made
    return made
