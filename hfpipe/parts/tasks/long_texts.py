"""Texts of megabytes: a tokenizer works through all of a text although it keeps only its first tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

_CHARACTERS = 100  # of a token, more than any has in a text of words
_SPARE = 2  # how many times the tokens that are kept the shortened text has, so that its end decides none of them


def shortened(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[str]:
    """The texts, the far end of very long ones left out: cut to `max_length` tokens, they give the same tokens.

    A megabyte takes a tokenizer a second or more, and two of them as a pair minutes. Texts with less than a hundred
    characters for each token that is kept come back as they are. Of a pair of two longer ones, whichever has more tokens
    keeps the odd one; that is then decided by what is left of them.

    Args:
        texts: of a batch.
        tokenizer: cuts texts at its `truncation_side`; on the left, nothing is left out.
        max_length: tokens that are kept at most.
    """
    limit = _CHARACTERS * max_length
    if tokenizer.truncation_side != "right" or all(len(text) <= limit for text in texts):
        return list(texts)
    # A run without an end is one unknown token to some tokenizers, and to the others more tokens than are kept.
    run = re.compile(rf"(?<!\S)(\S{{{limit}}})\S+|(?<!\s)(\s{{{limit}}})\s+")
    return [text if len(text) <= limit else _start_of(run.sub(r"\1\2", text), tokenizer, max_length) for text in texts]


def _start_of(text: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> str:
    """The shortest start that has the tokens to spare."""
    size = _CHARACTERS * max_length
    while size < len(text):
        start = text[:size]
        if len(tokenizer(start, add_special_tokens=False, verbose=False)["input_ids"]) >= _SPARE * max_length:
            return start
        size *= 4
    return text
