"""Local paths in a recipe: relative to the file that says them, whatever the working directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hfpipe.recipe import Recipe, load_recipe, with_overrides

REST = "task: {text: text}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of recipes beside the working directory."""
    for name in ("project/recipes", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "project"


def read(path: Path, text: str, *overrides: str) -> Recipe:
    """The recipe of a file with this text."""
    path.write_text(text + REST)
    return load_recipe(path, overrides)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("a.csv", "{project}/recipes/a.csv"),
        ("./a.csv", "{project}/recipes/a.csv"),
        ("../data/*.csv", "{project}/data/*.csv"),
        ("[a.csv, /b.csv]", ("{project}/recipes/a.csv", "/b.csv")),
        ("{train: a.csv, test: [b.csv, c.csv]}", {"train": "{recipes}/a.csv", "test": ["{recipes}/b.csv", "{recipes}/c.csv"]}),
        ("https://data.example.org/a.csv", "https://data.example.org/a.csv"),
        ("~/a.csv", os.path.expanduser("~/a.csv")),
    ],
)  # fmt: skip
def test_data_files_start_from_the_folder_of_the_recipe(project: Path, written: str, meant: Any) -> None:
    """One file, lists, mappings and globs; addresses and absolute paths stay, and `~` is the home folder."""

    def whole(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("{recipes}", str(project / "recipes")).replace("{project}", str(project))
        if isinstance(value, dict):
            return {key: whole(part) for key, part in value.items()}
        return type(value)(map(whole, value))

    text = f"dataset: {{path: csv, data_files: {written}, hosts: [data.example.org]}}\nmodel: {{checkpoint: org/m}}\n"
    assert read(project / "recipes" / "r.yaml", text).dataset.data_files == whole(meant)


def test_folders_and_scripts_start_there_too(project: Path) -> None:
    """`dataset.path`, `model.checkpoint`, metric scripts and files of the trainer; ids, formats and modules stay."""
    text = (
        "dataset: {path: ./data}\nmodel: {checkpoint: ../tiny}\nevaluate: {metrics: [accuracy, my.py, 'pkg:metric']}\n"
        "allow_code: true\ntrainer: {accelerator_config: own.json}\n"
    )
    recipe, recipes = read(project / "recipes" / "r.yaml", text), project / "recipes"
    assert (recipe.dataset.path, recipe.model.checkpoint) == (str(recipes / "data"), str(project / "tiny"))
    assert recipe.evaluate.metrics == ("accuracy", str(recipes / "my.py"), "pkg:metric")
    assert recipe.trainer == {"accelerator_config": str(recipes / "own.json")}
    hub = read(recipes / "h.yaml", "dataset: {path: org/data}\nmodel: {checkpoint: org/m}\n")
    assert (hub.dataset.path, hub.model.checkpoint) == ("org/data", "org/m")


def test_each_file_has_its_own_relative_paths(project: Path) -> None:
    """Of an extended recipe the paths start from its folder; overrides and mappings from the working directory."""
    (project / "below.yaml").write_text("dataset: {path: csv, data_files: a.csv}\nmodel: {checkpoint: ./tiny}\n" + REST)
    recipe = read(project / "recipes" / "r.yaml", "extends: ../below.yaml\nmodel: {checkpoint: ./own}\n")
    assert recipe.dataset.data_files == str(project / "a.csv")
    assert recipe.model.checkpoint == str(project / "recipes" / "own")
    here = Path.cwd()
    for change in ("dataset.data_files=b.csv", "dataset={path: csv, data_files: b.csv}"):
        assert with_overrides(recipe, [change]).dataset.data_files == str(here / "b.csv")
    changed = with_overrides(recipe, ["dataset.data_files={test: b.csv}", "dataset.data_files.train=c.csv"])
    assert changed.dataset.data_files == {"test": str(here / "b.csv"), "train": str(here / "c.csv")}
    fields = {"dataset": {"path": "./d"}, "model": {"checkpoint": "./m"}, "task": {"text": "text"}}
    assert load_recipe(fields).dataset.path == str(here / "d")


def test_a_folder_with_brackets_in_its_name_is_no_pattern(tmp_path: Path) -> None:
    """The recipe's folder is taken literally, and so is a file that is there under just that name."""
    from hfpipe.parts.data.open import open_data

    folder = tmp_path / "v[2]"
    folder.mkdir()
    for name in ("a[1].csv", "b.csv"):
        (folder / name).write_text(f"text,label\n{name},x\n")
    for pattern, texts in (("a[1].csv", ["a[1].csv"]), ("[b]*.csv", ["b.csv"])):
        text = f"dataset: {{path: csv, data_files: '{pattern}'}}\nmodel: {{checkpoint: ./m}}\n"
        assert open_data(read(folder / "r.yaml", text)).splits["train"]["text"][:] == texts


def test_files_that_lie_in_the_working_directory_are_told(project: Path) -> None:
    """Who had paths from the working directory reads what to write now."""
    from hfpipe.errors import DataError
    from hfpipe.parts.data.open import open_data

    (Path.cwd() / "data").mkdir()
    (Path.cwd() / "data" / "a.csv").write_text("text,label\na,x\n")
    text = "dataset: {path: csv, data_files: data/a.csv}\nmodel: {checkpoint: ./m}\n"
    with pytest.raises(DataError) as caught:
        open_data(read(project / "recipes" / "r.yaml", text))
    assert f"no file at '{project}/recipes/data/a.csv'" in str(caught.value)
    told = "'data/a.csv' is in the working directory, and paths in a recipe start from the folder of its file"
    assert f"{told}: write '{Path.cwd()}/data/a.csv'" in str(caught.value)


def test_no_place_of_a_run_names_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in the home folder is found from a run that lies there, too; a way into it from outside is not kept."""
    from hfpipe.runs.places import relative_places

    home = tmp_path / "home" / "someone"
    monkeypatch.setenv("HOME", str(home))
    data = {"train": str(home / "a.csv"), "test": str(tmp_path / "b.csv")}
    recipe = load_recipe(
        {"dataset": {"path": "csv", "data_files": data}, "model": {"checkpoint": "~/m"}, "task": {"text": "text"}}
    )
    inside = {data["train"]: "../../a.csv", data["test"]: "../../../../b.csv", str(home / "m"): "../../m"}
    assert relative_places(recipe, home / "runs" / "one") == inside
    assert relative_places(recipe, tmp_path / "runs" / "one") == {data["test"]: "../../b.csv"}


def test_a_run_is_used_from_any_folder_and_after_a_move(
    project: Path, pairs: Any, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, no_report: None
) -> None:
    """Evaluated, reproduced and resumed from elsewhere; then project and runs are moved as a whole, and it still is.

    A data file that was edited since is told; nothing of the place stands in what is pushed.
    """
    import json

    import hfpipe
    from hfpipe.experiments.reproduce import reproduce
    from hfpipe.runs import find_run
    from hfpipe.sharing.push import uploads
    from hfpipe.system.display import Silent

    for split in ("train", "validation"):
        lines = "".join(json.dumps(row) + "\n" for row in pairs[split])
        (project / f"{split}.jsonl").write_text(lines)
    (project / "recipes" / "r.yaml").write_text(
        "dataset: {path: jsonl, data_files: {train: ../train.jsonl, validation: ../validation.jsonl}}\n"
        f"task: {{text: [sentence1, sentence2]}}\nmodel: {{checkpoint: {tiny_checkpoint}}}\n"
        "train: {max_steps: 4, batch_size: 8, precision: fp32}\nengine: loop\ncheckpoints: {every_steps: 2, keep_state: true}\n"
    )
    run = hfpipe.finetune(project / "recipes" / "r.yaml", runs_dir=project / "runs", name="one")
    said, metrics = [], run.metrics

    class Heard(Silent):
        def notice(self, text: str) -> None:
            said.append(text)

    def use(folder: Path) -> None:
        monkeypatch.chdir(folder)
        del said[:]
        again = find_run(str(project / "runs" / "one"), folder)
        assert hfpipe.evaluate(again, display=Heard()).metrics == metrics
        assert not [text for text in said if "content is another" in text]
        sent = b"".join(one.content for one in uploads(again, "ann/tiny") if isinstance(one.content, bytes))
        assert str(project).encode() not in sent

    use(project.parent)
    assert reproduce(find_run(str(run.path), project), runs_dir=project / "more").equal
    moved = project.parent / "moved"
    project.rename(moved)
    project = moved
    use(project.parent)
    use(project / "recipes")
    more = {"overrides": ["train.max_steps=6"], "allow_change": ["train.max_steps"]}
    assert hfpipe.finetune(resume=project / "runs" / "one", **more).records[-1]["step"] == 6
    (project / "validation.jsonl").write_text(json.dumps(pairs["validation"][0]) + "\n")
    hfpipe.evaluate(find_run(str(project / "runs" / "one"), project), display=Heard())
    assert [text for text in said if "content is another" in text]
