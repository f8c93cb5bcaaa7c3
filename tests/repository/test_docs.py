"""README and docs: every command that is shown exists, and every block runs where it says nothing else.

A block is between two lines of three backticks. The comment before it may say what it is:

    <!-- file: reviews.csv -->    the block is that file, for the commands and the Python behind it on the page
    <!-- not run: the reason -->  its commands are only read: options, arguments and recipes must be right

Each page has a folder of its own, with two small runs: where a page says RUN and OTHER, these are meant, and RECIPE is the
quickstart. A training ends after two steps, and takes the checkpoint that comes with hfpipe in place of one on the Hub.
"""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from stopped import Dying, Killed, digest, records

import hfpipe
from hfpipe.recipe import load_recipe
from hfpipe.recipe.schema import json_schema
from hfpipe.recipe.shipped import looks_like_data

ROOT = Path(__file__).parents[2]
GENERATED = {"recipe.md", "faults.md"}  # each with its own test
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in GENERATED),
]
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
LANGUAGES = {"console", "csv", "json", "mermaid", "python", "text", "yaml"}
NOT_RUN = 13
"""How many blocks are only read. Another one needs a reason that stands beside it."""
SHORT = ["train.max_steps=2"]
SMALL = ["dataset.splits.train=train[:64]", "dataset.splits.evaluation=validation[:60]", "train.epochs=1"]
KEPT = "checkpoints.keep_state=true"  # a page goes on with them
TRAINS = {"finetune", "compare", "doctor"}
STANDS_FOR = {"RUN": "first", "OTHER": "second", "RECIPE": "quickstart"}


@dataclass(frozen=True)
class Block:
    """One block of a page."""

    page: str
    line: int
    language: str
    text: str
    file: str | None
    not_run: str | None

    def __str__(self) -> str:
        """README.md:12."""
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """What is typed: the lines behind `$`, joined where they go on, without comments."""
        joined = self.text.replace("\\\n", " ")
        return [line[2:].partition("  #")[0].strip() for line in joined.splitlines() if line.startswith("$ ")]

    @property
    def output(self) -> list[str]:
        """What is printed, line by line."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if line.strip() and not line.startswith("$ ")]


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        what, _, rest = (match["mark"] or "").partition(": ")
        line = text.count("\n", 0, match.start("language")) + 1
        file, not_run = (rest if what == kind else None for kind in ("file", "not run"))
        found.append(Block(page.name, line, match["language"], match["text"], file, not_run))
    return found


BLOCKS = {page.name: blocks_of(page) for page in PAGES}
ALL = [block for blocks in BLOCKS.values() for block in blocks]
COMMANDS = [(block, command) for block in ALL if block.language == "console" for command in block.commands]
YAML = [block for block in ALL if block.language == "yaml"]


def arguments_of(command: str) -> list[str] | None:
    """What `hfpipe` is given; None where the command is another one.

    Variables before it and the commands that feed it are left out; under torchrun it is `-m hfpipe`.
    """
    words = shlex.split(command, comments=True)
    if "|" in words:
        words = words[len(words) - words[::-1].index("|") :]
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    if words[:1] == ["torchrun"]:
        words = words[words.index("-m") + 1 :]
    return words[1:] if words[:1] == ["hfpipe"] else None


def app() -> Any:
    """The typer application behind the command `hfpipe`."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    module, _, function = settings["project"]["scripts"]["hfpipe"].partition(":")
    main = getattr(importlib.import_module(module), function)
    return importlib.import_module(main.__module__).app


def parsed(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """The name of a command and its parameters, as typer reads them; nothing is run."""
    from typer.main import get_command

    command: Any = get_command(app())
    context = command.make_context("hfpipe", [*arguments])
    names = []
    while hasattr(command, "commands"):
        rest = [*context._protected_args, *context.args]
        name, command, left = command.resolve_command(context, rest)
        names.append(name)
        context = command.make_context(name, left, parent=context)
    return " ".join(names), context.params


def recipe_of(name: str, page: str, folder: Path) -> str:
    """What stands for a recipe that a page names: one that the page shows, else the shipped one; RECIPE is any."""
    shown = [block for block in BLOCKS[page] if block.file == name]
    if shown:
        (folder / name).write_text(shown[-1].text, encoding="utf-8")
        return str(folder / name)
    return "quickstart" if name == "runs/RUN/recipe.yaml" else STANDS_FOR.get(name, name)


@pytest.fixture(autouse=True)
def examples_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages that name a module of examples/ put that folder on PYTHONPATH."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))


def test_the_blocks_are_found() -> None:
    """The pages have blocks of known languages, and a mark before one says something that is known."""
    assert len(PAGES) >= 20
    assert len(COMMANDS) >= 60
    assert {block.language for block in ALL} <= LANGUAGES
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        marks = re.findall(r"^<!-- (.*?) -->$", text, flags=re.MULTILINE)
        assert len([mark for mark in marks if mark.startswith(("file: ", "not run: "))]) == sum(
            bool(block.file or block.not_run) for block in BLOCKS[page.name]
        ), f"{page.name}: a mark that stands before no block"


def test_few_blocks_are_only_read() -> None:
    """Every block that is not run says why, and there are no more of them than there were."""
    not_run = [block for block in ALL if block.not_run]
    assert all(len(block.not_run or "") >= 10 for block in not_run)
    assert len(not_run) == NOT_RUN, [str(block) for block in not_run]


@pytest.mark.parametrize(("block", "command"), COMMANDS, ids=lambda value: str(value))
def test_a_command_exists(block: Block, command: str, tmp_path: Path) -> None:
    """Each command that is shown has these options and arguments, and what it changes in a recipe can be changed."""
    arguments = arguments_of(command)
    if arguments is None:
        program = shlex.split(command, comments=True)[0]
        assert not program.startswith(("./", ".venv")) or program.startswith(".venv") or (ROOT / program).is_file()
        return
    name, given = parsed(arguments)
    recipe, changes = given.get("recipe"), list(given.get("overrides") or ())
    if name == "finetune" and recipe and "=" in recipe:
        recipe, changes = None, [recipe, *changes]
    if recipe and looks_like_data(str(recipe)):
        return  # what is made of it is seen when the page is run
    if "recipe" in given and (recipe or changes) and name != "recipes validate":
        load_recipe(recipe_of(str(recipe or "RECIPE"), block.page, tmp_path), changes)


@pytest.mark.parametrize("block", YAML, ids=str)
def test_a_recipe_is_valid(block: Block, tmp_path: Path) -> None:
    """Each block of YAML is a whole recipe; one with mistakes is shown as a file, with what is said of it."""
    if block.file and any(f"validate {block.file}" in command for _, command in COMMANDS):
        return  # what is said of its mistakes is compared when the page is run
    file = tmp_path / "recipe.yaml"
    file.write_text(block.text, encoding="utf-8")
    assert load_recipe(file).name in block.text


def test_the_guide_shows_every_kind_of_task() -> None:
    """One recipe of each kind of the schema is there, the first without saying its kind."""
    spec = json_schema()["$defs"]["Task"]["properties"]["kind"]
    kinds = [kind for one in (spec, *spec.get("anyOf", ())) for kind in one.get("enum", ())]
    assert len(kinds) >= 6
    shown = {kind for kind in kinds if any(f"kind: {kind}" in block.text for block in YAML)}
    assert shown | {"text-classification"} == {*kinds}


def test_the_index_has_every_page() -> None:
    """docs/index.md names each page of docs once, and nothing else."""
    linked = re.findall(
        r"^\* \[[^]]+\]\(([^)]+)\)", (ROOT / "docs" / "index.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert sorted(linked) == sorted([*pages, "../README.md", "../CONTRIBUTING.md"])


def test_every_public_name_is_explained() -> None:
    """docs/python.md explains each name of `hfpipe.__all__`, and its Python uses each function."""
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    code = "".join(block.text for block in BLOCKS["python.md"])
    for name in hfpipe.__all__:
        assert re.search(rf"\*\*`{name}\b", text), name
        assert name[0].isupper() or f"hfpipe.{name}(" in code, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    """Each link to a file, and each path of this repository between backticks, leads to something."""
    text = page.read_text(encoding="utf-8")
    linked = [page.parent / one for one in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)]
    named = re.findall(
        r"`(?:\./)?((?:hfpipe|parts|training|scripts|tests|docs|recipes|benchmarks|examples)/[\w/.-]+)[ `]", text
    )
    found = [
        next((f for f in (ROOT / one, ROOT / "hfpipe" / one, ROOT / "hfpipe" / f"{one}.py") if f.exists()), ROOT / one)
        for one in named
    ]
    assert [str(one) for one in (*linked, *found) if not one.exists()] == []


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `runs` with two small runs."""
    folder = tmp_path_factory.mktemp("trained") / "runs"
    for name, rate in (("first", "3e-4"), ("second", "1e-3")):
        hfpipe.finetune("quickstart", overrides=[*SMALL, KEPT, f"optimizer.lr={rate}"], runs_dir=folder, name=name)
    return folder


@pytest.mark.parametrize("page", [name for name, blocks in BLOCKS.items() if blocks])
def test_a_page_runs(
    page: str,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hfpipe_command: Callable[..., Any],
) -> None:
    """From top to bottom: files are written, Python and commands are run, and what is printed has the lines shown."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    shutil.copytree(trained, tmp_path / "runs")
    names: dict[str, Any] = {"__name__": "page"}
    for block in BLOCKS[page]:
        if block.file:
            (tmp_path / block.file).write_text(block.text, encoding="utf-8")
        elif block.not_run:
            continue
        elif block.language == "python":
            monkeypatch.syspath_prepend(str(tmp_path))  # as for a script in that folder
            exec(compile("\n" * block.line + block.text, block.page, "exec", dont_inherit=True), names)
        elif block.language == "console":
            for folder in re.findall(r"PYTHONPATH=(\S+)", block.text):
                monkeypatch.syspath_prepend(str((ROOT if folder == "examples" else tmp_path) / folder))
            printed = "".join(run(command, hfpipe_command) for command in block.commands)
            lines = {masked(line) for line in printed.splitlines()}
            missing = [line for line in block.output if masked(line) not in lines]
            assert not missing, f"{block}: is not printed: {missing}\nprinted:\n{printed}"


def run(command: str, hfpipe_command: Callable[..., Any]) -> str:
    """Run one command, shortened where it trains; what it prints."""
    arguments = arguments_of(command)
    if command.startswith("./scripts/quickstart"):
        arguments = ["finetune", "quickstart"]
        assert "finetune recipes/quickstart.yaml" in (ROOT / "scripts" / "quickstart").read_text(encoding="utf-8")
    if arguments is None:
        return ""  # not hfpipe's: that it is there is another test's
    small = SMALL if "RECIPE" in arguments and arguments[0] in TRAINS else []
    arguments = [re.sub(r"\b(RUN|OTHER|RECIPE)\b", lambda word: STANDS_FOR[word[0]], one) for one in arguments]
    name, given = parsed(arguments)
    if name in TRAINS and given["recipe"] and not given.get("resume"):
        is_data = looks_like_data(given["recipe"])
        from_the_hub = is_data or not load_recipe(given["recipe"]).model.checkpoint.startswith("embedded:")
        arguments += [*SHORT, *(["model.checkpoint=embedded:tiny-bert"] if from_the_hub else [])]
        behind = arguments.index(given["recipe"]) + 1  # before what the command changes itself
        arguments[behind:behind] = small
    done = hfpipe_command(*arguments)
    assert done.code == 0 or name == "recipes validate", (command, done.err)
    return f"{done.err}\n{done.out}\n"


def masked(line: str) -> str:
    """A line without its numbers, without what only fills a table, and without the precision that this CPU computes in."""
    line = re.sub(r"(bf16|fp32): the CPU has .*", "precision", line)
    return " ".join(re.sub(r"\d[\d,.]*(?:e[+-]?\d+)?", "#", line).split())


def test_the_engine_of_the_guide_goes_on_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine of docs/extending.md, killed inside an epoch and resumed, ends with the weights of hfpipe's loop."""
    (block,) = [block for block in BLOCKS["extending.md"] if block.file == "own_engine.py"]
    (tmp_path / "own_engine.py").write_text(block.text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    small = ["dataset.splits.train=train[:56]", "dataset.splits.evaluation=validation[:20]", "train.batch_size=8"]
    small += ["train.epochs=2", "train.accumulate=2", "train.precision=fp32", "checkpoints.every_steps=1"]
    whole = hfpipe.finetune("quickstart", overrides=small, engine="loop", runs_dir=tmp_path, name="whole")
    own = [*small, "engine=own_engine:train"]
    with pytest.raises(Killed):
        hfpipe.finetune("quickstart", overrides=own, runs_dir=tmp_path, name="own", display=Dying(3))
    run = hfpipe.finetune(resume=tmp_path / "own")
    assert digest(run) == digest(whole)
    assert records(run, "step", "evaluation") == records(whole, "step", "evaluation")
