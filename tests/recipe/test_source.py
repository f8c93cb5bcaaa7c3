"""Recipes as text: YAML 1.2, positions, `extends`, overrides, and hostile files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hfpipe.errors import RecipeError, RefusedError
from hfpipe.recipe import Recipe, load_recipe, parse_value, shipped, to_yaml, with_overrides

LEAST = "dataset: {path: ./data}\ntask: {text: sentence}\nmodel: {checkpoint: ./tiny}\n"
FIELDS: dict[str, Any] = {"dataset": {"path": "./d"}, "task": {"text": "s"}, "model": {"checkpoint": "./m"}}


@pytest.fixture
def write(tmp_path: Path):
    """Writes a recipe and gives its path."""

    def write_recipe(text: str, name: str = "r.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_recipe


def mistakes(source: Any, *overrides: str) -> list[str]:
    """The lines of the error of a recipe that must be wrong."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(source, overrides)
    return str(caught.value).splitlines()


def test_every_mistake_is_told_at_once_and_in_place(write) -> None:
    """One error lists every mistake of a file, in its order, each as file:line:column: path: what."""
    path = write(
        "name: Not A Name\n"
        "seed: -1\n"
        "dataset: {path: ./data, splitz: {}}\n"
        "task: {text: sentence, kind: text-clasification}\n"
        "model:\n"
        "  checkpoint: ./tiny\n"
        "  max_length: three\n"
        "loss: {name: cross_entropi}\n"
        "optimizer:\n"
        "  lr: -2e-5\n"
        "  momentun: 0.9\n"
        "train: {epochs: 0, batch_size: 2.5}\n"
        "evaluate:\n"
        "  metrics: [acuracy, {name: f1, averag: macro}]\n"
        "enginee: loop\n"
    )
    told = mistakes(path)
    expected = [
        (1, 1, "name: "),
        (2, 1, "seed: "),
        (3, 25, "dataset.splitz: unknown field; did you mean 'splits'?"),
        (4, 24, "task.kind: "),
        (7, 3, "model.max_length: "),
        (8, 8, "loss.name: unknown loss 'cross_entropi'; did you mean 'cross_entropy'?"),
        (10, 3, "optimizer.lr: "),
        (11, 3, "optimizer.momentun: optimizer 'adamw' takes no 'momentun'"),
        (12, 9, "train.epochs: "),
        (12, 20, "train.batch_size: "),
        (14, 13, "evaluate.metrics.0: unknown metric 'acuracy'; did you mean 'accuracy'?"),
        (14, 22, "evaluate.metrics.1: metric 'f1' takes no 'averag'; did you mean 'average'?"),
        (15, 1, "enginee: unknown field; did you mean 'engine'?"),
    ]
    assert len(told) == len(expected), "\n".join(told)
    for line, (row, column, start) in zip(told, expected, strict=True):
        assert line.startswith(f"{path}:{row}:{column}: {start}"), line


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("dataset: {path: x}\nmodel: {checkpoint: x}\n", "task: missing"),
        ("dataset: {path: x}\ntask: {}\nmodel: {checkpoint: x}\n", "task.text: missing"),
        (LEAST + "loss: {gama: 2.0}\n", "loss 'cross_entropy' takes no 'gama'"),
        (LEAST + "train: 3\n", "train: "),
        (LEAST + "engine: loop\ntrainer: {use_cpu: true}\n", "`trainer` options do nothing with engine: loop"),
        (LEAST.replace("sentence}", "s, kind: text-regression}") + "loss: {label_smoothing: 0.1}\n", "need classes"),
        (LEAST + "optimizer: {lr: .inf}\n", "optimizer.lr: "),
        (LEAST + "optimizer: {lr: .nan}\n", "optimizer.lr: "),
        (LEAST + "seed: true\n", "seed: "),
        (LEAST + "seed: '42'\n", "seed: "),
        (LEAST.replace("sentence}", "s, label: {column: l, names: [no, no]}}"), "`names` has 'no' twice"),
        (
            LEAST.replace("./data", "./data, splits: {hold_out: 1.0}"),
            "dataset.splits.hold_out: a share between 0 and 1, or a whole number of rows, got 1.0",
        ),
    ],
)
def test_a_mistake_names_its_field(write, section: str, told: str) -> None:
    """Missing sections, wrong types, idle options and arguments of an unnamed loss are each told by path."""
    lines = mistakes(write(section))
    assert len(lines) == 1
    assert told in lines[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-5", 2e-5),
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("012", 12),
        ("0o14", 12),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("2001-12-14t21:59:43.10-05:00", "2001-12-14t21:59:43.10-05:00"),
        ("~", None),
        ("null", None),
        ("true", True),
        (".5", 0.5),
        ("'007'", "007"),
        ("!!str 5", "5"),
        ("train[:10%]", "train[:10%]"),
        ("embedded:paraphrases", "embedded:paraphrases"),
        ("{a: [1, 2.0, x]}", {"a": [1, 2.0, "x"]}),
        ("&x 5", 5),
        ("", None),
    ],
)
def test_values_are_yaml_1_2(text: str, value: Any) -> None:
    """Numbers, words and dates read as YAML 1.2 has them, in Python's own types."""
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "where", "told"),
    [
        (LEAST + "seed: 1\nseed: 2\n", ":5:1", "duplicate key"),
        ("dataset: {path: [}\n", ":1:18", "not YAML 1.2"),
        ("a: b: c\n", ":1:5", "not YAML 1.2"),
        (LEAST + "train: {epochs: *later}\n", ":4:17", "alias"),
        (LEAST + "2: x\n", ":4:1", "the key 2 is not text"),
        (LEAST + "seed: !!binary aGk=\n", ":4:1", "seed is of type bytes"),
        ("- a\n- b\n", "", "allowed: a mapping of sections"),
        ("", "", "holds nothing"),
        ("a\n---\nb\n", ":2:1", "not YAML 1.2"),
        ("name: \0\n", "", "not YAML 1.2"),
    ],
)
def test_what_is_no_recipe_is_told_with_its_place(write, text: str, where: str, told: str) -> None:
    """Broken YAML, duplicate keys, odd keys and types stop the reading at file:line:column."""
    path = write(text)
    (line,) = mistakes(path)
    assert line.startswith(f"{path}{where}: ")
    assert told in line


def test_files_that_are_no_text_are_told(write, tmp_path: Path) -> None:
    """A folder, a missing file, bytes that are no UTF-8 and an impossible name are recipe errors."""
    (tmp_path / "bytes.yaml").write_bytes(b"name: \xff\n")
    assert "not UTF-8 at byte 6" in mistakes(tmp_path / "bytes.yaml")[0]
    assert "a folder, not a recipe" in mistakes(tmp_path)[0]
    assert "did you mean 'quickstart'" in mistakes("quikstart")[0]
    assert "no recipe at" in mistakes(tmp_path / ("x" * 300))[0]
    assert "no recipe at" in mistakes("a\0b")[0]


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    """A recipe saved by a Windows editor reads as any other."""
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + LEAST.replace("\n", "\r\n").encode())
    assert load_recipe(path).dataset.path == str(tmp_path / "data")


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BOMB, "aliases"),
        ("x: &x [*x]\n", "x: unknown field"),
        ("x: &x {y: *x}\n", "x: unknown field"),
        (LEAST + "# " + "x" * 10_000_000, "too long"),
        ("x: " + "[" * 5_000, "brackets"),
        ("- " * 3_000, "not YAML 1.2"),
    ],
)
def test_hostile_recipes_are_refused_within_a_second(write, text: str, told: str) -> None:
    """Alias bombs, circles, deep nesting and megabytes cost less than a second."""
    path = write(text)
    started = time.process_time()  # not the clock, which a busy machine stretches
    lines = mistakes(path)
    assert time.process_time() - started < 1.0
    assert told in lines[0]


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system [touch here]",
        "!!python/name:os.system",
        "!!python/object:os.X {a: 1}",
        "!mine 5",
        "!mine {a: 1}",
    ],
)
def test_a_tag_that_would_build_an_object_is_refused(write, value: str) -> None:
    """No YAML tag builds anything: the recipe is refused with exit code 7, in a file and in an override."""
    path = write(LEAST + f"name: {value}\n")
    with pytest.raises(RefusedError, match="would build an object") as caught:
        load_recipe(path)
    assert caught.value.exit_code == 7
    assert caught.value.where.startswith(f"{path}:4:1")
    with pytest.raises(RefusedError):
        load_recipe(FIELDS, [f"name={value}"])


def test_extends_lays_one_recipe_over_another(write) -> None:
    """Mappings are joined key by key, everything else is replaced, and mistakes are told in the file that has them."""
    write(LEAST + "train: {epochs: 5, batch_size: 4}\nevaluate: {metrics: [accuracy, f1]}\n", "base.yaml")
    child = write("extends: base.yaml\ntrain: {batch_size: 8}\nevaluate: {metrics: [f1]}\nname: child\n", "child.yaml")
    recipe = load_recipe(child)
    assert (recipe.train.epochs, recipe.train.batch_size, recipe.evaluate.metrics) == (5, 8, ("f1",))
    assert recipe.where("train.batch_size") == f"{child}:2:9: train.batch_size"
    assert recipe.where("train.epochs") == f"{child.parent / 'base.yaml'}:4:9: train.epochs"
    write(LEAST + "train: {epochz: 5}\n", "base.yaml")
    assert mistakes(child)[0].startswith(f"{child.parent / 'base.yaml'}:4:9: train.epochz: unknown field")


def test_extends_finds_shipped_recipes(write) -> None:
    """The parent may be a shipped recipe by its name."""
    recipe = load_recipe(write("extends: quickstart\nname: mine\n"))
    assert recipe.dataset == load_recipe("quickstart").dataset
    assert recipe.name == "mine"


@pytest.mark.parametrize(
    ("parent", "told"),
    [
        ("r.yaml", "more than 8 recipes deep"),
        ("nowhere.yaml", "no recipe at 'nowhere.yaml'"),
        ("[a, b]", "the name of one other recipe"),
        ("quikstart", "did you mean 'quickstart'"),
    ],
)
def test_extends_that_leads_nowhere_is_told(write, parent: str, told: str) -> None:
    """A circle, a missing parent and a parent that is no name are told at the line of `extends`."""
    path = write(f"name: x\nextends: {parent}\n")
    (line,) = mistakes(path)
    assert line.startswith(f"{path}:2:1: ")
    assert told in line


def test_overrides_win_and_are_typed_as_yaml() -> None:
    """KEY=VALUE sets a field of any depth with the type that YAML gives it."""
    overrides = ["train.epochs=1", "optimizer.lr=2e-5", "model.revision=null", "dataset.splits.train=train[:64]"]
    recipe = load_recipe({**FIELDS, "train": {"epochs": 9}}, [*overrides, "optimizer.betas=[0.9, 0.99]"])
    assert recipe.train.epochs == 1
    assert recipe.optimizer.lr == 2e-5
    assert recipe.dataset.splits.train == "train[:64]"
    assert recipe.optimizer.arguments == {"betas": [0.9, 0.99]}
    assert with_overrides(recipe, ["train.epochs=4"]).train.epochs == 4
    assert recipe.train.epochs == 1


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.epochs", "an override is KEY=VALUE"),
        ("=3", "an override is KEY=VALUE"),
        ("train..epochs=3", "an override is KEY=VALUE"),
        ("train.epochs=three", "train.epochs: "),
        ("trian.epochs=1", "trian: unknown field; did you mean 'train' or 'trainer'?"),
        ("train.epoch=1", "train.epoch: unknown field; did you mean 'epochs'?"),
        ("name.first=x", "name is a single value and has no 'first'"),
        ("train.epochs=[1", "not YAML 1.2"),
        ("learning_rate=1e-3", "unknown field; write optimizer.lr=0.001"),
        ("loss.name=crossentropy", "did you mean 'cross_entropy'?"),
        ("schedule.warmup=true", "schedule.warmup: "),
    ],
)
def test_an_error_of_an_override_names_the_override(override: str, told: str) -> None:
    """Whoever mistypes on the command line is pointed to the command line, not to the file."""
    (line,) = mistakes({**FIELDS, "name": "x"}, override)
    assert line.startswith(f"override {override!r}")
    assert told in line


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("evaluation_strategy: epoch", "evaluate.every"),
        ("warmup_ratio: 0.1", "schedule.warmup"),
        ("train: {group_by_length: true}", "train.batching.bucket"),
        ("model_name_or_path: x", "model.checkpoint"),
        ("train: {num_train_epochs: 3}", "train.epochs"),
        ("trainer: {no_cuda: true}", "trainer.use_cpu"),
        ("trainer: {evaluation_strategy: epoch}", "eval_strategy"),
        ("trainer: {overwrite_output_dir: true}", "a folder of its own"),
        ("trainer: {learning_rate: 1}", "the place for it is optimizer.lr"),
        ("trainer: {max_grad_norm: 1}", "the place for it is train.max_grad_norm"),
        ("trainer: {hub_token: abc}", "a token never stands in a recipe"),
        ("trainer: {torch_compil: true}", "did you mean 'torch_compile"),
    ],
)
def test_names_of_transformers_are_answered_with_todays(write, line: str, told: str) -> None:
    """Old names, names that hfpipe decides itself and misspelt ones get the right name, at their place."""
    path = write(LEAST + line + "\n")
    (message,) = mistakes(path)
    assert message.startswith(f"{path}:4:")
    assert told in message


SHIPPED = sorted(shipped.folder().glob("*.yaml"))


def test_there_are_shipped_recipes() -> None:
    """The glob of the next test finds the recipes that the issue names."""
    assert {"quickstart", "mrpc"} <= {path.stem for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_resolved_recipe_reads_back_equal(path: Path, tmp_path: Path) -> None:
    """What a run saves is a recipe again, and the same one, for every shipped recipe."""
    recipe = load_recipe(path)
    saved = tmp_path / "resolved.yaml"
    saved.write_text(to_yaml(recipe), encoding="utf-8")
    again = load_recipe(saved)
    assert again == recipe
    assert to_yaml(again) == to_yaml(recipe)


TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t: #-[]{}'\"&*!|>%@`,?~"), min_size=1
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=TEXT,
    decay=st.floats(0, 1e300),
    weights=st.lists(st.floats(-1e300, 1e300), max_size=4),
    metric=st.sampled_from(["accuracy", {"name": "f1", "average": "macro"}]),
)
def test_any_recipe_reads_back_equal(
    tmp_path: Path, text: str, decay: float, weights: list[float], metric: Any
) -> None:
    """Names of columns, numbers of any size and nested arguments survive the way to YAML and back."""
    recipe = load_recipe(
        {
            "dataset": {"path": text, "data_files": {"train": [text]}},
            "task": {"text": [text], "label": text},
            "model": {"checkpoint": "x", "config": {"key": text}},
            "optimizer": {"weight_decay": decay},
            "loss": {"class_weights": weights},
            "evaluate": {"metrics": [metric]},
        }
    )
    path = tmp_path / "r.yaml"
    path.write_text(to_yaml(recipe), encoding="utf-8", newline="\n")
    assert load_recipe(path) == recipe


def test_recipes_are_equal_by_their_fields_wherever_they_were_written(write) -> None:
    """The place of a field is no part of a recipe, and a changed field makes it another."""
    assert load_recipe(write(LEAST)) == load_recipe(write("\n\n" + LEAST, "other.yaml"))
    assert load_recipe(write(LEAST)) != load_recipe(write(LEAST), ["seed=1"])
    assert load_recipe(write(LEAST)) != LEAST
    assert isinstance(load_recipe(write(LEAST)), Recipe)


def test_overrides_are_a_list(write) -> None:
    """One text is not taken for a list of letters."""
    with pytest.raises(RecipeError, match=r"^overrides: got the text 'seed=1'; allowed: a list"):
        load_recipe(write(LEAST), "seed=1")


@pytest.mark.parametrize(
    ("text", "value"), [(",", ","), ("|", "|"), ("'", "'"), ("\\t", "\t"), ("';'", ";"), (";", ";")]
)
def test_an_override_may_be_a_lone_sign(text: str, value: str) -> None:
    """A comma, a bar or a quote is no YAML, and what messages ask for: it is taken as it was typed."""
    field = "thousands" if text == "'" else "separator"
    fields = {
        "dataset": {"path": "csv"},
        "task": {"kind": "text-regression", "text": "x"},
        "model": {"checkpoint": "./m"},
    }
    recipe = load_recipe(fields, [f"dataset.{field}={text}"])
    assert getattr(recipe.dataset, field) == value
