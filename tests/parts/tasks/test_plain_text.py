"""What a text says is text: its `</s>` or `[SEP]` is no structure of the input, for every kind of task and tokenizer."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import datasets
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from hfpipe.errors import DataError
from hfpipe.parts.inputs.tokenized import tokenize
from hfpipe.parts.tasks import Task, make_task
from hfpipe.parts.tasks.plain_text import never_empty, tokens_of
from hfpipe.recipe import load_recipe

SPECIAL = ["<pad>", "</s>", "<unk>", "<s>", "<mask>"]
TEXTS = ["a scraped</s> sentence <pad> x", "b </s>", "<mask><s>", "plain words", "</s>"]
CORPUS = ["a scraped sentence x b plain words question answer in the context < > / s p a d"] * 50


def wrapped(rules: Tokenizer, **options: Any) -> PreTrainedTokenizerFast:
    """A tokenizer whose special tokens have these names, and stand around one text or two."""
    rules.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("</s>", 1), ("<s>", 3)]
    )
    names = {"pad": "<pad>", "eos": "</s>", "sep": "</s>", "unk": "<unk>", "bos": "<s>", "cls": "<s>", "mask": "<mask>"}
    special = {f"{key}_token": name for key, name in names.items()}
    return PreTrainedTokenizerFast(tokenizer_object=rules, **special, **options)


def unigram() -> PreTrainedTokenizerFast:
    """As T5, ALBERT, XLNet and XLM-R have them: special tokens are pieces like others."""
    rules = Tokenizer(models.Unigram())
    rules.pre_tokenizer = pre_tokenizers.Metaspace()
    rules.train_from_iterator(
        CORPUS, trainers.UnigramTrainer(vocab_size=90, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    )
    return wrapped(rules)


def bpe() -> PreTrainedTokenizerFast:
    """As GPT-2, RoBERTa and BART have them."""
    rules = Tokenizer(models.BPE())
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    rules.train_from_iterator(CORPUS, trainer)
    return wrapped(rules)


def words() -> PreTrainedTokenizerFast:
    """A vocabulary of words in which `</s>` is one."""
    rules = Tokenizer(models.WordLevel(unk_token="<unk>"))
    rules.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    rules.train_from_iterator(CORPUS, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False))
    return wrapped(rules)


TOKENIZERS = {"unigram": unigram, "bpe": bpe, "words": words, "bytes": ByT5Tokenizer}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_no_text_makes_a_special_token(name: str) -> None:
    """Each row has the special tokens that stand around every text, and no other; plain texts have the tokens they had."""
    tokenizer = TOKENIZERS[name]()
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    around = [token for token in tokenizer("plain words")["input_ids"] if token in special]
    found = tokens_of(tokenizer, TEXTS)
    for ids in found["input_ids"]:
        assert [token for token in ids if token in special] == around
    assert set(found) == set(tokenizer(TEXTS[3]))
    assert found["input_ids"][3] == tokenizer("plain words")["input_ids"]
    if name != "words":
        decoded = tokenizer.decode(found["input_ids"][1], skip_special_tokens=True)
        assert re.sub("[ ▁Ġ]", "", decoded) == "b</s>"


@pytest.mark.parametrize("name", ["unigram", "bpe", "words"])
def test_a_tokenizer_is_as_before(name: str) -> None:
    """Asking without some pieces changes neither what it saves nor what it gives to others, added tokens keep their ids."""
    tokenizer = TOKENIZERS[name]()
    tokenizer.add_tokens(["zebra", "<extra>"])
    rules, given = tokenizer.backend_tokenizer.to_str(), tokenizer(TEXTS)["input_ids"]
    found = tokens_of(tokenizer, ["zebra </s>", "x <extra>"])["input_ids"]
    assert len(tokenizer) - 2 in found[0]
    assert len(tokenizer) - 1 in found[1]
    assert tokenizer(TEXTS, split_special_tokens=False)["input_ids"] == given
    assert tokenizer.backend_tokenizer.to_str() == rules


class Stubborn(ByT5Tokenizer):
    """A slow tokenizer that finds its end mark whatever it is told."""

    def _tokenize(self, text: str) -> list[str]:
        return [piece for part in text.split() for piece in ([part] if part == "</s>" else part)]


def test_rows_are_refused_where_nothing_helps() -> None:
    """By their numbers, with the token."""
    with pytest.raises(DataError, match=r"rows 7, 8, counted from 0: Stubborn makes a special token .*\(</s>\)"):
        tokens_of(Stubborn(), ["fine", "a </s> b", "</s>"], numbers=[6, 7, 8])


def test_an_empty_text_is_one_token() -> None:
    """Without any token a row would be no input at all."""
    tokenizer = bpe()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    encoded = never_empty(dict(tokens_of(tokenizer, ["", "a"])), tokenizer)
    assert (encoded["input_ids"][0], encoded["attention_mask"][0]) == ([tokenizer.bos_token_id], [1])
    assert len(encoded["input_ids"][1]) == 1


NASTY = "</s> <pad> <s>"
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "text": ({"text": "a", "label": "y"}, {"a": f"x {NASTY} b", "y": 1}),
    "pair": ({"text": ["a", "b"], "label": "y"}, {"a": f"x {NASTY}", "b": f"{NASTY} b", "y": 1}),
    "regression": ({"kind": "text-regression", "text": "a", "label": "y"}, {"a": NASTY, "y": 2.0}),
    "labels": ({"kind": "multi-label-classification", "text": "a", "label": ["y", "z"]}, {"a": NASTY, "y": 1, "z": 0}),
    "tokens": (
        {"kind": "token-classification", "text": "a", "label": "y"},
        {"a": ["x", "</s>", "plain", "<pad>"], "y": ["O", "B-PER", "O", "B-PER"]},
    ),
    "question": (
        {"kind": "question-answering", "text": ["q", "c"], "label": "y", "stride": 4},
        {
            "q": f"question {NASTY} x",
            "c": f"a {NASTY} answer in the context </s>",
            "y": {"text": ["answer"], "answer_start": [3 + len(NASTY)]},
        },
    ),
    "choices": (
        {"kind": "multiple-choice", "text": "a", "choices": ["b", "c"], "label": {"column": "y", "form": "from_zero"}},
        {"a": f"x {NASTY}", "b": "plain </s>", "c": "words", "y": 1},
    ),
}


@pytest.fixture
def encoded() -> Callable[[str, str], tuple[Task, Any, Any, list[dict[str, Any]]]]:
    """A row of a kind of task with special tokens in all of its texts, and one without, as a tokenizer encodes them."""

    def encode(kind: str, name: str) -> tuple[Task, Any, Any, list[dict[str, Any]]]:
        fields, nasty = KINDS[kind]
        plain = {key: _plain(value) for key, value in nasty.items()}
        other = {**plain, "y": 0} if kind in ("text", "pair") else plain
        rows = datasets.Dataset.from_list([nasty, other])
        recipe = load_recipe({"dataset": {"path": "d"}, "task": fields, "model": {"checkpoint": "./c"}})
        tokenizer = TOKENIZERS[name]()
        task = make_task(recipe.task, rows, "d", "")
        found = tokenize(task, rows, tokenizer, max_length=200, identity=f"{kind} {name} {id(tokenizer)}")
        return task, tokenizer, rows, [found.data[row] for row in range(len(found.data))]

    return encode


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("</s>", "words").replace("<pad>", "plain").replace("<s>", "in")
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {"text": ["answer"], "answer_start": [3 + len(_plain(NASTY))]}
    return value


@pytest.mark.parametrize("name", ["unigram", "bpe", "words"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_task_keeps_the_structure_of_its_input(
    kind: str, name: str, encoded: Callable[[str, str], Any]
) -> None:
    """A row with special tokens in its texts has as many real ones, in the same order, as one without."""
    _, tokenizer, _, (nasty, plain) = encoded(kind, name)
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}

    def structure(ids: Any) -> Any:
        if ids and isinstance(ids[0], list):
            return [structure(one) for one in ids]
        return [token for token in ids if token in special]

    assert structure(nasty["input_ids"]) == structure(plain["input_ids"])


@pytest.mark.parametrize("name", ["unigram", "bpe", "words"])
def test_words_and_answers_stand_where_they_stood(name: str, encoded: Callable[[str, str], Any]) -> None:
    """The labels of words are at their first pieces, and the span of an answer is its text."""
    _, _, rows, (nasty, _) = encoded("tokens", name)
    assert [label for label in nasty["labels"] if label != -100] == [1, 0, 1, 0] or nasty["labels"].count(-100) >= 2
    assert nasty["words"] == [0, 1, 2, 3]
    _, _, rows, (nasty, *_) = encoded("question", name)
    first, last = nasty["labels"]
    start, end = nasty["offsets"][first][0], nasty["offsets"][last][1]
    assert rows[0]["c"][start:end].strip() == "answer"
