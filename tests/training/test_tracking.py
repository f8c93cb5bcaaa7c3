"""Trackers: the same figures from both engines, under the run folder, offline, and nothing else changed."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hfpipe
from hfpipe.errors import MachineError, NumericError, RecipeError
from hfpipe.training import tracking

STEP_KEYS = {"train/loss", "train/grad_norm", "train/learning_rate", "train/epoch"}
EVALUATION_KEYS = {"eval/loss", "eval/accuracy", "eval/f1", "train/epoch"}
Points = dict[tuple[str, int], float]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every connection is refused and remembered."""
    tried: list[Any] = []

    def refuse(self: socket.socket, address: Any) -> None:
        tried.append(address)
        raise OSError("no network in this test")

    def unknown(host: Any, *arguments: Any, **options: Any) -> None:
        tried.append(host)
        raise OSError("no names in this test")

    # Were the Hub's own switch on, nothing would be seen of a library that asks it.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    return tried


def of_trackio(run: hfpipe.Run) -> Points:
    """What trackio stored, by key and step."""
    (database,) = (run.path / "tracking" / "trackio").glob("*.db")
    with sqlite3.connect(database) as opened:
        rows = opened.execute("SELECT step, metrics FROM metrics").fetchall()
    opened.close()
    return {(key, step): value for step, metrics in rows for key, value in json.loads(metrics).items()}


def of_tensorboard(run: hfpipe.Run) -> Points:
    """What the event files of tensorboard hold, by key and step."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util.tensor_util import make_ndarray

    points: Points = {}
    for file in (run.path / "tracking" / "tensorboard" / run.id).glob("events.*"):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.tag.startswith(("train/", "eval/")):
                    points[value.tag, event.step] = float(make_ndarray(value.tensor))
    return points


def of_records(run: hfpipe.Run) -> Points:
    """The same from the run's own records."""
    points: Points = {}
    for record in run.records:
        if record["type"] == "step":
            named = {key: record[name] for name, key in tracking._STEP_KEYS.items()}
        elif record["type"] == "evaluation":
            named = {f"eval/{name}": value for name, value in record["metrics"].items()}
        else:
            continue
        points |= {(key, record["step"]): value for key, value in named.items()}
    return points


@pytest.fixture
def train(recipe_fields: dict[str, Any], tmp_path: Path) -> Callable[..., hfpipe.Run]:
    """Trains the tiny recipe."""

    def finetune(*overrides: str, **options: Any) -> hfpipe.Run:
        return hfpipe.finetune(recipe_fields, overrides=overrides, runs_dir=tmp_path / "runs", **options)

    return finetune


def test_both_engines_tell_the_trackers_the_same(
    train: Callable[..., hfpipe.Run],
    no_network: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """trackio and tensorboard get every step and evaluation, equal from both engines and equal to the records, without a
    connection, a word on standard output, or an effect on the weights."""
    pytest.importorskip("trackio", reason="the extra `tracking` is not installed")
    pytest.importorskip("tensorboard", reason="the extra `tracking` is not installed")
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    monkeypatch.setenv("TRACKIO_SPACE_ID", "someone/somewhere")
    plain = train(engine="loop")
    capsys.readouterr()
    runs = [train("tracking=[trackio, tensorboard]", engine=engine, name=engine) for engine in ("trainer", "loop")]
    assert capsys.readouterr().out == ""
    assert no_network == []
    found = [of_trackio(run) for run in runs]
    assert found[0] == found[1] == of_records(runs[0])
    assert {key for key, _ in found[0]} == STEP_KEYS | EVALUATION_KEYS
    assert {step for _, step in found[0]} == set(range(1, 13))
    events = [of_tensorboard(run) for run in runs]
    assert events[0] == events[1]
    assert events[0] == pytest.approx(of_records(runs[0]), rel=1e-6)  # tensorboard keeps 32 bits
    assert {run.metadata["model"]["model.safetensors"] for run in (plain, *runs)} == {
        plain.metadata["model"]["model.safetensors"]
    }
    assert not (plain.path / "tracking").exists()
    for file in (runs[0].path / "tracking").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert b"hf_planted" not in content, file
            assert str(Path.home()).encode() + b"/" not in content, file
    assert os.environ["TRACKIO_SPACE_ID"] == "someone/somewhere"
    assert "TRACKIO_DIR" not in os.environ
    assert "trackio" not in sys.modules or sys.modules["trackio"].context_vars.current_run.get() is None


def test_the_tracker_knows_the_recipe(train: Callable[..., hfpipe.Run]) -> None:
    """trackio's config is the resolved recipe, flat."""
    pytest.importorskip("trackio", reason="the extra `tracking` is not installed")
    run = train("tracking=trackio", "train.max_steps=1")
    (database,) = (run.path / "tracking" / "trackio").glob("*.db")
    with sqlite3.connect(database) as opened:
        (config,) = opened.execute("SELECT config FROM configs").fetchone()
    opened.close()
    told = json.loads(config)
    assert told["train.batch_size"] == 8
    assert told["optimizer.lr"] == 1e-3
    assert told["engine"] == "trainer"


class Heard:
    """Stands for one of accelerate's trackers, and remembers what it is told."""

    made: list[Heard] = []  # noqa: RUF012 - reset by the fixture

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.arguments, self.options, self.told, self.state = arguments, options, [], "made"
        self.environment = dict(os.environ)
        Heard.made.append(self)

    def start(self) -> None:
        """Noted."""
        print("chatter")
        self.state = "started"

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Noted."""
        self.configuration = values

    def log(self, values: dict[str, float], step: int) -> None:
        """Noted."""
        self.told.append((step, values))

    def finish(self) -> None:
        """Noted."""
        self.state = "finished"


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> type[Heard]:
    """wandb and mlflow look installed, and accelerate's trackers for them are stood in for."""
    from accelerate import tracking as theirs

    Heard.made = []
    for module, name in (("wandb", "WandBTracker"), ("mlflow", "MLflowTracker")):
        assert hasattr(theirs, name)
        stub = types.ModuleType(module)
        stub.__spec__ = types.SimpleNamespace(name=module)  # type: ignore[assignment]
        monkeypatch.setitem(sys.modules, module, stub)
        monkeypatch.setattr(theirs, name, type(name, (Heard,), {}))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Heard


def test_wandb_and_mlflow_get_accelerates_trackers(
    train: Callable[..., hfpipe.Run], heard: type[Heard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The right class is started offline and under the run folder, told everything, and closed."""
    run = train("tracking=[wandb, mlflow]", "train.max_steps=2", "evaluate.every=2")
    wandb, mlflow = heard.made
    assert [type(one).__name__ for one in (wandb, mlflow)] == ["WandBTracker", "MLflowTracker"]
    assert wandb.arguments == mlflow.arguments == ("tiny",)
    assert wandb.options["mode"] == "offline"
    folder = run.path.resolve() / "tracking"
    assert wandb.options["dir"] == str(folder / "wandb")
    assert mlflow.environment["MLFLOW_TRACKING_URI"] == f"sqlite:///{folder}/mlflow/mlflow.db"
    for one in (wandb, mlflow):
        assert one.state == "finished"
        assert [step for step, _ in one.told] == [1, 2, 2]
        assert [set(values) for _, values in one.told] == [STEP_KEYS, STEP_KEYS, EVALUATION_KEYS]
        assert one.configuration["train.max_steps"] == 2
    assert "WANDB_MODE" not in os.environ
    assert "MLFLOW_TRACKING_URI" not in os.environ
    monkeypatch.setenv("WANDB_MODE", "online")
    train("tracking=wandb", "train.max_steps=1")
    assert heard.made[-1].options["mode"] == "online"


@pytest.mark.parametrize("engine", ["trainer", "loop"])
def test_a_failed_run_closes_its_tracker(train: Callable[..., hfpipe.Run], heard: type[Heard], engine: str) -> None:
    """A run that diverges leaves a closed tracker with the steps before."""

    def breaks(logits: Any, targets: Any) -> Any:
        nonlocal calls
        calls += 1
        return (logits.sum(-1) * 0) + (float("nan") if calls > 4 else 1.0)

    calls = 0
    with pytest.raises(NumericError):
        train("tracking=wandb", "evaluate.best=null", engine=engine, loss=breaks)
    (wandb,) = heard.made
    assert wandb.state == "finished"
    assert wandb.told


def test_a_missing_library_is_refused_before_anything(
    train: Callable[..., hfpipe.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that are missing are named with the line that installs them, exit code 5, and no run folder is left."""
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"not installed: wandb, mlflow.* pip install wandb mlflow") as caught:
        train("tracking=[wandb, mlflow]")
    assert caught.value.exit_code == 5
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("tracking=[trackoi]", "did you mean 'trackio'"),
        ("tracking=[trackio, trackio]", "names a tracker twice"),
        ("trainer={report_to: wandb}", "the place for it is tracking"),
        ("train.report_to=wandb", "write tracking=wandb"),
        ("train={report_to: wandb}", "in hfpipe: tracking"),
    ],
)
def test_mistakes_about_tracking_are_told(recipe_fields: dict[str, Any], override: str, told: str) -> None:
    """A tracker that is none, one named twice, and Trainer's own way are refused with the right place."""
    with pytest.raises(RecipeError, match=told):
        hfpipe.load_recipe(recipe_fields, [override])


def test_a_home_path_is_not_told(
    recipe_fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The configuration writes the home folder as ~, wherever in the recipe it stands."""
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    files = {"train": [f"{tmp_path}/me/a.csv"]}
    recipe_fields["dataset"] = {"path": "csv", "data_files": files}
    recipe_fields["model"] = {"checkpoint": f"{tmp_path}/me/bert"}
    flat = tracking.configuration(hfpipe.load_recipe(recipe_fields))
    assert flat["model.checkpoint"] == "~/bert"
    assert flat["dataset.data_files.train"] == '["~/a.csv"]'
    assert flat["model.revision"] is None


def test_an_undefined_figure_is_not_told() -> None:
    """Null has no place in a chart, and a notice is none."""
    evaluation = {"type": "evaluation", "step": 1, "epoch": 1.0, "metrics": {"f1": None, "loss": 0.5}}
    assert tracking.values_of(evaluation) == {"eval/loss": 0.5, "train/epoch": 1.0}
    assert tracking.values_of({"type": "notice", "text": "x"}) == {}
