"""`hfpipe doctor`: what it measures of a recipe, what it says of the machine, and each way in which it finds fault."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from hfpipe import load_recipe
from hfpipe.experiments import doctor, doctor_probes
from hfpipe.experiments.doctor import Check, examine, exit_code
from hfpipe.parts.optim.objective import Objective
from hfpipe.system.machine import bytes_below
from hfpipe.training.engines import loop, trainer

NAMES = ["versions", "checkpoint", "device", "tokenizer", "padding", "loss scale", "stock Trainer", "engines agree"]


def by_name(checks: list[Check]) -> dict[str, Check]:
    """The checks by their names."""
    return {check.name: check for check in checks}


def copied_checkpoint(folder: Path, tokenizer_of: Path, **config: Any) -> str:
    """A random checkpoint of another configuration with the tokenizer of a given one."""
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 24}
    BertModel(BertConfig(max_position_embeddings=66, **layers, **config)).save_pretrained(folder)
    PreTrainedTokenizerFast.from_pretrained(tokenizer_of).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def recipe_file(recipe_fields: dict[str, Any], tmp_path: Path) -> Path:
    """The tiny recipe as a file."""
    file = tmp_path / "tiny.yaml"
    file.write_text(json.dumps(recipe_fields), encoding="utf-8")
    return file


def test_a_sound_recipe(recipe_file: Path, hfpipe_command: Callable[..., Any]) -> None:
    """One JSON object of checks, all well, in the order they are made, and nothing on standard error."""
    outcome = hfpipe_command("doctor", recipe_file, "--json")
    assert outcome.code == 0
    assert outcome.err == ""
    assert list(outcome.json) == ["checks"]
    assert all(list(check) == ["name", "ok", "detail"] and check["ok"] is True for check in outcome.json["checks"])
    detail = {check["name"]: check["detail"] for check in outcome.json["checks"]}
    assert list(detail) == NAMES
    assert "torch " in detail["versions"]
    assert "freshly initialised: classifier.bias, classifier.weight" in detail["checkpoint"]
    assert detail["device"] == "cpu, fp32: asked for"
    assert detail["tokenizer"].startswith("130 entries for 130 embeddings, special tokens within, 0.0% of ")
    rounding = re.fullmatch(
        r"batches are padded on the right with '\[PAD\]': two rows alone and together differ by (\S+), which is rounding",
        detail["padding"],
    )
    assert rounding is not None
    assert float(rounding[1]) < 1e-5
    shown = re.search(
        r"8 examples as 2x4 and as 8x1 have the ratio (\S+) \(trainer\), (\S+) \(loop\)", detail["loss scale"]
    )
    assert shown
    assert [float(ratio) for ratio in shown.groups()] == pytest.approx(
        [1, 1], abs=1e-5
    )  # rounding: one CPU says 1.000001
    assert "inflated 4.000 times at accumulation 4" in detail["stock Trainer"]
    assert detail["engines agree"] == (
        "trainer and loop, 3 steps with dropout: losses and weights are the same, bit for bit"
    )


def test_the_lines_for_a_person(monkeypatch: pytest.MonkeyPatch, hfpipe_command: Callable[..., Any]) -> None:
    """One line a check, each as soon as it is known; the first fault decides the exit code."""
    found = [Check("device", True, "cpu", 5), Check("tokenizer", False, "no", 4), Check("loss scale", False, "off", 6)]

    def examined(recipe: str, *, overrides: list[str], show: Callable[[Check], None]) -> list[Check]:
        assert (recipe, overrides) == ("some.yaml", ["seed=1"])
        for check in found:
            show(check)
        return found

    monkeypatch.setattr(doctor, "examine", examined)
    outcome = hfpipe_command("doctor", "some.yaml", "seed=1")
    assert outcome.out.splitlines() == [
        "ok       device           cpu",
        "problem  tokenizer        no",
        "problem  loss scale       off",
    ]
    assert outcome.code == 4
    assert exit_code(found[:1]) == 0
    assert exit_code(found[2:]) == 6


def test_the_recipes_own_settings_are_measured(
    recipe_fields: dict[str, Any], tmp_path: Path, tiny_checkpoint: Path
) -> None:
    """Text labels, a class beyond the slice, class weights of the whole split, accumulation, bf16, a plateau."""
    lines = [f"bak dak{' fem' * (row % 5)},{'abc'[0 if row < 36 else row % 3]}" for row in range(60)]
    (tmp_path / "texts.csv").write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    files = {"train": str(tmp_path / "texts.csv"), "validation": str(tmp_path / "texts.csv")}
    fields = {
        "dataset": {"path": "csv", "data_files": files},
        "task": {"text": "text"},
        "model": {"checkpoint": str(tiny_checkpoint)},
        "loss": {"class_weights": "balanced", "reduction": "sum"},
        "schedule": {"name": "reduce_lr_on_plateau", "patience": 2},
        "train": {"batch_size": 4, "accumulate": 3, "precision": "bf16"},
    }
    checks = by_name(examine(fields))
    assert all(check.ok for check in checks.values()), checks
    assert "6 examples as 2x3 and as 6x1" in checks["loss scale"].detail
    assert "3.000 times at accumulation 3" in checks["stock Trainer"].detail
    assert checks["device"].detail.startswith("cpu, bf16: asked for")
    assert checks["engines agree"].detail.endswith("bit for bit")
    small, *_ = doctor_probes._slice(load_recipe(fields))
    assert small.loss.class_weights == pytest.approx([60 / 3 / 44, 60 / 3 / 8, 60 / 3 / 8])


def test_the_process_is_left_as_it_was(recipe_fields: dict[str, Any]) -> None:
    """The random states of whoever calls it are put back."""
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    assert exit_code(examine(recipe_fields)) == 0
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), states[2], strict=True))


def test_measuring_the_scale_leaves_the_weights(recipe_fields: dict[str, Any]) -> None:
    """Both engines and the bare Trainer take their step at a rate of 0 and leave no gradient, mode or wrapper."""
    small, data, _ = doctor_probes._slice(load_recipe(recipe_fields))
    job = doctor_probes.prepare(small, dataset=data)
    before = {name: value.clone() for name, value in job.model.state_dict().items()}
    cut = doctor_probes._cut(job, 4)
    doctor_probes._scale(job, *cut)
    doctor_probes._stock(job, *cut)
    assert all(torch.equal(value, before[name]) for name, value in job.model.state_dict().items())
    assert all(parameter.grad is None for parameter in job.model.parameters())
    assert job.model.training
    assert not {"train", "forward"} & set(vars(job.model))


def test_wrong_arithmetic_is_found(recipe_fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A reduction that divides every micro-batch by its own items is a numeric fault."""
    monkeypatch.setattr(Objective, "backward_value", lambda self, losses, tally, processes: losses.mean())
    checks = examine(recipe_fields)
    found = by_name(checks)["loss scale"]
    assert not found.ok
    assert "the loss scale is off" in found.detail
    assert exit_code(checks) == 6


def test_an_engine_that_scales_wrongly_is_found(recipe_fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The engines themselves are run: the stock fault inside one of them is seen, though the objective is right."""

    def as_the_head_does(self: Any, outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        self.update.loss(outputs, self.inputs, labels)  # which is recorded
        return F.cross_entropy(outputs["logits"], labels)

    monkeypatch.setattr(trainer.UpdateTrainer, "micro_batch_loss", as_the_head_does)
    checks = examine(recipe_fields)
    found = by_name(checks)["loss scale"]
    assert not found.ok
    inflated, right = re.search(r"have the ratio (\S+) \(trainer\), (\S+) \(loop\)", found.detail).groups()
    assert float(inflated) == pytest.approx(4, abs=1e-5)
    assert float(right) == pytest.approx(1, abs=1e-5)
    assert exit_code(checks) == 6


def test_engines_that_part_are_found(recipe_fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A difference that the engine itself does not show from one time to the next is a numeric fault."""

    def half_a_percent_faster(job: Any, emit: Callable[[dict[str, Any]], None]) -> None:
        for group in job.optimizer.param_groups:
            group["lr"] *= 1.005
        loop.train(job, emit)

    monkeypatch.setitem(doctor_probes.BOTH_ENGINES, "loop", half_a_percent_faster)
    checks = examine(recipe_fields)
    found = by_name(checks)["engines agree"]
    assert not found.ok
    assert "repeated differs from itself by 0.0e+00 and 0.0e+00" in found.detail
    assert exit_code(checks) == 6


def test_a_device_that_does_not_repeat_itself_is_no_fault(
    recipe_fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an engine differs from itself by as much, the difference is the device's, and is told as such."""
    calls = itertools.count(1)

    def noisy(job: Any, emit: Callable[[dict[str, Any]], None]) -> None:
        factor = 1 + 1e-3 * next(calls)
        for group in job.optimizer.param_groups:
            group["lr"] *= factor  # a rate of 0, as the scale is measured with, stays 0
        loop.train(job, emit)

    monkeypatch.setitem(doctor_probes.BOTH_ENGINES, "loop", noisy)
    found = by_name(examine(recipe_fields))["engines agree"]
    assert found.ok
    assert "that is this device" in found.detail


def test_an_engine_of_the_users_own_is_reported_of(
    recipe_fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """hfpipe's two engines are compared; the user's own is not, and the check says so."""
    (tmp_path / "own_engine.py").write_text("def train(job, emit): raise AssertionError\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    found = by_name(examine(recipe_fields, overrides=["engine=own_engine:train"]))
    assert found["engines agree"].ok
    assert "own_engine:train is your own engine, and was not looked at" in found["engines agree"].detail


@pytest.mark.parametrize(
    ("config", "shown"),
    [
        ({"vocab_size": 300}, "130 entries for 300 embeddings, so it belongs to another checkpoint"),
        ({"vocab_size": 100}, "has 130 entries, and the embeddings only 100 rows"),
    ],
)
def test_a_tokenizer_of_another_checkpoint(
    recipe_fields: dict[str, Any], tmp_path: Path, tiny_checkpoint: Path, config: dict[str, Any], shown: str
) -> None:
    """Too few or too many entries: exit code 4."""
    folder = copied_checkpoint(tmp_path / "other", tiny_checkpoint, **config)
    checks = examine(recipe_fields, overrides=[f"model.checkpoint={folder}"])
    assert any(shown in check.detail and not check.ok for check in checks), checks
    assert exit_code(checks) == 4


def test_a_tokenizer_that_does_not_know_the_words(
    recipe_fields: dict[str, Any],
    pairs: dict[str, list[dict[str, Any]]],
    data_folder: Callable[..., None],
    tmp_path: Path,
) -> None:
    """Every second word unknown: the share is told, with exit code 4."""
    foreign = [{**row, "sentence1": "zzz yyy " * 8, "sentence2": "bak dak " * 8} for row in pairs["train"]]
    data_folder(tmp_path / "foreign", {"train": foreign, "validation": foreign})
    checks = examine(recipe_fields, overrides=[f"dataset.path={tmp_path / 'foreign'}"])
    assert any("50% of the tokens of train are [UNK]" in check.detail for check in checks if not check.ok)
    assert exit_code(checks) == 4


@pytest.mark.parametrize(
    ("override", "name", "code", "shown"),
    [
        ("model.checkpoint=./nowhere", "checkpoint", 4, "no such folder"),
        ("dataset.splits.train=training", "data", 3, "has no split 'training'"),
        ("loss.class_weights=[1.0, 2.0, 3.0]", "recipe", 2, "class_weights"),
    ],
)
def test_what_cannot_be_built_ends_the_checks(
    recipe_fields: dict[str, Any], override: str, name: str, code: int, shown: str
) -> None:
    """A missing checkpoint, split or part is the last check, with the error's own words and exit code."""
    checks = examine(recipe_fields, overrides=[override])
    assert not checks[-1].ok
    assert (checks[-1].name, exit_code(checks)) == (name, code)
    assert shown in checks[-1].detail


def test_the_machine_without_a_recipe(hfpipe_command: Callable[..., Any], tmp_path: Path) -> None:
    """Python, versions, torch, device with its precision, the Hub, the cache and the disks, as one JSON object."""
    outcome = hfpipe_command("doctor", "--json")
    detail = {check["name"]: check["detail"] for check in outcome.json["checks"]}
    for name in ("python", "versions", "torch", "device", "hub", "cache", "disk for runs", "disk for cache"):
        assert detail[name]
    assert "precision auto is" in detail["device"]
    assert detail["hub"] == "HF_HUB_OFFLINE is set: the local cache only"
    assert outcome.code == 0
    assert outcome.err == ""


@pytest.mark.parametrize(
    ("requirement", "shown"),
    [("torch>=99", "is needed: install"), ("no-such-package>=1", "no-such-package is missing, >=1 is needed")],
)
def test_versions_below_the_floor(monkeypatch: pytest.MonkeyPatch, requirement: str, shown: str) -> None:
    """A package that is too old or missing is named with what is needed: exit code 5."""
    monkeypatch.setattr(doctor, "_requirements", lambda: ["transformers>=5", requirement, "nothing>=3; extra == 'dev'"])
    checks = examine()
    assert not by_name(checks)["versions"].ok
    assert shown in by_name(checks)["versions"].detail
    assert "nothing" not in by_name(checks)["versions"].detail
    assert exit_code(checks) == 5


def test_the_floors_are_those_of_the_project() -> None:
    """The requirements are read, wherever hfpipe runs from."""
    assert any(requirement.startswith("torch>=") for requirement in doctor._requirements())


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little space is told with what is needed: exit code 5."""
    monkeypatch.setattr(doctor, "FREE_BYTES", 10**18)
    checks = examine()
    assert "needs about" in by_name(checks)["disk for runs"].detail
    assert exit_code(checks) == 5


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder without permission is told before a download fails in it; the size counts no file twice."""
    (tmp_path / "blob").write_bytes(b"0" * 1000)
    (tmp_path / "link").symlink_to(tmp_path / "blob")
    assert bytes_below(tmp_path) == 1000
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    assert doctor._cache().ok
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert not doctor._cache().ok


def test_metrics_are_tried_with_the_classes_of_the_data(recipe_fields: dict[str, Any], tmp_path: Path) -> None:
    """Three classes and the F1 of one of two, or a misspelt `best`: told here, and not after an epoch."""
    rows = "text,label\n" + "".join(f"bak bal,{name}\n" for name in ("one", "two", "three") * 4)
    (tmp_path / "rows.csv").write_text(rows, encoding="utf-8")
    data = {"path": "csv", "data_files": str(tmp_path / "rows.csv"), "splits": {"hold_out": 4}}
    fields = {**recipe_fields, "dataset": data, "task": {"text": "text"}, "evaluate": {"metrics": ["f1"]}}
    last = examine(fields)[-1]
    assert (last.name, last.ok) == ("recipe", False)
    assert "average 'binary' scores two classes, and the data have 3" in last.detail
