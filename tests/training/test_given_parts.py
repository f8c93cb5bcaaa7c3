"""What is given from Python as an object: trained, found again by its name or asked for again, never replaced in silence."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import own_models
import pytest
import torch
from conftest import _WORDS
from safetensors.torch import load_file
from stopped import Dying, Killed
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import AutoConfig, AutoTokenizer, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

import hfpipe
from hfpipe.errors import ModelError, RecipeError
from hfpipe.experiments.reproduce import reproduce
from hfpipe.parts.model import own_class
from hfpipe.sharing.export import export
from hfpipe.sharing.push import uploads
from hfpipe.training.engines import loop

ENGINES = ["trainer", "loop"]
ROWS = [("bak cek", "bak dal"), ("bak", "dal fin"), ("fin bak dal", "cek")]


@pytest.fixture
def train(recipe_fields: dict[str, Any], tmp_path: Path, no_report: None) -> Callable[..., hfpipe.Run]:
    """Trains the tiny recipe for a few steps with these overrides and parts."""

    def finetune(*overrides: str, **parts: Any) -> hfpipe.Run:
        changes = ["train.max_steps=6", "checkpoints.keep_state=true", *overrides]
        return hfpipe.finetune(recipe_fields, overrides=changes, runs_dir=tmp_path / "runs", **parts)

    return finetune


class Hidden:
    """Classes and functions as they stand in a script: no name finds them."""

    @staticmethod
    def net() -> nn.Module:
        """A plain module."""

        class Net(own_models.Net):
            pass

        return Net()

    @staticmethod
    def bert(config: Any) -> nn.Module:
        """A model of transformers with a forward of its own, which has the name of the class that it changes."""

        class BertForSequenceClassification(own_models.MeanBert):
            pass

        return BertForSequenceClassification(config)

    @staticmethod
    def loss() -> Any:
        """A loss."""

        def smoothed(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return own_models.smoothed(logits, targets)

        return smoothed


def bert(checkpoint: Path, kind: Any = BertForSequenceClassification) -> Any:
    """A model with the architecture of the checkpoint and random weights."""
    torch.manual_seed(1)
    return kind(AutoConfig.from_pretrained(checkpoint))


def own_head(checkpoint: Path) -> nn.Module:
    """A model of transformers whose head was replaced."""
    model = bert(checkpoint)
    model.classifier = nn.Sequential(nn.Linear(32, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 2))
    return model


def frozen(checkpoint: Path) -> nn.Module:
    """A model of transformers of which only the head is trained."""
    model = bert(checkpoint)
    model.bert.requires_grad_(False)
    return model


def dropped(checkpoint: Path) -> nn.Module:
    """A model of transformers with another dropout than its configuration says."""
    model = bert(checkpoint)
    model.dropout.p = 0.4
    return model


def net(checkpoint: Path) -> nn.Module:
    """A plain module with tied weights, dropout and a norm over batches."""
    torch.manual_seed(1)
    return own_models.Net()


FOUND: dict[str, Callable[[Path], Any]] = {
    "stock": bert,
    "subclass": lambda checkpoint: bert(checkpoint, own_models.MeanBert),
    "plain": net,
}
ASKED_FOR: dict[str, Callable[[Path], Any]] = {
    "own head": own_head,
    "frozen": frozen,
    "other dropout": dropped,
    "wrapped": own_models.wrapped,
    "hidden plain": lambda checkpoint: Hidden.net(),
    "hidden subclass": lambda checkpoint: Hidden.bert(AutoConfig.from_pretrained(checkpoint)),
}


def weights(run: hfpipe.Run) -> dict[str, torch.Tensor]:
    """The final ones."""
    return dict(load_file(run.path / "model" / "model.safetensors"))


def same(first: hfpipe.Run, second: hfpipe.Run) -> bool:
    """Whether two runs ended with the same weights, bit for bit, and the same metrics."""
    one, two = weights(first), weights(second)
    return (
        one.keys() == two.keys()
        and all(torch.equal(one[key], two[key]) for key in one)
        and (first.metrics == second.metrics)
    )


@pytest.mark.parametrize("kind", FOUND)
def test_a_model_of_a_class_that_is_found_is_measured_as_it_was_trained(
    train: Callable[..., hfpipe.Run], tiny_checkpoint: Path, kind: str, tmp_path: Path
) -> None:
    """Both engines give the same weights; evaluation in a fresh process too, predictions and `run.model` are the model's."""
    model = FOUND[kind](tiny_checkpoint)
    runs = [train(engine=engine, model=copy.deepcopy(model), name=engine) for engine in ENGINES]
    assert same(*runs)
    run = runs[1]
    assert hfpipe.evaluate(run).metrics == run.metrics
    config = json.loads((run.path / "model" / "config.json").read_text())
    assert config["id2label"] == {"0": "other", "1": "same"}
    again = run.model()
    assert type(again) is type(model)
    assert not again.training
    state = again.state_dict()
    assert all(torch.equal(state[key], values) for key, values in weights(run).items())
    code = f"import hfpipe, json; print(json.dumps(hfpipe.evaluate({str(run.path)!r}).metrics))"
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path,
                           env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert json.loads(fresh.stdout) == run.metrics
    assert run.predict(ROWS) == run.predict(ROWS, model=FOUND[kind](tiny_checkpoint))


@pytest.mark.parametrize("kind", ASKED_FOR)
def test_a_model_that_no_class_gives_is_asked_for(
    train: Callable[..., hfpipe.Run], tiny_checkpoint: Path, kind: str, tmp_path: Path
) -> None:
    """Evaluation, prediction, resume, export, push and reproduction refuse without `model=`, and take it."""
    torch.manual_seed(2)
    model = ASKED_FOR[kind](tiny_checkpoint)
    initial = copy.deepcopy(model)
    run = train(engine="loop", model=model, name="one")
    assert any("can't be had again from its class" in record["text"] for record in run.records if "text" in record)
    other = ASKED_FOR[kind](tiny_checkpoint)
    assert hfpipe.evaluate(run, model=other).metrics == run.metrics
    state = other.state_dict()
    assert all(torch.equal(state[key], values) for key, values in weights(run).items())
    for use in (
        lambda: hfpipe.evaluate(run),
        lambda: run.predict(ROWS),
        lambda: run.model(),
        lambda: hfpipe.finetune(resume=run, overrides=["train.max_steps=8"], allow_change=["train.max_steps"]),
        lambda: export(run, tmp_path / "exported"),
        lambda: uploads(run, "ann/tiny"),
        lambda: reproduce(run),
    ):
        with pytest.raises(RecipeError, match=r"was given model \(.*can't be found again.*model=\.\.\."):
            use()
    predicted = run.predict(ROWS, model=other)
    assert len(predicted) == 3
    assert len(export(run, tmp_path / "exported", model=other).files) > 4
    uploads(run, "ann/tiny", other)
    assert reproduce(run, model=initial, runs_dir=tmp_path / "again").equal
    with pytest.raises(ModelError, match="not what run 'one' was trained with: model"):
        reproduce(run, model=other, runs_dir=tmp_path / "again")
    with pytest.raises(ModelError, match=r"classifier|trained as|lacks|model="):  # the bare folder says it too
        hfpipe.evaluate(run.path / "model", recipe=run.recipe)
    card = (run.path / "model" / "README.md").read_text()
    assert "is an object that was given from Python" in card
    assert "from_pretrained" not in card


@pytest.mark.parametrize("kind", [*FOUND, "own head", "hidden plain"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_given_model_is_resumed_to_the_bit(
    train: Callable[..., hfpipe.Run], tiny_checkpoint: Path, kind: str, engine: str
) -> None:
    """Stopped after step 3 and resumed, by its class or with the model given anew, it ends as without the stop."""
    make = (FOUND | ASKED_FOR)[kind]
    torch.manual_seed(2)
    first = make(tiny_checkpoint)
    whole = train("checkpoints.every_steps=3", engine=engine, model=copy.deepcopy(first), name="whole")

    with pytest.raises(Killed):
        train("checkpoints.every_steps=3", engine=engine, model=first, name="cut", display=Dying(4))
    again = {} if kind in FOUND else {"model": make(tiny_checkpoint)}
    cut = hfpipe.finetune(resume=whole.path.parent / "cut", **again)
    assert same(whole, cut)


def test_a_run_that_began_with_a_model_begins_again_with_it(
    train: Callable[..., hfpipe.Run], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """Without a checkpoint the weights that it began with are asked for, though its class is found."""
    make = FOUND["subclass"]
    with pytest.raises(Killed):
        train(model=make(tiny_checkpoint), engine="loop", name="cut", display=Dying(1))
    with pytest.raises(RecipeError, match=r"model \(own_models:MeanBert\).*model=\.\.\."):
        hfpipe.finetune(resume=tmp_path / "runs" / "cut")
    run = hfpipe.finetune(resume=tmp_path / "runs" / "cut", model=make(tiny_checkpoint))
    assert same(run, train(model=make(tiny_checkpoint), engine="loop", name="whole"))


def test_an_engine_that_no_name_finds_gives_way_to_a_named_one(
    train: Callable[..., hfpipe.Run], tmp_path: Path
) -> None:
    """A run that died in a local function is refused without an engine, and goes on exactly with one by its name."""

    def mine(job: Any, emit: Any) -> None:
        loop.train(job, emit)

    with pytest.raises(Killed):
        train("checkpoints.every_steps=2", engine=mine, name="cut", display=Dying(5))
    cut = hfpipe.Run(tmp_path / "runs" / "cut")
    with pytest.raises(RecipeError, match=r"given engine \(.*mine\).*engine=\.\.\..*by its name: engine=loop"):
        hfpipe.finetune(resume=cut)
    copied = hfpipe.Run(Path(shutil.copytree(cut.path, tmp_path / "runs" / "copy")))
    whole = train("checkpoints.every_steps=2", engine="loop", name="whole")
    for run, recipe in ((cut, None), (copied, cut.recipe)):
        again = hfpipe.finetune(recipe, resume=run, engine="loop")
        assert [one["step"] for one in again.metadata["resumed"]] == [4]
        told = [one["text"] for one in again.records if "resumed" in one]
        assert [
            text
            for text in told
            if text.startswith("engine changed from ") and text.endswith(".mine to loop, as allowed")
        ]
        assert again.metadata["given"] == {}
        assert same(again, whole)


def test_what_a_model_must_do_is_said_before_training(train: Callable[..., hfpipe.Run], tiny_checkpoint: Path) -> None:
    """A model that does not take the batch, gives no logits or too few, a class and a name are refused with what is right."""

    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return input_ids * self.weight

    class Silent(Narrow):
        def forward(self, **inputs: torch.Tensor) -> Any:
            return [1]

    class Few(Narrow):
        def forward(self, **inputs: torch.Tensor) -> Any:
            return self.weight.expand(len(inputs["input_ids"]), 3)

    with pytest.raises(ModelError, match=r"unexpected keyword argument.*a forward that takes input_ids \[4, \d+\]"):
        train(model=Narrow())
    with pytest.raises(ModelError, match="the model returned a list"):
        train(model=Silent())
    with pytest.raises(ModelError, match="has 3 outputs, and the data have the 2 classes other, same"):
        train(model=Few())
    with pytest.raises(RecipeError, match=r"allowed: a torch.nn.Module\. Pass an object: Net\(\.\.\.\)"):
        train(model=own_models.Net)
    with pytest.raises(RecipeError, match=r"model='bert-base-cased'.*A name is model\.checkpoint"):
        train(model="bert-base-cased")
    with pytest.raises(RecipeError, match=r"loss='focal'.*A name belongs into the recipe: loss\.name"):
        train(loss="focal")


def test_classes_of_another_name_are_told(train: Callable[..., hfpipe.Run], tiny_checkpoint: Path) -> None:
    """Names that a given model has for its classes give way to those of the data, with a notice."""
    model = bert(tiny_checkpoint)
    model.config.id2label = {0: "bad", 1: "good"}
    run = train(model=model)
    assert any("classes ['bad', 'good'] are ['other', 'same']" in one["text"] for one in run.records if "text" in one)


def test_the_longest_input_is_that_of_the_given_model(train: Callable[..., hfpipe.Run], tiny_checkpoint: Path) -> None:
    """A given model with fewer positions than the checkpoint cuts the rows to its own, in evaluation as in training."""
    config = AutoConfig.from_pretrained(tiny_checkpoint, max_position_embeddings=9)
    run = train(model=BertForSequenceClassification(config))
    assert hfpipe.evaluate(run).metrics == run.metrics


def test_importable_parts_stand_in_the_recipe(train: Callable[..., hfpipe.Run]) -> None:
    """Loss, metrics among names, optimizer, schedule and collator are used again by their names, in evaluation too."""
    run = train(
        "checkpoints.every=never",
        engine="loop",
        loss=own_models.smoothed,
        metrics=["accuracy", own_models.share_of_ones, {"name": "f1", "average": "macro"}],
        optimizer=torch.optim.SGD,
        collate=own_models.reversed_words,
    )
    recipe = run.recipe
    assert run.metadata["given"] == {}
    assert recipe.loss.name == "own_models:smoothed"
    assert recipe.evaluate.metrics == ("accuracy", "own_models:share_of_ones", {"name": "f1", "average": "macro"})
    assert recipe.model.collate == "own_models:reversed_words"
    assert recipe.optimizer.name.endswith(":SGD")
    assert hfpipe.evaluate(run).metrics == run.metrics
    assert {"ones", "accuracy", "f1_macro"} < set(run.metrics)
    assert reproduce(run, runs_dir=run.path.parent).equal
    assert "smoothed" in (run.path / "model" / "README.md").read_text()


def test_other_objects_are_asked_for(train: Callable[..., hfpipe.Run], pairs: dict[str, Any]) -> None:
    """Loss, metric, data and collator that no name finds: the run that training returned still has all but the data for an
    evaluation; from its folder an evaluation refuses with what to pass, and takes it."""
    classes = datasets.ClassLabel(names=["other", "same"])
    data = {name: datasets.Dataset.from_list(rows).cast_column("label", classes) for name, rows in pairs.items()}
    loss, stock = Hidden.loss(), own_models.reversed_words
    parts: dict[str, Any] = {
        "loss": loss,
        "metrics": ["accuracy", lambda predictions, references: {"rows": float(len(predictions))}],
        "dataset": data,
        "collate": lambda rows: stock(rows),
    }
    run = train(engine="loop", **parts, optimizer=lambda groups, **options: torch.optim.SGD(groups, **options))
    assert set(run.metadata["given"]) == {*parts, "optimizer"}
    with pytest.raises(RecipeError, match=r"dataset=\.\.\."):
        hfpipe.evaluate(run)
    held = hfpipe.evaluate(run, dataset=data)
    assert held.metrics == run.metrics
    assert held.document["overrides"] == []
    run = hfpipe.Run(run.path)
    with pytest.raises(RecipeError, match=r"loss=\.\.\..*") as caught:
        hfpipe.evaluate(run)
    assert all(f"{key}=..." in str(caught.value) for key in parts)
    assert "optimizer=" not in str(caught.value)
    measured = hfpipe.evaluate(run, **parts)
    assert measured.metrics == run.metrics
    assert measured.document["overrides"] == []
    with pytest.raises(RecipeError, match=r"collate=\.\.\."):
        run.predict(ROWS)
    assert len(run.predict(ROWS, collate=parts["collate"])) == 3
    with pytest.raises(RecipeError, match=r"optimizer=\.\.\."):
        hfpipe.finetune(resume=run, overrides=["train.max_steps=8"], allow_change=["train.max_steps"])
    card = (run.path / "model" / "README.md").read_text()
    assert "smoothed`, given from Python" in card


def test_other_parts_than_the_runs_are_noted(train: Callable[..., hfpipe.Run]) -> None:
    """An evaluation with another loss than the run's says so, and does not take the place of the run's own."""
    run = train(engine="loop")
    measured = hfpipe.evaluate(run, loss=own_models.smoothed)
    assert measured.metrics["loss"] != run.metrics["loss"]
    assert measured.document["overrides"] == ['loss.name="own_models:smoothed"']
    measured = hfpipe.evaluate(run, loss=Hidden.loss())
    assert measured.document["overrides"][0].startswith("loss=")


def test_a_given_tokenizer_is_kept_by_the_run(
    train: Callable[..., hfpipe.Run], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """A tokenizer object is saved with the run, and used by evaluation, prediction, resume and reproduction."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    tokenizer.model_max_length = 10
    run = train(engine="loop", tokenizer=tokenizer, name="one")
    assert hfpipe.evaluate(run).metrics == run.metrics
    assert run.predict(ROWS) == run.predict(ROWS, tokenizer=tokenizer)
    longer = hfpipe.finetune(resume=run, overrides=["train.max_steps=8"], allow_change=["train.max_steps"])
    assert longer.metadata["given"] == run.metadata["given"]
    assert reproduce(longer, runs_dir=tmp_path / "again", anyway=True).inputs == {}


def test_an_own_class_by_its_name_in_a_recipe(
    recipe_fields: dict[str, Any], tiny_checkpoint: Path, tmp_path: Path, no_report: None
) -> None:
    """`model.architecture` loads a subclass with the checkpoint's weights, sharded or not, and makes a module anew."""
    names = {"architecture": "own_models:MeanBert"}
    recipe = {**recipe_fields, "model": {**recipe_fields["model"], **names}, "train": {"max_steps": 2}}
    job = hfpipe.prepare(hfpipe.load_recipe(recipe))
    assert type(job.model) is own_models.MeanBert
    stock = BertModel.from_pretrained(tiny_checkpoint).state_dict()
    assert all(
        torch.equal(values, stock[key]) for key, values in job.model.bert.state_dict().items() if "pooler" not in key
    )
    run = hfpipe.finetune(recipe, runs_dir=tmp_path)
    assert hfpipe.evaluate(run).metrics == run.metrics
    sharded = tmp_path / "sharded"
    run.model().save_pretrained(sharded, max_shard_size="40KB")
    AutoTokenizer.from_pretrained(run.path / "model").save_pretrained(sharded)
    assert len(list(sharded.glob("*.safetensors"))) > 2
    assert hfpipe.evaluate(sharded, recipe=run.recipe).metrics == run.metrics
    with pytest.raises(
        ModelError, match=r"was trained as own_models:MeanBert.*model\.architecture=own_models:MeanBert"
    ):
        hfpipe.evaluate(sharded, recipe=recipe_fields)
    with pytest.raises(ModelError, match="trained as own_models:MeanBert, and this is a own_models:Net"):
        hfpipe.evaluate(run, model=own_models.Net())
    plain = {**recipe, "model": {**recipe_fields["model"], "architecture": "own_models:Net"}}
    run = hfpipe.finetune(plain, runs_dir=tmp_path)
    assert hfpipe.evaluate(run).metrics == run.metrics
    assert "head.weight" in run.metadata["fresh"]
    further = {**plain, "model": {**plain["model"], "checkpoint": str(run.path / "model")}}
    assert hfpipe.prepare(hfpipe.load_recipe(further)).fresh == []


def test_a_checkpoint_of_another_class_is_not_loaded_as_a_stock_one(
    recipe_fields: dict[str, Any], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """A folder that only names another architecture, as `save_pretrained` of a subclass writes it, is refused."""
    model = bert(tiny_checkpoint, own_models.MeanBert)
    model.config.id2label = {0: "other", 1: "same"}
    model.save_pretrained(tmp_path / "saved")
    AutoTokenizer.from_pretrained(tiny_checkpoint).save_pretrained(tmp_path / "saved")
    with pytest.raises(
        ModelError, match=r"was trained as MeanBert, and would be loaded as BertForSequenceClassification"
    ):
        hfpipe.evaluate(tmp_path / "saved", recipe=recipe_fields)
    named = {**recipe_fields, "model": {**recipe_fields["model"], "architecture": "own_models:MeanBert"}}
    assert hfpipe.evaluate(tmp_path / "saved", recipe=named).examples == 21
    assert hfpipe.evaluate(tmp_path / "saved", recipe=recipe_fields, model=model).examples == 21


def test_each_variant_and_seed_begins_with_the_given_weights(
    recipe_fields: dict[str, Any], tiny_checkpoint: Path, tmp_path: Path, no_report: None
) -> None:
    """A given model is copied for every variant of a comparison: the second does not begin where the first ended."""
    small = ["train.max_steps=2"]
    compared = hfpipe.compare(
        recipe_fields, {"engine": ENGINES}, overrides=small, runs_dir=tmp_path, model=net(tiny_checkpoint)
    )
    assert compared.variants[1].verdict == "the same, bit for bit"


def test_the_card_of_an_own_class_loads_it(
    train: Callable[..., hfpipe.Run], tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The example of the card, run as it stands, gives the answer of the run: for a subclass and for a plain module."""
    from hfpipe.sharing.model_card import PLACE

    for kind in ("subclass", "plain"):
        run = train(model=FOUND[kind](tiny_checkpoint), engine="loop", name=kind)
        exported = tmp_path / f"exported-{kind}"
        assert any("whose code is not exported" in one for one in export(run, exported).notices)
        card = (exported / "README.md").read_text()
        code = card.split("```python\n")[1].split("```")[0].replace(PLACE, f"checkpoint = {str(exported)!r}")
        capsys.readouterr()
        exec(compile(code, kind, "exec"), {})
        expected = run.predict([("A text.", "Another text.")])[0]["label"]
        assert capsys.readouterr().out.strip() == expected


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_wrapper_of_peft_is_measured_as_it_was_trained(
    train: Callable[..., hfpipe.Run], tiny_checkpoint: Path
) -> None:
    """A PEFT model is saved whole, refused without `model=`, and measured with it."""
    peft = pytest.importorskip("peft", reason="peft is not installed")

    def lora() -> Any:
        config = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"])
        return peft.get_peft_model(bert(tiny_checkpoint), config)

    run = train(model=lora(), engine="trainer")
    with pytest.raises(RecipeError, match=r"model=\.\.\."):
        hfpipe.evaluate(run)
    assert hfpipe.evaluate(run, model=lora()).metrics == run.metrics


@pytest.mark.parametrize("kind", [bert, net])
def test_a_model_in_half_precision_is_trained_in_fp32_and_says_so(
    train: Callable[..., hfpipe.Run], tiny_checkpoint: Path, kind: Callable[[Path], Any]
) -> None:
    """It trains as the same model in fp32 does, is found again by its class, and another half one gets all its weights."""
    half = kind(tiny_checkpoint).to(torch.bfloat16)
    whole = copy.deepcopy(half).float()
    if hasattr(whole, "config"):
        whole.config.dtype = torch.float32
    runs = [train(model=model, name=name) for model, name in ((half, "half"), (whole, "whole"))]
    assert same(*runs)
    assert {values.dtype for values in weights(runs[0]).values()} <= {torch.float32, torch.int64}
    said = ["the given model came in bfloat16" in str(run.records) for run in runs]
    assert said == [True, False]
    assert hfpipe.evaluate(runs[0]).metrics == runs[0].metrics
    assert hfpipe.evaluate(runs[0], model=kind(tiny_checkpoint).half()).metrics == runs[0].metrics


def test_frozen_weights_in_half_precision_stay_so(tiny_checkpoint: Path) -> None:
    """What nothing trains may be as small as it came: an encoder in bf16 below adapters in fp32."""
    model = bert(tiny_checkpoint).to(torch.bfloat16).requires_grad_(False)
    model.classifier.float().requires_grad_(True)
    assert own_class.train_in_fp32(model) == ""
    assert model.bert.pooler.dense.weight.dtype == torch.bfloat16


def _without(*keys: str) -> Callable[..., Any]:
    def lacking(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {key: value for key, value in own_models.reversed_words(rows).items() if key not in keys}

    return lacking


@pytest.mark.parametrize(
    ("collate", "said"),
    [
        (_without("labels"), "lacking leaves out the labels of the rows"),
        (_without("input_ids", "attention_mask"), "lacking gave nothing for the model"),
        (lambda rows: rows, "gave a list"),
        (lambda rows: {"input_ids": [row["input_ids"] for row in rows]}, "gave a list as 'input_ids'"),
        (
            lambda rows: {**own_models.reversed_words(rows), "labels": torch.zeros(9)},
            r"gave labels of the shape \[9\] for",
        ),
        (lambda rows: {"labels": rows[0]["idx"]}, "fails on rows with .*labels.*: KeyError: 'idx'"),
    ],
)
def test_a_collate_that_makes_no_batch_is_told_before_the_first_step(
    train: Callable[..., hfpipe.Run], collate: Any, said: str
) -> None:
    """What it gave and what it should, in place of an error from inside an engine."""
    with pytest.raises(RecipeError, match=said) as caught:
        train(collate=collate)
    assert caught.value.where == "model.collate"


def test_a_loss_that_is_a_class_or_has_weights_is_refused(train: Callable[..., hfpipe.Run]) -> None:
    """A class is no loss, and nothing would train the weights of one."""
    with pytest.raises(RecipeError, match=r"CrossEntropyLoss is a class.*loss=CrossEntropyLoss\(\.\.\.\)"):
        train(loss=nn.CrossEntropyLoss)

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2))

        def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(logits * self.scale, targets, reduction="none")

    with pytest.raises(RecipeError, match="the loss Scaled has weights of its own, scale, which no optimizer trains"):
        train(loss=Scaled())
    assert train(loss=Scaled().requires_grad_(False)).status == "finished"


def test_a_metric_called_loss_is_refused(train: Callable[..., hfpipe.Run]) -> None:
    """The mean loss would silently stand in its place."""

    def loss(predictions: Any, references: Any) -> dict[str, float]:
        return {"loss": 0.5}

    with pytest.raises(RecipeError, match="it gives 'loss'"):
        train("evaluate.best=null", metrics=["accuracy", loss])


def _words(size: int) -> PreTrainedTokenizerFast:
    """A tokenizer of that many whole words, padding last."""
    words = ["[UNK]", *_WORDS]
    vocabulary = {word: n for n, word in enumerate([*words, *(f"w{n}" for n in range(size - len(words) - 1)), "[PAD]"])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]")


@pytest.mark.parametrize("by_name", [False, True])
def test_a_module_with_a_tokenizer_of_its_own_is_found_again_with_both(
    train: Callable[..., hfpipe.Run], tiny_checkpoint: Path, by_name: bool
) -> None:
    """However many tokens it has: those of the checkpoint that neither is made of don't bind them."""
    tokens = AutoConfig.from_pretrained(tiny_checkpoint).vocab_size + 5
    parts: dict[str, Any] = {"tokenizer": _words(tokens)}
    run = train("model.architecture=own_models:Net", **parts) if by_name else train(model=net(tiny_checkpoint), **parts)
    assert hfpipe.evaluate(run).metrics == run.metrics
    assert json.loads((run.path / "model" / "config.json").read_text())["vocab_size"] == tokens
    assert run.predict(ROWS) == run.predict(ROWS, tokenizer=_words(tokens))
    assert not any("pad with here" in str(record) for record in run.records)


def test_a_tokenizer_with_more_tokens_than_the_checkpoint_has_embeddings_is_refused_before_training(
    train: Callable[..., hfpipe.Run], tiny_checkpoint: Path
) -> None:
    """With the model that has a row for each it is taken."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    tokenizer.add_tokens(["zebra", "giraffe"])
    with pytest.raises(ModelError, match=r"given tokenizer has .* entries.*resize_token_embeddings"):
        train(tokenizer=tokenizer)
    model = bert(tiny_checkpoint)
    model.resize_token_embeddings(len(tokenizer))
    run = train(tokenizer=tokenizer, model=model)
    assert hfpipe.evaluate(run).metrics == run.metrics


def test_a_run_that_is_not_there_is_no_traceback(tmp_path: Path) -> None:
    """`hfpipe.Run` of a folder that was removed, or never made."""
    with pytest.raises(RecipeError, match="no run"):
        hfpipe.finetune(resume=hfpipe.Run(tmp_path / "gone"), runs_dir=tmp_path)


def test_an_optimizer_or_loss_with_other_arguments_does_not_go_on_in_silence(train: Callable[..., hfpipe.Run]) -> None:
    """What `functools.partial` makes is told apart by what it calls and with what, and a state by the class that it is of."""
    sgd, loss = partial(torch.optim.SGD, momentum=0.9), partial(own_models.smoothed)
    run = train("train.max_steps=3", optimizer=sgd, loss=loss)
    assert run.metadata["given"]["optimizer"] == "torch.optim.sgd:SGD(momentum=0.9)"

    def go_on(*allowed: str, **parts: Any) -> hfpipe.Run:
        changes = {"overrides": ["train.max_steps=5"], "allow_change": ["train.max_steps", *allowed]}
        return hfpipe.finetune(resume=run, **changes, **parts)

    with pytest.raises(RecipeError, match=r"what was passed as an object differs"):
        go_on(optimizer=partial(torch.optim.SGD, momentum=0.5), loss=loss)
    with pytest.raises(ModelError, match=r"the optimizer was SGD, and is AdamW now.*--reset-optimizer"):
        go_on("given", optimizer=partial(torch.optim.AdamW), loss=loss)
    assert (
        go_on(optimizer=partial(torch.optim.SGD, momentum=0.9), loss=partial(own_models.smoothed)).status == "finished"
    )


def test_marks_added_as_special_tokens_are_told_to_be_read_as_text(
    recipe_fields: dict[str, Any], tiny_checkpoint: Path
) -> None:
    """Marks of entities, as people add them: as special tokens they would never be seen, as added tokens they are."""
    rows = datasets.Dataset.from_dict(
        {
            "first": ["<e1> " + "bak fin " * 12, "bak dal " * 12] * 8,
            "second": ["bak", "dal fin"] * 8,
            "same": ["other", "same"] * 8,
        }
    )
    fields = {
        "name": "marks",
        "dataset": {"splits": {"hold_out": 4}},
        "task": {"text": ["first", "second"], "label": "same"},
        "model": recipe_fields["model"],
        "train": {"max_steps": 1},
    }
    for special in (True, False):
        tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
        tokenizer.add_tokens(["<e1>"], special_tokens=special)
        if special:
            tokenizer.add_special_tokens({"additional_special_tokens": ["<e1>"]})
        model = bert(tiny_checkpoint)
        model.resize_token_embeddings(len(tokenizer))
        job = hfpipe.prepare(fields, dataset=rows, tokenizer=tokenizer, model=model)
        told = [text for text in job.notices if "have the name of a special token" in text and "'<e1>'" in text]
        seen = any(tokenizer.convert_tokens_to_ids("<e1>") in row for row in job.train_data["input_ids"])
        assert (bool(told), seen) == (special, not special)


def test_arguments_of_the_wrong_kind_are_told(train: Callable[..., hfpipe.Run], tmp_path: Path) -> None:
    """An optimizer that is made already, an engine of another signature, no split at all, and a run that is gone."""
    made = torch.optim.SGD(nn.Linear(1, 1).parameters(), 0.1)
    with pytest.raises(RecipeError, match=r"optimizer is a SGD.*functools\.partial"):
        train(optimizer=made)
    with pytest.raises(RecipeError, match=r"too many positional arguments; allowed: a function train\(job, emit\)"):
        train(engine=lambda job: None)
    with pytest.raises(RecipeError, match=r"too many positional arguments; allowed: rows"):
        train("engine=own_models:reversed_words")
    with pytest.raises(RecipeError, match=r"split is \[\]"):
        hfpipe.evaluate(train(), split=[])
    with pytest.raises(RecipeError, match="no run at"):
        hfpipe.evaluate(hfpipe.Run(tmp_path / "gone"))


@pytest.mark.parametrize(("change", "shape"), [(lambda z: z[:, None], r"\[4, 1, 2\]"), (lambda z: z[0], r"\[2\]")])
def test_logits_of_another_shape_are_refused_before_training(
    train: Callable[..., hfpipe.Run], change: Callable[[torch.Tensor], torch.Tensor], shape: str
) -> None:
    """An axis too many, or the logits of one row for all of them."""

    class Other(own_models.Net):
        def forward(self, *inputs: Any, **named: Any) -> torch.Tensor:
            return change(super().forward(*inputs, **named))

    with pytest.raises(ModelError, match=rf"gave logits of the shape {shape} for 4 rows"):
        train(model=Other())
