"""What a newcomer types: names of other tools, a wrong place, `-h`, a tab; each is answered with the line to write."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from hfpipe.cli import completion
from hfpipe.cli.app import app
from hfpipe.cli.examples import EXAMPLES
from hfpipe.cli.finetune import _is_said_to_be_data
from hfpipe.cli.usage import _COMMANDS
from hfpipe.errors import RecipeError
from hfpipe.recipe import Recipe, load_recipe
from hfpipe.recipe.hints import field_paths, section_of

FIELDS: dict[str, Any] = {"dataset": {"path": "./d"}, "task": {"text": "s"}, "model": {"checkpoint": "./m"}}


def mistakes(*overrides: str, fields: dict[str, Any] = FIELDS) -> list[str]:
    """The lines of the error that these overrides give."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(fields, overrides)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("lr=1e-4", "unknown field; write optimizer.lr=0.0001"),
        ("epochs=1", "write train.epochs=1"),
        ("early_stopping=3", "write evaluate.patience=3"),
        ("batch_size=8", "write train.batch_size=8 or evaluate.batch_size=8"),
        ("num_train_epochs=3", "write train.epochs=3"),
        ("train.num_train_epochs=3", "write train.epochs=3"),
        ("per_device_train_batch_size=4", "write train.batch_size=4"),
        ("learningrate=3e-5", "write optimizer.lr=3e-05"),
        ("train.lr=1", "write optimizer.lr=1"),
        ("Max-Length=64", "write model.max_length=64"),
        ("fp16=true", "in hfpipe: train.precision: fp16"),
        ("warmup_ratio=0.1", "in hfpipe: schedule.warmup below 1"),
        ("hold_out=0.1", "write dataset.splits.hold_out=0.1"),
        ("metric=f1", "write evaluate.metrics=f1"),
        ("train.epoch=2", "did you mean 'epochs'?"),
        ("optimizer.learning_rate=1", "takes no 'learning_rate'; did you mean optimizer.lr?"),
        ("train.epochs", "an override is KEY=VALUE, such as train.epochs=1; write train.epochs=VALUE"),
        ("train.epochs:3", "; write train.epochs=3"),
        ("--lr", "; write optimizer.lr=VALUE"),
        ("task=ner", "task: input should be a mapping, got 'ner'; write task.kind=token-classification"),
        ("task.kind=ner", "did you mean 'token-classification'?"),
        ("task.kind=sentiment-analysis", "did you mean 'text-classification'?"),
        ("task.kind=qa", "did you mean 'question-answering'?"),
        ("model=bert-base-cased", "write model.checkpoint=bert-base-cased"),
        ("loss=focal", "write loss.name=focal"),
        ("train.batching=tokens", "write train.batching.by=tokens"),
        ("optimizer.name=AdamW", "did you mean 'adamw'?"),
        ("loss.name=CrossEntropyLoss", "did you mean 'cross_entropy'?"),
        ("schedule.name=cosine_annealing", "did you mean 'cosine'?"),
        ("evaluate.metrics=acc", "did you mean 'accuracy'?"),
        ("train.precision=float16", "did you mean 'fp16'?"),
    ],
)
def test_a_name_from_elsewhere_is_answered_with_the_field(override: str, told: str) -> None:
    """A field in the wrong place, a name of transformers, a word of habit, a kind or a part: one line says what to write."""
    (line,) = mistakes(override)
    assert told in line


def test_a_name_in_a_file_is_answered_with_the_path() -> None:
    """What stands in a file is no override, and no VALUE is to be written."""
    (line,) = mistakes(fields={**FIELDS, "train": {"lr": 1e-4}})
    assert line.endswith("train.lr: unknown field; did you mean optimizer.lr?")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("loss.class_weights=bal", "loss.class_weights: input should be 'balanced', a mapping or a list, got 'bal'"),
        ("loss.class_weights=balance", "got 'balance'; did you mean 'balanced'?"),
        ("loss.class_weights=[1, a]", "loss.class_weights.1: input should be a valid number, got 'a'"),
        ("loss.class_weights=3", "loss.class_weights: input should be 'balanced', a mapping or a list, got 3"),
        ("evaluate.every=steps", "evaluate.every: input should be 'epoch', 'never' or a whole number, got 'steps'"),
        ("evaluate.every=0", "evaluate.every: input should be greater than or equal to 1, got 0"),
        ("evaluate.metrics=[3]", "evaluate.metrics.0: input should be text or a mapping, got 3"),
        ("task.label=3", "task.label: input should be text, a list or a mapping, got 3"),
        ("task.label={names: [a]}", "task.label.column: missing"),
        ("task.label={column: a, names: 3}", "task.label.names: input should be a mapping or a list, got 3"),
        ("dataset.splits.hold_out=a", "dataset.splits.hold_out: input should be a number, got 'a'"),
        ("model.config={num_labels: 3}", "task.label: {column: label, names: [...]}"),
    ],
)
def test_a_field_of_several_types_is_told_once(override: str, told: str) -> None:
    """Not one message for each type that it might have been."""
    (line,) = mistakes(override)
    assert told in line


def sections(model: type[BaseModel] = Recipe, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every section of a recipe, and of the mapping in `task.label`."""
    yield above
    for name, field in model.model_fields.items():
        below = section_of(field.annotation)
        if below is not None:
            yield from sections(below, (*above, name))


def test_an_unknown_field_is_never_answered_with_nothing() -> None:
    """In every section there is something after "allowed: ", also where a value may be a mapping."""
    found = [*sections(), ("task", "label")]
    assert len(found) > 10
    for path in found:
        given: dict[str, Any] = {}
        inner = given
        for piece in path:
            inner[piece] = {}
            inner = inner[piece]
        inner["zzzzz"] = 1
        inner |= {"column": "x"} if path == ("task", "label") else {}
        merged = {key: {**FIELDS.get(key, {}), **given.get(key, {})} for key in (*FIELDS, *given) if key != "zzzzz"}
        merged |= {"zzzzz": 1} if not path else {}
        (line,) = mistakes(fields=merged)
        assert "zzzzz" in line
        assert "allowed: " in line, line
        assert line.partition("allowed: ")[2].strip(), line


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("finetune quickstart --learning_rate 3e-5", "--learning_rate; write --lr 3e-5, or optimizer.lr=3e-5"),
        ("finetune quickstart --num_train_epochs=3", "write --epochs 3, or train.epochs=3"),
        ("finetune quickstart --per-device-train-batch-size 8", "write --batch-size 8, or train.batch_size=8"),
        ("finetune quickstart --model_name_or_path x", "write --checkpoint x, or model.checkpoint=x"),
        ("finetune quickstart --weight_decay 0.1", "write optimizer.weight_decay=0.1"),
        ("finetune quickstart --early-stopping 3", "write evaluate.patience=3"),
        ("finetune quickstart --resum x", "did you mean --resume?"),
        ("data quickstart --lr 3", "write optimizer.lr=3"),
        ("evaluate run --lr 3", "optimizer.lr, which does nothing where nothing is trained"),
        ("train quickstart", "Did you mean 'finetune'?"),
        ("eval run", "Did you mean 'evaluate'?"),
        ("finetune quickstart --lr 1 optimizer.lr=3", "--lr: sets optimizer.lr, and so does an override"),
        ("finetune quickstart --seed 1 --seeds 2", "--seed: one seed, and --seeds several"),
        ("finetune epochs=1", "'epochs=1' is an override"),
    ],
)
def test_an_option_that_is_none_is_answered(hfpipe_command: Callable[..., Any], command: str, told: str) -> None:
    """With the option that there is, or the field, and exit code 2."""
    done = hfpipe_command(*shlex.split(command))
    assert done.code == 2
    assert told in done.err


def test_common_fields_are_options(hfpipe_command: Callable[..., Any], tmp_path: Path) -> None:
    """They are in the recipe of the run, as overrides would be."""
    options = ["--epochs", "0.5", "--lr", "1e-3", "--batch-size", "16", "--seed", "7"]
    checkpoint = ["--checkpoint", "embedded:tiny-bert"]
    done = hfpipe_command(
        "finetune", "quickstart", *options, *checkpoint, "dataset.splits.train=train[:32]",
        "dataset.splits.evaluation=validation[:16]", "--runs-dir", tmp_path, "--name", "r", "--json",
    )  # fmt: skip
    assert done.json["steps"] == 1
    written = load_recipe(tmp_path / "r" / "recipe.yaml")
    assert (written.train.epochs, written.optimizer.lr, written.train.batch_size, written.seed) == (0.5, 1e-3, 16, 7)


def commands() -> dict[str, Any]:
    """Every command by its full name, groups too."""
    import typer

    root = typer.main.get_command(app)
    found: dict[str, Any] = {"": root}
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        found[name] = command
        found |= {f"{name} {inner}": one for inner, one in getattr(command, "commands", {}).items()}
    return found


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_fits_and_has_examples(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal of 80 columns no summary is cut, no line is longer, and each command shows examples."""
    from typer.testing import CliRunner

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    assert len(commands()) > 20
    for name, command in commands().items():
        done = CliRunner().invoke(app, [*name.split(), flag], prog_name="hfpipe")
        assert done.exit_code == 0, (name, done.output)
        is_group = bool(getattr(command, "commands", None))
        summaries = done.stdout.partition("Commands:")[2] if is_group else ""
        assert "..." not in summaries, (name, summaries)
        assert all(len(line) <= 80 for line in done.stdout.splitlines()), (name, done.stdout)
        if not is_group:
            assert "Examples:\n    hfpipe " in done.stdout, name


def test_the_examples_are_commands() -> None:
    """Every example is read as the command line would be, and every command has some."""
    known = commands()
    assert set(EXAMPLES) == {name for name, one in known.items() if not getattr(one, "commands", None)}
    for name, lines in EXAMPLES.items():
        for line in lines:
            words = shlex.split(line.partition(" < ")[0].partition(" > ")[0])
            assert words[0] == "hfpipe"
            assert words[1 : 1 + len(name.split())] == name.split()
            known[name].make_context(name, words[1 + len(name.split()) :])


def test_words_of_habit_lead_to_commands() -> None:
    """What is said in place of an unknown command is one."""
    known = commands()
    for meant in _COMMANDS.values():
        words = [word for word in meant.split() if not word.startswith("--") and word != "RUN"]
        assert not words or " ".join(words) in known, meant
    assert not set(_COMMANDS) & set(known)


def test_fields_recipes_and_runs_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the shell, with nothing heavy imported; what fails completes to nothing."""
    from hfpipe.runs import Run

    assert "train.epochs=" in completion.fields("train.e")
    assert {path.partition(".")[0] for path in field_paths()} == set(Recipe.model_fields)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mrpc-mine.yaml").write_text("")
    assert completion.recipes("mrpc") == ["mrpc", "mrpc-minilm", "mrpc-mine.yaml"]
    Run.create(load_recipe("quickstart"), tmp_path / "runs", "first").update_metadata(status="finished")
    program = (
        "import sys, typer\nfrom hfpipe.cli.app import main\n"
        "try:\n main()\nexcept SystemExit:\n pass\n"
        "print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules], file=sys.stderr)"
    )
    for line, expected in (("hfpipe runs show fi", "first"), ("hfpipe finetune mrpc optimizer.l", "optimizer.lr=")):
        words = line.split()
        completing = {"_HFPIPE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
        environment = {**os.environ, **completing}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, cwd=tmp_path
        )
        assert expected in done.stdout.split(), done.stderr
        assert done.stderr.splitlines()[-1] == "[]"

    assert completion.runs(None, "x") == []  # type: ignore[arg-type]


def test_a_file_whose_format_is_said_is_data(tmp_path: Path) -> None:
    """`finetune eng.train dataset.path=conll` makes a recipe of it; a YAML file and the name of a recipe stay recipes."""
    for name in ("eng.train", "mine.yaml"):
        (tmp_path / name).touch()
    said = ["train.epochs=1", "dataset.path=conll"]
    assert _is_said_to_be_data(str(tmp_path / "eng.train"), said)
    assert not _is_said_to_be_data(str(tmp_path / "eng.train"), said[:1])
    assert not _is_said_to_be_data(str(tmp_path / "mine.yaml"), said)
    assert not _is_said_to_be_data("quickstart", said)
