"""The commands: one JSON object on standard output, one paragraph on standard error, and the exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]


@pytest.fixture
def recipe(recipe_fields: dict[str, Any], tmp_path: Path) -> Path:
    """The tiny recipe as a file."""
    path = tmp_path / "tiny.yaml"
    with open(path, "w", encoding="utf-8") as file:
        YAML().dump(recipe_fields, file)
    return path


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A runs folder."""
    return tmp_path / "runs"


def test_finetune_and_evaluate_print_one_object(hfpipe_command: Callable[..., Any], recipe: Path, runs: Path) -> None:
    """With --json each prints exactly what the contract lists, the figures agree, and only notices stand beside it."""
    trained = hfpipe_command("finetune", recipe, "train.epochs=1", "--engine", "loop", "--runs-dir", runs, "--json")
    assert trained.code == 0
    told = trained.err.splitlines()
    assert all(line.startswith("note: ") for line in told), told
    assert any("freshly initialised from seed" in line for line in told)
    found = trained.json
    assert {"run", "status", "engine", "metrics", "steps", "examples_per_second"} <= set(found)
    assert (found["status"], found["engine"], found["steps"]) == ("finished", "loop", 6)
    assert found["examples_per_second"] > 0
    measured = hfpipe_command("evaluate", found["run"], "--json")
    assert (measured.code, measured.err) == (0, "")
    keys = {"target", "split", "metrics", "intervals", "examples", "examples_per_second"}
    assert keys <= set(measured.json)
    assert measured.json["metrics"] == found["metrics"]
    assert all(len(interval) == 2 for interval in measured.json["intervals"].values())
    other = hfpipe_command("evaluate", Path(found["run"]).name, "--runs-dir", runs, "--split", "train[:9]", "--json")
    assert (other.json["split"], other.json["examples"]) == ("train[:9]", 9)
    checkpoint = hfpipe_command("evaluate", f"{found['run']}/model", "--recipe", recipe, "--json")
    assert checkpoint.json["metrics"] == found["metrics"]


def test_progress_and_result_keep_to_their_streams(
    hfpipe_command: Callable[..., Any], recipe: Path, runs: Path
) -> None:
    """Without --json the result is on standard output, progress and notes are on standard error."""
    done = hfpipe_command("finetune", recipe, "train.epochs=1", "--runs-dir", runs, "--name", "one")
    assert done.code == 0
    assert done.out.splitlines()[0] == str(runs / "one")
    assert "accuracy" in done.out
    assert "examples/s" in done.out
    for told in ("training 6 steps", "step 6/6", "note: freshly initialised", "epoch 1.00"):
        assert told in done.err
        assert told not in done.out
    shown = hfpipe_command("evaluate", "one", "--runs-dir", runs)
    assert "95 % interval" in shown.out
    assert "f1" in shown.out


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["RECIPE", "train.epochz=1"], 2, "did you mean 'epochs'"),
        (["nowhere.yaml"], 2, "no recipe at 'nowhere.yaml'"),
        (["RECIPE", "--name", "../../x"], 2, "is no run id"),
        (["RECIPE", "--nmae", "x"], 2, "--nmae"),
        ([], 2, "RECIPE"),
        (["RECIPE", "dataset.path=./nowhere"], 3, "no such folder"),
        (["RECIPE", "dataset.splits.train=test"], 3, "hfpipe predict"),
        (["RECIPE", "model.checkpoint=org/nowhere"], 4, "hf download org/nowhere"),
        (["RECIPE", "--runs-dir", "RECIPE"], 5, "is not a folder"),
        (["RECIPE", "name=!!python/name:os.system"], 7, "would build an object"),
        (["RECIPE", "optimizer={name: sgd, lr: 1000, weight_decay: 1e38}"], 6, "not finite"),
    ],
)
def test_an_error_is_one_paragraph_with_its_exit_code(
    hfpipe_command: Callable[..., Any], recipe: Path, runs: Path, arguments: list[str], code: int, told: str
) -> None:
    """Each kind of user error has its code, no traceback, and with --json one object on standard output."""
    filled = [str(recipe) if argument == "RECIPE" else argument for argument in arguments]
    filled += [] if "--runs-dir" in filled else ["--runs-dir", str(runs)]
    done = hfpipe_command("finetune", *filled, "--json")
    assert done.code == code, done.err
    assert told in done.err or (code == 6 and "is nan" in done.err)
    assert "Traceback" not in done.err
    assert done.json["exit_code"] == code
    assert done.json["error"].splitlines()[0] in done.err


def test_debug_shows_where(hfpipe_command: Callable[..., Any], recipe: Path) -> None:
    """--debug may stand anywhere and adds the traceback, without --json nothing goes to standard output."""
    done = hfpipe_command("finetune", recipe, "dataset.path=./nowhere", "--debug")
    assert (done.code, done.out) == (3, "")
    assert "Traceback" in done.err


def test_a_fault_of_hfpipe_is_told_without_a_traceback(
    hfpipe_command: Callable[..., Any], recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last resort is exit code 1, one sentence, and the way to see more."""

    def broken(*arguments: Any, **options: Any) -> None:
        raise ZeroDivisionError("of hfpipe's")

    monkeypatch.setattr("hfpipe.training.finetune.finetune", broken)
    done = hfpipe_command("finetune", recipe, "--json")
    assert done.code == 1
    assert "ZeroDivisionError: of hfpipe's" in done.json["error"]
    assert "--debug shows where" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("stop", [KeyboardInterrupt, EOFError])
def test_stopping_a_command_is_130(
    hfpipe_command: Callable[..., Any], recipe: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    """Ctrl-C outside of training, and the end of input at a question, are told and leave with 130."""

    def stopped(*arguments: Any, **options: Any) -> None:
        raise stop

    monkeypatch.setattr("hfpipe.training.finetune.finetune", stopped)
    done = hfpipe_command("finetune", recipe, "--json")
    assert (done.code, done.json["exit_code"]) == (130, 130)
    assert "stopped by the user" in done.err


def test_ctrl_c_stops_a_real_run(recipe: Path, runs: Path) -> None:
    """SIGINT in the middle of training: exit code 130, one object, status interrupted, every record kept."""
    command = [
        sys.executable,
        "-m",
        "hfpipe.cli.app",
        "finetune",
        recipe,
        "train.epochs=10000",
        "checkpoints.every=never",
    ]
    command += ["checkpoints.keep_best=false", "evaluate.every=never", "--runs-dir", runs, "--name", "one", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # A suite in the background of a shell ignores SIGINT, and a child would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    records = runs / "one" / "records.jsonl"
    deadline = time.monotonic() + 180
    while not (records.is_file() and '"step": 3' in records.read_text()):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert json.loads(out)["exit_code"] == 130
    assert "Traceback" not in err
    assert json.loads((runs / "one" / "run.json").read_text())["status"] == "interrupted"
    assert all(json.loads(line) for line in records.read_text().splitlines())


def test_evaluate_says_what_it_needs(hfpipe_command: Callable[..., Any], tiny_checkpoint: Path, runs: Path) -> None:
    """A checkpoint without a recipe asks for one, and a name that is nothing says what there is."""
    bare = hfpipe_command("evaluate", tiny_checkpoint, "--runs-dir", runs, "--json")
    assert (bare.code, bare.json["exit_code"]) == (2, 2)
    assert "--recipe RECIPE" in bare.err
    nothing = hfpipe_command("evaluate", "nothing", "--runs-dir", runs)
    assert nothing.code == 2
    assert "no run 'nothing'" in nothing.err


@pytest.fixture
def two_runs(runs: Path, recipe_fields: dict[str, Any]) -> Path:
    """Two runs that differ in one field, made without training."""
    from hfpipe.recipe import load_recipe
    from hfpipe.runs import Run

    for name, seed in (("first", 1), ("second", 2)):
        run = Run.create(load_recipe(recipe_fields, [f"seed={seed}"]), runs, name)
        run.update_metadata(
            id=name, status="finished", seed=seed, engine="loop", started=f"2026-01-0{seed}T00:00:00+00:00"
        )
        run.write_json("metrics.json", {"metrics": {"f1": seed / 10, "pearson": None}})
    return runs


def test_runs_are_listed_shown_and_compared(hfpipe_command: Callable[..., Any], two_runs: Path) -> None:
    """The commands for runs print tables, or one object each; a damaged run is listed as that."""
    listed = hfpipe_command("runs", "list", "--runs-dir", two_runs, "--json").json
    assert [run["id"] for run in listed["runs"]] == ["second", "first"]
    shown = hfpipe_command("runs", "show", "first", "--runs-dir", two_runs, "--json").json
    assert (shown["status"], shown["metrics"], shown["recipe"]["seed"]) == ("finished", {"f1": 0.1, "pearson": None}, 1)
    differences = hfpipe_command("runs", "diff", "first", "second", "--runs-dir", two_runs, "--json").json[
        "differences"
    ]
    assert {row["path"]: (row["first"], row["second"]) for row in differences} == {
        "recipe.seed": (1, 2),
        "seed": (1, 2),
        "metrics.f1": (0.1, 0.2),
    }
    (two_runs / "first" / "run.json").write_text("{")
    plain = hfpipe_command("runs", "list", "--runs-dir", two_runs)
    assert plain.code == 0
    assert "damaged" in plain.out
    assert "f1 0.2000" in plain.out
    assert "seed: 2" in hfpipe_command("runs", "show", "sec", "--runs-dir", two_runs).out


def test_runs_are_deleted_only_when_it_is_said(
    hfpipe_command: Callable[..., Any], two_runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --yes and without anybody to ask nothing is deleted; an empty name names no run."""
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    refused = hfpipe_command("runs", "delete", "first", "--runs-dir", two_runs)
    assert refused.code == 2
    assert "pass --yes" in refused.err
    assert hfpipe_command("runs", "delete", "", "--yes", "--runs-dir", two_runs).code == 2
    assert (two_runs / "first").is_dir()
    done = hfpipe_command("runs", "delete", "first", "--yes", "--runs-dir", two_runs, "--json")
    assert done.json == {"deleted": [str(two_runs / "first")]}
    assert not (two_runs / "first").exists()


def test_recipes_are_listed_shown_and_copied(
    hfpipe_command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped recipes can be seen as they are written or resolved, and copied, never over a file."""
    monkeypatch.chdir(tmp_path)
    assert "quickstart" in [row["name"] for row in hfpipe_command("recipes", "list", "--json").json["recipes"]]
    written = hfpipe_command("recipes", "show", "quickstart").out
    assert written == (ROOT / "recipes" / "quickstart.yaml").read_text(encoding="utf-8")
    resolved = hfpipe_command("recipes", "show", "quickstart", "seed=7", "--resolved").out
    assert "seed: 7" in resolved
    assert hfpipe_command("recipes", "copy", "quickstart", "mine.yaml").out == "mine.yaml\n"
    copied = (tmp_path / "mine.yaml").read_text(encoding="utf-8")
    schema, _, rest = copied.removeprefix("# yaml-language-server: $schema=").partition("\n")
    assert json.loads(Path(schema).read_text())["title"] == "Recipe"  # an editor finds it from there, too
    assert rest == written.partition("\n")[2]
    again = hfpipe_command("recipes", "copy", "quickstart", "mine.yaml")
    assert again.code == 2
    assert "is there already" in again.err
    assert hfpipe_command("recipes", "schema").json["title"] == "Recipe"


def test_recipes_are_validated(hfpipe_command: Callable[..., Any], recipe: Path) -> None:
    """A good recipe is valid without its data; every mistake of a bad one is told, in the file or at the part."""
    valid = hfpipe_command("recipes", "validate", recipe, "dataset.path=org/data", "model.checkpoint=org/m", "--json")
    assert (valid.code, valid.json["valid"]) == (0, True)
    broken = hfpipe_command("recipes", "validate", recipe, "loss.name=focall", "train.epochs=no", "--json")
    assert broken.code == 2
    assert len(broken.json["error"].splitlines()) == 2
    bound = hfpipe_command("recipes", "validate", recipe, "loss.name=math:sqrt", "trainer.use_cpu=maybe", "--json")
    assert bound.code == 2
    assert "math:sqrt" in bound.err
    assert "trainer.use_cpu" in bound.err


def test_help_and_version(hfpipe_command: Callable[..., Any]) -> None:
    """Help lists the commands, with exit code 0; no command at all shows it with 2."""
    done = hfpipe_command("--help")
    assert done.code == 0
    assert {"finetune", "evaluate", "recipes", "runs"} <= set(done.out.split())
    assert hfpipe_command().code == 2
    assert hfpipe_command("runs", "list", "--help").code == 0


def test_every_help_is_whole() -> None:
    """Each command and option says what it does, and no placeholder of a usage has brackets twice or dots of its own."""
    import click
    from typer.main import get_command

    from hfpipe.cli.app import app

    def walk(command: Any, context: Any) -> list[tuple[Any, Any]]:
        inner = [
            click.Context(one, info_name=name, parent=context) for name, one in getattr(command, "commands", {}).items()
        ]
        return [(command, context), *(pair for one in inner for pair in walk(one.command, one))]

    root = get_command(app)
    found = walk(root, click.Context(root, info_name="hfpipe"))
    assert len(found) > 20
    for command, context in found:
        assert command.help, context.command_path
        usage = command.get_usage(context)
        assert not re.search(r"\[\[|\]\]|\{\{|\.\.\.[\]}]", usage), usage
        assert not [one.name for one in command.params if not getattr(one, "help", None)], context.command_path


def test_the_old_name_of_an_option_still_works(hfpipe_command: Callable[..., Any]) -> None:
    """`--window` is `--chunk`: both are read, and refused alike where they are out of range."""
    for option in ("--chunk", "--window"):
        done = hfpipe_command("predict", "nothing", "rows.csv", option, "0")
        assert done.code == 2
        assert "--chunk: 0" in done.err


def test_it_is_a_module_too() -> None:
    """`python -m hfpipe` is the same command, where no script is on the path."""
    done = subprocess.run([sys.executable, "-m", "hfpipe", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert "finetune" in done.stdout
