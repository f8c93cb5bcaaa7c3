"""Questions and their contexts: windows that lose nothing, labels where the answer is, and the answer back from logits."""

from __future__ import annotations

import itertools
from pathlib import Path
from random import Random
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from hfpipe.errors import DataError, ModelError, RecipeError
from hfpipe.parts.inputs import tokenized
from hfpipe.parts.inputs.tokenized import tokenize
from hfpipe.parts.metrics.squad import Squad
from hfpipe.parts.tasks import head_task, make_task
from hfpipe.parts.tasks.questions import QuestionTask
from hfpipe.recipe import load_recipe
from hfpipe.recipe.schema import Task

SPEC = Task(kind="question-answering", text=("question", "context"), label="answers", stride=12)
WORDS = ["bak", "bek", "Zürich", "1848", "naïve", "東京", "😀", "gol", "cum", "dinner,", "(fin)", "x-ray", "o'clock"]  # fmt: skip
LENGTH = 44  # tokens of a window


def rows_of(count: int, *, unanswerable: bool = False, seed: int = 0) -> list[dict[str, Any]]:
    """Contexts of 3 to 90 words with an answer of 1 to 3 words anywhere; without one, every fifth row if asked."""
    random, rows = Random(seed), []
    for row in range(count):
        words = random.choices(WORDS, k=random.randint(3, 90))
        first = [0, len(words) - 3, random.randrange(len(words) - 2)][row % 3]
        words[first] = f"only{row}"  # so that the answer stands in one place
        answer = " ".join(words[first : first + random.randint(1, 3)]).rstrip(",")
        context = "\n ".join([" ".join(words[:40]), " ".join(words[40:])]) if len(words) > 40 else " ".join(words)
        if answer not in context:  # it would cross the line break
            answer = words[first]
        answers = {"text": [answer], "answer_start": [context.index(answer)]}
        if unanswerable and row % 5 == 0:
            answers = {"text": [], "answer_start": []}
        question = f"  {' '.join(random.choices(WORDS, k=random.randint(1, 5)))} ?"
        rows.append({"question": question, "context": context, "answers": answers})
    return rows


def table(rows: list[dict[str, Any]]) -> datasets.Dataset:
    """Rows as the Hub's SQuAD has them."""
    answers = {"text": datasets.List(datasets.Value("string")), "answer_start": datasets.List(datasets.Value("int32"))}
    text = datasets.Value("string")
    return datasets.Dataset.from_list(
        rows, features=datasets.Features({"question": text, "context": text, "answers": answers})
    )


def byte_level(*, trim_offsets: bool) -> PreTrainedTokenizerBase:
    """A byte-level BPE as RoBERTa has one: no token types, two separators between the texts of a pair."""
    rules = Tokenizer(models.BPE())
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rules.train_from_iterator([" ".join(WORDS)] * 9, trainer)
    rules.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=trim_offsets, add_prefix_space=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=rules,
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=512,
    )


@pytest.fixture(params=["word", "word, left", "byte", "byte with spaces"])
def tokenizer(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> PreTrainedTokenizerBase:
    """Word-level with token types, the same padding on the left, and byte-level without token types."""
    if request.param.startswith("byte"):
        return byte_level(trim_offsets=request.param == "byte")
    made = AutoTokenizer.from_pretrained(tiny_checkpoint)
    made.padding_side = "left" if request.param.endswith("left") else "right"
    return made


@pytest.fixture
def word_level(tiny_checkpoint: Path) -> PreTrainedTokenizerBase:
    """The tiny checkpoint's own."""
    return AutoTokenizer.from_pretrained(tiny_checkpoint)


def encode(
    rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, identity: Path, task: Any = None, **more: Any
) -> tuple[QuestionTask, datasets.Dataset]:
    """The task of the rows, and their windows through the cache of tokens."""
    task = task or make_task(SPEC, rows, "d", "task")
    more = {"max_length": LENGTH, **more}
    return task, tokenize(task, rows, tokenizer, identity=f"{identity} {tokenizer.padding_side}", **more).data


def gold(encoded: datasets.Dataset) -> list[np.ndarray]:
    """Logits that say for each window what its labels say."""
    made = []
    for ids, label in zip(encoded["input_ids"], encoded["labels"], strict=True):
        logits = np.full((2, len(ids)), -5, np.float32)
        logits[[0, 1], label] = 5
        made.append(logits)
    return made


@pytest.mark.parametrize("unanswerable", [False, True])
def test_gold_logits_give_every_answer_back(unanswerable, tokenizer, tmp_path, monkeypatch):
    """Logits that are high at the labels give exact match 1 on every row, whatever the tokenizer and the map's batches."""
    monkeypatch.setattr(tokenized, "_BATCH", 7)
    rows = table(rows_of(60, unanswerable=unanswerable))
    task, encoded = encode(rows, tokenizer, tmp_path)
    assert task.unanswerable is unanswerable
    task.check(rows, "d", "task")
    assert len(encoded) > 90
    assert encoded["row"][:] == sorted(encoded["row"][:])
    assert set(encoded["row"][:]) == set(range(60))
    said, right = task.decode(gold(encoded), encoded, rows)
    scores = Squad().compute(predictions=said, references=right)
    assert scores["exact_match"] == scores["f1"] == 1.0
    assert (scores.get("no_answer_exact_match") == 1.0) is unanswerable
    # Word-level tokens end where these answers do; a byte-level token may hold the punctuation beside them.
    if "token_type_ids" in encoded.column_names:
        assert [one["prediction_text"] for one in said] == [(one["answers"]["text"] or [""])[0] for one in right]
    for row, told in enumerate(task.format_predictions(gold(encoded), encoded, rows)):
        if told["start"] is not None:
            assert rows[row]["context"][told["start"] : told["end"]] == told["answer"]
            assert told["answer"] == told["answer"].strip()


def test_windows_cover_the_context_and_share_the_stride(tokenizer, tmp_path):
    """Every character of a context but white space is in some window, and neighbours share exactly the stride's tokens."""
    rows = table(rows_of(30))
    _, encoded = encode(rows, tokenizer, tmp_path)
    for row, context in enumerate(rows["context"]):
        windows = [one for one in encoded if one["row"] == row]
        spans = [[tuple(pair) for pair in one["offsets"] if pair[0] >= 0] for one in windows]
        covered = {place for span in spans for begin, end in span for place in range(begin, end)}
        assert covered >= {place for place, letter in enumerate(context) if not letter.isspace()}
        for earlier, later in itertools.pairwise(spans):
            assert earlier[-12:] == later[:12]
        assert all(len(one["input_ids"]) == LENGTH for one in windows[:-1])


def test_an_answer_in_the_overlap_is_in_both_windows(word_level, tmp_path):
    """Windows that hold the whole answer point at it, and the others at [CLS]; a part of an answer is none."""
    words = [f"w{number}" for number in range(24)]
    context = " ".join(words)
    answers = {"text": ["w8 w9"], "answer_start": [context.index("w8")]}
    rows = table([{"question": "bak", "context": context, "answers": answers}])
    task = QuestionTask(("question", "context"), "answers", 4, 30, 20, False)
    _, encoded = encode(rows, word_level, tmp_path, task, max_length=14)  # [CLS] bak [SEP] and 10 words, [SEP]
    assert encoded["labels"][:] == [[11, 12], [5, 6], [0, 0], [0, 0]]
    assert encoded["offsets"][0][:4] == [[-2, -2], [-1, -1], [-1, -1], [0, 2]]
    assert encoded["token_type_ids"][0] == [0] * 3 + [1] * 11
    shorter = QuestionTask(("question", "context"), "answers", 1, 30, 20, False)
    _, encoded = encode(rows, word_level, tmp_path, shorter, max_length=13)  # 9 words: w0 to w8, w8 to w16
    assert encoded["labels"][:] == [[0, 0], [3, 4], [0, 0]]


def test_a_tokenizer_that_pads_left_reads_the_context_first(word_level, tmp_path):
    """As in transformers' examples, with which such checkpoints were trained."""
    row = {"question": "bek", "context": "bak bok", "answers": {"text": ["bok"], "answer_start": [4]}}
    word_level.padding_side = "left"
    _, encoded = encode(table([row]), word_level, tmp_path)
    assert encoded["offsets"][0] == [[-2, -2], [0, 3], [4, 7], [-1, -1], [-1, -1], [-1, -1]]
    assert encoded["labels"][:] == [[2, 2]]


def test_both_shapes_of_answers_are_the_same(word_level, tmp_path):
    """A struct of lists and a list of structs give the same task, tokens, checks and references."""
    rows = rows_of(25, unanswerable=True)
    listed = [
        {**row, "answers": [{"text": text, "answer_start": at} for text, at in zip(*row["answers"].values(), strict=True)]}
        for row in rows
    ]  # fmt: skip
    other = datasets.Dataset.from_list(listed)
    task, encoded = encode(table(rows), word_level, tmp_path)
    again, also = encode(other, word_level, tmp_path / "other")
    assert task == again
    again.check(other, "d", "task")
    assert encoded[:] == also[:]
    assert list(task.decode(gold(encoded), encoded, table(rows))[1]) == list(again.decode(gold(also), also, other)[1])


@pytest.mark.parametrize(
    "answers",
    [
        ["Paris"],
        [{"text": "Paris", "answer_start": 3}],
        [{"text": ["Paris"]}],
        [{"text": ["Paris"], "answer_start": ["3"]}],
        [["Paris"]],
        [[{"text": "Paris"}]],
    ],
)
def test_answers_of_another_shape_are_refused(answers):
    """A column that is not SQuAD's is told with its type and the two shapes that are taken."""
    rows = datasets.Dataset.from_dict({"question": ["q"], "context": ["in Paris"], "answers": answers})
    with pytest.raises(DataError, match=r"'answers' holds .*; allowed: {text: \[\.\.\.\], answer_start") as caught:
        make_task(SPEC, rows, "d", "r.yaml:1:1")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        (
            {"text": ["Paris"], "answer_start": [2]},
            "the answer 'Paris' is said to start at 2, where ' Pari' stands; it stands at 3 (row 1,",
        ),
        ({"text": ["Rome"], "answer_start": [3]}, "where 'Pari' stands; it stands nowhere in the context (row 1,"),
        ({"text": ["Paris"], "answer_start": [-1]}, "is said to start at -1, where '' stands; it stands at 3"),
        ({"text": ["Paris", "in"], "answer_start": [3]}, "2 texts and 1 answer_starts (row 1,"),
        ({"text": [""], "answer_start": [0]}, "the answer '' has nothing in it (row 1,"),
        ({"text": [None], "answer_start": [0]}, "an answer without text or answer_start (row 1,"),
        ({"text": None, "answer_start": None}, "an answer without text or answer_start (row 1,"),
        (None, "no value in column 'answers' (row 1,"),
    ],
)
def test_answers_that_are_not_there_are_refused(answers, told):
    """An answer that does not stand where it says is told with its row and both strings, before anything is trained."""
    good = {"question": "q", "context": "in Paris", "answers": {"text": ["Paris"], "answer_start": [3]}}
    rows = table([good, {**good, "answers": answers}, {**good, "answers": {"text": [], "answer_start": []}}])
    task = make_task(SPEC, rows, "d", "task")
    with pytest.raises(DataError) as caught:
        task.check(rows, "d, split x", "r.yaml:1:1")
    assert told in str(caught.value)
    assert str(caught.value).startswith("r.yaml:1:1: d, split x: ")
    task.check(rows, "d", "task", labelled=False)


def test_texts_that_are_none_are_refused():
    """A missing question is told with its row, also where no answer is read."""
    rows = datasets.Dataset.from_dict({"question": ["q", None], "context": ["in Paris", "x"]})
    with pytest.raises(DataError, match=r"'question' has no text \(row 1"):
        head_task(SPEC, ()).check(rows, "d", "task", labelled=False)


def test_windows_that_would_not_move_on_are_refused(word_level, tmp_path):
    """A question that leaves a long context less than the stride is told with all the numbers; a short context is fine."""
    row = {"question": "bak " * 20, "context": "bek " * 40, "answers": {"text": [], "answer_start": []}}
    short = {**row, "context": "bek " * 3}
    told = (
        "the question of row 1 has 20 tokens, and with 3 special ones leaves room for 9 of the context in a window of 32, "
        "while windows share 12"
    )
    with pytest.raises(RecipeError, match=told) as caught:
        encode(table([short, row]), word_level, tmp_path, max_length=32)
    assert "allowed: less than 9. Lower task.stride" in str(caught.value)
    _, encoded = encode(table([short]), word_level, tmp_path, max_length=32)
    assert len(encoded["input_ids"][0]) == 26
    for length in (15, 22):  # the stride alone, and the question alone, fill the window
        with pytest.raises(RecipeError, match="leaves room for 0 of the context"):
            encode(table([short]), word_level, tmp_path, max_length=length)


def test_a_tokenizer_without_places_or_cls_is_refused(word_level, tmp_path):
    """What question answering needs of a tokenizer is said before any window is made."""
    word_level.cls_token = None
    with pytest.raises(ModelError, match=r"has no \[CLS\] token"):
        encode(table(rows_of(2)), word_level, tmp_path)


def test_padding_goes_to_the_right_and_is_not_kept(tokenizer, tmp_path):
    """A batch keeps labels at the tokens they count, and what is kept of its logits has each window's own length."""
    rows = table(rows_of(12))
    task, encoded = encode(rows, tokenizer, tmp_path)
    side = tokenizer.padding_side
    lean = encoded.remove_columns(["row", "offsets"])
    batch = task.collator(tokenizer)([lean[index] for index in range(len(lean))])
    assert tokenizer.padding_side == side
    own = [len(ids) for ids in encoded["input_ids"]]
    assert min(own) < max(own)
    assert batch["labels"].tolist() == encoded["labels"][:]
    for index, length in enumerate(own):
        assert batch["input_ids"][index, :length].tolist() == encoded["input_ids"][index]
        assert batch["attention_mask"][index].tolist() == [1] * length + [0] * (max(own) - length)
    logits = torch.randn(len(own), 2, max(own))
    for index, kept in enumerate(task.unpad_logits(logits, batch)):
        assert kept.shape == (2, own[index])
        assert np.array_equal(kept, logits[index, :, : own[index]].numpy())


def three_windows() -> tuple[datasets.Dataset, datasets.Dataset]:
    """Two raw rows; the first read through two windows of `[CLS] q [SEP] two words [SEP]`."""
    rows = table(
        [
            {"question": "q", "context": "ab cd ef", "answers": {"text": ["cd"], "answer_start": [3]}},
            {"question": "q", "context": "gh", "answers": {"text": [], "answer_start": []}},
        ]
    )
    outside, cls = [-1, -1], [-2, -2]
    offsets = [
        [cls, outside, outside, [0, 2], [3, 5], outside],
        [cls, outside, outside, [3, 5], [6, 8], outside],
        [cls, outside, outside, [0, 2], outside],
    ]
    encoded = datasets.Dataset.from_dict({"row": [0, 0, 1], "offsets": offsets, "labels": [[4, 4], [3, 3], [0, 0]]})
    return rows, encoded


def decided(task: QuestionTask, starts: list[list[float]], ends: list[list[float]]) -> list[dict[str, Any]]:
    """What a task says of the three windows."""
    rows, encoded = three_windows()
    logits = [np.array(pair, np.float32) for pair in zip(starts, ends, strict=True)]
    return list(task.decode(logits, encoded, rows)[0])


def test_the_best_span_over_all_windows_wins():
    """A span is the sum of its logits, within the context, no longer than allowed, and from the window where it is best."""
    low = [0.0] * 6
    starts = [[9, 9, 9, 2, 1, 9], [9, 9, 9, 0, 3, 9], [0, 0, 0, 1, 0]]
    ends = [[9, 9, 9, 0, 2, 9], [9, 9, 9, 0, 0, 9], [0, 0, 0, 1, 0]]
    plain = QuestionTask(("question", "context"), "answers", 0, 30, 20, False)
    assert [one["prediction_text"] for one in decided(plain, starts, ends)] == ["ab cd", "gh"]
    single = QuestionTask(("question", "context"), "answers", 0, 1, 20, False)
    assert [one["prediction_text"] for one in decided(single, starts, ends)] == ["cd", "gh"]  # 1 + 2 = 3 + 0: the first
    one = QuestionTask(("question", "context"), "answers", 0, 30, 1, False)
    crossed = decided(one, [[0, 0, 0, 1, 5, 0], low, low[:5]], [[0, 0, 0, 5, 1, 0], low, low[:5]])
    assert crossed[0]["prediction_text"] == "cd"  # the first window's best start is after its best end
    assert crossed[0]["no_answer_probability"] == 0.0
    both = [0.0, 0, 0, 5, 1, 0]
    assert decided(one, [both[::-1], both[::-1], low[:5]], [both, both, low[:5]])[0]["prediction_text"] == "ab"
    never = decided(one, [[0.0, 0, 0, 1, 5, 0]] * 2 + [low[:5]], [both] * 2 + [low[:5]])[0]
    assert never == {"prediction_text": "", "no_answer_probability": 1.0}  # no span at all


def test_no_answer_wins_only_above_the_best_span_in_every_window():
    """The empty answer scores the least of the [CLS] scores, and is said only above the best span and only if allowed."""
    starts = [[2, 0, 0, 1, 1, 0], [9, 0, 0, 0, 0, 0], [3, 0, 0, 1, 0]]
    ends = [[1, 0, 0, 2, 1, 0], [9, 0, 0, 0, 0, 0], [3, 0, 0, 1, 0]]
    may = QuestionTask(("question", "context"), "answers", 0, 30, 20, True)
    first, second = decided(may, starts, ends)
    assert first["prediction_text"] == "ab"  # 1 + 2, no less than [CLS] in the first window
    assert second["prediction_text"] == ""
    assert second["no_answer_probability"] == pytest.approx(1 / (1 + np.exp(2 - 6)))
    never = QuestionTask(("question", "context"), "answers", 0, 30, 20, False)
    assert [one["prediction_text"] for one in decided(never, starts, ends)] == ["ab", "gh"]


def test_told_shares_the_probability_among_the_best_spans():
    """The score of an answer is its softmax share among the n best different spans of the row, whatever the windows."""
    rows, encoded = three_windows()
    logits = [np.array(pair, np.float32) for pair in (
        ([0, 0, 0, 0, 2, 0], [0, 0, 0, -9, 1, 0]), ([0, 0, 0, 1, 0, 0], [0, 0, 0, 1, -9, 0]), ([0, 0, 0, 0, 0], [0] * 5),
    )]  # fmt: skip
    task = QuestionTask(("question", "context"), "answers", 0, 30, 2, False)
    told = task.format_predictions(logits, encoded.remove_columns("labels"), rows)
    # "cd" scores 3 and again 2 in the other window, "ab cd" 0 + 1.
    assert told[0] == {"answer": "cd", "score": pytest.approx(1 / (1 + np.exp(1 - 3))), "start": 3, "end": 5}
    assert told[1] == {"answer": "gh", "score": 1.0, "start": 0, "end": 2}
    assert task.decode(logits, encoded.remove_columns("labels"), rows)[1] is None
    task = head_task(SPEC, ())
    logits[2][:, 0] = 5
    nothing = task.format_predictions(logits, encoded, rows)[1]
    assert nothing == {"answer": "", "score": pytest.approx(1 / (1 + np.exp(-10))), "start": None, "end": None}


def test_a_trained_head_needs_no_answers(word_level, tmp_path):
    """Rows without an answer column are encoded and told, as `hfpipe predict` does it."""
    rows = table(rows_of(5)).remove_columns("answers")
    task, encoded = encode(rows, word_level, tmp_path, head_task(SPEC, ("LABEL_0", "LABEL_1")), labelled=False)
    assert set(encoded.column_names) == {"input_ids", "token_type_ids", "attention_mask", "row", "offsets"}
    told = task.format_predictions([np.zeros((2, len(ids)), np.float32) for ids in encoded["input_ids"]], encoded, rows)
    assert len(told) == 5
    assert set(told[0]) == {"answer", "score", "start", "end"}


def test_the_made_up_rows_show_every_figure():
    """The dry run of a metric names the same figures as a split with such rows will."""
    answered = make_task(SPEC, table(rows_of(3)), "d", "task")
    mixed = make_task(SPEC, table(rows_of(3, unanswerable=True)), "d", "task")
    said, right = answered.dummy_predictions()
    assert set(Squad().compute(predictions=said, references=right)) == {"exact_match", "f1"}
    said, right = mixed.dummy_predictions()
    assert "no_answer_f1" in Squad().compute(predictions=said, references=right)


def test_the_tokens_do_not_depend_on_how_answers_are_chosen():
    """n_best, the longest answer and whether there may be none are no part of the key of the cached tokens."""
    first = QuestionTask(("q", "c"), "a", 4, 30, 20, False)
    assert repr(first) == repr(QuestionTask(("q", "c"), "a", 4, 7, 3, True))
    assert repr(first) != repr(QuestionTask(("q", "c"), "a", 5, 30, 20, False))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("loss.label_smoothing=0.1", "label_smoothing spreads over classes"),
        ("loss.name=mse", "can't leave out padding"),
        ("loss.name=bce_with_logits", "can't leave out padding"),
        ("loss.class_weights=balanced", "class_weights need classes"),
    ],
)
def test_losses_that_would_see_padding_are_refused(override, told):
    """A loss that looks at every position of a window would depend on the rest of the batch."""
    fields = {"dataset": {"path": "x"}, "task": SPEC.model_dump(exclude_none=True), "model": {"checkpoint": "x"}}
    with pytest.raises(RecipeError, match=told):
        load_recipe(fields, [override])
    assert load_recipe(fields, ["loss.name=focal"]).loss.name == "focal"
