"""Question answering and multiple choice: one optimizer batch, one update, however it is cut, padded or trained."""

from __future__ import annotations

import random
from typing import Any

import datasets
import pytest
import torch

from hfpipe.evaluation.inference import mean_loss_of, predict
from hfpipe.experiments import doctor_probes
from hfpipe.parts.inputs.batches import Examples
from hfpipe.parts.tasks import lengths, outputs_of
from hfpipe.training.prepare import prepare

FAMILIES = ("bert", "distilbert", "roberta")
KINDS = ("question-answering", "multiple-choice", "choices of uneven number")
SPLITS = [(8, 1), (4, 2), (2, 4), (3, 3)]  # micro-batch x accumulation over 8 encoded rows; 3x3 is 3, 3, 2
REDUCTIONS = {"mean": ["optimizer.name=sgd"], "sum": ["optimizer.name=updater_sgd"]}
WORDS = [a + b + c for a in "bcdfg" for b in "aeiou" for c in "klmnp"]
TASKS = {
    "question-answering": [
        "task={kind: question-answering, text: [question, context], label: answers, stride: 4}",
        "model.max_length=24",
        "evaluate.metrics=[squad]",
    ],
    "multiple-choice": [
        "task={kind: multiple-choice, text: context, choices: endings, label: {column: label, form: from_zero}}",
        "model.fresh=[classifier, pre_classifier, roberta.pooler]",  # which RoBERTa's checkpoints lack
    ],
}
TASKS["choices of uneven number"] = [
    "task={kind: multiple-choice, text: context, choices: endings}",
    *TASKS["multiple-choice"][1:],
]
RATES = {
    "question-answering": 0.02,
    "multiple-choice": 3.0,
    "choices of uneven number": 3.0,
}  # a random model hardly tells one choice from another


def questions(lengths_of_contexts: list[int], seed: int = 0) -> datasets.Dataset:
    """Contexts of so many words with an answer of two words; every fourth question has none."""
    rng, rows = random.Random(seed), []
    for row, count in enumerate(lengths_of_contexts):
        words = rng.choices(WORDS, k=count)
        at = rng.randrange(count - 1)
        start = len(" ".join([*words[:at], ""]))
        answers: dict[str, list[Any]] = {"text": [" ".join(words[at : at + 2])], "answer_start": [start]}
        if row % 4 == 3:
            answers = {"text": [], "answer_start": []}
        question = " ".join(rng.choices(WORDS, k=rng.randint(1, 5)))
        rows.append({"question": question, "context": " ".join(words), "answers": answers})
    return datasets.Dataset.from_list(rows)


def choices(count: int, seed: int = 0) -> datasets.Dataset:
    """Contexts with three endings of 1 to 12 words."""
    rng = random.Random(seed)
    return datasets.Dataset.from_list(
        [
            {
                "context": " ".join(rng.choices(WORDS, k=rng.randint(1, 9))),
                "endings": [" ".join(rng.choices(WORDS, k=rng.randint(1, 12))) for _ in range(3)],
                "label": rng.randrange(3),
            }
            for _ in range(count)
        ]
    )


def uneven(count: int, seed: int = 0) -> datasets.Dataset:
    """The same with two to five endings, answered by letters."""
    rng, rows = random.Random(seed), choices(count, seed).to_list()
    for row in rows:
        number = rng.randint(2, 5)
        row["endings"] = [" ".join(rng.choices(WORDS, k=rng.randint(1, 12))) for _ in range(number)]
        row["label"] = "ABCDE"[rng.randrange(number)]
    return datasets.Dataset.from_list(rows)


EIGHT = {
    "question-answering": questions([5, 30, 12, 9, 3, 28]),
    "multiple-choice": choices(8),
    "choices of uneven number": uneven(8),
}
RNG = random.Random(1)
DATA = {
    "question-answering": {
        "train": questions([RNG.randint(2, 40) for _ in range(16)]),
        "validation": questions([RNG.randint(2, 40) for _ in range(9)], seed=1),
    },
    "multiple-choice": {"train": choices(27), "validation": choices(10, seed=1)},
    "choices of uneven number": {"train": uneven(27), "validation": uneven(10, seed=1)},
}


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_one_update_whatever_the_split(kind, family, reduction, recipe_for, train_with, no_dropout, weight_difference):
    """Eight windows or rows cut several ways, in both engines: gradient ratio 1 within 1e-6, weights within 1e-6."""
    base = [*TASKS[kind], *no_dropout(family), f"loss.reduction={reduction}", *REDUCTIONS[reduction], "train.epochs=1",
            "dataset.splits.evaluation=null", "train.max_grad_norm=null", f"optimizer.lr={RATES[kind]}"]  # fmt: skip
    eight = {"train": EIGHT[kind]}
    reference = None
    for batch_size, accumulate in SPLITS if reduction == "mean" else SPLITS[::3]:
        for engine in ("trainer", "loop"):
            recipe = recipe_for(family, *base, f"train.batch_size={batch_size}", f"train.accumulate={accumulate}")
            # A random model hardly tells one choice from another: in fp32 its gradient is mostly cancellation.
            job, (step,) = train_with(recipe, engine, eight, double=True)
            reference = reference or (job, step)
            first, first_step = reference
            assert len(job.train_data) == 8
            assert step["num_items"] == (16 if kind == "question-answering" else 8)
            assert step["grad_norm"] / first_step["grad_norm"] == pytest.approx(1, abs=1e-6)
            assert step["loss"] == pytest.approx(first_step["loss"], abs=1e-6)
            assert weight_difference(job, first) < 1e-6
    untrained = prepare(recipe_for(family, *base), dataset=eight)
    assert weight_difference(untrained, reference[0]) > 1e-4  # the update is no nothing


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_engines_agree(kind, family, recipe_for, train_with, weight_difference):
    """With dropout, ragged batches, clipping and evaluations, records and weights of the engines differ by exactly 0."""
    recipe = recipe_for(family, *TASKS[kind], "train.accumulate=2", "evaluate.every=3", "train.max_grad_norm=0.5")
    by_trainer, trainer_records = train_with(recipe, "trainer", DATA[kind])
    by_loop, loop_records = train_with(recipe, "loop", DATA[kind])
    assert trainer_records == loop_records
    assert weight_difference(by_trainer, by_loop) == 0.0
    figure = "exact_match" if kind == "question-answering" else "accuracy"
    assert all(figure in record["metrics"] for record in loop_records if record["type"] == "evaluation")
    assert any(record["type"] == "evaluation" for record in loop_records)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_evaluation_does_not_depend_on_the_batch_size(kind, family, recipe_for):
    """The loss over a split and every decision on it are the same for batches of 1, 3 and 64."""
    job = prepare(recipe_for(family, *TASKS[kind]), dataset=DATA[kind])
    assert job.evaluation_data is not None
    assert len(set(lengths(job.evaluation_data))) > 3
    seen = [
        predict(job.model, job.task, job.evaluation_data, job.collate,
                batch_size=size, precision=job.precision, objective=job.objective)
        for size in (1, 3, 64)
    ]  # fmt: skip
    losses = [mean_loss_of(one) for one in seen]
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-7)
    decisions = [list(job.task.decode(one.logits, job.evaluation_data, job.evaluation_rows)[0]) for one in seen]
    if kind != "question-answering":
        assert decisions[0] == decisions[1] == decisions[2]
    texts = [[one["prediction_text"] for one in some] for some in decisions] if kind == "question-answering" else []
    assert all(one == texts[0] for one in texts)


@pytest.mark.parametrize(
    ("contexts", "told"), [([12] * 8, "is correct here too"), ([2] * 7 + [18], "depends on the padding")]
)
def test_doctor_says_what_the_stock_trainer_does_with_spans(contexts, told, recipe_for, no_dropout):
    """A bare Trainer is right for spans of one length, and counts padding where lengths differ; doctor says which."""
    task = [*TASKS["question-answering"], *no_dropout("bert"), "dataset.splits.evaluation=null"]
    rows = questions(contexts).map(lambda row: {**row, "question": "bak"})
    job = prepare(recipe_for("bert", *task), dataset={"train": rows})
    name, ok, detail, _ = doctor_probes._stock(job, job.train_data, 2, 4)
    assert (name, ok) == ("stock Trainer", True)
    assert told in detail


def test_doctor_sees_the_inflation_of_choices(recipe_for, no_dropout):
    """A bare Trainer multiplies the gradient of multiple choice by the accumulation, and doctor says so."""
    task = [*TASKS["multiple-choice"], *no_dropout("bert"), "dataset.splits.evaluation=null"]
    job = prepare(recipe_for("bert", *task), dataset={"train": EIGHT["multiple-choice"]})
    assert "inflated 4.000 times" in doctor_probes._stock(job, job.train_data, 2, 4)[2]
    assert doctor_probes._tokenizer(job)[1]  # which looks through the nested tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_is_no_position(family, recipe_for, no_dropout):
    """The items of a window in a padded batch have the losses they have alone, whose mean is transformers' own loss."""
    job = prepare(
        recipe_for(family, *TASKS["question-answering"], *no_dropout(family)), dataset=DATA["question-answering"]
    )
    examples = Examples(job.train_data)
    rows = examples.__getitems__(range(12))
    assert len({len(row["input_ids"]) for row in rows}) > 3

    def losses(some: list[dict[str, Any]]) -> torch.Tensor:
        batch = job.collate(some)
        labels = batch.pop("labels")
        return job.objective.item_losses(outputs_of(job.model(**batch), batch), labels).reshape(-1, 2)

    with torch.no_grad():
        together, alone = losses(rows), [losses([row]) for row in rows]
        assert torch.allclose(together, torch.cat(alone), atol=1e-6, rtol=0)
        for row, own in zip(rows, alone, strict=True):
            batch = job.collate([row])
            start, end = batch.pop("labels").unbind(1)
            theirs = job.model(**batch, start_positions=start, end_positions=end).loss
            assert float(own.mean()) == pytest.approx(float(theirs), abs=1e-6)
